// Command churn sends requests through the proxy at full speed while environments come
// and go and the one that is served gets new commits. No request may fail, nobody may be
// answered by a version that was replaced before the request began, and every WebSocket
// has to stay on the version that it began on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/dayfly-dev/dayfly/bench/lab"
)

const (
	host  = "served.localhost"
	limit = 30 * time.Second // of one request
)

type options struct {
	binary, service                          string
	requests                                 int64
	environments, commits, sockets, perClass int
}

func main() {
	var o options
	flag.StringVar(&o.binary, "dayfly", "bin/dayfly", "the binary to measure")
	flag.StringVar(&o.service, "service", "", "bench/service ready made; empty = build it")
	flag.Int64Var(&o.requests, "requests", 1_000_000, "requests at least")
	flag.IntVar(&o.environments, "environments", 200, "environments that come and go")
	flag.IntVar(&o.commits, "commits", 20, "new commits of the environment that is asked")
	flag.IntVar(&o.sockets, "sockets", 100, "open WebSockets")
	flag.IntVar(&o.perClass, "clients", 6, "clients of each kind: kept connections, fresh connections, HTTP/2")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(o options) error {
	l, err := lab.New(o.binary)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.BuildService(o.service); err != nil {
		return err
	}
	repo, err := l.Repo("repo", map[string]string{"Procfile": "web: benchservice\n", "VERSION": "0\n"})
	if err != nil {
		return err
	}
	if err := lab.Git(repo, "branch", "guest"); err != nil {
		return err
	}
	if _, err := l.Start("--max-environments", "0", "--max-per-project", "0", "--drain", "24h"); err != nil {
		return err
	}
	if err := l.Create("served", repo, "main"); err != nil {
		return err
	}
	if err := l.Answers("served"); err != nil {
		return err
	}
	b := &bench{Lab: l, options: o, repo: repo}
	return b.run()
}

type bench struct {
	*lab.Lab
	options
	repo string

	asked    atomic.Int64 // requests that were begun
	newest   atomic.Int64 // highest version that anybody was answered by
	finished atomic.Bool  // what has to happen besides the requests is over
	quit     atomic.Bool  // something went wrong that makes the rest pointless

	mu       sync.Mutex
	failed   int
	failures []string
	slowest  time.Duration
}

func (b *bench) run() error {
	begun := time.Now()
	kinds := []struct {
		name   string
		client func(i int) *http.Client
		count  atomic.Int64
	}{
		{name: "kept", client: func(int) *http.Client { return &http.Client{Timeout: limit, Transport: &http.Transport{}} }},
		{name: "fresh", client: func(i int) *http.Client {
			// A source address of its own, so that closed connections don't use up the ports of one.
			dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 99, 0, byte(i+1))}}
			return &http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}}
		}},
		{name: "HTTP/2", client: func(int) *http.Client {
			var only http.Protocols
			only.SetUnencryptedHTTP2(true)
			return &http.Client{Timeout: limit, Transport: &http.Transport{Protocols: &only}}
		}},
	}
	var clients sync.WaitGroup
	for k := range kinds {
		kind := &kinds[k]
		for i := range b.perClass {
			client := kind.client(i)
			clients.Go(func() {
				defer client.CloseIdleConnections()
				for post := false; !b.over(); post = !post {
					b.ask(client, kind.name, post)
					kind.count.Add(1)
				}
			})
		}
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sockets := &sockets{bench: b, stop: make(chan struct{})}
	var beside sync.WaitGroup
	var guestErr, commitErr error
	beside.Go(func() { guestErr = b.guests() })
	beside.Go(func() { commitErr = b.releases(ctx, sockets) })
	beside.Wait()
	besides := time.Since(begun)
	b.finished.Store(true)
	if guestErr != nil || commitErr != nil {
		b.quit.Store(true)
	}
	clients.Wait()
	took := time.Since(begun)
	open, messages := sockets.end()

	total := b.asked.Load()
	fmt.Printf("%d requests (%d on kept connections, %d on fresh ones, %d over HTTP/2) in %v while %d environments came and went and %d commits were released (over after %v): %d failed, %.0f requests/s, slowest %v\n",
		total, kinds[0].count.Load(), kinds[1].count.Load(), kinds[2].count.Load(), took.Round(time.Second), b.environments, b.commits,
		besides.Round(time.Second), b.failed, float64(total)/took.Seconds(), b.slowest.Round(time.Millisecond))
	fmt.Printf("%d of %d WebSockets open on the version they began on, over %d messages; server resident %s\n", open, b.sockets, messages, lab.MiB(lab.Resident(b.PID())))
	for _, f := range b.failures {
		fmt.Fprintln(os.Stderr, "failed:", f)
	}
	switch {
	case guestErr != nil || commitErr != nil:
		return fmt.Errorf("%w\n%s", errors.Join(guestErr, commitErr), b.Log())
	case b.failed > 0:
		return fmt.Errorf("%d requests failed", b.failed)
	case open < b.sockets:
		return fmt.Errorf("%d WebSockets were lost", b.sockets-open)
	}
	return nil
}

