//go:build linux

package folder

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const deadline = 30 * time.Second

// watching is a folder that is watched.
type watching struct {
	t    *testing.T
	dir  string
	log  *log
	stop func()

	mu    sync.Mutex
	calls []string      // each as text, see show
	news  chan struct{} // closed and made anew with each call
}

// log is what is said.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// show gives files as text: "a.yaml=content b.yaml!error".
func show(files []File) string {
	var parts []string
	for _, f := range files {
		if f.Err != nil {
			parts = append(parts, f.Name+"!"+f.Err.Error())
		} else {
			parts = append(parts, f.Name+"="+string(f.Data))
		}
	}
	return strings.Join(parts, " ")
}

// watch watches a folder until the test ends.
func watch(t *testing.T, dir string, changed func(files []File) time.Duration) *watching {
	w := &watching{t: t, dir: dir, log: &log{}, news: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var inside atomic.Int32
	go func() {
		done <- Watch(ctx, Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(w.log, nil)), Changed: func(_ context.Context, files []File) (retry time.Duration) {
			if inside.Add(1) != 1 {
				t.Error("two calls at a time")
			}
			defer inside.Add(-1)
			if !slices.IsSortedFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) }) {
				t.Errorf("not sorted: %s", show(files))
			}
			w.mu.Lock()
			w.calls = append(w.calls, show(files))
			close(w.news)
			w.news = make(chan struct{})
			w.mu.Unlock()
			if changed != nil {
				return changed(files)
			}
			return 0
		}})
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ends with %v", err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

// all gives the calls until now.
func (w *watching) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.calls)
}

// until waits until the last call was as wanted.
func (w *watching) until(want string) {
	w.t.Helper()
	end := time.After(deadline)
	for {
		w.mu.Lock()
		last, news := "no call", w.news
		if len(w.calls) > 0 {
			last = w.calls[len(w.calls)-1]
		}
		w.mu.Unlock()
		if last == want {
			return
		}
		select {
		case <-news:
		case <-end:
			w.t.Fatalf("handed over was\n%.2000s\nwanted is\n%.2000s\n%s", last, want, w.log)
		}
	}
}

// said waits until something was logged.
func (w *watching) said(part string) {
	w.t.Helper()
	for end := time.Now().Add(deadline); !strings.Contains(w.log.String(), part); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%q was not said, but\n%s", part, w.log)
		}
	}
}

// never fails where a call was like that.
func (w *watching) never(what string, like func(call string) bool) {
	w.t.Helper()
	for _, call := range w.all() {
		if like(call) {
			w.t.Errorf("%s: %q", what, call)
		}
	}
}

func (w *watching) path(name string) string { return filepath.Join(w.dir, name) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t testing.TB, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
}

// swap writes a file aside and renames it.
func swap(t testing.TB, path, content string) {
	t.Helper()
	put(t, path+".tmp", content)
	must(t, os.Rename(path+".tmp", path))
}

func TestAnEmptyFolderIsHandedOverOnce(t *testing.T) {
	w := watch(t, t.TempDir(), nil)
	w.until("")
	put(t, w.path("a.yaml"), "1")
	w.until("a.yaml=1")
	if calls := w.all(); !slices.Equal(calls, []string{"", "a.yaml=1"}) {
		t.Errorf("%q", calls)
	}
}

func TestOnlyEnvironmentFilesDirectlyInTheFolderCount(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yml", "a.yaml", "ü.yaml", ".hidden.yaml", "#a.yaml", "#a.yaml#", "a.yaml~", ".a.yaml.swp", "a.yaml.swp", "a.json", "yaml", "a.yaml.tmp", "4913", "A.YAML", ".yaml", "sub/a.yaml", "archive/a.yaml", "..data/x.yaml"} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		put(t, filepath.Join(dir, name), "x")
	}
	must(t, os.Symlink("user@host.123:456", filepath.Join(dir, ".#a.yaml"))) // how Emacs locks
	w := watch(t, dir, nil)
	w.until("a.yaml=x b.yml=x ü.yaml=x")
	put(t, w.path(".b.yml.swp"), "y")
	put(t, w.path("sub/b.yaml"), "y")
	put(t, w.path("z.yaml"), "z")
	w.until("a.yaml=x b.yml=x z.yaml=z ü.yaml=x")
	if n := len(w.all()); n != 2 {
		t.Errorf("%d calls: %q", n, w.all())
	}
}

