package registry

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// Cache follows all records in etcd (events apart) and answers from memory. It
// goes on from where it was after a lost connection and after a compaction, and
// while etcd is away it answers with what it last knew.
type Cache struct {
	store *Store
	log   *slog.Logger

	view atomic.Pointer[view] // what readers see; replaced, never changed

	mu          sync.Mutex
	subscribers map[*subscriber]bool
	waiters     map[*waiter]bool
	onHealth    func(bool)

	connected, watching bool // under mu
	healthy             atomic.Bool

	builder *builder        // of the goroutine that follows alone
	pool    *pool           // of that one as well
	life    context.Context // ends with the cache
	end     context.CancelFunc
	running sync.WaitGroup
}

// waiter waits for a revision.
type waiter struct {
	revision int64
	reached  chan struct{}
}

// NewCache makes an empty cache; Start fills it.
func NewCache(s *Store) *Cache {
	c := &Cache{
		store: s, log: s.log, subscribers: map[*subscriber]bool{}, waiters: map[*waiter]bool{},
		builder: newBuilder(kinds()), pool: newPool(),
	}
	c.life, c.end = context.WithCancel(context.Background())
	c.view.Store(c.builder.last)
	return c
}

// OnHealth sets what is called with every change of Healthy, one call at a time. It
// must be called before Start; fn must not block.
func (c *Cache) OnHealth(fn func(healthy bool)) { c.onHealth = fn }

// Start loads everything at one revision, and follows from there until ctx ends or
// Close is called. A record that this version cannot read is an error.
func (c *Cache) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(c.life, cancel)
	loaded, err := c.load(ctx)
	for _, r := range loaded.records {
		err = cmp.Or(err, r.unreadable)
	}
	if err != nil {
		cancel()
		return err
	}
	context.AfterFunc(ctx, c.end)
	c.replace(loaded)
	c.setHealth(func() { c.connected, c.watching = true, true })
	c.running.Go(func() { c.follow(ctx) })
	c.running.Go(func() { c.followConnection(ctx) })
	return nil
}

// Close stops following and waits until that has ended. What is known stays readable.
func (c *Cache) Close() {
	c.end()
	c.running.Wait()
}

// Revision is that of the state which readers see now.
func (c *Cache) Revision() int64 { return c.view.Load().revision }

// Healthy says whether etcd answers, so that what the cache has is current.
func (c *Cache) Healthy() bool { return c.healthy.Load() }

// setHealth changes connected or watching and tells about it.
func (c *Cache) setHealth(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	now := c.connected && c.watching
	if c.healthy.Swap(now) == now {
		return
	}
	if now {
		c.log.Debug("etcd answers", "revision", c.Revision())
	} else {
		c.log.Warn("etcd does not answer: what is known of it stays in force", "revision", c.Revision())
	}
	if c.onHealth != nil {
		c.onHealth(now)
	}
}

// Wait returns when the cache has everything up to revision, as Commit gives it. It
// gives up with dayfly.CodeUnavailable after the time-out of the store.
func (c *Cache) Wait(ctx context.Context, revision int64) error {
	w := &waiter{revision: revision, reached: make(chan struct{})}
	c.mu.Lock()
	if c.Revision() >= revision {
		c.mu.Unlock()
		return nil
	}
	c.waiters[w] = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiters, w)
		c.mu.Unlock()
	}()

	ctx, cancel := context.WithTimeout(ctx, c.store.timeout)
	defer cancel()
	// A revision that changed no record is not heard of unless asked for.
	ask := time.NewTicker(10 * time.Millisecond)
	defer ask.Stop()
	for {
		select {
		case <-w.reached:
			return nil
		case <-ask.C:
			c.askForProgress(ctx)
		case <-ctx.Done():
			return c.store.failure(ctx, ctx.Err())
		case <-c.life.Done():
			return dayfly.Errorf(dayfly.CodeUnavailable, "the server is stopping")
		}
	}
}

// askForProgress makes etcd say up to where the watch has told everything.
func (c *Cache) askForProgress(ctx context.Context) {
	ctx, cancel := context.WithTimeout(watchContext(ctx), 50*time.Millisecond)
	defer cancel()
	// An error means that the watch is being mended, which tells as well.
	_ = c.store.client.RequestProgress(ctx)
}

// publish shows what was built to readers, as the state at revision, and tells of
// the changes.
func (c *Cache) publish(revision int64, changes []Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.view.Store(c.builder.publish(revision))
	for s := range c.subscribers {
		s.add(revision, changes)
	}
	for w := range c.waiters {
		if revision >= w.revision {
			close(w.reached)
			delete(c.waiters, w)
		}
	}
}
