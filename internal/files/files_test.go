package files_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/files"
)

// tree makes folders that nobody may write in, with a link out of them, and gives both.
func tree(t *testing.T) (dir, outside string) {
	t.Helper()
	top := t.TempDir()
	dir, outside = filepath.Join(top, "tree"), filepath.Join(top, "outside")
	for _, d := range []string{outside, filepath.Join(dir, "a", "b")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "file"), []byte("x"), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "a", "link")); err != nil {
		t.Fatal(err)
	}
	for d, mode := range map[string]fs.FileMode{"a/b": 0o500, "a": 0o500, ".": 0o500} {
		if err := os.Chmod(filepath.Join(dir, d), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(outside, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(outside, 0o700) })
	return dir, outside
}

func gone(t *testing.T, dir, outside string) {
	t.Helper()
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	info, err := os.Stat(outside)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o500 {
		t.Errorf("the folder behind a link has mode %v now", info.Mode())
	}
	if _, err := os.Stat(filepath.Join(outside, "file")); err != nil {
		t.Error(err)
	}
}

func TestReadOnlyFoldersGoAndWhatLinksNameStays(t *testing.T) {
	dir, outside := tree(t)
	if os.Getuid() != 0 || os.Getenv("DAYFLY_TEST_REMOVE") != "" {
		if err := files.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		gone(t, dir, outside)
		return
	}
	// To root nothing is read-only: the test is done again as somebody else.
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	own := t.TempDir()
	const nobody = 65534
	for _, d := range []string{own, filepath.Dir(own)} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	copied := filepath.Join(own, "test")
	if err := os.WriteFile(copied, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), copied, "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Dir, cmd.Env = own, []string{"DAYFLY_TEST_REMOVE=1", "TMPDIR=" + own}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestManyRemoveAtOnce(t *testing.T) {
	for range 20 {
		dir, outside := tree(t)
		done := make(chan error)
		const many = 4
		for range many {
			go func() { done <- files.RemoveAll(dir) }()
		}
		for range many {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		gone(t, dir, outside)
	}
}