func TestEveryWayToChangeAFileIsSeen(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, dir string) // of a.yaml=old
		want string
	}{
		{"written in place", func(t *testing.T, dir string) { put(t, dir+"/a.yaml", "new") }, "a.yaml=new"},
		{"renamed over", func(t *testing.T, dir string) { swap(t, dir+"/a.yaml", "new") }, "a.yaml=new"},
		{"moved in from elsewhere", func(t *testing.T, dir string) {
			put(t, dir+"/../new", "new")
			must(t, os.Rename(dir+"/../new", dir+"/a.yaml"))
		}, "a.yaml=new"},
		{"added to", func(t *testing.T, dir string) {
			f, err := os.OpenFile(dir+"/a.yaml", os.O_APPEND|os.O_WRONLY, 0)
			must(t, err)
			defer f.Close()
			_, err = f.WriteString("er")
			must(t, err)
		}, "a.yaml=older"},
		{"emptied", func(t *testing.T, dir string) { must(t, os.Truncate(dir+"/a.yaml", 0)) }, "a.yaml="},
		{"through a mapping of it in memory", func(t *testing.T, dir string) {
			f, err := os.OpenFile(dir+"/a.yaml", os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			m, err := syscall.Mmap(int(f.Fd()), 0, 3, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
			must(t, err)
			copy(m, "new")
			must(t, syscall.Munmap(m))
			must(t, f.Sync())
		}, "a.yaml=new"},
		{"with the time and size it had", func(t *testing.T, dir string) {
			info, err := os.Stat(dir + "/a.yaml")
			must(t, err)
			put(t, dir+"/a.yaml", "new")
			must(t, os.Chtimes(dir+"/a.yaml", info.ModTime(), info.ModTime()))
		}, "a.yaml=new"},
		{"as vim saves it", func(t *testing.T, dir string) {
			put(t, dir+"/4913", "")
			must(t, os.Remove(dir+"/4913"))
			must(t, os.Rename(dir+"/a.yaml", dir+"/a.yaml~"))
			put(t, dir+"/a.yaml", "new")
			must(t, os.Remove(dir+"/a.yaml~"))
		}, "a.yaml=new"},
		{"as Emacs saves it", func(t *testing.T, dir string) {
			must(t, os.Symlink("me@host.1:2", dir+"/.#a.yaml"))
			put(t, dir+"/#a.yaml#", "ne")
			must(t, os.Rename(dir+"/a.yaml", dir+"/a.yaml~"))
			put(t, dir+"/a.yaml", "new")
			must(t, os.Remove(dir+"/#a.yaml#"))
			must(t, os.Remove(dir+"/.#a.yaml"))
		}, "a.yaml=new"},
		{"renamed", func(t *testing.T, dir string) { must(t, os.Rename(dir+"/a.yaml", dir+"/b.yaml")) }, "b.yaml=old"},
		{"made a link", func(t *testing.T, dir string) {
			put(t, dir+"/../new", "new")
			must(t, os.Remove(dir+"/a.yaml"))
			must(t, os.Symlink("../new", dir+"/a.yaml"))
		}, "a.yaml=new"},
		{"removed", func(t *testing.T, dir string) { must(t, os.Remove(dir+"/a.yaml")) }, ""},
		{"moved away", func(t *testing.T, dir string) { must(t, os.Rename(dir+"/a.yaml", dir+"/../away")) }, ""},
		{"turned off by its name", func(t *testing.T, dir string) { must(t, os.Rename(dir+"/a.yaml", dir+"/a.yaml.off")) }, ""},
		{"archived", func(t *testing.T, dir string) {
			_, err := Archive(dir, "a.yaml", time.Now())
			must(t, err)
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "environments")
			must(t, os.Mkdir(dir, 0o700))
			put(t, dir+"/a.yaml", "old")
			w := watch(t, dir, nil)
			w.until("a.yaml=old")
			c.do(t, dir)
			w.until(c.want)
			if !strings.Contains(c.want, "a.yaml") {
				return
			}
			w.never("taken for removed", func(call string) bool { return call == "" })
		})
	}
}

