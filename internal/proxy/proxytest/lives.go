package proxytest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/proxy"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// testConnections: connections of clients are kept or closed as they ask for.
func testConnections(t *testing.T, s suite) {
	t.Run("are kept", func(t *testing.T) {
		u := answering(t, ok)
		w := s.start(t, proxy.Config{}, u)
		c, r := w.send(w.public, head("/1"))
		for i := range 3 {
			if resp, body := w.answer(r, "GET"); body != "ok" || resp.Close {
				t.Fatalf("answer %d: %q, close %v", i, body, resp.Close)
			}
			io.WriteString(c, head("/next"))
		}
	})
	t.Run("are closed when asked to", func(t *testing.T) {
		u := answering(t, ok)
		w := s.start(t, proxy.Config{}, u)
		_, r := w.send(w.public, head("/", "Connection: close"))
		w.answer(r, "GET")
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("the connection is still open: %v", err)
		}
	})
	t.Run("HTTP/1.0 gets an answer and an end", func(t *testing.T) {
		u := answering(t, ok)
		w := s.start(t, proxy.Config{}, u)
		_, r := w.send(w.public, "GET / HTTP/1.0\r\nHost: "+host+"\r\n\r\n")
		if _, body := w.answer(r, "GET"); body != "ok" {
			t.Errorf("%q came", body)
		}
	})
	t.Run("requests in a row are answered in order", func(t *testing.T) {
		u := serve(t, func(u *upstream, c net.Conn, r *bufio.Reader) {
			for {
				head, _, err := u.read(r)
				if err != nil {
					return
				}
				path := strings.Fields(head)[1]
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(path), path)
			}
		})
		w := s.start(t, proxy.Config{}, u)
		_, r := w.send(w.public, head("/a")+head("/b")+head("/c"))
		for _, want := range []string{"/a", "/b", "/c"} {
			if _, body := w.answer(r, "GET"); body != want {
				t.Errorf("%q came in the place of %q", body, want)
			}
		}
	})
	t.Run("a client that goes away frees its claim", func(t *testing.T) {
		asked, gone := make(chan struct{}), make(chan struct{})
		u := serve(t, func(u *upstream, c net.Conn, r *bufio.Reader) {
			if _, _, err := u.read(r); err == nil {
				close(asked)
				_, _ = r.ReadByte() // until the engine lets go
				close(gone)
			}
		})
		w := s.start(t, proxy.Config{}, u)
		c, _ := w.send(w.public, head("/"))
		<-asked
		w.inFlight(1)
		c.Close()
		w.inFlight(0)
		<-gone
	})
}

