//go:build linux

package cgroup

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "use-memory" {
		bytes, err := strconv.Atoi(os.Args[2])
		if err != nil {
			panic(err)
		}
		var go1 [1]byte
		_, _ = os.Stdin.Read(go1[:]) // until it is in its group
		b := make([]byte, bytes)
		for n := 0; n < len(b); n += 4096 {
			b[n] = 1
		}
		os.Exit(int(b[0]) - 1)
	}
	os.Exit(m.Run())
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

// use starts a process in a group that uses memory, and gives how it ended.
func use(t *testing.T, g *Groups, id string, bytes int) *os.ProcessState {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "use-memory", strconv.Itoa(bytes))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(id, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return cmd.ProcessState
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
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add("b", cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
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
	for deadline := time.Now().Add(10 * time.Second); g.Remove("b") != nil; {
		if time.Now().After(deadline) {
			t.Fatal("it stays")
		}
	}
}
