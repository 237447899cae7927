package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	wire "github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit is how long a test waits for what has to come.
const limit = 20 * time.Second

// world is what a test lets a server know.
type world struct {
	mu       sync.Mutex
	serial   uint32
	public   []netip.Addr
	services map[string]Service // by "service environment"
}

func (w *world) Serial() uint32 { w.mu.Lock(); defer w.mu.Unlock(); return w.serial }

func (w *world) Public() []netip.Addr { w.mu.Lock(); defer w.mu.Unlock(); return w.public }

func (w *world) Service(service, environment string) (Service, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.services[service+" "+environment]
	return s, ok
}

func (w *world) Environment(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.services {
		if strings.HasSuffix(key, " "+name) {
			return true
		}
	}
	return false
}

func (w *world) change(change func(*world)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
	w.serial++
}

func newWorld() *world {
	web := Service{
		Environment: "shop-main", Address: netip.MustParseAddr("127.1.2.3"), Port: 7071, HTTP: true,
		Instances: []Instance{
			{ID: "aaaa", Address: netip.MustParseAddrPort("127.0.0.1:4001"), Weight: 50},
			{ID: "bbbb", Address: netip.MustParseAddrPort("127.0.0.1:4002"), Weight: 50},
		},
	}
	other := web
	other.Environment, other.Address, other.Instances = "shop-fix", netip.MustParseAddr("127.1.2.4"), nil
	return &world{
		serial: 7, public: []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::3")},
		services: map[string]Service{
			"web shop-main": web, "web shop-fix": other, "web ": web,
			"db shop-main":     {Environment: "shop-main", Address: netip.MustParseAddr("127.1.2.9"), Port: 7071},
			"worker shop-main": {Environment: "shop-main", Port: 7071, HTTP: true},
		},
	}
}

// start runs a server until the test ends.
func start(t testing.TB, w *world, resolvers ...netip.AddrPort) *Server {
	t.Helper()
	s, err := Listen(Config{
		Address: "127.0.0.1:0", Domain: "Dev.Example.com", Suffixes: []string{"service", "mesh.local"}, Names: w,
		Resolvers: func() []netip.AddrPort { return resolvers }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	return s
}

func run(t testing.TB, s *Server) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("it ended with %v", err)
			}
		case <-time.After(limit):
			t.Error("it does not end")
		}
	})
}

// ask asks as any client does.
func ask(t testing.TB, network string, server netip.AddrPort, q *wire.Msg) *wire.Msg {
	t.Helper()
	c := wire.Client{Net: network, Timeout: limit, UDPSize: wire.MaxMsgSize}
	r, _, err := c.Exchange(q, server.String())
	if err != nil {
		t.Fatalf("%s %v: %v", network, q.Question, err)
	}
	return r
}

func query(name string, kind uint16) *wire.Msg {
	return new(wire.Msg).SetQuestion(wire.Fqdn(name), kind)
}

// said gives what an answer says: its code, and its records without their lives.
func said(r *wire.Msg) string {
	lines := []string{wire.RcodeToString[r.Rcode]}
	for _, part := range []struct {
		name string
		rrs  []wire.RR
	}{{"", r.Answer}, {"authority ", r.Ns}, {"more ", r.Extra}} {
		for _, rr := range part.rrs {
			if rr.Header().Rrtype == wire.TypeOPT {
				continue
			}
			fields := strings.Fields(rr.String())
			lines = append(lines, part.name+strings.Join(slices.Delete(fields, 1, 3), " "))
		}
	}
	return strings.Join(lines, "\n")
}

