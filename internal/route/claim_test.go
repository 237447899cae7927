package route_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly/internal/route"
)

func TestRequestsAreSharedByWeight(t *testing.T) {
	table, m := web(t, route.Options{Rand: fixed(1)},
		route.Target{Deployment: "d1", Version: "v1", Weight: 80},
		route.Target{Deployment: "d0", Version: "v0", Weight: 0},
		route.Target{Deployment: "d2", Version: "v2", Weight: 15},
		route.Target{Deployment: "d3", Version: "v3", Weight: 5})
	for _, id := range []string{"d0", "d1", "d2", "d3"} {
		table.SetDeployment(id, endpoints(id, 2))
	}
	const n = 100_000
	got := map[string]float64{}
	for range n {
		c := claim(t, m, "", nil)
		got[c.Version()]++
		c.Done(false)
	}
	if got["v0"] > 0 {
		t.Errorf("%v requests for weight 0", got["v0"])
	}
	for version, share := range map[string]float64{"v1": .8, "v2": .15, "v3": .05} {
		deviation := math.Sqrt(n * share * (1 - share))
		if math.Abs(got[version]-n*share) > 4*deviation {
			t.Errorf("%s got %v of %d, want %v", version, got[version], n, n*share)
		}
	}
}

func TestOfTwoInstancesTheLessBusyOneIsTaken(t *testing.T) {
	table, m := web(t, route.Options{Rand: fixed(2)}, route.Target{Deployment: "d", Weight: 1})
	table.SetDeployment("d", endpoints("i", 2))
	count := map[string]int{}
	for n := range 100 {
		c := claim(t, m, "", nil)
		count[c.Instance()]++
		if n%2 == 1 && count["i0"] != count["i1"] {
			t.Fatalf("after %d: %v", n+1, count)
		}
	}
}

func TestOfManyInstancesTheBusiestIsNeverTaken(t *testing.T) {
	table, m := web(t, route.Options{Rand: fixed(3)}, route.Target{Deployment: "d", Weight: 1})
	table.SetDeployment("d", endpoints("i", 10))
	busy := claim(t, m, "", nil)
	taken := map[string]int{}
	for range 2000 {
		c := claim(t, m, "", nil)
		if c.Instance() == busy.Instance() {
			t.Fatalf("%s is the only one with a request and got another", c.Instance())
		}
		taken[c.Instance()]++
		c.Done(false)
	}
	for i, n := range taken {
		if n < 2000/9/2 || n > 2*2000/9 {
			t.Errorf("%s was taken %d times", i, n)
		}
	}
	if len(taken) != 9 {
		t.Errorf("only %d of 9 were taken", len(taken))
	}
}

func TestAVersionIsChosenByName(t *testing.T) {
	table, m := web(t, route.Options{},
		route.Target{Deployment: "d1", Version: "v1", Weight: 1},
		route.Target{Deployment: "d2", Version: "v2", Weight: 0})
	table.SetDeployment("d1", endpoints("a", 1))
	table.SetDeployment("d2", endpoints("b", 1))
	var tried route.Tried
	for _, c := range []struct{ choose, want string }{{"v2", "v2"}, {"v1", "v1"}, {"", "v1"}, {"v9", "v1"}} {
		got := claim(t, m, c.choose, nil)
		if got.Version() != c.want {
			t.Errorf("chose %q, got %s", c.choose, got.Version())
		}
	}
	claim(t, m, "v2", &tried)
	if c, ok := m.Claim("v2", &tried); ok {
		t.Errorf("who chose v2 and tried all of it got %s", c.Version())
	}
	table.SetDeployment("d2", nil)
	if got := claim(t, m, "v2", nil); got.Version() != "v1" {
		t.Errorf("a version with no instance in rotation still answered: %s", got.Version())
	}
}