// testFailures: what could not be sent goes elsewhere, what was sent is not sent twice,
// and what broke looks broken.
func testFailures(t *testing.T, s suite) {
	t.Run("an instance that refuses is passed over, also with a body", func(t *testing.T) {
		good := answering(t, ok)
		dead := &upstream{address: closedAddress(t)}
		for i := range 20 {
			w := s.start(t, proxy.Config{}, dead, good)
			resp, body := w.ask(w.public, strings.TrimSuffix(request("POST", "/"), "\r\n")+"Content-Length: 5\r\n\r\nhello")
			if resp.StatusCode != 200 || body != "ok" {
				t.Fatalf("request %d was answered %d %q", i, resp.StatusCode, body)
			}
		}
	})
	t.Run("none that answers is 502", func(t *testing.T) {
		w := s.start(t, proxy.Config{}, &upstream{address: closedAddress(t)})
		if resp, _ := w.ask(w.public, head("/")); resp.StatusCode != 502 {
			t.Errorf("it was answered %d", resp.StatusCode)
		}
	})
	hangUp := func(t *testing.T) *upstream {
		return serve(t, func(u *upstream, c net.Conn, r *bufio.Reader) { _, _, _ = u.read(r) })
	}
	t.Run("a GET whose connection ends without an answer goes to another instance", func(t *testing.T) {
		good := answering(t, ok)
		for range 20 {
			w := s.start(t, proxy.Config{}, hangUp(t), good)
			if resp, body := w.ask(w.public, head("/")); resp.StatusCode != 200 || body != "ok" {
				t.Fatalf("it was answered %d %q", resp.StatusCode, body)
			}
		}
	})
	t.Run("a POST that was sent is not sent again", func(t *testing.T) {
		bad := hangUp(t)
		w := s.start(t, proxy.Config{}, bad)
		resp, _ := w.ask(w.public, strings.TrimSuffix(request("POST", "/"), "\r\n")+"Content-Length: 5\r\n\r\nhello")
		if resp.StatusCode != 502 {
			t.Errorf("it was answered %d", resp.StatusCode)
		}
		if n := len(bad.heads()); n != 1 {
			t.Errorf("the service saw it %d times", n)
		}
	})
	t.Run("an error of the service is its answer", func(t *testing.T) {
		bad := answering(t, "HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno")
		w := s.start(t, proxy.Config{}, bad)
		if resp, body := w.ask(w.public, head("/")); resp.StatusCode != 500 || body != "no" {
			t.Errorf("it was answered %d %q", resp.StatusCode, body)
		}
		if n := len(bad.heads()); n != 1 {
			t.Errorf("the service saw it %d times", n)
		}
	})
	for name, framing := range map[string]string{
		"counted": "Content-Length: 100\r\n\r\nhalf",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n64\r\nhalf",
	} {
		t.Run("an answer that breaks off breaks off for the client, too, "+name, func(t *testing.T) {
			u := serve(t, func(u *upstream, c net.Conn, r *bufio.Reader) {
				if _, _, err := u.read(r); err == nil {
					io.WriteString(c, "HTTP/1.1 200 OK\r\n"+framing)
				}
			})
			w := s.start(t, proxy.Config{}, u)
			_, r := w.send(w.public, head("/"))
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				return // broken before its head is broken, too
			}
			if body, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("the client believes that %q is whole", body)
			}
		})
	}
	t.Run("an answer is passed on although the service closed without reading the body", func(t *testing.T) {
		u := serve(t, func(_ *upstream, c net.Conn, r *bufio.Reader) {
			for {
				if line, err := r.ReadString('\n'); err != nil || line == "\r\n" {
					break
				}
			}
			io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch")
			// Closed with bytes unread: whoever writes on gets a reset.
		})
		w := s.start(t, proxy.Config{}, u)
		for range 50 {
			const size = 4 << 20
			c, r := w.send(w.public, strings.TrimSuffix(request("POST", "/"), "\r\n")+fmt.Sprintf("Content-Length: %d\r\n\r\n", size))
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				_, _ = io.Copy(c, io.LimitReader(zeros{}, size)) // as much as is taken
			}()
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 413 || string(body) != "much" {
				t.Errorf("%d with %q, and %v came", resp.StatusCode, body, err)
			}
			c.Close()
			<-sent
		}
	})
	t.Run("an answer before the body was read is passed on", func(t *testing.T) {
		u := serve(t, func(_ *upstream, c net.Conn, r *bufio.Reader) {
			for {
				if line, err := r.ReadString('\n'); err != nil || line == "\r\n" {
					break
				}
			}
			io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch")
			_, _ = io.CopyN(io.Discard, r, 1<<20) // so that closing resets nothing
		})
		w := s.start(t, proxy.Config{}, u)
		_, r := w.send(w.public, strings.TrimSuffix(request("POST", "/"), "\r\n")+"Content-Length: 1048576\r\n\r\n"+strings.Repeat("x", 1000))
		if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 413 {
			t.Errorf("%v %v came", resp, err)
		}
	})
}

