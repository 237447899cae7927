package route_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// machine does the same to a Table and to the model and compares.
type machine struct {
	table *route.Table
	model
	now         time.Time
	deployments map[string]*kept
	claims      []*held
}

// kept is what the model knows of a deployment.
type kept struct {
	endpoints []route.Endpoint
	drained   map[string]bool // instances; "" = all
	total     uint64
}

type held struct {
	claim      route.Claim
	deployment *kept
	instance   string
	cut        bool
}

var (
	names       = []string{"a", "b", "c", "d", "e", "f"}
	services    = []string{"api", "db", "web"}
	deployments = []string{"d1", "d2", "d3"}
	instances   = []string{"i1", "i2"}
	hosts       = []string{"a.localhost", "web-a.localhost", "b.localhost", "shop.example.org"}
	paths       = []string{"/", "/api", "/api/", "/apix", "/api/v1", "/api/v1/x", "//api", "/a", "/api/a/v1/x", "", "*"}
	routes      = []string{"/", "/api", "/api/", "/api/v1", "/a", "/api/a", "/api/a/v1", "//api"}
)

func newMachine() *machine {
	m := &machine{
		model: model{
			domain: "localhost", suffixes: []string{"internal", "service"},
			projects: map[string]string{}, envs: map[string]route.Environment{}, headers: map[string]string{},
		},
		now:         time.Unix(1, 0),
		deployments: map[string]*kept{},
	}
	m.table = route.New(route.Options{
		Domain: "localhost", InternalSuffixes: []string{"service"}, Now: func() time.Time { return m.now },
	})
	return m
}

func pick[T any](t *rapid.T, from []T, label string) T { return rapid.SampledFrom(from).Draw(t, label) }
func maybe(t *rapid.T, from []string, label string) string {
	return pick(t, append([]string{""}, from...), label)
}

// dressed gives a host as a client might write it.
func dressed(t *rapid.T, host string) string {
	return pick(t, []string{host, host + ":8080", host + ".", strings.ToUpper(host), strings.ToUpper(host) + ".:80", host + ":"}, "dressed")
}

// headers are values for headers; one is a name, too.
var headers = []string{"a", "prod", "qa.2"}

func loopback(n int) netip.Addr { return netip.AddrFrom4([4]byte{127, 9, 0, byte(n)}) }

// drawPath gives a path of segments that routes have, too.
func drawPath(t *rapid.T) string {
	if rapid.Bool().Draw(t, "special") {
		return pick(t, paths, "path")
	}
	return "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"api", "a", "v1", "x", "", "apix"}), 0, 5).Draw(t, "segments"), "/")
}

func drawEnvironment(t *rapid.T) route.Environment {
	e := route.Environment{
		Name: pick(t, names, "name"), Project: pick(t, []string{"blog", "shop"}, "project"),
		Base:         maybe(t, append(names, "gone"), "base"),
		Header:       maybe(t, headers, "header"),
		PublicHeader: rapid.Bool().Draw(t, "public header"),
		Deleting:     rapid.IntRange(0, 4).Draw(t, "deleting") == 0,
		State:        maybe(t, []string{"ready"}, "state"),
	}
	for _, name := range services {
		if rapid.Bool().Draw(t, "has "+name) {
			e.Services = append(e.Services, drawService(t, name))
		}
	}
	for _, h := range hosts {
		if rapid.IntRange(0, 3).Draw(t, "host") == 0 {
			e.Hosts = append(e.Hosts, route.Host{Name: h, Service: maybe(t, services, "host's service")})
		}
	}
	for n := range 3 {
		if rapid.IntRange(0, 3).Draw(t, "address") == 0 {
			e.Addresses = append(e.Addresses, route.Address{Addr: loopback(n), Service: maybe(t, services, "address's service")})
		}
	}
	return e
}

