package registry_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// candidate runs Lead and says what happens to it.
type candidate struct {
	began chan struct{} // has the role
	ended chan struct{} // was told that it lost it
	leave chan error    // what it is to return by itself
	done  chan error    // what Lead returned
}

func run(t *testing.T, ctx context.Context, s *registry.Store, node string) *candidate {
	c := &candidate{began: make(chan struct{}, 10), ended: make(chan struct{}, 10), leave: make(chan error), done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		c.done <- s.Lead(ctx, "reaper", node, func(ctx context.Context) error {
			c.began <- struct{}{}
			select {
			case <-ctx.Done():
				c.ended <- struct{}{}
				return ctx.Err()
			case err := <-c.leave:
				return err
			}
		})
		close(c.done)
	}()
	t.Cleanup(func() {
		cancel()
		for range c.done {
		}
	})
	return c
}

func receive[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(30 * time.Second):
		t.Fatal("still not: " + what)
		panic("unreachable")
	}
}

func TestOneServerHasARoleAndAnotherTakesItOver(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		first := run(t, ctx, s, "n1")
		receive(t, "the first has the role", first.began)
		second := run(t, t.Context(), s, "n2")
		if node, err := s.Leader(t.Context(), "reaper"); node != "n1" || err != nil {
			t.Errorf("the role is with %q, %v", node, err)
		}
		select {
		case <-second.began:
			t.Fatal("two have the role")
		default:
		}
		stop()
		receive(t, "the first was told", first.ended)
		if err := receive(t, "the first returned", first.done); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		receive(t, "the second has the role", second.began)
		if node, err := s.Leader(t.Context(), "reaper"); node != "n2" || err != nil {
			t.Errorf("the role is with %q, %v", node, err)
		}
	})
}

func TestWhoReturnsGivesTheRoleAway(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		first := run(t, t.Context(), s, "n1")
		receive(t, "has the role", first.began)
		broken := errors.New("broken")
		first.leave <- broken
		if err := receive(t, "returned", first.done); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		if _, err := s.Leader(t.Context(), "reaper"); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			t.Errorf("somebody still has the role: %v", err)
		}
		second := run(t, t.Context(), s, "n2")
		receive(t, "the second has the role", second.began)
	})
}

func TestWhoIsCutOffLosesTheRoleAndAsksForItAgain(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	l := startLink(t, p.address)
	far := open(t, registry.Config{Endpoints: []string{l.address()}, LeaseTTL: time.Second, Timeout: time.Second})
	near := open(t, registry.Config{Endpoints: []string{p.address}, LeaseTTL: time.Second})
	first := run(t, t.Context(), far, "far")
	receive(t, "the first has the role", first.began)
	second := run(t, t.Context(), near, "near")
	l.cut()
	receive(t, "the first was told", first.ended)
	receive(t, "the second has the role", second.began)
	l.mend()
	second.leave <- nil
	receive(t, "the first has the role again", first.began)
}

func TestAKilledServerThatIsBackWaitsForNoLeaseOfItsOwn(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	l := startLink(t, p.address)
	// What a kill leaves: leases that nobody renews, which last for hours here.
	dead := open(t, registry.Config{Endpoints: []string{l.address()}, LeaseTTL: 10 * time.Hour, Timeout: time.Second})
	ctx, die := context.WithCancel(t.Context())
	before := run(t, ctx, dead, "n1")
	receive(t, "it has the role", before.began)
	if _, err := dead.Join(t.Context(), registry.Node{ID: "n1", Version: "before"}); err != nil {
		t.Fatal(err)
	}
	l.cut()
	die()

	back := open(t, registry.Config{Endpoints: []string{p.address}, LeaseTTL: 10 * time.Hour})
	m, err := back.Join(t.Context(), registry.Node{ID: "n1", Version: "after"})
	if err != nil {
		t.Fatal(err)
	}
	after := run(t, t.Context(), back, "n1")
	receive(t, "it has the role again", after.began)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	c := startCache(t, back)
	if n := registry.Len(c, registry.Nodes); n != 0 {
		t.Errorf("%d nodes are alive after it has left", n)
	}
}
