package control

import (
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/status"
)

// record finds an environment by its name or id.
func (c *Control) record(nameOrID string) (registry.Record[dayfly.EnvironmentRecord], error) {
	if r, ok := registry.Lookup(c.cache, registry.Environments, nameOrID); ok {
		return r, nil
	}
	if r, ok := registry.EnvironmentByID(c.cache, nameOrID); ok {
		return r, nil
	}
	if _, ok := registry.Unmanaged(c.cache, strings.TrimPrefix(nameOrID, "registered:")); ok {
		return registry.Record[dayfly.EnvironmentRecord]{}, dayfly.Errorf(dayfly.CodeConflict,
			"nobody created environment %s: it is there for as long as something is registered with it, and can neither be changed nor deleted", strings.TrimPrefix(nameOrID, "registered:"))
	}
	return registry.Record[dayfly.EnvironmentRecord]{}, dayfly.Errorf(dayfly.CodeNotFound,
		"there is no environment %q: `dayfly list` shows those there are", nameOrID)
}

// Environment gives an environment by its name or id.
func (c *Control) Environment(ctx context.Context, nameOrID string) (dayfly.Environment, error) {
	r, err := c.record(nameOrID)
	if err != nil {
		c.routed(ctx)
		if env, ok := c.unmanaged(ctx, nameOrID); ok {
			return env, nil
		}
		return dayfly.Environment{}, err
	}
	env := c.view(r)
	if env.Phase == dayfly.PhaseReady {
		c.routed(ctx)
	}
	return env, nil
}

// routed waits a little until requests go where the state says, so that who is told that an
// environment is ready or gone finds it so.
func (c *Control) routed(ctx context.Context) {
	if c.config.Routed == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := c.config.Routed(ctx, c.cache.Revision()); err != nil {
		c.log.Debug("the route table is behind", "error", err)
	}
}

// view puts together what the API answers about an environment.
func (c *Control) view(r registry.Record[dayfly.EnvironmentRecord]) dayfly.Environment {
	in := registry.Gather(c.cache, r)
	in.URL, in.Lenders = c.config.PublicURL, registry.Lenders(c.cache, in)
	in.Away = status.Others(in.Away, c.config.DatabaseNode)
	return status.View(in)
}

// Environments lists environments in the order of their names, a page at a time; next
// is empty on the last page.
func (c *Control) Environments(ctx context.Context, f dayfly.EnvironmentFilter) (list []dayfly.Environment, after string, err error) {
	limit := f.Limit
	if limit <= 0 {
		limit = 500
	}
	list = []dayfly.Environment{}
	unmanaged, stop := iter.Pull(c.unmanagedNames(f.After))
	defer stop()
	next, more := unmanaged()
	// until adds those that nobody created and that come before a name; "" = all.
	until := func(name string) {
		for ; more && (name == "" || next < name) && len(list) <= limit; next, more = unmanaged() {
			if env, ok := c.unmanaged(ctx, next); ok && (f.Project == "" || env.Project == f.Project) {
				list = append(list, env)
			}
		}
	}
	for r := range registry.After(c.cache, registry.Environments, f.After) {
		if f.Project != "" && r.Value.Spec.Project != f.Project {
			continue
		}
		if until(r.Key); len(list) > limit {
			break
		}
		list = append(list, c.view(r))
	}
	until("")
	if len(list) > limit {
		return list[:limit], list[limit-1].Name, nil
	}
	return list, "", nil
}

// Spec gives what was asked for an environment.
func (c *Control) Spec(_ context.Context, name string) (dayfly.EnvironmentSpec, error) {
	r, err := c.record(name)
	return r.Value.Spec, err
}

// PatchEnvironment changes how long an environment lives and whether it follows its branches. ifMatch is the revision
// that it must have; 0 = any.
func (c *Control) PatchEnvironment(ctx context.Context, name string, patch dayfly.EnvironmentPatch, ifMatch int64) (dayfly.Environment, error) {
	r, err := c.record(name)
	if err != nil {
		return dayfly.Environment{}, err
	}
	if ifMatch != 0 && ifMatch != r.Revision {
		return dayfly.Environment{}, changedMeanwhile(r.Key)
	}
	if r.Value.Deleting {
		return dayfly.Environment{}, dayfly.Errorf(dayfly.CodeConflict, "environment %s is being deleted", r.Key)
	}
	p, err := c.addedProject(r.Value.Spec.Project)
	if err != nil {
		return dayfly.Environment{}, err
	}
	rec, now := r.Value, c.now()
	if patch.Keep != nil {
		if rec.Origin != "" {
			return dayfly.Environment{}, belongsToFile(rec)
		}
		life, err := c.life(*patch.Keep, p)
		if err != nil {
			return dayfly.Environment{}, err
		}
		rec.Spec.Keep, rec.ExpiresAt = *patch.Keep, nil
		renew(&rec, now, life)
	}
	if patch.ExtendBy != nil {
		life, err := c.life(*patch.ExtendBy, p)
		if err != nil {
			return dayfly.Environment{}, err
		}
		extend(&rec, now, life)
	}
	thaw := false
	if patch.Frozen != nil {
		thaw = rec.Frozen && !*patch.Frozen
		rec.Frozen = *patch.Frozen
	}
	if err := c.commit(ctx, registry.Update(registry.Environments, r.Key, rec, r.Revision)); err != nil {
		if dayfly.ErrorCode(err) == dayfly.CodeConflict {
			err = changedMeanwhile(r.Key)
		}
		return dayfly.Environment{}, err
	}
	if thaw {
		if err := c.Refresh(ctx, r.Key, nil); err != nil {
			return dayfly.Environment{}, err
		}
	}
	return c.Environment(ctx, r.Key)
}