func TestEveryNameIsAnsweredByWhatTheWorldKnows(t *testing.T) {
	s := start(t, newWorld())
	const (
		publicSOA   = "authority dev.example.com. SOA dayfly-dns.dev.example.com. hostmaster.dev.example.com. 7 60 10 3600 1"
		internalSOA = "authority internal. SOA dayfly-dns.internal. hostmaster.internal. 7 60 10 3600 1"
		targets     = "more aaaa.web.shop-main.internal. A 127.0.0.1\nmore bbbb.web.shop-main.internal. A 127.0.0.1\nmore web.shop-main.internal. A 127.1.2.3"
	)
	srv := func(name string) string {
		return "NOERROR\n" + name + " SRV 0 50 4001 aaaa.web.shop-main.internal.\n" + name + " SRV 0 50 4002 bbbb.web.shop-main.internal.\n" +
			name + " SRV 10 0 7071 web.shop-main.internal.\n" + targets
	}
	for _, c := range []struct {
		about, name string
		kind        uint16
		want        string
	}{
		{"a public host", "shop-main.dev.example.com", wire.TypeA, "NOERROR\nshop-main.dev.example.com. A 10.1.2.3"},
		{"a public host on IPv6", "web-shop-main.dev.example.com", wire.TypeAAAA, "NOERROR\nweb-shop-main.dev.example.com. AAAA fd00::3"},
		{"a public host that is not there yet", "new.dev.example.com", wire.TypeA, "NOERROR\nnew.dev.example.com. A 10.1.2.3"},
		{"a host of two labels", "web.shop.dev.example.com", wire.TypeA, "NOERROR\nweb.shop.dev.example.com. A 10.1.2.3"},
		{"the domain", "dev.example.com", wire.TypeA, "NOERROR\ndev.example.com. A 10.1.2.3"},
		{"the case of the question", "ShOp.DEV.exAmple.com", wire.TypeA, "NOERROR\nShOp.DEV.exAmple.com. A 10.1.2.3"},
		{"a kind that a host has not", "shop-main.dev.example.com", wire.TypeMX, "NOERROR\n" + publicSOA},
		{"the domain's authority", "dev.example.com", wire.TypeSOA, "NOERROR\ndev.example.com. SOA dayfly-dns.dev.example.com. hostmaster.dev.example.com. 7 60 10 3600 1"},
		{"the domain's server", "dev.example.com", wire.TypeNS, "NOERROR\ndev.example.com. NS dayfly-dns.dev.example.com.\nmore dayfly-dns.dev.example.com. A 10.1.2.3\nmore dayfly-dns.dev.example.com. AAAA fd00::3"},
		{"a host has no authority of its own", "shop.dev.example.com", wire.TypeSOA, "NOERROR\n" + publicSOA},
		{"everything about a host", "shop.dev.example.com", wire.TypeANY, `NOERROR` + "\n" + `shop.dev.example.com. HINFO "RFC8482" ""`},

		{"a service of an environment", "web.shop-fix.internal", wire.TypeA, "NOERROR\nweb.shop-fix.internal. A 127.1.2.4"},
		{"a service of the baseline", "web.internal", wire.TypeA, "NOERROR\nweb.internal. A 127.1.2.3"},
		{"any case", "WEB.Shop-Fix.INTERNAL", wire.TypeA, "NOERROR\nWEB.Shop-Fix.INTERNAL. A 127.1.2.4"},
		{"another suffix", "web.shop-fix.service", wire.TypeA, "NOERROR\nweb.shop-fix.service. A 127.1.2.4"},
		{"a suffix of two labels", "web.shop-fix.mesh.local", wire.TypeA, "NOERROR\nweb.shop-fix.mesh.local. A 127.1.2.4"},
		{"another suffix has records of its own", "_http._tcp.web.shop-fix.service", wire.TypeSRV, "NOERROR\n_http._tcp.web.shop-fix.service. SRV 10 0 7071 web.shop-fix.service.\nmore web.shop-fix.service. A 127.1.2.4"},
		{"no IPv6", "web.shop-fix.internal", wire.TypeAAAA, "NOERROR\n" + internalSOA},
		{"a service that takes no connections", "worker.shop-main.internal", wire.TypeA, "NOERROR\n" + internalSOA},
		{"nor do they come to its ports", "worker.shop-main.internal", wire.TypeSRV, "NOERROR\n" + internalSOA},
		{"a service that nobody has", "none.shop-main.internal", wire.TypeA, "NXDOMAIN\n" + internalSOA},
		{"an environment that is not there", "web.gone.internal", wire.TypeA, "NXDOMAIN\n" + internalSOA},
		{"a plain name that nobody or more than one has", "db.internal", wire.TypeA, "NXDOMAIN\n" + internalSOA},
		{"names above others are there", "shop-main.internal", wire.TypeA, "NOERROR\n" + internalSOA},
		{"so is the suffix", "internal", wire.TypeA, "NOERROR\n" + internalSOA},
		{"no other environment of this name", "gone.internal", wire.TypeA, "NXDOMAIN\n" + internalSOA},
		{"names below an instance's", "x.aaaa.web.shop-main.internal", wire.TypeA, "NXDOMAIN\n" + internalSOA},
		{"a dot within a label", `web\.shop-fix.internal`, wire.TypeA, "NXDOMAIN\n" + internalSOA},
		{"a port within a label", `web\:80.shop-fix.internal`, wire.TypeA, "NXDOMAIN\n" + internalSOA},

		{"the instances of a service", "web.shop-main.internal", wire.TypeSRV, srv("web.shop-main.internal.")},
		{"the instances by protocol", "_http._tcp.web.shop-main.internal", wire.TypeSRV, srv("_http._tcp.web.shop-main.internal.")},
		{"the instances by protocol in any case", "_HTTP._Tcp.web.shop-main.internal", wire.TypeSRV, srv("_HTTP._Tcp.web.shop-main.internal.")},
		{"the instances of the baseline", "_http._tcp.web.internal", wire.TypeSRV, srv("_http._tcp.web.internal.")},
		{"a service without an instance", "_http._tcp.web.shop-fix.internal", wire.TypeSRV, "NOERROR\n_http._tcp.web.shop-fix.internal. SRV 10 0 7071 web.shop-fix.internal.\nmore web.shop-fix.internal. A 127.1.2.4"},
		{"no address by protocol", "_http._tcp.web.shop-main.internal", wire.TypeA, "NOERROR\n" + internalSOA},
		{"what is above a protocol", "_tcp.web.shop-main.internal", wire.TypeSRV, "NOERROR\n" + internalSOA},
		{"another protocol", "_smtp._tcp.web.shop-main.internal", wire.TypeSRV, "NXDOMAIN\n" + internalSOA},
		{"a protocol that the service does not speak", "_http._tcp.db.shop-main.internal", wire.TypeSRV, "NXDOMAIN\n" + internalSOA},
		{"the listener of a service that speaks no HTTP", "db.shop-main.internal", wire.TypeSRV, "NOERROR\ndb.shop-main.internal. SRV 10 0 7071 db.shop-main.internal.\nmore db.shop-main.internal. A 127.1.2.9"},
		{"an instance", "bbbb.web.shop-main.internal", wire.TypeA, "NOERROR\nbbbb.web.shop-main.internal. A 127.0.0.1"},
		{"an instance that is gone", "cccc.web.shop-main.internal", wire.TypeA, "NXDOMAIN\n" + internalSOA},
		{"an instance of a service that is gone", "aaaa.none.shop-main.internal", wire.TypeA, "NXDOMAIN\n" + internalSOA},
		{"everything about a service", "web.internal", wire.TypeANY, "NOERROR\n" + `web.internal. HINFO "RFC8482" ""`},
		{"everything about nothing", "none.internal", wire.TypeANY, "NXDOMAIN\n" + internalSOA},
		{"the server of internal names", "internal", wire.TypeNS, "NOERROR\ninternal. NS dayfly-dns.internal.\nmore dayfly-dns.internal. A 10.1.2.3\nmore dayfly-dns.internal. AAAA fd00::3"},
		{"the server's own name", "dayfly-dns.internal", wire.TypeA, "NOERROR\ndayfly-dns.internal. A 10.1.2.3"},

		{"a transfer", "dev.example.com", wire.TypeAXFR, "REFUSED"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(c.about+" over "+network, func(t *testing.T) {
				r := ask(t, network, s.Addr(), query(c.name, c.kind))
				if got := said(r); got != c.want {
					t.Errorf("it says\n%s\nwant\n%s", got, c.want)
				}
				if r.Authoritative != (c.want != "REFUSED") || r.Truncated || !r.RecursionAvailable {
					t.Errorf("the flags are wrong: %v", r.MsgHdr)
				}
				for _, rr := range slices.Concat(r.Answer, r.Ns, r.Extra) {
					if ttl := rr.Header().Ttl; ttl < 1 || ttl > 5 {
						t.Errorf("it lives for %d s: %v", ttl, rr)
					}
				}
			})
		}
	}
}

