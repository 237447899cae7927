package feed_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/feed"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/registry/registrytest"
	"github.com/dayfly-dev/dayfly/internal/release"
	"github.com/dayfly-dev/dayfly/internal/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a state and the table that a Feed makes of it.
type world struct {
	*testing.T
	store *registry.Store
	cache *registry.Cache
	table *route.Table
	feed  *feed.Feed
}

// open makes a world whose Feed does not run yet.
func open(t *testing.T) *world {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	store, cache := registrytest.Open(t)
	w := &world{T: t, store: store, cache: cache, table: route.New(route.Options{Domain: "localhost", InternalSuffixes: []string{".internal"}})}
	w.feed = feed.New(cache, w.table, quiet)
	return w
}

func (w *world) run() *world {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.feed.Run(ctx) })
	w.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return w
}

func start(t *testing.T) *world { return open(t).run() }

// commit writes, and returns when that is in the table.
func (w *world) commit(ops ...registry.Op) {
	w.Helper()
	if err := w.feed.Wait(w.deadline(), w.write(ops...)); err != nil {
		w.Fatal(err)
	}
}

// write writes, and returns when that is in the cache.
func (w *world) write(ops ...registry.Op) (revision int64) {
	w.Helper()
	revision, err := registry.Commit(w.Context(), w.store, ops...)
	if err == nil {
		err = w.cache.Wait(w.Context(), revision)
	}
	if err != nil {
		w.Fatal(err)
	}
	return revision
}

func (w *world) deadline() context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), 30*time.Second)
	w.Cleanup(cancel)
	return ctx
}

// version says which version of a service a request to a host is given, "" = none.
func (w *world) version(host, path string) string {
	m := w.table.Public(host, path)
	claim, ok := m.Claim("", nil)
	if !ok {
		return ""
	}
	defer claim.Done(false)
	return claim.Version()
}

// instances gives those that answer requests to a host.
func (w *world) instances(host string) []string {
	m := w.table.Public(host, "/")
	var found []string
	var tried route.Tried
	for {
		claim, ok := m.Claim("", &tried)
		if !ok || slices.Contains(found, claim.Instance()) {
			slices.Sort(found)
			return found
		}
		found = append(found, claim.Instance())
		claim.Done(false)
	}
}

// creation gives what control writes for an environment with the services web, at /,
// and api, at /api.
func creation(name string) []registry.Op {
	rec := dayfly.EnvironmentRecord{ID: "id-" + name, Spec: dayfly.EnvironmentSpec{Name: name, Project: "shop"}}
	return []registry.Op{
		registry.Create(registry.Environments, name, rec),
		registry.Create(registry.Resolutions, name, resolution(name)),
		registry.Create(registry.Releases, name, release.State{}),
	}
}

func resolution(name string) dayfly.Resolution {
	return dayfly.Resolution{
		Environment: "id-" + name, Address: "127.1.1.1",
		Services: []dayfly.ResolvedService{
			{Name: "web", From: dayfly.FromOwn, Commit: "v1", Address: "127.1.1.2",
				Definition: &dayfly.Definition{Routes: []dayfly.PathRoute{{Path: "/"}}},
				Hosts:      []string{name + ".localhost", "web-" + name + ".localhost"}},
			{Name: "api", From: dayfly.FromOwn, Commit: "v1", Address: "127.1.1.3",
				Definition: &dayfly.Definition{Routes: []dayfly.PathRoute{{Path: "/api"}}},
				Hosts:      []string{name + ".localhost", "api-" + name + ".localhost"}},
			{Name: "smoke", Definition: &dayfly.Definition{Test: true}, Hosts: []string{"smoke-" + name + ".localhost"}},
		},
	}
}

// deployment gives the ops that add a deployment with instances in these phases.
func deployment(environment, service, version string, phases ...dayfly.InstancePhase) []registry.Op {
	id := service + "@" + version
	return []registry.Op{
		registry.Create(registry.Deployments, id, dayfly.Deployment{ID: id, Environment: environment, Key: dayfly.DeploymentKey{
			Service: service, Version: version, Owner: "id-" + environment}}),
		observed(id, dayfly.DeploymentReady, "", phases...),
	}
}

func observed(id string, phase dayfly.DeploymentPhase, message string, phases ...dayfly.InstancePhase) registry.Op {
	st := dayfly.DeploymentStatus{Deployment: id, Phase: phase, Message: message}
	for i, p := range phases {
		st.Instances = append(st.Instances, dayfly.Instance{
			ID: fmt.Sprint(id, "-", i), Address: fmt.Sprint("127.0.0.1:", 1000+i), Phase: p})
	}
	return registry.Put(registry.Observed, id, st)
}

