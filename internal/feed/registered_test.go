package feed_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/feed"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// register registers an instance, and returns when that is in the table.
func (w *world) register(env, service, version, id string) registry.Record[dayfly.Registration] {
	w.Helper()
	return w.registerAt("127.0.0.1:2000", env, service, version, id)
}

func (w *world) registerAt(address, env, service, version, id string) registry.Record[dayfly.Registration] {
	w.Helper()
	r := dayfly.Registration{Service: service, ID: id, Version: version, Address: address, Project: "shop", Environment: env, TTL: dayfly.Duration(time.Hour)}
	if env != "" {
		r.Host = service + "-" + env + ".localhost"
	}
	key := registry.RegistrationKey(service, id)
	there, _ := registry.Lookup(w.cache, registry.Registrations, key)
	r.Lease = there.Value.Lease
	made, err := w.store.Register(w.Context(), r, there.Revision)
	w.reached(made.Revision, err)
	return made
}

func (w *world) deregister(r registry.Record[dayfly.Registration]) {
	w.Helper()
	w.reached(w.store.Deregister(w.Context(), r.Value))
}

func (w *world) reached(revision int64, err error) {
	w.Helper()
	if err == nil {
		err = w.cache.Wait(w.Context(), revision)
	}
	if err == nil {
		err = w.feed.Wait(w.deadline(), revision)
	}
	if err != nil {
		w.Fatal(err)
	}
}

func TestWhatIsRegisteredWithAnEnvironmentTakesOverWhileItLasts(t *testing.T) {
	w := start(t)
	w.commit(creation("main")...)
	w.commit(deployment("main", "web", "v1", healthy)...)
	w.commit(serving("main", map[string]string{"web": "v1"}))
	mine := w.register("main", "web", "mine", "a")
	for _, host := range []string{"main.localhost", "web-main.localhost"} {
		if got := w.version(host, "/"); got != "mine" {
			t.Errorf("%s is answered by %q", host, got)
		}
	}
	if d := claimOf(t, w, "main.localhost").Deployment(); d != "registered:shop/main/web/mine" {
		t.Errorf("the deployment is %s", d)
	}
	// A change of the environment does not push it out.
	w.commit(serving("main", map[string]string{"web": "v1", "api": "v1"}))
	if got := w.version("main.localhost", "/"); got != "mine" {
		t.Errorf("after a change %q answers", got)
	}
	other := w.register("main", "web", "theirs", "b")
	w.deregister(mine)
	if got := w.version("main.localhost", "/"); got != "theirs" {
		t.Errorf("of two, after the end of one, %q answers", got)
	}
	w.deregister(other)
	if got := w.version("main.localhost", "/"); got != "v1" {
		t.Errorf("after the end %q answers", got)
	}
}

func claimOf(t *testing.T, w *world, host string) *route.Claim {
	t.Helper()
	claim, ok := w.table.Public(host, "/").Claim("", nil)
	if !ok {
		t.Fatalf("nobody answers for %s", host)
	}
	t.Cleanup(func() { claim.Done(false) })
	return &claim
}

func TestAnEnvironmentThatNobodyCreatedIsThereAsLongAsItsRegistrations(t *testing.T) {
	w := start(t)
	w.commit(registry.Create(registry.Projects, "shop", dayfly.Project{Name: "shop", Baseline: "main"}))
	w.commit(creation("main")...)
	w.commit(deployment("main", "api", "v1", healthy)...)
	w.commit(serving("main", map[string]string{"api": "v1"}))
	a := w.register("temp", "web", "v1", "a")
	b := w.register("temp", "web", "v2", "b")
	if got := w.instances("web-temp.localhost"); len(got) != 2 {
		t.Errorf("answered by %v", got)
	}
	m := w.table.Internal(route.Call{Host: "web.temp.internal", Path: "/"})
	if m.Outcome != route.Found || m.Environment != "temp" || m.Project != "shop" {
		t.Errorf("inside it is %+v", m)
	}
	if m := w.table.Internal(route.Call{Host: "web.internal", Header: "temp", Path: "/"}); m.Outcome != route.Found || m.Provider != "temp" {
		t.Errorf("by header it is %+v", m)
	}
	if m := w.table.Internal(route.Call{Host: "api.temp.internal", Path: "/"}); m.Outcome != route.Found || m.Environment != "temp" || m.Provider != "main" {
		t.Errorf("what it has not is not the baseline's: %+v", m)
	}
	w.deregister(a)
	if got := w.version("web-temp.localhost", "/"); got != "v2" {
		t.Errorf("answered by %q", got)
	}
	w.deregister(b)
	if m := w.table.Public("web-temp.localhost", "/"); m.Outcome != route.UnknownEnvironment {
		t.Errorf("after the last one it is %s", m.Outcome)
	}
	if m := w.table.Internal(route.Call{Host: "web.internal", Header: "temp", Path: "/"}); m.Outcome != route.UnknownEnvironment {
		t.Errorf("after the last one it is %s inside", m.Outcome)
	}
}

