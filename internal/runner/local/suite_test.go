//go:build linux

package local

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/runner"
	"github.com/dayfly-dev/dayfly/internal/runner/runnertest"
)

// asService makes the test binary the program of a deployment.
const asService = "as-service"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == asService {
		serve(os.Args[2:])
		return
	}
	goleak.VerifyTestMain(m)
}

// serve is what the instances of the tests do.
func serve(args []string) {
	if file := os.Getenv("STARTS"); file != "" {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			panic(err)
		}
		fmt.Fprintln(f, os.Getpid())
		f.Close()
	}
	switch runnertest.Kind(args[0]) {
	case "keep":
		panic(keep(args[1], args[2]))
	case runnertest.BadBuild:
		fmt.Println("no such thing")
		os.Exit(1)
	case runnertest.SlowBuild:
		time.Sleep(time.Second)
		return
	case runnertest.Crashing:
		fmt.Println("giving up")
		os.Exit(3)
	case runnertest.Job:
		fmt.Println("done")
		return
	case runnertest.BadJob:
		fmt.Println("not done")
		os.Exit(4)
	case runnertest.Printer:
		for n := range 50 {
			fmt.Println("line", n+1)
		}
	case runnertest.Stubborn:
		signal.Ignore(syscall.SIGTERM)
	case "environment":
		fmt.Println(strings.Join(os.Environ(), "\n"))
	case "child":
		// A child that ignores the stop signal and outlives its parent.
		p, err := os.StartProcess("/proc/self/exe", []string{"service", asService, string(runnertest.Stubborn)}, &os.ProcAttr{Env: os.Environ()})
		if err != nil {
			panic(err)
		}
		fmt.Println("child", p.Pid)
	case "daemon", "daemon-job":
		// A child of a session of its own, with nothing of its parent but the output.
		null, err := os.Open(os.DevNull)
		if err != nil {
			panic(err)
		}
		p, err := os.StartProcess("/proc/self/exe", []string{"daemon", asService, string(runnertest.Stubborn)},
			&os.ProcAttr{Env: []string{}, Dir: "/", Files: []*os.File{null, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Setsid: true}})
		if err != nil {
			panic(err)
		}
		fmt.Println("daemon", p.Pid)
		if args[0] == "daemon-job" {
			return
		}
	case "eat":
		b := make([]byte, 1<<30)
		for n := 0; n < len(b); n += 4096 {
			b[n] = 1
		}
		fmt.Println("ate", len(b))
	case "write":
		fmt.Println(os.WriteFile("written", []byte("x"), 0o600))
	default:
		fmt.Println("hello")
	}
	if port := os.Getenv("PORT"); port != "" {
		panic(http.ListenAndServe("127.0.0.1:"+port, http.NotFoundHandler()))
	}
	select {}
}

// trees writes the same small tree for every commit.
type trees struct{ written chan string }

func (t trees) Worktree(_ context.Context, d dayfly.Deployment, dst string) error {
	if t.written != nil {
		t.written <- d.Commit
	}
	if err := os.MkdirAll(filepath.Join(dst, "sub"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dst, "sub", "file"), []byte("of "+d.Commit), 0o644)
}

// config gives each folder a cluster of its own.
func config(dir string, log *slog.Logger) Config {
	return Config{Dir: dir, ClusterID: "cluster" + strings.ReplaceAll(dir, "/", "-"), NodeID: "n", Trees: trees{}, Logger: log}
}