// over says that enough was asked, and everything else happened.
func (b *bench) over() bool {
	return b.quit.Load() || b.finished.Load() && b.asked.Load() >= b.requests
}

// ask sends a request to the environment that gets the commits. Every other one is a
// POST, which Go's client sends once, whereas it repeats a GET on a connection that was
// closed without an answer.
func (b *bench) ask(client *http.Client, kind string, post bool) {
	b.asked.Add(1)
	least := b.newest.Load()
	begun := time.Now()
	method, body := http.MethodGet, io.Reader(nil)
	if post {
		method, body = http.MethodPost, strings.NewReader("hello")
	}
	req, err := http.NewRequestWithContext(context.Background(), method, "http://"+b.Public+"/", body)
	if err != nil {
		b.fail("%v", err)
		return
	}
	req.Host, req.GetBody = host, nil
	resp, err := client.Do(req)
	if err != nil {
		b.fail("%s %s, begun %s, after %v: %v", kind, method, begun.Format(time.TimeOnly), time.Since(begun), err)
		return
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	took := time.Since(begun)
	version, ok := parse(string(text), "served")
	switch {
	case err != nil || resp.StatusCode != http.StatusOK || !ok:
		b.fail("%s %s, begun %s, after %v: %d %q %v", kind, method, begun.Format(time.TimeOnly), took, resp.StatusCode, text, err)
	case version < least:
		b.fail("%s %s, begun %s: answered by version %d, after version %d had answered", kind, method, begun.Format(time.TimeOnly), version, least)
	case kind == "HTTP/2" && resp.ProtoMajor != 2:
		b.fail("%s %s: answered over %s", kind, method, resp.Proto)
	}
	for version > least && !b.newest.CompareAndSwap(least, version) {
		least = b.newest.Load()
	}
	b.mu.Lock()
	b.slowest = max(b.slowest, took)
	b.mu.Unlock()
}

// parse reads what the service answers: its version and its environment.
func parse(text, environment string) (int64, bool) {
	number, name, _ := strings.Cut(text, " ")
	version, err := strconv.ParseInt(number, 10, 64)
	return version, err == nil && name == environment
}

func (b *bench) fail(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed++
	if len(b.failures) < 20 {
		b.failures = append(b.failures, fmt.Sprintf(format, args...))
	}
}

// progress waits until step of steps is due, so that what happens besides is spread over
// all of the requests.
func (b *bench) progress(step, steps int) {
	for !b.quit.Load() && b.asked.Load() < b.requests*int64(step)/int64(steps) {
		time.Sleep(5 * time.Millisecond)
	}
}

// guests makes the environments that come and go, four at a time.
func (b *bench) guests() error {
	next := make(chan int)
	var workers sync.WaitGroup
	var mu sync.Mutex
	var first error
	for range 4 {
		workers.Go(func() {
			for i := range next {
				if err := b.guest(fmt.Sprintf("guest-%03d", i)); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
					b.quit.Store(true)
				}
			}
		})
	}
	for i := range b.environments {
		b.progress(i, b.environments)
		if b.quit.Load() {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	return first
}

func (b *bench) guest(name string) error {
	if err := b.Create(name, b.repo, "guest"); err != nil {
		return err
	}
	if err := b.Answers(name); err != nil {
		return err
	}
	if _, text, err := b.Ask(name); err != nil || text != "0 "+name {
		b.fail("%s: %q %v", name, text, err)
	}
	return b.Delete(name)
}

// releases commits the versions one after the other, and opens the same number of
// WebSockets on each but the last.
func (b *bench) releases(ctx context.Context, s *sockets) error {
	for i := range b.commits {
		for n := b.sockets * i / b.commits; n < b.sockets*(i+1)/b.commits; n++ {
			if err := s.open(ctx, int64(i)); err != nil {
				return err
			}
		}
		b.progress(i+1, b.commits+1)
		version := int64(i + 1)
		if err := lab.Commit(b.repo, map[string]string{"VERSION": fmt.Sprintf("%d\n", version)}); err != nil {
			return err
		}
		if err := lab.Until(2*time.Minute, func() bool { return b.quit.Load() || b.newest.Load() >= version }); err != nil {
			b.quit.Store(true)
			return fmt.Errorf("version %d is not served: %w", version, err)
		}
		if b.quit.Load() {
			return nil
		}
	}
	return nil
}

// sockets are open WebSockets, on which a message goes back and forth all the time.
type sockets struct {
	*bench
	stop     chan struct{}
	all      sync.WaitGroup
	alive    atomic.Int64
	messages atomic.Int64
}

// open opens one, which is to stay on the given version.
func (s *sockets) open(ctx context.Context, version int64) error {
	ctx, cancel := context.WithCancel(ctx)
	c, resp, err := websocket.Dial(ctx, "ws://"+s.Public+"/socket", &websocket.DialOptions{Host: host})
	if err != nil {
		cancel()
		return fmt.Errorf("a WebSocket on version %d: %w", version, err)
	}
	if resp.Body != nil {
		resp.Body.Close()
	}
	if err := s.exchange(ctx, c, version); err != nil {
		cancel()
		return fmt.Errorf("a new WebSocket on version %d: %w", version, err)
	}
	s.alive.Add(1)
	s.all.Go(func() {
		defer cancel()
		defer c.CloseNow()
		for {
			select {
			case <-s.stop:
				// Once more, so that those that broke in the end are noticed.
				if err := s.exchange(ctx, c, version); err != nil {
					s.lost(version, err)
				}
				return
			case <-time.After(250 * time.Millisecond):
			}
			if err := s.exchange(ctx, c, version); err != nil {
				s.lost(version, err)
				return
			}
		}
	})
	return nil
}

func (s *sockets) lost(version int64, err error) {
	s.alive.Add(-1)
	s.fail("a WebSocket on version %d at %s: %v", version, time.Now().Format(time.TimeOnly), err)
}

// exchange sends a message and reads the answer.
func (s *sockets) exchange(ctx context.Context, c *websocket.Conn, version int64) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, []byte("who")); err != nil {
		return err
	}
	_, text, err := c.Read(ctx)
	if err != nil {
		return err
	}
	if got, ok := parse(string(text), "served"); !ok || got != version {
		return fmt.Errorf("answered by %q", text)
	}
	s.messages.Add(1)
	return nil
}

// end closes all and says how many were alive until then.
func (s *sockets) end() (alive int, messages int64) {
	close(s.stop)
	s.all.Wait()
	return int(s.alive.Load()), s.messages.Load()
}
