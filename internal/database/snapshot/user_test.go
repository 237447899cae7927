//go:build linux

package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot/snapshottest"
)

const (
	asUser = "DAYFLY_TEST_AS_USER" // what the program of the tests does as another user
	nobody = 65534
)

// user does something as another user, and gives what was said.
func user(t *testing.T, what, dir string) string {
	t.Helper()
	// Others may not get to where the program of the tests is.
	home, err := os.MkdirTemp("", "dayfly-")
	must(t, err)
	defer os.RemoveAll(home)
	must(t, os.Chmod(home, 0o755))
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(home+"/test", self, 0o755))
	cmd := exec.CommandContext(t.Context(), home+"/test")
	cmd.Dir = "/"
	cmd.Env = []string{asUser + "=" + what, "DIR=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out)
}

func actAsUser() int {
	var out string
	var err error
	switch dir := os.Getenv("DIR"); os.Getenv(asUser) {
	case "read":
		var data []byte
		data, err = os.ReadFile(dir)
		out = string(data)
	case "list":
		var entries []os.DirEntry
		entries, err = os.ReadDir(dir)
		out = fmt.Sprint(entries)
	case "use":
		out, err = use(context.Background(), dir)
	default:
		err = errors.New("what is that?")
	}
	fmt.Print(out)
	if err != nil {
		fmt.Print(err)
		return 1
	}
	return 0
}

// use goes through the life of a folder and gives the driver's name.
func use(ctx context.Context, dir string) (string, error) {
	c, err := snapshot.Open(ctx, snapshot.Options{Dir: dir})
	if err != nil {
		return "", err
	}
	path, err := c.Create(ctx, "t")
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Join(path, "d"), 0o700), os.WriteFile(filepath.Join(path, "d/f"), []byte("content"), 0o600), c.Freeze(ctx, "t"))
	}
	if err != nil {
		return "", err
	}
	if path, err = c.Clone(ctx, "t", "a"); err != nil {
		return "", err
	}
	if got, err := os.ReadFile(filepath.Join(path, "d/f")); err != nil || string(got) != "content" {
		return "", fmt.Errorf("%q, %w", got, err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(path, "d/f"), nil, 0o600), c.Delete(ctx, "t"), c.Delete(ctx, "a")); err != nil {
		return "", err
	}
	all, err := c.List(ctx)
	if err != nil || len(all) > 0 {
		return "", fmt.Errorf("there are %v, %w", all, err)
	}
	return c.Name(), snapshot.Destroy(ctx, dir, nil)
}

func TestAUserWhoIsNotRootHasWhatTheFileSystemCanDo(t *testing.T) {
	for want, on := range map[string]func(testing.TB, int64) string{"btrfs": snapshottest.Btrfs, "reflink": snapshottest.XFS, "copy": snapshottest.Ext4} {
		t.Run(want, func(t *testing.T) {
			dir := on(t, 400)
			must(t, os.Chown(dir, nobody, nobody))
			out := user(t, "use", dir+"/data")
			lines := strings.Split(out, "\n")
			if got := lines[len(lines)-1]; got != want {
				t.Errorf("it says %s", out)
			}
		})
	}
}