func drawService(t *rapid.T, name string) route.Service {
	s := route.Service{
		Name: name, Protocol: pick(t, []dayfly.Protocol{"http", "http", "h2c", "tcp"}, "protocol"),
		Choose: rapid.Bool().Draw(t, "choose"), State: maybe(t, []string{"starting"}, "state"),
	}
	if rapid.IntRange(0, 5).Draw(t, "external") == 0 {
		s.External = "https://sandbox.example.org"
		return s
	}
	for range rapid.IntRange(0, 2).Draw(t, "routes") {
		path := pick(t, routes, "route")
		if slices.ContainsFunc(s.Routes, func(r dayfly.PathRoute) bool {
			return strings.TrimRight(r.Path, "/") == strings.TrimRight(path, "/")
		}) {
			continue
		}
		s.Routes = append(s.Routes, dayfly.PathRoute{Path: path, Strip: rapid.Bool().Draw(t, "strip")})
	}
	for _, id := range deployments {
		if rapid.Bool().Draw(t, "target") {
			s.Targets = append(s.Targets, route.Target{
				Deployment: id, Version: "v" + id, Weight: rapid.IntRange(0, 2).Draw(t, "weight"),
			})
		}
	}
	return s
}

func (m *machine) SetProject(t *rapid.T) {
	p := route.Project{Name: pick(t, []string{"blog", "shop"}, "project"), Baseline: maybe(t, names, "baseline")}
	m.table.SetProject(p)
	m.projects[p.Name] = p.Baseline
}

func (m *machine) DeleteProject(t *rapid.T) {
	name := pick(t, []string{"blog", "shop"}, "project")
	m.table.DeleteProject(name)
	delete(m.projects, name)
}

func (m *machine) SetEnvironment(t *rapid.T) {
	e := drawEnvironment(t)
	err := m.table.SetEnvironment(e)
	if fits := m.set(e); fits != (err == nil) {
		t.Fatalf("fits: %v, error: %v", fits, err)
	}
	if err != nil && dayfly.ErrorCode(err) != dayfly.CodeConflict {
		t.Fatal(err)
	}
}

// SetPlain writes routes from a host to elsewhere, which are of no environment that anybody could name.
func (m *machine) SetPlain(t *rapid.T) {
	host := pick(t, hosts, "host")
	e := route.Environment{Name: "route:" + host, Plain: true, Hosts: []route.Host{{Name: host}}, State: "ready"}
	for _, n := range []string{"r1", "r2"} {
		r := dayfly.PathRoute{Path: pick(t, routes, "route"), Strip: rapid.Bool().Draw(t, "strip")}
		if len(e.Services) > 0 && strings.TrimRight(e.Services[0].Routes[0].Path, "/") == strings.TrimRight(r.Path, "/") {
			continue
		}
		e.Services = append(e.Services, route.Service{
			Name: "route:" + n, Protocol: "http", External: "http://" + n + ".example.org", Routes: []dayfly.PathRoute{r},
		})
	}
	err := m.table.SetEnvironment(e)
	if fits := m.set(e); fits != (err == nil) {
		t.Fatalf("fits: %v, error: %v", fits, err)
	}
}

func (m *machine) DeleteEnvironment(t *rapid.T) {
	name := pick(t, append(names, "route:"+hosts[0], "route:"+hosts[1]), "name")
	m.table.DeleteEnvironment(name)
	m.unset(name)
}

func (m *machine) keep(id string) *kept {
	if m.deployments[id] == nil {
		m.deployments[id] = &kept{drained: map[string]bool{}}
	}
	return m.deployments[id]
}

func (m *machine) SetDeployment(t *rapid.T) {
	id := pick(t, deployments, "deployment")
	var list []route.Endpoint
	for _, name := range instances {
		if rapid.Bool().Draw(t, "has "+name) {
			list = append(list, route.Endpoint{Instance: id + name, Address: pick(t, []string{"", "x:1", "x:1", "x:2"}, "address")})
		}
	}
	m.table.SetDeployment(id, list)
	m.keep(id).endpoints = slices.DeleteFunc(list, func(e route.Endpoint) bool { return e.Address == "" })
}

func (m *machine) DeleteDeployment(t *rapid.T) {
	id := pick(t, deployments, "deployment")
	m.table.DeleteDeployment(id)
	delete(m.deployments, id)
}