func TestAnAnswerFollowsTheWorldAtOnce(t *testing.T) {
	w := newWorld()
	s := start(t, w)
	for i := range 50 {
		address := netip.AddrFrom4([4]byte{127, 9, 9, byte(i + 1)})
		w.change(func(w *world) { w.services["web new"] = Service{Environment: "new", Address: address} })
		if got, want := said(ask(t, "udp", s.Addr(), query("web.new.internal", wire.TypeA))), "NOERROR\nweb.new.internal. A "+address.String(); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
		w.change(func(w *world) { delete(w.services, "web new") })
		r := ask(t, "udp", s.Addr(), query("web.new.internal", wire.TypeA))
		if r.Rcode != wire.RcodeNameError || r.Ns[0].(*wire.SOA).Serial != w.Serial() {
			t.Fatalf("what is gone is answered with %s", said(r))
		}
	}
}

func TestExtensionsAreSpokenInTheirFirstVersion(t *testing.T) {
	s := start(t, newWorld())
	q := query("web.internal", wire.TypeA)
	if r := ask(t, "udp", s.Addr(), q); r.IsEdns0() != nil {
		t.Error("an extension comes unasked")
	}
	q.SetEdns0(4096, true)
	r := ask(t, "udp", s.Addr(), q)
	if opt := r.IsEdns0(); opt == nil || opt.UDPSize() != maxDatagram || opt.Version() != 0 || !opt.Do() || r.Rcode != wire.RcodeSuccess {
		t.Errorf("the answer is\n%v", r)
	}
	q.IsEdns0().SetVersion(1)
	if r := ask(t, "udp", s.Addr(), q); r.Rcode != wire.RcodeBadVers || len(r.Answer) > 0 {
		t.Errorf("a version from times to come is answered with\n%v", r)
	}
	q.IsEdns0().SetVersion(0)
	q.Extra = append(q.Extra, q.Extra[0])
	if r := ask(t, "udp", s.Addr(), q); r.Rcode != wire.RcodeFormatError {
		t.Errorf("two extensions are answered with\n%v", r)
	}
}

