//go:build linux

package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot/loop"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot/snapshottest"
)

const mb = 1 << 20

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a folder that goes with the test.
func open(t *testing.T, opt snapshot.Options) snapshot.Cloner {
	t.Helper()
	c, err := snapshot.Open(t.Context(), opt)
	must(t, err)
	t.Cleanup(func() {
		if err := snapshot.Destroy(context.Background(), opt.Dir, nil); err != nil {
			t.Error(err)
		}
	})
	return c
}

func statfs(t testing.TB, dir string) (size, free int64) {
	t.Helper()
	var s unix.Statfs_t
	must(t, unix.Statfs(dir, &s))
	return int64(s.Blocks) * s.Bsize, int64(s.Bavail) * s.Bsize
}

// take lets a file take room without writing it.
func take(t testing.TB, file string, bytes int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o600)
	must(t, err)
	defer f.Close()
	must(t, unix.Fallocate(int(f.Fd()), 0, 0, bytes))
}

func TestAPoolIsMadeWithTheFirstFolderAndTakesWhatIsWritten(t *testing.T) {
	dir := snapshottest.Ext4(t, 2000) + "/data"
	c := open(t, snapshot.Options{Dir: dir})
	if c.Name() != "btrfs" {
		t.Fatalf("the driver is %s", c.Name())
	}
	if all, err := c.List(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("there are %v, %v", all, err)
	}
	must(t, c.Delete(t.Context(), "x"))
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("before anything was made there is %v, %v", entries, err)
	}
	before := snapshottest.Used(t, dir)
	path, err := c.Create(t.Context(), "x")
	must(t, err)
	if used := snapshottest.Used(t, dir) - before; used > 10*mb {
		t.Errorf("an empty pool takes %d bytes", used)
	}
	must(t, os.WriteFile(path+"/file", make([]byte, 50*mb), 0o600))
	snapshottest.Used(t, path)
	if used := snapshottest.Used(t, dir) - before; used < 50*mb || used > 70*mb {
		t.Errorf("50 MB in the pool take %d bytes", used)
	}
	size, _ := statfs(t, path)
	if size < 850*mb || size > 1000*mb {
		t.Errorf("on a disk of 2000 MB, the pool has %d bytes", size)
	}
	must(t, os.Remove(path+"/file"))
	// btrfs gives back what was deleted, sooner or later.
	snapshottest.Eventually(t, "the room is given back", func() bool {
		snapshottest.Used(t, path)
		return snapshottest.Used(t, dir)-before < 20*mb
	})
}

func TestAPoolGrowsWhenItFillsUpAndNeverPastTheDiskBelow(t *testing.T) {
	top := snapshottest.Ext4(t, 3000)
	dir := top + "/data"
	c := open(t, snapshot.Options{Dir: dir})
	grower := c.(snapshot.Grower)
	must(t, grower.Grow(t.Context())) // of what is not there
	path, err := c.Create(t.Context(), "x")
	must(t, err)
	first, _ := statfs(t, path)
	must(t, grower.Grow(t.Context()))
	if size, _ := statfs(t, path); size != first {
		t.Errorf("it grew from %d to %d without need", first, size)
	}
	take(t, path+"/1", first*8/10)
	for what, do := range map[string]func() error{
		"Clone":  func() error { _, err := c.Clone(t.Context(), "x", "y"); return err },
		"Create": func() error { _, err := c.Create(t.Context(), "z"); return err },
		"Grow":   func() error { return grower.Grow(t.Context()) },
	} {
		must(t, do())
		if size, _ := statfs(t, path); size < first*3/2 {
			t.Errorf("after %s its size is %d, before %d", what, size, first)
		}
	}
	disk, _ := statfs(t, top)
	size, _ := statfs(t, path)
	if size > disk*95/100 {
		t.Errorf("the pool has %d bytes, the disk %d", size, disk)
	}
	dev, err := loop.Find(dir + "/pool.img")
	must(t, err)
	dev.Close()
	m, _, err := loop.At(dir + "/pool")
	must(t, err)
	if m.Source != dev.Name() {
		t.Errorf("mounted is %s, the pool is %s", m.Source, dev.Name())
	}
}

func TestAPoolGrowsForWhatIsWrittenBeforeThatIsOnTheDevice(t *testing.T) {
	dir := snapshottest.Ext4(t, 700) + "/data"
	c := open(t, snapshot.Options{Dir: dir})
	path, err := c.Create(t.Context(), "x")
	must(t, err)
	before, free := statfs(t, path)
	must(t, os.WriteFile(path+"/file", bytesOf(int(free-230*mb)), 0o600)) // and 256 MB should be free
	must(t, c.(snapshot.Grower).Grow(t.Context()))
	if size, _ := statfs(t, path); size <= before {
		t.Errorf("it has %d bytes, before %d", size, before)
	}
}

