package proxy

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// Under load no connection would ever be idle, and a name that leads elsewhere by now never be looked up.
func TestConnectionsElsewhereAreMadeAnewAfterAWhile(t *testing.T) {
	seen := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.RemoteAddr }))
	defer server.Close()
	now := time.Unix(1e9, 0)
	o := &outside{lasts: time.Minute, now: func() time.Time { return now }}
	defer o.close()
	ask := func() string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := o.transport(false).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return <-seen
	}
	first := ask()
	now = now.Add(time.Minute - 1)
	if again := ask(); again != first {
		t.Errorf("the connection from %s is not kept: %s", first, again)
	}
	now = now.Add(1)
	if later := ask(); later == first {
		t.Error("the connection is kept for too long")
	}
}

func TestUpgradesDoNotSpeakHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outside{lasts: resolvedFor, now: time.Now}
		if !o.transport(false).Protocols.HTTP2() || o.transport(true).Protocols.HTTP2() {
			t.Error("it is the other way round")
		}
		before := o.transport(true)
		time.Sleep(resolvedFor)
		if o.transport(true) == before {
			t.Error("its connections are kept for too long")
		}
	})
}

// plainPages shows problems as a line each.
type plainPages struct{}

func (plainPages) Write(w http.ResponseWriter, _ *http.Request, p Problem) {
	w.WriteHeader(p.Status)
	fmt.Fprintln(w, p.Code, p.Title, p.Detail)
}

// full gives the address of somebody who listens and takes no connection: the system has no room for
// another one, and says nothing to whoever tries.
func full(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprint("127.0.0.1:", name.(*syscall.SockaddrInet4).Port)
	for range 64 {
		c, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return address
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Skip("this system always has room for another connection")
	return ""
}

// silent gives the address of somebody who takes connections and never says anything.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestAServiceElsewhereThatDoesNotAnswerInTimeIsAGatewayTimeout(t *testing.T) {
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing.Close()
	for _, c := range []struct {
		name   string
		url    func(t *testing.T) string
		hasten func(*http.Transport) // nil = as it is
		status int
		code   string
	}{
		{"it takes no connection", func(t *testing.T) string { return "http://" + full(t) }, nil, http.StatusGatewayTimeout, "gateway_timeout "},
		{"its TLS never begins", func(t *testing.T) string { return "https://" + silent(t) }, func(tr *http.Transport) {
			if tr.TLSHandshakeTimeout <= 0 || tr.TLSHandshakeTimeout > 30*time.Second {
				t.Errorf("a handshake may take %s", tr.TLSHandshakeTimeout)
			}
			tr.TLSHandshakeTimeout = 50 * time.Millisecond
		}, http.StatusGatewayTimeout, "gateway_timeout "},
		{"it refuses", func(*testing.T) string { return "http://" + refusing.Addr().String() }, nil, http.StatusBadGateway, "bad_gateway "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			table := route.New(route.Options{Domain: "localhost"})
			if err := table.SetEnvironment(route.Environment{
				Name: "shop-main", Project: "shop", Hosts: []route.Host{{Name: "shop-main.localhost"}},
				Services: []route.Service{{Name: "payments", External: c.url(t), Routes: []dayfly.PathRoute{{Path: "/"}}}},
			}); err != nil {
				t.Fatal(err)
			}
			p := New(Config{Table: table, Pages: plainPages{}, Logger: slog.New(slog.DiscardHandler)})
			defer p.outside.close()
			if c.hasten != nil {
				c.hasten(p.outside.transport(false))
			}
			front := httptest.NewServer(p.Public())
			defer front.Close()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "shop-main.localhost"
			resp, err := front.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != c.status || !strings.HasPrefix(string(body), c.code) || !strings.Contains(string(body), "payments of shop-main: ") {
				t.Errorf("it is answered %d %s (%v), want %d %s", resp.StatusCode, body, err, c.status, c.code)
			}
		})
	}
}