// serving gives the op that has one version of each service serve.
func serving(environment string, versions map[string]string) registry.Op {
	state := release.State{Services: map[string][]release.Target{}}
	for service, version := range versions {
		state.Services[service] = []release.Target{{Deployment: service + "@" + version, Version: version, Weight: 1}}
	}
	return registry.Put(registry.Releases, environment, state)
}

const (
	healthy   = dayfly.InstanceHealthy
	unhealthy = dayfly.InstanceUnhealthy
)

func TestAnEnvironmentAppearsWithItsHostsRoutesAndAddresses(t *testing.T) {
	w := start(t)
	if got := w.table.Public("main.localhost", "/").Outcome; got == route.Found {
		t.Fatalf("found before it is there: %s", got)
	}
	w.commit(creation("main")...)
	if got := w.table.Public("main.localhost", "/"); got.Environment != "main" || got.Project != "shop" || got.Outcome != route.Missing {
		t.Errorf("without deployments: %+v", got)
	}
	w.commit(deployment("main", "web", "v1", healthy)...)
	w.commit(deployment("main", "api", "v1", healthy)...)
	w.commit(serving("main", map[string]string{"web": "v1", "api": "v1"}))
	for _, c := range []struct{ host, path, service string }{
		{"main.localhost", "/", "web"},
		{"main.localhost", "/api/cart", "api"},
		{"web-main.localhost", "/api", "web"},
		{"api-main.localhost", "/", "api"},
	} {
		if m := w.table.Public(c.host, c.path); m.Outcome != route.Found || m.Service != c.service || m.Environment != "main" {
			t.Errorf("%s%s is %s %s of %s, want %s", c.host, c.path, m.Outcome, m.Service, m.Environment, c.service)
		}
	}
	if m := w.table.Public("smoke-main.localhost", "/"); m.Outcome == route.Found {
		t.Error("a test has a host")
	}
	for address, service := range map[string]string{"127.1.1.1": "web", "127.1.1.2": "web", "127.1.1.3": "api"} {
		m := w.table.Internal(route.Call{Host: address, Path: "/", Local: netip.MustParseAddr(address)})
		if m.Outcome != route.Found || m.Service != service || m.Environment != "main" {
			t.Errorf("%s is %s %s of %s, want %s", address, m.Outcome, m.Service, m.Environment, service)
		}
	}
}

func TestWhatIsThereAtTheStartIsInTheTable(t *testing.T) {
	w := open(t)
	ops := append(creation("main"), deployment("main", "web", "v1", healthy)...)
	w.write(ops...)
	revision := w.write(serving("main", map[string]string{"web": "v1"}))
	w.run()
	if err := w.feed.Wait(w.deadline(), revision); err != nil {
		t.Fatal(err)
	}
	if got := w.version("main.localhost", "/"); got != "v1" {
		t.Errorf("answers with %q", got)
	}
}

// Environments are loaded on all cores at once.
func TestWhenLoadReturnsEveryEnvironmentIsInTheTable(t *testing.T) {
	w := open(t)
	const environments = 200
	name := func(i int) string { return fmt.Sprint("env-", i) }
	for i := range environments {
		res := resolution(name(i))
		res.Address = ""
		for s := range res.Services {
			res.Services[s].Address = ""
		}
		w.write(append(deployment(name(i), "web", name(i), healthy),
			creation(name(i))[0], registry.Create(registry.Resolutions, name(i), res), serving(name(i), map[string]string{"web": name(i)}))...)
	}
	w.feed.Load()
	for i := range environments {
		if got := w.version(name(i)+".localhost", "/"); got != name(i) {
			t.Errorf("%s answers with %q", name(i), got)
		}
	}
}

func TestAShiftChangesWhoIsClaimed(t *testing.T) {
	w := start(t)
	w.commit(creation("main")...)
	w.commit(deployment("main", "web", "v1", healthy)...)
	w.commit(serving("main", map[string]string{"web": "v1"}))
	w.commit(deployment("main", "web", "v2", healthy)...)
	if got := w.version("main.localhost", "/"); got != "v1" {
		t.Errorf("before the shift %q answers", got)
	}
	w.commit(serving("main", map[string]string{"web": "v2"}))
	if got := w.version("main.localhost", "/"); got != "v2" {
		t.Errorf("after the shift %q answers", got)
	}
	w.commit(registry.Delete(registry.Deployments, "web@v1"), registry.Delete(registry.Observed, "web@v1"))
	if got := w.version("main.localhost", "/"); got != "v2" {
		t.Errorf("after the old one is gone %q answers", got)
	}
}

