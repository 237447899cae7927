package source

import (
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
)

// Fingerprint changes whenever a branch of a local repository does; ok is false for
// a repository elsewhere. It looks at the files that hold refs and starts no process.
func (s *Source) Fingerprint(repo Repo) (print string, ok bool) {
	if repo.Local == "" {
		return "", false
	}
	dir := filepath.Join(repo.Local, ".git")
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = repo.Local
	}
	h := fnv.New64a()
	add := func(path string) {
		if info, err := os.Lstat(path); err == nil {
			fmt.Fprintln(h, path, info.ModTime().UnixNano(), info.Size())
			if info.Size() < 4096 {
				b, _ := os.ReadFile(path)
				h.Write(b)
			}
		}
	}
	add(filepath.Join(dir, "HEAD"))
	add(filepath.Join(dir, "packed-refs"))
	for _, kind := range []string{"heads", "tags"} {
		_ = filepath.WalkDir(filepath.Join(dir, "refs", kind), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				add(path)
			}
			return nil
		})
	}
	return fmt.Sprintf("%x", h.Sum64()), true
}
