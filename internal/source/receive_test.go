package source

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// runAsHook makes this program the hook that git runs in the tests.
func runAsHook() {
	if len(os.Args) > 2 && os.Args[1] == "hook" {
		if err := RunHook(os.Args[2:], os.Getenv, os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// office is a Receiver that a test decides for.
type office struct {
	mu     sync.Mutex
	refuse map[string]string // by ref
	landed []Update
	seen   [][]string // options
	say    []string
	gate   chan struct{} // nil = open
	left   chan error    // what ended the context of a push
}

func (o *office) Admit(_ context.Context, u Update) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if why := o.refuse[u.Ref]; why != "" {
		return errors.New(why)
	}
	return nil
}

func (o *office) Landed(ctx context.Context, all []Update, options []string, say func(string)) {
	o.mu.Lock()
	o.landed, o.seen = append(o.landed, all...), append(o.seen, options)
	lines, gate := o.say, o.gate
	o.mu.Unlock()
	for _, l := range lines {
		say(l)
	}
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			o.left <- ctx.Err()
		}
	}
}

// hosting serves one hosted repository.
func hosting(t *testing.T, s *Source, o *office) (address string, repo Repo) {
	t.Helper()
	repo, ok := s.Hosted(dayfly.Project{ID: "p1", Name: "shop"}.Hosted())
	if !ok {
		t.Fatal("is no hosted repository")
	}
	release, err := s.Host(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	release()
	server, err := s.NewServer("/proc/self/exe", "hook")
	if err != nil {
		t.Fatal(err)
	}
	// git's hook is a shell: its own /proc/self is another program.
	if server.hook[0], err = os.Executable(); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		server.Serve(w, r, repo, strings.TrimPrefix(r.URL.Path, "/shop.git"), o)
	}))
	t.Cleanup(func() {
		web.Close()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return web.URL + "/shop.git", repo
}

// tried runs git and gives what it says, also when it fails.
func tried(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestAPushMovesItsBranchesAndShowsWhatIsSaid(t *testing.T) {
	s, o := open(t), &office{say: []string{"the first step", "ready \x1b[31mnow"}}
	address, repo := hosting(t, s, o)
	dir := repository(t)
	first := git(t, dir, "rev-parse", "HEAD")
	out, err := tried(dir, "push", "-o", "no-wait", "-o", "keep=3d", address, "main", "main:refs/tags/v1")
	if err != nil || !strings.Contains(out, "remote: the first step") || !strings.Contains(out, "remote: ready [31mnow") {
		t.Fatalf("%v: %s", err, out)
	}
	if len(o.landed) != 2 || o.landed[0].New != first || len(o.seen) != 1 || !slices.Equal(o.seen[0], []string{"no-wait", "keep=3d"}) {
		t.Errorf("%+v landed with %q", o.landed, o.seen)
	}
	got, name, err := s.Resolve(t.Context(), repo, none, Ref{Kind: Default})
	if err != nil || got != first || name != "main" {
		t.Errorf("the default branch is %s at %s (%v)", name, got, err)
	}
	if text := read(t, filepath.Join(tree(t, s, repo, none, first), "text")); text != "first" {
		t.Errorf("the tree has %q", text)
	}
	if _, err := os.Stat(filepath.Join(s.Dir, "mirrors", "p1")); err == nil || len(names(t, filepath.Join(s.Dir, "mirrors"))) != 0 {
		t.Error("a hosted repository has a mirror besides itself")
	}
	second := commit(t, dir, "second")
	if out, err := tried(dir, "push", address, "main:other", ":refs/tags/v1"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	heads, err := s.Heads(t.Context(), repo, none)
	if err != nil || heads.Default != "main" || len(heads.Branches) != 2 || heads.Branches["other"] != second {
		t.Errorf("the heads are %v (%v)", heads, err)
	}
	if !slices.ContainsFunc(o.landed, func(u Update) bool { return u.Ref == "refs/tags/v1" && u.Deleted() }) {
		t.Errorf("no tag was deleted: %+v", o.landed)
	}
}

func TestARefusedBranchDoesNotMoveAndAnotherOfTheSamePushDoes(t *testing.T) {
	s, o := open(t), &office{refuse: map[string]string{"refs/heads/bad": "compose.yaml:3:1: is wrong\nand so is this"}}
	address, repo := hosting(t, s, o)
	dir := repository(t)
	out, err := tried(dir, "push", address, "main:bad", "main:good", "main:refs/notes/x")
	if err == nil || !strings.Contains(out, "remote: compose.yaml:3:1: is wrong") || !strings.Contains(out, "remote: and so is this") ||
		!strings.Contains(out, "only branches and tags") {
		t.Fatalf("%v: %s", err, out)
	}
	heads, err := s.Heads(t.Context(), repo, none)
	if err != nil || len(heads.Branches) != 1 || heads.Branches["good"] == "" || heads.Default != "good" {
		t.Errorf("the heads are %v (%v)", heads, err)
	}
	if len(o.landed) != 1 || o.landed[0].Ref != "refs/heads/good" {
		t.Errorf("%+v landed", o.landed)
	}
}

func TestALargePushIsTakenUpToTheLimit(t *testing.T) {
	s, o := open(t), &office{}
	s.MaxPush = 8 << 20
	address, _ := hosting(t, s, o)
	dir := repository(t)
	noise := func(size int) string {
		b := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(b)
		return string(b)
	}
	write(t, filepath.Join(dir, "noise"), noise(4<<20)) // more than git sends with its length
	commit(t, dir, "large")
	if out, err := tried(dir, "push", address, "main"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	copied := t.TempDir()
	if out, err := tried(copied, "clone", "--quiet", address, "copy"); err != nil || read(t, filepath.Join(copied, "copy", "noise")) != noise(4<<20) {
		t.Errorf("the copy differs (%v: %s)", err, out)
	}
	write(t, filepath.Join(dir, "more"), noise(9<<20))
	commit(t, dir, "too large")
	if out, err := tried(dir, "push", address, "main"); err == nil || !strings.Contains(out, "maximum allowed size") {
		t.Errorf("%v: %s", err, out)
	}
	if len(o.landed) != 1 {
		t.Errorf("%d branches landed", len(o.landed))
	}
}

func TestWhoPushesMayGoAway(t *testing.T) {
	s, o := open(t), &office{say: []string{"wait for it"}, gate: make(chan struct{}), left: make(chan error, 1)}
	address, repo := hosting(t, s, o)
	dir := repository(t)
	cmd := exec.Command("git", "push", address, "main")
	cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Setpgid: true}
	lines := &lookout{want: "wait for it", seen: make(chan struct{})}
	cmd.Stderr = lines
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lines.seen:
	case <-time.After(time.Minute):
		t.Fatal("nothing was shown while the push went on")
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) // as Ctrl-C: to all that it started
	_ = cmd.Wait()
	select {
	case err := <-o.left:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the server did not notice")
	}
	if heads, err := s.Heads(t.Context(), repo, none); err != nil || heads.Branches["main"] == "" {
		t.Errorf("the heads are %v (%v)", heads, err)
	}
}

// lookout closes seen once want was written.
type lookout struct {
	want string
	all  strings.Builder
	once sync.Once
	seen chan struct{}
}

func (l *lookout) Write(p []byte) (int, error) {
	l.all.Write(p)
	if strings.Contains(l.all.String(), l.want) {
		l.once.Do(func() { close(l.seen) })
	}
	return len(p), nil
}

func TestOnlyGitsSmartProtocolIsServed(t *testing.T) {
	s, o := open(t), &office{}
	address, _ := hosting(t, s, o)
	for _, path := range []string{"/HEAD", "/config", "/objects/info/packs", "/info/refs", "/info/refs?service=git-shell", "/../../gitconfig", "/git-upload-pack"} {
		resp, err := http.Get(address + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

func TestAHookWithoutItsSecretIsNotAnswered(t *testing.T) {
	s, o := open(t), &office{}
	server, err := s.NewServer("/bin/true", "")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	env := map[string]string{hookSocket: server.sockets.Addr().String(), hookSecret: "guess"}
	err = RunHook([]string{"update", "refs/heads/main", strings.Repeat("0", 40), strings.Repeat("1", 40)}, func(k string) string { return env[k] }, strings.NewReader(""), os.Stdout)
	if err == nil || errors.Is(err, ErrRefused) || len(o.landed) != 0 {
		t.Errorf("answered with %v", err)
	}
	if err := RunHook([]string{"rm", "-rf"}, os.Getenv, strings.NewReader(""), os.Stdout); err == nil {
		t.Error("an unknown hook was run")
	}
}

func TestTheRepositoryOfAProjectGoesWithIt(t *testing.T) {
	s := open(t)
	for _, id := range []string{"here", "gone", "used"} {
		repo, _ := s.Hosted(dayfly.Project{ID: id, Name: "x"}.Hosted())
		release, err := s.Host(t.Context(), repo)
		if err != nil {
			t.Fatal(err)
		}
		if id != "used" {
			release()
		}
	}
	known := func(id string) bool { return id == "here" }
	if err := s.SweepHosted(time.Hour, known); err != nil || names(t, filepath.Join(s.Dir, pushed)) != "gone.git here.git used.git" {
		t.Errorf("young ones were removed (%v)", err)
	}
	if err := s.SweepHosted(0, known); err != nil {
		t.Fatal(err)
	}
	if left := names(t, filepath.Join(s.Dir, pushed)); left != "here.git used.git" {
		t.Errorf("there are %s", left)
	}
	for _, bad := range []string{"dayfly://", "dayfly://../x", "dayfly://a.b/x", "https://x/y", "dayfly:///x"} {
		if repo, ok := s.Hosted(bad); ok {
			t.Errorf("%s is %v", bad, repo.Local)
		}
		if _, _, err := ParseRepo(bad, true); strings.HasPrefix(bad, "dayfly:") && err == nil {
			t.Errorf("%s is a URL that anybody may give", bad)
		}
	}
}
