package dns

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	wire "github.com/miekg/dns"
)

// The lives of answers, in seconds: short, since environments come and go, and what does not
// exist yet may in a moment.
const (
	publicTTL   = 5
	internalTTL = 1
	negativeTTL = 1
	zoneTTL     = 5
)

// nameserver is the first label of this server's own name in each zone. Environments and
// services are not called like this.
const nameserver = "dayfly-dns"

// zone is a domain that this server is the authority for.
type zone struct {
	apex     string // in lower case, with trailing dot
	internal bool
}

// zones gives those of a server, the longest first, so that one may lie in another.
func zones(domain string, suffixes []string) []zone {
	all := []zone{{apex: wire.CanonicalName(strings.Trim(domain, "."))}}
	for _, s := range append([]string{"internal"}, suffixes...) {
		z := zone{apex: wire.CanonicalName(strings.Trim(s, ".")), internal: true}
		if !slices.ContainsFunc(all, func(o zone) bool { return o.apex == z.apex }) {
			all = append(all, z)
		}
	}
	slices.SortStableFunc(all, func(a, b zone) int { return cmp.Compare(len(b.apex), len(a.apex)) })
	return all
}

// has says whether a name in lower case is the zone or in it.
func (z zone) has(name string) bool {
	return wire.IsSubDomain(z.apex, name)
}

// node is what is known under one name.
type node struct {
	exists    bool // with records, or above one that has some
	addresses []netip.Addr
	services  []wire.RR // SRV
	extra     []wire.RR // the addresses of their targets
	ttl       uint32
}

// authoritative answers from a zone. name is that of the question in lower case.
func (s *Server) authoritative(z zone, q wire.Question, name string, r *wire.Msg) {
	r.Authoritative = true
	var n node
	apex := name == z.apex
	switch {
	case !z.internal:
		n = node{exists: true, addresses: s.names.Public(), ttl: publicTTL}
	case apex:
		n = node{exists: true}
	default:
		n = s.internal(z, q.Name, name)
	}
	if !n.exists {
		r.Rcode = wire.RcodeNameError
		r.Ns = append(r.Ns, s.soa(z))
		return
	}
	switch q.Qtype {
	case wire.TypeA, wire.TypeAAAA:
		r.Answer = addresses(q.Name, q.Qtype, n.addresses, n.ttl)
	case wire.TypeSRV:
		r.Answer, r.Extra = n.services, append(r.Extra, n.extra...)
	case wire.TypeANY: // RFC 8482: one record that says that there are no more for this question
		r.Answer = append(r.Answer, &wire.HINFO{Hdr: header(q.Name, wire.TypeHINFO, zoneTTL), Cpu: "RFC8482"})
	case wire.TypeSOA:
		if apex {
			soa := s.soa(z)
			soa.Hdr.Name, soa.Hdr.Ttl = q.Name, zoneTTL
			r.Answer = append(r.Answer, soa)
		}
	case wire.TypeNS:
		if apex {
			ns := &wire.NS{Hdr: header(q.Name, wire.TypeNS, zoneTTL), Ns: z.nameserver()}
			r.Answer = append(r.Answer, ns)
			for _, t := range []uint16{wire.TypeA, wire.TypeAAAA} {
				r.Extra = append(r.Extra, addresses(ns.Ns, t, s.names.Public(), publicTTL)...)
			}
		}
	}
	if len(r.Answer) == 0 {
		r.Ns = append(r.Ns, s.soa(z))
	}
}

