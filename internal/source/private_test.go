package source

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

// password is one that is found wherever it is.
const password = "correct-horse-7f3a9b"

// twoRepositories are a project's own, and one of a service with a branch more.
func twoRepositories(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	for _, name := range []string{"one", "two"} {
		if err := os.Rename(repository(t), filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	git(t, filepath.Join(root, "two"), "switch", "--quiet", "--create", "only-in-two")
	commit(t, filepath.Join(root, "two"), "of two")
	return root
}

func TestATokenOpensPrivateRepositories(t *testing.T) {
	root := twoRepositories(t)
	for _, c := range []struct {
		what, user string
		token      string
	}{
		{"a name and a password", "ann", "ann:" + password},
		{"a token alone", "*", password},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := startForge(t, root, c.user, password, false)
			s := open(t)
			token := dayfly.NewSecret(c.token)
			one, two := parse(t, f.URL+"/one/.git"), parse(t, f.URL+"/two/.git")
			_, _, err := s.Resolve(t.Context(), one, token, Ref{Branch, "only-in-two"})
			wantCode(t, err, dayfly.CodeNotFound, "only-in-two", "its branches are main")
			commit, _ := resolve(t, s, two, token, Ref{Branch, "only-in-two"})
			if text := read(t, filepath.Join(tree(t, s, two, token, commit), "text")); text != "of two" {
				t.Errorf("the tree has %q", text)
			}
			work := t.TempDir()
			if err := s.Worktree(t.Context(), two, token, commit, work); err != nil {
				t.Fatal(err)
			}
			if got := git(t, work, "rev-parse", "HEAD"); got != commit {
				t.Errorf("the work tree is at %s, want %s", got, commit)
			}
			for _, dir := range []string{s.Dir, work, os.Getenv("HOME")} {
				if found := search(t, dir, password); len(found) > 0 {
					t.Errorf("the password is in %v", found)
				}
			}
		})
	}
}

func TestAWrongTokenOrNoneIsForbiddenWithAdviceAndWithoutAQuestion(t *testing.T) {
	f := startForge(t, twoRepositories(t), "ann", password, false)
	s := open(t)
	repo := parse(t, f.URL+"/one/.git")
	wrong := "ann:wrong-" + password
	for _, c := range []struct {
		token dayfly.Secret
		words []string
	}{
		{none, []string{"wants a login", "--github-token", "git's credentials", repo.URL}},
		{dayfly.NewSecret(wrong), []string{"does not take the token", "--github-token", repo.URL}},
	} {
		_, _, err := s.Resolve(t.Context(), repo, c.token, Ref{})
		wantCode(t, err, dayfly.CodeForbidden, c.words...)
		if strings.Contains(err.Error(), password) {
			t.Errorf("the error shows the token: %v", err)
		}
		_, err = s.Heads(t.Context(), repo, c.token)
		wantCode(t, err, dayfly.CodeForbidden)
	}
	// What one may see, another may not, even where the mirror has it already.
	resolve(t, s, repo, f.token(), Ref{})
	_, _, err := s.Resolve(t.Context(), repo, none, Ref{})
	wantCode(t, err, dayfly.CodeForbidden)
}

func TestThePasswordIsInNoProcessDuringAFetch(t *testing.T) {
	f := startForge(t, twoRepositories(t), "ann", password, true)
	s := open(t)
	repo := parse(t, f.URL+"/two/.git")
	stop := make(chan struct{})
	var sampler sync.WaitGroup
	var mu sync.Mutex
	leaks := map[string]bool{}
	look := func() {
		for _, p := range processes() {
			if strings.Contains(p, password) {
				mu.Lock()
				leaks[p] = true
				mu.Unlock()
			}
		}
	}
	sampler.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				look()
			}
		}
	})
	done := make(chan error, 1)
	go func() {
		_, _, err := s.Resolve(context.Background(), repo, f.token(), Ref{Branch, "only-in-two"})
		done <- err
	}()
	select {
	case <-f.held:
	case err := <-done:
		t.Fatalf("the fetch was not slow: %v", err)
	}
	if !running("fetch") || !running("remote-http") {
		t.Error("no git is running that could be looked at")
	}
	look()
	if found := search(t, s.Dir, password); len(found) > 0 {
		t.Errorf("the password is in %v", found)
	}
	close(f.hold)
	if err := <-done; err != nil {
		t.Error(err)
	}
	close(stop)
	sampler.Wait()
	for p := range leaks {
		t.Errorf("the password is in the process %s", p)
	}
	if found := search(t, s.Dir, password); len(found) > 0 {
		t.Errorf("the password is in %v", found)
	}
}

func TestATokenDoesNotFollowARedirectToAnotherHost(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, p, _ := r.BasicAuth()
		mu.Lock()
		seen = append(seen, p)
		mu.Unlock()
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, "who are you?", http.StatusUnauthorized)
	}))
	t.Cleanup(thief.Close)
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, thief.URL+r.URL.String(), http.StatusFound)
	}))
	t.Cleanup(host.Close)
	_, _, err := open(t).Resolve(t.Context(), parse(t, host.URL+"/one/.git"), dayfly.NewSecret("ann:"+password), Ref{})
	wantCode(t, err, dayfly.CodeForbidden)
	mu.Lock()
	defer mu.Unlock()
	if len(seen) == 0 {
		t.Error("nobody followed the redirect")
	}
	for _, p := range seen {
		if p != "" {
			t.Errorf("the other host was given %q", p)
		}
	}
}

