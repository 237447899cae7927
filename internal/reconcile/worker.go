package reconcile

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/dayfly-dev/dayfly"
)

// worker reconciles objects of one kind by their keys: each key by one goroutine
// at a time, as often as it changes, and again with back-off when that fails.
type worker struct {
	kind      string
	reconcile func(ctx context.Context, key string) error
	queue     workqueue.TypedRateLimitingInterface[string]
	log       *slog.Logger
}

func newWorker(kind string, reconcile func(context.Context, string) error, log *slog.Logger) *worker {
	return &worker{kind: kind, reconcile: reconcile, log: log,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](20*time.Millisecond, 30*time.Second))}
}

func (w *worker) add(key string)                       { w.queue.Add(key) }
func (w *worker) addAfter(key string, d time.Duration) { w.queue.AddAfter(key, d) }

// run works with n goroutines until ctx ends.
func (w *worker) run(ctx context.Context, n int) {
	var all sync.WaitGroup
	stop := context.AfterFunc(ctx, w.queue.ShutDown)
	defer stop()
	for range n {
		all.Go(func() {
			for w.next(ctx) {
			}
		})
	}
	all.Wait()
}

func (w *worker) next(ctx context.Context) bool {
	key, stop := w.queue.Get()
	if stop {
		return false
	}
	defer w.queue.Done(key)
	err := w.reconcile(ctx, key)
	switch {
	case err == nil:
		w.queue.Forget(key)
	case ctx.Err() != nil:
	case dayfly.ErrorCode(err) == dayfly.CodeConflict:
		// Something changed meanwhile: look again, no cause for worry.
		w.queue.AddAfter(key, 10*time.Millisecond)
	default:
		w.log.Warn("reconciling failed; it is tried again", w.kind, key, "error", err)
		w.queue.AddRateLimited(key)
	}
	return true
}
