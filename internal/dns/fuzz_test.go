package dns

import (
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

// port is a client that keeps what it is sent.
type port struct {
	wire.ResponseWriter
	remote net.Addr
	sent   []*wire.Msg
}

func (p *port) RemoteAddr() net.Addr       { return p.remote }
func (p *port) WriteMsg(m *wire.Msg) error { p.sent = append(p.sent, m); return nil }

// Whatever a packet says: one answer, to that question, which can be written, is no longer than
// its client can take, and never a surprise.
func FuzzPackets(f *testing.F) {
	for _, name := range []string{"web.shop-main.internal.", "_http._tcp.WEB.internal.", "_tcp.web.shop-main.internal.", "x.aaaa.web.shop-main.internal.", "shop.dev.example.com.", "internal.", ".", `a\.b.internal.`, "example.org."} {
		for _, kind := range []uint16{wire.TypeA, wire.TypeSRV, wire.TypeANY, wire.TypeNS, wire.TypeAXFR} {
			q := query(name, kind)
			b, _ := q.Pack()
			f.Add(b, false)
			q.SetEdns0(4096, true)
			b, _ = q.Pack()
			f.Add(b, true)
		}
	}
	f.Add([]byte{}, false)
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"), false) // a name that is itself
	s := &Server{
		names: newWorld(), zones: zones("dev.example.com", []string{"service"}), log: slog.New(slog.DiscardHandler),
		forwarder: &forwarder{resolvers: func() []netip.AddrPort { return nil }, flights: map[flightKey]*flight{}},
	}
	f.Fuzz(func(t *testing.T, packet []byte, tcp bool) {
		q := new(wire.Msg)
		if q.Unpack(packet) != nil {
			return
		}
		p := &port{remote: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}}
		if tcp {
			p.remote = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
		}
		s.serve(t.Context(), p, q.Copy())
		if len(p.sent) != 1 {
			t.Fatalf("%d answers", len(p.sent))
		}
		r := p.sent[0]
		b, err := r.Pack()
		if err != nil {
			t.Fatalf("the answer cannot be written: %v\n%v", err, r)
		}
		back := new(wire.Msg)
		if err := back.Unpack(b); err != nil {
			t.Fatalf("the answer cannot be read: %v\n%v", err, r)
		}
		most := wire.MaxMsgSize
		if !tcp {
			most = max(wire.MinMsgSize, maxDatagram*min(1, len(q.Extra)))
		}
		if len(b) > most && len(q.Question) == 1 {
			t.Fatalf("%d bytes", len(b))
		}
		if !r.Response || r.Id != q.Id || len(q.Question) == 1 && r.Question[0] != q.Question[0] {
			t.Fatalf("it answers something else:\n%v\n%v", q, r)
		}
		if r.Rcode == wire.RcodeSuccess && r.Authoritative && !r.Truncated && len(r.Answer) == 0 && len(r.Ns) == 0 {
			t.Fatalf("nothing is answered without an authority:\n%v", r)
		}
	})
}

// resolver answers everything, over UDP and TCP, with one packet that says it is for the query.
type resolver struct {
	address netip.AddrPort
	packet  atomic.Pointer[[]byte]
}

func startResolver(f *testing.F) *resolver {
	f.Helper()
	udp, tcp, err := listen("127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	r := &resolver{address: tcp.Addr().(*net.TCPAddr).AddrPort()}
	var running sync.WaitGroup
	running.Go(func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(r.answer(b[:n]), from)
		}
	})
	running.Go(func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			var size [2]byte
			if _, err := io.ReadFull(c, size[:]); err == nil {
				q := make([]byte, binary.BigEndian.Uint16(size[:]))
				_, _ = io.ReadFull(c, q)
				a := r.answer(q)
				a = a[:min(len(a), 1<<16-1)]
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
			}
			_ = c.Close()
		}
	})
	f.Cleanup(func() {
		_ = udp.Close()
		_ = tcp.Close()
		running.Wait()
	})
	return r
}

// answer gives the packet with the id of the query: without it nobody would look at the rest.
func (r *resolver) answer(query []byte) []byte {
	a := slices.Clone(*r.packet.Load())
	copy(a, query[:min(2, len(query))])
	return a
}

// Whatever a resolver answers: the client gets one answer to its own question, which can be written and
// is no longer than it can take, or is told that there is none.
func FuzzAnswersOfResolvers(f *testing.F) {
	add := func(change func(m *wire.Msg)) {
		m := new(wire.Msg)
		m.SetReply(query("example.org.", wire.TypeA))
		change(m)
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false)
		f.Add(b, true)
	}
	record := func(text string) wire.RR {
		rr, err := wire.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		return rr
	}
	add(func(*wire.Msg) {})
	add(func(m *wire.Msg) { m.Answer = append(m.Answer, record("EXAMPLE.org. 60 IN A 192.0.2.1")) })
	add(func(m *wire.Msg) {
		for range 100 {
			m.Answer = append(m.Answer, record("example.org. 60 IN TXT "+strings.Repeat("x", 200)))
		}
	})
	add(func(m *wire.Msg) { m.Truncated = true })
	add(func(m *wire.Msg) { m.Rcode = wire.RcodeNameError })
	add(func(m *wire.Msg) { m.Question[0].Name = "example.com." })
	add(func(m *wire.Msg) { m.Response, m.Question = false, nil })
	add(func(m *wire.Msg) { m.SetEdns0(4096, true); m.Rcode = wire.RcodeBadVers })
	f.Add([]byte{}, false)
	f.Add([]byte("\x00\x00\x80\x00\x00\x01\x00\x01\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"), false)
	upstream := startResolver(f)
	s := &Server{
		names: newWorld(), zones: zones("dev.example.com", nil), log: slog.New(slog.DiscardHandler),
		forwarder: &forwarder{resolvers: func() []netip.AddrPort { return []netip.AddrPort{upstream.address} }, flights: map[flightKey]*flight{}},
	}
	f.Fuzz(func(t *testing.T, packet []byte, tcp bool) {
		upstream.packet.Store(&packet)
		q := query("example.org.", wire.TypeA)
		p := &port{remote: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}}
		most := wire.MinMsgSize
		if tcp {
			p.remote, most = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, wire.MaxMsgSize
		}
		s.serve(t.Context(), p, q.Copy())
		if len(p.sent) != 1 {
			t.Fatalf("%d answers", len(p.sent))
		}
		r := p.sent[0]
		b, err := r.Pack()
		if err != nil {
			t.Fatalf("the answer cannot be written: %v\n%v", err, r)
		}
		if err := new(wire.Msg).Unpack(b); err != nil {
			t.Fatalf("the answer cannot be read: %v\n%v", err, r)
		}
		if len(b) > most {
			t.Fatalf("%d bytes", len(b))
		}
		if !r.Response || r.Id != q.Id || len(r.Question) != 1 || r.Question[0] != q.Question[0] || r.Authoritative {
			t.Fatalf("it answers something else:\n%v\n%v", q, r)
		}
		for _, rr := range slices.Concat(r.Answer, r.Ns, r.Extra) {
			if k := rr.Header().Rrtype; k == wire.TypeOPT || k == wire.TypeTSIG {
				t.Fatalf("what is between the resolver and this server is handed on:\n%v", r)
			}
		}
	})
}
