//go:build linux

package torture

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	branch = "auto/x" // of the project, which becomes an environment by itself
	pushed = "pushed" // a branch of the project that has its home on the server
)

// follow lets the server watch a folder of environment files.
func (l *life) follow() {
	l.Helper()
	l.files = filepath.Join(l.dir, "environments")
	if err := os.Mkdir(l.files, 0o755); err != nil {
		l.Fatal(err)
	}
	l.flags = append(l.flags, "--environments", l.files)
}

// file puts an environment's file into the folder, or another in its place.
func (l *life) file(name, branch, keep string) {
	l.Helper()
	text := fmt.Sprintf("name: %s\nproject: repo\nbranch: %s\n", name, branch)
	if keep != "" {
		text += "keep: " + keep + "\n"
	}
	made := filepath.Join(l.dir, name+".made")
	if err := os.WriteFile(made, []byte(text), 0o644); err != nil {
		l.Fatal(err)
	}
	if err := os.Rename(made, filepath.Join(l.files, name+".yaml")); err != nil {
		l.Fatal(err)
	}
}

// remove takes an environment's file away.
func (l *life) remove(name string) {
	l.Helper()
	if err := os.Remove(filepath.Join(l.files, name+".yaml")); err != nil {
		l.Fatal(err)
	}
}

// archived waits until a file is in the archive, once, and no longer in the folder.
func (l *life) archived(name string) {
	l.Helper()
	l.until(name+"'s file is in the archive", func() string {
		here, err := filepath.Glob(filepath.Join(l.files, name+"*"))
		if err != nil {
			l.Fatal(err)
		}
		there, err := filepath.Glob(filepath.Join(l.files, "archive", name+"*"))
		if err != nil {
			l.Fatal(err)
		}
		if len(here) == 0 && len(there) == 1 {
			return ""
		}
		return fmt.Sprintf("%q and %q", here, there)
	})
}

// push moves a branch of the server's own repository to that of another name, or deletes it
// where that is empty. It pushes until the server acknowledges it, as people do, and then
// looks whether what was acknowledged is there.
func (l *life) push(from, to string) {
	l.Helper()
	url := "http://" + l.api + "/git/hosted.git"
	want := ""
	if from != "" {
		out, err := l.git("rev-parse", from)
		if err != nil {
			l.Fatalf("%s: %v", out, err)
		}
		want = strings.TrimSpace(out)
	}
	ref := "refs/heads/" + to
	look := func() (commit string, err error) {
		out, err := l.git("ls-remote", url, ref)
		if err != nil {
			return "", fmt.Errorf("%w: %s", err, out)
		}
		for line := range strings.Lines(out) { // git may say in front of it that the server died after all was said
			if hash, name, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && name == ref {
				commit = hash
			}
		}
		return commit, nil
	}
	deadline := time.Now().Add(patience)
	for {
		// Who was not told that his branch is deleted is told so by the next look.
		out, err := l.git("push", "-o", "no-wait", "--force", url, from+":"+ref)
		if err == nil || from == "" && strings.Contains(out, "remote ref does not exist") {
			break
		}
		if time.Now().After(deadline) {
			l.Fatalf("never pushed: %v: %s", err, out)
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.until("a push can be looked at", func() string {
		got, err := look()
		if err != nil {
			return err.Error() // the server may be dead again
		}
		if got != want {
			l.Fatalf("the push of %q was acknowledged, and %s is at %q", want, to, got)
		}
		return ""
	})
}

// git runs git in the repository and gives what it says, also where it fails.
func (l *life) git(args ...string) (string, error) {
	cmd := exec.CommandContext(l.Context(), "git", args...)
	cmd.Dir = l.repo
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
