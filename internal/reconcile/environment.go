package reconcile

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/plan"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/status"
)

// environment is one pass over one environment: gather, plan, and write what the
// plan says in one transaction, which fails if any of what the plan was made from
// has changed.
func (r *Reconciler) environment(ctx context.Context, name string) error {
	rec, ok := registry.Lookup(r.Cache, registry.Environments, name)
	if !ok {
		return nil
	}
	revision, err := r.advance(ctx, rec)
	if revision == 0 || err != nil {
		return err
	}
	return r.Cache.Wait(ctx, revision)
}

// advance writes and tells what the plan for an environment says now; revision 0 = nothing.
func (r *Reconciler) advance(ctx context.Context, rec registry.Record[dayfly.EnvironmentRecord]) (revision int64, err error) {
	state := registry.Gather(r.Cache, rec)
	lock := r.telling.of(rec.Value.ID)
	lock.Lock() // and what state says has been told
	defer lock.Unlock()
	r.tellPhase(ctx, state)
	r.tellHeldUp(ctx, state)
	input, fresh := r.planInput(state)
	p := plan.Make(input)
	if left, err := r.databasesLeft(ctx, rec, p); left || err != nil {
		return 0, err
	}
	if p.Empty() {
		return 0, nil
	}
	r.Logger.Debug("plan", "environment", rec.Key, "plan", p.String())
	ops, err := r.operations(rec, state, p, fresh)
	if err != nil {
		return 0, err
	}
	if revision, err = r.commit(ctx, ops...); err != nil {
		return 0, err
	}
	for _, s := range p.Steps {
		r.tellStep(ctx, state, s)
	}
	return revision, nil
}

// planInput says what the plan is made from. fresh holds the deployments that do
// not exist yet.
func (r *Reconciler) planInput(state status.Input) (plan.Input, map[string]dayfly.Deployment) {
	in := plan.Input{Deleting: state.Record.Deleting, Release: state.Release}
	for _, d := range state.Deployments {
		st := state.Observed[d.ID]
		in.Existing = append(in.Existing, plan.Existing{
			Service: d.Key.Service, Deployment: d.ID, Replicas: d.Replicas, Phase: st.Phase,
			Healthy: status.Healthy(st), Retiring: d.Retiring != nil, TestRun: d.TestRun != "" && !r.abandoned(d),
			Shared: d.Key.Owner != state.Record.ID,
		})
	}
	fresh := map[string]dayfly.Deployment{}
	if state.Resolution == nil || state.Record.Deleting {
		return in, fresh
	}
	for _, rs := range state.Resolution.Services {
		if rs.From != dayfly.FromOwn && rs.From != dayfly.FromShared || rs.Definition.Test {
			continue
		}
		d := dayfly.NewDeployment(state.Record, rs, r.Kind, r.home(), r.Now())
		for _, there := range state.Deployments {
			if there.Key == d.Key && there.TestRun == "" && (there.Retiring == nil || rs.From == dayfly.FromShared) {
				d = there
			}
		}
		fresh[d.ID] = d
		_, waits := status.WaitsFor(state, rs)
		in.Wanted = append(in.Wanted, plan.Wanted{
			Service: rs.Name, Deployment: d.ID, Version: rs.Commit,
			DependsOn: rs.Definition.DependsOn, Replicas: max(1, rs.Definition.Scale.Min), Waits: waits,
		})
	}
	return in, fresh
}

// abandoned says whether a test run was left behind by a server that died.
func (r *Reconciler) abandoned(d dayfly.Deployment) bool {
	return r.Now().Sub(d.CreatedAt) > time.Hour
}