func TestAFileThatIsTheSameIsNoNews(t *testing.T) {
	w := watch(t, t.TempDir(), nil)
	swap(t, w.path("a.yaml"), "1")
	w.until("a.yaml=1")
	swap(t, w.path("a.yaml"), "1")
	must(t, os.Chmod(w.path("a.yaml"), 0o644))
	must(t, os.Chtimes(w.path("a.yaml"), time.Now(), time.Now().Add(-time.Hour)))
	put(t, w.path("b.yaml"), "2")
	w.until("a.yaml=1 b.yaml=2")
	calls := slices.DeleteFunc(w.all(), func(c string) bool { return c == "" }) // the folder may have been handed over before the first file
	if !slices.Equal(calls, []string{"a.yaml=1", "a.yaml=1 b.yaml=2"}) {
		t.Errorf("%q", calls)
	}
}

func TestALinkIsFollowedAndWhatItLeadsToIsWatched(t *testing.T) {
	w, elsewhere := watch(t, t.TempDir(), nil), t.TempDir()
	put(t, elsewhere+"/real", "1")
	must(t, os.Symlink(elsewhere+"/real", w.path("a.yaml")))
	w.until("a.yaml=1")
	put(t, elsewhere+"/real", "2") // of which the kernel tells nothing here
	w.until("a.yaml=2")
	must(t, os.Remove(elsewhere+"/real"))
	w.until("a.yaml!cannot be read: it does not exist")
	put(t, elsewhere+"/real", "3")
	w.until("a.yaml=3")
	must(t, os.Remove(w.path("a.yaml")))
	w.until("")
}

