//go:build linux

package snapshottest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot/loop"
)

const mb = 1 << 20

// patience is how long something may take that is waited for.
const patience = 60 * time.Second

// Driver is what the suite has to know of a driver.
type Driver struct {
	// Dir gives an empty folder on a file system of its own with that many MB.
	Dir func(t testing.TB, sizeMB int64) string
	// Options open the driver, with the folder filled in.
	Options snapshot.Options
	// Name is what the driver has to say that it is.
	Name string
	// Copies says that clones share nothing.
	Copies bool
	// WholeFiles says that clones share the blocks of a file as a whole or not at all.
	WholeFiles bool
	// ReadOnly says that what was frozen cannot be written to, and ReadOnlyClones that this is so of clones.
	ReadOnly, ReadOnlyClones bool
	// Size is how much room a test gets, in MB, where the test does not need a certain one.
	Size int64
	// Pooled says that the driver makes a file system of its own in the folder.
	Pooled bool
}

// rig is an open driver.
type rig struct {
	snapshot.Cloner
	Driver
	t   testing.TB
	dir string
}

func (d Driver) open(t testing.TB, sizeMB int64) *rig {
	t.Helper()
	r := &rig{t: t, Driver: d, dir: filepath.Join(d.Dir(t, sizeMB), "data")}
	t.Cleanup(func() {
		if err := snapshot.Destroy(context.Background(), r.dir, nil); err != nil {
			t.Error(err)
		}
		if left := mountsBelow(t, r.dir); len(left) > 0 {
			t.Errorf("still mounted: %+v", left)
		}
	})
	r.reopen()
	return r
}

// reopen does what another process would.
func (r *rig) reopen() {
	r.t.Helper()
	opt := r.Options
	opt.Dir = r.dir
	c, err := snapshot.Open(context.Background(), opt)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.Cloner != nil {
		r.must(r.Cloner.Close())
	}
	r.Cloner = c
	if c.Name() != r.Driver.Name {
		r.t.Fatalf("the driver is %s, want %s", c.Name(), r.Driver.Name)
	}
}

func mountsBelow(t testing.TB, dir string) (below []loop.Mount) {
	t.Helper()
	all, err := loop.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if strings.HasPrefix(m.Point, dir+"/") {
			below = append(below, m)
		}
	}
	return below
}

// restart takes away all that a restart of the host would.
func (r *rig) restart() {
	r.t.Helper()
	for _, m := range slices.Backward(mountsBelow(r.t, r.dir)) {
		if lazy, err := loop.Unmount(m.Point); err != nil || lazy {
			r.t.Fatalf("unmounting %s: lazy=%v %v", m.Point, lazy, err)
		}
	}
	r.reopen()
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) create(name string) string {
	r.t.Helper()
	path, err := r.Create(r.t.Context(), name)
	r.must(err)
	return path
}

func (r *rig) freeze(name string) {
	r.t.Helper()
	r.must(r.Freeze(r.t.Context(), name))
}

func (r *rig) clone(from, name string) string {
	r.t.Helper()
	path, err := r.Clone(r.t.Context(), from, name)
	r.must(err)
	return path
}

func (r *rig) attach(name string) string {
	r.t.Helper()
	path, err := r.Attach(r.t.Context(), name)
	r.must(err)
	return path
}

func (r *rig) delete(name string) {
	r.t.Helper()
	r.must(r.Delete(r.t.Context(), name))
}

func (r *rig) list() []string {
	r.t.Helper()
	all, err := r.List(r.t.Context())
	r.must(err)
	slices.Sort(all)
	return all
}

func (r *rig) own(name string) int64 {
	r.t.Helper()
	// What is still in memory alone has no place that could be shared.
	f, err := os.Open(r.attach(name))
	r.must(err)
	defer f.Close()
	r.must(unix.Syncfs(int(f.Fd())))
	n, ok, err := r.OwnBytes(r.t.Context(), name)
	r.must(err)
	if !ok {
		r.t.Fatalf("%s says nothing of its own bytes", name)
	}
	return n
}

// used is what the file system below the folders has allocated.
func (r *rig) used() int64 {
	r.t.Helper()
	if r.Pooled {
		r.list() // mounts it
		return Used(r.t, filepath.Join(r.dir, "pool"))
	}
	return Used(r.t, r.dir)
}

