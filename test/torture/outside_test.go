//go:build linux

package torture

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/dayfly-dev/dayfly"
)

// member is an etcd in a process of its own, as everybody runs it.
type member struct {
	*testing.T
	program          []string // what etcdserver is started with
	dir, log         string
	address, flagged string   // of clients: where they reach it, and all addresses
	options          []string // of etcdserver

	mu      sync.Mutex
	process *os.Process // nil = it is to stay away
	ended   chan struct{}
}

// freeAddress gives an address that nobody uses now, at a port that no system gives away by itself: what
// comes back after a crash needs it again.
func freeAddress(t *testing.T) string {
	t.Helper()
	var all error
	for range 100 {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)))
		if err == nil {
			defer listener.Close()
			return listener.Addr().String()
		}
		all = err
	}
	t.Fatal(all)
	return ""
}

// newMember makes one, which start starts.
func newMember(t *testing.T, dir string, options ...string) *member {
	t.Helper()
	if !slices.Contains(options, "-members") {
		options = append(options, "-members", "alone=http://"+freeAddress(t))
	}
	address := freeAddress(t)
	m := &member{T: t, dir: dir, log: filepath.Join(t.TempDir(), "etcd.log"), address: address, flagged: address,
		program: []string{filepath.Join(programs, "etcdserver")}, options: options}
	t.Cleanup(func() {
		m.kill()
		if t.Failed() {
			text, err := os.ReadFile(m.log)
			t.Logf("the log of etcd (%v):\n%s", err, text[max(0, len(text)-8000):])
		}
	})
	return m
}

// start starts it, and again whenever it dies, as a service manager does.
func (m *member) start() {
	m.Helper()
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.Fatal(err)
	}
	command := func() *exec.Cmd {
		args := slices.Concat(m.program, []string{"-plain"}, m.options, []string{m.dir, m.flagged})
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = log, log
		return cmd
	}
	cmd := command()
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	ended := make(chan struct{})
	m.mu.Lock()
	m.process, m.ended = cmd.Process, ended
	m.mu.Unlock()
	go func() {
		defer close(ended)
		defer log.Close()
		for {
			_ = cmd.Wait()
			time.Sleep(100 * time.Millisecond) // a service manager waits as well before it tries again
			m.mu.Lock()
			if m.process == nil {
				m.mu.Unlock()
				return
			}
			cmd = command()
			if err := cmd.Start(); err != nil {
				m.mu.Unlock()
				m.Errorf("etcd cannot be started again: %v", err)
				return
			}
			m.process = cmd.Process
			m.mu.Unlock()
		}
	}()
}

// kill ends it as a power cut would, until start.
func (m *member) kill() {
	m.mu.Lock()
	process, ended := m.process, m.ended
	m.process = nil
	m.mu.Unlock()
	if process != nil {
		_ = process.Kill()
		<-ended
	}
}

// reach gives a client of etcd that has been answered.
func reach(l *life, addresses ...string) *clientv3.Client {
	l.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: addresses, Logger: zap.NewNop(), DialTimeout: time.Second})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	l.until("etcd answers", func() string { return refusal(l, c) })
	return c
}

// refusal says why etcd does not answer.
func refusal(l *life, c *clientv3.Client) string {
	ctx, cancel := context.WithTimeout(l.Context(), time.Second)
	defer cancel()
	if _, err := c.Get(ctx, "/"); err != nil {
		return err.Error()
	}
	return ""
}

// compact drops all revisions but the newest, which it gives.
func compact(l *life, c *clientv3.Client) int64 {
	l.Helper()
	now, err := c.Get(l.Context(), "/")
	if err != nil {
		l.Fatal(err)
	}
	if _, err := c.Compact(l.Context(), now.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		l.Fatal(err)
	}
	return now.Header.Revision
}