func TestFromOutsideAVersionIsChosenOnlyWhereTheServiceAllowsIt(t *testing.T) {
	table := route.New(route.Options{})
	set(t, table, route.Environment{
		Name: "main", Project: "shop",
		Services: []route.Service{{Name: "web", Targets: []route.Target{
			{Deployment: "d1", Version: "v1", Weight: 1}, {Deployment: "d2", Version: "v2"},
		}}},
		Hosts: []route.Host{{Name: "web.localhost", Service: "web"}},
	})
	table.SetDeployment("d1", endpoints("a", 1))
	table.SetDeployment("d2", endpoints("b", 1))
	outside, inside := table.Public("web.localhost", "/"), table.Internal(route.Call{Host: "web.main.internal"})
	if c := claim(t, outside, "v2", nil); c.Version() != "v1" || outside.Choose() {
		t.Errorf("outside: %s", c.Version())
	}
	if c := claim(t, inside, "v2", nil); c.Version() != "v2" || !inside.Choose() {
		t.Errorf("inside: %s", c.Version())
	}
}

func TestARequestTriesEachInstanceOnceAndOtherVersionsToo(t *testing.T) {
	table, m := web(t, route.Options{},
		route.Target{Deployment: "d1", Version: "v1", Weight: 1000}, route.Target{Deployment: "d2", Version: "v2", Weight: 1})
	table.SetDeployment("d1", endpoints("a", 2))
	table.SetDeployment("d2", endpoints("b", 2))
	var tried route.Tried
	seen := map[string]bool{}
	for range 4 {
		c := claim(t, m, "", &tried)
		seen[c.Instance()] = true
	}
	if c, ok := m.Claim("", &tried); ok || len(seen) != 4 {
		t.Errorf("saw %v, then %v", seen, ok)
		c.Done(false)
	}
}

func TestAfterEightTriesThereAreNoMore(t *testing.T) {
	table, m := web(t, route.Options{}, route.Target{Deployment: "d", Weight: 1})
	table.SetDeployment("d", endpoints("i", 20))
	var tried route.Tried
	for range 8 {
		claim(t, m, "", &tried)
	}
	if _, ok := m.Claim("", &tried); ok {
		t.Error("a ninth try")
	}
}

func TestNothingIsClaimedWhereNothingIs(t *testing.T) {
	table, m := web(t, route.Options{}, route.Target{Deployment: "d", Weight: 1})
	for name, m := range map[string]route.Match{
		"no instances": m,
		"no host":      table.Public("elsewhere", "/"),
		"zero match":   {},
	} {
		if _, ok := m.Claim("", nil); ok {
			t.Errorf("%s: claimed", name)
		}
	}
	table.SetDeployment("d", endpoints("i", 1))
	c := claim(t, m, "", nil)
	if c.Instance() != "i0" || c.Address() != "10.0.0.1:80" || c.Deployment() != "d" {
		t.Errorf("got %s at %s of %s", c.Instance(), c.Address(), c.Deployment())
	}
}

func TestAMatchFindsTheServiceThatTookOverSinceTheLookup(t *testing.T) {
	table, m := web(t, route.Options{}, route.Target{Deployment: "old", Version: "v1", Weight: 1})
	table.SetDeployment("old", endpoints("a", 1))
	table.SetDeployment("new", endpoints("b", 1))
	set(t, table, route.Environment{
		Name: "main", Project: "shop",
		Services: []route.Service{{Name: "web", Targets: []route.Target{{Deployment: "new", Version: "v2", Weight: 1}}}},
	})
	table.DeleteDeployment("old")
	if c := claim(t, m, "", nil); c.Version() != "v2" {
		t.Errorf("got %s", c.Version())
	}
	table.DeleteEnvironment("main")
	table.DeleteDeployment("new")
	if _, ok := m.Claim("", nil); ok {
		t.Error("claimed of an environment that is gone")
	}
}

