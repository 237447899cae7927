package reconcile

import (
	"context"
	"slices"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// expireLoop ends environments when their time is over. It looks at them all only after
// the state has changed, and when the first one is due.
func (r *Reconciler) expireLoop(ctx context.Context) {
	var revision int64
	var due time.Time
	var clock clockGuard
	begun := time.Now()
	every(ctx, time.Second, func() {
		by, trusted := clock.observe(r.Now(), time.Since(begun))
		if by != 0 {
			r.Logger.Warn("the clock has jumped; no environment is ended by a clock that went ahead until it has been right or the same for a while", "by", by.Round(time.Second))
		}
		if !trusted {
			return
		}
		if now := r.Cache.Revision(); now != revision {
			revision, due = now, r.firstDue()
		}
		if due.IsZero() || r.Now().Before(due) {
			return
		}
		ended, err := r.Asked.Expire(ctx)
		if err != nil {
			r.Logger.Warn("expired environments could not be ended; it is tried again", "error", err)
		}
		for _, name := range ended {
			r.Logger.Info("environment expired", "environment", name)
		}
		r.expireDatabases(ctx)
	})
}

// firstDue is when the first environment, or database, expires; zero = none does.
func (r *Reconciler) firstDue() (due time.Time) {
	for e := range registry.Expiring(r.Cache) {
		return *e.Value.ExpiresAt
	}
	for d := range registry.All(r.Cache, registry.Databases) {
		if at := d.Value.ExpiresAt; at != nil && !d.Value.Deleting && (due.IsZero() || at.Before(due)) {
			due = *at
		}
	}
	return due
}

// pruneLoop deletes logs and events of what is gone when they have been kept for
// long enough.
func (r *Reconciler) pruneLoop(ctx context.Context) {
	every(ctx, min(time.Minute, max(time.Second, r.KeepLogs/4)), func() {
		if err := r.prune(ctx); err != nil && ctx.Err() == nil {
			r.Logger.Warn("old logs could not be deleted; it is tried again", "error", err)
		}
	})
}

func (r *Reconciler) prune(ctx context.Context) error {
	limit := r.Now().Add(-r.KeepLogs)
	for d := range registry.All(r.Cache, registry.Retired) {
		if d.Value.Node != r.home() || d.Value.RetiredAt.After(limit) {
			continue
		}
		if err := r.Runner.PruneLogs(ctx, d.Key); err != nil {
			return err
		}
		if _, err := registry.Commit(ctx, r.Store, registry.Delete(registry.Retired, d.Key)); err != nil {
			return err
		}
	}
	for e := range registry.All(r.Cache, registry.Ended) {
		if e.Value.EndedAt.After(limit) {
			continue
		}
		if err := registry.DeleteEvents(ctx, r.Store, e.Key); err != nil {
			return err
		}
		if _, err := registry.Commit(ctx, r.Store, registry.Delete(registry.Ended, e.Key)); err != nil {
			return err
		}
	}
	return nil
}

// every calls do now and then every d until ctx ends.
func every(ctx context.Context, d time.Duration, do func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		do()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweepEvery is how often this host is looked at for what belongs to nothing.
const sweepEvery = 10 * time.Second

// sweepLoop has what belongs to nothing taken away: at once what an earlier life of this
// server left, later ones after a grace.
func (r *Reconciler) sweepLoop(ctx context.Context) {
	grace := time.Duration(0)
	every(ctx, sweepEvery, func() {
		var left []dayfly.Leftover
		for _, s := range r.Sweepers {
			found, err := s.Sweep(ctx, grace, r.known)
			if err != nil && ctx.Err() == nil {
				r.Logger.Warn("what belongs to nothing could not be taken away; it is tried again", "error", err)
			}
			left = append(left, found...)
		}
		grace = orphanGrace
		r.mu.Lock()
		r.left = left
		r.mu.Unlock()
	})
}

// known says whether the state knows a deployment, a database or a version of a template, or keeps logs of it.
func (r *Reconciler) known(id string) bool {
	_, wanted := registry.Lookup(r.Cache, registry.Deployments, id)
	_, kept := registry.Lookup(r.Cache, registry.Retired, id)
	_, isDatabase := registry.DatabaseByID(r.Cache, id)
	_, isVersion := registry.Lookup(r.Cache, registry.TemplateVersions, id)
	return wanted || kept || isDatabase || isVersion
}

// Leftovers gives what was last noticed on this host and belongs to nothing.
func (r *Reconciler) Leftovers() []dayfly.Leftover {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.left)
}
