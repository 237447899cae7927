package route_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-dev/dayfly/internal/route"
)

func TestDrainReturnsWhenTheLastRequestHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, m := web(t, route.Options{}, route.Target{Deployment: "d", Weight: 1})
		table.SetDeployment("d", endpoints("i", 1))
		first, second := claim(t, m, "", nil), claim(t, m, "", nil)
		var drained atomic.Int32
		for range 2 { // two may wait for the same
			go func() {
				if err := table.Drain(t.Context(), "d", "i0"); err != nil {
					t.Error(err)
				}
				drained.Add(1)
			}()
		}
		synctest.Wait()
		if _, ok := m.Claim("", nil); ok {
			t.Error("a new request got in")
		}
		first.Done(false)
		synctest.Wait()
		if drained.Load() != 0 {
			t.Error("one request was still there")
		}
		second.Done(true)
		synctest.Wait()
		if drained.Load() != 2 {
			t.Error("still waiting")
		}
	})
}

func TestDrainOfADeploymentWaitsForAllInstancesAlsoThoseThatWereRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, m := web(t, route.Options{}, route.Target{Deployment: "d", Weight: 1})
		table.SetDeployment("d", endpoints("old", 1))
		removed := claim(t, m, "", nil)
		table.SetDeployment("d", endpoints("new", 1))
		current := claim(t, m, "", nil)
		drained := make(chan error, 1)
		go func() { drained <- table.Drain(t.Context(), "d", "") }()
		for _, c := range []route.Claim{current, removed} {
			synctest.Wait()
			select {
			case <-drained:
				t.Fatalf("returned before %s ended", c.Instance())
			default:
			}
			c.Done(false)
		}
		if err := <-drained; err != nil {
			t.Error(err)
		}
		table.SetDeployment("d", endpoints("newer", 2))
		if c, ok := m.Claim("", nil); ok {
			t.Errorf("%s takes requests though its deployment drains", c.Instance())
		}
	})
}

func TestDrainGivesUpWithItsContextAndKeepsTheDoorShut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, m := web(t, route.Options{}, route.Target{Deployment: "d", Weight: 1})
		table.SetDeployment("d", endpoints("i", 1))
		c := claim(t, m, "", nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := table.Drain(ctx, "d", "i0"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if _, ok := m.Claim("", nil); ok {
			t.Error("a new request got in")
		}
		if n, total := table.Stats("d"); n != 1 || total != 1 {
			t.Errorf("%d in flight, %d in all", n, total)
		}
		c.Done(false)
		if err := table.Drain(ctx, "d", "i0"); err != nil {
			t.Errorf("nobody is there: %v", err)
		}
	})
}

func TestADrainedInstanceStaysOutWheneverItIsListed(t *testing.T) {
	drain := func(t *testing.T, table *route.Table, instance string) {
		t.Helper()
		if err := table.Drain(t.Context(), "d", instance); err != nil {
			t.Fatal(err)
		}
	}
	all := endpoints("i", 1)
	moved := []route.Endpoint{{Instance: "i0", Address: "10.9.9.9:80"}}
	for name, do := range map[string]func(*testing.T, *route.Table){
		"drained, then listed again": func(t *testing.T, table *route.Table) {
			table.SetDeployment("d", all)
			drain(t, table, "i0")
			table.SetDeployment("d", all)
		},
		"removed, then listed again": func(t *testing.T, table *route.Table) {
			table.SetDeployment("d", all)
			drain(t, table, "i0")
			table.SetDeployment("d", nil)
			table.SetDeployment("d", all)
		},
		"listed at another address": func(t *testing.T, table *route.Table) {
			table.SetDeployment("d", all)
			drain(t, table, "i0")
			table.SetDeployment("d", moved)
		},
		"listed for the first time": func(t *testing.T, table *route.Table) {
			drain(t, table, "i0")
			table.SetDeployment("d", all)
		},
		"cut, then listed again": func(t *testing.T, table *route.Table) {
			table.Cut("d", "i0")
			table.SetDeployment("d", all)
		},
		"drained with many others since": func(t *testing.T, table *route.Table) {
			for n := range 60 {
				drain(t, table, fmt.Sprint("other", n))
			}
			drain(t, table, "i0")
			for n := range 60 {
				drain(t, table, fmt.Sprint("another", n))
			}
			table.SetDeployment("d", all)
		},
	} {
		t.Run(name, func(t *testing.T) {
			table, m := web(t, route.Options{}, route.Target{Deployment: "d", Weight: 1})
			do(t, table)
			if _, ok := m.Claim("", nil); ok {
				t.Error("it takes requests")
			}
			table.DeleteDeployment("d")
			table.SetDeployment("d", all)
			if _, ok := m.Claim("", nil); !ok {
				t.Error("a deployment that was deleted is still remembered")
			}
		})
	}
}

