package proxytest

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/proxy"
)

// testHeads: what a service sees of a request line and of ordinary headers.
func testHeads(t *testing.T, s suite) {
	for _, path := range []string{
		"/", "/a/b?c=d", "/%2F/..%2fx", "//double//slash", "/q?a=1;b=2&c", "/q?", "/%E2%9C%93?x=%zz", "/a%20b+c", "/trailing/", "/dots/../kept?../x",
	} {
		t.Run("path "+path, func(t *testing.T) {
			u := answering(t, ok)
			w := s.start(t, proxy.Config{}, u)
			w.ask(w.public, head(path))
			if line, _, _ := strings.Cut(u.only(t), "\r\n"); line != "GET "+path+" HTTP/1.1" {
				t.Errorf("the service saw %q", line)
			}
		})
	}
	for _, tc := range []struct{ path, want, prefix string }{
		{"/stripped/a?b", "/a?b", "/stripped"},
		{"/stripped", "/", "/stripped"},
		{"/stripped/%2Fa", "/%2Fa", "/stripped"},
		{"/strippednot", "/strippednot", ""},
		{"/stripped%2Fa", "/stripped%2Fa", ""},
	} {
		t.Run("strip "+tc.path, func(t *testing.T) {
			u := answering(t, ok)
			w := s.start(t, proxy.Config{}, u)
			w.ask(w.public, head(tc.path))
			got := u.only(t)
			if line, _, _ := strings.Cut(got, "\r\n"); line != "GET "+tc.want+" HTTP/1.1" {
				t.Errorf("the service saw %q", line)
			}
			if prefix := strings.Join(header(got, "X-Forwarded-Prefix"), ","); prefix != tc.prefix {
				t.Errorf("the prefix is %q, not %q", prefix, tc.prefix)
			}
		})
	}
	t.Run("headers", func(t *testing.T) {
		u := answering(t, "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 2\r\nX-Two: a\r\nX-Two: b\r\nConnection: X-Gone\r\nX-Gone: y\r\nKeep-Alive: timeout=5\r\n\r\nok")
		w := s.start(t, proxy.Config{}, u)
		resp, _ := w.ask(w.public, head("/", "X-Multi: 1", "X-Multi: 2", "Accept: */*", "Connection: x-private, close", "X-Private: secret", "Keep-Alive: 5",
			"Proxy-Connection: keep-alive", "Te: trailers", "Cookie: a=b; c=d", "Authorization: Basic eDp5"))
		got := u.only(t)
		for name, want := range map[string][]string{
			"Host": {host}, "X-Multi": {"1", "2"}, "Accept": {"*/*"}, "Cookie": {"a=b; c=d"}, "Authorization": {"Basic eDp5"}, "Te": {"trailers"},
			"X-Private": nil, "Keep-Alive": nil, "Proxy-Connection": nil, "User-Agent": nil, "Accept-Encoding": nil,
		} {
			if values := header(got, name); !slices.Equal(values, want) {
				t.Errorf("%s reached the service as %q, not %q", name, values, want)
			}
		}
		if resp.StatusCode != 418 || !slices.Equal(resp.Header["X-Two"], []string{"a", "b"}) || resp.Header.Get("X-Gone") != "" || resp.Header.Get("Keep-Alive") != "" {
			t.Errorf("the answer is %d %v", resp.StatusCode, resp.Header)
		}
		if resp.Header.Get("X-Dayfly-Release") != "v1" {
			t.Errorf("the answer does not say which version it is of: %v", resp.Header)
		}
	})
}