func (r *rig) write(path, content string) {
	r.t.Helper()
	r.must(os.WriteFile(path, []byte(content), 0o600))
}

func (r *rig) wantContent(path, want string) {
	r.t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		r.t.Errorf("%s has %.50q (%d bytes), %v; want %.50q (%d bytes)", path, got, len(got), err, want, len(want))
	}
}

// noise cannot be compressed, and is the same for one seed.
func noise(seed byte, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// template makes a frozen folder t with some files, each of that many MB.
func (r *rig) template(files, eachMB int) {
	r.t.Helper()
	path := r.create("t")
	for i := range files {
		r.must(os.WriteFile(filepath.Join(path, fmt.Sprint(i)), noise(byte(i), eachMB*mb), 0o600))
	}
	r.freeze("t")
}

// wantTemplate compares the files of a template.
func (r *rig) wantTemplate(path string, files, eachMB int) {
	r.t.Helper()
	for i := range files {
		got, err := os.ReadFile(filepath.Join(path, fmt.Sprint(i)))
		if err != nil || !bytes.Equal(got, noise(byte(i), eachMB*mb)) {
			r.t.Errorf("%s/%d is not as it was (%d bytes), %v", path, i, len(got), err)
		}
	}
}

// overwrite changes a part of a file.
func (r *rig) overwrite(path string, at int64, data []byte) {
	r.t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	r.must(err)
	_, err = f.WriteAt(data, at)
	r.must(errors.Join(err, f.Close()))
}

// Run has a driver do all that package snapshot promises.
func Run(t *testing.T, d Driver) {
	if d.Size == 0 {
		d.Size = 800
	}
	for name, test := range map[string]func(*testing.T, Driver){
		"What is written in one folder shows in no other":             testSeparate,
		"Any order of making, writing and deleting does what it says": testModel,
		"Fifty clones are made, written and deleted at once":          testMany,
		"A clone shares what it has not written":                      testShares,
		"A clone of a clone has what its origin has":                  testCloneOfClone,
		"What a clone was made from may go before it":                 testDeleteInAnyOrder,
		"A clone has all that files can have":                         testLooks,
		"A name that is no id is refused":                             testNames,
		"What is not there is not found, and is no error to delete":   testMissing,
		"A name that is taken is refused":                             testTaken,
		"What is frozen cannot be changed":                            testFrozen,
		"A full disk in a clone leaves the others whole":              testFull,
		"After a restart all folders are there":                       testRestart,
		"A clone whose making is cancelled leaves nothing":            testCancelled,
	} {
		t.Run(name, func(t *testing.T) { test(t, d) })
	}
}

func testSeparate(t *testing.T, d Driver) {
	r := d.open(t, d.Size)
	r.template(2, 2)
	a, b := r.clone("t", "a"), r.clone("t", "b")
	r.overwrite(a+"/0", mb/2, []byte("in a"))
	r.overwrite(b+"/0", mb, []byte("in b"))
	r.must(os.Remove(b + "/1"))
	r.write(a+"/new", "new")
	wantA, wantB := noise(0, 2*mb), noise(0, 2*mb)
	copy(wantA[mb/2:], "in a")
	copy(wantB[mb:], "in b")
	r.wantContent(a+"/0", string(wantA))
	r.wantContent(b+"/0", string(wantB))
	r.wantContent(a+"/1", string(noise(1, 2*mb)))
	r.wantTemplate(r.attach("t"), 2, 2)
	for _, path := range []string{b + "/1", b + "/new", r.attach("t") + "/new"} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	c := r.clone("t", "c") // later than the others' writing
	r.wantTemplate(c, 2, 2)
}

// testModel compares a driver with maps.
func testModel(t *testing.T, d Driver) {
	r := d.open(t, d.Size)
	next := 0
	rapid.Check(t, func(rt *rapid.T) {
		type folder struct {
			frozen bool
			files  map[string]string
		}
		model := map[string]*folder{}
		fail := func(err error) {
			rt.Helper()
			if err != nil {
				rt.Fatal(err)
			}
		}
		name := func() string { next++; return fmt.Sprintf("n%d", next) }
		some := func(rt *rapid.T) string {
			if len(model) == 0 {
				rt.Skip()
			}
			return rapid.SampledFrom(sortedKeys(model)).Draw(rt, "folder")
		}
		rt.Repeat(map[string]func(*rapid.T){
			"create": func(*rapid.T) {
				n := name()
				_, err := r.Create(t.Context(), n)
				fail(err)
				model[n] = &folder{files: map[string]string{}}
			},
			"freeze": func(rt *rapid.T) {
				n := some(rt)
				fail(r.Freeze(t.Context(), n))
				model[n].frozen = true
			},
			"clone": func(rt *rapid.T) {
				from, n := some(rt), name()
				_, err := r.Clone(t.Context(), from, n)
				fail(err)
				model[n] = &folder{files: map[string]string{}}
				for k, v := range model[from].files {
					model[n].files[k] = v
				}
			},
			"write": func(rt *rapid.T) {
				n := some(rt)
				if model[n].frozen {
					rt.Skip()
				}
				path, err := r.Attach(t.Context(), n)
				fail(err)
				file := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "file")
				content := rapid.StringN(0, 10, -1).Draw(rt, "content")
				fail(os.WriteFile(filepath.Join(path, file), []byte(content), 0o600))
				model[n].files[file] = content
			},
			"remove": func(rt *rapid.T) {
				n := some(rt)
				if model[n].frozen || len(model[n].files) == 0 {
					rt.Skip()
				}
				path, err := r.Attach(t.Context(), n)
				fail(err)
				file := rapid.SampledFrom(sortedKeys(model[n].files)).Draw(rt, "file")
				fail(os.Remove(filepath.Join(path, file)))
				delete(model[n].files, file)
			},
			"delete": func(rt *rapid.T) {
				n := some(rt)
				fail(r.Delete(t.Context(), n))
				delete(model, n)
			},
			"": func(rt *rapid.T) {
				if got, want := r.list(), sortedKeys(model); !slices.Equal(got, want) {
					rt.Fatalf("there are %v, want %v", got, want)
				}
				for n, f := range model {
					path, err := r.Attach(t.Context(), n)
					fail(err)
					entries, err := os.ReadDir(path)
					fail(err)
					if len(entries) != len(f.files) {
						rt.Fatalf("%s has %v, want %v", n, entries, f.files)
					}
					for file, want := range f.files {
						if got, err := os.ReadFile(filepath.Join(path, file)); err != nil || string(got) != want {
							rt.Fatalf("%s/%s is %q, %v; want %q", n, file, got, err, want)
						}
					}
				}
			},
		})
		for n := range model {
			fail(r.Delete(t.Context(), n))
		}
	})
	if left := r.list(); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func testMany(t *testing.T, d Driver) {
	const clones, files, each = 50, 4, 1
	r := d.open(t, d.Size)
	r.template(files, each)
	do := func(f func(i int) error) {
		t.Helper()
		var all sync.WaitGroup
		for i := range clones {
			all.Go(func() {
				if err := f(i); err != nil {
					t.Errorf("clone %d: %v", i, err)
				}
			})
		}
		all.Wait()
	}
	content := func(i int) []byte { return noise(byte(100+i), 64<<10) }
	do(func(i int) error {
		path, err := r.Clone(t.Context(), "t", fmt.Sprintf("c%d", i))
		if err != nil {
			return err
		}
		f, err := os.OpenFile(path+"/1", os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt(content(i), int64(i)*4096)
		return err
	})
	if got := len(r.list()); got != clones+1 {
		t.Errorf("there are %d folders, want %d", got, clones+1)
	}
	do(func(i int) error {
		path, err := r.Attach(t.Context(), fmt.Sprintf("c%d", i))
		if err != nil {
			return err
		}
		want := noise(1, each*mb)
		copy(want[i*4096:], content(i))
		got, err := os.ReadFile(path + "/1")
		if err == nil && !bytes.Equal(got, want) {
			err = errors.New("it has not what was written to it")
		}
		return err
	})
	r.wantTemplate(r.attach("t"), files, each)
	do(func(i int) error { return r.Delete(t.Context(), fmt.Sprintf("c%d", i)) })
	if got := r.list(); !slices.Equal(got, []string{"t"}) {
		t.Errorf("there is %v", got)
	}
	r.wantTemplate(r.attach("t"), files, each)
}

func testShares(t *testing.T, d Driver) {
	const files, each = 4, 16
	const all = files * each * mb
	r := d.open(t, d.Size)
	r.template(files, each)
	if own := r.own("t"); own < all || own > all+4*mb {
		t.Errorf("a template of %d bytes has %d of its own", all, own)
	}
	before := r.used()
	path := r.clone("t", "a")
	fresh, own := r.used()-before, r.own("a")
	t.Logf("a clone of %d MB takes %d KB of the device, says %d KB", all/mb, fresh>>10, own>>10)
	if d.Copies {
		if fresh < all || own < all {
			t.Errorf("this is called a copy, but takes %d bytes and says %d", fresh, own)
		}
		return
	}
	if fresh > mb || own > mb/8 {
		t.Errorf("it takes %d bytes, and says %d", fresh, own)
	}
	if own := r.own("t"); own > mb {
		t.Errorf("a template that a clone shares has %d bytes of its own", own)
	}
	// A new file, and a part of one that is shared.
	r.must(os.WriteFile(path+"/new", noise(100, 3*mb), 0o600))
	r.overwrite(path+"/2", 5*mb, noise(101, 2*mb))
	written, what := int64(5*mb), "5 MB"
	if d.WholeFiles {
		written, what = 3*mb+each*mb, "3 MB and a file"
	}
	used, own := r.used()-before, r.own("a")
	t.Logf("after %s were written it takes %d KB, says %d KB", what, used>>10, own>>10)
	if used < written-mb/4 || used > written+2*mb || own < written || own > written+mb {
		t.Errorf("after %s were written, it takes %d bytes and says %d", what, used, own)
	}
	r.delete("a")
	r.wantFreed(before + mb)
	r.wantTemplate(r.attach("t"), files, each)
}

// wantFreed waits until no more is allocated: btrfs frees in the background.
func (r *rig) wantFreed(most int64) {
	r.t.Helper()
	Eventually(r.t, fmt.Sprintf("at most %d bytes are allocated", most), func() bool { return r.used() <= most })
}

// Eventually waits until something is so, and fails the test where it never is.
func Eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it is never so that %s", what)
		}
	}
}

