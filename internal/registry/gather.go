package registry

import (
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
	for d := range DeploymentsOf(cache, r.Value.ID) {
		in.Deployments = append(in.Deployments, d.Value)
		if st, ok := Lookup(cache, Observed, d.Key); ok {
			in.Observed[d.Key] = st.Value
		}
	}
	return in
}
