package demo

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// traces gives all that still has to do with a folder: mounts, loop devices and processes.
func traces(t *testing.T, dir string) (found []string) {
	t.Helper()
	look := func(pattern string, read func(string) ([]byte, error)) {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := read(file)
			if err != nil {
				continue // gone meanwhile
			}
			for line := range strings.Lines(strings.ReplaceAll(string(text), "\x00", " ")) {
				if strings.Contains(line, dir) {
					found = append(found, file+": "+strings.TrimSpace(line))
				}
			}
		}
	}
	link := func(name string) ([]byte, error) {
		target, err := os.Readlink(name)
		return []byte(target), err
	}
	look("/proc/self/mountinfo", os.ReadFile)
	look("/sys/block/loop*/loop/backing_file", os.ReadFile)
	look("/proc/[0-9]*/cmdline", os.ReadFile)
	look("/proc/[0-9]*/cwd", link)
	look("/proc/[0-9]*/exe", link)
	return found
}

// whole runs the demo as a program of its own, below a folder that is looked at afterwards. Where one of
// its lines has what is given, it gets a Ctrl-C.
func whole(t *testing.T, program, interrupt string) (out string, code int) {
	t.Helper()
	// Not t.TempDir: a path to a socket must not be long.
	dir, err := os.MkdirTemp("/tmp", "tour-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "demo", "--once")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if interrupt != "" && strings.Contains(lines.Text(), interrupt) {
			interrupt = ""
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Error(err)
			}
		}
	}
	_ = cmd.Wait() // its code is what counts
	// Where there is no PostgreSQL, there are no templates.
	if interrupt != "" && !strings.Contains(said.String(), "Left out, ") {
		t.Errorf("it never said %q", interrupt)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("it left the folder %s", e.Name())
	}
	for _, trace := range traces(t, dir) {
		t.Errorf("it left %s", trace)
	}
	return said.String(), cmd.ProcessState.ExitCode()
}

func TestTheDemoTakesEverythingAwayHoweverItEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds dayfly and the shop")
	}
	program := filepath.Join(t.TempDir(), "dayfly")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/dayfly-dev/dayfly/cmd/dayfly")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, c := range []struct {
		name, interrupt string
		shown           []string
	}{
		{"Ctrl-C while the template is made", "$ dayfly template create", []string{"A template: "}},
		{"Ctrl-C during the first build", "preparing ", []string{"Two of its branches"}},
		{"at the end of the tour", "", []string{" 0 failed, ", "3 environments, 7 processes", "passed after "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, code := whole(t, program, c.interrupt)
			if code != 0 {
				t.Errorf("it ended with %d", code)
			}
			shown := append(c.shown, "Nothing is left")
			if c.interrupt == "" && !strings.Contains(out, "Left out, ") {
				shown = append(shown, "loaded: ", "999999 orders, has no order 4711", "1000000 orders, has order 4711")
			}
			for _, text := range shown {
				if !strings.Contains(out, text) {
					t.Errorf("it does not say %q", text)
				}
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

func TestAProcessInAFolderIsATraceOfIt(t *testing.T) {
	dir := t.TempDir()
	if found := traces(t, dir); len(found) > 0 {
		t.Errorf("there is %v before anything was started", found)
	}
	cmd := exec.CommandContext(t.Context(), "cat")
	cmd.Dir = dir
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if found := traces(t, dir); len(found) != 1 {
		t.Errorf("it finds %v", found)
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Error(err)
	}
}