// zeros are an upload without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// closedAddress is one that nobody listens on.
func closedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// testDraining: requests end on what they began on, and draining is over exactly when
// the last one is.
func testDraining(t *testing.T, s suite) {
	hold := make(chan struct{})
	slow := serve(t, func(u *upstream, c net.Conn, r *bufio.Reader) {
		for {
			if _, _, err := u.read(r); err != nil {
				return
			}
			<-hold
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")
		}
	})
	fresh := answering(t, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew")
	w := s.start(t, proxy.Config{}, slow)
	_, before := w.send(w.public, head("/"))
	w.inFlight(1)

	w.table.SetDeployment("d2", []route.Endpoint{{Instance: "n0", Address: fresh.address}})
	err := w.table.SetEnvironment(route.Environment{
		ID: "e1", Name: "shop-main", Project: "shop",
		Services: []route.Service{{Name: "web", Routes: []dayfly.PathRoute{{Path: "/"}}, Targets: []route.Target{{Deployment: "d2", Version: "v2", Weight: 1}}}},
		Hosts:    []route.Host{{Name: host}},
	})
	if err != nil {
		t.Fatal(err)
	}
	drained := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func() { drained <- w.table.Drain(ctx, "d1", "") }()
	if resp, body := w.ask(w.public, head("/")); body != "new" || resp.Header.Get("X-Dayfly-Release") != "v2" {
		t.Errorf("a new request was answered %q by %s", body, resp.Header.Get("X-Dayfly-Release"))
	}
	select {
	case err := <-drained:
		t.Fatalf("draining was over (%v) with a request in flight", err)
	default:
	}
	close(hold)
	if resp, body := w.answer(before, "GET"); body != "old" || resp.Header.Get("X-Dayfly-Release") != "v1" {
		t.Errorf("the request in flight was answered %q by %s", body, resp.Header.Get("X-Dayfly-Release"))
	}
	if err := <-drained; err != nil {
		t.Errorf("draining did not end: %v", err)
	}
}

// testAnswers: what nobody can answer is answered by the engine.
func testAnswers(t *testing.T, s suite) {
	w := s.start(t, proxy.Config{})
	for _, tc := range []struct {
		name, host, path string
		status           int
		code             string
		again            bool
	}{
		{"an unknown host", "nobody.example.org", "/", 404, "unknown_host", false},
		{"an unknown environment", "nobody.localhost", "/", 404, "unknown_environment", false},
		{"a service that is starting", host, "/later", 503, "starting", true},
		{"a service without an instance", host, "/", 503, "no_instance", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, body := w.ask(w.public, "GET "+tc.path+" HTTP/1.1\r\nHost: "+tc.host+"\r\n\r\n")
			if resp.StatusCode != tc.status || !strings.HasPrefix(body, tc.code+":") {
				t.Errorf("it was answered %d %q", resp.StatusCode, body)
			}
			if resp.Header.Get("X-Robots-Tag") != "noindex" || (resp.Header.Get("Retry-After") != "") != tc.again {
				t.Errorf("its headers are %v", resp.Header)
			}
		})
	}
}

// testTCP: a service that speaks TCP is reached by its address, as bytes.
func testTCP(t *testing.T, s suite) {
	echo := serve(t, func(_ *upstream, c net.Conn, r *bufio.Reader) {
		io.WriteString(c, "hello first\n") // it speaks before the client does
		n, _ := io.Copy(c, r)
		fmt.Fprintf(c, "%d bytes", n) // after the client's end
	})
	dead := &upstream{address: closedAddress(t)}
	w := s.start(t, proxy.Config{}, dead, echo)
	w.environment(dayfly.ProtocolTCP)
	for range 5 {
		c, r := w.send(address.String()+":"+w.port, "")
		if line, _ := r.ReadString('\n'); line != "hello first\n" {
			t.Fatalf("%q came first", line)
		}
		io.WriteString(c, "ping")
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(r); string(rest) != "ping4 bytes" || err != nil {
			t.Errorf("%q came back (%v)", rest, err)
		}
	}
	w.inFlight(0)
	t.Run("a cut connection ends", func(t *testing.T) {
		_, r := w.send(address.String()+":"+w.port, "")
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		w.table.Cut("d1", "")
		if _, err := io.ReadAll(r); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("it ended with %v", err)
		}
		w.inFlight(0)
	})
	if resp, err := http.Get("http://" + w.public); err == nil {
		resp.Body.Close()
	}
}

// testUpgrades: a connection that was upgraded carries bytes both ways, holds its claim,
// and ends when it is cut.
func testUpgrades(t *testing.T, s suite) {
	u := serve(t, func(u *upstream, c net.Conn, r *bufio.Reader) {
		if _, _, err := u.read(r); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(c, r)
	})
	w := s.start(t, proxy.Config{}, u)
	c, r := w.send(w.public, head("/", "Connection: Upgrade", "Upgrade: echo"))
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "echo" {
		t.Fatalf("%v %v came", resp, err)
	}
	for _, word := range []string{"one", "two"} {
		io.WriteString(c, word)
		got := make([]byte, 3)
		if _, err := io.ReadFull(r, got); err != nil || string(got) != word {
			t.Fatalf("%q came back (%v)", got, err)
		}
	}
	w.inFlight(1)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := w.table.Drain(ctx, "d1", ""); err == nil {
		t.Error("draining was over with a connection open")
	}
	io.WriteString(c, "six") // draining does not disturb it
	got := make([]byte, 3)
	if _, err := io.ReadFull(r, got); err != nil || string(got) != "six" {
		t.Errorf("%q came back (%v)", got, err)
	}
	w.table.Cut("d1", "")
	if _, err := io.ReadAll(r); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("it ended with %v", err)
	}
	w.inFlight(0)
}
