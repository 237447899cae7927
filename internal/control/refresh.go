package control

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/resolve"
)

// Refresh resolves an environment again and writes what changed. One that changed
// lives on from now. Heads are branches that need not be asked for, by repository. A frozen one
// stays as it is.
func (c *Control) Refresh(ctx context.Context, name string, heads map[string]dayfly.Heads) error {
	for attempt := 0; ; attempt++ {
		err := c.refresh(ctx, name, heads)
		var conflict *registry.Conflict
		if !errors.As(err, &conflict) {
			return err
		}
		if conflict.Kind == registry.Hosts.Name() {
			return c.hostTaken(conflict.Key)
		}
		// Somebody else changed or refreshed it at the same moment.
		if attempt == 5 {
			return changedMeanwhile(name)
		}
		if _, err := c.appeared(ctx, name); err != nil {
			return err
		}
		res, err := registry.Get(ctx, c.store, registry.Resolutions, name)
		if err == nil {
			err = c.cache.Wait(ctx, res.Revision)
		}
		if err != nil && dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			return err
		}
	}
}

func (c *Control) refresh(ctx context.Context, name string, heads map[string]dayfly.Heads) error {
	rec, ok := registry.Lookup(c.cache, registry.Environments, name)
	if !ok || rec.Value.Deleting || rec.Value.Frozen {
		return nil
	}
	p, err := c.addedProject(rec.Value.Spec.Project)
	if err != nil {
		return err
	}
	before, ok := registry.Lookup(c.cache, registry.Resolutions, name)
	var previous *dayfly.Resolution
	if ok {
		previous = &before.Value
	}
	own, err := c.token(rec.Value.Credential)
	if err != nil {
		return err
	}
	token := c.tokenOf(own, p)
	chosen := map[string]bool{}
	databases := c.databasesFor(rec.Value)
	defer databases.release()
	res, err := c.resolver.Resolve(ctx, resolve.Input{
		Project: p, Record: rec.Value, Repo: repoOf(p, rec.Value), Heads: heads, Token: token, Database: databases.want,
		Credential: cmp.Or(rec.Value.Credential, p.Credential), Previous: previous,
		Address: func() (string, error) { return c.freeAddress(chosen) }, Environment: c.look, Registered: c.registered(p.Name),
	})
	if err != nil {
		return err
	}
	if previous != nil && previous.Problem == "" && sameResolution(previous, res) {
		return nil
	}
	life, err := c.lifeOf(rec.Value.Spec, p)
	if err != nil {
		return err
	}
	changed := rec.Value
	if previous == nil || !sameServices(previous.Services, res.Services) {
		renew(&changed, c.now(), life)
	}
	claims, err := c.claims(changed, previous, res)
	if err != nil {
		return err
	}
	return c.commit(ctx, append(append(claims, databases.all()...),
		registry.Update(registry.Environments, name, changed, rec.Revision),
		registry.Update(registry.Resolutions, name, *res, before.Revision))...)
}

// ReportProblem writes why an environment could not be brought up to date; what
// runs goes on as it is.
func (c *Control) ReportProblem(ctx context.Context, name, problem string) error {
	before, ok := registry.Lookup(c.cache, registry.Resolutions, name)
	if !ok || before.Value.Problem == problem {
		return nil
	}
	res := before.Value
	res.Problem = problem
	return c.commit(ctx, registry.Update(registry.Resolutions, name, res, before.Revision))
}

// gone waits for an environment of this name that is on its way out, so that a name
// can be used again at once.
func (c *Control) gone(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	changed, stop := c.hub.listen(name)
	defer stop()
	for {
		there, ok := registry.Lookup(c.cache, registry.Environments, name)
		if !ok || !there.Value.Deleting {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return dayfly.Errorf(dayfly.CodeConflict, "environment %s is still being deleted: try again when it is gone", name)
		}
	}
}