func TestOnlyInstancesThatCanAnswerAreClaimed(t *testing.T) {
	w := start(t)
	w.commit(creation("main")...)
	w.commit(deployment("main", "web", "v1")...)
	w.commit(serving("main", map[string]string{"web": "v1"}))
	for _, c := range []struct {
		name   string
		phases []dayfly.InstancePhase
		want   []string
	}{
		{"healthy ones", []dayfly.InstancePhase{healthy, healthy}, []string{"web@v1-0", "web@v1-1"}},
		{"an unhealthy one leaves", []dayfly.InstancePhase{healthy, unhealthy}, []string{"web@v1-0"}},
		{"and comes back", []dayfly.InstancePhase{healthy, healthy}, []string{"web@v1-0", "web@v1-1"}},
		{"unhealthy ones are tried where there is no other", []dayfly.InstancePhase{unhealthy, unhealthy}, []string{"web@v1-0", "web@v1-1"}},
		{"those that start, stop or have ended are not", []dayfly.InstancePhase{
			dayfly.InstanceStarting, dayfly.InstanceStopping, dayfly.InstanceExited, healthy}, []string{"web@v1-3"}},
		{"nor where there is no other", []dayfly.InstancePhase{dayfly.InstanceStarting, dayfly.InstanceStopping}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.commit(observed("web@v1", dayfly.DeploymentReady, "", c.phases...))
			if got := w.instances("main.localhost"); !slices.Equal(got, c.want) {
				t.Errorf("claimed %v, want %v", got, c.want)
			}
		})
	}
}

func TestAnInstanceWithoutAnAddressIsNotClaimed(t *testing.T) {
	w := start(t)
	w.commit(creation("main")...)
	w.commit(deployment("main", "web", "v1")...)
	w.commit(serving("main", map[string]string{"web": "v1"}), registry.Put(registry.Observed, "web@v1", dayfly.DeploymentStatus{
		Instances: []dayfly.Instance{{ID: "i", Phase: healthy}}}))
	if got := w.instances("main.localhost"); got != nil {
		t.Errorf("claimed %v", got)
	}
}

func TestADeploymentThatIsGoneIsNotClaimed(t *testing.T) {
	w := start(t)
	w.commit(creation("main")...)
	w.commit(deployment("main", "web", "v1", healthy)...)
	w.commit(serving("main", map[string]string{"web": "v1"}))
	w.commit(registry.Delete(registry.Deployments, "web@v1"), registry.Delete(registry.Observed, "web@v1"))
	if got := w.version("main.localhost", "/"); got != "" {
		t.Errorf("%q answers", got)
	}
	// What a node that was away still says of it does not bring it back.
	w.commit(observed("web@v1", dayfly.DeploymentReady, "", healthy))
	if got := w.version("main.localhost", "/"); got != "" {
		t.Errorf("%q answers again", got)
	}
}

func TestADeletedEnvironmentTakesNoMoreRequestsAndIsForgottenThen(t *testing.T) {
	w := start(t)
	w.commit(creation("main")...)
	w.commit(deployment("main", "web", "v1", healthy)...)
	w.commit(serving("main", map[string]string{"web": "v1"}))
	rec, _ := registry.Lookup(w.cache, registry.Environments, "main")
	rec.Value.Deleting = true
	w.commit(registry.Put(registry.Environments, "main", rec.Value))
	if m := w.table.Public("main.localhost", "/"); m.Outcome != route.Missing {
		t.Errorf("while it is deleted: %s", m.Outcome)
	}
	w.commit(registry.Delete(registry.Environments, "main"), registry.Delete(registry.Resolutions, "main"), registry.Delete(registry.Releases, "main"))
	if m := w.table.Public("main.localhost", "/"); m.Outcome == route.Found || m.Outcome == route.Missing {
		t.Errorf("when it is gone: %s", m.Outcome)
	}
}

func TestAnEnvironmentIsRoutedAgainUnderTheSameName(t *testing.T) {
	w := start(t)
	w.commit(creation("main")...)
	w.commit(registry.Delete(registry.Environments, "main"), registry.Delete(registry.Resolutions, "main"), registry.Delete(registry.Releases, "main"))
	w.commit(creation("main")...)
	if m := w.table.Public("main.localhost", "/"); m.Outcome != route.Missing || m.Environment != "main" {
		t.Errorf("%s of %q", m.Outcome, m.Environment)
	}
}

