package source

import (
	"context"
	"sync"
)

// flights lets callers who want the same thing at once share the work. It ends when
// it is done or when nobody waits for it any more: one caller who leaves does not
// take it from the others.
type flights struct {
	mu      sync.Mutex
	running map[string]*flight
}

type flight struct {
	done    chan struct{}
	err     error
	callers int
	cancel  context.CancelFunc
}

// do gives the outcome of work, which it starts where nobody has. The last caller to
// leave waits until work has ended, so that nothing of it is left behind.
func (f *flights) do(ctx context.Context, key string, work func(context.Context) error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		fl, joined := f.join(ctx, key, work)
		if !joined { // everybody has left that one: it is on its way out
			select {
			case <-fl.done:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-fl.done:
			return fl.err
		case <-ctx.Done():
		}
		f.mu.Lock()
		fl.callers--
		last := fl.callers == 0
		f.mu.Unlock()
		if last {
			fl.cancel()
			<-fl.done
		}
		return ctx.Err()
	}
}

func (f *flights) join(ctx context.Context, key string, work func(context.Context) error) (fl *flight, joined bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.running[key]; fl != nil {
		if fl.callers == 0 {
			return fl, false
		}
		fl.callers++
		return fl, true
	}
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	fl = &flight{done: make(chan struct{}), callers: 1, cancel: cancel}
	if f.running == nil {
		f.running = map[string]*flight{}
	}
	f.running[key] = fl
	go func() {
		defer cancel()
		defer close(fl.done)
		fl.err = work(inner)
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.running, key)
	}()
	return fl, true
}