func TestAnAnswerThatIsTooLongForADatagramComesOverTCP(t *testing.T) {
	w := newWorld()
	const instances = 100
	w.change(func(w *world) {
		web := w.services["web shop-main"]
		web.Instances = nil
		for i := range instances {
			web.Instances = append(web.Instances, Instance{ID: fmt.Sprintf("i%015d", i), Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(4000+i)), Weight: 1})
		}
		w.services["web shop-main"] = web
	})
	s := start(t, w)
	q := query("_http._tcp.web.shop-main.internal", wire.TypeSRV)
	sizes := map[string]int{}
	for _, c := range []struct {
		about string
		edns  uint16
		most  int
	}{{"a plain client", 0, 512}, {"a small one", 100, 512}, {"a larger one", 1000, 1000}, {"one that believes in fragments", 65535, maxDatagram}} {
		q := q.Copy()
		if c.edns > 0 {
			q.SetEdns0(c.edns, false)
		}
		r := ask(t, "udp", s.Addr(), q)
		if !r.Truncated || len(r.Answer) == 0 || len(r.Answer) > instances {
			t.Errorf("%s: it is not truncated: %d records", c.about, len(r.Answer))
		}
		r.Compress = true
		if r.Len() > c.most {
			t.Errorf("%s: %d bytes", c.about, r.Len())
		}
		sizes[c.about] = len(r.Answer)
	}
	if sizes["a larger one"] <= sizes["a plain client"] {
		t.Errorf("what a client can take is not used: %v", sizes)
	}
	if r := ask(t, "tcp", s.Addr(), q); r.Truncated || len(r.Answer) != instances+1 {
		t.Errorf("over TCP: truncated %v, %d records", r.Truncated, len(r.Answer))
	}
}

// raw sends bytes and gives what comes back for them. Where nothing should, good queries behind them
// are answered, since datagrams are answered side by side, and the answer is nil.
func raw(t *testing.T, s *Server, packet []byte, answered bool) *wire.Msg {
	t.Helper()
	conn, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(limit))
	good, _ := query("web.internal", wire.TypeA).Pack()
	good[0], good[1] = 0xfe, 0xfe
	for _, p := range [][]byte{packet, good} {
		if _, err := conn.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, wire.MaxMsgSize)
	for behind := 0; answered || behind < 3; {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("for %x nothing comes (answer wanted: %t): %v", packet, answered, err)
		}
		m := new(wire.Msg)
		if err := m.Unpack(buf[:n]); err != nil {
			t.Fatalf("%x is answered with %x: %v", packet, buf[:n], err)
		}
		if m.Id != 0xfefe {
			return m
		}
		if behind++; behind < 3 {
			if _, err := conn.Write(good); err != nil {
				t.Fatal(err)
			}
		}
	}
	return nil
}

