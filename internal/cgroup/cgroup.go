//go:build linux

// Package cgroup holds the processes of an instance together by the kernel's control groups,
// version 2, or 1 where that is what there is: they start within it, whatever they start is in
// it too, they end together, and what they may use is bounded.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits are what all processes of a group may use together; 0 = as much as there is.
type Limits struct {
	Memory int64   // bytes
	CPUs   float64 // 1 = the time of one core
}

// None says whether nothing is bounded.
func (l Limits) None() bool { return l.Memory == 0 && l.CPUs == 0 }

const root = "/sys/fs/cgroup"

// period is the time within which a group has its share of the CPU, in microseconds.
const period = 100_000

// dying is how long processes that were killed may take to leave their group.
const dying = 2 * time.Second

// Groups makes groups below one of its own.
type Groups struct {
	mu   sync.Mutex
	root string // where groups of version 2 are
	v2   bool
	// folders are those of the group that all others lie below: one, or one for each controller
	// of version 1.
	folders []string
	track   int // the folder that every group has; the others are for limits alone
}

// Open finds where groups can be made; nothing is there before the first one is. It fails where
// control groups cannot be written to, as for users other than root.
func Open(name string) (*Groups, error) {
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return open2(root, name)
	}
	g := &Groups{folders: []string{filepath.Join(root, "memory", name), filepath.Join(root, "cpu", name)}}
	for _, dir := range g.folders {
		if err := unix.Access(filepath.Dir(dir), unix.W_OK); err != nil {
			return nil, err
		}
	}
	// What is frozen cannot start others while it is killed.
	if freezer := filepath.Join(root, "freezer", name); unix.Access(filepath.Dir(freezer), unix.W_OK) == nil {
		g.folders, g.track = append(g.folders, freezer), len(g.folders)
	}
	return g, nil
}

// open2 opens groups of version 2, which are mounted at root.
func open2(root, name string) (*Groups, error) {
	if err := unix.Access(root, unix.W_OK); err != nil {
		return nil, err
	}
	return &Groups{v2: true, root: root, folders: []string{filepath.Join(root, name)}}, nil
}

// mkdir makes a folder, unless it is there.
func mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o755); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Make makes a group, or changes the limits of the one that is there.
func (g *Groups) Make(id string, l Limits) error {
	g.mu.Lock() // the group above goes with the last one below it
	defer g.mu.Unlock()
	limited := !l.None()
	for n, dir := range g.folders {
		below := filepath.Join(dir, id)
		if _, err := os.Stat(below); err == nil {
			limited = limited || g.limits(n, id) // it may have had others
			continue
		}
		if n != g.track && l.None() {
			continue
		}
		for _, dir := range []string{dir, below} {
			if err := mkdir(dir); err != nil {
				return err
			}
		}
	}
	if !limited {
		return nil
	}
	if g.v2 {
		// It hangs below the root, where controllers can be given on.
		for _, dir := range []string{g.root, g.folders[0]} {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory +cpu"), 0); err != nil {
				return err
			}
		}
	}
	memory, cpu := "max", "max"
	quota := strconv.FormatInt(int64(l.CPUs*period), 10)
	if !g.v2 {
		memory, cpu = "-1", "-1"
	}
	if l.Memory > 0 {
		memory = strconv.FormatInt(l.Memory, 10)
	}
	if l.CPUs > 0 {
		cpu = quota
	}
	if g.v2 {
		return errors.Join(g.write(0, id, "memory.max", memory), g.write(0, id, "cpu.max", cpu+" "+strconv.Itoa(period)),
			g.optional(0, id, "memory.swap.max", "0"))
	}
	// Memory with swap may never be less than memory alone, also between two writes.
	return errors.Join(g.optional(0, id, "memory.memsw.limit_in_bytes", "-1"), g.write(0, id, "memory.limit_in_bytes", memory),
		g.optional(0, id, "memory.memsw.limit_in_bytes", memory),
		g.write(1, id, "cpu.cfs_period_us", strconv.Itoa(period)), g.write(1, id, "cpu.cfs_quota_us", cpu))
}

// limits says whether the group that is there may have limits.
func (g *Groups) limits(n int, id string) bool {
	if g.v2 {
		_, err := os.Stat(filepath.Join(g.folders[n], id, "memory.max"))
		return err == nil
	}
	return n < 2 // the third is there to freeze
}

func (g *Groups) write(n int, id, file, text string) error {
	return os.WriteFile(filepath.Join(g.folders[n], id, file), []byte(text), 0)
}

