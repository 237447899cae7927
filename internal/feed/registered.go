package feed

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// registered is what the feed remembers of instances that registered themselves: what a record said
// before it changed or went, and who waits until nobody is on one that has gone.
type registered struct {
	mu        sync.Mutex
	placed    map[string]dayfly.Registration // by key
	endpoints map[string][]route.Endpoint    // by deployment
	leaving   map[departure]chan struct{}    // closed when nobody is on the instance
	leavingOf map[string]int                 // how many of a deployment
	life      context.Context                // of Run; nil before
	waiting   sync.WaitGroup                 // for those that leave

	// Hosts that no record claims: they are an environment's for as long as something is
	// registered with it, and as nobody claims them.
	hosts  map[string]string          // the environment that has a host
	held   map[string][]string        // the hosts of an environment
	denied map[string]map[string]bool // the environments that would have a host

	routed map[string]string // host of a route, by its name

	refused map[string]error // why the table did not take the entry of an environment
	told    map[string]error // of those, what was logged; of settle alone
}

type departure struct{ deployment, instance string }

func newRegistered() *registered {
	return &registered{
		placed: map[string]dayfly.Registration{}, endpoints: map[string][]route.Endpoint{},
		leaving: map[departure]chan struct{}{}, leavingOf: map[string]int{},
		hosts: map[string]string{}, held: map[string][]string{}, denied: map[string]map[string]bool{}, routed: map[string]string{}, refused: map[string]error{},
	}
}

func deploymentOf(r dayfly.Registration) string {
	return registry.RegisteredID(r.Project, r.Environment, r.Service, r.Version)
}

// instanceOf names an instance in the table: one that went and came back is another one, which does
// not drain.
func instanceOf(r dayfly.Registration) string { return r.ID + "@" + strconv.FormatInt(r.Lease, 16) }

// loadRegistered applies all registrations but the environments that they make.
func (f *Feed) loadRegistered() {
	deployments := map[string]bool{}
	for r := range registry.All(f.cache, registry.Registrations) {
		f.registered.mu.Lock()
		f.registered.placed[r.Key] = r.Value
		f.registered.mu.Unlock()
		deployments[deploymentOf(r.Value)] = true
		f.registrationSource(r.Key)
	}
	for id := range deployments {
		f.registeredDeployment(id)
	}
}

// loadUnmanaged applies the environments that nobody created, and the routes.
func (f *Feed) loadUnmanaged() {
	for name := range registry.RegisteredEnvironments(f.cache, "") {
		if _, created := registry.Lookup(f.cache, registry.Environments, name); !created {
			f.environment(name)
		}
	}
	for r := range registry.All(f.cache, registry.Routes) {
		f.route(r.Key)
	}
}

// registration applies a registration that came, changed or went. Who comes has its endpoint before
// requests are sent there, who goes keeps it until they are sent elsewhere.
func (f *Feed) registration(key string) {
	rec, there := registry.Lookup(f.cache, registry.Registrations, key)
	f.registered.mu.Lock()
	before, was := f.registered.placed[key]
	if there {
		f.registered.placed[key] = rec.Value
	} else {
		delete(f.registered.placed, key)
	}
	f.registered.mu.Unlock()
	f.registrationSource(key)
	now := rec.Value
	if there {
		f.registeredFor(now)
		if now.Environment != "" {
			f.environment(now.Environment)
		}
	}
	if !was {
		return
	}
	if before.Environment != "" && (!there || now.Environment != before.Environment) {
		f.environment(before.Environment)
	}
	if !there || deploymentOf(now) != deploymentOf(before) {
		f.registeredFor(before)
	}
}

// registeredFor sets the endpoints of the version that an instance is or was of. The first and the last one
// of a version that environments asked for change what their pages say.
func (f *Feed) registeredFor(r dayfly.Registration) {
	if first, last := f.registeredDeployment(deploymentOf(r)); r.Environment != "" || !first && !last {
		return
	}
	for name := range registry.UsersOfRegistered(f.cache, r.Project, r.Service, r.Version) {
		f.environment(name)
	}
}

// registeredDeployment sets the endpoints of what is registered for a version, and says whether there were
// none before or are none now.
func (f *Feed) registeredDeployment(id string) (first, last bool) {
	g := f.registered
	g.mu.Lock()
	defer g.mu.Unlock()
	var now []route.Endpoint
	for r := range registry.RegisteredAs(f.cache, id) {
		now = append(now, route.Endpoint{Instance: instanceOf(r.Value), Address: r.Value.Address})
	}
	before := g.endpoints[id]
	if len(now) == 0 && before == nil {
		return false, false
	}
	f.table.SetDeployment(id, now)
	if len(now) > 0 {
		g.endpoints[id] = now
	} else {
		delete(g.endpoints, id)
	}
	for _, e := range before {
		if !slices.Contains(now, e) {
			f.depart(departure{id, e.Instance})
		}
	}
	f.forget(id)
	return before == nil, len(now) == 0
}

