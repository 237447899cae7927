//go:build linux

package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/dayfly-dev/dayfly"
)

// Users are the ids of users that services and builds run as where the server is root: one
// for the services of each environment, one for the builds of each project. The zero value
// runs everything as the server's own user.
type Users struct{ First, Last int }

// enabled says whether services run as users of their own.
func (u Users) enabled() bool { return u.Last > 0 }

// Closed gives the folder above path, or path, that other users cannot enter; "" = none.
func Closed(path string) (string, error) {
	path, err := filepath.Abs(path)
	for ; err == nil; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return path, nil
		}
		if path == "/" {
			return "", nil
		}
	}
	return "", err
}

// serviceUser gives the user of a deployment's services, the same for all of its owner; 0 =
// the server's own. k.r.mu must not be held.
func (r *Runner) serviceUser(owner string) (int, error) {
	if !r.Users.enabled() {
		return 0, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if uid, ok := r.owners[owner]; ok {
		return uid, nil
	}
	uid, err := r.freeUser()
	if err == nil {
		r.owners[owner] = uid
	}
	return uid, err
}

// forgetUser lets go of an owner's user when no deployment of the owner is left; r.mu is held.
func (r *Runner) forgetUser(owner string) {
	for _, k := range r.keepers {
		if k.owner == owner {
			return
		}
	}
	delete(r.owners, owner)
}

// freeUser gives an id that nobody has: the next one after the last that was given, so that
// what one environment left behind somewhere does not belong to the next. r.mu is held.
func (r *Runner) freeUser() (int, error) {
	taken := map[int]bool{}
	for _, uid := range r.owners {
		taken[uid] = true
	}
	caches, err := os.ReadDir(r.path("cache"))
	if err != nil {
		return 0, err
	}
	for _, c := range caches {
		if info, err := c.Info(); err == nil {
			taken[ownerOf(info)] = true
		}
	}
	for range r.Users.Last - r.Users.First + 1 {
		r.lastUser++
		if r.lastUser < r.Users.First || r.lastUser > r.Users.Last {
			r.lastUser = r.Users.First
		}
		if !taken[r.lastUser] {
			return r.lastUser, nil
		}
	}
	return 0, dayfly.Errorf(dayfly.CodeUnavailable, "all users of --uids %d-%d are in use: give the server a larger range", r.Users.First, r.Users.Last)
}

// buildUser gives the user of a project's builds: the one its cache belongs to. 0 = the
// server's own.
func (r *Runner) buildUser(project string) (int, error) {
	if !r.Users.enabled() {
		return 0, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	cache := r.path("cache", folderName(project))
	info, err := os.Stat(cache)
	if err == nil {
		if uid := ownerOf(info); uid >= r.Users.First && uid <= r.Users.Last {
			return uid, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	uid, err := r.freeUser()
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return 0, err
	}
	return uid, chown(cache, uid)
}

func ownerOf(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return 0
}

// chown gives a folder and everything in it to a user; 0 leaves it as it is.
func chown(path string, uid int) error {
	if uid == 0 {
		return nil
	}
	return filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
}

// credential is what a process of a user is started with; nil = the server's own.
func credential(uid int) *syscall.Credential {
	if uid == 0 {
		return nil
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), Groups: []uint32{}} //nolint:gosec // from a range that was checked
}

// reachable says why another user than the server's cannot run a program; "" = it can.
func reachable(file string) string {
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return err.Error()
	}
	for _, path := range []string{file, real} {
		if closed, err := Closed(filepath.Dir(path)); err != nil || closed != "" {
			return fmt.Sprintf("others than root cannot enter %s%s", closed, strings.TrimPrefix(fmt.Sprint(err), "<nil>"))
		}
	}
	info, err := os.Stat(real)
	if err != nil {
		return err.Error()
	}
	if info.Mode().Perm()&0o001 == 0 {
		return "others than root may not run it"
	}
	return ""
}