// optional writes what not every kernel has.
func (g *Groups) optional(n int, id, file, text string) error {
	if err := g.write(n, id, file, text); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// Start calls start in a way that the process which that forks is in the group from its first
// moment on, and nothing that it starts can get away. start puts what it is given into the
// attributes of the process.
func (g *Groups) Start(id string, start func(into func(*syscall.SysProcAttr)) error) error {
	if g.v2 {
		dir, err := os.Open(filepath.Join(g.folders[0], id))
		if err != nil {
			return err
		}
		defer dir.Close()
		return start(func(attr *syscall.SysProcAttr) { attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd()) })
	}
	failed := make(chan error, 1)
	go func() { failed <- g.enter(id, start) }()
	return <-failed
}

// enter forks from a thread that has entered the groups of version 1 and that ends thereafter:
// in this version threads can be in other groups than their process.
func (g *Groups) enter(id string, start func(into func(*syscall.SysProcAttr)) error) error {
	runtime.LockOSThread() // until it ends with this goroutine
	if unix.Gettid() == os.Getpid() {
		// The first thread of a process cannot end before it.
		defer runtime.UnlockOSThread()
		failed := make(chan error, 1)
		go func() { failed <- g.enter(id, start) }() // by another thread, as this one is taken
		return <-failed
	}
	for n := range g.folders {
		if err := g.optional(n, id, "tasks", "0"); err != nil {
			return err
		}
	}
	return start(func(*syscall.SysProcAttr) {})
}

// Kill kills all processes of a group, also those that have left their session and parents,
// and waits until they have ended.
func (g *Groups) Kill(id string) error {
	if g.v2 {
		// One that is not there has no processes; an older kernel cannot kill all at once.
		if err := g.optional(0, id, "cgroup.kill", "1"); err != nil {
			return err
		}
	}
	pause := 100 * time.Microsecond
	for deadline := time.Now().Add(dying); ; pause = min(2*pause, 20*time.Millisecond) {
		if len(g.processes(id)) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %d of the control group %s do not end", g.processes(id), id)
		}
		g.killOnce(id)
		time.Sleep(pause)
	}
}

// killOnce kills all processes that a group has, which start no others meanwhile.
func (g *Groups) killOnce(id string) {
	freeze := func(string) {}
	if !g.v2 && g.track == 2 {
		freeze = func(state string) { _ = g.optional(g.track, id, "freezer.state", state) } // it is killed all the same
	}
	freeze("FROZEN")
	defer freeze("THAWED")
	for _, pid := range g.processes(id) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is as good
	}
}

// processes gives those of a group and of the groups that they made below it.
func (g *Groups) processes(id string) []int {
	var all []int
	for _, dir := range g.folders {
		for _, group := range below(filepath.Join(dir, id)) {
			b, _ := os.ReadFile(filepath.Join(group, "cgroup.procs")) // one that is gone has none
			for line := range strings.Lines(string(b)) {
				// A thread of ours may be in it for a moment, to start the first process. Others, of
				// another namespace, are shown as 0.
				if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 1 && pid != os.Getpid() && !slices.Contains(all, pid) {
					all = append(all, pid)
				}
			}
		}
	}
	return all
}

// below gives a group's folder and those below it, the deepest first.
func below(dir string) (all []string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return nil // gone meanwhile
	})
	slices.Reverse(all)
	return all
}

// Killed says how many processes of a group were killed because it had used up its memory.
func (g *Groups) Killed(id string) int {
	file := "memory.oom_control"
	if g.v2 {
		file = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(g.folders[0], id, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			killed, _ := strconv.Atoi(strings.TrimSpace(n))
			return killed
		}
	}
	return 0
}

// List gives the groups that are there.
func (g *Groups) List() ([]string, error) {
	var ids []string
	var all error
	for _, dir := range g.folders {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
		for _, e := range entries {
			if e.IsDir() && !slices.Contains(ids, e.Name()) {
				ids = append(ids, e.Name())
			}
		}
	}
	return ids, all
}

// Remove removes a group whose processes have ended or are just ending.
func (g *Groups) Remove(id string) error {
	var all error
	for _, dir := range g.folders {
		var err error
		// A process that was killed leaves its group a moment later.
		for range 50 {
			err = nil
			for _, group := range below(filepath.Join(dir, id)) {
				if e := os.Remove(group); e != nil && !errors.Is(e, fs.ErrNotExist) {
					err = e
				}
			}
			if err == nil {
				break
			}
			time.Sleep(2 * time.Millisecond)
		}
		if err != nil {
			all = errors.Join(all, fmt.Errorf("the control group %s is still in use: %w", id, err))
		}
	}
	g.Close()
	return all
}

// Close removes the group that all others lay below, if none is left in it.
func (g *Groups) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, dir := range g.folders {
		_ = os.Remove(dir) // others are left in it
	}
}
