package keeper

import (
	"context"
	"iter"
	"sync"
)

// locks are one for each name, made when they are asked for.
type locks struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	c       chan struct{} // has room for the one who holds it
	waiting int
}

// lock waits for a name, and gives what lets go of it.
func (l *locks) lock(ctx context.Context, name string) (func(), error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*lock{}
	}
	one := l.held[name]
	if one == nil {
		one = &lock{c: make(chan struct{}, 1)}
		l.held[name] = one
	}
	one.waiting++
	l.mu.Unlock()
	forget := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if one.waiting--; one.waiting == 0 {
			delete(l.held, name)
		}
	}
	select {
	case one.c <- struct{}{}:
		return func() { <-one.c; forget() }, nil
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	}
}

// hub tells followers which clones changed. One that is slow gets each id once, and misses none.
type hub struct {
	mu        sync.Mutex
	closed    bool
	followers map[*follower]bool
}

type follower struct {
	pending map[string]bool
	wake    chan struct{}
}

func (h *hub) tell(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for f := range h.followers {
		f.pending[id] = true
		select {
		case f.wake <- struct{}{}:
		default: // it will look anyway
		}
	}
}

// close ends all followers.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for f := range h.followers {
		close(f.wake)
		delete(h.followers, f)
	}
}

// follow gives ids from now on, until ctx ends or the hub is closed.
func (h *hub) follow(ctx context.Context) iter.Seq[string] {
	f := &follower{pending: map[string]bool{}, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	if h.closed {
		close(f.wake)
	} else {
		if h.followers == nil {
			h.followers = map[*follower]bool{}
		}
		h.followers[f] = true
	}
	h.mu.Unlock()
	leave := func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.followers, f)
	}
	context.AfterFunc(ctx, leave) // also where nobody ranges over it
	return func(yield func(string) bool) {
		defer leave()
		for {
			select {
			case <-ctx.Done():
				return
			case _, ok := <-f.wake:
				if !ok {
					return
				}
			}
			h.mu.Lock()
			ids := f.pending
			f.pending = map[string]bool{}
			h.mu.Unlock()
			for id := range ids {
				if !yield(id) {
					return
				}
			}
		}
	}
}
