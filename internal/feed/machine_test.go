package feed_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/feed"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// machine writes records as the rest of the server does and knows what the table must answer then.
type machine struct {
	*world
	baseline  string // of the only project that has one
	envs      map[string]*asked
	instances map[string]map[string]string // addresses of healthy instances, by deployment
	here      map[string]registry.Record[dayfly.Registration]
	routes    map[string]dayfly.Route
	ids       int
}

// asked is what the machine knows of an environment that somebody created.
type asked struct {
	id, project, base, label string
	from                     map[string]dayfly.From // by service; "missing" = somebody waits for it
}

var (
	machineEnvs     = []string{"a", "b", "c", "prod"}
	machineServices = []string{"api", "web"}
	machineHosts    = []string{"a.localhost", "web-b.localhost", "docs.example.org"} // routes want them, too
	machinePaths    = []string{"/", "/api", "/api/v1", "/web/"}
)

const missing dayfly.From = "missing"

func pick[T any](t *rapid.T, from []T, label string) T { return rapid.SampledFrom(from).Draw(t, label) }

// write commits, in any order, and returns when that is in the table.
func (m *machine) write(t *rapid.T, ops ...registry.Op) {
	ops = rapid.Permutation(ops).Draw(t, "order")
	revision, err := registry.Commit(t.Context(), m.store, ops...)
	m.settled(t, revision, err)
}