func testCloneOfClone(t *testing.T, d Driver) {
	r := d.open(t, d.Size)
	r.template(2, 1)
	a := r.clone("t", "a")
	r.write(a+"/0", "zero by a")
	r.write(a+"/a", "new in a")
	b := r.clone("a", "b") // of what is not frozen
	r.wantContent(b+"/0", "zero by a")
	r.wantContent(b+"/a", "new in a")
	r.write(a+"/0", "later")
	r.must(os.Remove(b + "/1"))
	r.must(os.Mkdir(b+"/1", 0o700)) // a folder where a file was
	r.write(b+"/1/x", "x")
	r.freeze("b")
	r.clone("b", "c")
	r.freeze("c")
	e := r.clone("c", "e")
	for _, path := range []string{r.attach("b"), r.attach("c"), e} {
		r.wantContent(path+"/0", "zero by a")
		r.wantContent(path+"/a", "new in a")
		r.wantContent(path+"/1/x", "x")
	}
	r.must(os.RemoveAll(e + "/1"))
	r.write(e+"/1", "a file again")
	f := r.clone("e", "f")
	r.wantContent(f+"/1", "a file again")
	r.wantContent(r.attach("c")+"/1/x", "x")
	r.wantContent(a+"/0", "later")
	r.wantTemplate(r.attach("t"), 2, 1)
}

