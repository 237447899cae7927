// Package route decides where a request goes: the half of the data plane that
// moves no bytes. A Table is told of projects, environments and deployments one
// at a time; engines ask it for a Match and claim an instance of it.
//
// Everything a lookup reads is one immutable state behind one atomic pointer,
// made of persistent hash tries. A writer copies the few nodes on the way to
// what it changes and swaps the pointer, so a write costs the same with ten
// environments and with ten thousand, readers take no lock and share no cache
// line that another reader writes, and a lookup sees each write as a whole or
// not at all. What changes with every request (in-flight counts, ejections) is
// not part of the state: it lives in the instances, which outlive the writes.
//
// Nothing of a base is copied into those who borrow from it: a lookup follows
// the names of the bases.
package route

import (
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// Options are the settings of a Table. The zero value works.
type Options struct {
	// Domain is what public hosts of environments end with. An unknown
	// LABEL.Domain is reported as an unknown environment, any other unknown
	// host as an unknown host.
	Domain string
	// InternalSuffixes are accepted after SERVICE and SERVICE.ENV beside
	// "internal", without a leading dot.
	InternalSuffixes []string
	Now              func() time.Time // time.Now by default
	// Rand gives uniform numbers and may be called by several goroutines at
	// once; math/rand/v2 by default.
	Rand func() uint64
}

// Project is what the table has to know of a project.
type Project struct {
	Name     string
	Baseline string // environment that answers where none is known; "" = none
}

// Environment is a named set of services with its hosts and addresses. Names
// are compared without regard to case.
type Environment struct {
	ID, Name, Project string
	// Base is the name of the environment that lends what is not in
	// Services; "" = none. It need not be known yet.
	Base string
	// PublicHeader lets requests from outside name their environment.
	PublicHeader bool
	// Header is the value by which headers name it, besides its name; "" = none.
	Header    string
	Services  []Service
	Hosts     []Host
	Addresses []Address
	// Plain is a host with routes to elsewhere, and no environment that requests could be for.
	Plain bool
	// Deleting keeps the public out while services still reach each other.
	Deleting       bool
	State, Message string // for pages, see Match.Info
}

// Service is one service that an environment has itself.
type Service struct {
	Name     string
	Protocol dayfly.Protocol // "" = http
	Routes   []dayfly.PathRoute
	Targets  []Target // none = not there yet
	External string   // URL of a service that is not ours; Targets are then unused
	// Choose lets requests from outside choose a version by name.
	Choose bool
	// Pooled says that those who answer do so for several environments, and have the variables of
	// neither.
	Pooled         bool
	State, Message string // for pages, see Match.Info
}

// Target is a deployment that answers for a service.
type Target struct {
	Deployment string
	Version    string // what a request chooses it by and Claim.Version gives: the release label or the version
	Weight     int    // share of the requests; 0 = only when chosen by name
}

// Host is a public host name, without port.
type Host struct {
	Name    string
	Service string // "" = by the path routes of the environment
}

// Address is a local address that leads to a service.
type Address struct {
	Addr    netip.Addr
	Service string // "" = by the path routes of the environment
}

// Endpoint is an instance of a deployment and where it listens.
type Endpoint struct {
	Instance string
	Address  string // host:port
}

// Table knows where requests go. All methods may be called by several
// goroutines at once.
type Table struct {
	domain   string
	suffixes []string // each with a leading dot
	now      func() time.Time
	epoch    time.Time
	rand     func() uint64

	state atomic.Pointer[state]

	mu          sync.Mutex // held by writers, never by lookups and claims
	deployments map[string]*deployment
}

// state is all that a lookup reads. It is never changed once it is published.
type state struct {
	projects     index[*Project]
	environments index[*environment]
	headers      index[string] // keys of environments
	hosts        index[*place]
	addresses    index[*place]
	sources      index[*Source]
	holders      index[*holders]
}

// New makes an empty table.
func New(o Options) *Table {
	t := &Table{
		domain:      strings.ToLower(strings.Trim(o.Domain, ".")),
		suffixes:    []string{".internal"},
		now:         o.Now,
		rand:        o.Rand,
		deployments: map[string]*deployment{},
	}
	for _, s := range o.InternalSuffixes {
		if s = strings.ToLower(strings.Trim(s, ".")); s != "" && s != "internal" {
			t.suffixes = append(t.suffixes, "."+s)
		}
	}
	if t.now == nil {
		t.now = time.Now
	}
	if t.rand == nil {
		t.rand = rand.Uint64
	}
	t.epoch = t.now()
	seed := maphash.MakeSeed()
	t.state.Store(&state{
		projects:     index[*Project]{seed: seed},
		environments: index[*environment]{seed: seed},
		headers:      index[string]{seed: seed},
		hosts:        index[*place]{seed: seed},
		addresses:    index[*place]{seed: seed},
		sources:      index[*Source]{seed: seed},
		holders:      index[*holders]{seed: seed},
	})
	return t
}

// change publishes a changed copy of the state.
func (t *Table) change(edit func(*state)) {
	next := *t.state.Load()
	edit(&next)
	t.state.Store(&next)
}

// SetProject adds a project or replaces the one of that name.
func (t *Table) SetProject(p Project) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change(func(s *state) { s.projects = s.projects.with(p.Name, &p) })
}

// DeleteProject removes a project; its environments stay. An unknown name is
// no error.
func (t *Table) DeleteProject(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change(func(s *state) { s.projects = s.projects.without(name) })
}

// SetEnvironment adds an environment or replaces the one of that name; lookups
// see the change as a whole. It fails with dayfly.CodeConflict when a host or an
// address belongs to another environment and with dayfly.CodeInvalid when e
// contradicts itself; nothing has changed then.
func (t *Table) SetEnvironment(e Environment) error {
	env, err := compile(e)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.state.Load()
	if err := now.conflict(env); err != nil {
		return err
	}
	t.link(env, e.Services)
	old := now.environments.get([]byte(env.key))
	t.change(func(s *state) { s.replace(old, env) })
	t.unlink(old)
	return nil
}

// DeleteEnvironment removes an environment with its hosts and addresses. Those
// that borrow from it stay. An unknown name is no error.
func (t *Table) DeleteEnvironment(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.state.Load().named(name)
	if old == nil {
		return
	}
	t.change(func(s *state) { s.replace(old, nil) })
	t.unlink(old)
}
