package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/runner"
)

// orphanGrace is how long something that no record knows is left alone: its record
// may be on its way.
const orphanGrace = 30 * time.Second

// job is work on a deployment that takes its time: preparing or removing it.
type job struct {
	kind   string
	cancel context.CancelFunc
}

// deployment is one pass over one deployment of this node.
func (r *Reconciler) deployment(ctx context.Context, id string) error {
	d, ok := registry.Lookup(r.Cache, registry.Deployments, id)
	if !ok {
		return r.orphan(ctx, id)
	}
	if d.Value.Node != r.home() {
		return nil
	}
	seen, err := r.observe(ctx, id)
	if err != nil {
		return err
	}
	if d.Value.Retiring == nil {
		if d.Value, err = r.revealed(d.Value); err != nil {
			return err
		}
	}
	if d.Value.Retiring != nil {
		if r.busy(id, "remove") {
			return nil
		}
		r.start(ctx, id, "remove", d.Revision, func(ctx context.Context) error { return r.remove(ctx, d.Value) })
		return nil
	}
	preparing := r.busy(id, "")
	if seen == nil || seen.Phase == dayfly.DeploymentPending {
		if !preparing {
			r.start(ctx, id, "prepare", d.Revision, func(ctx context.Context) error { return r.prepare(ctx, d.Value) })
			preparing = true
		}
	} else if !preparing && seen.Replicas != d.Value.Replicas && prepared(*seen) {
		crash.Point("before Ensure")
		if err := r.Runner.Ensure(ctx, d.Value, d.Value.Replicas); err != nil {
			return err
		}
		r.tellStart(ctx, d.Value, seen.Replicas)
		if seen, err = r.observe(ctx, id); err != nil {
			return err
		}
	}
	return r.publish(ctx, d, seen, preparing)
}

// prepared says whether instances can be asked for. A deployment that failed with
// no count asked for has failed to build.
func prepared(o runner.Observation) bool {
	return o.Phase != dayfly.DeploymentBuilding && (o.Phase != dayfly.DeploymentFailed || o.Replicas > 0)
}

