//go:build linux

// Package cgroup bounds what the processes of an instance may use, by the kernel's control
// groups: version 2, or 1 where that is what there is.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
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

// Groups makes groups below one of its own.
type Groups struct {
	mu      sync.Mutex
	v2      bool
	folders []string // of the group that all others lie below: one, or one for each controller of version 1
}

// Open finds where groups can be made; nothing is there before the first one is. It fails where
// control groups cannot be written to, as for users other than root.
func Open(name string) (*Groups, error) {
	g := &Groups{folders: []string{filepath.Join(root, "memory", name), filepath.Join(root, "cpu", name)}}
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		g.v2, g.folders = true, []string{filepath.Join(root, name)}
	}
	for _, dir := range g.folders {
		if err := unix.Access(filepath.Dir(dir), unix.W_OK); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// begin makes the group that all others lie below.
func (g *Groups) begin() error {
	if g.v2 {
		// It hangs below the root, where controllers can be given on.
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory +cpu"), 0); err != nil {
			return err
		}
	}
	for _, dir := range g.folders {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if g.v2 {
		return os.WriteFile(filepath.Join(g.folders[0], "cgroup.subtree_control"), []byte("+memory +cpu"), 0)
	}
	return nil
}

// Make makes a group, or changes the limits of the one that is there.
func (g *Groups) Make(id string, l Limits) error {
	g.mu.Lock() // the group above goes with the last one below it
	defer g.mu.Unlock()
	if err := g.begin(); err != nil {
		return err
	}
	for _, dir := range g.folders {
		if err := os.Mkdir(filepath.Join(dir, id), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
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

// Add puts a process into a group; what it starts from then on is in it, too.
func (g *Groups) Add(id string, pid int) error {
	for n := range g.folders {
		if err := g.write(n, id, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
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
	entries, err := os.ReadDir(g.folders[0])
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, err
}

// Remove removes a group whose processes have ended or are just ending.
func (g *Groups) Remove(id string) error {
	var all error
	for _, dir := range g.folders {
		var err error
		// A process that was killed leaves its group a moment later.
		for range 50 {
			err = os.Remove(filepath.Join(dir, id))
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				err = nil
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
