package route_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly/internal/route"
)

// fixed gives random numbers that are the same in every run.
func fixed(seed uint64) func() uint64 {
	var mu sync.Mutex
	source := rand.NewPCG(seed, seed)
	return func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return source.Uint64()
	}
}

// watch is a clock that goes on only when told.
type watch struct{ at time.Time }

func newWatch() *watch { return &watch{time.Unix(1_700_000_000, 0)} }

func (w *watch) now() time.Time       { return w.at }
func (w *watch) pass(d time.Duration) { w.at = w.at.Add(d) }

func set(t testing.TB, table *route.Table, environments ...route.Environment) {
	t.Helper()
	for _, e := range environments {
		if err := table.SetEnvironment(e); err != nil {
			t.Fatal(err)
		}
	}
}

// endpoints gives n instances called PREFIX0, PREFIX1 and so on.
func endpoints(prefix string, n int) []route.Endpoint {
	var list []route.Endpoint
	for i := range n {
		list = append(list, route.Endpoint{Instance: fmt.Sprint(prefix, i), Address: fmt.Sprintf("10.0.0.%d:80", i+1)})
	}
	return list
}

// web makes a table with the host web.localhost and a service behind it.
func web(t testing.TB, o route.Options, targets ...route.Target) (*route.Table, route.Match) {
	t.Helper()
	table := route.New(o)
	set(t, table, route.Environment{
		Name: "main", Project: "shop",
		Services: []route.Service{{Name: "web", Targets: targets, Choose: true}},
		Hosts:    []route.Host{{Name: "web.localhost", Service: "web"}},
	})
	return table, table.Public("web.localhost", "/")
}

func claim(t testing.TB, m route.Match, choose string, tried *route.Tried) route.Claim {
	t.Helper()
	c, ok := m.Claim(choose, tried)
	if !ok {
		t.Fatal("nothing to claim")
	}
	return c
}

// world sets n environments of five services each, with six hosts and five
// addresses, and their deployments with an instance each.
func world(t testing.TB, table *route.Table, n int) {
	t.Helper()
	table.SetProject(route.Project{Name: "shop", Baseline: "env-0"})
	for i := range n {
		set(t, table, crowd(i, "ready"))
		for s := range 5 {
			table.SetDeployment(fmt.Sprintf("deployment-%d-%d", i, s), []route.Endpoint{
				{Instance: fmt.Sprintf("instance-%d-%d", i, s), Address: fmt.Sprintf("127.0.0.1:%d", 10000+i)},
			})
		}
	}
}

// crowd gives environment i of a world.
func crowd(i int, state string) route.Environment {
	e := route.Environment{
		ID: fmt.Sprint("id-", i), Name: fmt.Sprint("env-", i), Project: "shop", Base: "env-0", State: state,
		Hosts: []route.Host{{Name: fmt.Sprintf("env-%d.localhost", i)}},
	}
	for s := range 5 {
		name := fmt.Sprint("service", s)
		e.Services = append(e.Services, route.Service{
			Name: name, Targets: []route.Target{{Deployment: fmt.Sprintf("deployment-%d-%d", i, s), Version: "v1", Weight: 1}},
		})
		e.Hosts = append(e.Hosts, route.Host{Name: fmt.Sprintf("%s-env-%d.localhost", name, i), Service: name})
		e.Addresses = append(e.Addresses, route.Address{Addr: crowdAddress(i, s), Service: name})
	}
	e.Services[0].Routes = rootRoute
	e.Services[1].Routes = apiRoute
	return e
}

func crowdAddress(i, s int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(1 + i>>8), byte(i), byte(s + 1)})
}
