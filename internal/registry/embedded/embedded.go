// Package embedded runs etcd within this process: one member, durable (every write
// is synced before it is answered), without a TCP port unless asked for one.
package embedded

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dayfly-dev/dayfly"
)

// Server is a running etcd.
type Server struct {
	etcd   *embed.Etcd
	client *clientv3.Client
	lock   *fileutil.LockedFile

	quiet        atomic.Bool    // see slogCore.closing
	watching     sync.WaitGroup // the disk
	stopWatching context.CancelFunc

	closing  sync.Once
	closeErr error
}

// Start runs etcd with its data in dir and returns when it takes requests. A folder
// that another server uses is refused at once with dayfly.CodeConflict. With listen
// (ip:port or localhost:port; port 0 chooses one) it also takes clients over TCP,
// without TLS or authentication; without, nothing listens anywhere. Its warnings and
// errors go to log.
func Start(ctx context.Context, dir, listen string, log *slog.Logger) (*Server, error) {
	s := &Server{}
	config, err := configuration(dir, listen, &slogCore{log: log, closing: &s.quiet})
	if err != nil {
		return nil, err
	}
	if s.lock, err = lock(dir); err != nil {
		return nil, err
	}
	smallSegments()
	if err := beginAnew(dir, config.Dir); err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	if s.etcd, err = run(config); err != nil {
		s.lock.Close()
		return nil, explain(err, dir, listen)
	}
	err = s.ready(ctx)
	if err == nil {
		err = noteReady(dir)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.client = v3client.New(s.etcd.Server)
	room := &disk{dir: dir, log: log}
	room.look()
	s.client.KV = guarded{s.client.KV, room}
	watching, stop := context.WithCancel(context.Background())
	s.stopWatching = stop
	s.watching.Go(func() { room.watch(watching) })
	return s, nil
}

// Client talks to the server without a socket. It is closed with the server.
func (s *Server) Client() *clientv3.Client { return s.client }

// Endpoints are the addresses at which clients are taken over TCP, as host:port.
func (s *Server) Endpoints() []string {
	var endpoints []string
	for _, l := range s.etcd.Clients {
		endpoints = append(endpoints, l.Addr().String())
	}
	return endpoints
}

// Close stops the server. What was answered is on disk.
func (s *Server) Close() error {
	s.closing.Do(func() {
		s.quiet.Store(true)
		if s.stopWatching != nil {
			s.stopWatching()
		}
		s.watching.Wait()
		if s.client != nil {
			if err := s.client.Close(); !errors.Is(err, context.Canceled) {
				s.closeErr = err
			}
		}
		s.etcd.Close()
		s.closeErr = errors.Join(s.closeErr, s.lock.Close())
	})
	return s.closeErr
}

// readyFile says that a server on this folder has been ready once.
const readyFile = "ready"

// beginAnew removes what a first start has left that was cut short: a log that may not even
// name its only member, so that it would wait for ever to be elected. Nobody has been
// answered yet from there.
func beginAnew(dir, data string) error {
	_, err := os.Stat(filepath.Join(dir, readyFile))
	if errors.Is(err, os.ErrNotExist) {
		return os.RemoveAll(data)
	}
	return err
}

// noteReady writes the file, durably: without it the next start would begin anew.
func noteReady(dir string) error {
	path := filepath.Join(dir, readyFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close(), folder.Sync(), folder.Close())
}

// run starts etcd; where its files are broken it panics, which is an error here.
func run(config *embed.Config) (etcd *embed.Etcd, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("its files are broken (%v): restore them from a backup, or move the folder away to begin anew", p)
		}
	}()
	return embed.StartEtcd(config)
}

