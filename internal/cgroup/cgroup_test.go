//go:build linux

package cgroup

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		act(os.Args[1], os.Args[2:])
		return
	}
	goleak.VerifyTestMain(m)
}

// act is what the processes of the tests do.
func act(what string, args []string) {
	var end [1]byte
	switch what {
	case "use-memory":
		n, err := strconv.Atoi(args[0])
		if err != nil {
			panic(err)
		}
		b := make([]byte, n)
		for n := 0; n < len(b); n += 4096 {
			b[n] = 1
		}
	case "family": // each starts the next one, and all but the first stay
		n, err := strconv.Atoi(args[0])
		if err != nil {
			panic(err)
		}
		if n > 0 {
			daemon("family-member", strconv.Itoa(n-1), args[1])
		}
	case "family-member":
		note(args[1])
		act("family", args)
		_ = syscall.Pause()
	case "chain": // each starts the next one and ends
		note(args[0])
		daemon("chain", args[0])
	case "wait":
		_, _ = os.Stdin.Read(end[:])
	default:
		panic(what)
	}
}

// daemon starts this binary in a session of its own and without a parent that waits for it.
func daemon(args ...string) {
	_, err := os.StartProcess("/proc/self/exe", append([]string{"daemon"}, args...), &os.ProcAttr{Env: []string{}, Dir: "/", Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		panic(err)
	}
}

// note adds this process to a file.
func note(file string) {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	_, err = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		panic(err)
	}
}

func open(t *testing.T) *Groups {
	t.Helper()
	g, err := Open("dayfly-test-" + strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Skipf("control groups cannot be written to: %v", err)
	}
	t.Cleanup(g.Close)
	return g
}

// run starts this binary within a group; what is put into the pipe reaches its input.
func run(t *testing.T, g *Groups, id string, args ...string) (cmd *exec.Cmd, in *os.File) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd = exec.CommandContext(t.Context(), exe, args...)
	cmd.Stdin, cmd.Stderr = r, t.Output()
	err = g.Start(id, func(into func(*syscall.SysProcAttr)) error {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
		into(cmd.SysProcAttr)
		return cmd.Start()
	})
	if err != nil {
		t.Fatal(err)
	}
	return cmd, w
}

// use starts a process in a group that uses memory, and gives how it ended.
func use(t *testing.T, g *Groups, id string, bytes int) *os.ProcessState {
	t.Helper()
	cmd, in := run(t, g, id, "use-memory", strconv.Itoa(bytes))
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return cmd.ProcessState
}

// versions gives groups of each version that this host has.
func versions(t *testing.T) map[string]*Groups {
	t.Helper()
	all := map[string]*Groups{"": open(t)}
	if unified := filepath.Join(root, "unified"); !all[""].v2 {
		// Without controllers, which version 1 has taken.
		if g, err := open2(unified, filepath.Base(all[""].folders[0])); err == nil {
			all["version 2"] = g
			t.Cleanup(g.Close)
		}
	}
	return all
}

func TestAllThatAProcessEverStartedEndsWithItsGroup(t *testing.T) {
	for name, g := range versions(t) {
		t.Run(name, func(t *testing.T) {
			if err := g.Make("a", Limits{}); err != nil {
				t.Fatal(err)
			}
			if err := g.Make("other", Limits{}); err != nil {
				t.Fatal(err)
			}
			bystander, in := run(t, g, "other", "wait")
			defer in.Close()
			// Each of them leaves its session and parent at once, the first before anybody could put
			// its parent into a group.
			const depth = 5
			pids := filepath.Join(t.TempDir(), "pids")
			family, in := run(t, g, "a", "family", strconv.Itoa(depth), pids)
			defer in.Close()
			if err := family.Wait(); err != nil {
				t.Fatal(err)
			}
			var all []int
			eventually(t, "all daemons are there", func() bool {
				all = nil
				b, _ := os.ReadFile(pids)
				for line := range strings.Lines(string(b)) {
					pid, err := strconv.Atoi(strings.TrimSpace(line))
					if err != nil {
						return false
					}
					all = append(all, pid)
				}
				return len(all) == depth
			})
			if err := g.Remove("a"); err == nil {
				t.Error("a group that is in use was removed")
			}
			if err := g.Kill("a"); err != nil {
				t.Fatal(err)
			}
			for _, pid := range all {
				if state := state(pid); state != "" && state != "Z" {
					t.Errorf("%d is left in state %s", pid, state)
				}
			}
			if state(bystander.Process.Pid) == "" {
				t.Error("another group was killed with it")
			}
			if err := errors.Join(g.Remove("a"), g.Kill("other"), g.Kill("never was"), bystander.Wait()); err == nil || err.Error() != "signal: killed" {
				t.Error(err)
			}
			if err := g.Remove("other"); err != nil {
				t.Error(err)
			}
			for _, dir := range g.folders {
				if _, err := os.Stat(dir); !os.IsNotExist(err) {
					t.Errorf("%s is left: %v", dir, err)
				}
			}
		})
	}
}