func TestCutTellsThoseOnTheInstanceAndNobodyElse(t *testing.T) {
	table, m := web(t, route.Options{}, route.Target{Deployment: "d", Weight: 1})
	table.SetDeployment("d", endpoints("a", 2))
	cut, other := claimOn(t, m, "a0"), claimOn(t, m, "a1")
	table.SetDeployment("d", endpoints("a", 2)[1:]) // also when it is not listed any more
	table.Cut("d", "a0")
	select {
	case <-cut.Cut():
	default:
		t.Error("not told")
	}
	select {
	case <-other.Cut():
		t.Error("told, but is elsewhere")
	default:
	}
	table.Cut("d", "")
	table.Cut("d", "") // twice is no harm
	<-other.Cut()
	if n, _ := table.Stats("d"); n != 2 {
		t.Errorf("%d in flight: who is told has not ended yet", n)
	}
}

// TestNoReleaseLosesARequestAndNobodyIsOnWhatWasDrained releases again and again
// under load: new deployment beside the old, shift, drain, delete.
func TestNoReleaseLosesARequestAndNobodyIsOnWhatWasDrained(t *testing.T) {
	const releases, workers = 300, 4
	table := route.New(route.Options{})
	shift := func(n int, weight ...int) {
		var targets []route.Target
		for i, w := range weight {
			targets = append(targets, route.Target{Deployment: fmt.Sprint("d", n-i), Version: fmt.Sprint("v", n-i), Weight: w})
		}
		set(t, table, route.Environment{
			Name: "main", Project: "shop",
			Services: []route.Service{{Name: "web", Targets: targets, Routes: rootRoute}},
			Hosts:    []route.Host{{Name: "main.localhost"}},
		})
	}
	var drained [releases + 1]atomic.Bool
	table.SetDeployment("d0", endpoints("0-", 2))
	shift(0, 1)

	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				m := table.Public("main.localhost", "/")
				if n%3 == 0 {
					runtime.Gosched() // time for a change between lookup and claim
				}
				c, ok := m.Claim("", nil)
				if !ok {
					t.Errorf("no instance: %v", m.Outcome)
					return
				}
				var of int
				_, _ = fmt.Sscanf(c.Instance(), "%d-", &of)
				runtime.Gosched()
				if drained[of].Load() {
					t.Errorf("on %s, which was drained", c.Instance())
				}
				c.Done(n%5 == 0)
			}
		})
	}
	for n := 1; n <= releases; n++ {
		old := fmt.Sprint("d", n-1)
		table.SetDeployment(fmt.Sprint("d", n), endpoints(fmt.Sprint(n, "-"), 1+n%3))
		shift(n, 1, 1)
		table.SetDeployment(old, endpoints(fmt.Sprint(n-1, "-"), 1)) // some are taken out without draining
		table.SetDeployment(old, endpoints(fmt.Sprint(n-1, "-"), 2))
		shift(n, 1)
		if err := table.Drain(ctx, old, ""); err != nil {
			t.Error(err)
		}
		drained[n-1].Store(true)
		if inFlight, _ := table.Stats(old); inFlight != 0 {
			t.Errorf("%d in flight on %s", inFlight, old)
		}
		table.DeleteDeployment(old)
	}
	stop()
	work.Wait()
}

// TestLookupsSeeEachWriteAsAWhole moves a host between two services, only one of
// which exists at a time.
func TestLookupsSeeEachWriteAsAWhole(t *testing.T) {
	table := route.New(route.Options{})
	table.SetDeployment("d", endpoints("i", 1))
	write := func(service string) {
		set(t, table, route.Environment{
			Name: "main", Project: "shop",
			Services:  []route.Service{{Name: service, Targets: one}},
			Hosts:     []route.Host{{Name: "main.localhost", Service: service}},
			Addresses: []route.Address{{Addr: local4, Service: service}},
		})
	}
	write("a")
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for range 3 {
		work.Go(func() {
			for ctx.Err() == nil {
				for _, m := range []route.Match{table.Public("main.localhost", "/"), table.Internal(route.Call{Local: local4})} {
					if m.Outcome != route.Found {
						t.Errorf("%s: %v", m.Service, m.Outcome)
						return
					}
				}
			}
		})
	}
	for n := range 2000 {
		write(string(rune('a' + n%2)))
	}
	stop()
	work.Wait()
}
