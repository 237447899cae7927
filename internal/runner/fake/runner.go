package fake

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/runner"
)

// Runner implements runner.Runner on a Host.
type Runner struct {
	host  *Host
	hooks runner.Hooks

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu       sync.Mutex
	watchers map[chan struct{}]map[string]bool
}

var _ runner.Runner = (*Runner)(nil)

// New makes a runner on a host, which it finds as an earlier one left it.
func New(host *Host, hooks runner.Hooks) *Runner {
	r := &Runner{host: host, hooks: hooks, watchers: map[chan struct{}]map[string]bool{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	host.mu.Lock()
	host.runners[r] = true
	host.mu.Unlock()
	return r
}

// Capabilities implements runner.Runner.
func (r *Runner) Capabilities() runner.Capabilities {
	if r.host.mode == Replicas {
		return runner.Capabilities{Name: "fake", Replicas: true}
	}
	return runner.Capabilities{Name: "fake", Node: true, Drains: true}
}

// open says whether the runner can still be used.
func (r *Runner) open() error {
	if r.ctx.Err() != nil {
		return dayfly.Errorf(dayfly.CodeUnavailable, "the runner has been closed")
	}
	return nil
}

// deployment gives what the host has of a deployment, made where there is none; the
// host's mu is held.
func (r *Runner) deployment(d dayfly.Deployment) *deployment {
	dep := r.host.deployments[d.ID]
	if dep == nil {
		dep = &deployment{d: d}
		seen := dep.observe(r.host)
		dep.reported = &seen
		r.host.deployments[d.ID] = dep
	}
	return dep
}

// Prepare implements runner.Runner.
func (r *Runner) Prepare(ctx context.Context, d dayfly.Deployment) error {
	if err := r.open(); err != nil {
		return err
	}
	h := r.host
	p := h.program(d)
	h.mu.Lock()
	dep := r.deployment(d)
	if dep.built {
		h.mu.Unlock()
		return nil
	}
	dep.preparing++
	dep.failure, dep.tail = "", nil
	for _, line := range p.BuildLines {
		h.log(d.ID, "build", line)
	}
	h.report(dep)
	h.mu.Unlock()

	var err error
	if p.BuildTime > 0 {
		select {
		case <-time.After(p.BuildTime):
		case <-ctx.Done():
			err = ctx.Err()
		case <-r.ctx.Done():
			err = r.ctx.Err()
		}
	}

	h.mu.Lock()
	defer h.mu.Unlock()
	dep.preparing--
	switch {
	case err != nil:
	case p.BuildFails != "":
		h.log(d.ID, "build", p.BuildFails)
		dep.failure, dep.tail = "the build failed", h.lines(d.ID, "build", 20)
		err = dayfly.Errorf(dayfly.CodeFailed, "the build failed")
	default:
		dep.built = true
		h.adjust(dep)
	}
	h.report(dep)
	// Of what it prepared the runner itself knows, whatever the cluster says.
	seen := dep.observe(h)
	dep.told, dep.reported = dep.seq, &seen
	return err
}

// Ensure implements runner.Runner.
func (r *Runner) Ensure(_ context.Context, d dayfly.Deployment, n int) error {
	if err := r.open(); err != nil {
		return err
	}
	h := r.host
	h.mu.Lock()
	defer h.mu.Unlock()
	dep := r.deployment(d)
	if dep.removing {
		return dayfly.Errorf(dayfly.CodeConflict, "deployment %s is being removed", d.ID)
	}
	dep.d, dep.replicas = d, n
	h.report(dep)
	h.soon(func() { h.adjust(dep) })
	return nil
}

// Observe implements runner.Runner.
func (r *Runner) Observe(_ context.Context, ids ...string) ([]runner.Observation, error) {
	h := r.host
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []runner.Observation
	add := func(dep *deployment) {
		o := *dep.reported
		o.Instances, o.LogTail = slices.Clone(o.Instances), slices.Clone(o.LogTail)
		list = append(list, o)
	}
	for _, id := range ids {
		if dep := h.deployments[id]; dep != nil {
			add(dep)
		}
	}
	if len(ids) == 0 {
		for _, dep := range h.deployments {
			add(dep)
		}
	}
	slices.SortFunc(list, func(a, b runner.Observation) int { return strings.Compare(a.DeploymentID, b.DeploymentID) })
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
			ids := r.watchers[wake]
			r.watchers[wake] = map[string]bool{}
			r.mu.Unlock()
			for id := range ids {
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
	if err := r.open(); err != nil {
		return err
	}
	h := r.host
	h.mu.Lock()
	dep := h.deployments[id]
	if dep == nil {
		h.mu.Unlock()
		return nil
	}
	dep.removing = true
	var all []*instance
	for _, i := range dep.instances {
		all = append(all, i)
		if !i.stopping {
			h.end(dep, i)
		}
	}
	h.mu.Unlock()
	for _, i := range all {
		select {
		case <-i.gone:
		case <-ctx.Done():
			return ctx.Err()
		case <-r.ctx.Done():
			return dayfly.Errorf(dayfly.CodeUnavailable, "the runner has been closed")
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.deployments, id)
	h.tell(id)
	return nil
}

// Logs implements runner.Runner.
func (r *Runner) Logs(ctx context.Context, id string, o runner.LogOptions) iter.Seq2[dayfly.LogLine, error] {
	return func(yield func(dayfly.LogLine, error) bool) {
		h := r.host
		next := 0
		for first := true; ; first = false {
			h.mu.Lock()
			all, more := h.logs[id], h.logged
			_, there := h.deployments[id]
			h.mu.Unlock()
			fresh := all[min(next, len(all)):]
			next = len(all)
			if first {
				fresh = slices.DeleteFunc(slices.Clone(fresh), func(l logLine) bool { return l.Time.Before(o.Since) })
				if o.Tail > 0 {
					fresh = fresh[max(0, len(fresh)-o.Tail):]
				}
			}
			for _, l := range fresh {
				if !yield(l.LogLine, nil) {
					return
				}
			}
			if !o.Follow || !there {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-r.ctx.Done():
				return
			case <-more:
			}
		}
	}
}

// PruneLogs implements runner.Runner.
func (r *Runner) PruneLogs(_ context.Context, id string) error {
	r.host.mu.Lock()
	defer r.host.mu.Unlock()
	delete(r.host.logs, id)
	return nil
}

// Close implements runner.Runner.
func (r *Runner) Close() error {
	r.cancel()
	r.host.mu.Lock()
	defer r.host.mu.Unlock()
	delete(r.host.runners, r)
	return nil
}
