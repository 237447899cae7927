//go:build linux

package folder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// archive is the folder beside the files for those that no longer count.
const archive = "archive"

// maxTries is how many names are tried for a file in the archive.
const maxTries = 1000

// Archive moves a file to archive/ beside it, so that it no longer counts, and gives its name
// there, relative to dir. One whose name is taken there gets the time into its name. Of a
// symbolic link the content is kept, for what it leads to may go. An error that is
// fs.ErrNotExist says that there is no such file (any more).
func Archive(dir, name string, now time.Time) (to string, err error) {
	if !Counts(name) || strings.ContainsRune(name, '/') {
		return "", fmt.Errorf("%q is no environment file", name)
	}
	from := filepath.Join(dir, name)
	info, err := os.Lstat(from)
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(filepath.Join(dir, archive), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	move := rename
	if info.Mode()&fs.ModeSymlink != 0 {
		move = copyLinked
	}
	base, ext := strings.TrimSuffix(name, filepath.Ext(name)), filepath.Ext(name)
	stamp := now.UTC().Format("20060102T150405Z")
	for try := range maxTries {
		switch try {
		case 0:
			to = name
		case 1:
			to = base + "." + stamp + ext
		default:
			to = fmt.Sprintf("%s.%s-%d%s", base, stamp, try, ext)
		}
		to = filepath.Join(archive, to)
		if err = move(from, filepath.Join(dir, to)); !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return "", err
	}
	// First where it is, then where it is no more: at no time it is in neither.
	return to, errors.Join(persist(filepath.Join(dir, archive)), persist(dir))
}

// rename replaces nothing.
func rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // some network file systems
		if _, err := os.Lstat(to); err == nil {
			return fs.ErrExist
		}
		return os.Rename(from, to)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// copyLinked copies what a symbolic link leads to, and removes the link.
func copyLinked(from, to string) (err error) {
	in, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) { // it leads nowhere
		return rename(from, to)
	}
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s leads to no regular file", from)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, MaxSize))
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		os.Remove(to)
		return err
	}
	if err = os.Remove(from); err != nil {
		os.Remove(to) // it is still where it was
	}
	return err
}

// persist writes the names in a folder to the disk.
func persist(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
