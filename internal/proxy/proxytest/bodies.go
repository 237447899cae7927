package proxytest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/proxy"
)

// noise gives n bytes that compress badly and repeat nowhere.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// testBodies: bodies pass byte for byte, both ways, however they are framed.
func testBodies(t *testing.T, s suite) {
	for _, size := range []int{0, 1, 64 << 10, 10 << 20} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d bytes, chunked %v", size, chunked), func(t *testing.T) {
				content := noise(size)
				u := serve(t, func(u *upstream, c net.Conn, r *bufio.Reader) {
					for {
						_, body, err := u.read(r)
						if err != nil {
							return
						}
						sum := sha256.Sum256(body)
						fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Sum: %x\r\n%s", sum, frame(body, chunked))
					}
				})
				w := s.start(t, proxy.Config{}, u)
				_, r := w.send(w.public, strings.TrimSuffix(request("PUT", "/"), "\r\n")+frame(content, chunked))
				resp, body := w.answer(r, "PUT")
				if want := fmt.Sprintf("%x", sha256.Sum256(content)); resp.Header.Get("X-Sum") != want {
					t.Error("the service got another body than was sent")
				}
				if !bytes.Equal([]byte(body), content) {
					t.Errorf("%d bytes came back, not the %d that were sent", len(body), len(content))
				}
			})
		}
	}
	t.Run("trailers both ways", func(t *testing.T) {
		var got http.Header
		done := make(chan struct{})
		u := serve(t, func(_ *upstream, c net.Conn, r *bufio.Reader) {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			got = req.Trailer
			close(done)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-End: yes\r\n\r\n")
		})
		w := s.start(t, proxy.Config{}, u)
		resp, body := w.ask(w.public, strings.TrimSuffix(request("POST", "/", "Trailer: X-Sum"), "\r\n")+
			"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n")
		<-done
		if got.Get("X-Sum") != "42" {
			t.Errorf("the service got the trailers %v", got)
		}
		if body != "ok" || resp.Trailer.Get("X-End") != "yes" {
			t.Errorf("%q came back with the trailers %v", body, resp.Trailer)
		}
	})
	t.Run("events come one by one", func(t *testing.T) {
		next := make(chan struct{})
		u := serve(t, func(u *upstream, c net.Conn, r *bufio.Reader) {
			if _, _, err := u.read(r); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
			for i := range 3 {
				fmt.Fprintf(c, "data: %d\n\n", i)
				<-next
			}
		})
		w := s.start(t, proxy.Config{}, u)
		_, r := w.send(w.public, head("/"))
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(resp.Body)
		for i := range 3 {
			// The service waits: an event that is held back is never read.
			for lines.Scan() && lines.Text() == "" {
			}
			if want := fmt.Sprint("data: ", i); lines.Text() != want {
				t.Fatalf("%q came, not %q", lines.Text(), want)
			}
			next <- struct{}{}
		}
	})
	for _, tc := range []struct{ name, method, raw string }{
		{"HEAD has no body", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"},
		{"204 has no body", "GET", "HTTP/1.1 204 No Content\r\n\r\n"},
		{"304 has no body", "GET", "HTTP/1.1 304 Not Modified\r\nEtag: \"x\"\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := answering(t, tc.raw)
			w := s.start(t, proxy.Config{}, u)
			// Another request on the same connection is answered: nothing was left over.
			_, r := w.send(w.public, request(tc.method, "/")+request(tc.method, "/again"))
			for range 2 {
				resp, body := w.answer(r, tc.method)
				if body != "" || fmt.Sprint(resp.StatusCode) != tc.raw[9:12] {
					t.Errorf("it was answered %d %q", resp.StatusCode, body)
				}
			}
		})
	}
	t.Run("100-continue waits for the service", func(t *testing.T) {
		for _, accept := range []bool{true, false} {
			u := serve(t, func(_ *upstream, c net.Conn, r *bufio.Reader) {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				if !accept {
					io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
					return
				}
				io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
				body, _ := io.ReadAll(req.Body)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			})
			w := s.start(t, proxy.Config{}, u)
			c, r := w.send(w.public, request("PUT", "/", "Expect: 100-continue", "Content-Length: 5"))
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if !accept {
				if !strings.Contains(line, "413") && !strings.Contains(line, "100") {
					t.Errorf("a refused body was answered %q", line)
				}
				continue
			}
			if !strings.Contains(line, "100") {
				t.Fatalf("it was answered %q instead of being let go on", line)
			}
			_, _ = r.ReadString('\n')
			io.WriteString(c, "hello")
			if resp, body := w.answer(r, "PUT"); resp.StatusCode != 200 || body != "hello" {
				t.Errorf("it was answered %d %q", resp.StatusCode, body)
			}
		}
	})
	t.Run("103 is passed on", func(t *testing.T) {
		u := answering(t, "HTTP/1.1 103 Early Hints\r\nLink: </x.css>\r\n\r\n"+ok)
		w := s.start(t, proxy.Config{}, u)
		_, r := w.send(w.public, head("/"))
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 103 || resp.Header.Get("Link") != "</x.css>" {
			t.Fatalf("%v %v came first", resp, err)
		}
		if resp, body := w.answer(r, "GET"); resp.StatusCode != 200 || body != "ok" {
			t.Errorf("then %d %q", resp.StatusCode, body)
		}
	})
}

// frame gives the framing headers, the end of the head, and the body.
func frame(body []byte, chunked bool) string {
	if !chunked {
		return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	var b strings.Builder
	b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	for len(body) > 0 {
		n := min(len(body), 7001)
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	b.WriteString("0\r\n\r\n")
	return b.String()
}