func TestWhatIsRegisteredForNoEnvironmentIsADeploymentOfItsVersion(t *testing.T) {
	w := start(t)
	a := w.register("", "web", "7", "a")
	id := registry.RegisteredID("shop", "", "web", "7")
	// Somebody points a service at it.
	if err := w.table.SetEnvironment(route.Environment{Name: "x", Project: "shop", Hosts: []route.Host{{Name: "x.localhost"}}, Services: []route.Service{{
		Name: "web", Routes: []dayfly.PathRoute{{Path: "/"}}, Targets: []route.Target{{Deployment: id, Version: "7", Weight: 1}}}}}); err != nil {
		t.Fatal(err)
	}
	w.register("", "web", "8", "other")
	if got := w.instances("x.localhost"); len(got) != 1 {
		t.Errorf("answered by %v", got)
	}
	w.register("", "web", "7", "b")
	if got := w.instances("x.localhost"); len(got) != 2 {
		t.Errorf("answered by %v", got)
	}
	w.register("", "web", "7", "other") // has another version now
	if got := w.instances("x.localhost"); len(got) != 3 {
		t.Errorf("answered by %v", got)
	}
	w.deregister(a)
	if got := w.instances("x.localhost"); len(got) != 2 {
		t.Errorf("answered by %v", got)
	}
}

func TestWhoLeavesKeepsItsRequestsAndGetsNoMore(t *testing.T) {
	w := start(t)
	a := w.register("temp", "web", "v1", "a")
	held := claimOf(t, w, "web-temp.localhost")
	w.register("temp", "web", "v1", "b")
	w.deregister(a)
	for range 20 {
		c := claimOf(t, w, "web-temp.localhost")
		if c.Instance() == held.Instance() {
			t.Fatal("a request is given to who has left")
		}
	}
	left := make(chan error, 1)
	go func() { left <- w.feed.Left(w.deadline(), a.Value) }()
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.feed.Left(short, a.Value); err == nil {
		t.Error("nobody is on it, though a request is")
	}
	select {
	case <-held.Cut():
		t.Error("the request is cut")
	default:
	}
	held.Done(false)
	if err := <-left; err != nil {
		t.Errorf("it is not left when the last request has ended: %v", err)
	}
	// It may come back, and is not taken for who has left.
	back := w.register("temp", "web", "v2", "a")
	found := false
	for range 200 {
		c := claimOf(t, w, "web-temp.localhost")
		found = found || c.Version() == "v2"
	}
	if !found {
		t.Error("who came back gets no requests")
	}
	if err := w.feed.Left(t.Context(), back.Value); err != nil {
		t.Error(err)
	}
}

// A claim that was looked up before the end and is made after it must find somebody.
func TestARequestThatWasLookedUpBeforeTheEndFindsWhoTakesOver(t *testing.T) {
	w := start(t)
	w.commit(creation("main")...)
	w.commit(deployment("main", "web", "v1", healthy)...)
	w.commit(serving("main", map[string]string{"web": "v1"}))
	mine := w.register("main", "web", "mine", "a")
	m := w.table.Public("main.localhost", "/")
	w.deregister(mine)
	claim, ok := m.Claim("", nil)
	if !ok || claim.Version() != "v1" {
		t.Fatalf("%t: it is not answered by who has it now", ok)
	}
	claim.Done(false)
}

func TestAHostThatSomebodyClaimsIsNotTakenAndComesBack(t *testing.T) {
	w := start(t)
	stray := w.register("main", "web", "v1", "a")
	if got := w.version("web-main.localhost", "/"); got != "v1" {
		t.Fatalf("before the claim %q answers", got)
	}
	claims := []registry.Op{
		registry.Create(registry.Hosts, "web-main.localhost", registry.HostClaim{Environment: "id-other", Name: "other"}),
	}
	other := creation("other")
	res := resolution("other")
	res.Services[0].Hosts = []string{"other.localhost", "web-main.localhost"}
	other[1] = registry.Create(registry.Resolutions, "other", res)
	w.commit(append(other, claims...)...)
	if m := w.table.Public("web-main.localhost", "/"); m.Environment != "other" {
		t.Errorf("the host leads to %q, not to who claims it", m.Environment)
	}
	if m := w.table.Internal(route.Call{Host: "web.main.internal", Path: "/"}); m.Outcome != route.Found {
		t.Errorf("inside it is %s", m.Outcome)
	}
	w.commit(registry.Delete(registry.Environments, "other"), registry.Delete(registry.Resolutions, "other"),
		registry.Delete(registry.Releases, "other"), registry.Delete(registry.Hosts, "web-main.localhost"))
	if got := w.version("web-main.localhost", "/"); got != "v1" {
		t.Errorf("after the claim %q answers", got)
	}
	w.deregister(stray)
	if m := w.table.Public("web-main.localhost", "/"); m.Outcome == route.Found {
		t.Error("it is there after its end")
	}
}

