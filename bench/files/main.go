// Command files sends requests to an environment at full speed while its file is changed: to
// another version and back, again and again. No request may fail.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dayfly-dev/dayfly/bench/lab"
)

const (
	limit    = 30 * time.Second // of one request
	patience = 2 * time.Minute  // for one change
)

type options struct {
	binary, service   string
	requests          int64
	changes, perClass int
}

func main() {
	var o options
	flag.StringVar(&o.binary, "dayfly", "bin/dayfly", "the binary to measure")
	flag.StringVar(&o.service, "service", "", "bench/service ready made; empty = build it")
	flag.Int64Var(&o.requests, "requests", 100_000, "requests at least")
	flag.IntVar(&o.changes, "changes", 10, "changes of the file at least")
	flag.IntVar(&o.perClass, "clients", 4, "clients of each kind: kept connections, fresh connections")
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
	if err := lab.Git(repo, "tag", "v0"); err != nil {
		return err
	}
	if err := lab.Commit(repo, map[string]string{"VERSION": "1\n"}); err != nil {
		return err
	}
	if err := lab.Git(repo, "tag", "v1"); err != nil {
		return err
	}
	b := &bench{Lab: l, options: o, folder: filepath.Join(l.Dir, "environments")}
	if err := os.Mkdir(b.folder, 0o755); err != nil { //nolint:gosec // of no secret
		return err
	}
	if _, err := l.Start("--environments", b.folder); err != nil {
		return err
	}
	status, text, err := l.Call(http.MethodPost, "/v1/projects", map[string]string{"name": "bench", "repo": repo})
	if err != nil || status != http.StatusCreated {
		return fmt.Errorf("the project is not added: %d %s %w", status, text, err)
	}
	if err := b.write(0); err != nil {
		return err
	}
	if err := l.Answers("served"); err != nil {
		return err
	}
	return b.run()
}

type bench struct {
	*lab.Lab
	options
	folder string

	asked atomic.Int64 // requests that were begun
	done  atomic.Bool

	mu       sync.Mutex
	failed   int
	failures []string
	slowest  time.Duration
	answers  [2]int64 // of each version
}

// write replaces the file at once, as editors do it.
func (b *bench) write(version int) error {
	file := filepath.Join(b.folder, "served.yaml")
	text := fmt.Sprintf("name: served\nproject: bench\nservices: [{name: web, version: v%d, route: /}]\n", version)
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil { //nolint:gosec // of no secret
		return err
	}
	return os.Rename(file+".new", file)
}

func (b *bench) run() error {
	begun := time.Now()
	var clients sync.WaitGroup
	for i := range b.perClass {
		fresh := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{
			LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 99, 1, byte(i+1))}, // so that closed connections don't use up the ports of one address
		}).DialContext}
		for _, transport := range []*http.Transport{{}, fresh} {
			clients.Go(func() {
				defer transport.CloseIdleConnections()
				client := &http.Client{Timeout: limit, Transport: transport}
				for post := false; !b.done.Load(); post = !post {
					b.asked.Add(1)
					b.ask(client, post)
				}
			})
		}
	}
	var took []time.Duration
	var err error
	for version := 1; err == nil && (len(took) < b.changes || b.asked.Load() < b.requests); version = 1 - version {
		changed := time.Now()
		if err = b.write(version); err != nil {
			break
		}
		if err = lab.Until(patience, func() bool { return b.served(version) }); err != nil {
			err = fmt.Errorf("version %d does not come: %w\n%s", version, err, b.Log())
		}
		took = append(took, time.Since(changed))
	}
	b.done.Store(true)
	clients.Wait()
	total := time.Since(begun)
	fmt.Printf("%d requests in %v while the file of the environment was changed %d times: %d failed, %.0f requests/s, slowest %v; from the file to the first answer of its version %v (median), %v (longest)\n",
		b.asked.Load(), total.Round(time.Second), len(took), b.failed, float64(b.asked.Load())/total.Seconds(), b.slowest.Round(time.Millisecond),
		lab.At(took, 50).Round(time.Millisecond), lab.At(took, 100).Round(time.Millisecond))
	for _, f := range b.failures {
		fmt.Fprintln(os.Stderr, "failed:", f)
	}
	switch {
	case err != nil:
		return err
	case b.failed > 0:
		return fmt.Errorf("%d requests failed", b.failed)
	case b.answers[0] == 0 || b.answers[1] == 0:
		return fmt.Errorf("the versions have answered %v times", b.answers)
	}
	return nil
}

// served says whether a version answers.
func (b *bench) served(version int) bool {
	_, text, err := b.Ask("served")
	return err == nil && text == fmt.Sprint(version, " served")
}

// ask sends one request. A POST is sent once by Go's client, whereas it repeats a GET on a
// connection that was closed without an answer.
func (b *bench) ask(client *http.Client, post bool) {
	method, body := http.MethodGet, io.Reader(nil)
	if post {
		method, body = http.MethodPost, strings.NewReader("hello")
	}
	begun := time.Now()
	status, text, err := b.send(client, method, body)
	took := time.Since(begun)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slowest = max(b.slowest, took)
	switch {
	case err == nil && status == http.StatusOK && text == "0 served":
		b.answers[0]++
	case err == nil && status == http.StatusOK && text == "1 served":
		b.answers[1]++
	default:
		b.failed++
		if len(b.failures) < 20 {
			b.failures = append(b.failures, fmt.Sprintf("%s after %v: %d %q %v", method, took, status, text, err))
		}
	}
}

func (b *bench) send(client *http.Client, method string, body io.Reader) (int, string, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, "http://"+b.Public+"/", body)
	if err != nil {
		return 0, "", err
	}
	req.Host, req.GetBody = "served.localhost", nil
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}
