//go:build linux

package snapshot

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly/internal/crash"
)

// trees clones a folder file by file: what reflink and copy have in common. A folder that is being
// cloned should not be written to, or its files are of different moments.
type trees struct {
	root   string
	driver string
	file   copyFile
	own    func(ctx context.Context, dir string) (int64, error)
	flush  bool // a clone, before it gets its name
}

// newReflink shares the blocks of each file, as XFS and btrfs can (FICLONE). A clone takes time that
// grows with the number of files, not with their size.
func newReflink(root string) *trees {
	return &trees{root: root, driver: "reflink", file: shareBytes, own: ownBytes}
}

// newCopy copies every byte, as any file system can: a clone takes the time and the room of all the data.
func newCopy(root string) *trees {
	// The names of the files may reach the disk before their content, and a clone with a name is whole.
	return &trees{root: root, driver: "copy", file: copyBytes, own: allBytes, flush: true}
}

func (t *trees) Name() string { return t.driver }

func (t *trees) Create(_ context.Context, name string) (string, error) {
	if err := check(name); err != nil {
		return "", err
	}
	path, err := absent(t.root, name)
	if err != nil {
		return "", err
	}
	if err := makeRoot(t.root); err != nil {
		return "", err
	}
	crash.Point("before making a folder of data")
	defer crash.Point("after making a folder of data")
	return path, os.Mkdir(path, 0o700)
}

// Freeze writes the files to the device. They stay writable.
func (t *trees) Freeze(_ context.Context, name string) error {
	if err := check(name); err != nil {
		return err
	}
	path, err := present(t.root, name)
	if err != nil {
		return err
	}
	return flush(path)
}

func (t *trees) Clone(ctx context.Context, from, name string) (path string, err error) {
	if err := check(from, name); err != nil {
		return "", err
	}
	source, err := present(t.root, from)
	if err != nil {
		return "", err
	}
	if path, err = absent(t.root, name); err != nil {
		return "", err
	}
	part := path + partly
	if err := os.RemoveAll(part); err != nil {
		return "", err
	}
	crash.Point("before cloning a folder of data")
	err = copyTree(ctx, part, source, t.file)
	if err == nil && t.flush {
		err = flush(part)
	}
	crash.Point("before naming a folder of data")
	if err == nil {
		err = os.Rename(part, path)
	}
	crash.Point("after cloning a folder of data")
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(part))
	}
	return path, nil
}

func (t *trees) Attach(_ context.Context, name string) (string, error) {
	if err := check(name); err != nil {
		return "", err
	}
	return present(t.root, name)
}

func (t *trees) Delete(_ context.Context, name string) error {
	if err := check(name); err != nil {
		return err
	}
	crash.Point("before deleting a folder of data")
	defer crash.Point("after deleting a folder of data")
	path := filepath.Join(t.root, name)
	// What has a name is whole: it loses its name before it loses its files.
	if err := os.RemoveAll(path + partly); err != nil {
		return err
	}
	switch err := os.Rename(path, path+partly); {
	case err == nil, errors.Is(err, os.ErrNotExist):
	case errors.Is(err, unix.ENOSPC): // btrfs has room for removing when it has none for a name
		return os.RemoveAll(path)
	default:
		return err
	}
	crash.Point("before deleting the files of a folder of data")
	return os.RemoveAll(path + partly)
}

func (t *trees) List(context.Context) ([]string, error) { return names(t.root) }

func (t *trees) OwnBytes(ctx context.Context, name string) (int64, bool, error) {
	if err := check(name); err != nil {
		return 0, false, err
	}
	path, err := present(t.root, name)
	if err != nil {
		return 0, false, err
	}
	n, err := t.own(ctx, path)
	return n, err == nil, err
}

func (t *trees) Close() error { return nil }