func TestWhatTheFirstHasTheSecondGetsWhenThatGoes(t *testing.T) {
	w := start(t)
	register := func(env, service, version, id string) registry.Record[dayfly.Registration] {
		made, err := w.store.Register(w.Context(), dayfly.Registration{Service: service, ID: id, Version: version, Address: "127.0.0.1:2000", Project: "shop", Environment: env,
			Host: "a-b-c.localhost", TTL: dayfly.Duration(time.Hour)}, 0)
		w.reached(made.Revision, err)
		return made
	}
	first := register("b-c", "a", "v1", "1")
	register("c", "a-b", "v2", "2")
	if got := w.version("a-b-c.localhost", "/"); got != "v1" {
		t.Errorf("%q answers", got)
	}
	w.deregister(first)
	if got := w.version("a-b-c.localhost", "/"); got != "v2" {
		t.Errorf("after the end of the first %q answers", got)
	}
}

func TestRoutesOfAHostAreToldApartByTheirPaths(t *testing.T) {
	w := start(t)
	set := func(name, host, path, to string) registry.Op {
		return registry.Put(registry.Routes, name, dayfly.Route{Name: name, Host: host, Path: path, To: to})
	}
	w.commit(set("one", "docs.localhost", "/", "http://one"), set("two", "docs.localhost", "/two", "http://two"))
	check := func(want map[string]string) {
		t.Helper()
		for url, to := range want {
			m := w.table.Public(url[:len("docs.localhost")], url[len("docs.localhost"):])
			if m.External() != to || m.Project != "" {
				t.Errorf("%s leads to %q (%s), want %q", url, m.External(), m.Outcome, to)
			}
		}
	}
	check(map[string]string{"docs.localhost/": "http://one", "docs.localhost/two/x": "http://two", "docs.localhost/twofold": "http://one"})
	w.commit(set("one", "more.localhost", "/", "http://one"))
	check(map[string]string{"docs.localhost/": "", "docs.localhost/two": "http://two", "more.localhost/": "http://one"})
	w.commit(registry.Delete(registry.Routes, "one"), registry.Delete(registry.Routes, "two"))
	check(map[string]string{"docs.localhost/two": "", "more.localhost/": ""})
	// They are nobody's services.
	w.commit(set("web", "web.localhost", "/", "http://web"))
	w.commit(creation("main")...)
	if m := w.table.Internal(route.Call{Host: "web.internal", Path: "/"}); m.Outcome == route.Ambiguous {
		t.Error("a route is taken for a service")
	}
}

func TestWhatIsRegisteredAtTheStartIsInTheTable(t *testing.T) {
	w := open(t)
	var last int64
	for i, env := range []string{"main", "temp", ""} {
		made, err := w.store.Register(t.Context(), dayfly.Registration{Service: "web", ID: fmt.Sprint(i), Version: "v2", Address: "127.0.0.1:1", Project: "shop",
			Environment: env, Host: "web-" + env + ".localhost", TTL: dayfly.Duration(time.Hour)}, 0)
		if err != nil {
			t.Fatal(err)
		}
		last = made.Revision
	}
	last = max(last, w.write(append(creation("main"), registry.Create(registry.Routes, "r", dayfly.Route{Name: "r", Host: "r.localhost", Path: "/", To: "http://r"}))...))
	w.run()
	w.reached(last, nil)
	for _, host := range []string{"main.localhost", "web-main.localhost", "web-temp.localhost"} {
		if got := w.version(host, "/"); got != "v2" {
			t.Errorf("%s is answered by %q", host, got)
		}
	}
	if m := w.table.Public("r.localhost", "/"); m.External() != "http://r" {
		t.Errorf("the route leads to %q", m.External())
	}
}

