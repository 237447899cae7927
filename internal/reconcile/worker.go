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
	log       *slog.Logger

	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[string] // nil while it does not run
}

func newWorker(kind string, reconcile func(context.Context, string) error, log *slog.Logger) *worker {
	return &worker{kind: kind, reconcile: reconcile, log: log}
}

// current gives the queue, nil while the worker does not run: whoever starts it brings
// every object before it once, so nothing is lost by then.
func (w *worker) current() workqueue.TypedRateLimitingInterface[string] {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queue
}

func (w *worker) add(key string) {
	if q := w.current(); q != nil {
		q.Add(key)
	}
}

func (w *worker) addAfter(key string, d time.Duration) {
	if q := w.current(); q != nil {
		q.AddAfter(key, d)
	}
}

// run works with n goroutines until ctx ends. It may be called again then: a server can
// lose its role and get it back. begin is called when keys can be added.
func (w *worker) run(ctx context.Context, n int, begin func()) {
	queue := workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](20*time.Millisecond, 30*time.Second))
	w.mu.Lock()
	w.queue = queue
	w.mu.Unlock()
	stop := context.AfterFunc(ctx, queue.ShutDown)
	defer stop()
	begin()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for w.next(ctx, queue) {
			}
		})
	}
	all.Wait()
	w.mu.Lock()
	w.queue = nil
	w.mu.Unlock()
}

func (w *worker) next(ctx context.Context, queue workqueue.TypedRateLimitingInterface[string]) bool {
	key, stop := queue.Get()
	if stop {
		return false
	}
	defer queue.Done(key)
	err := w.reconcile(ctx, key)
	switch {
	case err == nil:
		queue.Forget(key)
	case ctx.Err() != nil:
	case dayfly.ErrorCode(err) == dayfly.CodeConflict:
		// Something changed meanwhile: look again, no cause for worry.
		queue.AddAfter(key, 10*time.Millisecond)
	default:
		w.log.Warn("reconciling failed; it is tried again", w.kind, key, "error", err)
		queue.AddRateLimited(key)
	}
	return true
}