// internal finds the name of a service, of one of its instances, or of a kind of connection
// to it:
//
//	SERVICE  SERVICE.ENV  _http._tcp.SERVICE.ENV  INSTANCE.SERVICE.ENV
//
// asked is the name as it was asked for, under which the records are given.
func (s *Server) internal(z zone, asked, name string) node {
	labels := wire.SplitDomainName(strings.TrimSuffix(name, "."+z.apex))
	http := len(labels) > 2 && labels[0] == "_http" && labels[1] == "_tcp"
	tcp := len(labels) > 1 && labels[0] == "_tcp"
	rest := labels
	if http {
		rest = labels[2:]
	} else if tcp {
		rest = labels[1:]
	}
	if slices.ContainsFunc(rest, func(l string) bool { return !label(l) }) {
		return node{}
	}
	switch {
	case len(rest) == 1 && rest[0] == nameserver:
		return node{exists: !http && !tcp, addresses: s.names.Public(), ttl: publicTTL}
	case len(rest) == 3 && !http && !tcp:
		svc, ok := s.names.Service(rest[1], rest[2])
		if !ok {
			return node{}
		}
		for _, i := range svc.Instances {
			if i.ID == rest[0] {
				return node{exists: true, addresses: []netip.Addr{i.Address.Addr()}, ttl: internalTTL}
			}
		}
		return node{}
	case len(rest) > 2:
		return node{}
	}
	environment := ""
	if len(rest) == 2 {
		environment = rest[1]
	}
	svc, ok := s.names.Service(rest[0], environment)
	switch {
	case !ok:
		// With services below, the name is there although it has no records.
		return node{exists: !http && !tcp && environment == "" && s.names.Environment(rest[0])}
	case (http || tcp) && !svc.HTTP:
		return node{}
	case tcp:
		return node{exists: true}
	}
	n := node{exists: true, ttl: internalTTL}
	n.services, n.extra = records(z, asked, rest[0], svc)
	if !http && svc.Address.IsValid() {
		n.addresses = []netip.Addr{svc.Address}
	}
	return n
}

// records gives the SRV records of a service: its instances, and behind them the internal
// listener, which is there also while no instance is.
func records(z zone, asked, name string, svc Service) (services, extra []wire.RR) {
	host := name + "." + svc.Environment + "." + z.apex
	add := func(target string, priority, weight, port uint16, address netip.Addr) {
		services = append(services, &wire.SRV{
			Hdr: header(asked, wire.TypeSRV, internalTTL), Priority: priority, Weight: weight, Port: port, Target: target,
		})
		for _, t := range []uint16{wire.TypeA, wire.TypeAAAA} {
			extra = append(extra, addresses(target, t, []netip.Addr{address}, internalTTL)...)
		}
	}
	for _, i := range svc.Instances {
		add(i.ID+"."+host, 0, i.Weight, i.Address.Port(), i.Address.Addr())
	}
	if svc.Address.IsValid() && svc.Port != 0 {
		add(host, 10, 0, svc.Port, svc.Address)
	}
	return services, extra
}

// label says whether a label in lower case can be that of a name of ours. Names come here in
// the form of zone files, in which "." and ":" within a label are escaped.
func label(l string) bool {
	return l != "" && !strings.ContainsFunc(l, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

func (z zone) nameserver() string { return nameserver + "." + z.apex }

func (s *Server) soa(z zone) *wire.SOA {
	return &wire.SOA{
		Hdr: header(z.apex, wire.TypeSOA, negativeTTL), Ns: z.nameserver(), Mbox: "hostmaster." + z.apex,
		Serial: s.names.Serial(), Refresh: 60, Retry: 10, Expire: 3600, Minttl: negativeTTL,
	}
}

func header(name string, kind uint16, ttl uint32) wire.RR_Header {
	return wire.RR_Header{Name: name, Rrtype: kind, Class: wire.ClassINET, Ttl: ttl}
}

// addresses gives the records of a kind.
func addresses(name string, kind uint16, all []netip.Addr, ttl uint32) (rrs []wire.RR) {
	for _, a := range all {
		a = a.Unmap()
		switch {
		case kind == wire.TypeA && a.Is4():
			rrs = append(rrs, &wire.A{Hdr: header(name, kind, ttl), A: a.AsSlice()})
		case kind == wire.TypeAAAA && a.Is6():
			rrs = append(rrs, &wire.AAAA{Hdr: header(name, kind, ttl), AAAA: a.WithZone("").AsSlice()})
		}
	}
	return rrs
}
