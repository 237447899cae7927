package registry

import (
	"iter"
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
		for _, db := range in.Resolution.Databases {
			if st, ok := Lookup(cache, DatabaseStatuses, db.ID); ok {
				if in.Databases == nil {
					in.Databases = map[string]dayfly.DatabaseStatus{}
				}
				in.Databases[db.ID] = st.Value
			}
		}
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
	if r.Value.Deleting {
		in.Away = away(cache, in)
	}
	for reg := range RegistrationsOf(cache, r.Value.Spec.Project, r.Key) {
		in.Registered = append(in.Registered, reg.Value)
	}
	return in
}

// IsAway says whether a server is not there: nobody has heard of it for as long as its lease.
func IsAway(cache *Cache, node string) bool {
	_, there := Lookup(cache, Nodes, node)
	return node != "" && !there
}

// away gives the servers that are not there and have something of an environment's own.
func away(cache *Cache, in status.Input) (list []status.Away) {
	add := func(node, host, what string) {
		if !IsAway(cache, node) {
			return
		}
		at := slices.IndexFunc(list, func(a status.Away) bool { return a.Node == node })
		if at < 0 {
			at, list = len(list), append(list, status.Away{Node: node})
		}
		if list[at].Host == "" {
			list[at].Host = host
		}
		if !slices.Contains(list[at].Has, what) {
			list[at].Has = append(list[at].Has, what)
		}
	}
	for _, d := range in.Deployments {
		if d.Key.Owner == in.Record.ID {
			add(d.Node, "", d.Key.Service)
		}
	}
	for d := range DatabasesOf(cache, in.Record.ID) {
		add(d.Value.Node, d.Value.Host, "the database "+d.Value.Label)
	}
	return list
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

// UsersOf gives the names of the environments that want a shared deployment, or are served by it, in
// their order. It costs what they cost, however many others there are.
func UsersOf(cache *Cache, key dayfly.DeploymentKey) (names []string) {
	for name := range users(cache, key) {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// InUse says whether an environment wants a shared deployment, or is served by it.
func InUse(cache *Cache, key dayfly.DeploymentKey) bool {
	for range users(cache, key) {
		return true
	}
	return false
}

// users gives the environments that want a shared deployment and then those that are served by it.
func users(cache *Cache, key dayfly.DeploymentKey) iter.Seq[string] {
	return func(yield func(string) bool) {
		for res := range selectBy(cache, Resolutions, byShared, key.Version) {
			r, ok := Lookup(cache, Environments, res.Key)
			if !ok || r.Value.Deleting || r.Value.ID != res.Value.Environment {
				continue
			}
			wants := func(rs dayfly.ResolvedService) bool {
				return rs.From == dayfly.FromShared && dayfly.KeyOf(r.Value, rs) == key
			}
			if slices.ContainsFunc(res.Value.Services, wants) && !yield(res.Key) {
				return
			}
		}
		for rel := range selectBy(cache, Releases, byDeployment, key.ID()) {
			r, ok := Lookup(cache, Environments, rel.Key)
			if ok && r.Value.Spec.Project == key.Project && !yield(rel.Key) {
				return
			}
		}
	}
}
