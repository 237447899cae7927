//go:build linux

package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// chunk is how much is copied before a cancellation is looked for.
const chunk = 64 << 20

// copyFile gives an empty file the content of another one.
type copyFile func(ctx context.Context, to, from *os.File, size int64) error

// entry is what a walk comes by. What lies in a folder belongs to others and may change at any
// time, so everything is opened by its name in its open folder, and no symbolic link is followed.
type entry struct {
	in   *os.File // the folder
	path string   // from the top, without a slash at the front
	unix.Stat_t
}

// open opens what is a file or a folder.
func (e entry) open() (*os.File, error) {
	return openAt(int(e.in.Fd()), filepath.Base(e.path))
}

func openAt(dir int, name string) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// walk goes through a tree, folders before what is in them. What vanishes meanwhile is left out, as
// if it had been gone before.
func walk(ctx context.Context, dir *os.File, path string, each func(entry) error) error {
	for {
		names, err := dir.Readdirnames(1000)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			e := entry{in: dir, path: filepath.Join(path, name)}
			err := unix.Fstatat(int(dir.Fd()), name, &e.Stat_t, unix.AT_SYMLINK_NOFOLLOW)
			if err == nil {
				if err = each(e); err == nil && e.Mode&unix.S_IFMT == unix.S_IFDIR {
					err = walkInto(ctx, e, each)
				}
			}
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
}

func walkInto(ctx context.Context, e entry, each func(entry) error) error {
	dir, err := e.open()
	if err != nil {
		return err
	}
	defer dir.Close()
	return walk(ctx, dir, e.path, each)
}

// copyTree makes a folder with the content of another: files, folders, links, pipes, with their
// owners, modes, times and extended attributes. Sockets belong to a running program and are left
// out. Until it is whole, nobody else can look into it.
func copyTree(ctx context.Context, to, from string, file copyFile) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dir, err := openAt(unix.AT_FDCWD, from)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	c := copier{to: to, file: file, linked: map[inode]string{}, jobs: make(chan job)}
	var workers sync.WaitGroup
	for range min(2*runtime.GOMAXPROCS(0), 16) {
		workers.Go(func() {
			for j := range c.jobs {
				if err := c.copy(ctx, j); err != nil {
					cancel(err)
				}
			}
		})
	}
	err = walk(ctx, dir, "", func(e entry) error { return c.entry(ctx, e) })
	close(c.jobs)
	workers.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil {
		return fmt.Errorf("%s cannot be copied: %w", from, err)
	}
	for _, l := range c.links {
		if err := os.Link(l[0], l[1]); err != nil {
			return err
		}
	}
	// The folders last, those within others first: what is put into one changes its time, and its
	// mode may forbid it.
	for _, d := range slices.Backward(c.dirs) {
		if err := d.apply(); err != nil {
			return err
		}
	}
	top, err := look(dir, to)
	if err != nil {
		return err
	}
	return top.apply()
}

// inode is what hard links have in common.
type inode struct{ dev, ino uint64 }

type copier struct {
	to     string
	file   copyFile
	jobs   chan job
	linked map[inode]string // to the first path of a file with several names
	links  [][2]string
	dirs   []looks
}

// job is a file to be copied.
type job struct {
	from *os.File
	to   string
}

func (c *copier) entry(ctx context.Context, e entry) error {
	to := filepath.Join(c.to, e.path)
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		dir, err := e.open()
		if err != nil {
			return err
		}
		defer dir.Close()
		l, err := look(dir, to)
		if err != nil {
			return err
		}
		c.dirs = append(c.dirs, l)
		return os.Mkdir(to, 0o700)
	case unix.S_IFREG:
		if e.Nlink > 1 {
			i := inode{e.Dev, e.Ino}
			if first, ok := c.linked[i]; ok {
				c.links = append(c.links, [2]string{first, to})
				return nil
			}
			c.linked[i] = to
		}
		from, err := e.open()
		if err != nil {
			return err
		}
		select {
		case c.jobs <- job{from, to}:
			return nil
		case <-ctx.Done():
			from.Close()
			return ctx.Err()
		}
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(e.in.Fd()), filepath.Base(e.path), buf)
		if err != nil {
			return err
		}
		if err := os.Symlink(string(buf[:n]), to); err != nil {
			return err
		}
	case unix.S_IFSOCK:
		return nil
	case unix.S_IFIFO:
		if err := unix.Mkfifo(to, 0o600); err != nil {
			return &os.PathError{Op: "mkfifo", Path: to, Err: err}
		}
	case unix.S_IFCHR:
		if e.Rdev != 0 {
			return fmt.Errorf("%s is a device", e.path)
		}
		// With overlayfs, this is how a layer says that a file below is deleted.
		if err := unix.Mknod(to, unix.S_IFCHR, 0); err != nil {
			return &os.PathError{Op: "mknod", Path: to, Err: err}
		}
	default:
		return fmt.Errorf("%s is a device", e.path)
	}
	return looks{path: to, Stat_t: e.Stat_t}.apply()
}

