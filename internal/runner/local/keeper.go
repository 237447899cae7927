//go:build linux

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/logfile"
	"github.com/dayfly-dev/dayfly/internal/runner"
)

const (
	// tailLines is how many lines of a log explain a failure.
	tailLines = 20
	// tailWidth is how many bytes of each. The lines become part of records of the state, which
	// does not take large ones.
	tailWidth = 1000
)

// deploymentRecord is what is kept of a deployment on disk.
type deploymentRecord struct {
	Deployment dayfly.Deployment `json:"deployment"`
	User       int               `json:"user,omitempty"` // that its services run as; 0 = the server's own
	Replicas   int               `json:"replicas"`
	Build      string            `json:"build,omitempty"` // name of the build that is ready
	Failure    string            `json:"failure,omitempty"`
	LogTail    []string          `json:"log_tail,omitempty"`
}

// keeper keeps one deployment.
type keeper struct {
	r     *Runner
	owner string // of the deployment; it never changes, and is read without mu

	mu        sync.Mutex
	rec       deploymentRecord
	preparing int
	removing  bool
	instances map[string]*instance
}

func (r *Runner) readKeeper(id string) (*keeper, error) {
	k := &keeper{r: r, instances: map[string]*instance{}}
	if err := readJSON(r.path("run", id, "deployment.json"), &k.rec); err != nil {
		return nil, err
	}
	k.owner = k.rec.Deployment.Key.Owner
	files, err := filepath.Glob(r.path("run", id, "i-*.json"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		i := newInstance(k)
		if err := readJSON(file, &i.rec); err != nil {
			return nil, err
		}
		k.instances[i.rec.ID] = i
	}
	return k, nil
}

// write saves the record; k.mu is held, or k is not shared yet.
func (k *keeper) write() error {
	dir := k.r.path("run", k.rec.Deployment.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	logs := k.r.path("logs", k.rec.Deployment.ID)
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(logs, "service"), []byte(k.rec.Deployment.Key.Service), 0o644),
		writeJSON(filepath.Join(dir, "deployment.json"), k.rec))
}

// resume goes on with the instances of an earlier runner, and adds those that are missing.
func (k *keeper) resume() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, i := range k.instances {
		i.begin(true)
	}
	k.fill()
}

func (k *keeper) key() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rec.Build
}

func (k *keeper) prepared() bool { return k.key() != "" }

// prepare builds, and remembers how that went.
func (k *keeper) prepare(ctx context.Context) error {
	k.mu.Lock()
	d := k.rec.Deployment
	if build := k.rec.Build; build != "" {
		if _, err := os.Stat(k.r.path("builds", build)); err == nil {
			k.mu.Unlock()
			return nil
		}
		k.rec.Build = ""
	}
	k.preparing++
	k.rec.Failure, k.rec.LogTail = "", nil
	k.mu.Unlock()
	k.r.changed(d.ID)

	key, err := k.r.build(ctx, d)

	k.mu.Lock()
	k.preparing--
	switch {
	case err == nil:
		k.rec.Build = key
	case dayfly.ErrorCode(err) == dayfly.CodeFailed:
		k.rec.Failure = err.Error()
		k.rec.LogTail = k.r.tail(d.ID, "build")
	}
	if !k.removing {
		err = errors.Join(err, k.write())
	}
	k.mu.Unlock()
	k.r.changed(d.ID)
	return err
}

// ensure takes in how many instances are wanted.
func (k *keeper) ensure(d dayfly.Deployment, n int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.removing {
		return dayfly.Errorf(dayfly.CodeConflict, "deployment %s is being removed", d.ID)
	}
	k.rec.Deployment, k.rec.Replicas = d, n
	if err := k.write(); err != nil {
		return err
	}
	k.fill()
	k.r.changed(d.ID)
	return nil
}

// fill starts what is missing and stops what is too much; k.mu is held.
func (k *keeper) fill() {
	if k.rec.Build == "" || k.removing || k.r.ctx.Err() != nil {
		return
	}
	var running []*instance
	for _, i := range k.instances {
		if !i.stopping() {
			running = append(running, i)
		}
	}
	slices.SortFunc(running, func(a, b *instance) int { return a.rec.CreatedAt.Compare(b.rec.CreatedAt) })
	for n := len(running); n < k.rec.Replicas; n++ {
		i := newInstance(k)
		i.rec.ID, i.rec.CreatedAt = dayfly.NewID(), now()
		k.instances[i.rec.ID] = i
		i.begin(false)
	}
	for n := len(running) - 1; n >= k.rec.Replicas; n-- {
		running[n].end()
	}
}

