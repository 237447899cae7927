package source

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-dev/dayfly"
)

func TestATreeHasTheFilesOfItsCommitAndNoRepository(t *testing.T) {
	dir := repository(t)
	write(t, filepath.Join(dir, "bin", "tool"), "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(dir, "bin", "tool"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"inside": "text", "outside": "/etc/passwd", "above": "../../..", "broken": "nowhere"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	one := commit(t, dir, "one")
	commit(t, dir, "two")
	s, repo := open(t), parse(t, dir)
	got := tree(t, s, repo, none, one)
	if text := read(t, filepath.Join(got, "text")); text != "one" {
		t.Errorf("the text is %q", text)
	}
	for link, target := range map[string]string{"inside": "text", "outside": "/etc/passwd", "above": "../../..", "broken": "nowhere"} {
		if is, err := os.Readlink(filepath.Join(got, link)); err != nil || is != target {
			t.Errorf("%s leads to %q (%v), want %q", link, is, err, target)
		}
	}
	if info, err := os.Stat(filepath.Join(got, "bin", "tool")); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("the tool is not executable: %v, %v", info, err)
	}
	if _, err := os.Lstat(filepath.Join(got, ".git")); err == nil {
		t.Error("it has a .git")
	}
}

func TestAWorktreeIsASmallRepositoryAtItsCommit(t *testing.T) {
	dir := repository(t)
	commit(t, dir, "one")
	want := commit(t, dir, "two")
	s := open(t)
	dst := t.TempDir()
	if err := s.Worktree(t.Context(), parse(t, dir), none, want, dst); err != nil {
		t.Fatal(err)
	}
	if got := git(t, dst, "rev-parse", "HEAD"); got != want {
		t.Errorf("is at %s, want %s", got, want)
	}
	if changed := git(t, dst, "status", "--porcelain"); changed != "" {
		t.Errorf("differs from its commit: %s", changed)
	}
	if n := git(t, dst, "rev-list", "--count", "HEAD"); n != "1" {
		t.Errorf("has %s commits", n)
	}
	if remotes := git(t, dst, "remote"); remotes != "" {
		t.Errorf("has the remotes %s", remotes)
	}
	// It does not need the mirror any more.
	if err := os.RemoveAll(filepath.Join(s.Dir, "mirrors")); err != nil {
		t.Fatal(err)
	}
	git(t, dst, "fsck", "--full")
}

func TestACommitThatIsNotThereIsNotFound(t *testing.T) {
	s, repo := open(t), parse(t, repository(t))
	commit := strings.Repeat("12", 20)
	_, _, err := s.Tree(t.Context(), repo, none, commit)
	wantCode(t, err, dayfly.CodeNotFound, commit)
	wantCode(t, s.Worktree(t.Context(), repo, none, commit, t.TempDir()), dayfly.CodeNotFound, commit)
}