func TestAConfigMapOfKubernetesIsSwappedAtOnce(t *testing.T) {
	dir := t.TempDir()
	fill := func(version string, files ...string) {
		must(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		for _, f := range files {
			put(t, filepath.Join(dir, version, f), version)
		}
		must(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	fill("..1", "a.yaml", "b.yaml")
	for _, f := range []string{"a.yaml", "b.yaml"} {
		must(t, os.Symlink("..data/"+f, filepath.Join(dir, f)))
	}
	w := watch(t, dir, nil)
	w.until("a.yaml=..1 b.yaml=..1")
	fill("..2", "a.yaml", "b.yaml")
	must(t, os.RemoveAll(filepath.Join(dir, "..1")))
	w.until("a.yaml=..2 b.yaml=..2")
	if calls := w.all(); len(calls) != 2 {
		t.Errorf("%q", calls)
	}
}

func TestWhatCannotBeReadIsSaidAndTheOthersGoOn(t *testing.T) {
	w := watch(t, t.TempDir(), nil)
	put(t, w.path("m.yaml"), "1")
	w.until("m.yaml=1")
	must(t, os.Mkdir(w.path("dir.yaml"), 0o700))
	must(t, syscall.Mkfifo(w.path("fifo.yaml"), 0o600))
	socket, err := net.Listen("unix", w.path("socket.yaml"))
	must(t, err)
	defer socket.Close()
	must(t, os.Symlink("/dev/zero", w.path("device.yaml")))
	must(t, os.Symlink("loop.yaml", w.path("loop.yaml")))
	put(t, w.path("large.yaml"), strings.Repeat("x", MaxSize+1))
	put(t, w.path("\xff.yaml"), "x")
	put(t, w.path("z.yaml"), "2")
	wrong := "device.yaml!is no regular file dir.yaml!is no regular file fifo.yaml!is no regular file large.yaml!is larger than 1 MiB loop.yaml!cannot be read: too many levels of symbolic links "
	w.until(wrong + "m.yaml=1 socket.yaml!is no regular file z.yaml=2 \xff.yaml!has a name that is no UTF-8")
	for _, name := range []string{"fifo.yaml", "loop.yaml", "large.yaml", "socket.yaml", "\xff.yaml"} {
		swap(t, w.path(name), name[:1])
	}
	w.until("device.yaml!is no regular file dir.yaml!is no regular file fifo.yaml=f large.yaml=l loop.yaml=l m.yaml=1 socket.yaml=s z.yaml=2 \xff.yaml!has a name that is no UTF-8")
}

func TestAFileOfTheLargestSizeIsRead(t *testing.T) {
	w := watch(t, t.TempDir(), nil)
	put(t, w.path("a.yaml"), strings.Repeat("x", MaxSize))
	w.until("a.yaml=" + strings.Repeat("x", MaxSize))
}

func TestAFileWithoutPermissionIsReadWhenThereIsOne(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("1"), 0))
	if os.Geteuid() == 0 { // root may read everything: look as somebody else
		must(t, os.Chmod(dir, 0o755))
		must(t, os.Chmod(filepath.Dir(dir), 0o755))
		must(t, syscall.Seteuid(65534))
		t.Cleanup(func() { must(t, syscall.Seteuid(0)) })
	}
	w := watch(t, dir, nil)
	w.until("a.yaml!cannot be read: permission denied")
	if os.Getuid() == 0 {
		must(t, syscall.Seteuid(0))
	}
	must(t, os.Chmod(w.path("a.yaml"), 0o600))
	w.until("a.yaml=1")
}

func TestAFolderThatIsNotThereIsWaitedFor(t *testing.T) {
	parent := t.TempDir()
	w := watch(t, filepath.Join(parent, "later"), nil)
	w.said("level=WARN")
	must(t, os.Mkdir(parent+"/made", 0o700))
	var want []string
	for i := range 1000 {
		name := fmt.Sprintf("%04d.yaml", i)
		put(t, filepath.Join(parent, "made", name), "x")
		want = append(want, name+"=x")
	}
	if calls := w.all(); len(calls) != 0 {
		t.Fatalf("a folder that is not there was handed over: %q", calls)
	}
	must(t, os.Rename(parent+"/made", w.dir))
	w.until(strings.Join(want, " "))
	if n := len(w.all()); n != 1 {
		t.Errorf("1,000 files made %d calls", n)
	}
	swap(t, w.path("0500.yaml"), "y")
	want[500] = "0500.yaml=y"
	w.until(strings.Join(want, " "))
	if n := strings.Count(w.log.String(), "level=WARN"); n != 1 {
		t.Errorf("warned %d times:\n%s", n, w.log)
	}
}

func TestAFolderThatIsGoneIsNotAnEmptyOne(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "environments")
	must(t, os.Mkdir(dir, 0o700))
	put(t, dir+"/a.yaml", "1")
	put(t, dir+"/b.yaml", "1")
	w := watch(t, dir, nil)
	w.until("a.yaml=1 b.yaml=1")
	for i := range 3 {
		must(t, os.Rename(dir, filepath.Join(parent, fmt.Sprint("away", i))))
		for end := time.Now().Add(deadline); strings.Count(w.log.String(), "cannot be read") != i+1; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no warning the %d. time:\n%s", i+1, w.log)
			}
		}
		// Made again, and filled file by file.
		must(t, os.Mkdir(dir, 0o700))
		put(t, dir+"/a.yaml", fmt.Sprint(i+2))
		w.until(fmt.Sprintf("a.yaml=%d b.yaml=%d", i+2, i+1))
		put(t, dir+"/b.yaml", fmt.Sprint(i+2))
		w.until(fmt.Sprintf("a.yaml=%d b.yaml=%d", i+2, i+2))
	}
	// So fast that nobody sees that it was gone, and maybe with the same number.
	must(t, os.RemoveAll(dir))
	must(t, os.Mkdir(dir, 0o700))
	put(t, dir+"/a.yaml", "5")
	w.until("a.yaml=5 b.yaml=4")
	put(t, dir+"/b.yaml", "5")
	w.until("a.yaml=5 b.yaml=5")
	w.never("a file was missing", func(call string) bool { return !strings.Contains(call, "a.yaml") || !strings.Contains(call, "b.yaml") })
	// What is not put back is gone in the end.
	must(t, os.Mkdir(parent+"/new", 0o700))
	put(t, parent+"/new/b.yaml", "9")
	must(t, os.Rename(dir, parent+"/old"))
	must(t, os.Rename(parent+"/new", dir))
	w.until("b.yaml=9")
	must(t, os.Remove(dir+"/b.yaml"))
	w.until("")
}

func TestAFolderThatIsAFileIsWaitedFor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "environments")
	put(t, dir, "")
	w := watch(t, dir, nil)
	w.said("not a directory")
	must(t, os.Remove(dir))
	must(t, os.Mkdir(dir, 0o700))
	put(t, dir+"/a.yaml", "1")
	w.until("a.yaml=1")
}

