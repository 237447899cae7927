//go:build linux

// Package local keeps deployments as processes of this host: it builds in checkouts,
// runs commands in them, and finds its processes again after a restart.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/cgroup"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/files"
	"github.com/dayfly-dev/dayfly/internal/logfile"
	"github.com/dayfly-dev/dayfly/internal/runner"
)

// Trees writes the files of a deployment's commit.
type Trees interface {
	// Worktree writes them into the empty folder dst, with a small git repository of
	// their own.
	Worktree(ctx context.Context, d dayfly.Deployment, dst string) error
}

// Config is what a Runner works with.
type Config struct {
	Dir       string // everything of it lies below: builds, run, logs, cache
	ClusterID string
	NodeID    string
	Trees     Trees
	Hooks     runner.Hooks
	MaxBuilds int // at a time
	// BuildTimeout is how long all commands of a build may take together; 0 = any time.
	BuildTimeout time.Duration
	PassEnv      []string // variables of the server that commands see, besides the usual ones
	NoProxy      []string // added to NO_PROXY
	LogMax       int64    // bytes kept on disk of each log
	// MaxBuildBytes and MaxLogBytes bound all builds and all logs together; 0 = no bound.
	MaxBuildBytes, MaxLogBytes int64
	// Memory in bytes and CPUs bound each instance whose definition says nothing; 0 = no bound.
	Memory int64
	CPUs   float64
	// Users that services and builds run as; every one of them must be able to enter Dir.
	Users  Users
	Logger *slog.Logger
}

// Runner implements runner.Runner.
type Runner struct {
	Config
	boot   string
	groups *cgroup.Groups // nil = control groups cannot be used
	builds chan struct{}  // a place for each build at a time

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	all    sync.WaitGroup // every goroutine

	mu       sync.Mutex
	keepers  map[string]*keeper
	building map[string]*build
	first    map[string]chan struct{}          // held by the first build of a project
	watchers map[chan struct{}]map[string]bool // what has changed, for each reader of Changes

	owners   map[string]int // users by owner of deployments, see Users
	lastUser int            // given

	// Of Sweep, which one goroutine calls:
	noticed map[string]time.Time // leftovers
	sizes   map[string]int64     // of builds
}

var _ runner.Runner = (*Runner)(nil)

