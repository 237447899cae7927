// Package proxytest says over real sockets what every engine of the data plane must do.
// Services are plain sockets whose every byte the tests see and decide.
package proxytest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/proxy"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// Engine is what is tested.
type Engine interface {
	ServePublic(ctx context.Context, l net.Listener) error
	ServeInternal(ctx context.Context, l net.Listener) error
	Shutdown(ctx context.Context) error
}

// patience is how long something that should happen may take.
const patience = 20 * time.Second

// Run tests an engine.
func Run(t *testing.T, newEngine func(t *testing.T, c proxy.Config) Engine) {
	s := suite{newEngine}
	for name, test := range map[string]func(*testing.T, suite){
		"heads":        testHeads,
		"outside":      testOutside,
		"environments": testEnvironments,
		"inside":       testInside,
		"bodies":       testBodies,
		"connection":   testConnections,
		"failures":     testFailures,
		"draining":     testDraining,
		"smuggling":    testSmuggling,
		"answers":      testAnswers,
		"tcp":          testTCP,
		"upgrades":     testUpgrades,
		"external":     testExternal,
		"limits":       testLimits,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

type suite struct {
	newEngine func(t *testing.T, c proxy.Config) Engine
}

// Pages writes answers of the engine as one line: the code and the title.
type Pages struct{}

// Write implements proxy.Pages.
func (Pages) Write(w http.ResponseWriter, _ *http.Request, p proxy.Problem) {
	w.Header().Set("X-Robots-Tag", "noindex")
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", "2")
	}
	w.WriteHeader(p.Status)
	fmt.Fprintf(w, "%s: %s", p.Code, p.Title)
}

// world is an engine with an environment "shop-main" of project "shop" behind it, whose
// service "web" is public and has as many instances as there are services.
type world struct {
	t        *testing.T
	table    *route.Table
	public   string // host:port
	internal string // host:port, on 127.0.0.1
	port     string // of internal
}

// host is that of the environment.
const host = "shop-main.localhost"

// address is where SERVICE_URL of web leads to.
var address = netip.MustParseAddr("127.9.8.7")

func (s suite) start(t *testing.T, c proxy.Config, upstreams ...*upstream) *world {
	t.Helper()
	w := &world{t: t, table: route.New(route.Options{Domain: "localhost"})}
	c.Table = w.table
	if c.Pages == nil {
		c.Pages = Pages{}
	}
	w.table.SetProject(route.Project{Name: "shop"})
	w.environment(dayfly.ProtocolHTTP)
	w.instances(upstreams...)
	engine := s.newEngine(t, c)
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	internal, _, err := proxy.ListenInternal("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.public = public.Addr().String()
	_, w.port, _ = net.SplitHostPort(internal.Addr().String())
	w.internal = "127.0.0.1:" + w.port
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := engine.ServePublic(context.Background(), public); err != nil {
			t.Errorf("the public listener ended: %v", err)
		}
	})
	serving.Go(func() {
		if err := engine.ServeInternal(context.Background(), internal); err != nil {
			t.Errorf("the internal listener ended: %v", err)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = engine.Shutdown(ctx) // it may have had to cut what a test left open
		serving.Wait()
	})
	return w
}

// environment sets the environment, with web speaking a protocol.
func (w *world) environment(p dayfly.Protocol) {
	w.t.Helper()
	err := w.table.SetEnvironment(route.Environment{
		ID: "e1", Name: "shop-main", Project: "shop", State: "ready",
		Services: []route.Service{
			{Name: "web", Protocol: p, Routes: []dayfly.PathRoute{{Path: "/"}, {Path: "/stripped", Strip: true}}, State: "ready",
				Targets: []route.Target{{Deployment: "d1", Version: "v1", Weight: 1}}},
			{Name: "later", Routes: []dayfly.PathRoute{{Path: "/later"}}, State: "starting"},
		},
		Hosts:     []route.Host{{Name: host}, {Name: "web-" + host, Service: "web"}},
		Addresses: []route.Address{{Addr: address, Service: "web"}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// instances sets who web is.
func (w *world) instances(upstreams ...*upstream) {
	var endpoints []route.Endpoint
	for i, u := range upstreams {
		endpoints = append(endpoints, route.Endpoint{Instance: fmt.Sprint("i", i), Address: u.address})
	}
	w.table.SetDeployment("d1", endpoints)
}

// send opens a connection, sends raw bytes and gives a reader of what comes back.
func (w *world) send(to, raw string) (net.Conn, *bufio.Reader) {
	w.t.Helper()
	c, err := net.Dial("tcp", to)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		w.t.Fatal(err)
	}
	if _, err := io.WriteString(c, raw); err != nil {
		w.t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// ask sends a request with the head given (lines end in \r\n) and reads the answer.
func (w *world) ask(to, raw string) (*http.Response, string) {
	w.t.Helper()
	_, r := w.send(to, raw)
	return w.answer(r, "GET")
}

func (w *world) answer(r *bufio.Reader, method string) (*http.Response, string) {
	w.t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("no answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatalf("the answer breaks off: %v", err)
	}
	return resp, string(body)
}

// head makes a GET of path with header lines.
func head(path string, lines ...string) string {
	return request("GET", path, lines...)
}

func request(method, path string, lines ...string) string {
	return method + " " + path + " HTTP/1.1\r\nHost: " + host + "\r\n" + join(lines)
}

// inFlight waits until web has n requests in flight.
func (w *world) inFlight(n int) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%d requests are in flight", n), func() bool {
		now, _ := w.table.Stats("d1")
		return now == n
	})
}

func (w *world) eventually(what string, done func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("it never became true that %s", what)
		}
	}
}

// upstream is a service: a socket, and what it does with each connection.
type upstream struct {
	address string
	mu      sync.Mutex
	seen    []string // heads of requests, in order
}

// serve starts a service that does something with every connection.
func serve(t *testing.T, do func(u *upstream, c net.Conn, r *bufio.Reader)) *upstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{address: l.Addr().String()}
	var all sync.WaitGroup
	var open sync.Map
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Store(c, true)
			all.Go(func() {
				defer c.Close()
				defer open.Delete(c)
				do(u, c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		all.Wait()
	})
	return u
}

// answering is a service that reads requests whole and answers each with raw bytes.
func answering(t *testing.T, raw string) *upstream {
	return serve(t, func(u *upstream, c net.Conn, r *bufio.Reader) {
		for {
			if _, _, err := u.read(r); err != nil {
				return
			}
			if _, err := io.WriteString(c, raw); err != nil {
				return
			}
		}
	})
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// read reads a request: its head as it came, and its body.
func (u *upstream) read(r *bufio.Reader) (head string, body []byte, err error) {
	var raw bytes.Buffer
	for {
		line, err := r.ReadString('\n')
		raw.WriteString(line)
		if err != nil {
			return "", nil, err
		}
		if line == "\r\n" {
			break
		}
	}
	head = raw.String()
	u.mu.Lock()
	u.seen = append(u.seen, head)
	u.mu.Unlock()
	req, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(head), r)))
	if err != nil {
		return head, nil, err
	}
	body, err = io.ReadAll(req.Body)
	return head, body, err
}

// heads gives the heads of all requests so far.
func (u *upstream) heads() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.seen...)
}

// only gives the head of the only request.
func (u *upstream) only(t *testing.T) string {
	t.Helper()
	h := u.heads()
	if len(h) != 1 {
		t.Fatalf("the service saw %d requests, not one: %q", len(h), h)
	}
	return h[0]
}

// header finds the values of a header in a head.
func header(head, name string) (values []string) {
	for line := range strings.SplitSeq(head, "\r\n") {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

// join makes header lines and the end of a head.
func join(lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l + "\r\n")
	}
	return b.String() + "\r\n"
}