// ejection is a service with two instances, of which a0 can't be reached.
func ejection(t *testing.T) (*watch, route.Match) {
	w := newWatch()
	table, m := web(t, route.Options{Now: w.now, Rand: fixed(4)}, route.Target{Deployment: "d", Weight: 1})
	table.SetDeployment("d", endpoints("a", 2))
	fail(t, m, "a0")
	return w, m
}

// claimOn claims this instance. Claims of others are held until then, so that its
// turn must come.
func claimOn(t *testing.T, m route.Match, instance string) route.Claim {
	t.Helper()
	for range 1000 {
		c := claim(t, m, "", nil)
		if c.Instance() == instance {
			return c
		}
		defer c.Done(false)
	}
	t.Fatalf("%s is never chosen", instance)
	return route.Claim{}
}

// fail lets a request to instance fail.
func fail(t *testing.T, m route.Match, instance string) {
	t.Helper()
	c := claimOn(t, m, instance)
	c.Done(true)
}

// share says how many of a hundred requests at once get to a0.
func share(t *testing.T, m route.Match) (n int) {
	t.Helper()
	var claims []route.Claim
	for range 100 {
		c := claim(t, m, "", nil)
		if c.Instance() == "a0" {
			n++
		}
		claims = append(claims, c)
	}
	for _, c := range claims {
		if c.Instance() == "a1" {
			c.Done(false)
		} // those of a0 stay open: they have neither succeeded nor failed
	}
	return n
}

func TestAnInstanceThatFailsIsLeftAloneTwiceAsLongEachTimeUpToTenSeconds(t *testing.T) {
	w, m := ejection(t)
	for _, ms := range []int{100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000} {
		rest := time.Duration(ms) * time.Millisecond
		w.pass(rest - time.Microsecond)
		if n := share(t, m); n != 0 {
			t.Fatalf("%d requests just before %v are over", n, rest)
		}
		w.pass(time.Microsecond)
		fail(t, m, "a0")
	}
}

func TestOneRequestAtATimeTriesAnInstanceAgain(t *testing.T) {
	w, m := ejection(t)
	w.pass(100 * time.Millisecond)
	if n := share(t, m); n != 1 {
		t.Fatalf("%d requests tried", n)
	}
	if n := share(t, m); n != 0 {
		t.Fatalf("%d more while the first has not come back", n)
	}
	w.pass(100 * time.Millisecond)
	if n := share(t, m); n != 1 {
		t.Fatalf("%d requests tried after the first took too long", n)
	}
}

func TestAnInstanceThatAnswersIsBackAtOnce(t *testing.T) {
	for name, end := range map[string]func(*route.Claim){
		"done":  func(c *route.Claim) { c.Done(false) },
		"alive": func(c *route.Claim) { c.Alive() },
	} {
		t.Run(name, func(t *testing.T) {
			w, m := ejection(t)
			w.pass(100 * time.Millisecond)
			c := claimOn(t, m, "a0")
			end(&c)
			if n := share(t, m); n < 30 {
				t.Errorf("%d of 100", n)
			}
			fail(t, m, "a0") // and the next failure counts as the first
			w.pass(100 * time.Millisecond)
			if n := share(t, m); n != 1 {
				t.Errorf("%d of 100 after 100 ms", n)
			}
		})
	}
}

func TestRequestsThatFailTogetherCountOnce(t *testing.T) {
	w := newWatch()
	table, m := web(t, route.Options{Now: w.now}, route.Target{Deployment: "d", Weight: 1})
	table.SetDeployment("d", endpoints("a", 2))
	var claims []route.Claim
	for range 50 {
		claims = append(claims, claim(t, m, "", nil))
	}
	for _, c := range claims {
		c.Done(c.Instance() == "a0")
	}
	w.pass(100 * time.Millisecond)
	if n := share(t, m); n != 1 {
		t.Errorf("%d of 100 after 100 ms", n)
	}
}

