package source

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Fingerprint changes whenever a branch of a local repository does; ok is false for
// a repository elsewhere. It looks at the files that hold refs and starts no process.
func (s *Source) Fingerprint(repo Repo) (print string, ok bool) {
	if repo.Local == "" {
		return "", false
	}
	// Most hosted repositories have never been pushed to, and each is looked at several times a
	// second: one look has to do for them.
	if repo.Hosted {
		if _, err := os.Lstat(repo.Local); errors.Is(err, fs.ErrNotExist) {
			return "nothing was pushed", true
		}
	}
	own, common := gitDir(repo.Local)
	h := fnv.New64a()
	add := func(path string) {
		info, err := os.Lstat(path)
		if err != nil {
			return
		}
		// A file that is replaced within one tick of the clock has another inode.
		var inode uint64
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			inode = st.Ino
		}
		fmt.Fprintln(h, path, info.ModTime().UnixNano(), info.Size(), inode)
		if info.Mode().IsRegular() && info.Size() < 4096 {
			b, _ := os.ReadFile(path) // gone since: the next print differs
			h.Write(b)
		}
	}
	add(filepath.Join(own, "HEAD"))
	add(filepath.Join(common, "packed-refs"))
	add(filepath.Join(common, "reftable", "tables.list"))
	for _, kind := range []string{"heads", "tags"} {
		_ = filepath.WalkDir(filepath.Join(common, "refs", kind), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				add(path)
			}
			return nil
		})
	}
	return fmt.Sprintf("%x", h.Sum64()), true
}

// gitDir gives the folder that has HEAD and the one that has the branches: the same,
// but for a work tree that was added to another repository.
func gitDir(local string) (own, common string) {
	own = filepath.Join(local, ".git")
	info, err := os.Stat(own)
	switch {
	case err != nil:
		return local, local // a bare one
	case info.IsDir():
		return own, own
	}
	b, _ := os.ReadFile(own)
	own = under(local, strings.TrimPrefix(strings.TrimSpace(string(b)), "gitdir: "))
	if b, err := os.ReadFile(filepath.Join(own, "commondir")); err == nil {
		return own, under(own, strings.TrimSpace(string(b)))
	}
	return own, own
}

func under(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