// gone forgets an instance that has been stopped.
func (k *keeper) gone(i *instance) {
	k.mu.Lock()
	delete(k.instances, i.rec.ID)
	k.mu.Unlock()
	k.r.changed(k.id())
}

func (k *keeper) id() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rec.Deployment.ID
}

// remove stops all instances and waits until they are gone.
func (k *keeper) remove(ctx context.Context) error {
	k.mu.Lock()
	k.removing = true
	// Whoever comes after a crash must not start again what has ended by then.
	last := k.rec
	last.Replicas = 0
	err := writeJSON(k.r.path("run", k.rec.Deployment.ID, "deployment.json"), last)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOSPC) { // it may be what fills the disk
		k.mu.Unlock()
		return err
	}
	var all []*instance
	for _, i := range k.instances {
		i.end()
		all = append(all, i)
	}
	k.mu.Unlock()
	for _, i := range all {
		select {
		case <-i.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if k.r.ctx.Err() != nil {
		return dayfly.Errorf(dayfly.CodeUnavailable, "the runner has been closed")
	}
	return nil
}

// tail gives the lines of a log that explain a failure.
func (r *Runner) tail(id, source string) []string {
	lines := logfile.Tail(r.path("logs", id, source+".log"), tailLines)
	for n, line := range lines {
		lines[n] = shorten(line, tailWidth)
	}
	return lines
}

// shorten cuts a text that has more bytes than width.
func shorten(text string, width int) string {
	if len(text) <= width {
		return text
	}
	return strings.ToValidUTF8(text[:width], "") + "…"
}

// observe says how the deployment is.
func (k *keeper) observe() runner.Observation {
	k.mu.Lock()
	defer k.mu.Unlock()
	o := runner.Observation{DeploymentID: k.rec.Deployment.ID, Replicas: k.rec.Replicas}
	healthy, stopping := 0, 0
	var worst *view
	for _, i := range k.instances {
		v := i.view()
		o.Instances = append(o.Instances, v.Instance)
		switch v.Phase {
		case dayfly.InstanceHealthy:
			healthy++
		case dayfly.InstanceStopping:
			stopping++
		}
		if v.Message != "" && (worst == nil || v.failing && !worst.failing) {
			worst = &v
		}
	}
	slices.SortFunc(o.Instances, func(a, b dayfly.Instance) int { return strings.Compare(a.ID, b.ID) })
	switch {
	case k.rec.Failure != "":
		o.Phase, o.Message, o.LogTail = dayfly.DeploymentFailed, k.rec.Failure, k.rec.LogTail
		return o
	case k.preparing > 0:
		o.Phase = dayfly.DeploymentBuilding
		return o
	case k.rec.Build == "":
		o.Phase = dayfly.DeploymentPending
		return o
	case k.rec.Replicas == 0:
		o.Phase = dayfly.DeploymentPrepared
		return o
	case k.rec.Deployment.Definition.Job:
		k.observeJob(&o)
		return o
	case healthy >= k.rec.Replicas:
		o.Phase = dayfly.DeploymentReady
	case worst != nil && worst.failing:
		o.Phase = dayfly.DeploymentFailed
		if healthy > 0 {
			o.Phase = dayfly.DeploymentDegraded
		}
	case healthy > 0:
		o.Phase = dayfly.DeploymentDegraded
	default:
		o.Phase = dayfly.DeploymentStarting
	}
	if worst != nil && o.Phase != dayfly.DeploymentReady {
		o.Message = worst.Message
		if worst.failing {
			o.LogTail = k.r.tail(o.DeploymentID, "run")
		}
	}
	if o.Phase == dayfly.DeploymentDegraded && o.Message == "" {
		o.Message = fmt.Sprintf("%d of %d instances are healthy", healthy, k.rec.Replicas)
	}
	return o
}

// observeJob says how a job is: it runs, or has ended well or badly.
func (k *keeper) observeJob(o *runner.Observation) {
	o.Phase = dayfly.DeploymentStarting
	for _, i := range o.Instances {
		switch {
		case i.Phase != dayfly.InstanceExited:
		case i.ExitCode != nil && *i.ExitCode == 0:
			o.Phase = dayfly.DeploymentCompleted
		default:
			o.Phase, o.Message = dayfly.DeploymentFailed, i.Message
		}
		if i.Phase == dayfly.InstanceExited {
			o.LogTail = k.r.tail(o.DeploymentID, "run")
		}
	}
}
