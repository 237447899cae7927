package control

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// hub tells those who wait for an environment that something about it changed.
type hub struct {
	mu      sync.Mutex
	waiters map[string]map[chan struct{}]bool // by environment name
}

// listen gives a channel that has a value after every change of name, merged
// when the reader is slow, until stop is called.
func (h *hub) listen(name string) (changed <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiters[name] == nil {
		h.waiters[name] = map[chan struct{}]bool{}
	}
	h.waiters[name][ch] = true
	return ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.waiters[name], ch)
		if len(h.waiters[name]) == 0 {
			delete(h.waiters, name)
		}
	}
}

func (h *hub) tell(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch := range h.waiters[name] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// tellAll wakes everybody.
func (h *hub) tellAll() {
	h.mu.Lock()
	names := slices.Collect(maps.Keys(h.waiters))
	h.mu.Unlock()
	for _, name := range names {
		h.tell(name)
	}
}

// Run passes changes of the state on to those who wait, until ctx ends.
func (c *Control) Run(ctx context.Context) {
	changes := c.cache.Changes(ctx)
	c.hub.tellAll() // of what changed since they looked and before changes began
	for change := range changes {
		c.tellDatabases(change)
		switch change.Kind {
		case registry.Environments.Name(), registry.Resolutions.Name(), registry.Releases.Name():
			c.hub.tell(change.Key)
		case registry.Registrations.Name():
			c.hub.tellAll() // what has gone does not say whose it was
		case registry.Deployments.Name(), registry.Observed.Name():
			if d, ok := registry.Lookup(c.cache, registry.Deployments, change.Key); ok {
				c.hub.tell(d.Value.Environment)
			}
		}
	}
}

// WaitEnvironment waits until done says so of an environment and gives it as it is then.
// One that is not there, or goes meanwhile, is dayfly.CodeNotFound; when ctx ends it
// gives the environment as it is and ctx's error.
func (c *Control) WaitEnvironment(ctx context.Context, name string, done func(dayfly.Environment) bool) (dayfly.Environment, error) {
	env, err := c.Environment(ctx, name)
	if err != nil {
		return env, err
	}
	return wait(ctx, &c.hub, env.Name, func() (dayfly.Environment, error) { return c.Environment(ctx, name) }, done)
}

// wait looks at something again with each change of a topic until done says so, or ctx ends.
func wait[T any](ctx context.Context, h *hub, topic string, look func() (T, error), done func(T) bool) (T, error) {
	changed, stop := h.listen(topic)
	defer stop()
	for {
		now, err := look()
		if err != nil || done(now) {
			return now, err
		}
		select {
		case <-ctx.Done():
			return now, ctx.Err()
		case <-changed:
		}
	}
}
