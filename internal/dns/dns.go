// Package dns answers names: public hosts with the address of this server, internal
// names with where a service is reached, and everything else, for clients nearby, with
// what the system's resolvers say. Nothing of its own is kept: each answer is computed
// from what Names knows at that moment.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	wire "github.com/miekg/dns"
	"golang.org/x/net/netutil"
)

// Names is what the server asks for its answers. All methods may be called by several
// goroutines at once; none may block.
type Names interface {
	// Serial grows with every change, modulo 2^32.
	Serial() uint32
	// Public gives the addresses at which the public listener is reached.
	Public() []netip.Addr
	// Service finds a service as an environment sees it. Names are in lower case;
	// environment "" = as the baseline of its project sees it. False = there is no such
	// service, or several projects have one and no environment was named.
	Service(service, environment string) (Service, bool)
	// Environment says whether an environment of this name, in lower case, has services.
	Environment(name string) bool
}

// Service is where a service is reached.
type Service struct {
	Environment string     // whose view this is
	Address     netip.Addr // at the internal listener; invalid = it takes no connections
	Port        uint16     // of the internal listener; 0 = there is none
	HTTP        bool       // it speaks HTTP, in whatever version
	Instances   []Instance // those that are healthy
}

// Instance is one running copy of a service.
type Instance struct {
	ID      string // a DNS label
	Address netip.AddrPort
	Weight  uint16 // its share of the requests; 0 = very little
}

// Config is what a Server needs.
type Config struct {
	// Address is host:port; port 0 = any that is free for both UDP and TCP.
	Address string
	// Domain is that of public hosts, without a trailing dot.
	Domain string
	// Suffixes follow internal names; "internal" is always among them.
	Suffixes []string
	Names    Names
	// Resolvers gives those who are asked for all other names; nil = the ones of
	// /etc/resolv.conf.
	Resolvers func() []netip.AddrPort
	Logger    *slog.Logger
}

// The bounds of what clients can use up.
const (
	maxConnections = 256 // over TCP, at a time
	maxQueries     = 128 // over one connection
	maxForwards    = 256 // at a time
	maxDatagram    = 1232
	patience       = 2 * time.Second // for the next part of a query, or until an answer is taken
	idle           = 8 * time.Second // between queries of a connection
)

// Server answers on one address, over UDP and TCP.
type Server struct {
	names     Names
	zones     []zone // the longest first
	forwarder *forwarder
	log       *slog.Logger

	udp  net.PacketConn
	tcp  net.Listener
	addr netip.AddrPort
}

// Listen opens the sockets of a server. Serve answers, and closes them.
func Listen(c Config) (*Server, error) {
	udp, tcp, err := listen(c.Address)
	if err != nil {
		return nil, err
	}
	addr := tcp.Addr().(*net.TCPAddr).AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if c.Resolvers == nil {
		c.Resolvers = (&resolvConf{file: "/etc/resolv.conf"}).resolvers
	}
	return &Server{
		names: c.Names, zones: zones(c.Domain, c.Suffixes), log: c.Logger, udp: udp, tcp: tcp, addr: addr,
		forwarder: &forwarder{resolvers: c.Resolvers, self: addr, flights: map[flightKey]*flight{}},
	}, nil
}

// listen opens both sockets on one port.
func listen(address string) (net.PacketConn, net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, err
	}
	for attempt := 0; ; attempt++ {
		tcp, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			return nil, nil, err
		}
		udp, err := net.ListenPacket("udp", net.JoinHostPort(host, fmt.Sprint(tcp.Addr().(*net.TCPAddr).Port)))
		if err == nil {
			return udp, tcp, nil
		}
		tcp.Close()
		if port != "0" || attempt == 20 { // what is free for TCP need not be free for UDP
			return nil, nil, err
		}
	}
}

// Addr says where the server listens.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Local is Addr as this host reaches it.
func (s *Server) Local() netip.AddrPort {
	switch {
	case !s.addr.Addr().IsUnspecified():
		return s.addr
	case s.addr.Addr().Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.addr.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), s.addr.Port())
}

// Close closes the sockets of a server that was never served.
func (s *Server) Close() error { return errors.Join(s.udp.Close(), s.tcp.Close()) }