func TestAFolderBehindALinkIsFollowedWhenTheLinkIsTurned(t *testing.T) {
	parent := t.TempDir()
	for _, v := range []string{"1", "2"} {
		must(t, os.Mkdir(filepath.Join(parent, v), 0o700))
		put(t, filepath.Join(parent, v, "a.yaml"), v)
	}
	must(t, os.Symlink("1", parent+"/current"))
	w := watch(t, parent+"/current", nil)
	w.until("a.yaml=1")
	must(t, os.Symlink("2", parent+"/next"))
	must(t, os.Rename(parent+"/next", parent+"/current"))
	w.until("a.yaml=2")
	put(t, parent+"/2/b.yaml", "new")
	w.until("a.yaml=2 b.yaml=new")
}

func TestItIsCalledAgainWhenThatIsAskedFor(t *testing.T) {
	var left atomic.Int32
	left.Store(3)
	again := make(chan struct{})
	w := watch(t, t.TempDir(), func([]File) time.Duration {
		switch left.Add(-1) {
		case 0:
			close(again)
			return 0
		case -1:
			return 0
		}
		return time.Millisecond
	})
	select {
	case <-again:
	case <-time.After(deadline):
		t.Fatal("it is not called again")
	}
	put(t, w.path("a.yaml"), "1")
	w.until("a.yaml=1")
	if calls := w.all(); !slices.Equal(calls, []string{"", "", "", "a.yaml=1"}) {
		t.Errorf("%q", calls)
	}
}

func TestAChangeDoesNotWaitForTheTimeOfTheNextCall(t *testing.T) {
	w := watch(t, t.TempDir(), func([]File) time.Duration { return time.Hour })
	w.until("")
	put(t, w.path("a.yaml"), "1")
	w.until("a.yaml=1")
}

func TestItEndsWithTheContextAlsoInTheMiddleOfACall(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/a.yaml", "1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	called, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- Watch(ctx, Config{Dir: dir, Changed: func(ctx context.Context, _ []File) time.Duration {
			close(called)
			<-ctx.Done()
			return time.Nanosecond // and is not called again
		}})
	}()
	<-called
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWithoutAFolderOrAReaderNothingIsWatched(t *testing.T) {
	for _, c := range []Config{{}, {Dir: t.TempDir()}, {Changed: func(context.Context, []File) time.Duration { return 0 }}} {
		if Watch(t.Context(), c) == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

// The kernel keeps 16,384 events; what comes then is lost, with all that it tells of.
func TestEventsThatGotLostAreFoundByLooking(t *testing.T) {
	goOn, called := make(chan struct{}), make(chan struct{}, 100)
	w := watch(t, t.TempDir(), func([]File) time.Duration {
		called <- struct{}{}
		<-goOn
		return 0
	})
	<-called
	other := w.path("other")
	put(t, other, "")
	for i := range 20000 {
		must(t, os.Chmod(other, fs.FileMode(0o600+i%2)))
		if i%2 == 0 {
			must(t, os.Chmod(w.dir, 0o700)) // equal neighbours would be one event
		}
	}
	put(t, w.path("a.yaml"), "1")
	close(goOn)
	w.until("a.yaml=1")
}

func TestAfterAStormItKnowsWhatThereIs(t *testing.T) {
	w := watch(t, t.TempDir(), nil)
	var writers sync.WaitGroup
	for n := range 4 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(n)))
			for i := range 1000 {
				path := w.path(fmt.Sprintf("%d-%d.yaml", n, r.IntN(10)))
				content := []byte(fmt.Sprint(n, ".", i))
				switch r.IntN(4) {
				case 0:
					os.Remove(path)
				case 1:
					os.WriteFile(path, content, 0o600)
				case 2:
					os.WriteFile(path+"~", content, 0o600)
					os.Rename(path+"~", path)
				case 3:
					os.Rename(path, w.path(fmt.Sprintf("%d-%d.yaml", n, r.IntN(10))))
				}
			}
		})
	}
	writers.Wait()
	var want []File
	entries, err := os.ReadDir(w.dir)
	must(t, err)
	for _, e := range entries {
		if Counts(e.Name()) {
			data, err := os.ReadFile(w.path(e.Name()))
			must(t, err)
			want = append(want, File{Name: e.Name(), Data: data})
		}
	}
	w.until(show(want))
	w.never("cannot be read", func(call string) bool { return strings.Contains(call, "!") })
	t.Logf("%d calls, %d files at the end", len(w.all()), len(want))
}