// Whatever comes, changes and goes in whatever order, the table is as a fresh one would be.
func TestTheTableOfAnyHistoryIsThatOfAFreshStart(t *testing.T) {
	w := start(t)
	live := map[string]registry.Record[dayfly.Registration]{}
	callers := []string{"127.0.0.1:2000", "10.9.0.5:80", "10.9.0.6:80"}
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			id := rapid.SampledFrom([]string{"1", "2", "3"}).Draw(rt, "id")
			env := rapid.SampledFrom([]string{"", "e1", "e2"}).Draw(rt, "env")
			version := rapid.SampledFrom([]string{"v1", "v2"}).Draw(rt, "version")
			switch rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0:
				if r, ok := live[id]; ok {
					w.deregister(r)
					delete(live, id)
				}
			case 1:
				if _, there := registry.Lookup(w.cache, registry.Environments, "e1"); there {
					w.commit(registry.Delete(registry.Environments, "e1"), registry.Delete(registry.Resolutions, "e1"), registry.Delete(registry.Releases, "e1"), registry.Delete(registry.Hosts, "web-e1.localhost"))
				} else {
					w.commit(append(creation("e1"), registry.Create(registry.Hosts, "web-e1.localhost", registry.HostClaim{Environment: "id-e1", Name: "e1"}))...)
				}
			default:
				live[id] = w.registerAt(rapid.SampledFrom(callers).Draw(rt, "address"), env, "web", version, id)
			}
		}
		fresh := &world{T: t, store: w.store, cache: w.cache, table: route.New(route.Options{Domain: "localhost"})}
		fresh.feed = feed.New(w.cache, fresh.table, slog.New(slog.DiscardHandler))
		fresh.feed.Load()
		for _, caller := range callers {
			at := netip.MustParseAddrPort(caller).Addr()
			if is, would := w.table.Source(at), fresh.table.Source(at); is != would {
				rt.Fatalf("%s is %+v's, of a fresh table %+v's", at, is, would)
			}
		}
		for _, host := range []string{"e1.localhost", "web-e1.localhost", "e2.localhost", "web-e2.localhost"} {
			m, f := w.table.Public(host, "/"), fresh.table.Public(host, "/")
			if m.Outcome != f.Outcome || m.Environment != f.Environment || fmt.Sprint(w.instances(host)) != fmt.Sprint(fresh.instances(host)) {
				rt.Fatalf("%s: %s %s %v, a fresh table has %s %s %v", host, m.Outcome, m.Environment, w.instances(host), f.Outcome, f.Environment, fresh.instances(host))
			}
		}
	})
}

func TestPagesSayAtOnceWhetherSomethingIsRegisteredForAVersion(t *testing.T) {
	w := start(t)
	res := resolution("main")
	res.Services[0].From, res.Services[0].Version = dayfly.FromRegistered, "9"
	w.commit(append(creation("main")[:1], registry.Create(registry.Resolutions, "main", res), registry.Create(registry.Releases, "main", release.State{}))...)
	state := func() string {
		s, _ := w.table.Public("web-main.localhost", "/").Info()
		return s
	}
	if got := state(); got != string(dayfly.PhaseFailed) {
		t.Errorf("with nothing registered it is %s", got)
	}
	one := w.register("", "web", "9", "a")
	other := w.register("", "web", "9", "b")
	if got := state(); got != string(dayfly.PhaseReady) {
		t.Errorf("with two instances it is %s", got)
	}
	w.deregister(one)
	if got := state(); got != string(dayfly.PhaseReady) {
		t.Errorf("with one instance left it is %s", got)
	}
	w.deregister(other)
	if got := state(); got != string(dayfly.PhaseFailed) {
		t.Errorf("with nothing registered any more it is %s", got)
	}
}

func TestAHostThatIsGivenUpIsWhoseWaitsForItWhateverIsToldFirst(t *testing.T) {
	for name, order := range map[string]func(a, b registry.Op) []registry.Op{
		"the claim first": func(claim, entry registry.Op) []registry.Op { return []registry.Op{claim, entry} },
		"the claim last":  func(claim, entry registry.Op) []registry.Op { return []registry.Op{entry, claim} },
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			const host = "web-temp.localhost"
			w.commit(registry.Create(registry.Hosts, host, registry.HostClaim{Routes: 1}),
				registry.Create(registry.Routes, "docs", dayfly.Route{Name: "docs", Host: host, Path: "/", To: "http://docs.example.org"}))
			w.register("temp", "web", "v1", "a")
			if m := w.table.Public(host, "/"); !m.Plain() {
				t.Fatalf("the route has its host no more: %+v", m)
			}
			w.commit(order(registry.Delete(registry.Hosts, host), registry.Delete(registry.Routes, "docs"))...)
			if got := w.version(host, "/"); got != "v1" {
				t.Errorf("answered by %q", got)
			}
		})
	}
}
