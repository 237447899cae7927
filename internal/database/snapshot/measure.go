//go:build linux

package snapshot

import (
	"context"
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

type ptr = unsafe.Pointer

// The kernel's FS_IOC_FIEMAP, and what it says of an extent.
const (
	fiemap       = 0xc020660b
	extentLast   = 0x1
	extentInline = 0x200
	extentShared = 0x2000
	extents      = 128 // asked for at once
)

type extentMap struct {
	start, length                  uint64
	flags, mapped, count, reserved uint32
	extents                        [extents]struct {
		logical, physical, length uint64
		_                         [2]uint64
		flags                     uint32
		_                         [3]uint32
	}
}

// unshared counts the bytes of a file's extents that no other file shares. Small files that lie in
// the tree of a btrfs count nothing.
func unshared(ctx context.Context, f *os.File) (own int64, err error) {
	var m extentMap
	for at := uint64(0); ; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		m.start, m.length, m.flags, m.mapped, m.count = at, ^uint64(0)-at, 0, 0, extents
		if err := control(f, fiemap, ptr(&m)); err != nil {
			return 0, &os.PathError{Op: "FIEMAP", Path: f.Name(), Err: err}
		}
		for _, e := range m.extents[:m.mapped] {
			if e.flags&(extentShared|extentInline) == 0 {
				own += int64(e.length)
			}
			at = e.logical + e.length
			if e.flags&extentLast != 0 {
				return own, nil
			}
		}
		if m.mapped == 0 {
			return own, nil
		}
	}
}

// measure adds up what the files of a tree use.
func measure(ctx context.Context, dir string, of func(entry) (int64, error)) (sum int64, err error) {
	top, err := openAt(unix.AT_FDCWD, dir)
	if err != nil {
		return 0, err
	}
	defer top.Close()
	seen := map[inode]bool{}
	err = walk(ctx, top, "", func(e entry) error {
		if i := (inode{e.Dev, e.Ino}); e.Nlink > 1 && e.Mode&unix.S_IFMT != unix.S_IFDIR {
			if seen[i] {
				return nil
			}
			seen[i] = true
		}
		n, err := of(e)
		sum += n
		return err
	})
	return sum, err
}

// ownBytes counts what files share with none others.
func ownBytes(ctx context.Context, dir string) (int64, error) {
	return measure(ctx, dir, func(e entry) (int64, error) {
		if e.Mode&unix.S_IFMT != unix.S_IFREG || e.Size == 0 {
			return 0, nil
		}
		f, err := e.open()
		if err != nil {
			return 0, err
		}
		defer f.Close()
		return unshared(ctx, f)
	})
}

// allBytes counts all that is allocated.
func allBytes(ctx context.Context, dir string) (int64, error) {
	return measure(ctx, dir, func(e entry) (int64, error) { return 512 * e.Blocks, nil })
}

// room says how many bytes a file system has, and how many of them can be written to.
func room(dir string) (total, free int64, err error) {
	var s unix.Statfs_t
	for {
		err = unix.Statfs(dir, &s)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(s.Blocks) * s.Bsize, int64(s.Bavail) * s.Bsize, nil
}