func TestOneThatStartsOthersWithoutEndIsKilledAllTheSame(t *testing.T) {
	for name, g := range versions(t) {
		t.Run(name, func(t *testing.T) {
			if err := g.Make("bomb", Limits{}); err != nil {
				t.Fatal(err)
			}
			pids := filepath.Join(t.TempDir(), "pids")
			cmd, in := run(t, g, "bomb", "chain", pids)
			defer in.Close()
			_ = cmd.Wait()
			eventually(t, "it has started some", func() bool {
				info, err := os.Stat(pids)
				return err == nil && info.Size() > 20
			})
			if err := errors.Join(g.Kill("bomb"), g.Remove("bomb")); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(pids)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(b)) {
				pid, err := strconv.Atoi(strings.TrimSpace(line))
				if state := state(pid); err == nil && state != "" && state != "Z" {
					t.Errorf("%d is left", pid)
				}
			}
		})
	}
}

func TestGroupsThatAServiceMadeItselfGoWithIts(t *testing.T) {
	for name, g := range versions(t) {
		t.Run(name, func(t *testing.T) {
			if err := g.Make("a", Limits{}); err != nil {
				t.Fatal(err)
			}
			cmd, in := run(t, g, "a", "wait")
			defer in.Close()
			own := filepath.Join(g.folders[g.track], "a", "own")
			if err := os.Mkdir(own, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(g.Kill("a"), g.Remove("a")); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
				t.Error(err)
			}
		})
	}
}

func TestAGroupWithoutLimitsCanHaveSomeLater(t *testing.T) {
	g := open(t)
	if err := errors.Join(g.Make("a", Limits{}), g.Make("a", Limits{Memory: 64 << 20})); err != nil {
		t.Fatal(err)
	}
	if state := use(t, g, "a", 256<<20); state.Success() || g.Killed("a") != 1 {
		t.Errorf("beyond its limit: %v, %d killed", state, g.Killed("a"))
	}
	if err := g.Remove("a"); err != nil {
		t.Error(err)
	}
}

// eventually looks again and again, for as long as a slow machine may need.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// state is how a process is, as Z for one that has ended; "" = there is none.
func state(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))[0]
}

func TestAGroupUsesNoMoreMemoryThanItMay(t *testing.T) {
	g := open(t)
	if err := g.Make("a", Limits{Memory: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	if state := use(t, g, "a", 16<<20); !state.Success() || g.Killed("a") != 0 {
		t.Errorf("within its limit: %v, %d killed", state, g.Killed("a"))
	}
	if state := use(t, g, "a", 256<<20); state.Success() || g.Killed("a") != 1 {
		t.Errorf("beyond its limit: %v, %d killed", state, g.Killed("a"))
	}
	// A limit that is taken back bounds no longer.
	if err := g.Make("a", Limits{}); err != nil {
		t.Fatal(err)
	}
	if state := use(t, g, "a", 256<<20); !state.Success() {
		t.Errorf("without a limit: %v", state)
	}
	if err := g.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove("a"); err != nil {
		t.Errorf("twice: %v", err)
	}
	if ids, err := g.List(); err != nil || len(ids) > 0 {
		t.Errorf("left: %v, %v", ids, err)
	}
	for _, dir := range g.folders {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}

func TestAGroupHasItsShareOfTheCPU(t *testing.T) {
	g := open(t)
	if err := g.Make("b", Limits{CPUs: 0.25}); err != nil {
		t.Fatal(err)
	}
	var quota bytes.Buffer
	for _, file := range []string{"cpu.max", "cpu.cfs_quota_us"} {
		for _, dir := range g.folders {
			if b, err := os.ReadFile(dir + "/b/" + file); err == nil {
				quota.Write(b)
			}
		}
	}
	if !slices.Contains(strings.Fields(quota.String()), "25000") {
		t.Errorf("a quarter of a core is %q", quota.String())
	}
	cmd, in := run(t, g, "b", "wait")
	defer in.Close()
	if ids, err := g.List(); err != nil || !slices.Equal(ids, []string{"b"}) {
		t.Errorf("there is %v, %v", ids, err)
	}
	// A group with a process in it stays, and goes once the process has ended.
	if err := g.Remove("b"); err == nil {
		t.Error("removed with a process in it")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, "it goes", func() bool { return g.Remove("b") == nil })
}

// BenchmarkStart tells what a group of its own adds to the start and the end of a process.
func BenchmarkStart(b *testing.B) {
	g, err := Open("dayfly-bench-" + strconv.Itoa(os.Getpid()))
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(g.Close)
	process := func(into func(*syscall.SysProcAttr)) error {
		cmd := exec.CommandContext(b.Context(), "true")
		cmd.SysProcAttr = &syscall.SysProcAttr{}
		if into != nil {
			into(cmd.SysProcAttr)
		}
		return cmd.Run()
	}
	b.Run("without", func(b *testing.B) {
		for b.Loop() {
			if err := process(nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, l := range map[string]Limits{"within": {}, "limited": {Memory: 1 << 30, CPUs: 1}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				err := errors.Join(g.Make("a", l), g.Start("a", process), g.Kill("a"), g.Remove("a"))
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