// Serve answers until ctx ends, and returns when everything that it started has ended.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	handler := wire.HandlerFunc(func(w wire.ResponseWriter, q *wire.Msg) { s.serve(ctx, w, q) })
	var started, ended sync.WaitGroup
	servers := []*wire.Server{
		{PacketConn: s.udp, UDPSize: wire.MaxMsgSize},
		{Listener: netutil.LimitListener(s.tcp, maxConnections), MaxTCPQueries: maxQueries, IdleTimeout: func() time.Duration { return idle }},
	}
	failed := make(chan error, len(servers))
	for _, server := range servers {
		server.Handler, server.MsgAcceptFunc = handler, accept
		server.ReadTimeout, server.WriteTimeout = patience, patience
		started.Add(1)
		server.NotifyStartedFunc = sync.OnceFunc(started.Done)
		ended.Go(func() {
			err := server.ActivateAndServe()
			server.NotifyStartedFunc() // also where it never started
			failed <- err
			cancel()
		})
	}
	started.Wait()
	<-ctx.Done()
	for _, server := range servers {
		_ = server.Shutdown() // waits for the answers; fails where it has ended by itself
	}
	ended.Wait()
	_ = s.Close()
	return errors.Join(<-failed, <-failed)
}

// accept drops answers, so that two servers cannot be made to talk to each other, and lets
// everything else come to serve, which knows better what is wrong with it.
func accept(h wire.Header) wire.MsgAcceptAction {
	const response = 1 << 15
	if h.Bits&response != 0 {
		return wire.MsgIgnore
	}
	if int(h.Bits>>11)&0xf != wire.OpcodeQuery {
		return wire.MsgRejectNotImplemented
	}
	if h.Qdcount != 1 || h.Ancount > 0 || h.Nscount > 0 || h.Arcount > 2 {
		return wire.MsgReject
	}
	return wire.MsgAccept
}

// serve answers one query.
func (s *Server) serve(ctx context.Context, w wire.ResponseWriter, q *wire.Msg) {
	_, tcp := w.RemoteAddr().(*net.TCPAddr)
	r := s.answer(ctx, q, remote(w.RemoteAddr()), tcp)
	if err := w.WriteMsg(r); err != nil && ctx.Err() == nil {
		s.log.Debug("a DNS answer could not be sent", "to", w.RemoteAddr(), "error", err)
	}
}

// remote gives the address of a client.
func remote(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// answer makes the answer to a query, no longer than its client can take.
func (s *Server) answer(ctx context.Context, q *wire.Msg, client netip.Addr, tcp bool) *wire.Msg {
	r := new(wire.Msg)
	r.SetReply(q)
	r.RecursionAvailable = private(client)
	size := wire.MinMsgSize
	opt := q.IsEdns0()
	if opt != nil {
		size = max(size, min(int(opt.UDPSize()), maxDatagram))
	}
	if tcp {
		size = wire.MaxMsgSize
	}
	switch {
	case len(q.Question) != 1:
		r.Rcode = wire.RcodeFormatError
	case opt != nil && opt.Version() != 0:
		r.Rcode = wire.RcodeBadVers
	case opt != nil && opts(q) > 1:
		r.Rcode = wire.RcodeFormatError
	default:
		s.resolve(ctx, q, r, client)
	}
	if opt != nil {
		r.SetEdns0(maxDatagram, opt.Do())
	}
	r.Compress = true
	r.Truncate(size)
	return r
}

// opts counts the OPT records of a message, of which there may be one.
func opts(m *wire.Msg) (n int) {
	for _, rr := range m.Extra {
		if rr.Header().Rrtype == wire.TypeOPT {
			n++
		}
	}
	return n
}

// resolve fills the answer to a well-formed query.
func (s *Server) resolve(ctx context.Context, q, r *wire.Msg, client netip.Addr) {
	question := q.Question[0]
	name := strings.ToLower(question.Name)
	i := slices.IndexFunc(s.zones, func(z zone) bool { return z.has(name) })
	switch {
	case question.Qclass != wire.ClassINET,
		question.Qtype == wire.TypeAXFR, question.Qtype == wire.TypeIXFR, question.Qtype == wire.TypeMAILA, question.Qtype == wire.TypeMAILB:
		r.Rcode = wire.RcodeRefused
	case i >= 0 && (!s.zones[i].internal || private(client)):
		s.authoritative(s.zones[i], question, name, r)
	case i >= 0, !private(client), !q.RecursionDesired:
		r.Rcode = wire.RcodeRefused
	default:
		s.forwarder.forward(ctx, q, r)
	}
}

// private says whether a client is one of ours by its address: what is forwarded for
// everybody is used to flood others.
func private(a netip.Addr) bool {
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast()
}
