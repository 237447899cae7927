//go:build linux

package local

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/runner"
)

// stray starts a process that carries the marks of an instance.
func stray(t *testing.T, variables ...string) int {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, asService, "worker")
	cmd.Env = variables
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func TestSweepTakesAwayWhatBelongsToNothingOnceTheGraceIsOver(t *testing.T) {
	dir := folder(t)
	r := open(t, dir, runner.Hooks{})
	defer r.Close()
	d := deployment(t, "worker")
	i := start(t, r, d)

	mark := func(cluster, dir, instance string) []string {
		return []string{"DAYFLY_CLUSTER=" + cluster, "DAYFLY_DIR=" + dir + "/private/x/y/data", "DAYFLY_INSTANCE=" + instance}
	}
	orphan := stray(t, mark(r.ClusterID, dir, "unknown")...)
	foreign := []int{stray(t, mark("another", dir, "unknown")...), stray(t, mark(r.ClusterID, t.TempDir(), "unknown")...)}
	helper := stray(t, mark(r.ClusterID, dir, i.ID)...) // a daemon of a service that runs
	for _, name := range []string{"private/gone/i/data", "private/" + d.ID + "/gone", "logs/gone", "logs/kept", "builds/abc.new-1"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	known := func(id string) bool { return id == "kept" }

	var names []string
	found, err := r.Sweep(t.Context(), time.Hour, known)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range found {
		rel, err := filepath.Rel(dir, l.Name)
		if err != nil {
			rel = "process"
		}
		names = append(names, l.Kind+" "+rel)
		if l.Since.IsZero() || l.Since.After(time.Now()) {
			t.Errorf("%s was noticed %s", l.Name, l.Since)
		}
	}
	want := []string{"folder builds/abc.new-1", "folder private/gone", "folder private/" + d.ID + "/gone", "logs logs/gone", "process process"}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("noticed %q, want %q", names, want)
	}
	if !runs(orphan) {
		t.Error("the orphan went before its grace was over")
	}

	found, err = r.Sweep(t.Context(), 0, known)
	if err != nil || len(found) != 0 {
		t.Errorf("left %v, %v", found, err)
	}
	eventually(t, "the orphan is gone", func() bool { return !runs(orphan) })
	for _, pid := range append(foreign, helper, i.PID) {
		if !runs(pid) {
			t.Errorf("process %d was none of its business", pid)
		}
	}
	for name, there := range map[string]bool{
		"private/gone": false, "private/" + d.ID + "/gone": false, "logs/gone": false, "builds/abc.new-1": false,
		"logs/kept": true, "logs/" + d.ID: true, "private/" + d.ID + "/" + i.ID: true, "builds/" + buildKey(d): true,
	} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != there {
			t.Errorf("%s: %v, want it there: %v", name, err, there)
		}
	}
	if now := healthy(t, r, d); now.PID != i.PID {
		t.Errorf("what is wanted was restarted")
	}
}

// What is started while the host is looked at may be seen half: that is no leftover.
func TestSweepTakesNothingAwayThatIsJustBeingStarted(t *testing.T) {
	dir := folder(t)
	r := open(t, dir, runner.Hooks{})
	defer r.Close()
	if r.groups == nil {
		t.Skip("there are no control groups here")
	}
	if err := os.MkdirAll(filepath.Join(dir, "logs/kept"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := deployment(t, "worker")
	var begun dayfly.Instance
	left, err := r.Sweep(t.Context(), 0, func(string) bool { // asked in the middle
		begun = start(t, r, d)
		return true
	})
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left, and %v", left, err)
	}
	if groups, err := r.groups.List(); err != nil || !slices.Equal(groups, []string{begun.ID}) {
		t.Errorf("instance %q has the control groups %q, and %v", begun.ID, groups, err)
	}
}

func TestSweepKeepsBuildsAndLogsWithinTheirBounds(t *testing.T) {
	dir := folder(t)
	r := open(t, dir, runner.Hooks{})
	defer r.Close()
	build := func(commit string) dayfly.Deployment {
		d := deployment(t, "worker")
		d.Commit = commit
		d.Definition.Build = []dayfly.Command{{"head", "-c", "300000", "/dev/zero"}}
		if err := r.Prepare(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	age := func(hours int, names ...string) {
		for _, name := range names {
			at := time.Now().Add(-time.Duration(hours) * time.Hour)
			if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	used, old, older := build("used"), build("old"), build("older")
	for _, d := range []dayfly.Deployment{old, older} {
		if err := r.Remove(t.Context(), d.ID); err != nil {
			t.Fatal(err)
		}
	}
	age(3, "builds/"+buildKey(used), "logs/"+used.ID)
	age(2, "builds/"+buildKey(older), "logs/"+older.ID)
	age(1, "builds/"+buildKey(old), "logs/"+old.ID)
	there := func(names ...string) (found []bool) {
		for _, name := range names {
			_, err := os.Stat(filepath.Join(dir, name))
			found = append(found, err == nil)
		}
		return found
	}
	all := []string{"builds/" + buildKey(used), "builds/" + buildKey(old), "builds/" + buildKey(older), "logs/" + used.ID, "logs/" + old.ID, "logs/" + older.ID}
	everyone := func(string) bool { return true }

	unused := func() (names []string) {
		t.Helper()
		list, err := r.Unused(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range list {
			info, err := os.Stat(u.Name)
			if err != nil || u.Kind != "build" || u.Since == nil || !u.Since.Equal(info.ModTime()) || u.At != nil || u.Bytes <= 0 {
				t.Errorf("%v: %+v", err, u)
			}
			names = append(names, filepath.Base(u.Name))
		}
		if len(list) > 0 && !strings.Contains(list[0].How, map[bool]string{false: "no bound", true: "larger than 1.0 GiB"}[r.MaxBuildBytes > 0]) {
			t.Errorf("it says %q", list[0].How)
		}
		slices.Sort(names)
		return names
	}
	both := []string{buildKey(old), buildKey(older)}
	slices.Sort(both)
	if got := unused(); !slices.Equal(got, both) {
		t.Errorf("unused are %v, want %v", got, both)
	}
	r.MaxBuildBytes, r.MaxLogBytes = 1<<30, 1<<30
	if got := unused(); !slices.Equal(got, both) {
		t.Errorf("unused are %v, want %v", got, both)
	}
	if _, err := r.Sweep(t.Context(), 0, everyone); err != nil {
		t.Fatal(err)
	}
	if got := there(all...); slices.Contains(got, false) {
		t.Errorf("within the bounds something was deleted: %v", got)
	}
	const itself = 4096 // of the folder
	r.MaxBuildBytes, r.MaxLogBytes = r.size(filepath.Join(dir, "builds"))-itself-1, r.size(filepath.Join(dir, "logs"))-itself-1
	if _, err := r.Sweep(t.Context(), 0, everyone); err != nil {
		t.Fatal(err)
	}
	if got, want := there(all...), []bool{true, true, false, true, true, false}; !slices.Equal(got, want) {
		t.Errorf("a little over the bounds: %v, want %v", got, want)
	}
	r.MaxBuildBytes, r.MaxLogBytes = 1, 1
	if _, err := r.Sweep(t.Context(), 0, everyone); err != nil {
		t.Fatal(err)
	}
	if got, want := there(all...), []bool{true, false, false, true, false, false}; !slices.Equal(got, want) {
		t.Errorf("far over the bounds, what is used stays: %v, want %v", got, want)
	}
}