func TestPagesAreToldHowAServiceFares(t *testing.T) {
	w := start(t)
	w.commit(creation("main")...)
	for _, c := range []struct {
		phase          dayfly.DeploymentPhase
		state, message string
	}{
		{dayfly.DeploymentBuilding, "building", "go build"},
		{dayfly.DeploymentFailed, "failed", "exits with 3"},
	} {
		t.Run(string(c.phase), func(t *testing.T) {
			if _, there := registry.Lookup(w.cache, registry.Deployments, "web@v1"); !there {
				w.commit(deployment("main", "web", "v1")...)
			}
			w.commit(observed("web@v1", c.phase, c.message))
			if state, message := w.table.Public("main.localhost", "/").Info(); state != c.state || message != c.message {
				t.Errorf("is %s %q, want %s %q", state, message, c.state, c.message)
			}
		})
	}
}

func TestTheBaselineOfAProjectAnswersForIt(t *testing.T) {
	w := start(t)
	w.commit(append(creation("main"), registry.Create(registry.Projects, "shop", dayfly.Project{Name: "shop", Baseline: "main"}))...)
	w.commit(deployment("main", "api", "v1", healthy)...)
	w.commit(serving("main", map[string]string{"api": "v1"}))
	find := func() route.Match { return w.table.Internal(route.Call{Host: "api.internal", Path: "/"}) }
	if m := find(); m.Outcome != route.Found || m.Environment != "main" {
		t.Errorf("with a baseline: %s of %q", m.Outcome, m.Environment)
	}
	w.commit(registry.Put(registry.Projects, "shop", dayfly.Project{Name: "shop"}))
	if m := find(); m.Outcome == route.Found {
		t.Errorf("without one: %s of %q", m.Outcome, m.Environment)
	}
}

// Many records of many environments change in one transaction, and some of them again
// before the first change was taken in: when Wait returns, all of it is in the table.
func TestWaitReturnsOnlyWhenEverythingIsInTheTable(t *testing.T) {
	w := start(t)
	const environments = 100
	name := func(i int) string { return fmt.Sprint("env-", i) }
	for i := range environments {
		for _, version := range []string{"v1", "v2"} {
			id := name(i) + version
			w.write(registry.Create(registry.Deployments, id, dayfly.Deployment{ID: id, Key: dayfly.DeploymentKey{Owner: "id-" + name(i)}}),
				observed(id, dayfly.DeploymentReady, "", healthy))
		}
		res := resolution(name(i))
		res.Address = ""
		for s := range res.Services {
			res.Services[s].Address = ""
		}
		w.write(append(creation(name(i))[:1], registry.Create(registry.Resolutions, name(i), res))...)
	}
	for round := range 50 {
		version := []string{"v1", "v2"}[round%2]
		var all []registry.Op
		for i := range environments {
			state := release.State{Services: map[string][]release.Target{
				"web": {{Deployment: name(i) + version, Version: fmt.Sprint(round), Weight: 1}}}}
			all = append(all, registry.Put(registry.Releases, name(i), state))
		}
		var revision int64
		var err error
		for _, ops := range [][]registry.Op{all, all[:1]} { // the second may be merged into the first
			if revision, err = registry.Commit(t.Context(), w.store, ops...); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.feed.Wait(w.deadline(), revision-int64(round%2)); err != nil {
			t.Fatal(err)
		}
		for i := environments - 1; i >= 0; i-- {
			if got := w.version(name(i)+".localhost", "/"); got != fmt.Sprint(round) {
				t.Fatalf("round %d: %s answers with %q", round, name(i), got)
			}
		}
	}
}

// Revisions grow without any record, by events and leases.
func TestWaitingForARevisionThatChangedNoRecordEnds(t *testing.T) {
	w := start(t)
	w.commit(creation("main")...)
	var revision int64
	for i := range 3 {
		if err := registry.AppendEvent(t.Context(), w.store, "id-main", dayfly.Event{Message: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		events, err := registry.Events(t.Context(), w.store, "id-main", 0)
		if err != nil {
			t.Fatal(err)
		}
		revision = events[len(events)-1].ID / 1000 // an id begins with the revision
	}
	if err := w.cache.Wait(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
	if err := w.feed.Wait(w.deadline(), w.cache.Revision()); err != nil {
		t.Errorf("at revision %d: %v", w.cache.Revision(), err)
	}
}

func TestWaitingForWhatDoesNotComeEndsWithItsContext(t *testing.T) {
	w := open(t) // does not run
	revision := w.write(creation("main")...)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.feed.Wait(ctx, revision); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
