package feed

import (
	"net/netip"
	"sync"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// sources remembers who has which IP address. One that belongs to a single environment tells whose
// calls come from there.
type sources struct {
	mu    sync.Mutex
	of    map[string][]netip.Addr                // by deployment or registration
	at    map[netip.Addr]map[string]route.Source // by what is in of
	known map[netip.Addr]route.Source            // as the table has it
}

func newSources() *sources {
	return &sources{of: map[string][]netip.Addr{}, at: map[netip.Addr]map[string]route.Source{}, known: map[netip.Addr]route.Source{}}
}

// set says which addresses something of an environment is at, in place of those before. Where the
// environment is "" several may call from there.
func (s *sources) set(table *route.Table, key string, who route.Source, addresses []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := map[netip.Addr]bool{}
	for _, addr := range s.of[key] {
		if delete(s.at[addr], key); len(s.at[addr]) == 0 {
			delete(s.at, addr)
		}
		changed[addr] = true
	}
	delete(s.of, key)
	for _, address := range addresses {
		at, err := netip.ParseAddrPort(address)
		addr := at.Addr().Unmap()
		// From loopback everything on this host calls.
		if err != nil || addr.IsLoopback() || addr.IsUnspecified() {
			continue
		}
		if s.at[addr] == nil {
			s.at[addr] = map[string]route.Source{}
		}
		s.at[addr][key] = who
		s.of[key] = append(s.of[key], addr)
		changed[addr] = true
	}
	for addr := range changed {
		now := only(s.at[addr])
		if now == s.known[addr] {
			continue
		}
		if now.Environment == "" {
			delete(s.known, addr)
		} else {
			s.known[addr] = now
		}
		table.SetSource(addr, now)
	}
}

// only gives the environment that all of them are of, and their service where they are of one.
func only(all map[string]route.Source) (who route.Source) {
	first := true
	for _, s := range all {
		switch {
		case first:
			who = s
		case s.Environment != who.Environment:
			return route.Source{}
		case s.Service != who.Service:
			who.Service = ""
		}
		first = false
	}
	return who
}

// deploymentSource says where the calls of a deployment come from.
func (f *Feed) deploymentSource(d dayfly.Deployment, instances []dayfly.Instance) {
	var addresses []string
	for _, i := range instances {
		if i.Phase != dayfly.InstanceExited { // one that starts calls, too
			addresses = append(addresses, i.Address)
		}
	}
	f.sources.set(f.table, "deployment:"+d.ID, route.Source{Environment: d.Environment, Service: d.Key.Service}, addresses)
}

// registrationSource says where the calls of a registered instance come from, or no longer.
func (f *Feed) registrationSource(key string) {
	var addresses []string
	r, there := registry.Lookup(f.cache, registry.Registrations, key)
	if there {
		addresses = append(addresses, r.Value.Address)
	}
	f.sources.set(f.table, "registration:"+key, route.Source{Environment: r.Value.Environment, Service: r.Value.Service}, addresses)
}
