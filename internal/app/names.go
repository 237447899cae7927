package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/dns"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// startDNS answers names, from the same table that requests are routed by.
func (a *App) startDNS(context.Context) error {
	if a.config.DNS == "" {
		return nil
	}
	address := a.config.DNS
	if host, port, err := net.SplitHostPort(address); err == nil && host == "" && a.config.local() {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	server, err := dns.Listen(dns.Config{
		Address: address, Domain: a.config.Domain, Suffixes: a.config.InternalSuffixes,
		Names:  &names{cache: a.cache, table: a.table, port: uint16(port(a.internal)), public: a.publicAddresses()}, //nolint:gosec // a port
		Logger: a.log,
	})
	if err != nil {
		return fmt.Errorf("--dns %s: %w: choose another address, or end what uses this one", address, err)
	}
	a.dns = server
	a.background("DNS", func(ctx context.Context) {
		if err := server.Serve(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("names are not answered any more", "error", err)
		}
	})
	a.log.Info("names are answered", "dns", server.Addr().String())
	return nil
}

// names is what the state and the route table know of names.
type names struct {
	cache  *registry.Cache
	table  *route.Table
	port   uint16
	public func() []netip.Addr
}

func (n *names) Serial() uint32 { return uint32(n.cache.Revision()) } //nolint:gosec // modulo 2^32 is what is asked for

func (n *names) Public() []netip.Addr { return n.public() }

func (n *names) Environment(name string) bool {
	if rec, ok := registry.Lookup(n.cache, registry.Resolutions, name); ok {
		return len(rec.Value.Services) > 0
	}
	_, ok := registry.Unmanaged(n.cache, name)
	return ok
}

// Service asks the table who answers, and the state where.
func (n *names) Service(service, environment string) (dns.Service, bool) {
	host := service + ".internal"
	if environment != "" {
		host = service + "." + environment + ".internal"
	}
	m := n.table.Internal(route.Call{Host: host})
	if m.Provider == "" { // nobody has it, or several do
		return dns.Service{}, false
	}
	s := dns.Service{Environment: m.Environment, HTTP: m.Protocol() != dayfly.ProtocolTCP, Port: n.port}
	s.Address = n.address(m.Environment, service)
	if !s.Address.IsValid() && m.Provider != m.Environment {
		s.Address = n.address(m.Provider, service)
	}
	if _, unmanaged := registry.Unmanaged(n.cache, m.Provider); unmanaged && s.HTTP && !s.Address.IsValid() {
		s.Address = netip.AddrFrom4([4]byte{127, 0, 0, 1}) // nothing but the name tells who is called
	}
	if s.Instances = registered(n.registrations(m.Provider, service)); len(s.Instances) > 0 {
		return s, true
	}
	rel, _ := registry.Lookup(n.cache, registry.Releases, m.Provider)
	for _, t := range rel.Value.Services[service] {
		s.Instances = append(s.Instances, n.instances(t)...)
	}
	return s, true
}

// registrations gives what is registered for a service of an environment: with the environment itself,
// or as the version that it asks for.
func (n *names) registrations(environment, service string) (all []dayfly.Registration) {
	for r := range registry.RegistrationsNamed(n.cache, environment) {
		if r.Value.Service == service {
			all = append(all, r.Value)
		}
	}
	rec, ok := registry.Lookup(n.cache, registry.Environments, environment)
	res, _ := registry.Lookup(n.cache, registry.Resolutions, environment)
	for _, rs := range res.Value.Services {
		if !ok || len(all) > 0 || rs.Name != service || rs.From != dayfly.FromRegistered {
			continue
		}
		for r := range registry.RegisteredVersion(n.cache, rec.Value.Spec.Project, service, rs.Version) {
			all = append(all, r.Value)
		}
	}
	return all
}

// registered gives instances that registered themselves; each gets the same.
func registered(list []dayfly.Registration) (all []dns.Instance) {
	for _, r := range list {
		if address, err := netip.ParseAddrPort(r.Address); err == nil {
			// Its id was chosen by whoever registered, and need be no name.
			sum := sha256.Sum256([]byte(r.ID))
			all = append(all, dns.Instance{ID: hex.EncodeToString(sum[:8]), Address: address, Weight: 100})
		}
	}
	return all
}

// address is the loopback address that SERVICE_URL of an environment leads to.
func (n *names) address(environment, service string) netip.Addr {
	rec, ok := registry.Lookup(n.cache, registry.Resolutions, environment)
	if !ok {
		return netip.Addr{}
	}
	for _, rs := range rec.Value.Services {
		if rs.Name == service {
			address, _ := netip.ParseAddr(rs.Address) // "" = it takes no connections
			return address
		}
	}
	return netip.Addr{}
}

// instances gives the healthy instances of a deployment that gets traffic, which share its
// weight.
func (n *names) instances(t release.Target) (all []dns.Instance) {
	if t.Weight <= 0 {
		return nil
	}
	status, ok := registry.Lookup(n.cache, registry.Observed, t.Deployment)
	if !ok {
		return nil
	}
	for _, i := range status.Value.Instances {
		address, err := netip.ParseAddrPort(i.Address)
		if err == nil && i.Phase == dayfly.InstanceHealthy {
			all = append(all, dns.Instance{ID: strings.ToLower(i.ID), Address: address})
		}
	}
	for i := range all {
		all[i].Weight = uint16(min(max(t.Weight*100/len(all), 1), 1<<16-1)) //nolint:gosec // bounded
	}
	return all
}

// addressesKept is how long the addresses of this host are believed.
const addressesKept = 2 * time.Second

// publicAddresses gives a function for the addresses at which others reach the public
// listener: what --advertise says, the one that it listens on, or where that is all, the
// first private one of this host, which may change.
func (a *App) publicAddresses() func() []netip.Addr {
	fixed := func(all ...netip.Addr) func() []netip.Addr { return func() []netip.Addr { return all } }
	if a.config.local() {
		return fixed(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	if a.config.Given["advertise"] {
		host := a.config.Advertise
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
			return fixed(ip.Unmap())
		}
		a.log.Warn("names of the domain lead to the address of --http, since --advertise is none", "advertise", a.config.Advertise)
	}
	var listens netip.Addr
	if a.public != nil {
		listens = a.public.Addr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	}
	if listens.IsValid() && !listens.IsUnspecified() {
		return fixed(listens)
	}
	var mu sync.Mutex
	var known []netip.Addr
	var until time.Time
	return func() []netip.Addr {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.After(until) {
			known, until = reachable(dns.HostAddresses()), now.Add(addressesKept)
		}
		return known
	}
}

// reachable chooses one address of each family, private ones first.
func reachable(all []netip.Addr) (chosen []netip.Addr) {
	for _, fits := range []func(netip.Addr) bool{netip.Addr.Is4, netip.Addr.Is6} {
		var best netip.Addr
		for _, a := range all {
			if fits(a) && a.IsGlobalUnicast() && (!best.IsValid() || a.IsPrivate() && !best.IsPrivate()) {
				best = a
			}
		}
		if best.IsValid() {
			chosen = append(chosen, best)
		}
	}
	if len(chosen) == 0 {
		chosen = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	return chosen
}
