package registry_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/registry/embedded"
)

// These make the test binary run an etcd of its own process until its standard input
// ends: on a folder, at an address, as one of several members.
const etcdDir, etcdListen, etcdPeers, etcdName = "TEST_ETCD_DIR", "TEST_ETCD_LISTEN", "TEST_ETCD_PEERS", "TEST_ETCD_NAME"

func TestMain(m *testing.M) {
	if dir := os.Getenv(etcdDir); dir != "" {
		var address string
		var err error
		if peers := os.Getenv(etcdPeers); peers != "" {
			address, err = runMember(dir, os.Getenv(etcdListen), peers, os.Getenv(etcdName))
		} else {
			var server *embedded.Server
			if server, err = embedded.Start(context.Background(), dir, os.Getenv(etcdListen), slog.Default()); err == nil {
				address = server.Endpoints()[0]
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(address)
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	goleak.VerifyTestMain(m)
}

// runMember starts a member of a cluster as its users would, and does not wait for
// the others.
func runMember(dir, listen, peers, name string) (string, error) {
	config := embed.NewConfig()
	config.Dir, config.Name, config.InitialCluster, config.LogLevel = dir, name, peers, "panic"
	members, err := types.NewURLsMap(peers)
	if err != nil {
		return "", err
	}
	client := url.URL{Scheme: "http", Host: listen}
	config.ListenPeerUrls, config.AdvertisePeerUrls = members[name], members[name]
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	_, err = embed.StartEtcd(config)
	return listen, err
}

// process is an etcd in a process of its own.
type process struct {
	dir, address string
	peers, name  string // of a member
	command      *exec.Cmd
	stdin        io.Closer
}

// startProcess starts an etcd that clients reach over TCP.
func startProcess(t testing.TB) *process {
	t.Helper()
	p := &process{dir: t.TempDir(), address: "127.0.0.1:0"}
	p.start(t)
	t.Cleanup(func() { p.kill(t) })
	return p
}

func (p *process) start(t testing.TB) {
	t.Helper()
	p.command = exec.Command(os.Args[0])
	p.command.Env = append(os.Environ(), etcdDir+"="+p.dir, etcdListen+"="+p.address,
		etcdPeers+"="+p.peers, etcdName+"="+p.name)
	p.command.Stderr = os.Stderr
	stdin, err := p.command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	p.stdin = stdin
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal("etcd did not start:", err)
	}
	p.address = strings.TrimSpace(line)
}

// kill ends the process as a power cut would.
func (p *process) kill(t testing.TB) {
	t.Helper()
	if p.command.ProcessState != nil {
		return
	}
	if err := p.command.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = p.command.Wait() // says that it was killed
	_ = p.stdin.Close()
}

func (p *process) client(t testing.TB) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{p.address}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// link is a TCP connection between a store and an etcd that can be cut.
type link struct {
	listener net.Listener
	target   string
	mu       sync.Mutex
	down     bool
	mute     bool // answers are thrown away
	conns    map[net.Conn]bool
	running  sync.WaitGroup
}

func startLink(t testing.TB, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, target: target, conns: map[net.Conn]bool{}}
	l.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.running.Go(func() { l.pass(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		l.cut()
		l.running.Wait()
	})
	return l
}

func (l *link) address() string { return l.listener.Addr().String() }

func (l *link) pass(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer far.Close()
	l.mu.Lock()
	if l.down {
		l.mu.Unlock()
		return
	}
	l.conns[near], l.conns[far] = true, true
	l.mu.Unlock()
	var both sync.WaitGroup
	for _, dir := range [][2]net.Conn{{near, far}, {far, near}} {
		both.Go(func() {
			_, _ = io.Copy(&wire{l, dir[0], dir[0] == near}, dir[1])
			near.Close()
			far.Close()
		})
	}
	both.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, near)
	delete(l.conns, far)
}

// wire is one direction of a connection.
type wire struct {
	*link
	to     io.Writer
	answer bool
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	lost := w.mute && w.answer
	w.mu.Unlock()
	if lost {
		return len(p), nil
	}
	return w.to.Write(p)
}

// silence throws away the answers of the etcd from now on, or no longer.
func (l *link) silence(mute bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mute = mute
}

// cut closes all connections and takes no more until mend.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for conn := range l.conns {
		conn.Close()
	}
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

func open(t testing.TB, config registry.Config) *registry.Store {
	t.Helper()
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := registry.Open(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return s
}

// everywhere runs a test with the embedded etcd and with one in another process.
func everywhere(t *testing.T, test func(t *testing.T, s *registry.Store)) {
	t.Run("embedded", func(t *testing.T) {
		test(t, open(t, registry.Config{Dir: t.TempDir()}))
	})
	t.Run("cluster", func(t *testing.T) {
		test(t, open(t, registry.Config{Endpoints: []string{startProcess(t).address}}))
	})
}

func startCache(t testing.TB, s *registry.Store) *registry.Cache {
	t.Helper()
	c := registry.NewCache(s)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func commit(t testing.TB, s *registry.Store, ops ...registry.Op) int64 {
	t.Helper()
	revision, err := registry.Commit(context.Background(), s, ops...)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func wait(t testing.TB, c *registry.Cache, revision int64) {
	t.Helper()
	if err := c.Wait(context.Background(), revision); err != nil {
		t.Fatal(err)
	}
}

// eventually asks until done says so.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatal("still not: " + what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// collector reads a sequence in a goroutine.
type collector[T any] struct {
	mu   sync.Mutex
	got  []T
	done chan struct{}
}

func collect[T any](t testing.TB, read func(ctx context.Context, add func(T))) *collector[T] {
	c := &collector[T]{done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(c.done)
		read(ctx, func(v T) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.got = append(c.got, v)
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-c.done
	})
	return c
}

func (c *collector[T]) all() []T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]T(nil), c.got...)
}

// changes collects what a cache tells from now on.
func changes(t testing.TB, c *registry.Cache) *collector[registry.Change] {
	ready := make(chan struct{})
	got := collect(t, func(ctx context.Context, add func(registry.Change)) {
		seq := c.Changes(ctx)
		close(ready)
		for change := range seq {
			add(change)
		}
	})
	<-ready
	return got
}