func (c *copier) copy(ctx context.Context, j job) error {
	defer j.from.Close()
	l, err := look(j.from, j.to)
	if err != nil {
		return err
	}
	if l.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is no file any more", j.from.Name())
	}
	to, err := os.OpenFile(j.to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = c.file(ctx, to, j.from, l.Size)
	if err := errors.Join(err, to.Close()); err != nil {
		return err
	}
	return l.apply()
}

// looks are what a file has beside its content.
type looks struct {
	path string // to be given them
	unix.Stat_t
	xattrs map[string][]byte
}

// look reads what an open file or folder looks like.
func look(f *os.File, path string) (looks, error) {
	l := looks{path: path}
	fd := int(f.Fd())
	if err := unix.Fstat(fd, &l.Stat_t); err != nil {
		return looks{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	list, err := grown(func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return l, nil
	}
	if err != nil {
		return looks{}, &os.PathError{Op: "listxattr", Path: f.Name(), Err: err}
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value, err := grown(func(b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EPERM) { // gone, or not for us
			continue
		}
		if err != nil {
			return looks{}, &os.PathError{Op: "getxattr " + name, Path: f.Name(), Err: err}
		}
		if l.xattrs == nil {
			l.xattrs = map[string][]byte{}
		}
		l.xattrs[name] = value
	}
	return l, nil
}

// grown reads what may need more room than there was a moment ago.
func grown(read func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := read(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		b := make([]byte, n)
		if n, err = read(b); !errors.Is(err, unix.ERANGE) {
			return b[:max(n, 0)], err
		}
	}
}

// apply gives a path its owner, mode, attributes and times, in an order in which none undoes
// another.
func (l looks) apply() error {
	if err := os.Lchown(l.path, int(l.Uid), int(l.Gid)); err != nil && os.Geteuid() == 0 {
		return err
	}
	for name, value := range l.xattrs {
		err := unix.Lsetxattr(l.path, name, value, 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) && os.Geteuid() == 0 {
			return &os.PathError{Op: "setxattr " + name, Path: l.path, Err: err}
		}
	}
	if l.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(unix.AT_FDCWD, l.path, l.Mode&0o7777, 0); err != nil {
			return &os.PathError{Op: "chmod", Path: l.path, Err: err}
		}
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, l.path, []unix.Timespec{l.Atim, l.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimes", Path: l.path, Err: err}
	}
	return nil
}

// copyBytes copies what is data, and leaves holes holes.
func copyBytes(ctx context.Context, to, from *os.File, size int64) error {
	if err := to.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		data, err := from.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // only a hole is left
			return nil
		}
		if err != nil {
			return err
		}
		end, err := from.Seek(data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		for at = data; at < min(end, size); {
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := from.Seek(at, io.SeekStart); err != nil {
				return err
			}
			if _, err := to.Seek(at, io.SeekStart); err != nil {
				return err
			}
			n, err := io.CopyN(to, from, min(chunk, end-at, size-at))
			if errors.Is(err, io.EOF) { // cut off meanwhile: what is missing is a hole
				return nil
			}
			if err != nil {
				return err
			}
			at += n
		}
	}
	return nil
}

// shareBytes makes a file share all blocks of another.
func shareBytes(_ context.Context, to, from *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	if err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd())); err != nil {
		return &os.PathError{Op: "FICLONE", Path: to.Name(), Err: err}
	}
	return nil
}
