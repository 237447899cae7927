package registry

import (
	"context"
	"iter"
	"sync"
)

// Change says that a record is another one than before, or gone.
type Change struct {
	Kind     string
	Key      string
	Revision int64 // of the change; that of the cache where it is not known, as after a compaction
	Deleted  bool
}

// Changes gives every change of the cache once, from this call on, until ctx ends
// or the cache stops; before Start, what is loaded counts as changes. What a change
// tells of can be looked up already. A reader that falls behind is not waited for:
// changes of the same record are then merged into one, with the newest revision, in
// the place of the first of them; so what waits never is more than there are records.
func (c *Cache) Changes(ctx context.Context) iter.Seq[Change] { return c.changes(ctx, false) }

// ChangesAndProgress is Changes for those who have to know how far they are, which the
// revisions of merged changes do not tell: whenever everything has been given, a Change
// without Kind says up to which revision, also where no record changed.
func (c *Cache) ChangesAndProgress(ctx context.Context) iter.Seq[Change] { return c.changes(ctx, true) }

func (c *Cache) changes(ctx context.Context, progress bool) iter.Seq[Change] {
	s := &subscriber{progress: progress, told: -1, pending: map[changeKey]Change{}, wake: make(chan struct{}, 1)}
	c.mu.Lock()
	s.known = c.Revision()
	c.subscribers[s] = true
	c.mu.Unlock()
	leave := func() {
		c.mu.Lock()
		delete(c.subscribers, s)
		c.mu.Unlock()
	}
	stop := context.AfterFunc(ctx, leave)
	return func(yield func(Change) bool) {
		defer leave()
		defer stop()
		for ctx.Err() == nil {
			if change, ok := s.next(); ok {
				if !yield(change) {
					return
				}
				continue
			}
			select {
			case <-s.wake:
			case <-c.life.Done():
				return
			case <-ctx.Done():
			}
		}
	}
}

type changeKey struct{ kind, key string }

// subscriber is the queue of one reader.
type subscriber struct {
	mu      sync.Mutex
	order   []changeKey
	pending map[changeKey]Change
	wake    chan struct{}

	progress    bool  // is given
	known, told int64 // revision up to which changes are here, and were said to be
}

func (s *subscriber) add(revision int64, changes []Change) {
	if len(changes) == 0 && !s.progress {
		return
	}
	s.mu.Lock()
	s.known = revision
	for _, change := range changes {
		k := changeKey{change.Kind, change.Key}
		if _, waits := s.pending[k]; !waits {
			s.order = append(s.order, k)
		}
		s.pending[k] = change
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscriber) next() (Change, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.order) == 0 {
		s.order = nil // lets go of what has been read
		if s.progress && s.told != s.known {
			s.told = s.known
			return Change{Revision: s.known}, true
		}
		return Change{}, false
	}
	k := s.order[0]
	s.order = s.order[1:]
	change := s.pending[k]
	delete(s.pending, k)
	return change, true
}
