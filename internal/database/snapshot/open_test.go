//go:build linux

package snapshot_test

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot/snapshottest"
)

func TestTheBestThatAFolderCanDoIsUsed(t *testing.T) {
	plain := func(t testing.TB, _ int64) string { return snapshottest.Ext4(t, 400) }
	unfit := func(t testing.TB, _ int64) string { return snapshottest.Ext4(t, 400) + "/a:b,c" }
	for name, test := range map[string]struct {
		on   func(testing.TB, int64) string
		opt  snapshot.Options
		want string
		logs string
	}{
		"btrfs":                            {snapshottest.Btrfs, snapshot.Options{}, "btrfs", ""},
		"btrfs, with no pool":              {snapshottest.Btrfs, snapshot.Options{Pool: "none"}, "btrfs", ""},
		"XFS":                              {snapshottest.XFS, snapshot.Options{}, "reflink", ""},
		"another":                          {plain, snapshot.Options{}, "btrfs", ""},
		"another, by its name":             {plain, snapshot.Options{Driver: "btrfs", Pool: "auto"}, "btrfs", ""},
		"another, with no pool":            {plain, snapshot.Options{Pool: "none"}, "overlay", "level=INFO msg=\"databases share whole files"},
		"another, with no pool or overlay": {unfit, snapshot.Options{Pool: "none"}, "copy", "level=WARN msg=\"databases are copied in full"},
		"a path that is hard to mount at":  {unfit, snapshot.Options{}, "btrfs", ""},
		"asked for":                        {snapshottest.Btrfs, snapshot.Options{Driver: "copy"}, "copy", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var logged bytes.Buffer
			test.opt.Logger = slog.New(slog.NewTextHandler(&logged, nil))
			test.opt.Dir = test.on(t, 400) + "/data"
			c := open(t, test.opt)
			if c.Name() != test.want {
				t.Errorf("%s is used, want %s", c.Name(), test.want)
			}
			if got := logged.String(); !strings.Contains(got, test.logs) || test.logs == "" && got != "" {
				t.Errorf("it logs %s", got)
			}
			// Trying leaves nothing.
			if entries, err := os.ReadDir(test.opt.Dir); err != nil || len(entries) > 0 {
				t.Errorf("there is %v, %v", entries, err)
			}
			path, err := c.Create(t.Context(), "x")
			must(t, err)
			must(t, os.WriteFile(path+"/file", []byte("content"), 0o600))
			must(t, c.Freeze(t.Context(), "x"))
			path, err = c.Clone(t.Context(), "x", "y")
			must(t, err)
			if got, err := os.ReadFile(path + "/file"); err != nil || string(got) != "content" {
				t.Errorf("a clone has %q, %v", got, err)
			}
		})
	}
}

func TestADriverThatAFolderCannotHaveIsRefused(t *testing.T) {
	dir := snapshottest.Ext4(t, 400)
	for name, test := range map[string]struct {
		opt  snapshot.Options
		says string
	}{
		"btrfs with no pool": {snapshot.Options{Driver: "btrfs", Pool: "none"}, "on another file system"},
		"reflink":            {snapshot.Options{Driver: "reflink"}, "FICLONE"},
		"another":            {snapshot.Options{Driver: "zfs"}, `"zfs" is no driver`},
		"a path":             {snapshot.Options{Driver: "../x"}, `"../x" is no driver`},
		"a kind of pool":     {snapshot.Options{Pool: "sea"}, `"sea" is no kind of pool`},
		"a comma":            {snapshot.Options{Driver: "overlay", Dir: dir + "/a,b"}, "choose another folder"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.opt.Dir == "" {
				test.opt.Dir = dir
			}
			_, err := snapshot.Open(t.Context(), test.opt)
			if dayfly.ErrorCode(err) != dayfly.CodeInvalid || !strings.Contains(err.Error(), test.says) {
				t.Errorf("it says %v", err)
			}
			if entries, err := os.ReadDir(test.opt.Dir); err == nil && len(entries) > 0 && test.opt.Dir != dir {
				t.Errorf("there is %v", entries)
			}
		})
	}
}

func TestAFolderIsNotGivenToAnotherDriverWhileItIsUsed(t *testing.T) {
	dir := snapshottest.Btrfs(t, 400) + "/data"
	c := open(t, snapshot.Options{Dir: dir, Driver: "copy"})
	_, err := c.Create(t.Context(), "x")
	must(t, err)
	if c, err = snapshot.Open(t.Context(), snapshot.Options{Dir: dir}); err != nil || c.Name() != "copy" {
		t.Errorf("%v, %v", c, err)
	}
	_, err = snapshot.Open(t.Context(), snapshot.Options{Dir: dir, Driver: "reflink"})
	if dayfly.ErrorCode(err) != dayfly.CodeConflict || !strings.Contains(err.Error(), "made by the driver copy") {
		t.Errorf("it says %v", err)
	}
	must(t, c.Delete(t.Context(), "x"))
	if c, err = snapshot.Open(t.Context(), snapshot.Options{Dir: dir}); err != nil || c.Name() != "btrfs" {
		t.Errorf("when it was empty: %v, %v", c, err)
	}
}

func TestOthersCanPassThroughButNotLookAround(t *testing.T) {
	for name, opt := range map[string]snapshot.Options{
		"pool": {}, "overlay": {Driver: "overlay"}, "copy": {Driver: "copy"},
	} {
		t.Run(name, func(t *testing.T) {
			opt.Dir = snapshottest.Ext4(t, 400) + "/data"
			c := open(t, opt)
			path, err := c.Create(t.Context(), "x")
			must(t, err)
			must(t, os.Chmod(path, 0o755))
			must(t, os.Chown(path, 65534, 65534))
			must(t, os.WriteFile(path+"/file", []byte("content"), 0o644))
			must(t, c.Freeze(t.Context(), "x"))
			clone, err := c.Clone(t.Context(), "x", "y")
			must(t, err)
			for _, file := range []string{path, clone} {
				if out := user(t, "read", file+"/file"); out != "content" {
					t.Errorf("another user reads %q of %s", out, file)
				}
				for dir := file; dir != opt.Dir; {
					dir = dir[:strings.LastIndexByte(dir, '/')]
					if out := user(t, "list", dir); !strings.Contains(out, "permission denied") {
						t.Errorf("another user finds %q in %s", out, dir)
					}
				}
			}
		})
	}
}

func TestDestroyTakesNothingFromWhereNothingIs(t *testing.T) {
	must(t, snapshot.Destroy(t.Context(), t.TempDir()+"/nothing", nil))
}
