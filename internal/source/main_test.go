package source

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly"
)

func TestMain(m *testing.M) {
	runAsHook()
	goleak.VerifyTestMain(m)
}

// open makes a Source whose user has an empty home.
func open(t testing.TB) *Source {
	t.Helper()
	if tt, ok := t.(*testing.T); ok {
		tt.Setenv("HOME", t.TempDir())
	}
	s, err := New(Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// git runs git as a developer would, and gives what it says.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org",
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// repository makes one with a commit on main.
func repository(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	git(t, dir, "init", "--quiet", "--initial-branch=main", "--template=")
	commit(t, dir, "first")
	return dir
}

// commit writes a text into the file "text" and gives the commit.
func commit(t testing.TB, dir, text string) string {
	t.Helper()
	write(t, filepath.Join(dir, "text"), text)
	git(t, dir, "add", "--all")
	git(t, dir, "commit", "--quiet", "--message", text)
	return git(t, dir, "rev-parse", "HEAD")
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func parse(t testing.TB, url string) Repo {
	t.Helper()
	repo, _, err := ParseRepo(url, true)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

func resolve(t testing.TB, s *Source, repo Repo, token dayfly.Secret, ref Ref) (commit, name string) {
	t.Helper()
	commit, name, err := s.Resolve(t.Context(), repo, token, ref)
	if err != nil {
		t.Fatal(err)
	}
	return commit, name
}

func tree(t testing.TB, s *Source, repo Repo, token dayfly.Secret, commit string) string {
	t.Helper()
	dir, release, err := s.Tree(t.Context(), repo, token, commit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return dir
}

// wantCode looks for a code and for words of an error.
func wantCode(t testing.TB, err error, code dayfly.Code, words ...string) {
	t.Helper()
	if dayfly.ErrorCode(err) != code {
		t.Fatalf("the error is %v (%s), want %s", err, dayfly.ErrorCode(err), code)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error says %q, and nothing of %q", err, word)
		}
	}
}

var none dayfly.Secret

// eventually asks until done says so.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatal("still not: " + what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// forge serves the repositories below a folder as real hosts do, to those with the
// password.
type forge struct {
	*httptest.Server
	user, password string
	held           chan struct{} // closed when a pack is held back
	hold           chan struct{} // closed to let it go; nil = nothing is held back
}

func (f *forge) token() dayfly.Secret { return dayfly.NewSecret(f.user + ":" + f.password) }

// startForge serves with the password; user "*" is anybody.
func startForge(t *testing.T, root, user, password string, slow bool) *forge {
	t.Helper()
	path, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(git(t, ".", "--exec-path"), "git-http-backend")); err != nil {
		t.Skipf("git http-backend is not installed: %v", err)
	}
	f := &forge{user: user, password: password}
	if slow {
		f.held, f.hold = make(chan struct{}), make(chan struct{})
	}
	backend := &cgi.Handler{Path: path, Args: []string{"http-backend"}, Dir: root, Stderr: t.Output(),
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "HOME=/nonexistent", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, _ := r.BasicAuth()
		if u != user && user != "*" || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		r.Header.Del("Authorization") // the backend must not put it into its variables
		if slow {
			w = &slowWriter{ResponseWriter: w, forge: f}
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

// slowWriter holds back the first pack until it may go.
type slowWriter struct {
	http.ResponseWriter
	forge *forge
}

func (w *slowWriter) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "packfile") {
		select {
		case <-w.forge.held:
		default:
			close(w.forge.held)
		}
		<-w.forge.hold
	}
	return w.ResponseWriter.Write(p)
}

// spy puts a git into the PATH that notes its arguments and then is git. It gives what
// was noted.
func spy(t *testing.T) func() []string {
	t.Helper()
	real, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	write(t, log, "")
	script := "#!/bin/sh\necho \"$*\" >>" + log + "\nexec " + real + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "git"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() []string { return strings.Split(read(t, log), "\n") }
}

func count(lines []string, word string) (n int) {
	for _, l := range lines {
		if slices.Contains(strings.Fields(l), word) {
			n++
		}
	}
	return n
}

// search gives the files below a folder that hold a text.
func search(t testing.TB, dir, text string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if strings.Contains(read(t, path), text) || strings.Contains(path, text) {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// processes gives the arguments and the variables of all processes.
func processes() (all []string) {
	found, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range found {
		args, _ := os.ReadFile(filepath.Join(dir, "cmdline")) // may have ended meanwhile
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		all = append(all, strings.ReplaceAll(string(args)+"\x00"+string(env), "\x00", " "))
	}
	return all
}

func running(word string) bool {
	return slices.ContainsFunc(processes(), func(p string) bool { return strings.Contains(p, word) })
}

func isCanceled(err error) bool { return errors.Is(err, context.Canceled) }
