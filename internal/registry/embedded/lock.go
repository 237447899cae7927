package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"

	"github.com/dayfly-dev/dayfly"
)

// lock takes a folder for this process, or says at once who has it. The system
// lets go of it when the process ends, however that happens.
func lock(dir string) (*fileutil.LockedFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, dayfly.Errorf(dayfly.CodeFailed, "the folder for the state cannot be made: %w", err)
	}
	name := filepath.Join(dir, "lock")
	file, err := fileutil.TryLockFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, dayfly.Errorf(dayfly.CodeConflict, "another dayfly server%s uses %s: stop it, or give this one a folder of its own (--data)", holder(name), dir)
	}
	if err != nil {
		return nil, dayfly.Errorf(dayfly.CodeFailed, "the folder for the state cannot be locked: %w", err)
	}
	// For people only; the lock does not depend on it.
	if err := file.Truncate(0); err == nil {
		_, _ = file.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return file, nil
}

// holder says which process wrote the lock file.
func holder(name string) string {
	file, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 16))
	if pid := strings.TrimSpace(string(text)); err == nil && pid != "" {
		return " (process " + pid + ")"
	}
	return ""
}
