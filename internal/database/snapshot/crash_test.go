//go:build linux

package snapshot_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot/loop"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot/snapshottest"
)

func TestWhoeverIsKilledAtAnyPointLeavesWhatCanBeUsedAndTakenAway(t *testing.T) {
	program := filepath.Join(t.TempDir(), "killed")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "crashpoints", "-o", program, "./snapshottest/killed").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, test := range map[string]struct {
		on     func(testing.TB, int64) string
		driver string
		least  []string // points that it must come by
	}{
		"btrfs":   {snapshottest.Btrfs, "btrfs", []string{"before freezing a folder of data", "before cloning a folder of data"}},
		"pool":    {snapshottest.Ext4, "btrfs", []string{"before naming the pool", "before mounting the pool", "before growing the pool's device", "after removing the pool's file"}},
		"reflink": {snapshottest.XFS, "reflink", []string{"before naming a folder of data"}},
		"overlay": {snapshottest.Ext4, "overlay", []string{"before mounting a folder of data", "after unmounting a folder of data"}},
		"copy":    {snapshottest.Ext4, "copy", []string{"before deleting the files of a folder of data"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			top := test.on(t, 700)
			log := filepath.Join(t.TempDir(), "points")
			if said, err := live(t, program, top+"/whole", test.driver, "DAYFLY_CRASH_LOG="+log); err != nil || !slices.Contains(said, "destroyed b") {
				t.Fatalf("it ends with %v after %q", err, said)
			}
			data, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			points := strings.Split(strings.TrimSpace(string(data)), "\n")
			for _, point := range test.least {
				if !slices.Contains(points, point+"#1") {
					t.Errorf("it never comes by %q", point)
				}
			}
			for i, point := range points {
				dir := fmt.Sprintf("%s/%d", top, i)
				said, err := live(t, program, dir, test.driver, "DAYFLY_CRASH_AT="+point)
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("it was not killed %s: %v", point, err)
				}
				examine(t, point, dir, test.driver, said)
				if t.Failed() {
					return
				}
			}
			t.Logf("killed at %d points", len(points))
		})
	}
}

// live lets the program live and gives what it said.
func live(t *testing.T, program, dir, driver, env string) ([]string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, dir, driver)
	cmd.Env = append(os.Environ(), env)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if errs.Len() > 0 {
		t.Log(errs.String())
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n"), err
}

// examine goes on where somebody was killed.
func examine(t *testing.T, point, dir, driver string, said []string) {
	t.Helper()
	device := func() *os.File {
		dev, err := loop.Find(dir + "/pool.img")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return dev
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("killed %s: %v", point, err)
		}
	}
	if !slices.Contains(said, "begun b") {
		c, err := snapshot.Open(t.Context(), snapshot.Options{Dir: dir, Driver: driver})
		must(err)
		all, err := c.List(t.Context())
		must(err)
		base := "t"
		for _, name := range []string{"t", "a", "b", "c"} {
			made, begun, deleted := slices.Contains(said, "made "+name), slices.Contains(said, "begun "+name), slices.Contains(said, "deleted "+name)
			switch listed := slices.Contains(all, name); {
			case deleted && listed:
				t.Errorf("killed %s: %s was deleted, and is there", point, name)
			case made && !begun && !listed:
				t.Errorf("killed %s: %s was made, and is not there", point, name)
			}
			if made && !begun {
				path, err := c.Attach(t.Context(), name)
				must(err)
				for _, file := range map[string]string{"t": "t", "a": "ta", "b": "tab", "c": "tac"}[name] {
					if got, err := os.ReadFile(filepath.Join(path, string(file))); err != nil || string(got) != string(file) {
						t.Errorf("killed %s: in %s, %c has %q, %v", point, name, file, got, err)
					}
				}
				base = name
			}
			if path, err := c.Attach(t.Context(), name); err == nil && !made {
				// It was not said to be there. Where it is, it is whole.
				for _, file := range map[string]string{"a": "t", "b": "ta", "c": "ta"}[name] {
					if _, err := os.Lstat(filepath.Join(path, string(file))); err != nil {
						t.Errorf("killed %s: a part of %s is given for all of it: %v", point, name, err)
					}
				}
			}
		}
		if slices.Contains(all, base) && slices.Contains(said, "made "+base) && !slices.Contains(said, "begun "+base) {
			_, err := c.Clone(t.Context(), base, "more")
			must(err)
			must(c.Delete(t.Context(), "more"))
		}
		for _, name := range all {
			must(c.Delete(t.Context(), name))
			_, err := c.Create(t.Context(), name) // its name is free
			if driver != "overlay" {              // where others may lie upon it still
				must(err)
			}
			must(c.Delete(t.Context(), name))
		}
		all, err = c.List(t.Context())
		must(err)
		if len(all) > 0 {
			t.Errorf("killed %s: %v are left", point, all)
		}
		if entries, err := os.ReadDir(filepath.Join(dir, driver)); err == nil && len(entries) > 0 {
			t.Errorf("killed %s: %v are left", point, entries)
		}
	}
	must(snapshot.Destroy(t.Context(), dir, nil))
	if dev := device(); dev != nil {
		t.Errorf("killed %s: %s is left", point, dev.Name())
		dev.Close()
	}
	mounts, err := loop.Mounts()
	must(err)
	for _, m := range mounts {
		if strings.HasPrefix(m.Point, dir+"/") {
			t.Errorf("killed %s: %+v is left", point, m)
		}
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("killed %s: the folder is left: %v", point, err)
	}
}