func TestNothingInARepositoryOrInTheUsersConfigurationRuns(t *testing.T) {
	bait := t.TempDir() // where whatever runs leaves a file
	touch := func(what string) string { return "touch " + bait + "/" + what + "; cat" }
	dir := repository(t)
	write(t, filepath.Join(dir, ".gitattributes"), "* filter=evil diff=evil merge=evil\ntext ident\nlfs filter=lfs\n")
	write(t, filepath.Join(dir, "lfs"), "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
	write(t, filepath.Join(dir, ".gitmodules"), "[submodule \"sub\"]\n\tpath = sub\n\turl = ext::sh -c touch% "+bait+"/submodule\n\tupdate = !touch "+bait+"/update\n")
	write(t, filepath.Join(dir, ".lfsconfig"), "[lfs]\n\turl = ext::sh\n")
	write(t, filepath.Join(dir, "hooks", "post-checkout"), "#!/bin/sh\ntouch "+bait+"/tree-hook\n")
	git(t, dir, "update-index", "--add", "--cacheinfo", "160000,"+git(t, dir, "rev-parse", "HEAD")+",sub")
	git(t, dir, "add", "--all")
	git(t, dir, "update-index", "--add", "--cacheinfo", "160000,"+git(t, dir, "rev-parse", "HEAD")+",sub")
	git(t, dir, "commit", "--quiet", "--message", "bait")
	commit := git(t, dir, "rev-parse", "HEAD")

	hooks := filepath.Join(t.TempDir(), "hooks")
	evil := func(where string) string {
		return "[core]\n\tfsmonitor = " + touch(where+"-fsmonitor") + "\n\thooksPath = " + hooks + "\n\tsshCommand = " + touch(where+"-ssh") +
			"\n\tpager = " + touch(where+"-pager") + "\n[filter \"evil\"]\n\tsmudge = \"" + touch(where+"-smudge") + "\"\n\tclean = \"" + touch(where+"-clean") +
			"\"\n[filter \"lfs\"]\n\tsmudge = \"" + touch(where+"-lfs") + "\"\n\tprocess = \"" + touch(where+"-process") + "\"\n\trequired = true\n" +
			"[uploadpack]\n\tpackObjectsHook = \"" + touch(where+"-pack") + "\"\n[submodule]\n\trecurse = true\n[protocol]\n\tallow = always\n[init]\n\ttemplateDir = " + filepath.Dir(hooks) + "\n"
	}
	for _, name := range []string{"post-checkout", "pre-fetch", "reference-transaction", "post-index-change", "pre-auto-gc", "post-update", "fsmonitor-watchman"} {
		for _, in := range []string{hooks, filepath.Join(dir, ".git", "hooks")} {
			write(t, filepath.Join(in, name), "#!/bin/sh\ntouch "+bait+"/hook-"+name+"\n")
			if err := os.Chmod(filepath.Join(in, name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(t, filepath.Join(dir, ".git", "config"), read(t, filepath.Join(dir, ".git", "config"))+evil("repository"))
	_, s := home(t, evil("user"))
	t.Setenv("GIT_DIR", dir)
	t.Setenv("GIT_SSH_COMMAND", touch("variable"))
	t.Setenv("GIT_EXTERNAL_DIFF", touch("variable-diff"))

	repo := parse(t, dir)
	resolve(t, s, repo, none, Ref{})
	got := tree(t, s, repo, none, commit)
	if err := s.Worktree(t.Context(), repo, none, commit, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if text := read(t, filepath.Join(got, "text")); text != "first" {
		t.Errorf("the text is %q", text)
	}
	if text := read(t, filepath.Join(got, "lfs")); !strings.HasPrefix(text, "version https://git-lfs") {
		t.Errorf("what LFS would have replaced is %q", text)
	}
	if ran, err := os.ReadDir(bait); err != nil || len(ran) > 0 {
		t.Errorf("these ran: %v (%v)", ran, err)
	}
}

func TestTheRepositoryOfAnotherUserCanBeRead(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give a repository to another user")
	}
	dir := repository(t)
	want := git(t, dir, "rev-parse", "HEAD")
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, 12345, 12345))
	})
	if err != nil {
		t.Fatal(err)
	}
	s, repo := open(t), parse(t, dir)
	if got, _ := resolve(t, s, repo, none, Ref{}); got != want {
		t.Errorf("gives %s, want %s", got, want)
	}
	tree(t, s, repo, none, want)
}

func TestManyWhoWantATreeAtOnceExtractItOnce(t *testing.T) {
	dir := repository(t)
	s, repo := open(t), parse(t, dir)
	commit, _ := resolve(t, s, repo, none, Ref{})
	noted := spy(t)
	var all sync.WaitGroup
	dirs := make([]string, 50)
	for i := range dirs {
		all.Go(func() {
			got, release, err := s.Tree(context.Background(), repo, none, commit)
			if err != nil {
				t.Error(err)
			}
			defer release()
			if text, err := os.ReadFile(filepath.Join(got, "text")); err != nil || string(text) != "first" {
				t.Errorf("has %q (%v)", text, err)
			}
			dirs[i] = got
		})
	}
	all.Wait()
	for _, d := range dirs {
		if d != dirs[0] {
			t.Errorf("%s is another folder than %s", d, dirs[0])
		}
	}
	if n := count(noted(), "checkout"); n != 1 {
		t.Errorf("%d were extracted", n)
	}
}

func TestManyWhoResolveAtOnceShareAFetch(t *testing.T) {
	f := startForge(t, twoRepositories(t), "ann", password, true)
	s := open(t)
	repo := parse(t, f.URL+"/two/.git")
	noted := spy(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, _, err := s.Resolve(context.Background(), repo, f.token(), Ref{}); err != nil {
				t.Error(err)
			}
		})
	}
	<-f.held
	// The fetch has begun; whoever has only asked for the refs so far will join it or find its commit.
	close(f.hold)
	all.Wait()
	before := count(noted(), "fetch")
	resolve(t, s, repo, f.token(), Ref{})
	if after := count(noted(), "fetch"); after != before {
		t.Errorf("what is there was fetched again: %d times, then %d", before, after)
	}
	if before == 0 || before > 8 {
		t.Errorf("was fetched %d times", before)
	}
}

