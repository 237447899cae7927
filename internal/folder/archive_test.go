//go:build linux

package folder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.FixedZone("", 3600))

// tree gives all files below a folder with their content.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		must(t, err)
		content := []byte("-> nothing")
		if data, err := os.ReadFile(path); err == nil {
			content = data
		}
		if d.Type()&fs.ModeSymlink != 0 {
			content = append([]byte("link "), content...)
		}
		all = append(all, name+"="+string(content))
		return nil
	}))
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestAFileIsMovedIntoTheArchiveAndReplacesNothingThere(t *testing.T) {
	dir := t.TempDir()
	for i, want := range []string{"archive/a.b.yaml", "archive/a.b.20261121T110000Z.yaml", "archive/a.b.20261121T110000Z-2.yaml", "archive/a.b.20261121T110000Z-3.yaml"} {
		put(t, dir+"/a.b.yaml", string(rune('0'+i)))
		if to, err := Archive(dir, "a.b.yaml", noon); err != nil || to != want {
			t.Errorf("%q, %v, want %q", to, err, want)
		}
	}
	put(t, dir+"/x.yml", "x")
	if to, err := Archive(dir, "x.yml", noon); err != nil || to != "archive/x.yml" {
		t.Errorf("%q, %v", to, err)
	}
	if got, want := tree(t, dir), "archive/a.b.20261121T110000Z-2.yaml=2 archive/a.b.20261121T110000Z-3.yaml=3 archive/a.b.20261121T110000Z.yaml=1 archive/a.b.yaml=0 archive/x.yml=x"; got != want {
		t.Errorf("there is\n%s\nwant\n%s", got, want)
	}
}

func TestOfALinkTheContentIsArchived(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(dir+"/archive", 0o700))
	put(t, elsewhere+"/real", "content")
	must(t, os.Symlink(elsewhere+"/real", dir+"/a.yaml"))
	must(t, os.Symlink("nothing", dir+"/b.yaml"))
	must(t, os.Symlink(elsewhere, dir+"/c.yaml"))
	put(t, dir+"/archive/a.yaml", "before")
	for _, name := range []string{"a.yaml", "b.yaml"} {
		if _, err := Archive(dir, name, noon); err != nil {
			t.Error(err)
		}
	}
	if to, err := Archive(dir, "c.yaml", noon); err == nil {
		t.Errorf("a link to a folder became %q", to)
	}
	if got, want := tree(t, dir), "archive/a.20261121T110000Z.yaml=content archive/a.yaml=before archive/b.yaml=link -> nothing c.yaml=link -> nothing"; got != want {
		t.Errorf("there is\n%s\nwant\n%s", got, want)
	}
	if got := tree(t, elsewhere); got != "real=content" {
		t.Errorf("what the link leads to is now %q", got)
	}
	if info, err := os.Stat(dir + "/archive/a.20261121T110000Z.yaml"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("is readable by others: %v, %v", info.Mode(), err)
	}
}

func TestWhatIsNotThereOrNoEnvironmentFileIsNotArchived(t *testing.T) {
	dir := t.TempDir()
	if _, err := Archive(dir, "a.yaml", noon); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"", ".", "..", "../a.yaml", "sub/a.yaml", "archive", ".a.yaml", "a.json"} {
		if to, err := Archive(dir, name, noon); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %q, %v", name, to, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind is %v, %v", entries, err)
	}
	put(t, dir+"/archive", "no folder")
	put(t, dir+"/a.yaml", "1")
	if to, err := Archive(dir, "a.yaml", noon); err == nil {
		t.Errorf("went to %q", to)
	}
	if got := tree(t, dir); got != "a.yaml=1 archive=no folder" {
		t.Errorf("there is %q", got)
	}
}

func TestFilesThatAreArchivedAtOnceAllHaveNamesOfTheirOwn(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	var mu sync.Mutex
	moved := 0
	for range 8 {
		all.Go(func() {
			for range 50 {
				tmp, err := os.CreateTemp(dir, "new")
				if err != nil {
					t.Error(err)
					return
				}
				tmp.Close()
				if err := os.Link(tmp.Name(), dir+"/a.yaml"); err == nil { // not there already
					_, err = Archive(dir, "a.yaml", noon)
					if err == nil {
						mu.Lock()
						moved++
						mu.Unlock()
					} else if !errors.Is(err, fs.ErrNotExist) {
						t.Error(err)
					}
				}
				os.Remove(tmp.Name())
			}
		})
	}
	all.Wait()
	entries, err := os.ReadDir(dir + "/archive")
	must(t, err)
	if len(entries) != moved || moved == 0 {
		t.Errorf("%d were moved, and %d are there", moved, len(entries))
	}
}
