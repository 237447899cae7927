package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// overdueAfter is how long something may take to go once its time has come.
const overdueAfter = 2 * time.Minute

// Storehouse is a Sweeper that keeps what nobody uses for as long as there is room, and says what
// that is. It may be called beside Sweep.
type Storehouse interface {
	Unused(ctx context.Context) ([]dayfly.Departure, error)
}

// Departures lists what nobody needs, or what lasts only as long as something else does: all that goes
// by itself, with why and when. What goes first comes first. It takes nothing away.
func (r *Reconciler) Departures(ctx context.Context) ([]dayfly.Departure, error) {
	list := slices.Concat(r.departingDeployments(), r.departingHistory(), r.departingLeftovers())
	environments, err := r.departingEnvironments(ctx)
	if err != nil {
		return nil, err
	}
	list = append(list, environments...)
	for _, s := range r.Sweepers {
		if house, ok := s.(Storehouse); ok {
			unused, err := house.Unused(ctx)
			if err != nil {
				return nil, err
			}
			list = append(list, unused...)
		}
	}
	slices.SortStableFunc(list, func(a, b dayfly.Departure) int {
		switch {
		case a.At != nil && b.At != nil && !a.At.Equal(*b.At):
			return a.At.Compare(*b.At)
		case (a.At == nil) != (b.At == nil):
			if a.At != nil {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
	})
	return list, nil
}

// going says since when something is not needed, and that it goes after a while.
func (r *Reconciler) going(d dayfly.Departure, since time.Time, after time.Duration) dayfly.Departure {
	since = since.UTC()
	at := since.Add(after)
	d.Since, d.At, d.Overdue = &since, &at, r.Now().Sub(at) > overdueAfter
	return d
}

// departingDeployments are those that are stopped, and shared ones that nobody refers to.
func (r *Reconciler) departingDeployments() (list []dayfly.Departure) {
	r.mu.Lock()
	unused := maps.Clone(r.unused)
	r.mu.Unlock()
	for rec := range registry.All(r.Cache, registry.Deployments) {
		d := rec.Value
		found := dayfly.Departure{Kind: "deployment", Name: d.Key.Service + "@" + shortVersion(d.Key.Version), Project: d.Key.Project, Env: d.Environment}
		if d.Retiring != nil {
			found.Reason = "another version has taken its place, or its environment is gone"
			if d.Shared() {
				found.Reason = "no environment refers to it"
			}
			found.How = "it is out of rotation: it stops as soon as its last request has ended, and is not waited for any longer than until then"
			found = r.going(found, d.Retiring.Since, time.Duration(d.Retiring.Drain))
			found.Overdue = false // how long it then takes to stop is its own affair
			list = append(list, found)
			continue
		}
		if !d.Shared() || registry.InUse(r.Cache, d.Key) {
			continue
		}
		found.Reason = "it is shared, and no environment refers to it"
		found.How = fmt.Sprintf("it is retired when that has been so for %s; an environment that pins this version keeps it", dayfly.Duration(sharedGrace))
		if since, known := unused[d.ID]; known {
			found = r.going(found, since, sharedGrace)
		}
		list = append(list, found)
	}
	return list
}

// shortVersion makes a commit readable.
func shortVersion(version string) string {
	if len(version) == 40 && strings.Trim(version, "0123456789abcdef") == "" {
		return version[:10]
	}
	return version
}

// departingHistory are the logs and events of what is gone.
func (r *Reconciler) departingHistory() (list []dayfly.Departure) {
	names := map[string]registry.EndedEnvironment{}
	how := "they are kept for " + dayfly.Duration(r.KeepLogs).String() + " (--keep-logs)"
	for e := range registry.All(r.Cache, registry.Ended) {
		names[e.Key] = e.Value
		list = append(list, r.going(dayfly.Departure{
			Kind: "events", Name: e.Value.Name, Project: e.Value.Project, Env: e.Value.Name, Reason: "the environment is gone", How: how,
		}, e.Value.EndedAt, r.KeepLogs))
	}
	for d := range registry.All(r.Cache, registry.Retired) {
		found := dayfly.Departure{Kind: "logs", Name: d.Value.Service, Reason: "what wrote them is gone", How: how + ", or until all logs are larger than --quota-logs"}
		if project, shared := strings.CutPrefix(d.Value.Environment, dayfly.SharedOwner("")); shared {
			found.Project = project
		} else if env, there := registry.EnvironmentByID(r.Cache, d.Value.Environment); there {
			found.Project, found.Env = env.Value.Spec.Project, env.Key
		} else if env, there := names[d.Value.Environment]; there {
			found.Project, found.Env = env.Project, env.Name
		}
		list = append(list, r.going(found, d.Value.RetiredAt, r.KeepLogs))
	}
	return list
}

// departingLeftovers are what exists on this host and belongs to nothing.
func (r *Reconciler) departingLeftovers() (list []dayfly.Departure) {
	for _, l := range r.Leftovers() {
		list = append(list, r.going(dayfly.Departure{
			Kind: l.Kind, Name: l.Name, Reason: "it belongs to nothing", How: fmt.Sprintf("it is taken away %s after it was noticed", dayfly.Duration(orphanGrace)),
		}, l.Since, orphanGrace))
	}
	return list
}

// departingEnvironments are those that nobody created: they last as long as what is registered with them.
func (r *Reconciler) departingEnvironments(ctx context.Context) (list []dayfly.Departure, err error) {
	for name := range registry.RegisteredEnvironments(r.Cache, "") {
		project, ok := registry.Unmanaged(r.Cache, name)
		if !ok {
			continue
		}
		count, seen, ends := 0, time.Time{}, time.Time{}
		for reg := range registry.RegistrationsOf(r.Cache, project, name) {
			at, alive, err := r.Store.LastSeen(ctx, reg.Value, r.Now())
			if err != nil {
				return nil, err
			}
			if !alive {
				continue
			}
			count++
			if at.After(seen) {
				seen = at
			}
			if end := at.Add(time.Duration(reg.Value.TTL)); end.After(ends) {
				ends = end
			}
		}
		if count == 0 { // gone by now
			continue
		}
		instances := "1 registered instance"
		if count > 1 {
			instances = fmt.Sprintf("%d registered instances", count)
		}
		list = append(list, r.going(dayfly.Departure{
			Kind: "environment", Name: name, Project: project, Env: name,
			Reason: "nobody created it: it is there by " + instances, How: "it goes with the last of them, which stays as long as it renews its registration",
		}, seen, ends.Sub(seen)))
	}
	return list, nil
}
