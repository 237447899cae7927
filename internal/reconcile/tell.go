package reconcile

import (
	"context"
	"hash/maphash"
	"sync"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// telling keeps what is told of an environment in the order in which it happens. A change is written first
// and told then; what another worker does because of the change must not be told before it. So those that
// write how a deployment or a database is share the lock of its environment until they have told it, and a
// pass over the environment has it for itself. Environments share a few locks by their ids.
type telling struct {
	seed  maphash.Seed
	locks [64]sync.RWMutex
}

func newTelling() *telling { return &telling{seed: maphash.MakeSeed()} }

func (t *telling) of(environmentID string) *sync.RWMutex {
	return &t.locks[maphash.String(t.seed, environmentID)%uint64(len(t.locks))]
}

// commitAndTell writes how a part of an environment is, and tells it when it is written.
func (r *Reconciler) commitAndTell(ctx context.Context, environmentID string, tell func(), ops ...registry.Op) (revision int64, err error) {
	lock := r.telling.of(environmentID)
	lock.RLock()
	defer lock.RUnlock()
	if revision, err = r.commit(ctx, ops...); err == nil {
		tell()
	}
	return revision, err
}

// commit writes what a pass has decided, and finishes what it began though ctx ends meanwhile: nobody
// could say afterwards whether the write went through, and what it made happen would be told to nobody.
// The store bounds how long that takes.
func (r *Reconciler) commit(ctx context.Context, ops ...registry.Op) (revision int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return registry.Commit(context.WithoutCancel(ctx), r.Store, ops...)
}

// event appends an event to an environment; one that cannot be written is logged.
func (r *Reconciler) event(ctx context.Context, environmentID string, e dayfly.Event) {
	e.Time = r.Now()
	if err := registry.AppendEvent(ctx, r.Store, environmentID, e); err != nil {
		r.Logger.Warn("an event could not be written", "environment", e.Environment, "reason", e.Reason, "error", err)
	}
}