func TestAPoolShrinksWhenOthersFillTheDiskAndRefusesWhatIsNew(t *testing.T) {
	top := snapshottest.Ext4(t, 2000)
	dir := top + "/data"
	c := open(t, snapshot.Options{Dir: dir})
	path, err := c.Create(t.Context(), "x")
	must(t, err)
	must(t, os.WriteFile(path+"/file", make([]byte, 30*mb), 0o600))
	snapshottest.Used(t, path)
	before, _ := statfs(t, path)
	_, free := statfs(t, top)
	take(t, top+"/others", free-300*mb)
	must(t, c.(snapshot.Grower).Grow(t.Context()))
	size, _ := statfs(t, path)
	_, free = statfs(t, top)
	if size >= before || size > free+100*mb {
		t.Errorf("with %d bytes free on the disk, the pool has %d, before %d", free, size, before)
	}
	// The pool is full before the disk is, so nothing breaks.
	f, err := os.Create(path + "/fill")
	must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(bytesOf(mb))
	}
	if err = errors.Join(err, f.Sync()); !errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EIO) {
		t.Errorf("filling the pool: %v", err)
	}
	snapshottest.Used(t, path)
	if _, free := statfs(t, top); free < 20*mb {
		t.Errorf("of the disk, %d bytes are left", free)
	}
	for what, do := range map[string]func() error{
		"Clone":  func() error { _, err := c.Clone(t.Context(), "x", "y"); return err },
		"Create": func() error { _, err := c.Create(t.Context(), "z"); return err },
	} {
		if err := do(); dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !strings.Contains(err.Error(), "nearly full") {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, os.Remove(top+"/others"))
	must(t, c.(snapshot.Grower).Grow(t.Context()))
	if _, err := c.Clone(t.Context(), "x", "y"); err != nil {
		t.Errorf("with room on the disk: %v", err)
	}
}

// bytesOf gives what cannot be stored as a hole.
func bytesOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) | 1
	}
	return b
}

// takeAll lets a file take all the room that there is, without writing it.
func takeAll(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	must(t, err)
	defer f.Close()
	at := int64(0)
	for step := int64(64 * mb); step >= 4096; {
		if err := unix.Fallocate(int(f.Fd()), 0, at, step); errors.Is(err, unix.ENOSPC) {
			step /= 2
		} else {
			must(t, err)
			at += step
		}
	}
}

func TestWhatTheDiskBelowHadNoRoomForIsNeverFrozen(t *testing.T) {
	top := snapshottest.Ext4(t, 700)
	dir := top + "/data"
	c := open(t, snapshot.Options{Dir: dir})
	path, err := c.Create(t.Context(), "x")
	must(t, err)
	_, err = c.Create(t.Context(), "y") // both are being filled at once
	must(t, err)
	// What holds the file system together lies in front, and shall be written.
	f, err := os.OpenFile(dir+"/pool.img", os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 64*mb))
	must(t, os.WriteFile(path+"/file", bytesOf(150*mb), 0o600)) // in memory
	takeAll(t, top+"/others")
	writeOut(t, path+"/file")
	for _, name := range []string{"x", "y"} {
		err = c.Freeze(t.Context(), name)
		if dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !strings.Contains(err.Error(), "some of it is lost") {
			t.Errorf("freezing %s says %v", name, err)
		}
	}
	must(t, c.Delete(t.Context(), "x"))
	must(t, os.Remove(top+"/others"))
	path, err = c.Create(t.Context(), "x")
	must(t, err)
	must(t, os.WriteFile(path+"/file", bytesOf(100*mb), 0o600))
	if err := c.Freeze(t.Context(), "x"); err != nil {
		t.Errorf("with room on the disk: %v", err)
	}
}

