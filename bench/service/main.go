// Command service is what the environments of the benchmarks run: it answers with the
// content of the file VERSION, or of the one that is its argument, and the name of its environment, and echoes the same on
// every message of a WebSocket.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := serve(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(ctx context.Context) error {
	file := "VERSION"
	if len(os.Args) > 1 {
		file = os.Args[1]
	}
	version, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	who := strings.TrimSpace(string(version)) + " " + os.Getenv("DAYFLY_ENV")
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, who)
	})
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			if _, _, err := c.Read(ctx); err != nil {
				return
			}
			if err := c.Write(ctx, websocket.MessageText, []byte(who)); err != nil {
				return
			}
		}
	})
	server := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT"), Handler: mux, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() {
		quiet, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(quiet)
	})
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}
