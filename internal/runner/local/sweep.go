//go:build linux

package local

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/files"
)

// Sweep takes away what belongs to this cluster and folder and to no deployment: processes,
// folders, logs that known (by the id of their deployment) says nobody keeps. Each goes when
// it has been noticed for as long as grace; what is noticed and still there is returned. Then it
// deletes the builds that were not used for the longest time, and the oldest logs of what is
// gone, for as long as there is more of them than Config allows.
func (r *Runner) Sweep(ctx context.Context, grace time.Duration, known func(deploymentID string) bool) ([]dayfly.Leftover, error) {
	found, err := r.leftovers(known)
	if err != nil {
		return nil, err
	}
	var all error
	var left []dayfly.Leftover
	noticed := map[string]time.Time{}
	for _, l := range found {
		key := l.Kind + " " + l.Name
		l.Since = now()
		if since, ok := r.noticed[key]; ok {
			l.Since = since
		}
		if now().Sub(l.Since) >= grace && ctx.Err() == nil {
			r.Logger.Warn("taking away what belongs to nothing", "kind", l.Kind, "name", l.Name)
			if err := r.takeAway(l); err == nil {
				continue
			} else { //nolint:revive // the other way round would hide the error's scope
				all = errors.Join(all, err)
			}
		}
		noticed[key] = l.Since
		left = append(left, l)
	}
	r.noticed = noticed
	return left, errors.Join(all, r.limitBuilds(), r.limitLogs())
}

// leftovers lists what belongs to no deployment.
func (r *Runner) leftovers(known func(string) bool) ([]dayfly.Leftover, error) {
	// Looked at before the records: what comes into being now has its record first.
	marked := r.marked()
	var all error
	list := func(parts ...string) []string {
		entries, err := os.ReadDir(r.path(parts...))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	var groups []string
	if r.groups != nil {
		var err error
		groups, err = r.groups.List()
		all = errors.Join(all, err)
	}
	private, logs, builds := map[string][]string{}, list("logs"), list("builds")
	for _, id := range list("private") {
		private[id] = list("private", id)
	}
	instances := r.known()

	var found []dayfly.Leftover
	add := func(kind, name string) { found = append(found, dayfly.Leftover{Kind: kind, Name: name}) }
	for instance, pids := range marked {
		if !slices.ContainsFunc(flat(instances), func(id string) bool { return id == instance }) {
			for _, pid := range pids {
				add("process", strconv.Itoa(pid))
			}
		}
	}
	for id, own := range private {
		there, ok := instances[id]
		if !ok {
			add("folder", r.path("private", id))
			continue
		}
		for _, instance := range own {
			if !slices.Contains(there, instance) {
				add("folder", r.path("private", id, instance))
			}
		}
	}
	for _, id := range logs {
		if _, ok := instances[id]; !ok && !known(id) {
			add("logs", r.path("logs", id))
		}
	}
	for _, id := range groups {
		if !slices.Contains(flat(instances), id) {
			add("control group", id)
		}
	}
	r.mu.Lock()
	for _, name := range builds {
		if key, _, half := strings.Cut(name, ".new-"); half && r.building[key] == nil {
			add("folder", r.path("builds", name))
		}
	}
	r.mu.Unlock()
	slices.SortFunc(found, func(a, b dayfly.Leftover) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	})
	return found, all
}

// known gives the instances of every deployment.
func (r *Runner) known() map[string][]string {
	r.mu.Lock()
	keepers := make(map[string]*keeper, len(r.keepers))
	for id, k := range r.keepers {
		keepers[id] = k
	}
	r.mu.Unlock()
	all := map[string][]string{}
	for id, k := range keepers {
		k.mu.Lock()
		all[id] = []string{}
		for instance := range k.instances {
			all[id] = append(all[id], instance)
		}
		k.mu.Unlock()
	}
	return all
}

func flat(instances map[string][]string) (all []string) {
	for _, ids := range instances {
		all = append(all, ids...)
	}
	return all
}

func (r *Runner) takeAway(l dayfly.Leftover) error {
	crash.Point("before taking away a leftover")
	defer crash.Point("after taking away a leftover")
	switch l.Kind {
	case "control group":
		return errors.Join(r.groups.Kill(l.Name), r.groups.Remove(l.Name))
	case "process":
	default:
		return files.RemoveAll(l.Name)
	}
	pid, err := strconv.Atoi(l.Name)
	if err != nil {
		return err
	}
	killGroup(pid)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// limitBuilds deletes the builds that nobody uses and that were not used for the longest
// time, until all are smaller than MaxBuildBytes.
func (r *Runner) limitBuilds() error {
	if r.MaxBuildBytes <= 0 {
		return nil
	}
	used := r.usedBuilds()
	return r.limit(r.path("builds"), r.MaxBuildBytes, func(name string) bool { return used[name] || strings.Contains(name, ".new-") })
}

// limitLogs deletes the oldest logs of deployments that are gone, until all are smaller than
// MaxLogBytes.
func (r *Runner) limitLogs() error {
	if r.MaxLogBytes <= 0 {
		return nil
	}
	there := r.known()
	return r.limit(r.path("logs"), r.MaxLogBytes, func(id string) bool { _, ok := there[id]; return ok })
}

// limit deletes folders, the least recently changed first, until all are smaller than a
// number of bytes; those in use count and stay.
func (r *Runner) limit(dir string, most int64, used func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	type folder struct {
		path    string
		size    int64
		changed time.Time
	}
	var free []folder
	var total int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // gone meanwhile
		}
		f := folder{filepath.Join(dir, e.Name()), 0, info.ModTime()}
		f.size = r.size(f.path)
		total += f.size
		if !used(e.Name()) {
			free = append(free, f)
		}
	}
	slices.SortFunc(free, func(a, b folder) int { return a.changed.Compare(b.changed) })
	for _, f := range free {
		if total <= most {
			break
		}
		r.Logger.Info("deleting what was not used for the longest time, to keep within the limit", "folder", f.path, "bytes", f.size)
		if err := files.RemoveAll(f.path); err != nil {
			return err
		}
		total -= f.size
	}
	return nil
}

// size gives the bytes on disk of a folder. That of a build, which does not change, is
// measured once.
func (r *Runner) size(dir string) (bytes int64) {
	build := filepath.Dir(dir) == r.path("builds")
	if build {
		r.mu.Lock()
		known, ok := r.sizes[dir]
		r.mu.Unlock()
		if ok {
			return known
		}
	}
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it changes while it is looked at
		}
		if info, err := d.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				bytes += stat.Blocks * 512
			}
		}
		return nil
	})
	if build {
		r.mu.Lock()
		r.sizes[dir] = bytes
		r.mu.Unlock()
	}
	return bytes
}