func TestARepositoryThatMovedOnItsHostIsFollowedWithTheToken(t *testing.T) {
	f := startForge(t, twoRepositories(t), "ann", password, false)
	inner := f.Config.Handler
	f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.String(), "/old"); ok {
			http.Redirect(w, r, "/one"+rest, http.StatusMovedPermanently)
			return
		}
		inner.ServeHTTP(w, r)
	})
	s := open(t)
	resolve(t, s, parse(t, f.URL+"/old/.git"), f.token(), Ref{Branch, "main"})
}

// home makes a home with a git configuration and a Source whose user lives there.
func home(t *testing.T, config string) (dir string, s *Source) {
	t.Helper()
	dir = t.TempDir()
	write(t, filepath.Join(dir, ".gitconfig"), strings.ReplaceAll(config, "HOME", dir))
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "none"))
	s, err := New(Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return dir, s
}

func TestTheUsersOwnCredentialHelpersAreUsed(t *testing.T) {
	f := startForge(t, twoRepositories(t), "ann", password, false)
	repo := parse(t, f.URL+"/one/.git")
	for what, config := range map[string]string{
		"a shell function":      "[credential]\n\thelper = \"!f() { test \\\"$1\\\" = get && echo username=ann && echo password=" + password + "; }; f\"\n",
		"one that keeps a file": "[credential]\n\thelper = store --file HOME/stored\n",
		"one for this host":     "[credential \"" + f.URL + "\"]\n\tusername = ann\n\thelper = store --file HOME/stored\n",
		"one after a reset":     "[credential]\n\thelper = \"!touch HOME/wrong; false\"\n\thelper =\n\thelper = store --file HOME/stored\n\tuseHttpPath\n",
	} {
		t.Run(what, func(t *testing.T) {
			dir, s := home(t, config)
			url := strings.Replace(f.URL, "http://", "http://ann:"+password+"@", 1)
			write(t, filepath.Join(dir, "stored"), url+"\n"+url+"/one/.git\n")
			commit, _ := resolve(t, s, repo, none, Ref{})
			tree(t, s, repo, none, commit)
			if _, err := os.Stat(filepath.Join(dir, "wrong")); err == nil {
				t.Error("a helper ran that the user had taken out")
			}
			if found := search(t, filepath.Join(s.Dir, "mirrors"), password); len(found) > 0 {
				t.Errorf("the password is in %v", found)
			}
		})
	}
}

func TestATokenIsNotGivenToTheUsersHelpers(t *testing.T) {
	f := startForge(t, twoRepositories(t), "ann", password, false)
	dir, s := home(t, "[credential]\n\thelper = \"!echo called >>HOME/called; cat >>HOME/called; true\"\n\thelper = store --file HOME/stored\n")
	write(t, filepath.Join(dir, "stored"), strings.Replace(f.URL, "http://", "http://ann:another@", 1)+"\n")
	resolve(t, s, parse(t, f.URL+"/one/.git"), f.token(), Ref{})
	if found := search(t, dir, password); len(found) > 0 {
		t.Errorf("the token is in %v", found)
	}
	if _, err := os.Stat(filepath.Join(dir, "called")); err == nil {
		t.Error("a helper was called")
	}
}

func TestARepositoryThatHangsEndsWithTheContext(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	accepted := make(chan net.Conn, 1)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- conn
		}
	}()
	url := "http://" + listener.Addr().String() + "/hangs"
	ctx, cancel := context.WithCancel(t.Context())
	s := open(t)
	done := make(chan error, 1)
	go func() {
		_, _, err := s.Resolve(ctx, parse(t, url), none, Ref{})
		done <- err
	}()
	conn := <-accepted
	t.Cleanup(func() { conn.Close() })
	if !running(url) {
		t.Error("no git is asking")
	}
	cancel()
	if err := <-done; !isCanceled(err) {
		t.Errorf("ends with %v", err)
	}
	eventually(t, "all of git has ended", func() bool { return !running(url) })
}

func TestAHelperThatHangsAndWillNotEndIsKilled(t *testing.T) {
	f := startForge(t, twoRepositories(t), "ann", password, false)
	// Each run looks for a process of its own.
	dir, s := home(t, "[credential]\n\thelper = \"!f() { trap '' TERM; touch HOME/asked; tail -f HOME/.gitconfig; }; f\"\n")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, err := s.Resolve(ctx, parse(t, f.URL+"/one/.git"), none, Ref{})
		done <- err
	}()
	eventually(t, "the helper is asked", func() bool { _, err := os.Stat(filepath.Join(dir, "asked")); return err == nil })
	cancel()
	if err := <-done; !isCanceled(err) {
		t.Errorf("ends with %v", err)
	}
	eventually(t, "the helper has ended", func() bool { return !running("tail -f " + dir) })
}

func TestAFetchThatIsCutCanBeRepeated(t *testing.T) {
	f := startForge(t, twoRepositories(t), "ann", password, true)
	s := open(t)
	repo := parse(t, f.URL+"/two/.git")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, err := s.Resolve(ctx, repo, f.token(), Ref{})
		done <- err
	}()
	<-f.held
	cancel()
	if err := <-done; !isCanceled(err) {
		t.Errorf("ends with %v", err)
	}
	close(f.hold)
	commit, _ := resolve(t, s, repo, f.token(), Ref{Branch, "only-in-two"})
	tree(t, s, repo, f.token(), commit)
}

func TestWhatAHostSaysDoesNotReachTheTerminal(t *testing.T) {
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		http.Error(w, "\x1b[2Jall is well\a", http.StatusForbidden)
	}))
	t.Cleanup(host.Close)
	_, _, err := open(t).Resolve(t.Context(), parse(t, host.URL+"/x"), none, Ref{})
	wantCode(t, err, dayfly.CodeForbidden)
	if strings.ContainsAny(err.Error(), "\x1b\a") {
		t.Errorf("the error steers a terminal: %q", err)
	}
}