// leases gives those that there are.
func leases(l *life, c *clientv3.Client) (ids []clientv3.LeaseID) {
	l.Helper()
	resp, err := c.Leases(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	for _, lease := range resp.Leases {
		ids = append(ids, lease.ID)
	}
	return ids
}

// another makes a second server on the same state and host, before the first is started.
func (l *life) another(etcd string) *life {
	l.Helper()
	o := newLife(l.T, "another")
	o.repo, o.etcd, o.flags = l.repo, etcd, []string{"--uids", "300000-300999"}
	// Ports are part of what services are told, so servers on one state have the same: the
	// public one at another address, and none inside, which is one for the whole host.
	_, port, err := net.SplitHostPort(l.http)
	if err != nil {
		l.Fatal(err)
	}
	o.http, o.internal, l.internal = net.JoinHostPort("127.0.0.2", port), "", ""
	l.peers, o.peers = append(l.peers, o), []*life{l}
	return o
}

// ready waits until the server can change the state.
func (l *life) ready() {
	l.Helper()
	l.until("ready", func() string {
		if status := l.readyz(); status != http.StatusOK {
			return fmt.Sprint("readyz says ", status)
		}
		return ""
	})
}

// lost waits until the server knows that it cannot.
func (l *life) lost() {
	l.Helper()
	l.until("known that etcd is away", func() string {
		if status := l.readyz(); status != http.StatusServiceUnavailable {
			return fmt.Sprint("readyz says ", status)
		}
		return ""
	})
}

func (l *life) readyz() int {
	req, err := http.NewRequestWithContext(l.Context(), http.MethodGet, "http://"+l.api+"/readyz", nil)
	if err != nil {
		l.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// refused tries a change that etcd cannot take, and looks at what is said.
func (l *life) refused(words string) {
	l.Helper()
	_, _, err := l.client.CreateEnvironment(l.Context(), dayfly.EnvironmentRequest{
		Repo: l.repo, Spec: dayfly.EnvironmentSpec{Name: "refused", Branch: "main"},
	})
	if dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !strings.Contains(err.Error(), words) {
		l.Errorf("a change that cannot be made is answered with %v (%s), want %s and %q", err, dayfly.ErrorCode(err), dayfly.CodeUnavailable, words)
	}
}

// visits are requests to environments that nobody touches, one after the other.
type visits struct {
	count  atomic.Int64
	cancel context.CancelFunc
	done   chan struct{}
	wrong  []string // read after done
}

// visit asks for environments over and over, through each server, and looks whether
// each of their services runs once.
func (l *life) visit(names ...string) *visits {
	ctx, cancel := context.WithCancel(context.Background())
	v := &visits{cancel: cancel, done: make(chan struct{})}
	l.Cleanup(cancel)
	kept := &http.Transport{}
	go func() {
		defer close(v.done)
		defer kept.CloseIdleConnections()
		for ctx.Err() == nil {
			for _, name := range names {
				for _, server := range l.all() {
					for _, transport := range []*http.Transport{kept, {DisableKeepAlives: true}} {
						if w := visitOnce(ctx, transport, server.http, name); w != "" && ctx.Err() == nil {
							v.wrong = append(v.wrong, w)
						}
						v.count.Add(1)
					}
				}
			}
			running, err := l.findProcesses()
			if err != nil {
				v.wrong = append(v.wrong, err.Error())
			}
			times := map[string]int{}
			for _, p := range running {
				if what := p.environment + " " + p.service; slices.Contains(names, p.environment) {
					if times[what]++; times[what] > 1 {
						v.wrong = append(v.wrong, what+" runs twice")
					}
				}
			}
		}
	}()
	return v
}

func visitOnce(ctx context.Context, transport http.RoundTripper, address, name string) string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return err.Error()
	}
	req.Host = name + ".localhost"
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(text), "env="+name+" ") {
		return fmt.Sprintf("%s answers %d %s, %v", name, resp.StatusCode, text, err)
	}
	return ""
}

// more waits for requests that began after now.
func (l *life) more(v *visits) {
	l.Helper()
	seen := v.count.Load()
	l.until("visited", func() string {
		if v.count.Load() < seen+10 {
			return "no requests are answered"
		}
		return ""
	})
}

