package proxytest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly/internal/proxy"
)

// testLimits: no client uses up what all share, and one that stays within the limits
// notices nothing of them.
func testLimits(t *testing.T, s suite) {
	echo := func(t *testing.T) *upstream {
		return serve(t, func(u *upstream, c net.Conn, r *bufio.Reader) {
			for {
				_, body, err := u.read(r)
				if err != nil {
					return
				}
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			}
		})
	}
	put := strings.TrimSuffix(request("PUT", "/"), "\r\n")
	const bound = 1000
	for _, c := range []struct {
		name    string
		size    int
		chunked bool
		status  int
	}{
		{"as large as allowed", bound, false, 200},
		{"as large as allowed, in chunks", bound, true, 200},
		{"larger than allowed", bound + 1, false, 413},
		{"larger than allowed, in chunks", bound + 1, true, 413},
	} {
		t.Run("a body "+c.name, func(t *testing.T) {
			u := echo(t)
			w := s.start(t, proxy.Config{Limits: proxy.Limits{Body: bound, BodyTimeout: time.Minute}}, u)
			_, r := w.send(w.public, put+frame(noise(c.size), c.chunked))
			resp, body := w.answer(r, "PUT")
			if resp.StatusCode != c.status {
				t.Fatalf("it was answered %d: %s", resp.StatusCode, body)
			}
			if c.status == 413 && !strings.Contains(body, "body_too_large") {
				t.Errorf("the answer does not say why: %s", body)
			}
			if c.status == 413 && !c.chunked && len(u.heads()) > 0 {
				t.Error("the service was asked all the same")
			}
			if c.status == 200 && len(body) != c.size {
				t.Errorf("%d bytes came back", len(body))
			}
		})
	}
	t.Run("a head that is too large", func(t *testing.T) {
		u := answering(t, ok)
		w := s.start(t, proxy.Config{Limits: proxy.Limits{Head: 2 << 10}}, u)
		resp, _ := w.ask(w.public, "GET / HTTP/1.1\r\nHost: "+host+"\r\nX-Large: "+strings.Repeat("x", 16<<10)+"\r\n\r\n")
		if resp.StatusCode != 431 || len(u.heads()) > 0 {
			t.Errorf("it was answered %d, and the service saw %d requests", resp.StatusCode, len(u.heads()))
		}
	})
	t.Run("a body that does not go on is given up, and the instance is not blamed", func(t *testing.T) {
		u := echo(t)
		w := s.start(t, proxy.Config{Limits: proxy.Limits{BodyTimeout: 50 * time.Millisecond}}, u)
		_, r := w.send(w.public, put+"Content-Length: 10\r\n\r\nhalf")
		resp, body := w.answer(r, "PUT")
		if resp.StatusCode != 408 || !strings.Contains(body, "body_timeout") {
			t.Errorf("it was answered %d: %s", resp.StatusCode, body)
		}
		if resp, _ := w.ask(w.public, request("GET", "/")); resp.StatusCode != 200 {
			t.Errorf("the next request was answered %d", resp.StatusCode)
		}
	})
	t.Run("a body whose length is unknown may be silent", func(t *testing.T) {
		u := echo(t)
		w := s.start(t, proxy.Config{Limits: proxy.Limits{BodyTimeout: time.Millisecond}}, u)
		c, r := w.send(w.public, put+"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
		w.inFlight(1)
		for range 20 { // as long as many of the limits
			time.Sleep(time.Millisecond)
		}
		if _, err := io.WriteString(c, "3\r\ntwo\r\n0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if resp, body := w.answer(r, "PUT"); resp.StatusCode != 200 || body != "onetwo" {
			t.Errorf("it was answered %d: %q", resp.StatusCode, body)
		}
	})
	t.Run("connections beyond the limit wait until others end", func(t *testing.T) {
		u := answering(t, ok)
		w := s.start(t, proxy.Config{Limits: proxy.Limits{Connections: 2}}, u)
		first, r1 := w.send(w.public, request("GET", "/"))
		_, r2 := w.send(w.public, request("GET", "/"))
		for _, r := range []*bufio.Reader{r1, r2} {
			if resp, _ := w.answer(r, "GET"); resp.StatusCode != 200 {
				t.Fatalf("one within the limit was answered %d", resp.StatusCode)
			}
		}
		third, r3 := w.send(w.public, request("GET", "/third"))
		if err := third.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if b, err := r3.Peek(1); err == nil {
			t.Fatalf("the third was answered: %q", b)
		}
		if err := third.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		again := bufio.NewReader(third)
		if resp, _ := w.answer(again, "GET"); resp.StatusCode != 200 {
			t.Errorf("the third was answered %d", resp.StatusCode)
		}
	})
}
