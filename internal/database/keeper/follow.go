package keeper

import (
	"context"
	"time"

	"github.com/dayfly-dev/dayfly/internal/database"
)

// watch keeps a clone's server running until unwatch or the end of the Keeper.
func (k *Keeper) watch(id string, c *clone) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watchLocked(id, c)
}

func (k *Keeper) watchLocked(id string, c *clone) {
	if c.done != nil || k.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(k.ctx)
	done := make(chan struct{})
	c.stop, c.done = cancel, done
	k.tasks.Add(1)
	go func() {
		defer k.tasks.Done()
		defer close(done)
		k.follow(ctx, id, c)
	}()
}

// unwatch lets a clone's server end without being started again; the clone's lock is held.
func (k *Keeper) unwatch(id string) {
	k.mu.Lock()
	c := k.clones[id]
	if c == nil || c.done == nil {
		k.mu.Unlock()
		return
	}
	stop, done := c.stop, c.done
	k.mu.Unlock()
	stop()
	<-done
	k.mu.Lock()
	s := c.server
	c.stop, c.done, c.server = nil, nil, nil
	k.mu.Unlock()
	if s != nil {
		s.Close()
	}
}

// follow starts a clone's server whenever it does not run.
func (k *Keeper) follow(ctx context.Context, id string, c *clone) {
	wait, up := time.Duration(0), time.Time{}
	for {
		k.mu.Lock()
		s := c.server
		k.mu.Unlock()
		if s != nil {
			if up.IsZero() {
				up = time.Now()
			}
			select {
			case <-ctx.Done():
				return
			case <-s.Ended():
			}
			k.mu.Lock()
			c.phase, c.message, c.restarts = database.PhaseStarting, "its server ended by itself and is started again", c.restarts+1
			k.mu.Unlock()
			k.o.Logger.Warn("a database server ended by itself", "database", id)
			k.changed.tell(id)
			if time.Since(up) > time.Minute {
				wait = 0
			}
			up = time.Time{}
		}
		if err := pause(ctx, wait); err != nil {
			return
		}
		wait = min(max(2*wait, k.o.Backoff), time.Minute)
		// Ensure and Remove wait for us when they hold the lock: see unwatch.
		unlock, err := k.locks.lock(ctx, "c"+id)
		if err != nil {
			return
		}
		k.mu.Lock()
		again := c.server == nil || c.server == s
		k.mu.Unlock()
		if again {
			if err := k.start(ctx, id, c); err != nil && ctx.Err() == nil {
				k.o.Logger.Error("a database server cannot be started", "database", id, "error", err)
			}
		}
		unlock()
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
