package proxy

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly/internal/route"
)

// statusOnly answers with a status alone.
type statusOnly struct{}

func (statusOnly) Write(w http.ResponseWriter, _ *http.Request, p Problem) { w.WriteHeader(p.Status) }

func TestWhoWasTakenBeforeTheEndIsAnswered(t *testing.T) {
	p := New(Config{Table: route.New(route.Options{}), Pages: statusOnly{}, Logger: slog.New(slog.DiscardHandler)})
	p.heard = time.Minute
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.ServePublic(t.Context(), raw) }()
	// Each has been taken and has not said anything yet.
	var clients []net.Conn
	for range 20 {
		c, err := net.Dial("tcp", raw.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		taken := len(p.listeners) == 1 && p.listeners[0].open() > len(clients)
		p.mu.Unlock()
		if taken {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("not all are taken")
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Shutdown(t.Context()) }()
	if err := <-served; err != nil { // nobody is taken any more
		t.Fatal(err)
	}
	for _, c := range clients {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range clients {
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("it was dropped: %v", err)
		}
		if resp.Body.Close(); !resp.Close {
			t.Error("it is not told that the connection ends")
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
