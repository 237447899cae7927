package route_test

import (
	"net/netip"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/route"
)

func TestWhoCallsFromAnAddressIsKnownUntilItIsTakenBack(t *testing.T) {
	table := route.New(route.Options{})
	four, six := netip.MustParseAddr("10.9.0.5"), netip.MustParseAddr("fd00::5")
	table.SetSource(four, route.Source{Environment: "a", Service: "web"})
	table.SetSource(six, route.Source{Environment: "b"})
	mapped := netip.AddrFrom16(four.As16())
	for addr, want := range map[netip.Addr]route.Source{
		four: {Environment: "a", Service: "web"}, mapped: {Environment: "a", Service: "web"}, six: {Environment: "b"},
		netip.MustParseAddr("10.9.0.6"): {}, {}: {},
	} {
		if got := table.Source(addr); got != want {
			t.Errorf("%v: %+v, want %+v", addr, got, want)
		}
	}
	table.SetSource(four, route.Source{})
	if got := table.Source(four); got != (route.Source{}) {
		t.Errorf("taken back: %+v", got)
	}
	if got := table.Source(six); got.Environment != "b" {
		t.Errorf("the other one: %+v", got)
	}
	if n := testing.AllocsPerRun(100, func() { table.Source(six) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestTheFirstSignThatFitsTellsTheEnvironment takes every combination of what a call can bring: what comes
// first in the order counts, wherever all others point elsewhere.
func TestTheFirstSignThatFitsTellsTheEnvironment(t *testing.T) {
	table := route.New(route.Options{})
	table.SetProject(route.Project{Name: "shop", Baseline: "production"})
	local := netip.MustParseAddr("127.1.2.3")
	names := []string{"by-header", "by-host", "by-trace", "by-address", "by-source", "production"}
	for _, name := range names {
		e := route.Environment{
			ID: "id-" + name, Name: name, Project: "shop",
			Services: []route.Service{{Name: "web", Targets: []route.Target{{Deployment: "d", Weight: 1}}}},
		}
		if name == "by-address" {
			e.Addresses = []route.Address{{Addr: local, Service: "web"}}
		}
		set(t, table, e)
	}
	set(t, table, route.Environment{Name: "stranger", Project: "blog", Services: []route.Service{{Name: "blog"}}})
	bys := []route.By{route.ByHeader, route.ByHost, route.ByTrace, route.ByAddress, route.BySource, route.ByBaseline}
	for signs := range 32 {
		has := func(i int) bool { return signs&(1<<i) != 0 }
		for _, strange := range []bool{false, true} { // signs of another project are none
			c := route.Call{Host: "web.internal", Path: "/"}
			if has(0) {
				c.Header = names[0]
			} else if strange {
				c.Header = "stranger"
			}
			if has(1) {
				c.Host = "web." + names[1] + ".internal"
			}
			if has(2) {
				c.Trace = names[2]
			} else if strange {
				c.Trace = "stranger"
			}
			if has(3) {
				c.Local = local
			}
			if has(4) {
				c.Source = names[4]
			} else if strange {
				c.Source = "stranger"
			}
			want := 5
			for i := 4; i >= 0; i-- {
				if has(i) {
					want = i
				}
			}
			m := table.Internal(c)
			if m.Environment != names[want] || m.By != bys[want] || m.EnvironmentID() != "id-"+names[want] {
				t.Errorf("%+v: %s by %d, want %s by %d", c, m.Environment, m.By, names[want], bys[want])
			}
		}
	}
}
