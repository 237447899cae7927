//go:build linux

package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
)

// partly ends the name of a folder that is being made.
const partly = ".part"

// id is what a folder may be called: nothing that leads elsewhere, and nothing of ours.
var id = regexp.MustCompile(`^[a-z0-9]{1,32}$`)

// check refuses names that are no ids.
func check(names ...string) error {
	for _, name := range names {
		if !id.MatchString(name) {
			return dayfly.Errorf(dayfly.CodeInvalid, "%q is no name of a folder of data: it has to be 1 to 32 lower-case letters and digits", name)
		}
	}
	return nil
}

func notFound(name string) error {
	return dayfly.Errorf(dayfly.CodeNotFound, "there is no folder of data %s: it was deleted, or never finished", name)
}

func taken(name string) error {
	return dayfly.Errorf(dayfly.CodeConflict, "there is a folder of data %s: delete it first", name)
}

// present gives the path of a folder that is there.
func present(root, name string) (string, error) {
	path := filepath.Join(root, name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return "", notFound(name)
	}
	return path, err
}

// absent gives the path for a folder that is not there yet.
func absent(root, name string) (string, error) {
	path := filepath.Join(root, name)
	switch _, err := os.Lstat(path); {
	case err == nil:
		return "", taken(name)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	return path, nil
}

// names gives the ids in a folder, whether what has them is whole or not. No folder has none.
func names(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		if name := strings.TrimSuffix(e.Name(), partly); id.MatchString(name) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// makeRoot makes the folder of a driver. Everybody may pass through it, since databases run as
// users of their own, and nobody else may list it.
func makeRoot(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	return os.Chmod(dir, 0o711) // umask
}

// flush writes all of the file system that a folder is on to the device.
func flush(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	return nil
}

// control asks the driver of an open file for something.
func control(f *os.File, request uint, arg ptr) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
