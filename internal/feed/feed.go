// Package feed keeps the route table as the state says: every change of a record
// becomes a change of the one entry that it concerns.
package feed

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/route"
	"github.com/dayfly-dev/dayfly/internal/status"
)

// Feed applies the state to a table.
type Feed struct {
	cache *registry.Cache
	table *route.Table
	log   *slog.Logger

	mu      sync.Mutex
	applied int64         // revision
	moved   chan struct{} // closed and replaced when applied grows

	owner  map[string]string               // environment by deployment
	shared map[string]dayfly.DeploymentKey // what is shared, by deployment

	baselines map[string]string // by project

	registered *registered
	sources    *sources
}

// New makes a Feed; Run starts it.
func New(cache *registry.Cache, table *route.Table, log *slog.Logger) *Feed {
	return &Feed{cache: cache, table: table, log: log, moved: make(chan struct{}), owner: map[string]string{}, shared: map[string]dayfly.DeploymentKey{}, baselines: map[string]string{}, registered: newRegistered(), sources: newSources()}
}

// Load applies everything that the cache holds now.
func (f *Feed) Load() {
	for p := range registry.All(f.cache, registry.Projects) {
		f.apply(registry.Projects.Name(), p.Key)
	}
	for d := range registry.All(f.cache, registry.Deployments) {
		f.note(d.Value)
	}
	for d := range registry.All(f.cache, registry.Observed) {
		f.deployment(d.Key)
	}
	f.loadRegistered()
	// With many environments this is most of it, so all cores work.
	names := make(chan string)
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for name := range names {
				f.environment(name)
			}
		})
	}
	for e := range registry.All(f.cache, registry.Environments) {
		names <- e.Key
	}
	close(names)
	all.Wait()
	f.loadUnmanaged()
	f.settle()
}

// Run loads, and applies changes until ctx ends.
func (f *Feed) Run(ctx context.Context) {
	f.registered.mu.Lock()
	f.registered.life = ctx
	f.registered.mu.Unlock()
	defer f.registered.waiting.Wait()
	changes := f.cache.ChangesAndProgress(ctx)
	f.Load()
	for c := range changes {
		if ctx.Err() != nil {
			return
		}
		if c.Kind == "" {
			f.reached(c.Revision)
			continue
		}
		f.apply(c.Kind, c.Key)
	}
}

