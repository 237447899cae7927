//go:build linux

package local

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/runner"
)

// users opens a runner with two users; root alone can have them.
func users(t *testing.T) *Runner {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start processes of other users")
	}
	dir := folder(t)
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir, runner.Hooks{}, func(c *Config) { c.Users = Users{First: 310000, Last: 310002} })
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestEnvironmentsHaveUsersOfTheirOwnForAsLongAsTheyExist(t *testing.T) {
	r := users(t)
	make := func(owner string) dayfly.Deployment {
		d := deployment(t, "worker")
		d.Key.Owner, d.Definition.Run = owner, dayfly.Command{"sleep", "1000"}
		return d
	}
	user := func(d dayfly.Deployment) int {
		i := start(t, r, d)
		info, err := os.Stat("/proc/" + strconv.Itoa(i.PID))
		if err != nil {
			t.Fatal(err)
		}
		return ownerOf(info)
	}
	one, again, two := make("one"), make("one"), make("two")
	first, same, second := user(one), user(again), user(two)
	if first < 310000 || first > 310002 || same != first || second == first {
		t.Errorf("users %d, %d of the same environment, and %d", first, same, second)
	}
	// One more is the builds', so none is left.
	err := r.Prepare(t.Context(), make("three"))
	if dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !strings.Contains(err.Error(), "--uids 310000-310002") {
		t.Errorf("with no user left: %v", err)
	}
	for _, d := range []dayfly.Deployment{one, again} {
		if err := r.Remove(t.Context(), d.ID); err != nil {
			t.Fatal(err)
		}
	}
	if third := user(make("three")); third != first {
		t.Errorf("user %d, want %d, which is free again", third, first)
	}
}

func TestAProgramOfRootAloneIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	program := func(folder string, mode os.FileMode) string {
		path := filepath.Join(dir, folder)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(path, "tool")
		if err := os.WriteFile(file, nil, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	closed, open := program("closed", 0o700), program("open", 0o755)
	link := filepath.Join(dir, "linked")
	if err := os.MkdirAll(link, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(closed, filepath.Join(link, "tool")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Dir(closed) + ":" + link + ":" + filepath.Dir(open)
	if got, err := lookPath("tool", "/", path, 0); err != nil || got != closed {
		t.Errorf("for the server's own user: %s, %v", got, err)
	}
	if got, err := lookPath("tool", "/", path, 1); err != nil || got != open {
		t.Errorf("for another user: %s, %v", got, err)
	}
	_, err := lookPath("tool", "/", link, 1)
	if err == nil || !strings.Contains(err.Error(), "cannot enter "+filepath.Dir(closed)) {
		t.Errorf("where there is no other: %v", err)
	}
}