// end stops the requests, none of which may have failed, and says how many there were.
func (l *life) end(v *visits) int64 {
	l.Helper()
	v.cancel()
	<-v.done
	if len(v.wrong) > 0 {
		l.Errorf("%d of %d visits went wrong, the first so: %s", len(v.wrong), v.count.Load(), v.wrong[0])
	}
	return v.count.Load()
}

// outside is a way in which an etcd outside of the server can fail.
type outside struct {
	what  string
	short bool // tried by make test as well
	try   func(l *life) (checked string)
}

func TestNothingIsLostWhenAnEtcdOutsideFails(t *testing.T) {
	ways := []outside{
		{"compacted while the server is dead", true, compactedWhileDead},
		{"cut off while the state is compacted", false, compactedWhileCutOff},
		{"cut off for longer than every lease", false, cutOffForLong},
		{"one of two servers is cut off for longer than every lease", false, oneOfTwoCutOff},
		{"the server dies while there is none", false, diesMeanwhile},
		{"one of three members is lost", true, oneOfThreeLost},
		{"its quota is used up", true, quotaUsedUp},
		{"its disk is full", false, diskFull},
	}
	var mu sync.Mutex
	var table []string
	t.Run("outside", func(t *testing.T) {
		for _, way := range ways {
			if !*long && !way.short || *only != "" && *only != way.what {
				continue
			}
			t.Run(way.what, func(t *testing.T) {
				t.Parallel()
				begun := time.Now()
				checked := "FAILED"
				t.Cleanup(func() {
					mu.Lock()
					defer mu.Unlock()
					table = append(table, fmt.Sprintf("%s\t%s\t%s", way.what, time.Since(begun).Round(time.Millisecond), checked))
				})
				l := newLife(t, way.what)
				if text := way.try(l); !t.Failed() {
					checked = text
				}
			})
		}
	})
	slices.Sort(table)
	printTable(t, "ETCD OUTSIDE\tLIFE TOOK\tCHECKED", table)
}

// settle makes the two environments of each life and gives the processes of the first.
func (l *life) settle() (untouched map[string][]process) {
	l.Helper()
	l.create("changing", "feature", 0)
	l.create("untouched", "main", 0)
	l.answers("changing", "1")
	l.answers("untouched", "1")
	return l.running("untouched")
}

// finish checks that all is as wanted, deletes it and looks at what is left in the state.
// So many environments and deployments must be remembered in the end.
func (l *life) finish(untouched map[string][]process, environments, deployments int, names ...string) {
	l.Helper()
	slices.Sort(names)
	for _, server := range l.all() {
		server.check(names...)
		server.answers("untouched", "1")
	}
	if diff := cmp.Diff(untouched, l.running("untouched"), cmp.AllowUnexported(process{})); diff != "" {
		l.Errorf("an environment that nobody touched was restarted:\n%s", diff)
	}
	for _, name := range names {
		l.delete(name)
	}
	for _, server := range l.all() {
		for _, name := range names {
			server.gone(name)
		}
		server.check()
	}
	for _, server := range l.all() {
		server.stop(syscall.SIGTERM)
	}
	l.records(environments, deployments)
}

// A server that was killed comes back to a state whose history it has missed.
func compactedWhileDead(l *life) string {
	m := newMember(l.T, l.dir+"/etcd")
	m.start()
	c := reach(l, m.address)
	l.etcd = m.address
	other := l.another(m.address)
	l.start(fate{})
	untouched := l.settle()
	l.create("leaving", "main", 0)
	l.answers("leaving", "1")
	l.stop(syscall.SIGKILL)

	other.start(fate{})
	other.ready()
	other.changes()
	other.answers("untouched", "1") // which the dead server has left running
	revision := compact(l, c)

	l.start(fate{})
	l.ready()
	l.gone("leaving")
	l.answers("changing", "2")
	l.finish(untouched, 5, 18, "changing", "coming", "untouched")
	return fmt.Sprintf("5 changes by a second server and compaction at revision %d; nothing restarted, nothing left", revision)
}