func (r *Reconciler) observe(ctx context.Context, id string) (*runner.Observation, error) {
	found, err := r.Runner.Observe(ctx, id)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// orphan removes what the runner has and no record knows: at once what was found
// at start, later ones after a grace.
func (r *Reconciler) orphan(ctx context.Context, id string) error {
	seen, err := r.observe(ctx, id)
	if err != nil || seen == nil || r.busy(id, "remove") {
		return err
	}
	if wait := r.grace(id); wait > 0 {
		r.deployments.addAfter(id, wait)
		return nil
	}
	r.start(ctx, id, "remove", 0, func(ctx context.Context) error {
		r.Logger.Info("removing a deployment that no environment knows", "deployment", id)
		return r.Runner.Remove(ctx, id)
	})
	return nil
}

// grace says how long an orphan is still to be left alone.
func (r *Reconciler) grace(id string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	since, ok := r.orphans[id]
	if !ok {
		since = r.Now()
		r.orphans[id] = since
	}
	wait := since.Add(orphanGrace).Sub(r.Now())
	if wait <= 0 {
		delete(r.orphans, id)
	}
	return wait
}

// busy says whether a job of this kind (any kind: "") works on the deployment. A job of
// another kind than the one asked for is cancelled: what is wanted has changed.
func (r *Reconciler) busy(id, kind string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	j := r.jobs[id]
	if j == nil {
		return false
	}
	if kind != "" && j.kind != kind {
		j.cancel()
	}
	return true
}

// start runs a job in the background; its end brings the deployment before its worker again. A job that has
// failed is not run before its time, unless the record has another revision: then something else is wanted.
func (r *Reconciler) start(ctx context.Context, id, kind string, revision int64, do func(context.Context) error) {
	if wait := r.retries.wait(id, revision); wait > 0 {
		r.deployments.addAfter(id, wait)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	r.jobs[id] = &job{kind, cancel}
	r.mu.Unlock()
	r.background.Go(func() {
		err := do(ctx)
		cancelled := ctx.Err() != nil
		cancel()
		r.mu.Lock()
		delete(r.jobs, id)
		r.mu.Unlock()
		switch {
		case err == nil:
			r.retries.done(id)
			r.deployments.add(id)
		case cancelled:
			r.deployments.add(id)
		default:
			wait := r.retries.failed(id, revision, err)
			r.Logger.Warn("deployment: "+kind+" failed; it is tried again", "deployment", id, "after", wait, "error", err)
			r.deployments.addAfter(id, wait)
		}
	})
}

// prepare builds a deployment. A build that fails is the runner's to remember and
// ours to show, not to repeat.
func (r *Reconciler) prepare(ctx context.Context, d dayfly.Deployment) error {
	crash.Point("before Prepare")
	err := r.Runner.Prepare(ctx, d)
	crash.Point("after Prepare")
	if dayfly.ErrorCode(err) == dayfly.CodeFailed {
		return nil
	}
	return err
}

// remove takes a deployment away for good and notes that it was, for its logs.
func (r *Reconciler) remove(ctx context.Context, d dayfly.Deployment) error {
	crash.Point("before Remove")
	if err := r.Runner.Remove(ctx, d.ID); err != nil {
		return err
	}
	crash.Point("after Remove")
	r.mu.Lock()
	delete(r.asked, d.ID)
	r.mu.Unlock()
	_, err := r.commit(ctx,
		registry.Delete(registry.Observed, d.ID),
		registry.Delete(registry.Deployments, d.ID),
		registry.Put(registry.Retired, d.ID, registry.RetiredDeployment{
			ID: d.ID, Environment: d.Key.Owner, Service: d.Key.Service, Node: r.home(), RetiredAt: r.Now(),
		}))
	return err
}

// publish writes what was seen into the state when it is news.
func (r *Reconciler) publish(ctx context.Context, rec registry.Record[dayfly.Deployment], seen *runner.Observation, preparing bool) error {
	d := rec.Value
	status := dayfly.DeploymentStatus{
		Format: dayfly.Format, Deployment: d.ID, Node: r.home(), Phase: dayfly.DeploymentPending, Since: r.Now(),
	}
	if seen != nil {
		status.Phase, status.Message, status.LogTail, status.Instances = seen.Phase, seen.Message, seen.LogTail, seen.Instances
	}
	if preparing && (seen == nil || seen.Phase == dayfly.DeploymentPending) {
		status.Phase = dayfly.DeploymentBuilding
		if problem := r.retries.problem(d.ID, rec.Revision); problem != "" {
			status.Message = "could not be prepared, and is tried again: " + problem
		}
	}
	before, ok := registry.Lookup(r.Cache, registry.Observed, d.ID)
	if ok && before.Value.Phase == status.Phase {
		status.Since = before.Value.Since
	}
	if ok && sameStatus(before.Value, status) {
		return nil
	}
	tell := func() {
		if !ok || before.Value.Phase != status.Phase || before.Value.Message == "" && status.Phase == dayfly.DeploymentBuilding {
			r.tellDeployment(ctx, d, before.Value.Phase, status)
		}
	}
	revision, err := r.commitAndTell(ctx, d.Key.Owner, tell,
		registry.Put(registry.Observed, d.ID, status), registry.Require(registry.Deployments, d.ID, rec.Revision))
	if err != nil {
		var conflict *registry.Conflict
		if errors.As(err, &conflict) {
			return nil // the deployment changed meanwhile, which brings the next pass
		}
		return err
	}
	return r.Cache.Wait(ctx, revision)
}

// tellStart makes an event of instances that are being started. It is told here and not where it is planned:
// what is planned at once may have to be built first.
func (r *Reconciler) tellStart(ctx context.Context, d dayfly.Deployment, before int) {
	r.mu.Lock()
	// A runner that is a cluster may show a little later what it was asked for.
	before = max(before, r.asked[d.ID])
	r.asked[d.ID] = d.Replicas
	r.mu.Unlock()
	if d.Replicas <= before {
		return
	}
	e := dayfly.Event{
		Environment: d.Environment, Service: d.Key.Service, Kind: dayfly.EventStep, Reason: "start", Cause: "depends on nothing",
		Message: fmt.Sprintf("starting %d of %s", d.Replicas-before, d.Key.Service),
	}
	switch {
	case before > 0:
		e.Cause = fmt.Sprintf("%d wanted, %d asked for so far", d.Replicas, before)
	case len(d.Definition.DependsOn) > 0:
		e.Cause = "all it depends on is there"
	}
	r.event(ctx, d.Key.Owner, e)
}

// tellDeployment makes an event of a change of a deployment's phase.
func (r *Reconciler) tellDeployment(ctx context.Context, d dayfly.Deployment, before dayfly.DeploymentPhase, now dayfly.DeploymentStatus) {
	service := d.Key.Service
	e := dayfly.Event{Environment: d.Environment, Service: service, Kind: dayfly.EventStep, Reason: string(now.Phase)}
	switch now.Phase {
	case dayfly.DeploymentBuilding:
		e.Message = fmt.Sprintf("preparing %s at %s", service, short(d.Key.Version))
		if now.Message != "" {
			e.Kind, e.Reason, e.Message = dayfly.EventWarning, "prepare-failed", service+": "+now.Message
		}
	case dayfly.DeploymentPrepared:
		if before != dayfly.DeploymentBuilding {
			return
		}
		e.Message = service + " is built"
	case dayfly.DeploymentReady:
		e.Message = service + " is healthy"
	case dayfly.DeploymentCompleted:
		e.Message = service + " has completed"
	case dayfly.DeploymentDegraded:
		e.Kind, e.Message = dayfly.EventWarning, service+": "+now.Message
	case dayfly.DeploymentFailed:
		e.Kind, e.Message, e.Log = dayfly.EventError, service+": "+now.Message, now.LogTail
	default:
		return
	}
	r.event(ctx, d.Key.Owner, e)
}

func short(version string) string {
	if len(version) == 40 {
		return version[:10]
	}
	return version
}

func sameStatus(a, b dayfly.DeploymentStatus) bool {
	return a.Phase == b.Phase && a.Message == b.Message && slices.Equal(a.LogTail, b.LogTail) &&
		slices.EqualFunc(a.Instances, b.Instances, func(a, b dayfly.Instance) bool {
			sameExit := a.ExitCode == b.ExitCode || a.ExitCode != nil && b.ExitCode != nil && *a.ExitCode == *b.ExitCode
			started := a.StartedAt.Equal(b.StartedAt)
			a.ExitCode, b.ExitCode, a.StartedAt, b.StartedAt = nil, nil, time.Time{}, time.Time{}
			return sameExit && started && a == b
		})
}
