package registry

import (
	"slices"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/status"
)

// Gather collects all that the state holds about one environment.
func Gather(cache *Cache, r Record[dayfly.EnvironmentRecord]) status.Input {
	in := status.Input{Record: r.Value, Revision: r.Revision, Observed: map[string]dayfly.DeploymentStatus{}}
	if res, ok := Lookup(cache, Resolutions, r.Key); ok && res.Value.Environment == r.Value.ID {
		in.Resolution = &res.Value
	}
	if rel, ok := Lookup(cache, Releases, r.Key); ok {
		in.Release = rel.Value
	}
	add := func(d Record[dayfly.Deployment]) {
		in.Deployments = append(in.Deployments, d.Value)
		if st, ok := Lookup(cache, Observed, d.Key); ok {
			in.Observed[d.Key] = st.Value
		}
	}
	for d := range DeploymentsOf(cache, r.Value.ID) {
		add(d)
	}
	for _, id := range sharedBy(cache, in) {
		if d, ok := Lookup(cache, Deployments, id); ok {
			add(d)
		}
	}
	if in.Resolution != nil {
		for _, rs := range in.Resolution.Services {
			if rs.From != dayfly.FromRegistered {
				continue
			}
			if in.Pool == nil {
				in.Pool = map[string]int{}
			}
			for range RegisteredVersion(cache, r.Value.Spec.Project, rs.Name, rs.Version) {
				in.Pool[rs.Name]++
			}
		}
	}
	for reg := range RegistrationsOf(cache, r.Value.Spec.Project, r.Key) {
		in.Registered = append(in.Registered, reg.Value)
	}
	return in
}

// sharedBy gives the ids of the shared deployments that an environment wants or is served by.
func sharedBy(cache *Cache, in status.Input) (ids []string) {
	if in.Resolution != nil {
		for _, rs := range in.Resolution.Services {
			if rs.From == dayfly.FromShared {
				ids = append(ids, dayfly.KeyOf(in.Record, rs).ID())
			}
		}
	}
	owner := dayfly.SharedOwner(in.Record.Spec.Project)
	for _, targets := range in.Release.Services {
		for _, t := range targets {
			if d, ok := Lookup(cache, Deployments, t.Deployment); ok && d.Value.Key.Owner == owner && !slices.Contains(ids, d.Key) {
				ids = append(ids, d.Key)
			}
		}
	}
	return ids
}

// Lenders gives what the state holds about the environments from which one borrows, by name.
func Lenders(cache *Cache, in status.Input) map[string]status.Input {
	lenders := map[string]status.Input{}
	if in.Resolution == nil {
		return lenders
	}
	for name := in.Resolution.Base; name != "" && len(lenders) < 100; {
		if _, seen := lenders[name]; seen {
			break
		}
		r, ok := Lookup(cache, Environments, name)
		if !ok {
			break
		}
		lender := Gather(cache, r)
		lenders[name] = lender
		name = ""
		if lender.Resolution != nil {
			name = lender.Resolution.Base
		}
	}
	return lenders
}

// UsersOf gives the names of the environments that want a shared deployment, or are served by it.
func UsersOf(cache *Cache, project, deployment string) (names []string) {
	for r := range EnvironmentsOf(cache, project) {
		in := status.Input{Record: r.Value}
		if res, ok := Lookup(cache, Resolutions, r.Key); ok && res.Value.Environment == r.Value.ID && !r.Value.Deleting {
			in.Resolution = &res.Value
		}
		if rel, ok := Lookup(cache, Releases, r.Key); ok {
			in.Release = rel.Value
		}
		if slices.Contains(sharedBy(cache, in), deployment) {
			names = append(names, r.Key)
		}
	}
	return names
}