// operations translates a plan into one transaction.
func (r *Reconciler) operations(rec registry.Record[dayfly.EnvironmentRecord], state status.Input, p plan.Plan, fresh map[string]dayfly.Deployment) ([]registry.Op, error) {
	name := rec.Key
	ops := []registry.Op{}
	changed := map[string]dayfly.Deployment{}
	created := map[string]bool{}
	get := func(id string) dayfly.Deployment {
		if d, ok := changed[id]; ok {
			return d
		}
		for _, d := range state.Deployments {
			if d.ID == id {
				return d
			}
		}
		return fresh[id]
	}
	for _, s := range p.Steps {
		switch s.Kind {
		case plan.Create:
			changed[s.Deployment], created[s.Deployment] = get(s.Deployment), true
		case plan.Start, plan.Stop:
			d := get(s.Deployment)
			d.Replicas = s.Replicas
			changed[s.Deployment] = d
		case plan.Retire:
			d := get(s.Deployment)
			drain := r.Drain
			if state.Record.Deleting {
				drain = drainDeleted
			}
			d.Retiring = &dayfly.Retirement{Since: r.Now(), Drain: dayfly.Duration(drain)}
			changed[s.Deployment] = d
		case plan.Forget:
			return r.forget(rec, state), nil
		}
	}
	if len(p.Decision.Shifted) > 0 {
		release, ok := registry.Lookup(r.Cache, registry.Releases, name)
		if !ok {
			return nil, dayfly.Errorf(dayfly.CodeInternal, "environment %s has no release record", name)
		}
		ops = append(ops, registry.Update(registry.Releases, name, p.Release, release.Revision))
	}
	for id, d := range changed {
		if created[id] {
			ops = append(ops, registry.Create(registry.Deployments, id, d))
			continue
		}
		there, ok := registry.Lookup(r.Cache, registry.Deployments, id)
		if !ok {
			return nil, dayfly.Errorf(dayfly.CodeConflict, "deployment %s is gone", id)
		}
		ops = append(ops, registry.Update(registry.Deployments, id, d, there.Revision))
	}
	if res, ok := registry.Lookup(r.Cache, registry.Resolutions, name); ok {
		ops = append(ops, registry.Require(registry.Resolutions, name, res.Revision))
	}
	return append(ops, registry.Require(registry.Environments, name, rec.Revision)), nil
}

// forget removes the records of an environment of which nothing is left, and
// notes that it was, for its logs and events.
func (r *Reconciler) forget(rec registry.Record[dayfly.EnvironmentRecord], state status.Input) []registry.Op {
	id, name := rec.Value.ID, rec.Key
	ops := []registry.Op{
		registry.DeleteIf(registry.Environments, name, rec.Revision),
		registry.Delete(registry.Resolutions, name),
		registry.Delete(registry.Releases, name),
		registry.Put(registry.Ended, id, registry.EndedEnvironment{
			ID: id, Name: name, Project: rec.Value.Spec.Project, EndedAt: r.Now(),
		}),
	}
	if c := rec.Value.Credential; c != "" {
		ops = append(ops, registry.Delete(registry.Credentials, c))
	}
	hosts := map[string]bool{}
	if state.Resolution != nil {
		if state.Resolution.Address != "" {
			ops = append(ops, registry.Delete(registry.Addresses, state.Resolution.Address))
		}
		for _, h := range state.Resolution.Hosts {
			hosts[h] = true
			ops = append(ops, registry.Delete(registry.Hosts, h))
		}
		for _, rs := range state.Resolution.Services {
			if rs.Address != "" {
				ops = append(ops, registry.Delete(registry.Addresses, rs.Address))
			}
			for _, h := range rs.Hosts {
				if !hosts[h] {
					hosts[h] = true
					ops = append(ops, registry.Delete(registry.Hosts, h))
				}
			}
		}
	}
	return ops
}

