//go:build linux

package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/cgroup"
	"github.com/dayfly-dev/dayfly/internal/runner"
)

// start prepares and starts one instance and waits until it is healthy.
func start(t *testing.T, r *Runner, d dayfly.Deployment) dayfly.Instance {
	t.Helper()
	if err := r.Prepare(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := r.Ensure(t.Context(), d, 1); err != nil {
		t.Fatal(err)
	}
	return healthy(t, r, d)
}

func healthy(t *testing.T, r *Runner, d dayfly.Deployment) (i dayfly.Instance) {
	t.Helper()
	eventually(t, "it is healthy", func() bool {
		all, err := r.Observe(t.Context(), d.ID)
		if err != nil || len(all) != 1 {
			t.Fatalf("Observe: %v, %v", all, err)
		}
		if all[0].Phase == dayfly.DeploymentReady {
			i = all[0].Instances[0]
		}
		return i.ID != ""
	})
	return i
}

func output(t *testing.T, r *Runner, d dayfly.Deployment, source string) (lines []string) {
	t.Helper()
	for l, err := range r.Logs(t.Context(), d.ID, runner.LogOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if l.Source == source {
			lines = append(lines, l.Line)
		}
	}
	return lines
}

func TestAServiceSeesJustWhatIsDocumented(t *testing.T) {
	for name, value := range map[string]string{
		"SECRET_OF_THE_SERVER": "x", "GOPATH": "/theirs", "GOENV": "/theirs", "npm_config_cache": "/theirs", "GOFLAGS": "-mod=mod",
		"npm_config_loglevel": "warn", "HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "example.org", "EXTRA": "passed", "TZ": "UTC", "LC_ALL": "C",
		"DAYFLY_TOKEN": "t", "BASH_ENV": "/x", "LD_PRELOAD": "",
	} {
		t.Setenv(name, value)
	}
	os.Unsetenv("LD_PRELOAD")
	dir := folder(t)
	r := open(t, dir, runner.Hooks{}, func(c *Config) { c.PassEnv, c.NoProxy = []string{"EXTRA"}, []string{"dev.example.org"} })
	defer r.Close()
	d := deployment(t, "environment")
	d.Definition.Port = 80
	d.Variables["BACKEND_URL"] = "http://127.1.2.3:7071"
	d.Variables["DAYFLY_ENV"] = "shop-main"
	d.Variables["PORT"] = "1"
	i := start(t, r, d)
	got := map[string]string{}
	for _, line := range output(t, r, d, "run") {
		name, value, _ := strings.Cut(line, "=")
		got[name] = value
	}
	for name := range got {
		// The harness of these tests may hand on more of these; they are the documented exception.
		if strings.HasPrefix(name, "GO") && !slices.Contains([]string{"GOPATH", "GOENV", "GOFLAGS", "GOCACHE", "GOMODCACHE"}, name) ||
			strings.HasPrefix(name, "npm_config_") && !slices.Contains([]string{"npm_config_cache", "npm_config_prefix", "npm_config_loglevel"}, name) ||
			slices.Contains([]string{"LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
				"HTTP_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"}, name) {
			delete(got, name)
		}
	}
	noProxy := func(before string) string {
		if before != "" {
			before += ","
		}
		return before + "127.0.0.0/8,localhost,.internal,dev.example.org"
	}
	_, port, _ := strings.Cut(i.Address, ":")
	cache, private := filepath.Join(dir, "cache/project-p"), filepath.Join(dir, "private", d.ID, i.ID)
	want := map[string]string{
		"PATH": os.Getenv("PATH"), "TZ": "UTC", "LC_ALL": "C", "EXTRA": "passed", "GOFLAGS": "-mod=mod", "npm_config_loglevel": "warn",
		"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": noProxy("example.org"), "no_proxy": noProxy(os.Getenv("no_proxy")),
		"GOPATH": cache + "/go", "GOCACHE": cache + "/go-build", "GOMODCACHE": cache + "/go/pkg/mod", "GOENV": "off",
		"npm_config_cache": cache + "/npm", "npm_config_prefix": cache + "/npm-prefix",
		"HOME": private + "/home", "TMPDIR": private + "/tmp", "DAYFLY_DIR": private + "/data",
		"USER": got["USER"], "LOGNAME": got["USER"],
		"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": filepath.Join(dir, "builds", buildKey(d)),
		"DAYFLY_CLUSTER": r.ClusterID, "DAYFLY_INSTANCE": i.ID, "PORT": port,
		"BACKEND_URL": "http://127.1.2.3:7071", "DAYFLY_ENV": "shop-main", "DEPLOYMENT": d.ID, "STARTS": d.Variables["STARTS"],
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("a service's variables (-want +got):\n%s", diff)
	}
}

func TestABuildSeesOnlyTheVariablesItAskedFor(t *testing.T) {
	r := open(t, folder(t), runner.Hooks{})
	defer r.Close()
	d := deployment(t, "worker")
	d.Definition.Build = []dayfly.Command{{"env"}}
	d.Definition.BuildEnv = []string{"COLOR"}
	d.Variables["COLOR"], d.Variables["PASSWORD"] = "green", "x"
	if err := r.Prepare(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	lines := output(t, r, d, "build")
	if !slices.Contains(lines, "COLOR=green") {
		t.Errorf("what it asked for is missing: %q", lines)
	}
	for _, l := range lines {
		if strings.HasPrefix(l, "PASSWORD") || strings.HasPrefix(l, "DEPLOYMENT") {
			t.Errorf("the build sees %s", l)
		}
	}
	other := d
	other.ID = dayfly.NewID()
	other.Variables = map[string]string{"COLOR": "blue"}
	if buildKey(d) == buildKey(other) {
		t.Error("a build with another variable that it asked for is the same build")
	}
}

func TestEqualBuildsAreMadeOnceAndCannotBeWrittenTo(t *testing.T) {
	written := make(chan string, 100)
	dir := folder(t)
	r := open(t, dir, runner.Hooks{}, func(c *Config) { c.Trees = trees{written} })
	defer r.Close()
	var all sync.WaitGroup
	ds := make([]dayfly.Deployment, 8)
	for n := range ds {
		ds[n] = deployment(t, "worker")
		ds[n].Definition.Build = []dayfly.Command{{"cp", "sub/file", "built"}}
		all.Go(func() {
			if err := r.Prepare(t.Context(), ds[n]); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(written); n != 1 {
		t.Errorf("the tree was written %d times for one build", n)
	}
	tree := filepath.Join(dir, "builds", buildKey(ds[0]))
	if b, err := os.ReadFile(filepath.Join(tree, "built")); err != nil || string(b) != "of c" {
		t.Errorf("the build made %q, %v", b, err)
	}
	for _, name := range []string{"built", "sub", "sub/file"} {
		info, err := os.Stat(filepath.Join(tree, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o222 != 0 {
			t.Errorf("%s can be written to: %v", name, info.Mode())
		}
	}
	d := deployment(t, "worker")
	d.Commit = "other"
	if err := r.Prepare(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if n := len(written); n != 2 {
		t.Errorf("another commit has written %d trees in all", n)
	}
}

func TestPruneKeepsTheBuildsThatAreUsed(t *testing.T) {
	dir := folder(t)
	r := open(t, dir, runner.Hooks{})
	defer r.Close()
	used, unused := deployment(t, "worker"), deployment(t, "worker")
	unused.Commit = "other"
	for _, d := range []dayfly.Deployment{used, unused} {
		if err := r.Prepare(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Remove(t.Context(), unused.ID); err != nil {
		t.Fatal(err)
	}
	r.MaxBuildBytes = 1
	if err := r.limitBuilds(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "builds")); err != nil || len(left) != 1 || left[0].Name() != buildKey(used) {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestAWritableTreeBelongsToOneInstance(t *testing.T) {
	dir := folder(t)
	r := open(t, dir, runner.Hooks{})
	defer r.Close()
	d := deployment(t, "write")
	d.Definition.Writable = true
	i := start(t, r, d)
	if got := output(t, r, d, "run"); !slices.Equal(got, []string{"<nil>"}) {
		t.Errorf("writing gave %q", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "private", d.ID, i.ID, "tree", "written")); err != nil {
		t.Errorf("what it wrote is not in its own tree: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "builds", buildKey(d), "written")); err == nil {
		t.Errorf("it wrote into the tree that all share")
	}
}

func TestWhatACrashLeftOfABuildIsSwept(t *testing.T) {
	dir := folder(t)
	half := filepath.Join(dir, "builds", "abc.new-1")
	if err := os.MkdirAll(filepath.Join(half, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(half, "sub"), 0o555); err != nil {
		t.Fatal(err)
	}
	defer open(t, dir, runner.Hooks{}).Close()
	if _, err := os.Stat(half); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestStoppingTakesChildrenThatIgnoreIt(t *testing.T) {
	r := open(t, folder(t), runner.Hooks{})
	defer r.Close()
	d := deployment(t, "child")
	start(t, r, d)
	var child string
	eventually(t, "the child is named", func() bool {
		for _, l := range output(t, r, d, "run") {
			if rest, ok := strings.CutPrefix(l, "child "); ok {
				child = rest
			}
		}
		return child != ""
	})
	pid, err := strconv.Atoi(child)
	if err != nil || !runs(pid) {
		t.Fatalf("child %q does not run: %v", child, err)
	}
	if err := r.Remove(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child is gone", func() bool { return !runs(pid) })
}

func TestLogsGoOnBehindWhatWasRead(t *testing.T) {
	r := open(t, folder(t), runner.Hooks{})
	defer r.Close()
	d := deployment(t, "printer")
	d.Definition.Build = []dayfly.Command{{"echo", "built"}}
	start(t, r, d)
	var all []dayfly.LogLine
	logs := func(after map[string]int64) (lines []dayfly.LogLine) {
		for l, err := range r.Logs(t.Context(), d.ID, runner.LogOptions{After: after}) {
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, l)
		}
		return lines
	}
	eventually(t, "it has printed all", func() bool { all = logs(nil); return len(all) >= 52 && all[len(all)-1].Line == "line 50" })
	read := dayfly.LogPositions{}
	for n, l := range all {
		read.Pass(l.Next)
		rest := logs(read[d.ID])
		if len(rest) != len(all)-n-1 || len(rest) > 0 && rest[0].Line != all[n+1].Line {
			t.Errorf("behind %d of %d lines there are %d", n+1, len(all), len(rest))
		}
	}
	// Whoever asked for the last lines only has seen none of the build.
	if rest := logs(map[string]int64{"run": all[len(all)-2].Next.Offset}); len(rest) != 1 || rest[0].Line != "line 50" {
		t.Errorf("behind the last but one: %v", rest)
	}
}

// daemons are the processes that a service of the kind "daemon" has named.
func daemons(t *testing.T, r *Runner, d dayfly.Deployment) (pids []int) {
	t.Helper()
	for _, l := range output(t, r, d, "run") {
		if rest, ok := strings.CutPrefix(l, "daemon "); ok {
			pid, err := strconv.Atoi(rest)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestADaemonEndsWithTheInstanceThatStartedIt(t *testing.T) {
	for _, c := range []struct {
		name string
		kind string
		end  func(t *testing.T, r *Runner, d dayfly.Deployment, i dayfly.Instance)
	}{
		{"when it is removed", "daemon", func(t *testing.T, r *Runner, d dayfly.Deployment, _ dayfly.Instance) {
			if err := r.Remove(t.Context(), d.ID); err != nil {
				t.Fatal(err)
			}
		}},
		{"when it is too many", "daemon", func(t *testing.T, r *Runner, d dayfly.Deployment, _ dayfly.Instance) {
			if err := r.Ensure(t.Context(), d, 0); err != nil {
				t.Fatal(err)
			}
		}},
		{"when it crashes", "daemon", func(t *testing.T, _ *Runner, _ dayfly.Deployment, i dayfly.Instance) {
			if err := syscall.Kill(i.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}},
		{"when it is a job that is done", "daemon-job", func(*testing.T, *Runner, dayfly.Deployment, dayfly.Instance) {}},
		{"when it crashed while no server ran", "daemon", func(t *testing.T, r *Runner, _ dayfly.Deployment, i dayfly.Instance) {
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(i.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it has ended", func() bool { return !runs(i.PID) })
			again := open(t, r.Dir, runner.Hooks{})
			t.Cleanup(func() { _ = again.Close() })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := open(t, folder(t), runner.Hooks{})
			t.Cleanup(func() { _ = r.Close() })
			if r.groups == nil {
				t.Skip("control groups cannot be written to")
			}
			d, bystander := deployment(t, c.kind), deployment(t, "daemon")
			start(t, r, bystander)
			var i dayfly.Instance
			if d.Definition.Job = c.kind == "daemon-job"; d.Definition.Job {
				if err := errors.Join(r.Prepare(t.Context(), d), r.Ensure(t.Context(), d, 1)); err != nil {
					t.Fatal(err)
				}
			} else {
				i = start(t, r, d)
			}
			eventually(t, "its daemon is there", func() bool { return len(daemons(t, r, d)) == 1 && len(daemons(t, r, bystander)) == 1 })
			pid := daemons(t, r, d)[0]
			c.end(t, r, d, i)
			eventually(t, "its daemon is gone", func() bool { return !runs(pid) })
			if other := daemons(t, r, bystander)[0]; !runs(other) {
				t.Error("the daemon of another instance has ended, too")
			}
		})
	}
}

func TestADaemonOfAnAdoptedInstanceLivesOnAndEndsWithIt(t *testing.T) {
	dir := folder(t)
	r := open(t, dir, runner.Hooks{})
	if r.groups == nil {
		t.Skip("control groups cannot be written to")
	}
	d := deployment(t, "daemon")
	i := start(t, r, d)
	eventually(t, "its daemon is there", func() bool { return len(daemons(t, r, d)) == 1 })
	pid := daemons(t, r, d)[0]
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	// A server that was killed may have left groups of what it was about to start or to remove.
	if err := r.groups.Make("empty", cgroup.Limits{}); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, runner.Hooks{})
	t.Cleanup(func() { _ = again.Close() })
	left, err := again.Sweep(t.Context(), 0, func(string) bool { return true })
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if groups, err := again.groups.List(); err != nil || !slices.Equal(groups, []string{i.ID}) {
		t.Errorf("there are the groups %v, %v; want that of %s", groups, err, i.ID)
	}
	if now := healthy(t, again, d); now.PID != i.PID || !runs(pid) {
		t.Errorf("the process was %d and is %d, its daemon runs: %t", i.PID, now.PID, runs(pid))
	}
	if err := again.Remove(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	if runs(pid) {
		t.Error("its daemon has outlived it")
	}
	if groups, err := again.groups.List(); err != nil || len(groups) > 0 {
		t.Errorf("groups are left: %v, %v", groups, err)
	}
}

func TestWhatABuildLeavesRunningIsEnded(t *testing.T) {
	r := open(t, folder(t), runner.Hooks{})
	defer r.Close()
	d := deployment(t, "worker")
	exe := d.Definition.Run[0]
	d.Definition.BuildEnv = []string{"DEPLOYMENT"}
	d.Definition.Build = []dayfly.Command{{"sh", "-c", `"$1" ` + asService + ` worker >/dev/null 2>&1 & echo started`, "sh", exe}}
	if err := r.Prepare(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(output(t, r, d, "build"), "started") {
		t.Fatal("the build did not run")
	}
	eventually(t, "its daemon is gone", func() bool { return len(processes(t, "DEPLOYMENT="+d.ID)) == 0 })
}

func TestAKilledRunnerIsFollowedByOneThatAdopts(t *testing.T) {
	dir := folder(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := deployment(t, "web")
	cmd := exec.CommandContext(t.Context(), exe, asService, "keep", dir, d.ID)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "instance "); ok {
			pid, err = strconv.Atoi(rest)
			break
		}
	}
	if err != nil || pid == 0 {
		t.Fatalf("the runner did not start: %v", err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !runs(pid) {
		t.Fatal("the instance ended with its runner")
	}
	r := open(t, dir, runner.Hooks{})
	defer r.Close()
	if i := healthy(t, r, d); i.PID != pid || i.Restarts != 0 {
		t.Errorf("adopted %+v, want the process %d", i, pid)
	}
	// Its end is seen although it is no child of ours.
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another one has taken its place", func() bool {
		i := healthy(t, r, d)
		return i.PID != pid && i.Restarts == 1
	})
}

func TestAJobThatEndedWhileNoRunnerWasThereIsNotRunAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		exit   string
		forget bool // which process it is, as a runner does that is killed right after it has started it
		phase  dayfly.DeploymentPhase
	}{
		{"well", "exit 0", false, dayfly.DeploymentCompleted},
		{"badly", "exit 3", false, dayfly.DeploymentFailed},
		{"well, and nobody knew that it ran", "exit 0", true, dayfly.DeploymentCompleted},
		{"by a signal", "kill -KILL $$", false, dayfly.DeploymentFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t)
			d := deployment(t, "web")
			d.Definition.Job = true
			d.Definition.Run = dayfly.Command{"sh", "-c", `echo x >> "$STARTS"; until test -e "$STARTS.go"; do sleep 0.01; done; ` + c.exit}
			starts := d.Variables["STARTS"]
			r := open(t, dir, runner.Hooks{})
			if err := errors.Join(r.Prepare(t.Context(), d), r.Ensure(t.Context(), d, 1)); err != nil {
				t.Fatal(err)
			}
			pid := 0
			eventually(t, "it runs", func() bool {
				all, err := r.Observe(t.Context(), d.ID)
				if err != nil || len(all) != 1 || len(all[0].Instances) != 1 {
					t.Fatalf("there is %v, %v", all, err)
				}
				pid = all[0].Instances[0].PID
				b, _ := os.ReadFile(starts) // it will be there
				return pid != 0 && string(b) == "x\n"
			})
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if c.forget {
				records, err := filepath.Glob(filepath.Join(dir, "run", d.ID, "i-*.json"))
				if err != nil || len(records) != 1 {
					t.Fatalf("records %q, %v", records, err)
				}
				var rec instanceRecord
				err = readJSON(records[0], &rec)
				rec.Process = process0
				if err := errors.Join(err, writeJSON(records[0], rec)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(starts+".go", nil, 0o644); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it ends", func() bool {
				_ = reap(pid, -1) // the runner that was its parent is this process
				return !runs(pid)
			})
			r = open(t, dir, runner.Hooks{})
			defer r.Close()
			eventually(t, "its end is known", func() bool {
				all, err := r.Observe(t.Context(), d.ID)
				if err != nil || len(all) != 1 {
					t.Fatalf("there is %v, %v", all, err)
				}
				return all[0].Phase == c.phase
			})
			if b, err := os.ReadFile(starts); err != nil || string(b) != "x\n" {
				t.Errorf("it was started so often: %q, %v", b, err)
			}
		})
	}
}

func TestWhatWasBeingRemovedWhenTheRunnerWasKilledIsNotStartedAgain(t *testing.T) {
	dir := folder(t)
	draining, released := make(chan struct{}), make(chan struct{})
	r := open(t, dir, runner.Hooks{Drain: func(ctx context.Context, _, _ string) {
		close(draining)
		<-ctx.Done()
	}})
	d := deployment(t, "web")
	d.Definition.Port = 80
	pid := start(t, r, d).PID
	go func() {
		defer close(released)
		if err := r.Remove(t.Context(), d.ID); err == nil {
			t.Error("it was removed though the runner was closed")
		}
	}()
	<-draining
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	<-released
	r = open(t, dir, runner.Hooks{})
	defer r.Close()
	eventually(t, "what was going goes", func() bool {
		_ = reap(pid, -1)
		all, err := r.Observe(t.Context(), d.ID)
		return err == nil && len(all) == 1 && len(all[0].Instances) == 0 && !runs(pid)
	})
}

// keep is the runner that the test above kills.
func keep(dir, id string) error {
	ctx := context.Background()
	r, err := New(ctx, config(dir, slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	d := dayfly.Deployment{ID: id, Key: dayfly.DeploymentKey{Project: "p", Service: "s"}, Definition: &dayfly.Definition{Dir: ".", Port: 80, Run: dayfly.Command{exe, asService, "web"}}}
	if err := errors.Join(r.Prepare(ctx, d), r.Ensure(ctx, d, 1)); err != nil {
		return err
	}
	for range r.Changes(ctx) {
		if o, err := r.Observe(ctx, id); err == nil && o[0].Phase == dayfly.DeploymentReady {
			fmt.Println("instance", o[0].Instances[0].PID)
		}
	}
	return nil
}

func TestOnlyProcessesOfThisFolderAndClusterAreEnded(t *testing.T) {
	dir := folder(t)
	first := open(t, dir, runner.Hooks{})
	d := deployment(t, "worker")
	i := start(t, first, d)
	first.Close()
	// Somebody deleted the records: the process is an orphan.
	if err := os.RemoveAll(filepath.Join(dir, "run", d.ID)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"another cluster": func(c *Config) { c.ClusterID = "another" },
		"another folder":  func(c *Config) { c.Dir = t.TempDir() },
	} {
		other := open(t, dir, runner.Hooks{}, change)
		other.Close()
		if !runs(i.PID) {
			t.Fatalf("%s ended a process that is not its own", name)
		}
	}
	open(t, dir, runner.Hooks{}).Close()
	eventually(t, "the orphan is gone", func() bool { return !runs(i.PID) })
}

func TestARecordThatCannotBeReadHurtsNobodyElse(t *testing.T) {
	dir := folder(t)
	first := open(t, dir, runner.Hooks{})
	good, bad := deployment(t, "worker"), deployment(t, "worker")
	i := start(t, first, good)
	start(t, first, bad)
	first.Close()
	if err := os.WriteFile(filepath.Join(dir, "run", bad.ID, "deployment.json"), []byte(`{"deployment": {"id`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir, runner.Hooks{}, func(c *Config) { c.Logger = slog.New(slog.DiscardHandler) })
	defer r.Close()
	if now := healthy(t, r, good); now.PID != i.PID {
		t.Errorf("the other one was restarted: %+v", now)
	}
	if all, err := r.Observe(context.Background(), bad.ID); err != nil || len(all) != 0 {
		t.Errorf("known still: %v, %v", all, err)
	}
	eventually(t, "its process is gone", func() bool { return len(processes(t, "DEPLOYMENT="+bad.ID)) == 0 })
}

func TestAPortIsNamedThatNobodyOpened(t *testing.T) {
	r := open(t, folder(t), runner.Hooks{})
	defer r.Close()
	d := deployment(t, "environment")
	d.Definition.Port = 80
	d.Definition.Run = dayfly.Command{"sleep", "1000"}
	d.Definition.Health.StartPeriod = dayfly.Duration(1)
	if err := r.Prepare(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := r.Ensure(t.Context(), d, 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it fails and says which port", func() bool {
		all, err := r.Observe(t.Context(), d.ID)
		if err != nil {
			t.Fatal(err)
		}
		return all[0].Phase == dayfly.DeploymentFailed && strings.Contains(all[0].Message, "it listens on no port; $PORT is ")
	})
}

func TestAnInstanceThatUsesTooMuchMemoryIsKilledAndSaysSo(t *testing.T) {
	r := open(t, folder(t), runner.Hooks{}, func(c *Config) { c.Memory = 256 << 20 })
	defer r.Close()
	if r.groups == nil {
		t.Skip("control groups cannot be written to")
	}
	modest, greedy := deployment(t, "worker"), deployment(t, "eat")
	start(t, r, modest)
	if err := errors.Join(r.Prepare(t.Context(), greedy), r.Ensure(t.Context(), greedy, 1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it fails and says why", func() bool {
		all, err := r.Observe(t.Context(), greedy.ID)
		if err != nil {
			t.Fatal(err)
		}
		return all[0].Phase == dayfly.DeploymentFailed && strings.Contains(all[0].Message, "used more memory than its 256 MiB")
	})
	for _, d := range []dayfly.Deployment{modest, greedy} {
		if err := r.Remove(t.Context(), d.ID); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := r.groups.List(); err != nil || len(left) > 0 {
		t.Errorf("groups are left: %v, %v", left, err)
	}
}
