//go:build linux

package snapshot

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestACopyHasTheDataAndTheHolesOfItsOrigin(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		from, err := os.Create(dir + "/from")
		check := func(err error) {
			rt.Helper()
			if err != nil {
				rt.Fatal(err)
			}
		}
		check(err)
		defer from.Close()
		size := int64(0)
		for _, part := range rapid.SliceOfN(rapid.IntRange(-200_000, 200_000), 0, 8).Draw(rt, "parts") {
			if part > 0 {
				_, err := from.WriteAt(bytes.Repeat([]byte{byte(part) | 1}, part), size)
				check(err)
				size += int64(part)
			}
			size += int64(max(-part, 0))
		}
		check(from.Truncate(size))
		to, err := os.Create(dir + "/to")
		check(err)
		defer to.Close()
		check(copyBytes(t.Context(), to, from, size))
		want, err := os.ReadFile(dir + "/from")
		check(err)
		got, err := os.ReadFile(dir + "/to")
		check(err)
		if !bytes.Equal(got, want) {
			rt.Fatalf("the copy has %d bytes, and they are not those of the %d", len(got), len(want))
		}
		var a, b unix.Stat_t
		check(errors.Join(from.Sync(), to.Sync(), unix.Fstat(int(from.Fd()), &a), unix.Fstat(int(to.Fd()), &b)))
		if b.Blocks > a.Blocks+64 {
			rt.Fatalf("the copy takes %d blocks, the origin %d", b.Blocks, a.Blocks)
		}
	})
}

// Whoever owns the files runs programs on them, and must not have root read something else for
// him.
func TestACopyFollowsNoLinkThatTakesTheNameOfAFolderOrFile(t *testing.T) {
	top := t.TempDir()
	secret, from := top+"/secret", top+"/from"
	for _, dir := range []string{secret, from, top + "/aside"} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for file, content := range map[string]string{secret + "/file": "secret", from + "/file": "open", top + "/aside/file": "open"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{top + "/link": secret, top + "/link to file": secret + "/file"} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(from+"/d", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(from+"/d/file", []byte("open"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var swapping sync.WaitGroup
	for a, b := range map[string]string{from + "/d": top + "/link", from + "/file": top + "/link to file"} {
		swapping.Go(func() {
			for ctx.Err() == nil {
				if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	whole := 0
	for i := range 500 {
		to := filepath.Join(top, "to")
		err := copyTree(ctx, to, from, copyBytes)
		if err == nil {
			whole++
		} else if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.EINVAL) && !strings.Contains(err.Error(), "no file any more") {
			t.Errorf("copy %d: %v", i, err)
		}
		for _, file := range []string{to + "/d/file", to + "/file"} {
			for _, name := range []string{file, filepath.Dir(file)} {
				if info, err := os.Lstat(name); err != nil || info.Mode()&os.ModeSymlink != 0 {
					file = "" // a link was copied as a link
				}
			}
			if data, err := os.ReadFile(file); err == nil && string(data) == "secret" {
				t.Fatalf("copy %d has the secret in %s", i, file)
			}
		}
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	swapping.Wait()
	if whole == 0 {
		t.Error("not one copy was made")
	}
}

func TestACopyOfADeviceIsRefused(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	if err := unix.Mknod(from+"/null", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		t.Skip(err)
	}
	if err := copyTree(t.Context(), to, from, copyBytes); err == nil || !strings.Contains(err.Error(), "null is a device") {
		t.Errorf("it says %v", err)
	}
}