func TestWhatIsNoQueryIsRefusedOrDropped(t *testing.T) {
	s := start(t, newWorld())
	pack := func(change func(*wire.Msg)) []byte {
		q := query("web.internal", wire.TypeA)
		change(q)
		b, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	two := pack(func(m *wire.Msg) { m.Question = append(m.Question, m.Question[0]) })
	for _, c := range []struct {
		about  string
		packet []byte
		want   int // -1 = nothing
	}{
		{"nothing", nil, -1},
		{"a few bytes", []byte{1, 2, 3}, -1},
		{"an answer", pack(func(m *wire.Msg) { m.Response = true }), -1},
		{"an update", pack(func(m *wire.Msg) { m.Opcode = wire.OpcodeUpdate }), wire.RcodeNotImplemented},
		{"a notification", pack(func(m *wire.Msg) { m.Opcode = wire.OpcodeNotify }), wire.RcodeNotImplemented},
		{"no question", pack(func(m *wire.Msg) { m.Question = nil }), wire.RcodeFormatError},
		{"two questions", two, wire.RcodeFormatError},
		{"half a question", pack(func(*wire.Msg) {})[:20], wire.RcodeFormatError},
		{"another class", pack(func(m *wire.Msg) { m.Question[0].Qclass = wire.ClassCHAOS }), wire.RcodeRefused},
	} {
		t.Run(c.about, func(t *testing.T) {
			r := raw(t, s, c.packet, c.want >= 0)
			switch {
			case c.want < 0 && r != nil:
				t.Errorf("it is answered with\n%v", r)
			case c.want >= 0 && (r == nil || r.Rcode != c.want || len(r.Answer) > 0):
				t.Errorf("it is answered with\n%v", r)
			}
		})
	}
}

// upstream is a resolver that counts what it is asked.
func upstream(t *testing.T, handle func(w wire.ResponseWriter, q *wire.Msg)) (netip.AddrPort, *atomic.Int64) {
	t.Helper()
	udp, tcp, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	var ended, started sync.WaitGroup
	t.Cleanup(ended.Wait) // after both have been told
	for _, s := range []*wire.Server{{PacketConn: udp}, {Listener: tcp}} {
		s.Handler = wire.HandlerFunc(func(w wire.ResponseWriter, q *wire.Msg) {
			asked.Add(1)
			handle(w, q)
		})
		started.Add(1)
		s.NotifyStartedFunc = started.Done
		ended.Go(func() { _ = s.ActivateAndServe() })
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	started.Wait()
	return tcp.Addr().(*net.TCPAddr).AddrPort(), &asked
}

// reply answers with an address.
func reply(w wire.ResponseWriter, q *wire.Msg) {
	r := new(wire.Msg).SetReply(q)
	r.RecursionAvailable = true
	if strings.HasPrefix(q.Question[0].Name, "none.") {
		r.Rcode = wire.RcodeNameError
	} else {
		rr, _ := wire.NewRR(q.Question[0].Name + " 300 A 192.0.2.7")
		r.Answer = []wire.RR{rr}
	}
	if q.IsEdns0() != nil {
		r.SetEdns0(1232, false)
	}
	_ = w.WriteMsg(r)
}

func TestOtherNamesAreWhatTheSystemsResolversSay(t *testing.T) {
	good, _ := upstream(t, reply)
	failing, failed := upstream(t, func(w wire.ResponseWriter, q *wire.Msg) {
		_ = w.WriteMsg(new(wire.Msg).SetRcode(q, wire.RcodeServerFailure))
	})
	lying, _ := upstream(t, func(w wire.ResponseWriter, q *wire.Msg) {
		q.Question[0].Name = "other.example.org."
		reply(w, q)
	})
	s := start(t, newWorld(), failing, lying, good)
	for _, network := range []string{"udp", "tcp"} {
		if got := said(ask(t, network, s.Addr(), query("WWW.Example.org", wire.TypeA))); got != "NOERROR\nWWW.Example.org. A 192.0.2.7" {
			t.Error(network, got)
		}
		r := ask(t, network, s.Addr(), query("none.example.org", wire.TypeA))
		if r.Rcode != wire.RcodeNameError || r.Authoritative || !r.RecursionAvailable || r.IsEdns0() != nil {
			t.Errorf("%s: %v", network, r)
		}
	}
	if failed.Load() != 4 {
		t.Errorf("the first resolver was asked %d times", failed.Load())
	}
	// Who wants no recursion, gets none.
	q := query("www.example.org", wire.TypeA)
	q.RecursionDesired = false
	if r := ask(t, "udp", s.Addr(), q); r.Rcode != wire.RcodeRefused {
		t.Error(said(r))
	}
}

func TestWithoutAResolverOtherNamesFail(t *testing.T) {
	s := start(t, newWorld())
	if got := said(ask(t, "udp", s.Addr(), query("example.org", wire.TypeA))); got != "SERVFAIL" {
		t.Error(got)
	}
}

func TestALongAnswerOfAResolverIsFetchedOverTCP(t *testing.T) {
	const records = 300
	long, _ := upstream(t, func(w wire.ResponseWriter, q *wire.Msg) {
		r := new(wire.Msg).SetReply(q)
		for i := range records {
			rr, _ := wire.NewRR(fmt.Sprintf("%s 60 A 192.0.%d.%d", q.Question[0].Name, i/250, i%250))
			r.Answer = append(r.Answer, rr)
		}
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			r.Truncate(1232)
		}
		_ = w.WriteMsg(r)
	})
	s := start(t, newWorld(), long)
	if r := ask(t, "tcp", s.Addr(), query("example.org", wire.TypeA)); len(r.Answer) != records || r.Truncated {
		t.Errorf("%d records", len(r.Answer))
	}
	if r := ask(t, "udp", s.Addr(), query("example.org", wire.TypeA)); len(r.Answer) >= records || !r.Truncated {
		t.Errorf("%d records", len(r.Answer))
	}
}

func TestOnlyClientsNearbyAreHelpedWithOtherAndInternalNames(t *testing.T) {
	good, asked := upstream(t, reply)
	s := start(t, newWorld(), good)
	for address, near := range map[string]bool{
		"127.0.0.1": true, "127.8.0.1": true, "::1": true, "10.2.3.4": true, "172.31.0.1": true, "192.168.7.7": true, "169.254.1.1": true, "fe80::1": true, "fd12::1": true,
		"8.8.8.8": false, "172.32.0.1": false, "192.169.0.1": false, "2001:db8::1": false, "100.64.0.1": false, "0.0.0.0": false, "::": false, "": false,
	} {
		client, _ := netip.ParseAddr(address)
		want := map[bool]int{true: wire.RcodeSuccess, false: wire.RcodeRefused}[near]
		before := asked.Load()
		if r := s.answer(t.Context(), query("example.org", wire.TypeA), client, false); r.Rcode != want || r.RecursionAvailable != near {
			t.Errorf("%q: another name is answered with %s", address, said(r))
		}
		if got := asked.Load() > before; got != near {
			t.Errorf("%q: the resolver was asked: %v", address, got)
		}
		if r := s.answer(t.Context(), query("web.internal", wire.TypeA), client, false); r.Rcode != want {
			t.Errorf("%q: an internal name is answered with %s", address, said(r))
		}
		if r := s.answer(t.Context(), query("shop.dev.example.com", wire.TypeA), client, false); r.Rcode != wire.RcodeSuccess {
			t.Errorf("%q: a public name is answered with %s", address, said(r))
		}
	}
}

func TestThisServerIsNotItsOwnResolver(t *testing.T) {
	for _, c := range []struct {
		self, resolver string
		want           bool
	}{
		{"127.0.0.1:53", "127.0.0.1:53", true},
		{"127.0.0.1:53", "127.0.0.53:53", false},
		{"127.0.0.1:5353", "127.0.0.1:53", false},
		{"0.0.0.0:53", "127.0.0.1:53", true},
		{"[::]:53", "127.0.0.53:53", true},
		{"[::]:53", "0.0.0.0:53", true},
		{"[::]:53", "192.0.2.1:53", false},
	} {
		f := forwarder{self: netip.MustParseAddrPort(c.self)}
		if got := f.isSelf(netip.MustParseAddrPort(c.resolver)); got != c.want {
			t.Errorf("%s asks %s of itself: %v", c.self, c.resolver, got)
		}
	}
	for _, a := range HostAddresses() {
		f := forwarder{self: netip.MustParseAddrPort("[::]:53")}
		if !f.isSelf(netip.AddrPortFrom(a, 53)) {
			t.Errorf("%s is not known to be this host", a)
		}
	}
}

func TestAQuestionThatComesBackFromAResolverIsAskedOnce(t *testing.T) {
	address := make(chan netip.AddrPort, 10)
	loop, asked := upstream(t, func(w wire.ResponseWriter, q *wire.Msg) {
		again := q.Copy()
		again.Id = wire.Id()
		c := wire.Client{Timeout: limit}
		r, _, err := c.Exchange(again, (<-address).String())
		if err != nil {
			t.Error(err)
			return
		}
		r.Id = q.Id
		_ = w.WriteMsg(r)
	})
	s := start(t, newWorld(), loop)
	for range cap(address) {
		address <- s.Addr()
	}
	if got := said(ask(t, "udp", s.Addr(), query("example.org", wire.TypeA))); got != "SERVFAIL" {
		t.Error(got)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the resolver was asked %d times", n)
	}
}

func TestASilentResolverHoldsUpNeitherOurOwnNamesNorTheEnd(t *testing.T) {
	waiting := make(chan struct{}, 1000)
	silent, _ := upstream(t, func(wire.ResponseWriter, *wire.Msg) {
		waiting <- struct{}{}
	})
	s, err := Listen(Config{Address: "127.0.0.1:0", Domain: "localhost", Names: newWorld(), Logger: slog.New(slog.DiscardHandler), Resolvers: func() []netip.AddrPort { return []netip.AddrPort{silent} }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	conn, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range 20 {
		b, _ := query(fmt.Sprintf("n%d.example.org", i), wire.TypeA).Pack()
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-waiting:
	case <-time.After(limit):
		t.Fatal("nobody asks")
	}
	if got := said(ask(t, "udp", s.Addr(), query("web.internal", wire.TypeA))); got != "NOERROR\nweb.internal. A 127.1.2.3" {
		t.Error(got)
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(limit):
		t.Error("it does not end")
	}
}

func TestNoMoreNamesAreAskedForAtATimeThanThereIsRoomFor(t *testing.T) {
	f := &forwarder{resolvers: func() []netip.AddrPort { t.Error("it asks"); return nil }, flights: map[flightKey]*flight{}}
	for i := range maxForwards {
		f.flights[flightKey{name: fmt.Sprint(i)}] = &flight{done: make(chan struct{})}
	}
	q := query("example.org", wire.TypeA)
	r := new(wire.Msg).SetReply(q)
	f.forward(t.Context(), q, r)
	if r.Rcode != wire.RcodeServerFailure || len(f.flights) != maxForwards {
		t.Errorf("%s with %d under way", said(r), len(f.flights))
	}
}

func TestTheSystemsResolversAreThoseOfItsFileAlsoWhenItChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	c := resolvConf{file: file}
	for i, step := range []struct {
		text string
		want string
	}{
		{"nameserver 192.0.2.1\n# nameserver 192.0.2.9\nsearch example.org\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\nnameserver nonsense\n", "[192.0.2.1:53 [2001:db8::1]:53 [fe80::1%eth0]:53]"},
		{"nameserver 192.0.2.2\n", "[192.0.2.2:53]"},
		{"", "[]"},
		{"nameserver 192.0.2.3\n", "[192.0.2.3:53]"},
	} {
		if err := os.WriteFile(file, []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		changed := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(file, changed, changed); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := fmt.Sprint(c.resolvers()); got != step.want {
				t.Errorf("%q: %s, want %s", step.text, got, step.want)
			}
		}
	}
	if got := (&resolvConf{file: file + "-none"}).resolvers(); got != nil {
		t.Error(got)
	}
}

func TestAServerOnAllAddressesIsReachedOnLoopback(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "127.0.0.1:0", ":0", "[::1]:0"} {
		s, err := Listen(Config{Address: address, Domain: "localhost", Names: newWorld(), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			if strings.Contains(address, "::1") {
				t.Log("this host has no IPv6:", err)
				continue
			}
			t.Fatal(err)
		}
		run(t, s)
		if got := said(ask(t, "udp", s.Local(), query("x.localhost", wire.TypeA))); got != "NOERROR\nx.localhost. A 10.1.2.3" {
			t.Errorf("%s: %s", address, got)
		}
	}
}

func TestAnAddressThatIsTakenIsRefused(t *testing.T) {
	s := start(t, newWorld())
	for _, address := range []string{s.Addr().String(), "nonsense", "127.0.0.1"} {
		if other, err := Listen(Config{Address: address, Domain: "localhost", Names: newWorld()}); err == nil {
			other.Close()
			t.Errorf("%s is taken twice", address)
		}
	}
}

func TestGosOwnResolverFindsWhatIsThere(t *testing.T) {
	s := start(t, newWorld())
	for _, network := range []string{"udp", "tcp"} {
		r := net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.Addr().String())
		}}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		if got, err := r.LookupHost(ctx, "web.shop-fix.internal."); err != nil || !slices.Equal(got, []string{"127.1.2.4"}) {
			t.Error(network, got, err)
		}
		if got, err := r.LookupHost(ctx, "any.dev.example.com."); err != nil || !slices.Equal(slices.Sorted(slices.Values(got)), []string{"10.1.2.3", "fd00::3"}) {
			t.Error(network, got, err)
		}
		_, srv, err := r.LookupSRV(ctx, "http", "tcp", "web.shop-main.internal.")
		if err != nil || len(srv) != 3 || srv[2].Port != 7071 || srv[0].Port+srv[1].Port != 8003 {
			t.Error(network, srv, err)
			continue
		}
		if got, err := r.LookupHost(ctx, srv[0].Target); err != nil || !slices.Equal(got, []string{"127.0.0.1"}) {
			t.Error(network, got, err)
		}
		var missing *net.DNSError
		if _, err := r.LookupHost(ctx, "none.internal."); !asDNS(err, &missing) || !missing.IsNotFound {
			t.Error(network, err)
		}
	}
}