// extend lets a record live at least so long from now on.
func extend(rec *dayfly.EnvironmentRecord, now time.Time, life dayfly.Duration) {
	if rec.ExpiresAt == nil {
		return
	}
	if life == dayfly.Forever {
		rec.ExpiresAt = nil
		return
	}
	if end := now.Add(time.Duration(life)); end.After(*rec.ExpiresAt) {
		rec.ExpiresAt = &end
	}
}

// DeleteEnvironment marks an environment as on its way out and gives it as it is
// then. It needs nothing from git.
func (c *Control) DeleteEnvironment(ctx context.Context, name string, o dayfly.DeleteOptions) (dayfly.Environment, error) {
	r, err := c.record(name)
	if err != nil {
		return dayfly.Environment{}, err
	}
	if r.Value.Origin != "" && !o.Force {
		return dayfly.Environment{}, belongsToFile(r.Value)
	}
	if names := slices.Collect(c.borrowers(r.Key)); len(names) > 0 && !o.Force && !r.Value.Deleting {
		return dayfly.Environment{}, dayfly.Errorf(dayfly.CodeConflict,
			"environments borrow from %s: %s: delete them first, or leave them without what they borrow (--force)", r.Key, strings.Join(names, ", "))
	}
	env, err := c.deleteRecord(ctx, r, true)
	if err != nil || !o.Force {
		return env, err
	}
	return env, c.giveUp(ctx, env.ID)
}

// Expire ends the environments whose life is over and says which.
func (c *Control) Expire(ctx context.Context) (ended []string, err error) {
	now := c.now()
	for r := range registry.Expiring(c.cache) {
		if !status.Expired(r.Value, now) {
			break // nor have those that follow
		}
		if c.lends(r.Key) {
			continue
		}
		rec := r.Value
		rec.Deleting = true
		err := c.commit(ctx, append(c.ending(r), registry.Update(registry.Environments, r.Key, rec, r.Revision))...)
		switch {
		case dayfly.ErrorCode(err) == dayfly.CodeConflict:
			continue // renewed or deleted at the same moment: the next time will see
		case err != nil:
			return ended, err
		}
		ended = append(ended, r.Key)
	}
	return ended, nil
}

// ending notes what must not come back by itself when an environment ends: what its file says, or
// where its branch leads. Either is forgotten when the file or the branch is gone.
func (c *Control) ending(r registry.Record[dayfly.EnvironmentRecord]) []registry.Op {
	if r.Value.Source != "" {
		return []registry.Op{expiry(r.Value)}
	}
	return c.dismissal(r)
}

// borrowers gives the environments that borrow from one.
func (c *Control) borrowers(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for r := range registry.BorrowersOf(c.cache, name) {
			rec, ok := registry.Lookup(c.cache, registry.Environments, r.Key)
			if ok && !rec.Value.Deleting && rec.Value.ID == r.Value.Environment && !yield(r.Key) {
				return
			}
		}
	}
}

// lends says whether some environment borrows from this one.
func (c *Control) lends(name string) bool {
	for range c.borrowers(name) {
		return true
	}
	return false
}

// deleteRecord marks a record as on its way out, also when somebody changes it at the
// same moment, and gives the environment as it was then. StaysAway says whether its branch or file,
// which may go on, must not make it again.
func (c *Control) deleteRecord(ctx context.Context, r registry.Record[dayfly.EnvironmentRecord], staysAway bool) (dayfly.Environment, error) {
	for !r.Value.Deleting {
		rec := r.Value
		rec.Deleting = true
		var ops []registry.Op
		if staysAway {
			ops = c.ending(r)
		}
		revision, err := registry.Commit(ctx, c.store, append(ops, registry.Update(registry.Environments, r.Key, rec, r.Revision))...)
		if err == nil {
			// It may be gone by the time the cache has heard of it.
			r.Value, r.Revision = rec, revision
			if err := c.cache.Wait(ctx, revision); err != nil {
				return dayfly.Environment{}, err
			}
			break
		}
		if dayfly.ErrorCode(err) != dayfly.CodeConflict {
			return dayfly.Environment{}, err
		}
		fresh, err := registry.Get(ctx, c.store, registry.Environments, r.Key)
		if err != nil {
			return dayfly.Environment{}, err
		}
		if fresh.Value.ID != r.Value.ID {
			return dayfly.Environment{}, dayfly.Errorf(dayfly.CodeNotFound, "environment %s is gone; there is another one of its name now", r.Key)
		}
		r = fresh
	}
	return c.view(r), nil
}

