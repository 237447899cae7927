// Package files does with files what the standard library leaves to its callers.
package files

import (
	"errors"
	"io/fs"
	"os"
)

// RemoveAll removes a path and what is below it, folders that their owner made read-only included, as
// builds make theirs. Nothing outside is touched, whatever links there are, and no error is given
// for what somebody else removes at the same moment.
func RemoveAll(path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	// What cannot be opened up is told by the second attempt.
	_ = os.Chmod(path, 0o700) //nolint:gosec // a folder has to be entered
	root, failed := os.OpenRoot(path)
	if failed != nil {
		return err
	}
	defer root.Close()
	_ = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = root.Chmod(name, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}
