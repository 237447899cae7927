//go:build linux

package folder

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// stage is a watcher whose clock stands still.
type stage struct {
	*watcher
	t     *testing.T
	now   time.Time
	calls []string
	next  time.Duration
}

func newStage(t *testing.T, dir string) *stage {
	s := &stage{t: t, now: time.Now()}
	s.watcher = newWatcher(Config{Dir: dir, Changed: func(_ context.Context, files []File) time.Duration {
		s.calls = append(s.calls, show(files))
		return 0
	}})
	t.Cleanup(s.unwatch)
	return s
}

// pass looks when d has passed.
func (s *stage) pass(d time.Duration) {
	s.now = s.now.Add(d)
	s.next = s.at(s.t.Context(), s.now)
}

// expect compares the calls since the last time.
func (s *stage) expect(calls ...string) {
	s.t.Helper()
	if !slices.Equal(s.calls, calls) {
		s.t.Errorf("handed over was %q, want %q", s.calls, calls)
	}
	s.calls = nil
}

func (s *stage) path(name string) string { return filepath.Join(s.Dir, name) }

func TestAHalfWrittenFileIsNotHandedOver(t *testing.T) {
	s := newStage(t, t.TempDir())
	put(t, s.path("a.yaml"), "ha")
	s.pass(0)
	put(t, s.path("a.yaml"), "half")
	s.pass(40 * time.Millisecond)
	s.pass(40 * time.Millisecond)
	s.expect()
	if s.next > settled || s.next <= 0 {
		t.Errorf("looks again after %v", s.next)
	}
	s.pass(10 * time.Millisecond)
	s.expect("a.yaml=half")
	if s.next != poll {
		t.Errorf("looks again after %v", s.next)
	}
}

func TestAFileThatIsWrittenForLongIsHandedOverAsItIs(t *testing.T) {
	s := newStage(t, t.TempDir())
	put(t, s.path("b.yaml"), "b")
	text := "a"
	for range 7 {
		put(t, s.path("a.yaml"), text)
		s.pass(40 * time.Millisecond)
		text += "a"
	}
	s.expect() // 240 ms since the first look
	put(t, s.path("a.yaml"), text)
	s.pass(60 * time.Millisecond)
	s.expect("a.yaml=aaaaaaaa b.yaml=b")
	put(t, s.path("a.yaml"), "done")
	s.pass(40 * time.Millisecond)
	s.pass(50 * time.Millisecond)
	s.expect("a.yaml=done b.yaml=b")
}

func TestAFileThatIsGoneForAMomentIsNotTakenForRemoved(t *testing.T) {
	s := newStage(t, t.TempDir())
	put(t, s.path("a.yaml"), "1")
	s.pass(0)
	s.pass(settled)
	s.expect("a.yaml=1")
	must(t, os.Rename(s.path("a.yaml"), s.path("a.yaml~")))
	s.pass(time.Second)
	s.pass(40 * time.Millisecond)
	put(t, s.path("a.yaml"), "2")
	s.pass(40 * time.Millisecond)
	s.pass(settled)
	s.expect("a.yaml=2")

	// Not even where something else never settles.
	must(t, os.Remove(s.path("a.yaml")))
	text := "b"
	for range 8 {
		put(t, s.path("b.yaml"), text)
		if len(text) > 6 {
			must(t, os.WriteFile(s.path("a.yaml"), []byte(text), 0o600))
			s.pass(20 * time.Millisecond)
			must(t, os.Remove(s.path("a.yaml")))
			s.pass(20 * time.Millisecond)
		} else {
			put(t, s.path("a.yaml"), text)
			s.pass(40 * time.Millisecond)
		}
		text += "b"
	}
	put(t, s.path("b.yaml"), text)
	s.pass(0)
	put(t, s.path("b.yaml"), text+"!")
	s.pass(30 * time.Millisecond)
	if len(s.calls) == 0 {
		t.Fatal("nothing was handed over")
	}
	for _, c := range s.calls {
		if c[:7] != "a.yaml=" {
			t.Errorf("taken for removed: %q", c)
		}
	}
	s.calls = nil
	s.pass(settled)
	s.pass(settled)
	s.expect("b.yaml=" + text + "!")
}

func TestAChangeWithoutATraceIsFoundWhileTheFileIsYoung(t *testing.T) {
	s := newStage(t, t.TempDir())
	put(t, s.path("a.yaml"), "new")
	s.pass(0)
	s.pass(settled)
	s.expect("a.yaml=new")
	// As if it had been read just before it got what it has, in the same tick of the clock.
	forge := func() { s.entries["a.yaml"].file.Data = []byte("old") }
	forge()
	s.pass(100 * time.Millisecond)
	s.expect()
	s.touched["a.yaml"] = true // the kernel tells that there was something
	s.pass(100 * time.Millisecond)
	s.expect("a.yaml=new")
	forge()
	s.pass(poll)
	s.expect("a.yaml=new")
	for range 4 { // from then on it counts as changed, so it is young again
		s.pass(poll)
	}
	s.expect()
	forge()
	s.touched["a.yaml"] = true
	s.pass(poll)
	s.pass(time.Hour)
	s.expect() // it is not read again
	put(t, s.path("a.yaml"), "new2")
	s.pass(poll)
	s.pass(settled)
	s.expect("a.yaml=new2")
}