func testDeleteInAnyOrder(t *testing.T, d Driver) {
	r := d.open(t, d.Size)
	r.template(2, 1)
	r.delete("t")
	before := r.used()
	order := []string{"t", "a", "b", "c", "d"}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 4 {
		rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		r.template(2, 1)
		r.write(r.clone("t", "a")+"/x", "a")
		r.freeze("a")
		r.write(r.clone("a", "b")+"/x", "b")
		r.write(r.clone("b", "c")+"/x", "c")
		r.write(r.clone("t", "d")+"/x", "d")
		for i, name := range order {
			r.delete(name)
			left := slices.Sorted(slices.Values(order[i+1:]))
			if got := r.list(); !slices.Equal(got, left) {
				t.Fatalf("after deleting %v there are %v, want %v", order[:i+1], got, left)
			}
			if i%2 == 1 {
				r.restart()
			}
			for _, other := range left {
				path := r.attach(other)
				r.wantTemplate(path, 2, 1)
				if other != "t" {
					r.wantContent(path+"/x", other)
				}
			}
		}
	}
	// All must be gone for names to be used again, and no room may be lost.
	r.wantFreed(before + 2*mb)
}

func testLooks(t *testing.T, d Driver) {
	r := d.open(t, d.Size)
	path := r.create("t")
	must := r.must
	when := time.Date(2001, 2, 3, 4, 5, 6, 700, time.UTC)
	for i, mode := range []fs.FileMode{0o600, 0o644, 0, 0o755 | fs.ModeSetuid, 0o750 | fs.ModeSetgid} {
		file := fmt.Sprintf("%s/mode%d", path, i)
		must(os.WriteFile(file, []byte("content"), 0o600))
		must(os.Chown(file, 1000+i, 2000+i))
		must(os.Chmod(file, mode))
	}
	must(os.MkdirAll(path+"/empty/folder", 0o700))
	must(os.Mkdir(path+"/closed", 0o700))
	r.write(path+"/closed/file", "x")
	must(os.Symlink("mode0", path+"/link"))
	must(os.Symlink("/etc", path+"/leads out"))
	must(os.Symlink("nowhere", path+"/leads nowhere"))
	must(os.Lchown(path+"/link", 3000, 3001))
	must(os.Mkdir(path+"/links", 0o700))
	must(os.Link(path+"/mode1", path+"/links/hard"))
	must(unix.Mkfifo(path+"/pipe", 0o640))
	r.write(path+"/empty file", "")
	r.write(path+"/\xff not UTF-8", "x")
	sparse, err := os.Create(path + "/sparse")
	must(err)
	_, err = sparse.WriteAt([]byte("middle"), 40*mb)
	must(errors.Join(err, sparse.Truncate(100*mb), sparse.Close()))
	must(unix.Setxattr(path+"/mode0", "user.dayfly", []byte("an attribute"), 0))
	must(unix.Setxattr(path+"/empty", "user.dayfly", []byte("of a folder"), 0))
	must(os.Chmod(path+"/closed", 0o500))
	must(os.Chown(path+"/closed", 1234, 1235))
	must(os.Chown(path, 999, 998))
	must(os.Chmod(path, 0o750))
	for _, file := range []string{"mode0", "link", "empty", "closed", "pipe", "."} {
		must(unix.UtimesNanoAt(unix.AT_FDCWD, path+"/"+file, []unix.Timespec{unix.NsecToTimespec(when.UnixNano()), unix.NsecToTimespec(when.UnixNano())}, unix.AT_SYMLINK_NOFOLLOW))
	}
	want := describe(t, path)
	first := r.clone("t", "first") // of what is not frozen
	r.freeze("t")
	second := r.clone("t", "second")
	r.write(second+"/another", "x")
	must(os.Remove(second + "/another"))
	must(os.Chtimes(second, when, when))
	third := r.clone("second", "third")
	for name, clone := range map[string]string{"first": first, "second": second, "third": third} {
		if got := describe(t, clone); got != want {
			t.Errorf("%s has\n%s\nwant\n%s", name, got, want)
		}
		var s unix.Stat_t
		must(unix.Stat(clone+"/sparse", &s))
		if s.Blocks*512 > mb {
			t.Errorf("the sparse file of %s takes %d bytes", name, s.Blocks*512)
		}
	}
	// A write through one name of a file shows at the other.
	r.write(third+"/mode1", "changed")
	if d.Name == "overlay" {
		return // but overlayfs copies up one name only
	}
	r.wantContent(third+"/links/hard", "changed")
}

