//go:build linux

package folder

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// told is what a watcher said about its folder.
type told struct {
	problems, homes []string
}

func (s *stage) tell() *told {
	said := &told{}
	s.Problem = func(what string) { said.problems = append(said.problems, what) }
	s.Remember = func(folder string) { said.homes = append(said.homes, folder) }
	return said
}

// problem compares what was said last.
func (d *told) problem(t *testing.T, want string) {
	t.Helper()
	last := ""
	if len(d.problems) > 0 {
		last = d.problems[len(d.problems)-1]
	}
	if last != want {
		t.Errorf("the problem is %q of %q, want %q", last, d.problems, want)
	}
}

// two makes a folder with a file, and an empty one, and has current lead to the first.
func two(t *testing.T) (parent string) {
	parent = t.TempDir()
	must(t, os.Mkdir(parent+"/full", 0o700))
	must(t, os.Mkdir(parent+"/bare", 0o700))
	put(t, parent+"/full/a.yaml", "1")
	must(t, os.Symlink("full", parent+"/current"))
	return parent
}

// turn has the link lead elsewhere, as a mount point does when something is mounted there or not.
func turn(t *testing.T, parent, to string) {
	t.Helper()
	must(t, os.Symlink(to, parent+"/next"))
	must(t, os.Rename(parent+"/next", parent+"/current"))
}

func (s *stage) settle() {
	s.pass(poll)
	s.pass(settled)
}

func TestAnEmptyFolderThatIsAnotherOneEndsNothingUntilTheFilesAreBack(t *testing.T) {
	parent := two(t)
	s := newStage(t, parent+"/current")
	said := s.tell()
	s.settle()
	s.expect("a.yaml=1")
	turn(t, parent, "bare")
	s.pass(poll)
	said.problem(t, "") // somebody may be about to fill it
	s.pass(refill)
	s.pass(time.Hour)
	s.expect()
	said.problem(t, emptied)
	turn(t, parent, "full")
	put(t, parent+"/full/b.yaml", "2")
	s.settle()
	s.expect("a.yaml=1 b.yaml=2")
	said.problem(t, "")
}

func TestAFolderWhoseFilesAreDeletedIsEmpty(t *testing.T) {
	parent := two(t)
	s := newStage(t, parent+"/current")
	said := s.tell()
	s.settle()
	// Also where it was away before.
	turn(t, parent, "bare")
	s.pass(poll)
	s.pass(refill)
	turn(t, parent, "full")
	must(t, os.Remove(parent+"/full/a.yaml"))
	s.settle()
	s.expect("a.yaml=1", "")
	said.problem(t, "")
}

func TestAnotherFolderWithAFileIsBelieved(t *testing.T) {
	parent := two(t)
	s := newStage(t, parent+"/current")
	said := s.tell()
	s.settle()
	turn(t, parent, "bare")
	s.pass(poll)
	s.pass(refill)
	put(t, parent+"/bare/b.yaml", "2")
	s.settle()
	s.pass(refill)
	s.pass(refill)
	// From then on it is the one that is meant, whatever becomes of its files.
	must(t, os.Remove(parent+"/bare/b.yaml"))
	s.settle()
	s.expect("a.yaml=1", "a.yaml=1 b.yaml=2", "b.yaml=2", "")
	said.problem(t, "")
}

func TestAFolderThatWasMadeAgainIsNotBelievedToBeEmptyWhateverItsNumber(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "environments")
	must(t, os.Mkdir(dir, 0o700))
	s := newStage(t, dir)
	said := s.tell()
	put(t, s.path("a.yaml"), "1")
	s.settle()
	must(t, os.RemoveAll(dir))
	s.pass(poll)
	said.problem(t, "it cannot be read: it does not exist")
	must(t, os.Mkdir(dir, 0o700))
	if s.home != (identity{}) {
		t.Fatal("the number of a folder that is gone is still believed")
	}
	s.pass(poll)
	s.pass(refill)
	s.expect("a.yaml=1")
	said.problem(t, emptied)
}

