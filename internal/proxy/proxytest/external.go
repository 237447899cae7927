package proxytest

import (
	"bufio"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/proxy"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// external lets web lead to a URL, and to has requests for elsewhere.localhost be passed on there, too,
// as a plain route does that.
func (w *world) external(to string) {
	w.t.Helper()
	for _, e := range []route.Environment{
		{Name: "shop-main", Project: "shop", Hosts: []route.Host{{Name: host}}, Addresses: []route.Address{{Addr: address, Service: "web"}},
			Services: []route.Service{{Name: "web", External: to, Routes: []dayfly.PathRoute{{Path: "/"}, {Path: "/stripped", Strip: true}}}}},
		{Name: "route:elsewhere", Plain: true, Hosts: []route.Host{{Name: "elsewhere.localhost"}},
			Services: []route.Service{{Name: "route:elsewhere", External: to, Routes: []dayfly.PathRoute{{Path: "/only"}}}}},
	} {
		if err := w.table.SetEnvironment(e); err != nil {
			w.t.Fatal(err)
		}
	}
}

// testExternal: services that are not ours are reached by their URL.
func testExternal(t *testing.T, s suite) {
	t.Run("paths are joined and the host is that of the URL", func(t *testing.T) {
		for _, c := range []struct{ url, asked, path string }{
			{"", "/", "/"},
			{"", "/a%2Fb/c?x=1;y&z", "/a%2Fb/c?x=1;y&z"},
			{"/", "/a", "/a"},
			{"/base", "/", "/base/"},
			{"/base", "/a?q", "/base/a?q"},
			{"/base/", "/a", "/base/a"},
			{"/ba%2Fse", "/a", "/ba%2Fse/a"},
			{"/base", "/stripped/a", "/base/a"},
			{"/base", "/stripped", "/base/"},
		} {
			u := answering(t, ok)
			w := s.start(t, proxy.Config{})
			w.external("http://" + u.address + c.url)
			if resp, body := w.ask(w.public, head(c.asked)); resp.StatusCode != 200 || body != "ok" {
				t.Fatalf("%s%s: %d %s", c.url, c.asked, resp.StatusCode, body)
			}
			got := u.only(t)
			if line, _, _ := strings.Cut(got, "\r\n"); line != "GET "+c.path+" HTTP/1.1" {
				t.Errorf("%s and %s became %q, want %s", c.url, c.asked, line, c.path)
			}
			if h := header(got, "Host"); len(h) != 1 || h[0] != u.address {
				t.Errorf("the host is %q, want that of the URL", h)
			}
		}
	})
	t.Run("who asks and for whom is said", func(t *testing.T) {
		u := answering(t, ok)
		w := s.start(t, proxy.Config{Headers: []string{"X-Mayfly"}})
		w.external("http://" + u.address)
		w.ask(w.public, head("/stripped/x", "X-Dayfly-Env: other", "X-Forwarded-For: 1.2.3.4", "X-Dayfly-Release: v9"))
		got := u.only(t)
		for name, want := range map[string]string{
			"X-Dayfly-Env": "shop-main", "X-Mayfly": "shop-main", "Baggage": "dayfly.env=shop-main", "X-Forwarded-Host": host,
			"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Prefix": "/stripped", "X-Dayfly-Release": "",
		} {
			if have := strings.Join(header(got, name), "|"); have != want {
				t.Errorf("%s is %q, want %q", name, have, want)
			}
		}
		if len(header(got, "Traceparent")) != 1 || len(header(got, "X-Request-Id")) != 1 {
			t.Errorf("it can not be followed: %q", got)
		}
	})
	t.Run("inside, too", func(t *testing.T) {
		u := answering(t, ok)
		w := s.start(t, proxy.Config{})
		w.external("http://" + u.address + "/base")
		if _, body := w.ask(net.JoinHostPort(address.String(), w.port), "GET /x HTTP/1.1\r\nHost: "+address.String()+"\r\n\r\n"); body != "ok" {
			t.Errorf("%q came", body)
		}
		if got := u.only(t); !strings.HasPrefix(got, "GET /base/x ") {
			t.Errorf("%q was sent", got)
		}
	})
	t.Run("a plain route is of no environment", func(t *testing.T) {
		u := answering(t, ok)
		w := s.start(t, proxy.Config{})
		w.external("http://" + u.address)
		w.ask(w.public, "GET /only/x HTTP/1.1\r\nHost: elsewhere.localhost\r\nX-Dayfly-Env: mine\r\n\r\n")
		if got := u.only(t); len(header(got, "Baggage")) != 0 || !strings.HasPrefix(got, "GET /only/x ") {
			t.Errorf("%q was sent", got)
		}
		resp, body := w.ask(w.public, "GET /other HTTP/1.1\r\nHost: elsewhere.localhost\r\n\r\n")
		if resp.StatusCode != 404 || !strings.HasPrefix(body, "no_route: ") || strings.Contains(body, "route:elsewhere") {
			t.Errorf("beside the path: %d %s", resp.StatusCode, body)
		}
	})
	t.Run("bodies go both ways", func(t *testing.T) {
		u := serve(t, func(u *upstream, c net.Conn, r *bufio.Reader) {
			_, body, err := u.read(r)
			if err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+string(body)+" back")
			}
		})
		w := s.start(t, proxy.Config{})
		w.external("http://" + u.address)
		_, r := w.send(w.public, request("POST", "/", "Content-Length: 5")+"there")
		if resp, body := w.answer(r, "POST"); resp.StatusCode != 200 || body != "there back" {
			t.Errorf("%d %q came", resp.StatusCode, body)
		}
		limited := s.start(t, proxy.Config{Limits: proxy.Limits{Body: 3}})
		limited.external("http://" + u.address)
		_, r = limited.send(limited.public, request("POST", "/", "Content-Length: 5")+"there")
		if resp, _ := limited.answer(r, "POST"); resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("a body over the limit is answered %d", resp.StatusCode)
		}
	})
	t.Run("over TLS", func(t *testing.T) {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				hijacked, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer hijacked.Close()
				_, _ = io.WriteString(hijacked, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
				word := make([]byte, 3)
				if _, err := io.ReadFull(rw, word); err == nil {
					_, _ = hijacked.Write(word)
				}
				return
			}
			_, _ = io.WriteString(w, r.Host+" over "+r.Proto)
		}))
		server.EnableHTTP2 = true
		server.StartTLS()
		defer server.Close()
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		w := s.start(t, proxy.Config{Roots: roots})
		w.external(server.URL)
		if _, body := w.ask(w.public, head("/")); !strings.HasPrefix(body, server.Listener.Addr().String()+" over HTTP/") {
			t.Errorf("%q came", body)
		}
		// A server that speaks HTTP/2 upgrades HTTP/1.1 alone.
		c, r := w.send(w.public, head("/", "Connection: Upgrade", "Upgrade: echo"))
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "echo" {
			t.Fatalf("%v %v came", resp, err)
		}
		_, _ = io.WriteString(c, "one")
		word := make([]byte, 3)
		if _, err := io.ReadFull(r, word); err != nil || string(word) != "one" {
			t.Errorf("%q came back (%v)", word, err)
		}
		stranger := s.start(t, proxy.Config{})
		stranger.external(server.URL)
		if resp, body := stranger.ask(stranger.public, head("/")); resp.StatusCode != 502 || !strings.HasPrefix(body, "bad_gateway: ") {
			t.Errorf("whose certificate is not known is answered: %d %s", resp.StatusCode, body)
		}
	})
	t.Run("failures are said", func(t *testing.T) {
		closed := serve(t, func(_ *upstream, c net.Conn, r *bufio.Reader) { _, _ = http.ReadRequest(r) })
		for what, to := range map[string]string{
			"refused": "http://127.0.0.1:1", "no such name": "http://nobody.invalid", "no answer": "http://" + closed.address,
		} {
			w := s.start(t, proxy.Config{})
			w.external(to)
			resp, body := w.ask(w.public, head("/"))
			if resp.StatusCode != 502 || body != "bad_gateway: The service did not answer" {
				t.Errorf("%s: %d %s", what, resp.StatusCode, body)
			}
			if resp, body = w.ask(w.public, "GET /only HTTP/1.1\r\nHost: elsewhere.localhost\r\n\r\n"); resp.StatusCode != 502 || body != "bad_gateway: elsewhere.localhost did not answer" {
				t.Errorf("%s of a route: %d %s", what, resp.StatusCode, body)
			}
		}
		w := s.start(t, proxy.Config{})
		w.external("nonsense")
		if resp, body := w.ask(w.public, head("/")); resp.StatusCode != 502 || !strings.HasPrefix(body, "external: ") {
			t.Errorf("no URL: %d %s", resp.StatusCode, body)
		}
	})
}
