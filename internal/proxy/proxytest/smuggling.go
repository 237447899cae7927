package proxytest

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly/internal/proxy"
)

// testSmuggling: what could be read in two ways is refused, or reaches the service as
// exactly one request with nothing of the doubtful part.
func testSmuggling(t *testing.T, s suite) {
	const evil = "GET /evil HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
	for name, raw := range map[string]string{
		"two lengths":                   "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + evil,
		"a length and chunks":           "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"a length with a sign":          "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: +5\r\n\r\nhello",
		"a length with a list":          "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 5, 5\r\n\r\nhello",
		"an odd transfer encoding":      "POST / HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"two transfer encodings":        "POST / HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"a space before the colon":      "POST / HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\n0\r\n",
		"a folded header":               "GET / HTTP/1.1\r\nHost: " + host + "\r\nX-A: 1\r\n Transfer-Encoding: chunked\r\n\r\n",
		"a bare line feed in a header":  "GET / HTTP/1.1\r\nHost: " + host + "\r\nX-A: 1\nX-Dayfly-Env: other\r\n\r\n",
		"a carriage return in a header": "GET / HTTP/1.1\r\nHost: " + host + "\r\nX-A: 1\rX-B: 2\r\n\r\n",
		"a null in a header":            "GET / HTTP/1.1\r\nHost: " + host + "\r\nX-A: a\x00b\r\n\r\n",
		"two hosts":                     "GET / HTTP/1.1\r\nHost: " + host + "\r\nHost: other\r\n\r\n",
		"no host":                       "GET / HTTP/1.1\r\n\r\n",
		"a host with a path":            "GET / HTTP/1.1\r\nHost: " + host + "/evil\r\n\r\n",
		"a host with a space":           "GET / HTTP/1.1\r\nHost: " + host + " x\r\n\r\n",
		"a chunk with a bad size":       "POST / HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
		"a chunk with a huge size":      "POST / HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
		"a chunk that is too long":      "POST / HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
		"a bad version":                 "GET / HTTP/3.1\r\nHost: " + host + "\r\n\r\n",
		"a bad method":                  "G(T / HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"a huge head":                   "GET / HTTP/1.1\r\nHost: " + host + "\r\nX-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			u := answering(t, ok)
			w := s.start(t, proxy.Config{}, u)
			c, r := w.send(w.public, "")
			_, _ = io.WriteString(c, raw) // the engine may close before all of it is sent
			resp, err := http.ReadResponse(r, nil)
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
			}
			refused := err != nil || resp.StatusCode >= 400
			heads := u.heads()
			for _, h := range heads {
				if strings.Contains(h, "/evil") || slices.Contains(header(h, "X-Dayfly-Env"), "other") || len(header(h, "Content-Length"))+len(header(h, "Transfer-Encoding")) > 1 {
					t.Errorf("the service saw %q", h)
				}
			}
			switch name {
			case "a length and chunks", "a folded header", "a bare line feed in a header":
				// RFC 9112 lets a proxy mend these: one clean request is as good as none.
				if len(heads) > 1 {
					t.Errorf("the service saw %d requests: %q", len(heads), heads)
				}
			case "a chunk that is too long", "a chunk with a bad size", "a chunk with a huge size":
				if !refused {
					t.Errorf("it was answered %d", resp.StatusCode)
				}
			default:
				if !refused || len(heads) > 0 {
					t.Errorf("it was not refused: %v, and the service saw %q", resp, heads)
				}
			}
		})
	}
	t.Run("an absolute target decides over the host", func(t *testing.T) {
		u := answering(t, ok)
		w := s.start(t, proxy.Config{}, u)
		resp, _ := w.ask(w.public, "GET http://"+host+"/x HTTP/1.1\r\nHost: other.localhost\r\n\r\n")
		if resp.StatusCode != 200 {
			t.Fatalf("it was answered %d", resp.StatusCode)
		}
		got := u.only(t)
		if !slices.Equal(header(got, "Host"), []string{host}) || !strings.HasPrefix(got, "GET /x HTTP/1.1\r\n") {
			t.Errorf("the service saw %q", got)
		}
	})
	t.Run("a head that never ends is given up", func(t *testing.T) {
		w := s.start(t, proxy.Config{Limits: proxy.Limits{HeadTimeout: 50 * time.Millisecond}})
		_, r := w.send(w.public, "GET / HTTP/1.1\r\nHost: "+host+"\r\nX-Slow: ")
		_, _ = io.ReadAll(r) // it ends, or the deadline of the connection fails the test
		if _, err := r.ReadByte(); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("the connection is still open: %v", err)
		}
	})
}
