package proxytest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/proxy"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// sign is one thing that a request can bring which tells its environment.
type sign struct{ name, value string }

// crowd is a world of environments, each of which one sign leads to, and all have the service web.
type crowd struct {
	*world
	called, calling netip.Addr // an address of SERVICE_URL, and one that belongs to an environment
	trace           string     // of by-trace
	clients         map[netip.Addr]*http.Client
}

func (s suite) crowd(t *testing.T) *crowd {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Dayfly-Env"), " ", r.Header["Baggage"], " ", r.Header["X-Mayfly"])
	}))
	t.Cleanup(server.Close)
	w := s.start(t, proxy.Config{Headers: []string{"X-Mayfly"}, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.77/32")}})
	c := &crowd{
		world: w, called: netip.MustParseAddr("127.7.7.7"), calling: netip.MustParseAddr("127.0.0.66"),
		trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", clients: map[netip.Addr]*http.Client{},
	}
	w.table.SetDeployment("d1", []route.Endpoint{{Instance: "i", Address: server.Listener.Addr().String()}})
	w.table.SetProject(route.Project{Name: "crowd", Baseline: "production"})
	web := route.Service{Name: "page", Routes: []dayfly.PathRoute{{Path: "/"}}, State: "ready", Targets: []route.Target{{Deployment: "d1", Version: "v1", Weight: 1}}}
	for _, name := range []string{"by-header", "by-second", "by-baggage", "by-host", "by-trace", "by-address", "by-source", "production", "open"} {
		e := route.Environment{ID: "id-" + name, Name: name, Project: "crowd", State: "ready", Services: []route.Service{web}, Hosts: []route.Host{{Name: name + ".localhost"}}}
		switch name {
		case "by-address":
			e.Addresses = []route.Address{{Addr: c.called, Service: "page"}}
		case "by-second":
			e.Header = "second"
		case "open":
			e.PublicHeader = true
		}
		if err := w.table.SetEnvironment(e); err != nil {
			t.Fatal(err)
		}
	}
	w.table.SetSource(c.calling, route.Source{Environment: "by-source", Service: "page"})
	t.Cleanup(func() {
		for _, client := range c.clients {
			client.CloseIdleConnections()
		}
	})
	// The trace begins at the edge, behind a proxy that is believed.
	if got := c.get(netip.MustParseAddr("127.0.0.77"), w.public, "by-trace.localhost", []sign{{"Traceparent", c.trace}}); got != answer(http.StatusOK, "by-trace", "by-trace") {
		t.Fatalf("the trace begins with %q", got)
	}
	return c
}

// get asks from an address and gives the status and what the service saw.
func (c *crowd) get(from netip.Addr, to, host string, signs []sign) string {
	c.t.Helper()
	client := c.clients[from]
	if client == nil {
		dialer := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		client = &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}, Timeout: patience}
		c.clients[from] = client
	}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+to+"/", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Host = host
	for _, s := range signs {
		if s.value != "" {
			r.Header.Set(s.name, s.value)
		}
	}
	resp, err := client.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Sprint(resp.StatusCode)
	}
	return fmt.Sprint(resp.StatusCode, " ", string(body))
}

// answer is what get gives for a request that is for an environment; second is how --header names it.
func answer(status int, env, second string) string {
	if status != http.StatusOK {
		return fmt.Sprint(status)
	}
	return fmt.Sprintf("%d %s [dayfly.env=%s] [%s]", status, env, env, second)
}

// headers are all the combinations of how a request names its environment, and which one that is: "gone" is
// none, and "shop-main" one of a project without the service.
func headers(each func(signs []sign, named string)) {
	for _, first := range []string{"", "by-header", "shop-main", "gone"} {
		for _, second := range []string{"", "second", "gone"} {
			for _, baggage := range []string{"", "by-baggage", "shop-main"} {
				signs := []sign{{"X-Dayfly-Env", first}, {"X-Mayfly", second}}
				if baggage != "" {
					signs = append(signs, sign{"Baggage", "dayfly.env=" + baggage})
				}
				named := cmp.Or(first, second, baggage)
				if named == "second" {
					named = "by-second"
				}
				each(signs, named)
			}
		}
	}
}

// testEnvironments: every combination of what can tell the environment of a request, on both listeners.
func testEnvironments(t *testing.T, s suite) {
	second := func(env string) string {
		if env == "by-second" {
			return "second"
		}
		return env
	}
	t.Run("inside", func(t *testing.T) {
		c := s.crowd(t)
		anywhere := netip.MustParseAddr("127.0.0.1")
		n := 0
		for _, host := range []string{"page.internal", "page.by-host.internal", "page.gone.internal", "127.7.7.7"} {
			for _, trace := range []string{"", c.trace} {
				for _, to := range []netip.Addr{anywhere, c.called} {
					for _, from := range []netip.Addr{anywhere, c.calling} {
						headers(func(signs []sign, named string) {
							n++
							status, want := http.StatusOK, ""
							switch {
							case host == "127.7.7.7" && to != c.called:
								status = http.StatusNotFound // nothing says which service is meant
							case named == "gone":
								status = http.StatusNotFound
							case named != "" && named != "shop-main":
								want = named
							case host == "page.gone.internal":
								status = http.StatusNotFound
							case host == "page.by-host.internal":
								want = "by-host"
							case trace != "":
								want = "by-trace"
							case to == c.called:
								want = "by-address"
							case from == c.calling:
								want = "by-source"
							default:
								want = "production"
							}
							all := append([]sign{{"Traceparent", trace}}, signs...)
							if got := c.get(from, to.String()+":"+c.port, host, all); got != answer(status, want, second(want)) {
								t.Errorf("%s from %s at %s with %q: %q, want %q", host, from, to, all, got, answer(status, want, second(want)))
							}
						})
					}
				}
			}
		}
		if n < 1000 {
			t.Errorf("only %d combinations", n)
		}
	})
	t.Run("outside", func(t *testing.T) {
		c := s.crowd(t)
		for _, host := range []string{"by-host", "open"} {
			for _, trace := range []string{"", c.trace} {
				for _, from := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), c.calling} {
					headers(func(signs []sign, named string) {
						status, want := http.StatusOK, host
						switch {
						case host != "open": // overruled
						case named == "gone":
							status = http.StatusNotFound
						case named != "" && named != "shop-main":
							want = named
						}
						all := append([]sign{{"Traceparent", trace}}, signs...)
						if got := c.get(from, c.public, host+".localhost", all); got != answer(status, want, second(want)) {
							t.Errorf("%s from %s with %q: %q, want %q", host, from, all, got, answer(status, want, second(want)))
						}
					})
				}
			}
		}
	})
	t.Run("who calls an address from itself is nobody", func(t *testing.T) {
		c := s.crowd(t)
		c.table.SetSource(c.called, route.Source{Environment: "by-source"})
		if got := c.get(c.called, c.called.String()+":"+c.port, "page.internal", nil); got != answer(http.StatusOK, "by-address", "by-address") {
			t.Errorf("%q", got)
		}
		plain := netip.MustParseAddr("127.0.0.99")
		c.table.SetSource(plain, route.Source{Environment: "by-source"})
		if got := c.get(plain, plain.String()+":"+c.port, "page.internal", nil); got != answer(http.StatusOK, "production", "production") {
			t.Errorf("%q", got)
		}
	})
}