// ready waits until the server takes requests.
func (s *Server) ready(ctx context.Context) error {
	// A member begins an election when it has heard from no leader for a while.
	// The only one need not wait for that: this message, with which a leader
	// hands over, makes it begin at once, as soon as it has read its log.
	id := uint64(s.etcd.Server.MemberID())
	elect := &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), To: &id, From: &id}
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-s.etcd.Server.ReadyNotify():
			return nil
		case err := <-s.etcd.Err():
			return dayfly.Errorf(dayfly.CodeFailed, "the embedded etcd did not start: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("starting the embedded etcd: %w", ctx.Err())
		case <-again.C:
		}
		if s.etcd.Server.Leader() == 0 && s.caughtUp() {
			if err := s.etcd.Server.Process(ctx, elect); err != nil && ctx.Err() == nil {
				return dayfly.Errorf(dayfly.CodeFailed, "the embedded etcd did not start: %w", err)
			}
		}
	}
}

// caughtUp says whether raft knows that its whole log has been applied. An election before
// that looks through the log for changes of the membership, and panics where etcd has
// dropped from memory what it has applied. Should this never be so, an election comes by
// itself after a while.
func (s *Server) caughtUp() bool {
	status, ok := expvar.Get("raft.status").(expvar.Func) // etcd shows it nowhere else
	if !ok {
		return false
	}
	raft, ok := status().(raft.Status)
	applied := s.etcd.Server.AppliedIndex()
	return ok && applied > 0 && applied == s.etcd.Server.CommittedIndex() && raft.Applied == applied && raft.Applied == raft.GetCommit()
}

// explain says what an error of the start means.
func explain(err error, dir, listen string) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "listen" {
		return dayfly.Errorf(dayfly.CodeFailed, "etcd cannot listen on %s: %w; choose another --etcd-listen", listen, err)
	}
	return dayfly.Errorf(dayfly.CodeFailed, "the embedded etcd does not start on %s: %w", dir, err)
}

// configuration is chosen for one quiet member: small files, little memory, few
// wake-ups.
func configuration(dir, listen string, log zapcore.Core) (*embed.Config, error) {
	c := embed.NewConfig()
	c.Name = "dayfly"
	c.Dir = filepath.Join(dir, "etcd")
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(log, zap.WithFatalHook(zapcore.WriteThenPanic)))

	// Nobody is listened for: the peers' address is a name that never is used.
	nowhere := url.URL{Scheme: "http", Host: "dayfly.invalid:2380"}
	c.ListenPeerUrls = nil
	c.AdvertisePeerUrls = []url.URL{nowhere}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.ListenClientUrls, c.AdvertiseClientUrls = nil, nil
	if listen != "" {
		u, err := clientURL(listen)
		if err != nil {
			return nil, err
		}
		c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{u}, []url.URL{u}
	}

	// The shortest lease is 1.5 election time-outs, rounded up to seconds:
	// this makes it 1 s.
	c.TickMs, c.ElectionMs = 100, 500

	// Old revisions are kept for watches that were interrupted for a moment.
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModeRevision, "1000"
	// Entries of the log are held in memory until the next snapshot, and for
	// slow followers, of which there are none.
	c.SnapshotCount, c.SnapshotCatchUpEntries = 1000, 100
	c.MaxWalFiles, c.MaxSnapFiles = 2, 2
	c.QuotaBackendBytes = 4 << 30
	c.BootstrapDefragThresholdMegabytes = 64
	c.MaxTxnOps = 4096
	c.MaxRequestBytes = 8 << 20
	// A laptop whose disk is busy is no news.
	c.WarningApplyDuration, c.WarningUnaryRequestDuration = time.Second, 2*time.Second
	return c, nil
}

func clientURL(listen string) (url.URL, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || port == "" || host != "localhost" && net.ParseIP(host) == nil {
		return url.URL{}, dayfly.Invalid(dayfly.Problem{Field: "etcd-listen",
			Message: fmt.Sprintf("%q is no address to listen on: write IP:PORT, such as 127.0.0.1:2379", listen)})
	}
	return url.URL{Scheme: "http", Host: listen}, nil
}

// smallSegments makes the files of the log 4 MB instead of 64 MB; two of them are
// always there. etcd has no setting for it but this variable.
var smallSegments = sync.OnceFunc(func() { wal.SegmentSizeBytes = 4 << 20 })
