package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
)

// folder is the data folder of a server, held by one server at a time.
type folder struct {
	path string
	lock *os.File
}

// openFolder makes the folder where it is missing and takes hold of it.
func openFolder(path string) (*folder, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o711); err != nil {
		return nil, fmt.Errorf("the data folder cannot be made: %w: choose another one with --data", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data folder cannot be used: %w: choose another one with --data", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(lock.Name())
		return nil, errors.Join(dayfly.Errorf(dayfly.CodeConflict,
			"the data folder %s is in use by another server (pid %s): end that one, or choose another folder with --data",
			path, strings.TrimSpace(string(holder))), lock.Close())
	}
	err = errors.Join(lock.Truncate(0), write(lock, []byte(fmt.Sprintln(os.Getpid()))))
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &folder{path, lock}, nil
}

func (f *folder) sub(name string) string { return filepath.Join(f.path, name) }

// node gives the id of this server, made once.
func (f *folder) node() (string, error) {
	file := f.sub("node")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		id := dayfly.NewID()
		return id, writeFile(file, []byte(id+"\n"), 0o644)
	}
	return strings.TrimSpace(string(b)), err
}

func (f *folder) close() error { return f.lock.Close() }