func (m *machine) Drain(t *rapid.T) {
	id := pick(t, deployments, "deployment")
	instance := maybe(t, instances, "instance")
	if instance != "" {
		instance = id + instance
	}
	d := m.keep(id)
	d.drained[instance] = true
	ended, end := context.WithCancel(context.Background())
	end()
	err := m.table.Drain(ended, id, instance)
	busy := slices.ContainsFunc(m.claims, func(h *held) bool {
		return h.deployment == d && (instance == "" || h.instance == instance)
	})
	if busy != errors.Is(err, context.Canceled) || !busy && err != nil {
		t.Fatalf("busy: %v, error: %v", busy, err)
	}
}

func (m *machine) Cut(t *rapid.T) {
	id := pick(t, deployments, "deployment")
	instance := id + pick(t, instances, "instance")
	d := m.keep(id)
	d.drained[instance] = true
	m.table.Cut(id, instance)
	for _, h := range m.claims {
		if h.deployment == d && h.instance == instance {
			h.cut = true
		}
	}
}

func (m *machine) Public(t *rapid.T) {
	host := pick(t, append(hosts, "gone.localhost", "a.gone.localhost", "localhost", "elsewhere"), "host")
	path := drawPath(t)
	header := maybe(t, slices.Concat(names, headers, []string{"gone"}), "header")
	got := m.table.PublicFor(dressed(t, host), path, header)
	m.same(t, got, m.public(host, path, header))
	m.claim(t, got)
	if header == "" {
		m.same(t, m.table.Public(host, path), m.public(host, path, ""))
	}
}

func (m *machine) Internal(t *rapid.T) {
	var host string
	suffix := pick(t, m.suffixes, "suffix")
	switch service := pick(t, append(services, "none"), "service"); rapid.IntRange(0, 2).Draw(t, "host") {
	case 0:
		host = service + "." + suffix
	case 1:
		host = service + "." + pick(t, append(names, "gone"), "env") + "." + suffix
	case 2:
		host = "127.9.0.1"
	}
	local := loopback(rapid.IntRange(0, 3).Draw(t, "local"))
	path := pick(t, paths, "path")
	header := maybe(t, slices.Concat(names, headers, []string{"gone"}), "header")
	trace := maybe(t, append(names, "gone"), "trace")
	source := maybe(t, append(names, "gone"), "source")
	got := m.table.Internal(route.Call{
		Host: dressed(t, host), Path: path, Local: local, Header: strings.ToUpper(header), Trace: trace, Source: source,
	})
	m.same(t, got, m.internal(host, path, local, header, trace, source))
	m.claim(t, got)
}

func (m *machine) same(t *rapid.T, match route.Match, want answer) {
	if got := answerOf(match); got != want {
		t.Fatalf("\n got %+v\nwant %+v", got, want)
	}
}

// claim takes claims of a match until there are none, checks each, and keeps
// some of them.
func (m *machine) claim(t *rapid.T, match route.Match) {
	_, s := m.provider(strings.ToLower(match.Environment), match.Service)
	if s == nil {
		if _, ok := match.Claim("", nil); ok {
			t.Fatal("claimed what is not there")
		}
		return
	}
	choose := maybe(t, []string{"vd1", "vd2", "v9"}, "choose")
	left := m.candidates(s, choose, match.Choose())
	if match.Outcome == route.Missing && m.envs[match.Environment].Deleting {
		return // engines do not claim these
	}
	var tried route.Tried
	for {
		c, ok := match.Claim(choose, &tried)
		if !ok {
			break
		}
		at := route.Endpoint{Instance: c.Instance(), Address: c.Address()}
		if left[at] != c.Version() {
			t.Fatalf("claimed %v of %s, have %v", at, c.Version(), left)
		}
		delete(left, at)
		d := m.deployments[c.Deployment()]
		d.total++
		m.claims = append(m.claims, &held{claim: c, deployment: d, instance: at.Instance})
	}
	if len(left) > 0 {
		t.Fatalf("not claimed: %v", left)
	}
}