// depart notes when nobody is on an instance any more. The caller has the lock.
func (f *Feed) depart(d departure) {
	g := f.registered
	if g.life == nil {
		return
	}
	gone := make(chan struct{})
	g.leaving[d] = gone
	g.leavingOf[d.deployment]++
	g.waiting.Go(func() {
		err := f.table.Drain(g.life, d.deployment, d.instance)
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.leaving, d)
		if g.leavingOf[d.deployment]--; g.leavingOf[d.deployment] == 0 {
			delete(g.leavingOf, d.deployment)
		}
		if err == nil {
			f.forget(d.deployment)
		}
		close(gone)
	})
}

// forget takes a deployment out of the table that has no instance and nobody on one. The caller has
// the lock.
func (f *Feed) forget(id string) {
	if g := f.registered; g.endpoints[id] == nil && g.leavingOf[id] == 0 {
		f.table.DeleteDeployment(id)
	}
}

// Left returns when nobody is on an instance, on this server, whose registration has gone (see Wait),
// or ctx ends.
func (f *Feed) Left(ctx context.Context, r dayfly.Registration) error {
	f.registered.mu.Lock()
	gone := f.registered.leaving[departure{deploymentOf(r), instanceOf(r)}]
	f.registered.mu.Unlock()
	if gone == nil {
		return nil
	}
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// takeOver lets what is registered with an environment answer for its services, and adds services that
// it has not.
func (f *Feed) takeOver(e *route.Environment) {
	type version struct {
		target route.Target
		host   string
	}
	services := map[string]map[string]version{}
	for r := range registry.RegistrationsOf(f.cache, e.Project, e.Name) {
		if services[r.Value.Service] == nil {
			services[r.Value.Service] = map[string]version{}
		}
		v := services[r.Value.Service][r.Value.Version]
		v.target.Deployment, v.target.Version, v.host = deploymentOf(r.Value), r.Value.Version, r.Value.Host
		v.target.Weight++ // each instance gets as much
		services[r.Value.Service][r.Value.Version] = v
	}
	var wanted []route.Host
	for _, name := range slices.Sorted(maps.Keys(services)) {
		at := slices.IndexFunc(e.Services, func(s route.Service) bool { return s.Name == name })
		if at < 0 {
			at = len(e.Services)
			e.Services = append(e.Services, route.Service{Name: name})
		}
		s := &e.Services[at]
		s.Targets, s.External, s.Pooled = nil, "", false
		s.State, s.Message = string(dayfly.PhaseReady), ""
		for _, v := range slices.Sorted(maps.Keys(services[name])) {
			s.Targets = append(s.Targets, services[name][v].target)
			host := route.Host{Name: services[name][v].host, Service: name}
			has := func(h route.Host) bool { return h.Name == host.Name }
			if host.Name != "" && !slices.ContainsFunc(e.Hosts, has) && !slices.ContainsFunc(wanted, has) {
				wanted = append(wanted, host)
			}
		}
	}
	e.Hosts = append(e.Hosts, f.lend(e.ID, e.Name, wanted)...)
}

// lend gives those of the hosts that an environment may have without a claim: nobody else claims them,
// nor has them in the same way.
func (f *Feed) lend(id, name string, wanted []route.Host) (given []route.Host) {
	g := f.registered
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range g.held[name] {
		delete(g.hosts, h)
	}
	var held []string
	for _, h := range wanted {
		claim, claimed := registry.Lookup(f.cache, registry.Hosts, h.Name)
		if claimed && claim.Value.Environment != id || cmp.Or(g.hosts[h.Name], name) != name {
			if g.denied[h.Name] == nil {
				g.denied[h.Name] = map[string]bool{}
			}
			g.denied[h.Name][name] = true
			continue
		}
		delete(g.denied[h.Name], name)
		g.hosts[h.Name] = name
		held = append(held, h.Name)
		given = append(given, h)
	}
	if len(held) > 0 {
		g.held[name] = held
	} else {
		delete(g.held, name)
	}
	return given
}

// host looks again at the environments that have a host without a claim, or would have it.
func (f *Feed) host(host string) {
	g := f.registered
	g.mu.Lock()
	names := slices.Sorted(maps.Keys(g.denied[host]))
	delete(g.denied, host) // who still wants it says so again
	if has := g.hosts[host]; has != "" && !slices.Contains(names, has) {
		names = append([]string{has}, names...)
	}
	g.mu.Unlock()
	for _, name := range names {
		f.environment(name)
	}
}

// vacate takes hosts that are claimed from those that have them without.
func (f *Feed) vacate(e route.Environment) {
	for _, h := range e.Hosts {
		f.registered.mu.Lock()
		has := f.registered.hosts[h.Name]
		f.registered.mu.Unlock()
		if has != "" && has != e.Name {
			f.environment(has)
		}
	}
}

// returned looks again at hosts that an environment has given back.
func (f *Feed) returned(before []string) {
	for _, h := range before {
		f.registered.mu.Lock()
		free := f.registered.hosts[h] == "" && len(f.registered.denied[h]) > 0
		f.registered.mu.Unlock()
		if free {
			f.host(h)
		}
	}
}

func (f *Feed) heldBy(name string) []string {
	f.registered.mu.Lock()
	defer f.registered.mu.Unlock()
	return f.registered.held[name]
}

// unmanaged sets or removes the entry of an environment that nobody created.
func (f *Feed) unmanaged(name string) {
	before := f.heldBy(name)
	project, ok := registry.Unmanaged(f.cache, name)
	if !ok {
		f.lend("", name, nil)
		f.remove(name)
		f.returned(before)
		return
	}
	e := route.Environment{ID: "registered:" + name, Name: name, Project: project, State: string(dayfly.PhaseReady)}
	if p, ok := registry.Lookup(f.cache, registry.Projects, project); ok && p.Value.Baseline != name {
		e.Base = p.Value.Baseline
	}
	f.takeOver(&e)
	f.set(e)
	f.returned(before)
}

// unmanagedOf looks again at the environments of a project that nobody created: their base may be
// another one.
func (f *Feed) unmanagedOf(project string) {
	for name := range registry.RegisteredEnvironments(f.cache, "") {
		if of, ok := registry.Unmanaged(f.cache, name); ok && of == project {
			f.unmanaged(name)
		}
	}
}

// route applies a route that came, changed or went: those of a host are one entry.
func (f *Feed) route(name string) {
	r, there := registry.Lookup(f.cache, registry.Routes, name)
	f.registered.mu.Lock()
	before := f.registered.routed[name]
	if there {
		f.registered.routed[name] = r.Value.Host
	} else {
		delete(f.registered.routed, name)
	}
	f.registered.mu.Unlock()
	if before != "" && before != r.Value.Host {
		f.routes(before)
	}
	if there {
		f.routes(r.Value.Host)
	}
}

// routes sets the entry of a host that routes have. Its names are none that an environment or a service
// can have, and it is of no project.
func (f *Feed) routes(host string) {
	e := route.Environment{ID: "route:" + host, Name: "route:" + host, Plain: true, Hosts: []route.Host{{Name: host}}, State: string(dayfly.PhaseReady)}
	for r := range registry.RoutesAt(f.cache, host) {
		e.Services = append(e.Services, route.Service{
			Name: "route:" + r.Key, External: r.Value.To, State: string(dayfly.PhaseReady),
			Routes: []dayfly.PathRoute{{Path: r.Value.Path, Strip: r.Value.Strip}},
		})
	}
	if len(e.Services) == 0 {
		f.remove(e.Name)
		return
	}
	f.set(e)
}

// set puts an entry into the table. One that is refused, for another one still has a host of it, is tried
// again when all changes up to a revision are there: those of one transaction come one by one.
func (f *Feed) set(e route.Environment) {
	f.vacate(e)
	err := f.table.SetEnvironment(e)
	f.registered.mu.Lock()
	defer f.registered.mu.Unlock()
	if err != nil {
		f.registered.refused[e.Name] = err
	} else {
		delete(f.registered.refused, e.Name)
	}
}

// remove takes an entry out of the table.
func (f *Feed) remove(name string) {
	f.table.DeleteEnvironment(name)
	f.registered.mu.Lock()
	defer f.registered.mu.Unlock()
	delete(f.registered.refused, name)
}

// settle tries entries again that were refused, as long as that helps.
func (f *Feed) settle() {
	g := f.registered
	refused := func() map[string]error {
		g.mu.Lock()
		defer g.mu.Unlock()
		return maps.Clone(g.refused)
	}
	for before := refused(); len(before) > 0; {
		for name := range before {
			if host, is := strings.CutPrefix(name, "route:"); is {
				f.routes(host)
			} else {
				f.environment(name)
			}
		}
		now := refused()
		if len(now) < len(before) {
			before = now
			continue
		}
		for name, err := range now {
			if told := g.told[name]; told == nil || told.Error() != err.Error() {
				f.log.Error("an environment cannot be routed", "environment", name, "error", err)
			}
		}
		g.told = now
		return
	}
	g.told = nil
}
