package demo

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	shop "github.com/dayfly-dev/dayfly/examples/shop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// prepared gives a tour whose repository has been made.
func prepared(t *testing.T) *tour {
	t.Helper()
	made := &tour{repo: filepath.Join(t.TempDir(), "shop")}
	if err := made.makeRepository(t.Context()); err != nil {
		t.Fatal(err)
	}
	return made
}

// output gives what git says.
func (t *tour) output(test *testing.T, args ...string) string {
	test.Helper()
	cmd := exec.CommandContext(test.Context(), "git", args...)
	cmd.Dir = t.repo
	out, err := cmd.CombinedOutput()
	if err != nil {
		test.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

const version = "backend/version.go"

func TestTheRepositoryHasTwoBranchesThatDiffer(t *testing.T) {
	made := prepared(t)
	for i, branch := range []string{"main", "summer-sale"} {
		dir := t.TempDir()
		if err := shop.Write(dir, i+1); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(dir, version))
		if err != nil {
			t.Fatal(err)
		}
		if got := made.output(t, "show", branch+":"+version); got != strings.TrimSpace(string(want)) {
			t.Errorf("%s has\n%s\nwant\n%s", branch, got, want)
		}
	}
	if changed := made.output(t, "diff", "--name-only", "main", "summer-sale"); changed != version {
		t.Errorf("the branches differ in %q", changed)
	}
	if base := made.output(t, "merge-base", "main", "summer-sale"); base != made.output(t, "rev-parse", "main") {
		t.Errorf("summer-sale goes on from %s, not from main", base)
	}
}

func TestTheRepositoryIsLeftOnMainWithNothingToCommit(t *testing.T) {
	made := prepared(t)
	if branch := made.output(t, "symbolic-ref", "--short", "HEAD"); branch != "main" {
		t.Errorf("is on %s", branch)
	}
	if changes := made.output(t, "status", "--porcelain"); changes != "" {
		t.Errorf("there is to commit: %s", changes)
	}
}

func TestARepositoryIsNotMadeOverAnother(t *testing.T) {
	made := prepared(t)
	if err := made.makeRepository(t.Context()); err == nil {
		t.Error("it was")
	}
}

// The tour's own words: they have to be in the shop.
func TestTheTourCommitsToMainAlone(t *testing.T) {
	made := prepared(t)
	main, sale := made.output(t, "rev-parse", "main"), made.output(t, "rev-parse", "summer-sale")
	if err := made.commit(t.Context(), "Everything for a life of one day", "Everything for a life of one day, and one evening", "Sell evenings, too"); err != nil {
		t.Fatal(err)
	}
	if got := made.output(t, "show", "main:"+version); !strings.Contains(got, "one evening") {
		t.Errorf("main has\n%s", got)
	}
	if parent := made.output(t, "rev-parse", "main~1"); parent != main {
		t.Errorf("goes on from %s, not from %s", parent, main)
	}
	if got := made.output(t, "rev-parse", "summer-sale"); got != sale {
		t.Errorf("summer-sale has moved to %s", got)
	}
}

func TestACommitThatChangesNothingFails(t *testing.T) {
	if err := prepared(t).commit(t.Context(), "not in the shop", "anything", "Nothing"); err == nil {
		t.Error("it did not")
	}
}

// serve starts a server whose hosts answer well, badly or not at all.
func serve(t *testing.T) (address string, asked *atomic.Int64, failing *atomic.Int64) {
	t.Helper()
	asked, failing = &atomic.Int64{}, &atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch r.Host {
		case "bad.localhost":
			failing.Add(1)
			http.Error(w, "bad", http.StatusBadGateway)
		case "broken.localhost":
			failing.Add(1)
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "half of")
			// Without this the client may see no answer at all, and asks again by itself.
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			panic(http.ErrAbortHandler)
		default:
			fmt.Fprint(w, "hello")
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), asked, failing
}

// until waits for n to be reached.
func until(t *testing.T, count *atomic.Int64, n int64) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for count.Load() < n {
		if time.Now().After(deadline) {
			t.Fatalf("only %d", count.Load())
		}
		time.Sleep(time.Millisecond)
	}
}

func TestLoadCountsRequestsAndFailures(t *testing.T) {
	for _, c := range []struct {
		name    string
		hosts   []string
		mention string // in the first error; "" = none fails
	}{
		{"all is well", []string{"good.localhost", "fine.localhost"}, ""},
		{"one host answers with an error", []string{"good.localhost", "bad.localhost"}, "bad.localhost answered 502"},
		{"an answer is cut off", []string{"good.localhost", "broken.localhost"}, "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			address, asked, failing := serve(t)
			l := startLoad(t.Context(), address, c.hosts)
			until(t, asked, 100)
			if c.mention != "" {
				until(t, failing, 10)
			}
			r := l.stop()
			if r.requests != asked.Load() || r.failed != failing.Load() || r.duration <= 0 {
				t.Errorf("counted %+v, the server %d and %d", r, asked.Load(), failing.Load())
			}
			if c.mention == "" && r.err != nil || c.mention != "" && (r.err == nil || !strings.Contains(r.err.Error(), c.mention)) {
				t.Errorf("the first error is %v", r.err)
			}
		})
	}
}

func TestAServerThatIsNotThereCountsAsFailures(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	l := startLoad(t.Context(), server.Listener.Addr().String(), []string{"good.localhost"})
	until(t, &l.failed, 10)
	if r := l.stop(); r.failed != r.requests || r.err == nil {
		t.Errorf("counted %+v", r)
	}
}

func TestStoppingTheLoadFailsNoRequest(t *testing.T) {
	for _, by := range []string{"stop", "its context"} {
		t.Run("by "+by, func(t *testing.T) {
			var begun atomic.Int64
			answer := make(chan struct{})
			server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				begun.Add(1)
				<-answer
			}))
			defer server.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			l := startLoad(ctx, server.Listener.Addr().String(), []string{"good.localhost"})
			until(t, &begun, clients)
			if by == "stop" {
				l.cancel() // as stop does first
			} else {
				cancel()
			}
			close(answer)
			if r := l.stop(); r.requests != clients || r.failed != 0 {
				t.Errorf("counted %+v: %v", r, r.err)
			}
		})
	}
}

func TestAResultIsOneLine(t *testing.T) {
	r := result{requests: 3000, failed: 2, duration: 2 * time.Second}
	if got, want := r.String(), "3000 requests, 2 failed, 1500 requests/s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFoldersThatAreReadOnlyAreRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	inner := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(inner, "file"), nil, 0o400); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{inner, filepath.Dir(inner), dir} {
		if err := os.Chmod(folder, 0o500); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeAll(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("it is left: %v", err)
	}
}