// New makes a runner, which adopts what an earlier one left running below the same
// folder, and ends processes of this cluster that no record knows.
func New(_ context.Context, config Config) (*Runner, error) {
	if config.MaxBuilds <= 0 {
		config.MaxBuilds = defaultBuilds()
	}
	if config.LogMax == 0 {
		config.LogMax = 16 << 20
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	r := &Runner{Config: config, boot: string(boot[:36]), builds: make(chan struct{}, config.MaxBuilds),
		keepers: map[string]*keeper{}, building: map[string]*build{}, first: map[string]chan struct{}{}, watchers: map[chan struct{}]map[string]bool{},
		owners: map[string]int{}, noticed: map[string]time.Time{}, sizes: map[string]int64{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for _, dir := range []string{"builds", "run", "logs", "cache", "private"} {
		if err := os.MkdirAll(r.path(dir), 0o711); err != nil {
			return nil, err
		}
	}
	if err := r.sweep(); err != nil {
		return nil, err
	}
	// Another node of the cluster may be on this host, and its groups are not ours to end.
	if r.groups, err = cgroup.Open("dayfly-" + config.ClusterID + "-" + config.NodeID); err != nil {
		r.Logger.Debug("control groups cannot be used: memory and CPU of services are not bounded, and their daemons outlive them for a while", "error", err)
		r.groups = nil
	}
	if err := r.adopt(); err != nil {
		r.cancel()
		r.all.Wait()
		return nil, err
	}
	r.all.Go(r.sampleLogs)
	return r, nil
}

func (r *Runner) path(parts ...string) string {
	return filepath.Join(append([]string{r.Dir}, parts...)...)
}

// sweep removes builds and records that a crash left half done.
func (r *Runner) sweep() error {
	var all error
	for _, pattern := range []string{r.path("builds", "*.new-*"), r.path("run", "*", ".new-*")} {
		found, err := filepath.Glob(pattern)
		all = errors.Join(all, err)
		for _, path := range found {
			killBelow(path)
			all = errors.Join(all, files.RemoveAll(path))
		}
	}
	return all
}

// adopt reads the records of an earlier runner and goes on with what they say.
func (r *Runner) adopt() error {
	dirs, err := os.ReadDir(r.path("run"))
	if err != nil {
		return err
	}
	marked := r.marked()
	for _, d := range dirs {
		k, err := r.readKeeper(d.Name())
		if err != nil {
			r.Logger.Error("the record of a deployment cannot be read; it is taken away", "deployment", d.Name(), "error", err)
			if err := os.RemoveAll(r.path("run", d.Name())); err != nil {
				return err
			}
			continue
		}
		r.keepers[d.Name()] = k
		if k.rec.User != 0 {
			r.owners[k.owner] = k.rec.User
			r.lastUser = max(r.lastUser, k.rec.User)
		}
	}
	for _, k := range r.keepers {
		for _, i := range k.instances {
			i.find(marked)
			delete(marked, i.rec.ID)
		}
	}
	for id, pids := range marked {
		for _, pid := range pids {
			r.Logger.Warn("ending a process that no record knows", "pid", pid, "instance", id)
			killGroup(pid)
		}
	}
	for _, k := range r.keepers {
		k.resume()
	}
	return nil
}

// Capabilities implements runner.Runner.
func (r *Runner) Capabilities() runner.Capabilities {
	return runner.Capabilities{Name: "local", Node: true, Drains: true}
}

// keeper gives the keeper of a deployment, made where there is none.
func (r *Runner) keeper(d dayfly.Deployment) (*keeper, error) {
	user, err := r.serviceUser(d.Key.Owner)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return nil, dayfly.Errorf(dayfly.CodeUnavailable, "the runner has been closed")
	}
	k := r.keepers[d.ID]
	if k == nil {
		k = &keeper{r: r, owner: d.Key.Owner, rec: deploymentRecord{Deployment: d, User: user}, instances: map[string]*instance{}}
		if err := k.write(); err != nil {
			return nil, err
		}
		r.keepers[d.ID] = k
	}
	return k, nil
}

// Prepare implements runner.Runner.
func (r *Runner) Prepare(ctx context.Context, d dayfly.Deployment) error {
	if len(d.Definition.Run) == 0 {
		return dayfly.Errorf(dayfly.CodeFailed, "%s has no command for the local runner: add x-dayfly.process.run", d.Key.Service)
	}
	k, err := r.keeper(d)
	if err != nil {
		return err
	}
	return k.prepare(ctx)
}

// Ensure implements runner.Runner.
func (r *Runner) Ensure(_ context.Context, d dayfly.Deployment, n int) error {
	k, err := r.keeper(d)
	if err != nil {
		return err
	}
	return k.ensure(d, n)
}

// Observe implements runner.Runner.
func (r *Runner) Observe(_ context.Context, ids ...string) ([]runner.Observation, error) {
	r.mu.Lock()
	var keepers []*keeper
	if len(ids) == 0 {
		for _, k := range r.keepers {
			keepers = append(keepers, k)
		}
	}
	for _, id := range ids {
		if k := r.keepers[id]; k != nil {
			keepers = append(keepers, k)
		}
	}
	r.mu.Unlock()
	list := make([]runner.Observation, 0, len(keepers))
	for _, k := range keepers {
		list = append(list, k.observe())
	}
	slices.SortFunc(list, func(a, b runner.Observation) int {
		if a.DeploymentID < b.DeploymentID {
			return -1
		}
		return 1
	})
	return list, nil
}

// Changes implements runner.Runner.
func (r *Runner) Changes(ctx context.Context) iter.Seq[string] {
	wake := make(chan struct{}, 1)
	r.mu.Lock()
	r.watchers[wake] = map[string]bool{}
	r.mu.Unlock()
	return func(yield func(string) bool) {
		defer func() {
			r.mu.Lock()
			delete(r.watchers, wake)
			r.mu.Unlock()
		}()
		for {
			r.mu.Lock()
			changed := r.watchers[wake]
			r.watchers[wake] = map[string]bool{}
			r.mu.Unlock()
			for id := range changed {
				if !yield(id) {
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-r.ctx.Done():
				return
			case <-wake:
			}
		}
	}
}

// changed tells the readers of Changes.
func (r *Runner) changed(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for wake, ids := range r.watchers {
		ids[id] = true
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// Remove implements runner.Runner.
func (r *Runner) Remove(ctx context.Context, id string) error {
	r.mu.Lock()
	k := r.keepers[id]
	r.mu.Unlock()
	if k != nil {
		if err := k.remove(ctx); err != nil {
			return err
		}
		r.mu.Lock()
		delete(r.keepers, id)
		r.forgetUser(k.owner)
		r.mu.Unlock()
	}
	crash.Point("before deleting a deployment's folders")
	err := errors.Join(os.RemoveAll(r.path("run", id)), files.RemoveAll(r.path("private", id)))
	crash.Point("after deleting a deployment's folders")
	r.changed(id)
	return err
}

// Logs implements runner.Runner.
func (r *Runner) Logs(ctx context.Context, id string, o runner.LogOptions) iter.Seq2[dayfly.LogLine, error] {
	return func(yield func(dayfly.LogLine, error) bool) {
		service := r.service(id)
		for _, source := range []string{"build", "run"} {
			after, known := o.After[source]
			if _, run := o.After["run"]; run && !known {
				continue // it has been read: what was run comes behind it
			}
			options := logfile.Options{After: after, Since: o.Since, Tail: o.Tail, Follow: o.Follow, Done: func() bool { return r.finished(id, source) }}
			for line, err := range logfile.Read(ctx, r.path("logs", id, source+".log"), options) {
				if !yield(dayfly.LogLine{Time: line.Time, Service: service, Source: source, Line: line.Text,
					Next: dayfly.LogPosition{Deployment: id, Source: source, Offset: line.Next}}, err) || err != nil {
					return
				}
			}
		}
	}
}

// service gives the name of a deployment's service, also when the deployment is gone.
func (r *Runner) service(id string) string {
	name, err := os.ReadFile(r.path("logs", id, "service"))
	if err != nil {
		return ""
	}
	return string(name)
}

// finished says whether nothing more will be written to a log.
func (r *Runner) finished(id, source string) bool {
	r.mu.Lock()
	k := r.keepers[id]
	r.mu.Unlock()
	return k == nil || source == "build" && k.prepared()
}

// PruneLogs implements runner.Runner.
func (r *Runner) PruneLogs(_ context.Context, id string) error {
	crash.Point("before deleting a deployment's logs")
	defer crash.Point("after deleting a deployment's logs")
	return os.RemoveAll(r.path("logs", id))
}

// sampleLogs notes the times of lines and bounds the logs, once a second.
func (r *Runner) sampleLogs() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	// Most logs have nothing new; what there is to know of those is one stat.
	type state struct {
		size    int64
		changed time.Time
	}
	known := map[string]state{}
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
		before := known
		known = make(map[string]state, len(before))
		r.mu.Lock()
		ids := make([]string, 0, len(r.keepers))
		for id := range r.keepers {
			ids = append(ids, id)
		}
		r.mu.Unlock()
		for _, id := range ids {
			for _, source := range []string{"build", "run"} {
				path := r.path("logs", id, source+".log")
				info, err := os.Stat(path)
				if err != nil {
					continue // not there yet, or removed meanwhile
				}
				now := state{info.Size(), info.ModTime()}
				if was, ok := before[path]; !ok || was != now {
					if err := logfile.Sample(path, r.LogMax); err != nil {
						r.Logger.Warn("a log cannot be bounded", "deployment", id, "error", err)
						continue
					}
				}
				known[path] = now
			}
		}
	}
}

// Close implements runner.Runner.
func (r *Runner) Close() error {
	r.cancel()
	r.all.Wait()
	if r.groups != nil {
		r.groups.Close()
	}
	return nil
}

// writeJSON replaces a file so that a crash leaves the old or the new one.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if crash.Enabled {
		what := "a deployment's file"
		if strings.HasPrefix(filepath.Base(path), "i-") {
			what = "an instance's file"
		}
		crash.Point("before writing " + what)
		defer crash.Point("after writing " + what)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	// Not synced: a power cut ends the processes, too, and what a torn or an old record
	// says is checked against the process it names.
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	crash.Point("before renaming a file")
	return os.Rename(f.Name(), path)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