func TestAPoolThatTheKernelDoesNotWriteToAnyMoreSaysWhatToDoAndComesBackByItself(t *testing.T) {
	top := snapshottest.Ext4(t, 700)
	dir := top + "/data"
	c := open(t, snapshot.Options{Dir: dir})
	_, err := c.Create(t.Context(), "x")
	must(t, err)
	must(t, unix.Mount("", dir+"/pool", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	for what, do := range map[string]func() error{
		"Create": func() error { _, err := c.Create(t.Context(), "y"); return err },
		"Clone":  func() error { _, err := c.Clone(t.Context(), "x", "y"); return err },
		"Attach": func() error { _, err := c.Attach(t.Context(), "x"); return err },
	} {
		if err := do(); dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !strings.Contains(err.Error(), "umount "+dir+"/pool") {
			t.Errorf("%s says %v", what, err)
		}
	}
	must(t, unix.Unmount(dir+"/pool", 0))
	if _, err := c.Clone(t.Context(), "x", "y"); err != nil {
		t.Error(err)
	}
}

// writeOut has a file written to the device, as the kernel does by itself some time later: nobody is told what came of it.
func writeOut(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}

func TestNoPoolIsMadeOnADiskThatIsNearlyFull(t *testing.T) {
	dir := snapshottest.Ext4(t, 250) + "/data"
	c := open(t, snapshot.Options{Dir: dir})
	_, err := c.Create(t.Context(), "x")
	if dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !strings.Contains(err.Error(), "needs 256 MB") {
		t.Errorf("it says %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("there is %v, %v", entries, err)
	}
}

func TestWhereAPoolCannotBeMadeSomethingElseIsUsed(t *testing.T) {
	dir := snapshottest.Ext4(t, 700) + "/data"
	c := open(t, snapshot.Options{Dir: dir})
	bin := t.TempDir()
	must(t, os.WriteFile(bin+"/mkfs.btrfs", []byte("#!/bin/sh\necho it is broken >&2\nexit 1\n"), 0o755))
	path := os.Getenv("PATH")
	t.Setenv("PATH", bin)
	if _, err := c.Create(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if c.Name() != "overlay" {
		t.Errorf("it uses %s", c.Name())
	}
	must(t, c.Freeze(t.Context(), "x"))
	_, err := c.Clone(t.Context(), "x", "y")
	must(t, err)
	t.Setenv("PATH", path)
	// It stays with that while there are folders.
	c, err = snapshot.Open(t.Context(), snapshot.Options{Dir: dir})
	must(t, err)
	if all, err := c.List(t.Context()); err != nil || fmt.Sprint(all) != "[x y]" || c.Name() != "overlay" {
		t.Errorf("%s has %v, %v", c.Name(), all, err)
	}
	for _, name := range []string{"x", "y"} {
		must(t, c.Delete(t.Context(), name))
	}
	c, err = snapshot.Open(t.Context(), snapshot.Options{Dir: dir})
	must(t, err)
	if c.Name() != "btrfs" {
		t.Errorf("with no folders left it uses %s", c.Name())
	}
}

func TestAPoolThatWasAskedForSaysWhyThereIsNone(t *testing.T) {
	dir := snapshottest.Ext4(t, 700) + "/data"
	t.Setenv("PATH", t.TempDir())
	_, err := snapshot.Open(t.Context(), snapshot.Options{Dir: dir, Driver: "btrfs"})
	if dayfly.ErrorCode(err) != dayfly.CodeInvalid || !strings.Contains(err.Error(), "mkfs.btrfs is not installed") {
		t.Errorf("it says %v", err)
	}
}

func TestOnePoolServesAllThatOpenIt(t *testing.T) {
	dir := snapshottest.Ext4(t, 700) + "/data"
	a := open(t, snapshot.Options{Dir: dir})
	b := open(t, snapshot.Options{Dir: dir})
	path, err := a.Create(t.Context(), "x")
	must(t, err)
	must(t, os.WriteFile(path+"/file", []byte("content"), 0o600))
	if got, err := b.Attach(t.Context(), "x"); err != nil || got != path {
		t.Errorf("it is at %s, %v", got, err)
	}
	must(t, a.Close())
	if got, err := os.ReadFile(path + "/file"); err != nil || string(got) != "content" {
		t.Errorf("after closing it has %q, %v", got, err)
	}
	_, err = b.Clone(t.Context(), "x", "y")
	must(t, err)
	mounts, err := loop.Mounts()
	must(t, err)
	n := 0
	for _, m := range mounts {
		if strings.HasPrefix(m.Point, dir) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("it is mounted %d times", n)
	}
}

func TestAPoolInUseGoesWhenNothingUsesItAnyMore(t *testing.T) {
	dir := snapshottest.Ext4(t, 700) + "/data"
	c := open(t, snapshot.Options{Dir: dir})
	path, err := c.Create(t.Context(), "x")
	must(t, err)
	f, err := os.Create(path + "/file")
	must(t, err)
	m, _, err := loop.At(filepath.Join(dir, "pool"))
	must(t, err)
	must(t, snapshot.Destroy(t.Context(), dir, nil))
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder: %v", err)
	}
	if _, err := f.WriteString("still"); err != nil {
		t.Error(err)
	}
	f.Close()
	snapshottest.Eventually(t, "the device goes", func() bool {
		_, err := os.Stat("/sys/block/" + filepath.Base(m.Source) + "/loop")
		if err != nil {
			return true
		}
		data, err := os.ReadFile("/sys/block/" + filepath.Base(m.Source) + "/loop/backing_file")
		return err != nil || !strings.HasPrefix(string(data), dir) // it may be another's by now
	})
}
