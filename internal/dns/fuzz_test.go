package dns

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"

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