// tellStep makes an event of a step that people care for.
func (r *Reconciler) tellStep(ctx context.Context, state status.Input, s plan.Step) {
	e := dayfly.Event{Environment: state.Record.Spec.Name, Service: s.Service, Kind: dayfly.EventStep, Cause: s.Cause}
	switch s.Kind {
	case plan.Start:
		if !isShared(state, s.Service) {
			return // its deployment tells it, when it comes to that
		}
		e.Reason, e.Message = "start", s.Service+" is prepared and started once for all who share it"
	case plan.Shift:
		if !takesRequests(state, s.Service) {
			return
		}
		e.Reason, e.Message = "shift", s.Service+" takes requests"
		if s.Deployment == "" {
			e.Message = s.Service + " takes no more requests"
		}
	case plan.Retire:
		e.Reason, e.Message = "retire", "stopping "+s.Service
	case plan.Forget:
		e.Reason, e.Message = dayfly.ReasonDeleted, "the environment is gone"
	default:
		return
	}
	r.event(ctx, state.Record.ID, e)
	if s.Kind == plan.Forget {
		r.mu.Lock()
		delete(r.phases, state.Record.ID)
		delete(r.heldUp, state.Record.ID)
		r.mu.Unlock()
	}
}

// isShared says whether a service is a deployment that environments of the project share: what becomes of
// that is told to nobody's environment.
func isShared(state status.Input, service string) bool {
	return state.Resolution != nil && slices.ContainsFunc(state.Resolution.Services, func(rs dayfly.ResolvedService) bool {
		return rs.Name == service && rs.From == dayfly.FromShared
	})
}

// tellHeldUp makes an event of an end that waits for a server which may never come back.
func (r *Reconciler) tellHeldUp(ctx context.Context, state status.Input) {
	state.Away = status.Others(state.Away, r.NodeID)
	held := status.HeldUp(state)
	r.mu.Lock()
	before := r.heldUp[state.Record.ID]
	if held == "" {
		delete(r.heldUp, state.Record.ID)
	} else {
		r.heldUp[state.Record.ID] = held
	}
	r.mu.Unlock()
	if held == "" || held == before {
		return
	}
	r.event(ctx, state.Record.ID, dayfly.Event{
		Environment: state.Record.Spec.Name, Kind: dayfly.EventWarning, Reason: "server-away", Message: held,
	})
}

// takesRequests says whether a service has a port.
func takesRequests(state status.Input, service string) bool {
	if state.Resolution == nil {
		return true
	}
	for _, rs := range state.Resolution.Services {
		if rs.Name == service {
			return rs.Definition.Port != 0
		}
	}
	return true
}

// tellPhase makes an event of a change of the environment's phase.
func (r *Reconciler) tellPhase(ctx context.Context, state status.Input) {
	state.URL, state.Lenders = func(host string) string { return host }, registry.Lenders(r.Cache, state)
	env := status.View(state)
	var waiting []string
	r.mu.Lock()
	// Those that borrow may have waited for just this. Who is ready needs no pass for each of ours.
	for borrower := range registry.BorrowersOf(r.Cache, env.Name) {
		if r.phases[borrower.Value.Environment] != dayfly.PhaseReady {
			waiting = append(waiting, borrower.Key)
		}
	}
	before, known := r.phases[env.ID]
	r.phases[env.ID] = env.Phase
	r.mu.Unlock()
	for _, name := range waiting {
		r.environments.add(name)
	}
	if before == env.Phase || !known && env.Phase == dayfly.PhaseReady && r.Now().Sub(env.CreatedAt) > time.Minute {
		return // as it was, or adopted as it was
	}
	e := dayfly.Event{Environment: env.Name, Reason: string(env.Phase), Kind: dayfly.EventStep}
	switch env.Phase {
	case dayfly.PhaseReady:
		e.Message = "ready"
		if !known || before != dayfly.PhaseDegraded {
			e.Message = fmt.Sprintf("ready %s after the last change", r.Now().Sub(state.Record.RenewedAt).Round(time.Millisecond))
		}
	case dayfly.PhaseFailed:
		e.Kind, e.Message = dayfly.EventError, "failed: "+env.Message
	case dayfly.PhaseDegraded:
		e.Kind, e.Message = dayfly.EventWarning, "degraded: "+env.Message
	case dayfly.PhaseDeleting:
		e.Message = "is being deleted"
	default:
		return
	}
	r.event(ctx, env.ID, e)
}
