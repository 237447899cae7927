package embedded_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry/embedded"
)

// startOn makes the test binary start a server on a folder and print how that went.
const startOn = "TEST_START_ON"

func TestMain(m *testing.M) {
	if dir := os.Getenv(startOn); dir != "" {
		_, err := embedded.Start(context.Background(), dir, "", slog.New(slog.NewTextHandler(os.Stdout, nil)))
		fmt.Println("code:", dayfly.ErrorCode(err), "message:", err)
		return
	}
	goleak.VerifyTestMain(m)
}

func start(t testing.TB, dir, listen string, log *slog.Logger) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), dir, listen, log)
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

// listening gives the local addresses of the TCP sockets on which this process
// listens, as the kernel tells it.
func listening(t *testing.T) []string {
	t.Helper()
	own := map[string]bool{}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc:", err)
	}
	for _, fd := range fds {
		target, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var addresses []string
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, err := os.ReadFile(table)
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			const local, state, inode, listen = 1, 3, 9, "0A"
			if f := strings.Fields(line); len(f) > inode && f[state] == listen && own[f[inode]] {
				addresses = append(addresses, f[local])
			}
		}
	}
	return addresses
}

func TestNothingListensOnTCPUnlessAskedTo(t *testing.T) {
	s := start(t, t.TempDir(), "", slog.Default())
	if _, err := s.Client().Put(t.Context(), "a", "1"); err != nil {
		t.Fatal(err)
	}
	if got := listening(t); len(got) > 0 {
		t.Errorf("listens on %v", got)
	}
	if got := s.Endpoints(); len(got) > 0 {
		t.Errorf("says that it listens on %v", got)
	}

	public := start(t, t.TempDir(), "127.0.0.1:0", slog.Default())
	if got := listening(t); len(got) != 1 || len(public.Endpoints()) != 1 {
		t.Errorf("asked for one address it listens on %v and says %v", got, public.Endpoints())
	}
}

func TestClientsOverTCPSeeTheSameState(t *testing.T) {
	s := start(t, t.TempDir(), "127.0.0.1:0", slog.Default())
	if _, err := s.Client().Put(t.Context(), "a", "1"); err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: s.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	resp, err := client.Get(t.Context(), "a")
	if err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "1" {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestASecondServerOnTheSameFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	start(t, dir, "", slog.Default())
	_, err := embedded.Start(t.Context(), dir, "", slog.Default())
	if dayfly.ErrorCode(err) != dayfly.CodeConflict {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{dir, fmt.Sprint(os.Getpid())} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}

func TestAFolderCanBeUsedAgainAfterClose(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		s, err := embedded.Start(t.Context(), dir, "", slog.Default())
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.Client().Get(t.Context(), "run", clientv3.WithPrefix())
		if err != nil || len(resp.Kvs) != i {
			t.Fatalf("start %d: %v, %v", i, resp, err)
		}
		if _, err := s.Client().Put(t.Context(), fmt.Sprintf("run%d", i), ""); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnAddressThatCannotBeUsedIsExplained(t *testing.T) {
	taken := start(t, t.TempDir(), "127.0.0.1:0", slog.Default()).Endpoints()[0]
	for listen, want := range map[string]struct {
		code dayfly.Code
		text string
	}{
		"2379":             {dayfly.CodeInvalid, "IP:PORT"},
		"example.org:2379": {dayfly.CodeInvalid, "IP:PORT"},
		taken:              {dayfly.CodeFailed, "address already in use"},
	} {
		_, err := embedded.Start(t.Context(), t.TempDir(), listen, slog.New(slog.DiscardHandler))
		if dayfly.ErrorCode(err) != want.code || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: got %v", listen, err)
		}
	}
}

func TestAUsualStartAndStopLogNothing(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	dir := t.TempDir()
	for range 2 {
		s, err := embedded.Start(t.Context(), dir, "", log)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if out.Len() > 0 {
		t.Errorf("logged:\n%s", &out)
	}
}

func TestBrokenFilesAreAnErrorThatSaysSo(t *testing.T) {
	dir := t.TempDir()
	s, err := embedded.Start(t.Context(), dir, "", slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(dir, "etcd/member/wal/*.wal"))
	if err != nil || len(logs) == 0 {
		t.Fatal("etcd has no log:", err)
	}
	for _, log := range logs {
		if err := os.WriteFile(log, []byte("this is no log of etcd"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// In a process of its own: what etcd leaves running then ends with it.
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), startOn+"="+dir)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"code: failed", "restore them from a backup", "component=etcd"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q does not have %q", out, want)
		}
	}
}

func BenchmarkStart(b *testing.B) {
	run := func(b *testing.B, dir func() string) {
		for b.Loop() {
			s, err := embedded.Start(context.Background(), dir(), "", slog.Default())
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	}
	b.Run("fresh", func(b *testing.B) { run(b, b.TempDir) })
	b.Run("again", func(b *testing.B) {
		dir := b.TempDir()
		run(b, func() string { return dir })
	})
}

// BenchmarkMemory reports by how much a running server makes the process grow.
func BenchmarkMemory(b *testing.B) {
	heapBefore, residentBefore := memory(b)
	s := start(b, b.TempDir(), "", slog.Default())
	for i := 0; b.Loop(); i++ {
		if _, err := s.Client().Put(context.Background(), fmt.Sprint("key", i%1000), strings.Repeat("x", 500)); err != nil {
			b.Fatal(err)
		}
	}
	heap, resident := memory(b)
	b.ReportMetric(float64(heap-heapBefore)/1e6, "heap-MB")
	b.ReportMetric(float64(resident-residentBefore)/1e6, "resident-MB")
}

func memory(b *testing.B) (heap, resident int64) {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Skip("needs /proc:", err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		b.Fatal(err)
	}
	return int64(m.HeapAlloc), pages * int64(os.Getpagesize())
}

// A member that reads its log is asked at once to elect itself. Were entries dropped from
// memory before raft knows that they have been applied, the election would find them missing.
func TestAStartWithALongLogFindsAllOfIt(t *testing.T) {
	dir := t.TempDir()
	for round := range 40 {
		s, err := embedded.Start(t.Context(), dir, "", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("start %d: %v", round, err)
		}
		// Many at once, past a few snapshots in all.
		var writers sync.WaitGroup
		for n := range 50 {
			writers.Go(func() {
				if _, err := s.Client().Put(t.Context(), fmt.Sprint("key", n), fmt.Sprint(round)); err != nil {
					t.Error(err)
				}
			})
		}
		writers.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFirstStartThatWasCutShortIsBegunAnew(t *testing.T) {
	for pause := time.Duration(0); pause < 40*time.Millisecond; pause += 500 * time.Microsecond {
		dir := t.TempDir()
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env = append(os.Environ(), startOn+"="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// As soon as etcd has begun to write, and a little later with each round.
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if _, err := os.Stat(filepath.Join(dir, "etcd", "member")); err == nil {
				break
			}
		}
		time.Sleep(pause)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		s, err := embedded.Start(ctx, dir, "", slog.New(slog.DiscardHandler))
		cancel()
		if err != nil {
			t.Fatalf("killed %s after it began: %v", pause, err)
		}
		if _, err := s.Client().Put(t.Context(), "key", "value"); err != nil {
			t.Errorf("killed %s after it began: %v", pause, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