// describe lists a tree with what its files have.
func describe(t testing.TB, root string) string {
	t.Helper()
	var b strings.Builder
	inodes := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var s unix.Stat_t
		if err := unix.Lstat(path, &s); err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%q mode %o owner %d:%d time %d.%d", name, s.Mode, s.Uid, s.Gid, s.Mtim.Sec, s.Mtim.Nsec)
		switch s.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			to, err := os.Readlink(path)
			fmt.Fprintf(&b, " to %s %v", to, err)
		case unix.S_IFREG:
			content, err := os.ReadFile(path)
			fmt.Fprintf(&b, " %d bytes, begins with %.20q, has middle at %d %v", len(content), content[:min(len(content), 20)], bytes.Index(content, []byte("middle")), err)
			if first, ok := inodes[s.Ino]; ok {
				fmt.Fprintf(&b, " is %s", first)
			}
			inodes[s.Ino] = name
		}
		if buf := make([]byte, 100); s.Mode&unix.S_IFMT != unix.S_IFLNK {
			if n, err := unix.Getxattr(path, "user.dayfly", buf); err == nil {
				fmt.Fprintf(&b, " attribute %s", buf[:n])
			}
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func testNames(t *testing.T, d Driver) {
	r := d.open(t, d.Size)
	r.template(1, 1)
	outside := filepath.Join(filepath.Dir(r.dir), "outside")
	r.must(os.Mkdir(outside, 0o700))
	for _, name := range []string{"", ".", "..", "../outside", "../../outside", "a/b", "/", "A", "a.part", ".hidden", "a b", "a\x00b", "a\nb", "t/", strings.Repeat("a", 33), "é"} {
		_, errCreate := r.Create(t.Context(), name)
		_, errFrom := r.Clone(t.Context(), name, "b")
		_, errTo := r.Clone(t.Context(), "t", name)
		_, errAttach := r.Attach(t.Context(), name)
		_, _, errOwn := r.OwnBytes(t.Context(), name)
		for what, err := range map[string]error{
			"Create": errCreate, "Clone from": errFrom, "Clone to": errTo, "Attach": errAttach, "OwnBytes": errOwn,
			"Freeze": r.Freeze(t.Context(), name), "Delete": r.Delete(t.Context(), name),
		} {
			if dayfly.ErrorCode(err) != dayfly.CodeInvalid {
				t.Errorf("%s of %q: %v", what, name, err)
			}
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
	if got := r.list(); !slices.Equal(got, []string{"t"}) {
		t.Errorf("there is %v", got)
	}
	id := dayfly.NewID()
	r.clone("t", id)
	r.delete(id)
}

func testMissing(t *testing.T, d Driver) {
	r := d.open(t, d.Size)
	for _, when := range []string{"before anything was made", "after something was made"} {
		_, errFrom := r.Clone(t.Context(), "no", "b")
		_, errAttach := r.Attach(t.Context(), "no")
		_, _, errOwn := r.OwnBytes(t.Context(), "no")
		for what, err := range map[string]error{"Clone": errFrom, "Attach": errAttach, "OwnBytes": errOwn, "Freeze": r.Freeze(t.Context(), "no")} {
			if dayfly.ErrorCode(err) != dayfly.CodeNotFound {
				t.Errorf("%s %s: %v", what, when, err)
			}
		}
		if err := r.Delete(t.Context(), "no"); err != nil {
			t.Errorf("Delete %s: %v", when, err)
		}
		if got := r.list(); len(got) > 0 {
			t.Errorf("%s there is %v", when, got)
		}
		r.create("a")
		r.delete("a")
		r.delete("a")
	}
}

func testTaken(t *testing.T, d Driver) {
	r := d.open(t, d.Size)
	r.template(1, 1)
	r.write(r.clone("t", "a")+"/x", "of a")
	_, errCreate := r.Create(t.Context(), "a")
	_, errClone := r.Clone(t.Context(), "t", "a")
	_, errSelf := r.Clone(t.Context(), "t", "t")
	for what, err := range map[string]error{"Create": errCreate, "Clone": errClone, "Clone to itself": errSelf} {
		if dayfly.ErrorCode(err) != dayfly.CodeConflict {
			t.Errorf("%s: %v", what, err)
		}
	}
	r.wantContent(r.attach("a")+"/x", "of a")
	r.wantTemplate(r.attach("t"), 1, 1)
}

func testFrozen(t *testing.T, d Driver) {
	r := d.open(t, d.Size)
	r.template(1, 1)
	r.write(r.clone("t", "a")+"/x", "x")
	r.freeze("a")
	r.freeze("a") // again
	r.restart()
	for name, readOnly := range map[string]bool{"t": d.ReadOnly, "a": d.ReadOnlyClones} {
		err := os.WriteFile(r.attach(name)+"/y", nil, 0o600)
		if readOnly != errors.Is(err, unix.EROFS) {
			t.Errorf("writing to %s: %v", name, err)
		}
	}
	b := r.clone("a", "b")
	r.write(b+"/x", "written in a clone")
	r.wantContent(r.attach("a")+"/x", "x")
	r.wantTemplate(b, 1, 1)
}

func testFull(t *testing.T, d Driver) {
	r := d.open(t, 420)
	r.template(2, 8)
	a, b := r.clone("t", "a"), r.clone("t", "b")
	r.overwrite(b+"/0", mb, []byte("before it was full"))
	fill := func() error {
		f, err := os.Create(a + "/large")
		if err != nil {
			return err
		}
		defer f.Close()
		data := noise(77, mb)
		for range 2 * 420 {
			if _, err := f.Write(data); err != nil {
				return err
			}
		}
		return errors.New("there is room without end")
	}
	if err := fill(); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	_, err := r.Clone(t.Context(), "t", "c")
	t.Logf("a clone on a full disk: %v", err)
	if err == nil {
		r.wantTemplate(r.attach("c"), 2, 8)
	} else if slices.Contains(r.list(), "c") {
		t.Errorf("there is a clone that could not be made: %v", err)
	}
	want := noise(0, 8*mb)
	copy(want[mb:], "before it was full")
	r.wantContent(b+"/0", string(want))
	r.wantContent(b+"/1", string(noise(1, 8*mb)))
	r.wantTemplate(r.attach("t"), 2, 8)
	r.delete("a")
	r.delete("c")
	// There is room again, sooner or later, and what was whole is still.
	r.eventually(func() error { return os.WriteFile(b+"/new", noise(3, 8*mb), 0o600) })
	r.wantContent(b+"/0", string(want))
	r.eventually(func() error {
		_, err := r.Clone(t.Context(), "t", "e")
		return err
	})
	r.wantTemplate(r.attach("e"), 2, 8)
}

// eventually does something again while there is no room for it.
func (r *rig) eventually(do func() error) {
	r.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if full := errors.Is(err, unix.ENOSPC) || dayfly.ErrorCode(err) == dayfly.CodeUnavailable; !full || time.Now().After(end) {
			r.t.Fatal(err)
		}
		r.used() // has it freed
	}
}

func testRestart(t *testing.T, d Driver) {
	r := d.open(t, d.Size)
	r.template(2, 1)
	r.write(r.clone("t", "a")+"/0", "by a")
	r.freeze("a")
	r.write(r.clone("a", "b")+"/1", "by b")
	r.create("new")
	paths := map[string]string{"t": r.attach("t"), "a": r.attach("a"), "b": r.attach("b"), "new": r.attach("new")}
	for _, how := range []struct {
		name    string
		restart func()
	}{{"of the server", r.reopen}, {"of the host", r.restart}, {"of the host, again", r.restart}} {
		how.restart()
		if got := r.list(); !slices.Equal(got, []string{"a", "b", "new", "t"}) {
			t.Fatalf("after a restart %s there are %v", how.name, got)
		}
		for range 2 {
			for name, path := range paths {
				if got := r.attach(name); got != path {
					t.Errorf("after a restart %s, %s is at %s, before at %s", how.name, name, got, path)
				}
			}
		}
		mounts := mountsBelow(t, r.dir)
		for i, m := range mounts {
			if slices.ContainsFunc(mounts[:i], func(o loop.Mount) bool { return o.Point == m.Point }) {
				t.Errorf("after a restart %s, %s is mounted twice", how.name, m.Point)
			}
		}
		r.wantTemplate(paths["t"], 2, 1)
		r.wantContent(paths["a"]+"/0", "by a")
		r.wantContent(paths["b"]+"/0", "by a")
		r.wantContent(paths["b"]+"/1", "by b")
		r.write(paths["new"]+"/x", "still writable")
	}
}

func testCancelled(t *testing.T, d Driver) {
	r := d.open(t, d.Size)
	r.template(40, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := r.used()
	_, err := r.Clone(ctx, "t", "a")
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("it says %v", err)
		}
		if got := r.list(); !slices.Equal(got, []string{"t"}) {
			t.Errorf("there is %v", got)
		}
	} else {
		r.wantTemplate(r.attach("a"), 40, 1)
		r.delete("a")
	}
	r.wantFreed(before + mb)
	r.wantTemplate(r.clone("t", "b"), 40, 1)
}