func TestALocalRepositoryThatIsAsItWasNeedsNoProcessToListIt(t *testing.T) {
	dir := repository(t)
	s, repo := open(t), parse(t, dir)
	commit0, _ := resolve(t, s, repo, none, Ref{})
	tree(t, s, repo, none, commit0)
	noted := spy(t)
	resolve(t, s, repo, none, Ref{})
	tree(t, s, repo, none, commit0)
	if lines := noted(); len(lines) != 1 {
		t.Errorf("git was started: %v", lines)
	}
	want := commit(t, dir, "next")
	if got, _ := resolve(t, s, repo, none, Ref{}); got != want {
		t.Errorf("gives %s after a commit, want %s", got, want)
	}
}

func TestWhatACrashLeftIsSweptAndDoesNotStandInTheWay(t *testing.T) {
	dir := repository(t)
	s, repo := open(t), parse(t, dir)
	resolve(t, s, repo, none, Ref{})
	next := commit(t, dir, "next")

	half := filepath.Join(s.Dir, "trees", treeName(repo, next)+making+"123")
	write(t, filepath.Join(half, "deep", "text"), "half")
	if err := os.Chmod(filepath.Join(half, "deep"), 0o500); err != nil {
		t.Fatal(err)
	}
	mirror := filepath.Join(s.Dir, "mirrors", "0000"+making+"456")
	write(t, filepath.Join(mirror, "HEAD"), "ref: ")
	var locks []string
	for _, lock := range []string{"HEAD.lock", "packed-refs.lock", "config.lock", "shallow.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_abc"} {
		locks = append(locks, filepath.Join(s.mirror(repo), lock))
		write(t, locks[len(locks)-1], "")
	}

	again, err := New(Config{Dir: s.Dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range append(locks, half, mirror) {
		if _, err := os.Lstat(gone); err == nil {
			t.Errorf("%s is still there", gone)
		}
	}
	if got, _ := resolve(t, again, repo, none, Ref{Branch, "main"}); got != next {
		t.Errorf("gives %s, want %s", got, next)
	}
	if text := read(t, filepath.Join(tree(t, again, repo, none, next), "text")); text != "next" {
		t.Errorf("has %q", text)
	}
}

func TestAnExtractionThatFailsLeavesNothing(t *testing.T) {
	dir := repository(t)
	s, repo := open(t), parse(t, dir)
	commit, _ := resolve(t, s, repo, none, Ref{})
	// A file of the commit is lost.
	blob := git(t, dir, "rev-parse", commit+":text")
	bare := s.mirror(repo)
	if err := os.RemoveAll(filepath.Join(bare, "objects", "pack")); err != nil {
		t.Fatal(err)
	}
	for _, object := range []string{commit, git(t, dir, "rev-parse", commit+"^{tree}")} {
		from := filepath.Join("objects", object[:2], object[2:])
		write(t, filepath.Join(bare, from), read(t, filepath.Join(dir, ".git", from)))
	}
	lost := filepath.Join(bare, "objects", blob[:2], blob[2:])
	_ = os.Remove(lost) // if it is not in a pack
	_, _, err := s.Tree(t.Context(), repo, none, commit)
	wantCode(t, err, dayfly.CodeFailed, commit, "cannot be checked out")
	if left, err := os.ReadDir(filepath.Join(s.Dir, "trees")); err != nil || len(left) > 0 {
		t.Errorf("leaves %v (%v)", left, err)
	}
	write(t, lost, read(t, filepath.Join(dir, ".git", "objects", blob[:2], blob[2:])))
	tree(t, s, repo, none, commit)
}

func TestSweepDeletesWhatWasNotUsedForTheLongestTime(t *testing.T) {
	dir := repository(t)
	s, repo := open(t), parse(t, dir)
	make := func(text string, age time.Duration) (dir0 string, release func()) {
		dir0, release, err := s.Tree(t.Context(), repo, none, commit(t, dir, text))
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(dir0, at, at); err != nil {
			t.Fatal(err)
		}
		return dir0, release
	}
	sweep := func() {
		t.Helper()
		if left, err := s.Sweep(t.Context(), 0, nil); err != nil || len(left) > 0 {
			t.Fatalf("left %v, %v", left, err)
		}
	}
	there := func(dir string) bool { _, err := os.Stat(dir); return err == nil }
	used, release := make("used", 4*time.Hour)
	oldest, release1 := make("oldest", 3*time.Hour)
	release1()
	old, release2 := make("old", 2*time.Hour)
	release2()
	fresh, release3 := make("fresh", time.Second)
	release3()
	half := filepath.Join(s.Dir, "trees", "1234"+making+"5") // somebody is writing it
	write(t, filepath.Join(half, "x"), "")
	if err := os.Chmod(oldest, 0o500); err != nil {
		t.Fatal(err)
	}
	sweep()
	if !there(oldest) {
		t.Error("without a bound something was deleted")
	}
	unused := func(how string) (names []string) {
		t.Helper()
		list, err := s.Unused(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range list {
			info, err := os.Stat(u.Name)
			if err != nil || u.Since == nil || !u.Since.Equal(info.ModTime()) || u.At != nil || u.Bytes <= 0 || !strings.Contains(u.How, how) {
				t.Errorf("%v: %+v", err, u)
			}
			names = append(names, u.Kind+" "+filepath.Base(u.Name))
		}
		slices.Sort(names)
		return names
	}
	idle := []string{"checkout " + filepath.Base(oldest), "checkout " + filepath.Base(old), "checkout " + filepath.Base(fresh), "mirror " + filepath.Base(s.mirror(repo))}
	slices.Sort(idle)
	if got := unused("no bound"); !slices.Equal(got, idle) {
		t.Errorf("without users are %v, want %v", got, idle)
	}
	s.MaxBytes = 0
	for _, folder := range []string{used, oldest, old, fresh, s.mirror(repo)} {
		s.MaxBytes += size(folder)
	}
	s.MaxBytes--
	sweep()
	if there(oldest) || !there(used) || !there(old) || !there(fresh) || !there(half) {
		t.Errorf("a little too much: used: %t, oldest: %t, old: %t, fresh: %t, half: %t", there(used), there(oldest), there(old), there(fresh), there(half))
	}
	s.MaxBytes = 1
	sweep()
	if there(old) || !there(used) || !there(fresh) || !there(s.mirror(repo)) {
		t.Errorf("far too much: used: %t, old: %t, fresh: %t, mirror: %t", there(used), there(old), there(fresh), there(s.mirror(repo)))
	}
	release()
	release() // twice is once
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(s.mirror(repo), past, past); err != nil {
		t.Fatal(err)
	}
	sweep()
	if there(used) || there(s.mirror(repo)) {
		t.Errorf("what is no longer used: %t, mirror: %t", there(used), there(s.mirror(repo)))
	}
	tree(t, s, repo, none, commit(t, dir, "again")) // the mirror comes back
}

func TestOneWhoLeavesDoesNotTakeTheWorkFromTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f flights
		first, leave := context.WithCancel(t.Context())
		finish, started := make(chan struct{}), 0
		work := func(ctx context.Context) error {
			started++
			select {
			case <-finish:
				return errors.New("done")
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		outcome := func(ctx context.Context) chan error {
			c := make(chan error, 1)
			go func() { c <- f.do(ctx, "key", work) }()
			synctest.Wait()
			return c
		}
		a, b := outcome(first), outcome(t.Context())
		leave()
		if err := <-a; !isCanceled(err) {
			t.Errorf("the first gets %v", err)
		}
		synctest.Wait()
		select {
		case err := <-b:
			t.Errorf("the second got %v too early", err)
		default:
		}
		close(finish)
		if err := <-b; err == nil || err.Error() != "done" {
			t.Errorf("the second gets %v", err)
		}
		if started != 1 {
			t.Errorf("was started %d times", started)
		}
	})
}

func TestWorkThatEverybodyHasLeftEndsBeforeItBeginsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f flights
		running, most, started := 0, 0, 0
		release := make(chan struct{})
		work := func(ctx context.Context) error {
			started++
			running++
			most = max(most, running)
			defer func() { running-- }()
			if started == 1 {
				<-ctx.Done()
				<-release // takes a while to end
				return ctx.Err()
			}
			return nil
		}
		ctx, leave := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- f.do(ctx, "key", work) }()
		synctest.Wait()
		leave()
		synctest.Wait()
		go func() { second <- f.do(t.Context(), "key", work) }()
		synctest.Wait()
		close(release)
		if err := <-first; !isCanceled(err) {
			t.Errorf("the first gets %v", err)
		}
		if err := <-second; err != nil {
			t.Errorf("the second gets %v", err)
		}
		if started != 2 || most != 1 {
			t.Errorf("was started %d times, %d at once", started, most)
		}
		if err := f.do(ctx, "key", work); !isCanceled(err) {
			t.Errorf("who has left already gets %v", err)
		}
	})
}