func TestFilesThatWentJustBeforeTheirFolderAreNotTakenForRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "environments")
	must(t, os.Mkdir(dir, 0o700))
	s := newStage(t, dir)
	put(t, s.path("a.yaml"), "1")
	put(t, s.path("b.yaml"), "1")
	s.pass(0)
	s.pass(settled)
	s.expect("a.yaml=1 b.yaml=1")
	must(t, os.Remove(s.path("a.yaml")))
	s.pass(time.Second)
	must(t, os.RemoveAll(dir))
	s.pass(20 * time.Millisecond)
	s.pass(time.Hour)
	must(t, os.Mkdir(dir, 0o700))
	s.pass(time.Second)
	put(t, s.path("a.yaml"), "2")
	s.pass(time.Second)
	s.pass(settled)
	s.expect("a.yaml=2 b.yaml=1")
	s.pass(refill)
	s.expect("a.yaml=2")
}

func TestAFileThatGoesBeforeItIsReadGoesOnToCountUntilItIsSurelyGone(t *testing.T) {
	s := newStage(t, t.TempDir())
	put(t, s.path("a.yaml"), "1")
	s.pass(0)
	s.pass(settled)
	put(t, s.path("a.yaml"), "2")
	put(t, s.path("b.yaml"), "never read")
	s.pass(poll)
	s.expect("a.yaml=1")
	s.now = s.now.Add(settled)
	s.look(s.now)
	must(t, os.Remove(s.path("a.yaml")))
	must(t, os.Remove(s.path("b.yaml")))
	if ready, next := s.collect(s.now); ready || next != settled || show(s.files()) != "a.yaml=1" {
		t.Errorf("%v, %v, %s", ready, next, show(s.files()))
	}
	s.pass(settled - 1)
	s.expect()
	s.pass(1)
	s.expect("")
}

// heard waits until the kernel has told something, and lets the watcher hear it.
func (s *stage) heard(what string, enough func() bool) {
	s.t.Helper()
	for end := time.Now().Add(deadline); !enough(); s.wait(s.t.Context(), time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("it never hears %s", what)
		}
	}
}

func TestTheKernelTellsOfTheFolderThatThereIsNow(t *testing.T) {
	parent := t.TempDir()
	must(t, os.Mkdir(parent+"/1", 0o700))
	must(t, os.Mkdir(parent+"/2", 0o700))
	must(t, os.Symlink("1", parent+"/current"))
	s := newStage(t, parent+"/current")
	s.pass(0)
	must(t, os.Symlink("2", parent+"/next"))
	must(t, os.Rename(parent+"/next", parent+"/current"))
	s.pass(poll)
	put(t, parent+"/2/a.yaml", "1")
	s.heard("of a file in the new folder", func() bool { return s.touched["a.yaml"] })
}

func TestAFolderThatIsMadeAgainBetweenTwoLooksIsAnotherOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "environments")
	must(t, os.Mkdir(dir, 0o700))
	s := newStage(t, dir)
	put(t, s.path("a.yaml"), "1")
	put(t, s.path("b.yaml"), "1")
	s.pass(0)
	s.pass(settled)
	s.expect("a.yaml=1 b.yaml=1")
	must(t, os.RemoveAll(dir))
	must(t, os.Mkdir(dir, 0o700))
	put(t, s.path("a.yaml"), "2")
	s.heard("that the folder has gone", func() bool { return s.notify == nil })
	s.pass(poll)
	s.pass(settled)
	s.expect("a.yaml=2 b.yaml=1")
	put(t, s.path("c.yaml"), "1")
	s.heard("of a file in the new folder", func() bool { return s.touched["c.yaml"] })
}

func TestAnOldFileThatKeepsItsSizeAndTimeIsReadWhenItIsWritten(t *testing.T) {
	s := newStage(t, t.TempDir())
	put(t, s.path("a.yaml"), "old")
	for range 5 {
		s.pass(poll)
	}
	s.expect("a.yaml=old")
	info, err := os.Stat(s.path("a.yaml"))
	must(t, err)
	ctime := func(i os.FileInfo) syscall.Timespec { return i.Sys().(*syscall.Stat_t).Ctim }
	for again := info; ctime(again) == ctime(info); { // until the clock of the file system has moved
		put(t, s.path("a.yaml"), "new")
		must(t, os.Chtimes(s.path("a.yaml"), info.ModTime(), info.ModTime()))
		again, err = os.Stat(s.path("a.yaml"))
		must(t, err)
	}
	s.pass(poll)
	s.pass(settled)
	s.expect("a.yaml=new")
}
