package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
)

// dataDir is the data folder of a server, held by one server at a time.
type dataDir struct {
	path string
	lock *os.File
}

// openFolder makes the folder where it is missing and takes hold of it.
func openFolder(path string) (*dataDir, error) {
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
	if err := hold(lock); err != nil {
		holder, _ := os.ReadFile(lock.Name())
		return nil, errors.Join(dayfly.Errorf(dayfly.CodeConflict,
			"the data folder %s is in use by another server (pid %s): end that one, or choose another folder with --data",
			path, strings.TrimSpace(string(holder))), lock.Close())
	}
	err = errors.Join(lock.Truncate(0), write(lock, []byte(fmt.Sprintln(os.Getpid()))))
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	// What a crash left half written.
	half, err := filepath.Glob(filepath.Join(path, ".new-*"))
	for _, file := range half {
		err = errors.Join(err, os.Remove(file))
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &dataDir{path, lock}, nil
}

// lockPatience is how long the lock of a server that was killed may outlive it: a child that it was
// just about to start has it, too, until it is the program that it is to be.
const lockPatience = 2 * time.Second

// hold takes the lock on a file.
func hold(lock *os.File) error {
	deadline := time.Now().Add(lockPatience)
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// belongsTo refuses a folder of another cluster: everything in it would be taken for
// something that nobody wants.
func (f *dataDir) belongsTo(cluster string) error {
	b, err := os.ReadFile(f.sub("cluster"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return writeFile(f.sub("cluster"), []byte(cluster+"\n"), 0o644)
	case err != nil:
		return err
	case strings.TrimSpace(string(b)) != cluster:
		return dayfly.Errorf(dayfly.CodeConflict,
			"the data folder %s belongs to the cluster %s, and the state that was given to that of %s: give the etcd that it was used with, or choose another folder with --data",
			f.path, strings.TrimSpace(string(b)), cluster)
	}
	return nil
}

func (f *dataDir) sub(name string) string { return filepath.Join(f.path, name) }

// node gives the id of this server, made once.
func (f *dataDir) node() (string, error) {
	file := f.sub("node")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		id := dayfly.NewID()
		return id, writeFile(file, []byte(id+"\n"), 0o644)
	}
	return strings.TrimSpace(string(b)), err
}

func (f *dataDir) close() error { return f.lock.Close() }