func asDNS(err error, into **net.DNSError) bool {
	e, ok := err.(*net.DNSError) //nolint:errorlint // what a Resolver documents
	*into = e
	return ok
}

func TestDigUnderstandsTheAnswers(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Skip("dig is missing: scripts/setup installs it")
	}
	good, _ := upstream(t, reply)
	s := start(t, newWorld(), good)
	run := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		out, err := exec.CommandContext(ctx, dig, append([]string{"@" + s.Addr().Addr().String(), "-p", fmt.Sprint(s.Addr().Port())}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("dig %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	for args, want := range map[string]string{
		"+short web.shop-fix.internal":                           "127.1.2.4\n",
		"+short +tcp web.shop-fix.internal A":                    "127.1.2.4\n",
		"+short any.dev.example.com AAAA":                        "fd00::3\n",
		"+short -t SRV _http._tcp.web.shop-fix.internal":         "10 0 7071 web.shop-fix.internal.\n",
		"+short www.example.org":                                 "192.0.2.7\n",
		"+short none.internal":                                   "",
		"+short web.internal ANY +notcp +ignore":                 "\"RFC8482\" \"\"\n",
		"+short dev.example.com NS":                              "dayfly-dns.dev.example.com.\n",
		"+short +noedns +nocookie web.shop-main.internal":        "127.1.2.3\n",
		"+short +subnet=192.0.2.0/24 +nsid +dnssec web.internal": "127.1.2.3\n",
	} {
		if got := run(strings.Fields(args)...); got != want {
			t.Errorf("dig %s: %q, want %q", args, got, want)
		}
	}
	for args, want := range map[string][]string{
		"none.internal":                   {"status: NXDOMAIN", "flags: qr aa rd ra;", "AUTHORITY: 1", "SOA\tdayfly-dns.internal."},
		"web.internal MX":                 {"status: NOERROR", "ANSWER: 0", "SOA\tdayfly-dns.internal."},
		"+edns=7 +noednsneg web.internal": {"status: BADVERS"},
		"-c CH -t TXT version.bind":       {"status: REFUSED"},
		"+header-only +noedns .":          {"status: FORMERR"},
		"+opcode=UPDATE web.internal":     {"status: NOTIMP"},
	} {
		got := run(strings.Fields(args)...)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("dig %s lacks %q:\n%s", args, w, got)
			}
		}
		for _, bad := range []string{"malformed", "extra bytes"} {
			if strings.Contains(got, bad) {
				t.Errorf("dig %s: %s:\n%s", args, bad, got)
			}
		}
	}
}
