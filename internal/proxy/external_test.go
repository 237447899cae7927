package proxy

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
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
