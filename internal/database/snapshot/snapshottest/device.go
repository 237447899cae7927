//go:build linux

// Package snapshottest is what every driver of package snapshot has to pass, and file systems of
// their own for tests.
package snapshottest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly/internal/database/snapshot/loop"
)

// btrfsSync is BTRFS_IOC_SYNC.
const btrfsSync = 0x9408

// Btrfs gives an empty folder that is a btrfs of that size in MB (at least 128) on a device of its own. It goes with
// the test. Without root or mkfs.btrfs, the test is skipped.
func Btrfs(t testing.TB, sizeMB int64) string {
	t.Helper()
	return device(t, sizeMB, "btrfs", "mkfs.btrfs", "-q", "-m", "single")
}

// XFS gives an empty folder that is an XFS which shares blocks, as Btrfs does (at least 320 MB).
func XFS(t testing.TB, sizeMB int64) string {
	t.Helper()
	return device(t, sizeMB, "xfs", "mkfs.xfs", "-q", "-m", "reflink=1")
}

// Ext4 gives an empty folder that is an ext4, which shares no blocks, as Btrfs does.
func Ext4(t testing.TB, sizeMB int64) string {
	t.Helper()
	return device(t, sizeMB, "ext4", "mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0")
}

func device(t testing.TB, sizeMB int64, fstype string, mkfs ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	if _, err := exec.LookPath(mkfs[0]); err != nil {
		t.Skip(mkfs[0] + " is not installed")
	}
	if err := loop.Supported(fstype); err != nil {
		t.Skip(err)
	}
	// A short name: overlayfs is told many of them at once.
	dir, err := os.MkdirTemp("", "dayfly-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	file, mnt := filepath.Join(dir, "device"), filepath.Join(dir, "mnt")
	f, err := os.Create(file)
	if err == nil {
		err = f.Truncate(sizeMB << 20)
		f.Close()
	}
	if err == nil {
		err = os.Mkdir(mnt, 0o711)
	}
	if err == nil {
		err = os.Chmod(mnt, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	//nolint:forbidigo // an argument vector of our own and a file of ours
	if out, err := exec.Command(mkfs[0], append(mkfs[1:], file)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", mkfs, err, out)
	}
	dev, err := loop.Attach(file)
	if err != nil {
		t.Skip(err)
	}
	defer dev.Close()
	if err := unix.Mount(dev.Name(), mnt, fstype, unix.MS_NOATIME, ""); err != nil {
		t.Fatalf("mounting %s as %s: %v", dev.Name(), fstype, err)
	}
	t.Cleanup(func() {
		if _, err := loop.Unmount(mnt); err != nil {
			t.Error(err)
		}
	})
	// A folder below, since the top of an ext4 has a lost+found.
	top := filepath.Join(mnt, "top")
	if err := os.Mkdir(top, 0o711); err != nil {
		t.Fatal(err)
	}
	return top
}

// Used gives how many bytes of its device the file system of a folder has allocated. What was
// written before is on the device then.
func Used(t testing.TB, dir string) int64 {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var s unix.Statfs_t
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	// Where it is a btrfs, this has what was deleted freed soon; by itself it takes half a minute.
	if err := unix.IoctlSetInt(int(f.Fd()), btrfsSync, 0); err != nil && !errors.Is(err, unix.ENOTTY) {
		t.Fatal(err)
	}
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Blocks-s.Bfree) * s.Bsize
}