var traceparent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// testOutside: requests from outside are told by their host for whom they are, and
// nothing that they say themselves is believed.
func testOutside(t *testing.T, s suite) {
	lies := []string{
		"X-Dayfly-Env: other", "X-Mayfly: other", "Baggage: dayfly.env=other,user=ada", "X-Dayfly-Release: v9", "X-Forwarded-For: 6.6.6.6",
		"X-Forwarded-Host: bank.example", "X-Forwarded-Proto: https", "X-Request-Id: mine", "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
	t.Run("is overruled", func(t *testing.T) {
		u := answering(t, ok)
		w := s.start(t, proxy.Config{Headers: []string{"X-Mayfly"}}, u)
		w.ask(w.public, head("/", lies...))
		got := u.only(t)
		for name, want := range map[string]string{
			"X-Dayfly-Env": "shop-main", "X-Mayfly": "shop-main", "Baggage": "dayfly.env=shop-main,user=ada", "X-Dayfly-Release": "v1",
			"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": host, "X-Forwarded-Proto": "http",
		} {
			if values := header(got, name); !slices.Equal(values, []string{want}) {
				t.Errorf("%s reached the service as %q, not %q", name, values, want)
			}
		}
		if id := header(got, "X-Request-Id"); len(id) != 1 || id[0] == "mine" || id[0] == "" {
			t.Errorf("the request's id is %q", id)
		}
		if tp := header(got, "Traceparent"); len(tp) != 1 || !traceparent.MatchString(tp[0]) || strings.Contains(tp[0], "0af7651916cd43dd8448eb211c80319c") {
			t.Errorf("the trace is %q", tp)
		}
	})
	t.Run("is believed from a trusted proxy", func(t *testing.T) {
		u := answering(t, ok)
		w := s.start(t, proxy.Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, u)
		w.ask(w.public, head("/", lies...))
		got := u.only(t)
		for name, want := range map[string]string{
			"X-Forwarded-For": "6.6.6.6, 127.0.0.1", "X-Forwarded-Host": "bank.example", "X-Forwarded-Proto": "https", "X-Request-Id": "mine",
			"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Dayfly-Env": "shop-main",
		} {
			if values := header(got, name); !slices.Equal(values, []string{want}) {
				t.Errorf("%s reached the service as %q, not %q", name, values, want)
			}
		}
	})
}

// testInside: requests on the internal listener say for whom they are, and by which
// address they came.
func testInside(t *testing.T, s suite) {
	ask := func(t *testing.T, to func(w *world) string, raw string) (int, *upstream) {
		u := answering(t, ok)
		w := s.start(t, proxy.Config{Headers: []string{"X-Mayfly"}}, u)
		resp, _ := w.ask(to(w), raw)
		return resp.StatusCode, u
	}
	plain := func(w *world) string { return w.internal }
	byAddress := func(w *world) string { return address.String() + ":" + w.port }
	get := func(host string, lines ...string) string {
		return "GET /x HTTP/1.1\r\nHost: " + host + "\r\n" + join(lines)
	}
	for _, tc := range []struct {
		name string
		to   func(*world) string
		raw  string
		want int
	}{
		{"the address of SERVICE_URL", byAddress, get(address.String()), 200},
		{"SERVICE.ENV.internal", plain, get("web.shop-main.internal"), 200},
		{"SERVICE.internal with the header", plain, get("web.internal", "X-Dayfly-Env: shop-main"), 200},
		{"SERVICE.internal with the second header", plain, get("web.internal", "X-Mayfly: shop-main"), 200},
		{"SERVICE.internal with baggage", plain, get("web.internal", "Baggage: a=b, dayfly.env=shop-main;p=1"), 200},
		{"a header that names nobody", plain, get("web.internal", "X-Dayfly-Env: gone"), 404},
		{"a host that names nobody", plain, get("web.gone.internal"), 404},
		{"no environment and no baseline", plain, get("web.internal"), 404},
		{"a service that nobody has", plain, get("nothing.shop-main.internal"), 404},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, u := ask(t, tc.to, tc.raw)
			if status != tc.want {
				t.Fatalf("it was answered %d, not %d", status, tc.want)
			}
			if tc.want != 200 {
				return
			}
			got := u.only(t)
			if env := header(got, "X-Dayfly-Env"); !slices.Equal(env, []string{"shop-main"}) {
				t.Errorf("the environment reached the service as %q", env)
			}
		})
	}
	t.Run("a trace is handed on", func(t *testing.T) {
		const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		_, u := ask(t, byAddress, get("x", "Traceparent: "+trace, "X-Request-Id: r1"))
		got := u.only(t)
		if !slices.Equal(header(got, "Traceparent"), []string{trace}) || !slices.Equal(header(got, "X-Request-Id"), []string{"r1"}) {
			t.Errorf("the service saw %q", got)
		}
	})
}
