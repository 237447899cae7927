package app

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api/client"
)

// git runs it in a folder, and gives what it printed.
func git(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@localhost", "GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@localhost")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// become waits until the environments are these, ready or not.
func become(t *testing.T, a *App, want ...string) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		list, _, err := a.control.Environments(t.Context(), dayfly.EnvironmentFilter{})
		if err != nil {
			t.Fatal(err)
		}
		got = nil
		for _, env := range list {
			got = append(got, env.Name)
		}
		if strings.Join(got, " ") == strings.Join(want, " ") {
			return
		}
	}
	t.Fatalf("the environments are %q, want %q", got, want)
}

func TestAPushIsAnEnvironmentAndADeletionItsEnd(t *testing.T) {
	config := testConfig(dataFolder(t))
	config.Hook, config.TakeDown = asHook, true
	a, _ := serve(t, config)
	repo := repository(t)
	_, address, _ := a.Addresses()
	url := "http://" + address + "/git/hello.git"

	if out, err := git(t, repo, "ls-remote", url); err == nil || !strings.Contains(out, "not found") {
		t.Errorf("a project that is not there: %s, %v", out, err)
	}
	out, err := git(t, repo, "push", url, "main")
	if err != nil || !strings.Contains(out, "remote: environment hello-main is ready: http://hello-main.localhost:") {
		t.Fatalf("the push says %s, %v", out, err)
	}
	call(t, a, "hello-main")

	// A branch with a mistake is refused, and another one of the same push is taken.
	for _, args := range [][]string{{"branch", "good"}, {"switch", "--quiet", "--create", "bad"}} {
		if out, err := git(t, repo, args...); err != nil {
			t.Fatal(out)
		}
	}
	if err := os.WriteFile(filepath.Join(repo, "compose.yaml"), []byte("services:\n  web: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"add", "--all"}, {"commit", "--quiet", "--message", "Break it"}} {
		if out, err := git(t, repo, args...); err != nil {
			t.Fatal(out)
		}
	}
	out, err = git(t, repo, "push", "-o", "no-wait", url, "good", "bad")
	if err == nil || !strings.Contains(out, "compose.yaml:") {
		t.Errorf("the push says %s, %v", out, err)
	}
	become(t, a, "hello-good", "hello-main")
	if out, err := git(t, repo, "ls-remote", url); err != nil || strings.Contains(out, "bad") || !strings.Contains(out, "refs/heads/good") {
		t.Errorf("it has %s, %v", out, err)
	}
	if out, err := git(t, repo, "push", url, ":good"); err != nil || !strings.Contains(out, "ends with its branch") {
		t.Errorf("the deletion says %s, %v", out, err)
	}
	become(t, a, "hello-main")
}

func TestAFolderOfFilesIsFollowedAndWhatHasExpiredGoesToItsArchive(t *testing.T) {
	config := testConfig(dataFolder(t))
	config.Environments, config.TakeDown = t.TempDir(), true
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(config.Environments, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("early.yaml", "name: early\nproject: hello\nbranch: main\n")
	a, _ := serve(t, config)
	become(t, a, "early") // it says that there is no project
	_, address, _ := a.Addresses()
	api := client.New("http://"+address, "")
	if _, _, err := api.CreateProject(t.Context(), dayfly.ProjectRequest{Name: "hello", Repo: repository(t)}); err != nil {
		t.Fatal(err)
	}
	services := func(name string) int {
		env, err := a.control.Environment(t.Context(), name)
		if err != nil {
			return 0
		}
		return len(env.Services)
	}
	for deadline := time.Now().Add(time.Minute); services("early") == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the project is there, and its file is not followed")
		}
	}
	ready(t, a, "early")
	write("more.yaml", "name: more\nproject: hello\nbranch: main\n")
	become(t, a, "early", "more")
	write("more.yaml", "name: other\nproject: hello\nbranch: main\n")
	become(t, a, "early", "other")
	if _, err := api.DeleteEnvironment(t.Context(), "early", true); err != nil {
		t.Fatal(err)
	}
	become(t, a, "other")
	archived := func() bool {
		_, err := os.Stat(filepath.Join(config.Environments, "early.yaml"))
		found, _ := filepath.Glob(filepath.Join(config.Environments, "archive", "*early*"))
		return os.IsNotExist(err) && len(found) == 1
	}
	for deadline := time.Now().Add(time.Minute); !archived(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the file is not in the archive")
		}
	}
	if err := os.Remove(filepath.Join(config.Environments, "more.yaml")); err != nil {
		t.Fatal(err)
	}
	become(t, a)
}