func TestASuccessThatBeganBeforeTheFailureProvesNothing(t *testing.T) {
	table, m := web(t, route.Options{}, route.Target{Deployment: "d", Weight: 1})
	table.SetDeployment("d", endpoints("a", 2))
	old := claimOn(t, m, "a0")
	fail(t, m, "a0")
	old.Done(false)
	if n := share(t, m); n != 0 {
		t.Errorf("%d of 100", n)
	}
}

func TestWhereAllAreEjectedTheOneWhoseTimeIsOverFirstIsTaken(t *testing.T) {
	w, m := ejection(t)
	w.pass(10 * time.Millisecond)
	fail(t, m, "a1")
	w.pass(10 * time.Millisecond)
	c := claim(t, m, "", nil)
	if c.Instance() != "a0" {
		t.Fatalf("got %s", c.Instance())
	}
	c.Done(true) // it was ejected before: this adds nothing
	w.pass(80 * time.Millisecond)
	if n := share(t, m); n != 1 { // it is being tried, so the other one's time is over first
		t.Errorf("%d of 100", n)
	}
}

func TestASuccessOfTheLeastBadOneEndsItsEjection(t *testing.T) {
	w, m := ejection(t)
	w.pass(100 * time.Millisecond)
	fail(t, m, "a0") // until 300 ms
	fail(t, m, "a1") // until 200 ms
	c := claim(t, m, "", nil)
	if c.Instance() != "a1" {
		t.Fatalf("got %s", c.Instance())
	}
	c.Done(false)
	w.pass(150 * time.Millisecond) // one that was still ejected would get one request to try now
	if n := share(t, m); n != 0 {
		t.Errorf("%d of 100 went to the one that is ejected", n)
	}
}

func TestAVersionWithoutAGoodInstanceYieldsToTheOthers(t *testing.T) {
	w := newWatch()
	table, m := web(t, route.Options{Now: w.now},
		route.Target{Deployment: "d1", Version: "v1", Weight: 1000}, route.Target{Deployment: "d2", Version: "v2", Weight: 1})
	table.SetDeployment("d1", endpoints("a", 1))
	table.SetDeployment("d2", endpoints("b", 1))
	fail(t, m, "a0")
	for range 20 {
		if c := claim(t, m, "", nil); c.Version() != "v2" {
			t.Fatalf("got %s", c.Version())
		}
	}
	if c := claim(t, m, "v1", nil); c.Version() != "v1" {
		t.Errorf("who chose v1 got %s", c.Version())
	}
}

func TestAnEjectionOutlivesWritesOfTheSameInstance(t *testing.T) {
	w := newWatch()
	table, m := web(t, route.Options{Now: w.now}, route.Target{Deployment: "d", Weight: 1})
	table.SetDeployment("d", endpoints("a", 2))
	fail(t, m, "a0")
	table.SetDeployment("d", endpoints("a", 3))
	if n := share(t, m); n != 0 {
		t.Errorf("%d of 100", n)
	}
	moved := endpoints("a", 2)
	moved[0].Address = "10.9.9.9:80"
	table.SetDeployment("d", moved)
	if n := share(t, m); n < 30 {
		t.Errorf("at its new address it got %d of 100", n)
	}
}

func ExampleMatch_Claim() {
	table := route.New(route.Options{})
	_ = table.SetEnvironment(route.Environment{
		Name: "main", Project: "shop",
		Services: []route.Service{{Name: "web", Targets: []route.Target{{Deployment: "d", Version: "v1", Weight: 1}}}},
		Hosts:    []route.Host{{Name: "main.localhost", Service: "web"}},
	})
	table.SetDeployment("d", []route.Endpoint{{Instance: "i", Address: "127.0.0.1:4000"}})

	c, ok := table.Public("main.localhost:8080", "/").Claim("", nil)
	if ok {
		defer c.Done(false)
	}
	fmt.Println(ok, c.Address(), c.Version())
	// Output: true 127.0.0.1:4000 v1
}
