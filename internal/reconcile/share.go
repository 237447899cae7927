package reconcile

import (
	"context"
	"maps"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

const (
	// sharedGrace is how long a shared deployment stays when nobody refers to it any more.
	sharedGrace = 30 * time.Second
	// missingEvery is how often what is missing is looked for at first.
	missingEvery = 2 * time.Second
)

// shareLoop retires shared deployments to which no environment has referred for a while. References
// are found anew each time: nothing is counted that could be wrong.
func (r *Reconciler) shareLoop(ctx context.Context) {
	unused := map[string]time.Time{} // since when, by deployment
	defer r.setUnused(nil)
	var revision int64
	every(ctx, time.Second, func() {
		defer func() { r.setUnused(unused) }()
		now := r.Cache.Revision()
		if now == revision && len(unused) == 0 {
			return
		}
		revision = now
		seen := map[string]bool{}
		for d := range registry.SharedDeployments(r.Cache) {
			if d.Value.Retiring != nil || registry.InUse(r.Cache, d.Value.Key) {
				continue
			}
			seen[d.Key] = true
			since, known := unused[d.Key]
			if !known {
				unused[d.Key] = r.Now()
				continue
			}
			if r.Now().Sub(since) < sharedGrace {
				continue
			}
			retired := d.Value
			retired.Retiring = &dayfly.Retirement{Since: r.Now(), Drain: dayfly.Duration(r.Drain)}
			if _, err := registry.Commit(ctx, r.Store, registry.Update(registry.Deployments, d.Key, retired, d.Revision)); err != nil && ctx.Err() == nil {
				r.Logger.Debug("a shared deployment could not be retired; it is tried again", "deployment", d.Key, "error", err)
			}
		}
		for id := range unused {
			if !seen[id] {
				delete(unused, id)
			}
		}
	})
}

// setUnused tells others what shareLoop knows.
func (r *Reconciler) setUnused(unused map[string]time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unused = maps.Clone(unused)
}

// missingLoop looks again for what environments miss: at once where it may be there, and else less and
// less often, for that may need a repository.
func (r *Reconciler) missingLoop(ctx context.Context) {
	next := map[string]time.Time{} // by environment
	every(ctx, time.Second, func() {
		missing := map[string]bool{}
		for res := range registry.Missing(r.Cache) {
			if ctx.Err() != nil {
				return
			}
			missing[res.Key] = true
			age := r.Now().Sub(res.Value.Missing[0].Since)
			if !r.Asked.MayBeThere(res.Key) && r.Now().Before(next[res.Key]) {
				continue
			}
			next[res.Key] = r.Now().Add(min(max(age/4, missingEvery), r.Poll))
			r.refresh(ctx, res.Key, nil)
		}
		for name := range next {
			if !missing[name] {
				delete(next, name)
			}
		}
	})
}
