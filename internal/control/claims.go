package control

import (
	"cmp"
	"crypto/rand"
	"net/netip"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// claims makes the ops by which an environment holds its hosts and addresses and
// lets go of those it had before.
func (c *Control) claims(rec dayfly.EnvironmentRecord, before, after *dayfly.Resolution) ([]registry.Op, error) {
	var ops []registry.Op
	hosts, addresses := names(before)
	newHosts, newAddresses := names(after)
	for host := range newHosts {
		if hosts[host] {
			continue
		}
		if claim, ok := registry.Lookup(c.cache, registry.Hosts, host); ok && claim.Value.Environment != rec.ID {
			return nil, c.hostTaken(host)
		}
		ops = append(ops, registry.Create(registry.Hosts, host, registry.HostClaim{Environment: rec.ID, Name: rec.Spec.Name}))
	}
	for host := range hosts {
		if !newHosts[host] {
			ops = append(ops, registry.Delete(registry.Hosts, host))
		}
	}
	for address, service := range newAddresses {
		if _, held := addresses[address]; !held {
			ops = append(ops, registry.Create(registry.Addresses, address, registry.AddressClaim{Environment: rec.ID, Service: service}))
		}
	}
	for address := range addresses {
		if _, kept := newAddresses[address]; !kept {
			ops = append(ops, registry.Delete(registry.Addresses, address))
		}
	}
	return ops, nil
}

// names gives the hosts and the addresses (with their services) of a resolution.
func names(res *dayfly.Resolution) (hosts map[string]bool, addresses map[string]string) {
	hosts, addresses = map[string]bool{}, map[string]string{}
	if res == nil {
		return hosts, addresses
	}
	if res.Address != "" {
		addresses[res.Address] = ""
	}
	for _, h := range res.Hosts {
		hosts[h] = true
	}
	for _, rs := range res.Services {
		for _, h := range rs.Hosts {
			hosts[h] = true
		}
		if rs.Address != "" {
			addresses[rs.Address] = rs.Name
		}
	}
	return hosts, addresses
}

func (c *Control) hostTaken(host string) error {
	holder := cmp.Or(registry.Holder(c.cache, host), "another environment")
	return dayfly.Errorf(dayfly.CodeConflict, "the host %s belongs to %s: choose another name or prefix", host, holder)
}

// freeAddress chooses an address of 127/8 that no service has. 127.0/16 is left to
// the host.
func (c *Control) freeAddress(chosen map[string]bool) (string, error) {
	for range 1000 {
		var b [3]byte
		rand.Read(b[:]) // never fails, see crypto/rand
		if b[0] == 0 || b[2] == 0 || b[2] == 255 {
			continue
		}
		address := netip.AddrFrom4([4]byte{127, b[0], b[1], b[2]}).String()
		if _, taken := registry.Lookup(c.cache, registry.Addresses, address); !taken && !chosen[address] {
			chosen[address] = true
			return address, nil
		}
	}
	return "", dayfly.Errorf(dayfly.CodeUnavailable, "no free address in 127.0.0.0/8 was found: delete some environments")
}
