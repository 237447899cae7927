package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	wire "github.com/miekg/dns"
)

const (
	attempt  = 1500 * time.Millisecond // for the answer of one resolver
	overall  = 5 * time.Second         // for one name
	mostAsks = 3                       // resolvers for one name
)

var (
	errNobody   = errors.New("no resolver of the system is left to ask")
	errOverload = errors.New("too many names are being asked for")
	errOther    = errors.New("the answer is for another question")
)

// forwarder asks the system's resolvers.
type forwarder struct {
	resolvers func() []netip.AddrPort
	self      netip.AddrPort

	mu      sync.Mutex
	flights map[flightKey]*flight
}

// flightKey is what makes two queries the same.
type flightKey struct {
	name               string
	kind, class        uint16
	dnssec, unverified bool
}

// flight is a query under way. A query that a resolver sends back to us meets its own
// flight and waits for it in vain instead of going around for ever.
type flight struct {
	done   chan struct{}
	answer *wire.Msg // not changed once done is closed
	err    error
}

// forward answers q in r as the system's resolvers do.
func (f *forwarder) forward(ctx context.Context, q, r *wire.Msg) {
	ctx, cancel := context.WithTimeout(ctx, overall)
	defer cancel()
	answer, err := f.ask(ctx, q)
	if err != nil {
		r.Rcode = wire.RcodeServerFailure
		return
	}
	if answer.Rcode > 0xf { // about what is between that resolver and us, and not every client could be told
		r.Rcode = wire.RcodeServerFailure
		return
	}
	// What another client of the same flight gets must not be changed by this one's truncation.
	r.Rcode, r.AuthenticatedData, r.CheckingDisabled = answer.Rcode, answer.AuthenticatedData, q.CheckingDisabled
	asked := q.Question[0].Name
	for into, from := range map[*[]wire.RR][]wire.RR{&r.Answer: answer.Answer, &r.Ns: answer.Ns, &r.Extra: answer.Extra} {
		for _, rr := range from {
			if t := rr.Header().Rrtype; t == wire.TypeOPT || t == wire.TypeTSIG {
				continue // between that resolver and us
			}
			rr = wire.Copy(rr)
			if strings.EqualFold(rr.Header().Name, asked) {
				rr.Header().Name = asked
			}
			*into = append(*into, rr)
		}
	}
}

// ask asks once for all who want the same at the same time.
func (f *forwarder) ask(ctx context.Context, q *wire.Msg) (*wire.Msg, error) {
	question := q.Question[0]
	opt := q.IsEdns0()
	key := flightKey{strings.ToLower(question.Name), question.Qtype, question.Qclass, opt != nil && opt.Do(), q.CheckingDisabled}
	f.mu.Lock()
	if under := f.flights[key]; under != nil {
		f.mu.Unlock()
		select {
		case <-under.done:
			return under.answer, under.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if len(f.flights) >= maxForwards {
		f.mu.Unlock()
		return nil, errOverload
	}
	own := &flight{done: make(chan struct{})}
	f.flights[key] = own
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.flights, key)
		f.mu.Unlock()
		close(own.done)
	}()
	own.answer, own.err = f.exchange(ctx, key)
	return own.answer, own.err
}

// exchange asks one resolver after the other.
func (f *forwarder) exchange(ctx context.Context, key flightKey) (*wire.Msg, error) {
	var last *wire.Msg
	err := errNobody
	for _, server := range f.others() {
		q := &wire.Msg{
			MsgHdr:   wire.MsgHdr{Id: wire.Id(), RecursionDesired: true, CheckingDisabled: key.unverified},
			Question: []wire.Question{{Name: key.name, Qtype: key.kind, Qclass: key.class}},
		}
		q.SetEdns0(maxDatagram, key.dnssec)
		var answer *wire.Msg
		if answer, err = exchange(ctx, "udp", server, q); err == nil && answer.Truncated {
			answer, err = exchange(ctx, "tcp", server, q)
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
		case answer.Rcode == wire.RcodeSuccess || answer.Rcode == wire.RcodeNameError:
			return answer, nil
		default: // perhaps the next one can
			last = answer
		}
	}
	if last != nil {
		return last, nil
	}
	return nil, err
}

// exchange asks one resolver in one way.
func exchange(ctx context.Context, network string, server netip.AddrPort, q *wire.Msg) (*wire.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	client := wire.Client{Net: network, Timeout: attempt, UDPSize: maxDatagram}
	conn, err := client.DialContext(ctx, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // a server that ends does not wait for an answer
	answer, _, err := client.ExchangeWithConnContext(ctx, q, conn)
	if err != nil {
		return nil, err
	}
	if len(answer.Question) != 1 || !strings.EqualFold(answer.Question[0].Name, q.Question[0].Name) ||
		answer.Question[0].Qtype != q.Question[0].Qtype || answer.Question[0].Qclass != q.Question[0].Qclass {
		return nil, errOther
	}
	return answer, nil
}

// resolvConf is the file that names the system's resolvers.
type resolvConf struct {
	file string

	mu       sync.Mutex
	servers  []netip.AddrPort
	modified time.Time
	size     int64
}

// resolvers gives those of the file, which is read again when it has changed, as it does
// when a laptop meets another network.
func (c *resolvConf) resolvers() []netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.file)
	if err != nil {
		return nil
	}
	if info.ModTime().Equal(c.modified) && info.Size() == c.size {
		return c.servers
	}
	config, err := wire.ClientConfigFromFile(c.file)
	if err != nil {
		return nil
	}
	c.modified, c.size, c.servers = info.ModTime(), info.Size(), nil
	for _, text := range config.Servers {
		if addr, err := netip.ParseAddr(text); err == nil {
			c.servers = append(c.servers, netip.AddrPortFrom(addr.Unmap(), 53))
		}
	}
	return c.servers
}

// others gives the resolvers to ask, of which this server is none.
func (f *forwarder) others() (others []netip.AddrPort) {
	for _, server := range f.resolvers() {
		if !f.isSelf(server) && len(others) < mostAsks {
			others = append(others, server)
		}
	}
	return others
}

// isSelf says whether a resolver is this server.
func (f *forwarder) isSelf(server netip.AddrPort) bool {
	if server.Port() != f.self.Port() {
		return false
	}
	addr := server.Addr().WithZone("")
	if addr == f.self.Addr() {
		return true
	}
	if !f.self.Addr().IsUnspecified() {
		return false
	}
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	return slices.Contains(HostAddresses(), addr)
}

// HostAddresses gives the addresses of this host; none where they cannot be told.
func HostAddresses() (all []netip.Addr) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				all = append(all, addr.Unmap())
			}
		}
	}
	return all
}