// open makes a runner for a test.
func open(t *testing.T, dir string, hooks runner.Hooks, change ...func(*Config)) *Runner {
	t.Helper()
	c := config(dir, slog.New(slog.NewTextHandler(t.Output(), nil)))
	c.Hooks = hooks
	for _, f := range change {
		f(&c)
	}
	r, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// folder is a data folder; whatever runs there ends with the test.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		r, err := New(context.Background(), config(dir, slog.New(slog.DiscardHandler)))
		if err != nil {
			t.Error(err)
			return
		}
		defer r.Close()
		all, err := r.Observe(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, o := range all {
			if err := r.Remove(context.Background(), o.DeploymentID); err != nil {
				t.Error(err)
			}
		}
		if _, err := r.Sweep(context.Background(), 0, func(string) bool { return true }); err != nil {
			t.Error(err)
		}
		r.MaxBuildBytes = 1
		if err := r.limitBuilds(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// deployment makes one whose program is this binary.
func deployment(t *testing.T, kind string) dayfly.Deployment {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	id := dayfly.NewID()
	return dayfly.Deployment{
		ID: id, Key: dayfly.DeploymentKey{Project: "p", Service: "s", Version: "c"}, Repo: "r", Commit: "c",
		Definition: &dayfly.Definition{
			Service: "s", Dir: ".", Run: dayfly.Command{exe, asService, kind}, Stop: dayfly.Stop{Grace: dayfly.Duration(10 * time.Second)},
		},
		Variables: map[string]string{"DEPLOYMENT": id, "STARTS": filepath.Join(t.TempDir(), "starts")},
	}
}

func TestTheSuite(t *testing.T) {
	var mu sync.Mutex
	hosts, starts := map[string]string{}, map[string]string{}
	host := func(name string) string {
		mu.Lock()
		defer mu.Unlock()
		return hosts[name]
	}
	runnertest.Run(t, runnertest.Harness{
		New: func(t *testing.T, name string, hooks runner.Hooks) runner.Runner {
			if host(name) == "" {
				dir := folder(t)
				mu.Lock()
				hosts[name] = dir
				mu.Unlock()
			}
			return open(t, host(name), hooks)
		},
		Deployment: func(t *testing.T, kind runnertest.Kind) dayfly.Deployment {
			d := deployment(t, string(kind))
			switch kind {
			case runnertest.Web, runnertest.Stubborn:
				d.Definition.Port = 80
			case runnertest.Job, runnertest.BadJob:
				d.Definition.Job = true
			case runnertest.BadBuild, runnertest.SlowBuild:
				d.Definition.Build = []dayfly.Command{d.Definition.Run}
				d.Definition.Run = append(d.Definition.Run[:2:2], string(runnertest.Worker))
			}
			if kind == runnertest.Stubborn {
				d.Definition.Stop.Grace = dayfly.Duration(100 * time.Millisecond)
			}
			mu.Lock()
			starts[d.ID] = d.Variables["STARTS"]
			mu.Unlock()
			return d
		},
		Crash: func(t *testing.T, _ string, i dayfly.Instance) {
			if err := syscall.Kill(i.PID, syscall.SIGKILL); err != nil {
				t.Errorf("killing %d: %v", i.PID, err)
			}
			// Until it is a zombie of ours or gone, it could still be taken for alive.
			eventually(t, "the process has ended", func() bool { return !runs(i.PID) })
		},
		Left: func(t *testing.T, name, id string) []string {
			found := processes(t, "DEPLOYMENT="+id)
			for _, dir := range []string{"run", "private"} {
				if _, err := os.Stat(filepath.Join(host(name), dir, id)); err == nil {
					found = append(found, dir+"/"+id)
				}
			}
			return found
		},
		Starts: func(t *testing.T, _, id string) int {
			mu.Lock()
			file := starts[id]
			mu.Unlock()
			b, err := os.ReadFile(file)
			if err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
			return bytes.Count(b, []byte("\n"))
		},
	})
}

// processes gives those with a variable.
func processes(t *testing.T, variable string) (found []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		env, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		for _, v := range bytes.Split(env, []byte{0}) {
			if string(v) == variable && runs(pid) {
				found = append(found, "process "+strconv.Itoa(pid))
			}
		}
	}
	return found
}

// runs says whether a process exists and is no zombie.
func runs(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := string(b[bytes.LastIndexByte(b, ')')+1:])
	return strings.Fields(rest)[0] != "Z"
}

// eventually looks again and again, for as long as a slow machine may need.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