func (m *machine) settled(t *rapid.T, revision int64, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err == nil {
		err = m.cache.Wait(ctx, revision)
	}
	if err == nil {
		err = m.feed.Wait(ctx, revision)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// claimed says whether a host is another's than this environment's; routes are under "".
func (m *machine) claimed(host, id string) bool {
	claim, ok := registry.Lookup(m.cache, registry.Hosts, host)
	return ok && (claim.Value.Environment != id || id == "" && claim.Value.Routes == 0)
}

func (a *asked) hosts() (all []string) {
	all = append(all, a.label+".localhost")
	for _, s := range machineServices {
		if from, ok := a.from[s]; ok && from != missing {
			all = append(all, s+"-"+a.label+".localhost")
		}
	}
	return all
}

func (m *machine) Project(t *rapid.T) {
	m.baseline = pick(t, append(machineEnvs, ""), "baseline")
	if m.baseline == "" && rapid.Bool().Draw(t, "gone") {
		m.write(t, registry.Delete(registry.Projects, "shop"))
		return
	}
	m.write(t, registry.Put(registry.Projects, "shop", dayfly.Project{Name: "shop", Baseline: m.baseline}))
}

// Environment makes an environment or resolves the one there is again.
func (m *machine) Environment(t *rapid.T) {
	name := pick(t, machineEnvs, "name")
	e := &asked{project: "shop", base: pick(t, append(machineEnvs, ""), "base"), from: map[string]dayfly.From{}}
	e.label = pick(t, []string{name, name, "www-" + name, "b"}, "prefix")
	before := m.envs[name]
	if before != nil {
		e.id = before.id
	} else {
		m.ids++
		e.id = fmt.Sprint("id", m.ids)
	}
	for _, s := range machineServices {
		if from := pick(t, []dayfly.From{"", dayfly.FromOwn, dayfly.FromShared, dayfly.FromBorrowed, dayfly.FromExternal, dayfly.FromRegistered, missing}, "from"); from != "" {
			e.from[s] = from
		}
	}
	for _, h := range e.hosts() {
		if m.claimed(h, e.id) {
			t.Skip("the host is somebody else's") // which resolving refuses
		}
	}
	rec := dayfly.EnvironmentRecord{ID: e.id, Spec: dayfly.EnvironmentSpec{Name: name, Project: e.project, Prefix: e.label}}
	res := dayfly.Resolution{Environment: e.id, Base: e.base}
	if res.Base == name {
		res.Base, e.base = "", ""
	}
	state := release.State{Services: map[string][]release.Target{}}
	hosts := e.hosts()
	m.envs[name] = e
	for _, s := range machineServices {
		from, ok := e.from[s]
		switch {
		case !ok:
			continue
		case from == missing:
			res.Missing = append(res.Missing, dayfly.Need{Missing: dayfly.Missing{Service: s, Version: "v9"}})
			continue
		}
		rs := dayfly.ResolvedService{
			Name: s, From: from, Version: "v1", Commit: "c", Hash: "h",
			Definition: &dayfly.Definition{Service: s, Port: 80, Protocol: dayfly.ProtocolHTTP, Routes: []dayfly.PathRoute{{Path: "/" + s}}},
			Hosts:      []string{hosts[0], s + "-" + e.label + ".localhost"},
		}
		switch from {
		case dayfly.FromExternal:
			rs.URL = "https://" + s + ".example.org"
		case dayfly.FromOwn, dayfly.FromShared:
			state.Services[s] = []release.Target{{Deployment: m.deployment(name, s), Version: "v1", Weight: 1}}
		}
		res.Services = append(res.Services, rs)
	}
	ops := []registry.Op{registry.Put(registry.Environments, name, rec), registry.Put(registry.Resolutions, name, res), registry.Put(registry.Releases, name, state)}
	if before != nil {
		for _, h := range before.hosts() {
			if !slices.Contains(hosts, h) {
				ops = append(ops, registry.Delete(registry.Hosts, h))
			}
		}
	}
	for _, h := range hosts {
		ops = append(ops, registry.Put(registry.Hosts, h, registry.HostClaim{Environment: e.id, Name: name}))
	}
	m.write(t, ops...)
}

func sharedKey(service string) dayfly.DeploymentKey {
	return dayfly.DeploymentKey{Project: "shop", Service: service, Version: "c", Hash: "h", Owner: dayfly.SharedOwner("shop")}
}

// deployment is that of a service which an environment has of its own, or shares.
func (m *machine) deployment(env, service string) string {
	if e := m.envs[env]; e != nil && e.from[service] == dayfly.FromShared {
		return sharedKey(service).ID()
	}
	return "own-" + env + "-" + service
}

func (m *machine) Forget(t *rapid.T) {
	if len(m.envs) == 0 {
		t.Skip("there is none")
	}
	name := pick(t, slices.Sorted(maps.Keys(m.envs)), "name")
	ops := []registry.Op{registry.Delete(registry.Environments, name), registry.Delete(registry.Resolutions, name), registry.Delete(registry.Releases, name)}
	for _, h := range m.envs[name].hosts() {
		ops = append(ops, registry.Delete(registry.Hosts, h))
	}
	delete(m.envs, name)
	m.write(t, ops...)
}

// Deployment makes a deployment, changes what is observed of it, or takes it away.
func (m *machine) Deployment(t *rapid.T) {
	service := pick(t, machineServices, "service")
	environment, key := pick(t, machineEnvs, "environment"), sharedKey(service)
	id := key.ID()
	if rapid.Bool().Draw(t, "shared") {
		environment = ""
	} else {
		id, key.Owner = "own-"+environment+"-"+service, "id"
	}
	if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
		delete(m.instances, id)
		m.write(t, registry.Delete(registry.Deployments, id), registry.Delete(registry.Observed, id))
		return
	}
	status := dayfly.DeploymentStatus{Deployment: id, Phase: dayfly.DeploymentReady}
	healthy := map[string]string{}
	for n := range rapid.IntRange(0, 3).Draw(t, "instances") {
		i := dayfly.Instance{ID: fmt.Sprint("i", n), Address: fmt.Sprintf("%s-%d:%d", id, n, rapid.IntRange(1, 2).Draw(t, "port")), Phase: pick(t, []dayfly.InstancePhase{dayfly.InstanceHealthy, dayfly.InstanceStarting}, "phase")}
		if i.Phase == dayfly.InstanceHealthy {
			healthy[i.ID] = i.Address
		}
		status.Instances = append(status.Instances, i)
	}
	m.instances[id] = healthy
	m.write(t, registry.Put(registry.Deployments, id, dayfly.Deployment{ID: id, Environment: environment, Key: key}),
		registry.Put(registry.Observed, id, status))
}

// Register registers an instance, or changes what it says of itself.
func (m *machine) Register(t *rapid.T) {
	service, id := pick(t, machineServices, "service"), pick(t, []string{"i", "j"}, "id")
	r := dayfly.Registration{
		Service: service, ID: id, Version: pick(t, []string{"v1", "v2"}, "version"), Address: fmt.Sprintf("elsewhere-%s-%s:%d", service, id, rapid.IntRange(1, 2).Draw(t, "port")),
		Project: "shop", Environment: pick(t, append(machineEnvs, "", "nobodys"), "env"), TTL: dayfly.Duration(time.Hour),
	}
	if r.Environment != "" {
		r.Host = service + "-" + r.Environment + ".localhost"
	}
	key := registry.RegistrationKey(service, id)
	there := m.here[key]
	r.Lease = there.Value.Lease
	made, err := m.store.Register(t.Context(), r, there.Revision)
	if err == nil {
		m.here[key] = made
	}
	m.settled(t, made.Revision, err)
}

// Expire ends a lease, as its time does.
func (m *machine) Expire(t *rapid.T) {
	if len(m.here) == 0 {
		t.Skip("nothing is registered")
	}
	key := pick(t, slices.Sorted(maps.Keys(m.here)), "registration")
	r := m.here[key]
	delete(m.here, key)
	revision, err := m.store.Deregister(t.Context(), r.Value)
	m.settled(t, revision, err)
}

func (m *machine) Route(t *rapid.T) {
	name := pick(t, []string{"r1", "r2", "r3"}, "route")
	before, was := m.routes[name]
	var ops []registry.Op
	count := func(host string, without string) (n int) {
		for other, r := range m.routes {
			if r.Host == host && other != without {
				n++
			}
		}
		return n
	}
	claim := func(host string, n int) registry.Op {
		if n == 0 {
			return registry.Delete(registry.Hosts, host)
		}
		return registry.Put(registry.Hosts, host, registry.HostClaim{Routes: n})
	}
	if was && rapid.Bool().Draw(t, "delete") {
		delete(m.routes, name)
		m.write(t, registry.Delete(registry.Routes, name), claim(before.Host, count(before.Host, name)))
		return
	}
	r := dayfly.Route{Name: name, Host: pick(t, machineHosts, "host"), Path: pick(t, machinePaths, "path"), To: "http://" + name, Strip: rapid.Bool().Draw(t, "strip")}
	for other, o := range m.routes {
		if other != name && o.Host == r.Host && strings.TrimRight(o.Path, "/") == strings.TrimRight(r.Path, "/") {
			t.Skip("another one has the path")
		}
	}
	if m.claimed(r.Host, "") {
		t.Skip("the host is an environment's")
	}
	if was && before.Host != r.Host {
		ops = append(ops, claim(before.Host, count(before.Host, name)))
	}
	m.routes[name] = r
	m.write(t, append(ops, registry.Put(registry.Routes, name, r), claim(r.Host, count(r.Host, "")))...)
}

// registered gives the addresses that are registered for a service of an environment.
func (m *machine) registered(env, service string) (all []string) {
	for _, r := range m.here {
		if r.Value.Environment == env && r.Value.Service == service {
			all = append(all, r.Value.Address)
		}
	}
	return all
}

// unmanaged says whether something is registered with an environment that nobody created.
func (m *machine) unmanaged(env string) bool {
	for _, r := range m.here {
		if r.Value.Environment == env {
			return m.envs[env] == nil
		}
	}
	return false
}

// answers gives who answers for a service of an environment, or where it is.
func (m *machine) answers(env, service string) []string {
	for seen := map[string]bool{}; env != "" && !seen[env]; {
		seen[env] = true
		if all := m.registered(env, service); len(all) > 0 {
			return all
		}
		e := m.envs[env]
		if e == nil {
			if !m.unmanaged(env) || m.baseline == env {
				return nil
			}
			env = m.baseline
			continue
		}
		switch e.from[service] {
		case "", dayfly.FromBorrowed:
			env = e.base
			continue
		case dayfly.FromExternal:
			return []string{"https://" + service + ".example.org"}
		case dayfly.FromRegistered:
			var all []string
			for _, r := range m.here {
				if r.Value.Environment == "" && r.Value.Service == service && r.Value.Version == "v1" {
					all = append(all, r.Value.Address)
				}
			}
			return all
		case dayfly.FromOwn, dayfly.FromShared:
			return slices.Collect(maps.Values(m.instances[m.deployment(env, service)]))
		}
		return nil // it is missing, and nobody else answers for it
	}
	return nil
}

// reached gives who is claimed for a match, or where it leads.
func reached(t *rapid.T, match route.Match) (all []string) {
	if match.External() != "" {
		return []string{match.External()}
	}
	var tried route.Tried
	for {
		claim, ok := match.Claim("", &tried)
		if !ok {
			slices.Sort(all)
			return all
		}
		if all = append(all, claim.Address()); len(all) > 10 {
			t.Fatalf("claimed %v", all)
		}
		claim.Done(false)
	}
}

func (m *machine) same(t *rapid.T, what string, got, want []string) {
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

// Check is called after each of the others.
func (m *machine) Check(t *rapid.T) {
	fresh := route.New(route.Options{Domain: "localhost"})
	feed.New(m.cache, fresh, slog.New(slog.DiscardHandler)).Load()
	for _, service := range machineServices {
		for _, env := range append(machineEnvs, "nobodys") {
			host := service + "." + env + ".internal"
			want := m.answers(env, service)
			m.same(t, host, reached(t, m.table.Internal(route.Call{Host: host})), want)
			if len(want) > 0 {
				call := route.Call{Host: service + ".internal", Header: env}
				m.same(t, service+" by header "+env, reached(t, m.table.Internal(call)), want)
			}
			m.alike(t, fresh, service+"-"+env+".localhost", "/")
			if m.envs[env] == nil && len(m.registered(env, service)) > 0 && !m.claimed(service+"-"+env+".localhost", "nobody's") {
				public := service + "-" + env + ".localhost"
				m.same(t, public, reached(t, m.table.Public(public, "/")), want)
			}
			if e := m.envs[env]; e != nil && e.from[service] != "" && e.from[service] != missing {
				public := service + "-" + e.label + ".localhost"
				m.same(t, public, reached(t, m.table.Public(public, "/")), want)
			}
		}
	}
	for _, host := range slices.Concat(machineHosts, []string{"b.localhost", "www-a.localhost", "www-prod.localhost", "nobodys.localhost"}) {
		for _, path := range []string{"/", "/api/v1/x", "/apiv", "/web", "/web/x"} {
			m.alike(t, fresh, host, path)
			if to, strip := m.routed(host, path); to != "" {
				match := m.table.Public(host, path)
				if !match.Plain() || match.External() != to || match.Strip != strip {
					t.Fatalf("%s%s: %+v to %q, want %q without %q", host, path, match, match.External(), to, strip)
				}
			}
		}
	}
}

// alike says whether the table answers as one that was made from the records as they are now.
func (m *machine) alike(t *rapid.T, fresh *route.Table, host, path string) {
	type answer struct {
		outcome                                     route.Outcome
		env, project, service, provider, strip, url string
		state, message                              string
	}
	of := func(match route.Match) answer {
		state, message := match.Info()
		return answer{match.Outcome, match.Environment, match.Project, match.Service, match.Provider, match.Strip, match.External(), state, message}
	}
	got, want := m.table.Public(host, path), fresh.Public(host, path)
	if of(got) != of(want) {
		t.Fatalf("%s%s\n is %+v\nand from the records alone %+v", host, path, of(got), of(want))
	}
	m.same(t, host+path, reached(t, got), reached(t, want))
}

// routed gives where a route leads to from a host and a path.
func (m *machine) routed(host, path string) (to, strip string) {
	longest := -1
	for _, r := range m.routes {
		prefix := strings.TrimRight(r.Path, "/")
		if r.Host != host || len(prefix) <= longest || path != prefix && !strings.HasPrefix(path, prefix+"/") {
			continue
		}
		longest, to, strip = len(prefix), r.To, ""
		if r.Strip {
			strip = prefix
		}
	}
	return to, strip
}

// clear takes all records away.
func (m *machine) clear(t *rapid.T) {
	for _, r := range m.here {
		revision, err := m.store.Deregister(t.Context(), r.Value)
		m.settled(t, revision, err)
	}
	var ops []registry.Op
	for _, name := range machineEnvs {
		ops = append(ops, registry.Delete(registry.Environments, name), registry.Delete(registry.Resolutions, name), registry.Delete(registry.Releases, name))
	}
	for h := range registry.All(m.cache, registry.Hosts) {
		ops = append(ops, registry.Delete(registry.Hosts, h.Key))
	}
	for d := range registry.All(m.cache, registry.Deployments) {
		ops = append(ops, registry.Delete(registry.Deployments, d.Key), registry.Delete(registry.Observed, d.Key))
	}
	for r := range registry.All(m.cache, registry.Routes) {
		ops = append(ops, registry.Delete(registry.Routes, r.Key))
	}
	m.write(t, append(ops, registry.Delete(registry.Projects, "shop"))...)
}

func TestTheTableAnswersForTheRecordsWhateverIsWrittenInWhateverOrder(t *testing.T) {
	w := start(t)
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{
			world: w, envs: map[string]*asked{}, instances: map[string]map[string]string{},
			here: map[string]registry.Record[dayfly.Registration]{}, routes: map[string]dayfly.Route{},
		}
		// What a failed sequence left is in the cache: it is cleared by what that has.
		for r := range registry.All(w.cache, registry.Registrations) {
			m.here[r.Key] = r
		}
		m.clear(t)
		clear(m.here)
		m.Environment(t)
		m.Deployment(t)
		t.Repeat(rapid.StateMachineActions(m))
	})
}