// candidates gives the instances that may answer, with their versions.
func (m *machine) candidates(s *route.Service, choose string, mayChoose bool) map[route.Endpoint]string {
	weighted := map[route.Endpoint]string{}
	for _, target := range s.Targets {
		of := map[route.Endpoint]string{}
		if d := m.deployments[target.Deployment]; d != nil && !d.drained[""] {
			for _, e := range d.endpoints {
				if !d.drained[e.Instance] {
					of[e] = target.Version
				}
			}
		}
		if mayChoose && target.Version == choose && len(of) > 0 {
			return of
		}
		if target.Weight > 0 {
			for e, v := range of {
				weighted[e] = v
			}
		}
	}
	return weighted
}

func (m *machine) Done(t *rapid.T) {
	if len(m.claims) == 0 {
		t.Skip("nothing claimed")
	}
	n := rapid.IntRange(0, len(m.claims)-1).Draw(t, "which")
	h := m.claims[n]
	m.claims = slices.Delete(m.claims, n, n+1)
	h.claim.Done(rapid.Bool().Draw(t, "failed"))
	h.claim.Done(true) // once is all that counts
}

func (m *machine) Wait(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond)
}

// Check is called after each of the others.
func (m *machine) Check(t *rapid.T) {
	for _, id := range deployments {
		inFlight, total := m.table.Stats(id)
		want, wantTotal := 0, uint64(0)
		if d := m.deployments[id]; d != nil {
			wantTotal = d.total
			for _, h := range m.claims {
				if h.deployment == d {
					want++
				}
			}
		}
		if inFlight != want || total != wantTotal {
			t.Fatalf("%s: %d in flight, %d in all; want %d, %d", id, inFlight, total, want, wantTotal)
		}
	}
	for _, h := range m.claims {
		select {
		case <-h.claim.Cut():
			if !h.cut {
				t.Fatalf("%s was cut", h.instance)
			}
		default:
			if h.cut {
				t.Fatalf("%s was not cut", h.instance)
			}
		}
	}
}

// Claim looks for a service that is there.
func (m *machine) Claim(t *rapid.T) {
	env := pick(t, names, "name")
	if len(m.envs[env].Services) == 0 {
		t.Skip("no services")
	}
	host := pick(t, m.envs[env].Services, "service").Name + "." + env + ".internal"
	got := m.table.Internal(route.Call{Host: host})
	m.same(t, got, m.internal(host, "", netip.Addr{}, "", "", ""))
	m.claim(t, got)
}

func TestTableAnswersAsTheModelDoesWhateverIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		for range 6 {
			m.SetEnvironment(t)
		}
		for range 4 {
			m.SetDeployment(t)
		}
		t.Repeat(rapid.StateMachineActions(m))
	})
}

// TestEveryLookupInAWorldAnswersAsTheModelDoes asks for everything at once, so
// that rare meetings of bases, routes and rules are met.
func TestEveryLookupInAWorldAnswersAsTheModelDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		m.SetProject(t)
		for range 10 {
			m.SetEnvironment(t)
		}
		m.SetPlain(t)
		envs := append([]string{"", "gone"}, names...)
		for _, host := range hosts {
			for _, path := range paths {
				for _, header := range append(headers, envs...) {
					m.same(t, m.table.PublicFor(host, path, header), m.public(host, path, header))
				}
			}
		}
		for _, service := range append(services, "none") {
			for _, env := range envs {
				host := strings.TrimSuffix(service+"."+env, ".") + ".internal"
				path := pick(t, paths, "path")
				local := loopback(rapid.IntRange(0, 3).Draw(t, "local"))
				for _, header := range append(headers, envs...) {
					for _, trace := range envs {
						c := route.Call{Host: host, Path: path, Local: local, Header: header, Trace: trace, Source: maybe(t, names, "source")}
						m.same(t, m.table.Internal(c), m.internal(host, path, local, header, trace, c.Source))
					}
				}
			}
		}
	})
}