func TestWithoutAnyFilesAnotherEmptyFolderIsNoProblem(t *testing.T) {
	parent := two(t)
	must(t, os.Remove(parent+"/full/a.yaml"))
	s := newStage(t, parent+"/current")
	said := s.tell()
	s.settle()
	turn(t, parent, "bare")
	s.pass(poll)
	s.pass(refill)
	s.pass(refill)
	if len(said.problems)+len(said.homes) > 0 {
		t.Errorf("said was %+v", said)
	}
	s.expect("")
}

func TestAfterAStartTheFolderIsComparedWithThatOfTheLifeBefore(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, parent string)
		was    func(home string) string
		want   []string
	}{
		{"nothing is mounted there yet", func(t *testing.T, parent string) { turn(t, parent, "bare") }, nil, nil},
		{"all files were deleted meanwhile", func(t *testing.T, parent string) { must(t, os.Remove(parent+"/full/a.yaml")) }, nil, []string{""}},
		{"it is another one, with files", func(t *testing.T, parent string) {
			turn(t, parent, "bare")
			put(t, parent+"/bare/b.yaml", "2")
		}, nil, []string{"b.yaml=2"}},
		{"there were no files before", func(t *testing.T, parent string) { turn(t, parent, "bare") }, func(string) string { return "" }, []string{""}},
		{"what was remembered cannot be read", func(t *testing.T, parent string) { turn(t, parent, "bare") }, func(string) string { return "\x00" }, nil},
		{"the device has another number", func(t *testing.T, parent string) { must(t, os.Remove(parent+"/full/a.yaml")) }, func(home string) string { return "9" + home }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := two(t)
			before := newStage(t, parent+"/current")
			said := before.tell()
			before.settle()
			if len(said.homes) != 1 || said.homes[0] != identify(parent+"/full").String() {
				t.Fatalf("remembered was %q", said.homes)
			}
			c.change(t, parent)
			s := newStage(t, parent+"/current")
			s.Was = said.homes[0]
			if c.was != nil {
				s.Was = c.was(s.Was)
			}
			s.home, s.remembered = parseIdentity(s.Was), s.Was
			now := s.tell()
			s.settle()
			s.pass(refill)
			s.expect(c.want...)
			if held := len(c.want) == 0; held {
				now.problem(t, emptied)
			} else if last := append([]string{s.Was}, now.homes...); len(c.want[0]) == 0 && last[len(last)-1] != "" {
				t.Errorf("of no files it is remembered that they are from %q", last)
			}
		})
	}
}

func TestWhatIsMountedMayGoAndComeBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "environments")
	must(t, os.Mkdir(dir, 0o700))
	full := t.TempDir()
	put(t, full+"/a.yaml", "1")
	mount := func() {
		t.Helper()
		if err := syscall.Mount(full, dir, "", syscall.MS_BIND, ""); err != nil {
			t.Skipf("nothing can be mounted here: %v", err)
		}
	}
	mount()
	mounted := true
	unmount := func() {
		t.Helper()
		must(t, syscall.Unmount(dir, syscall.MNT_DETACH))
		mounted = false
	}
	t.Cleanup(func() {
		if mounted {
			unmount()
		}
	})
	w := watch(t, dir, nil)
	w.until("a.yaml=1")
	unmount()
	w.said("is empty and another one")
	mount()
	mounted = true
	put(t, full+"/b.yaml", "2")
	w.until("a.yaml=1 b.yaml=2")
	w.never("the files were thought to be gone", func(call string) bool { return call == "" })
	must(t, os.Remove(full+"/a.yaml"))
	must(t, os.Remove(full+"/b.yaml"))
	w.until("")
}

func TestAFolderThatIsAwayIsNotLookedAtWithoutAPause(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "environments")
	must(t, os.Mkdir(dir, 0o700))
	s := newStage(t, dir)
	s.settle()
	s.retry = s.now.Add(time.Second) // somebody wants to be called again
	must(t, os.Remove(dir))
	s.pass(2 * time.Second)
	if pause := s.retry.Sub(s.now); pause != poll {
		t.Errorf("it is looked at again after %s", pause)
	}
}