// Services lists the services of all environments.
func (c *Control) Services(context.Context) ([]dayfly.ServiceInfo, error) {
	type key struct{ project, name string }
	found := map[key][]string{}
	for r := range registry.All(c.cache, registry.Environments) {
		res, ok := registry.Lookup(c.cache, registry.Resolutions, r.Key)
		if !ok {
			continue
		}
		for _, rs := range res.Value.Services {
			k := key{r.Value.Spec.Project, rs.Name}
			found[k] = append(found[k], r.Key)
		}
	}
	for r := range registry.All(c.cache, registry.Registrations) {
		k := key{r.Value.Project, r.Value.Service}
		if found[k] == nil {
			found[k] = []string{}
		}
		if env := r.Value.Environment; env != "" && !slices.Contains(found[k], env) {
			found[k] = append(found[k], env)
		}
	}
	list := []dayfly.ServiceInfo{}
	for k, envs := range found {
		list = append(list, dayfly.ServiceInfo{Name: k.name, Project: k.project, Environments: envs})
	}
	slices.SortFunc(list, func(a, b dayfly.ServiceInfo) int {
		if a.Project != b.Project {
			return compare(a.Project, b.Project)
		}
		return compare(a.Name, b.Name)
	})
	return list, nil
}

// Instances lists the instances of a service in all environments, and those that registered themselves.
func (c *Control) Instances(ctx context.Context, service string) ([]dayfly.InstanceInfo, error) {
	list := []dayfly.InstanceInfo{}
	known := false
	for d := range registry.All(c.cache, registry.Deployments) {
		if d.Value.Key.Service != service {
			continue
		}
		known = true
		st, _ := registry.Lookup(c.cache, registry.Observed, d.Key)
		for _, i := range st.Value.Instances {
			list = append(list, dayfly.InstanceInfo{
				Instance: i, Service: service, Version: d.Value.Key.Version,
				Environment: d.Value.Environment, Project: d.Value.Key.Project, Node: st.Value.Node,
			})
		}
	}
	registered, err := c.registeredInstances(ctx, service)
	if err != nil {
		return nil, err
	}
	list = append(list, registered...)
	if !known && len(registered) == 0 {
		return nil, dayfly.Errorf(dayfly.CodeNotFound, "no environment runs a service %q", service)
	}
	return list, nil
}

// Events gives what happened to an environment, oldest first. With Follow it goes on
// until ctx ends or the environment is gone.
func (c *Control) Events(ctx context.Context, name string, o dayfly.EventOptions) iter.Seq2[dayfly.Event, error] {
	return func(yield func(dayfly.Event, error) bool) {
		id, err := c.environmentID(name, o.Deleted)
		if err != nil {
			yield(dayfly.Event{}, err)
			return
		}
		if o.Follow && !o.Deleted {
			for e, err := range registry.WatchEvents(ctx, c.store, id, o.After) {
				if !yield(e, err) || err != nil || e.Service == "" && e.Reason == dayfly.ReasonDeleted {
					return
				}
			}
			return
		}
		events, err := registry.Events(ctx, c.store, id, o.After)
		if err != nil {
			yield(dayfly.Event{}, err)
			return
		}
		for _, e := range events {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// environmentID finds the id of an environment, or of the last one of this name
// that is gone.
func (c *Control) environmentID(name string, deleted bool) (string, error) {
	r, err := c.record(name)
	if err == nil && !deleted {
		return r.Value.ID, nil
	}
	var last *registry.EndedEnvironment
	for e := range registry.EndedNamed(c.cache, name) {
		if last == nil || e.Value.EndedAt.After(last.EndedAt) {
			last = &e.Value
		}
	}
	if e, ok := registry.Lookup(c.cache, registry.Ended, name); ok {
		last = &e.Value
	}
	switch {
	case deleted && last != nil:
		return last.ID, nil
	case deleted:
		return "", dayfly.Errorf(dayfly.CodeNotFound, "nothing is kept of an environment %q that is gone", name)
	case last != nil:
		return "", dayfly.Errorf(dayfly.CodeNotFound, "environment %s is gone since %s: add --deleted to see what is kept of it",
			name, last.EndedAt.Format(time.RFC3339))
	}
	return "", err
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