// Wait returns when all changes up to a revision are in the table, or ctx ends.
func (f *Feed) Wait(ctx context.Context, revision int64) error {
	for {
		f.mu.Lock()
		applied, moved := f.applied, f.moved
		f.mu.Unlock()
		if applied >= revision {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

func (f *Feed) reached(revision int64) {
	f.settle()
	f.mu.Lock()
	defer f.mu.Unlock()
	if revision <= f.applied {
		return
	}
	f.applied = revision
	close(f.moved)
	f.moved = make(chan struct{})
}

func (f *Feed) apply(kind, key string) {
	switch kind {
	case registry.Projects.Name():
		p, ok := registry.Lookup(f.cache, registry.Projects, key)
		if ok {
			f.table.SetProject(route.Project{Name: key, Baseline: p.Value.Baseline})
		} else {
			f.table.DeleteProject(key)
		}
		// A project changes with every commit of its own, its baseline hardly ever.
		if before := f.baselines[key]; before == p.Value.Baseline {
			return
		}
		if f.baselines[key] = p.Value.Baseline; !ok {
			delete(f.baselines, key)
		}
		f.unmanagedOf(key)
	case registry.Registrations.Name():
		f.registration(key)
	case registry.Hosts.Name():
		f.host(key)
	case registry.Routes.Name():
		f.route(key)
	case registry.Environments.Name(), registry.Resolutions.Name(), registry.Releases.Name():
		f.environment(key)
	case registry.Deployments.Name():
		if d, ok := registry.Lookup(f.cache, registry.Deployments, key); ok {
			f.note(d.Value)
			f.concerned(key)
			return
		}
		f.concerned(key)
		delete(f.owner, key)
		delete(f.shared, key)
		f.sources.set(f.table, "deployment:"+key, route.Source{}, nil)
		f.table.DeleteDeployment(key)
	case registry.Observed.Name():
		f.deployment(key)
		f.concerned(key)
	}
}

// note remembers whom a deployment concerns, for when its record is gone.
func (f *Feed) note(d dayfly.Deployment) {
	if d.Shared() {
		f.shared[d.ID] = d.Key
	} else {
		f.owner[d.ID] = d.Environment
	}
}

// concerned looks again at the environments that a deployment belongs to or that share it: their pages
// say how their services are.
func (f *Feed) concerned(deployment string) {
	if of, shared := f.shared[deployment]; shared {
		for _, name := range registry.UsersOf(f.cache, of) {
			f.environment(name)
		}
	} else if owner := f.owner[deployment]; owner != "" {
		f.environment(owner)
	}
}

// deployment sets the endpoints of a deployment: the healthy ones, or where there
// is none those that may still answer.
func (f *Feed) deployment(id string) {
	d, wanted := registry.Lookup(f.cache, registry.Deployments, id)
	st, ok := registry.Lookup(f.cache, registry.Observed, id)
	if !wanted || !ok {
		return // its endpoints go with the deployment's record
	}
	var healthy, doubtful []route.Endpoint
	for _, i := range st.Value.Instances {
		e := route.Endpoint{Instance: i.ID, Address: i.Address}
		switch {
		case i.Address == "":
		case i.Phase == dayfly.InstanceHealthy:
			healthy = append(healthy, e)
		case i.Phase == dayfly.InstanceUnhealthy:
			doubtful = append(doubtful, e)
		}
	}
	if len(healthy) == 0 {
		healthy = doubtful
	}
	f.table.SetDeployment(id, healthy)
	f.deploymentSource(d.Value, st.Value.Instances)
}

// environment sets or removes the entry of an environment.
func (f *Feed) environment(name string) {
	rec, ok := registry.Lookup(f.cache, registry.Environments, name)
	if !ok {
		f.unmanaged(name)
		return
	}
	before := f.heldBy(name)
	e := entry(registry.Gather(f.cache, rec))
	f.takeOver(&e)
	f.set(e)
	f.returned(before)
}

// needed says all that is known of a need.
func needed(m dayfly.Need) string {
	text := "version " + m.Version + " is wanted since " + m.Since.UTC().Format(time.DateTime) + " UTC"
	if m.Have != "" {
		text += "; " + m.Have
	}
	return text + ": " + m.Doing
}

// entry computes the table's entry of an environment.
func entry(state status.Input) route.Environment {
	state.URL = func(host string) string { return host }
	view := status.View(state)
	e := route.Environment{
		ID: state.Record.ID, Name: state.Record.Spec.Name, Project: state.Record.Spec.Project,
		Header: state.Record.Spec.Header, PublicHeader: state.Record.Spec.PublicHeader, Deleting: state.Record.Deleting,
		State: string(view.Phase), Message: view.Message,
	}
	if state.Resolution == nil {
		return e
	}
	e.Base = state.Resolution.Base
	if addr, err := netip.ParseAddr(state.Resolution.Address); err == nil {
		e.Addresses = append(e.Addresses, route.Address{Addr: addr})
	}
	for _, h := range state.Resolution.Hosts {
		e.Hosts = append(e.Hosts, route.Host{Name: h})
	}
	for _, m := range state.Resolution.Missing {
		if m.Service != "" { // nobody else answers for it
			e.Services = append(e.Services, route.Service{Name: m.Service, Routes: m.Routes, State: "missing", Message: needed(m)})
		}
	}
	phases := map[string]dayfly.EnvironmentService{}
	for _, s := range view.Services {
		phases[s.Name] = s
	}
	for _, rs := range state.Resolution.Services {
		if rs.Definition.Test {
			continue
		}
		s := route.Service{
			Name: rs.Name, Protocol: rs.Definition.Protocol, Routes: rs.Definition.Routes,
			External: rs.URL, Choose: rs.Definition.Release.Choose,
			Pooled: rs.From == dayfly.FromShared || rs.From == dayfly.FromRegistered,
			State:  string(phases[rs.Name].Phase), Message: phases[rs.Name].Message,
		}
		for _, t := range state.Release.Services[rs.Name] {
			s.Targets = append(s.Targets, route.Target{Deployment: t.Deployment, Version: t.Version, Weight: t.Weight})
		}
		switch {
		case rs.From == dayfly.FromBorrowed: // found at lookup, through the base
		case rs.Replaces == dayfly.FromBorrowed && len(s.Targets) == 0: // goes on to be borrowed until it is ready
		case rs.From == dayfly.FromRegistered:
			s.Targets = []route.Target{{Deployment: registry.RegisteredID(e.Project, "", rs.Name, rs.Version), Version: rs.Version, Weight: 1}}
			e.Services = append(e.Services, s)
		default:
			e.Services = append(e.Services, s)
		}
		for i, h := range rs.Hosts {
			if shared := i == 0 && len(rs.Definition.Routes) > 0; !shared {
				e.Hosts = append(e.Hosts, route.Host{Name: h, Service: rs.Name})
			} else if !slices.Contains(e.Hosts, route.Host{Name: h}) {
				e.Hosts = append(e.Hosts, route.Host{Name: h})
			}
		}
		if addr, err := netip.ParseAddr(rs.Address); err == nil {
			e.Addresses = append(e.Addresses, route.Address{Addr: addr, Service: rs.Name})
		}
	}
	return e
}
