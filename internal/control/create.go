package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
	"github.com/dayfly-dev/dayfly/internal/resolve"
	"github.com/dayfly-dev/dayfly/internal/status"
)

// CreateEnvironment makes an environment. Everything that can be wrong with the
// wish is found before anything is written: a ref that does not exist, or a file
// with a mistake, leaves nothing behind. A repeated request with the same content
// gives the environment that is there, brought up to date, and false.
func (c *Control) CreateEnvironment(ctx context.Context, req dayfly.EnvironmentRequest) (dayfly.Environment, bool, error) {
	p, err := c.projectFor(ctx, req)
	if err != nil {
		return dayfly.Environment{}, false, err
	}
	spec := req.Spec
	spec.Project = p.Name
	if req.WithFixtures {
		spec.Data = "fixtures"
	}
	named := spec.Name != ""
	if spec.Name == "" && spec.Branch != "" {
		spec.Name = dayfly.EnvironmentName(c.config.NamePattern, p.Name, spec.Branch)
	}
	if spec.Name == "" {
		heads, err := c.resolver.Heads(ctx, p.Home(), c.tokenOf(req.Token, p))
		if err == nil && heads.Default == "" {
			err = dayfly.Errorf(dayfly.CodeNotFound, "project %s has no branch yet: push one", p.Name)
		}
		if err != nil {
			return dayfly.Environment{}, false, err
		}
		spec.Branch = heads.Default
		spec.Name = dayfly.EnvironmentName(c.config.NamePattern, p.Name, spec.Branch)
	}
	w := wish{project: p, spec: spec, token: req.Token, frozen: req.Pin}
	var would dayfly.Environment
	if req.DryRun {
		w.dry, w.replace = true, true
		w.found = func(rec dayfly.EnvironmentRecord, res *dayfly.Resolution) {
			in := status.Input{Record: rec, Resolution: res, URL: c.config.PublicURL}
			in.Lenders = registry.Lenders(c.cache, in)
			would = status.View(in)
		}
	}
	make := c.putNamed
	if named {
		make = c.put
	}
	env, made, err := make(ctx, w)
	if req.DryRun {
		env = would
	}
	return env, made, err
}

// putNamed makes an environment with the usual name of its branch, or one with a suffix where
// that belongs to another branch.
func (c *Control) putNamed(ctx context.Context, w wish) (dayfly.Environment, bool, error) {
	usual := w.spec.Name
	w.spec.Name = c.ownName(usual, w.spec)
	env, made, err := c.put(ctx, w)
	if w.spec.Name == usual && dayfly.ErrorCode(err) == dayfly.CodeConflict {
		// Another branch with this slug may have been quicker.
		if w.spec.Name = c.ownName(usual, w.spec); w.spec.Name != usual {
			return c.put(ctx, w)
		}
	}
	return env, made, err
}

// ownName gives the name for an environment whose user gave none: the usual one,
// with a suffix where that belongs to another branch.
func (c *Control) ownName(usual string, spec dayfly.EnvironmentSpec) string {
	there, ok := registry.Lookup(c.cache, registry.Environments, usual)
	if ok && (there.Value.Spec.Branch != spec.Branch || there.Value.Spec.Project != spec.Project) {
		return dayfly.WithSuffix(usual, spec.Project+"/"+spec.Branch)
	}
	return usual
}

// PutEnvironment makes the environment of an environment file, or changes the one
// of this name to what the file says. ifMatch is the revision that it must have; 0 = any.
func (c *Control) PutEnvironment(ctx context.Context, name string, spec dayfly.EnvironmentSpec, origin string, ifMatch int64) (dayfly.Environment, bool, error) {
	if spec.Name == "" {
		spec.Name = name
	}
	if spec.Name != name {
		return dayfly.Environment{}, false, dayfly.Invalid(dayfly.Problem{Field: "name", Message: fmt.Sprintf("is %q in the body and %q in the path", spec.Name, name)})
	}
	p, err := c.projectFor(ctx, dayfly.EnvironmentRequest{Spec: spec})
	if err != nil {
		return dayfly.Environment{}, false, err
	}
	spec.Project = p.Name
	return c.put(ctx, wish{project: p, spec: onlyListed(spec), origin: origin, ifMatch: ifMatch, replace: true})
}

// wish is an environment that somebody or something asks for.
type wish struct {
	project dayfly.Project
	spec    dayfly.EnvironmentSpec
	origin  string        // the file that it is from
	source  string        // what keeps it as that file says; "" = nothing does
	token   dayfly.Secret // of who asks
	ifMatch int64         // revision that it must have; 0 = any
	replace bool          // change one of this name that has another content
	// What EnvironmentRecord says of these.
	auto, pushed, frozen bool
	// heads are branches that need not be asked for, by repository.
	heads map[string]dayfly.Heads
	// dry finds everything that is wrong and writes nothing.
	dry      bool
	found    func(dayfly.EnvironmentRecord, *dayfly.Resolution) // is given what a dry one came to; may be nil
	attempts int
}

// owns says whether an environment belongs to the file of the wish, and is as that said.
func (w wish) owns(rec dayfly.EnvironmentRecord) bool {
	return rec.Source == w.source && rec.Origin == w.origin && rec.Problem == ""
}

// put writes an environment as asked and resolved. An existing one with another
// content is changed when replace is set, and a conflict otherwise.
func (c *Control) put(ctx context.Context, w wish) (dayfly.Environment, bool, error) {
	none := dayfly.Environment{}
	p, spec, token := w.project, w.spec, w.token
	if err := dayfly.ValidName(spec.Name); err != nil {
		return none, false, dayfly.Invalid(dayfly.Problem{Field: "name", Message: err.Error()})
	}
	life, err := c.lifeOf(spec, p)
	if err != nil {
		return none, false, err
	}
	if err := c.gone(ctx, spec.Name); err != nil {
		return none, false, err
	}
	there, exists := registry.Lookup(c.cache, registry.Environments, spec.Name)
	switch {
	// It is as it was asked for, whoever did that: of those who ask for the same at once nobody fails.
	case exists && !w.dry && same(there.Value.Spec, spec) && (w.source == "" || w.owns(there.Value)):
		if err := c.mark(ctx, spec.Name, w); err != nil {
			return none, false, err
		}
		if err := c.Refresh(ctx, spec.Name, w.heads); err != nil {
			return none, false, err
		}
		env, err := c.Environment(ctx, spec.Name)
		return env, false, err
	case w.ifMatch != 0 && (!exists || there.Revision != w.ifMatch):
		return none, false, changedMeanwhile(spec.Name)
	case exists && !w.replace:
		return none, false, dayfly.Errorf(dayfly.CodeConflict,
			"environment %s exists already with another content (project %s, branch %s): choose another name, or delete it first",
			spec.Name, there.Value.Spec.Project, orDefault(there.Value.Spec.Branch))
	case exists && (there.Value.Source != w.source || w.source == "" && there.Value.Origin != w.origin):
		return none, false, belongsToFile(there.Value)
	}
	if !exists {
		if err := c.room(p.Name); err != nil {
			return none, false, err
		}
	}
	now := c.now()
	rec := dayfly.EnvironmentRecord{
		Format: dayfly.Format, ID: dayfly.NewID(), Spec: spec, Origin: w.origin, Source: w.source, CreatedAt: now,
		Auto: w.auto, Pushed: w.pushed, Frozen: w.frozen,
	}
	var before *dayfly.Resolution
	if exists {
		rec.ID, rec.CreatedAt, rec.Credential = there.Value.ID, there.Value.CreatedAt, there.Value.Credential
		rec.Pushed, rec.Frozen = rec.Pushed || there.Value.Pushed, rec.Frozen || there.Value.Frozen
		if r, ok := registry.Lookup(c.cache, registry.Resolutions, spec.Name); ok {
			before = &r.Value
		}
	}
	renew(&rec, now, life)
	var ops []registry.Op
	if !token.IsZero() {
		id, op, err := c.seal(token)
		if err != nil {
			return none, false, err
		}
		rec.Credential = id
		ops = append(ops, op)
	}
	if exists {
		ops = append(ops, registry.Update(registry.Environments, spec.Name, rec, there.Revision))
	} else {
		ops = append(ops,
			registry.Require(registry.Projects, p.Name, p.Revision),
			registry.Create(registry.Environments, spec.Name, rec),
			registry.Create(registry.Releases, spec.Name, release.State{Format: dayfly.Format, Services: map[string][]release.Target{}}))
		for d := range registry.DismissedOf(c.cache, p.Name) {
			if d.Value.Branch == spec.Branch {
				ops = append(ops, registry.Delete(registry.Dismissed, d.Key))
			}
		}
	}
	if token.IsZero() {
		if token, err = c.token(rec.Credential); err != nil {
			return none, false, err
		}
	}
	if err := c.settle(ctx, w, rec, before, c.tokenOf(token, p), ops); err != nil || w.dry {
		var conflict *registry.Conflict
		if errors.As(err, &conflict) && conflict.Kind == registry.Projects.Name() && w.attempts < 5 {
			// What the project's file says has changed at the same moment.
			w.attempts++
			if w.project, err = c.freshProject(ctx, p.Name); err != nil {
				return none, false, err
			}
			return c.put(ctx, w)
		}
		if !exists && dayfly.ErrorCode(err) == dayfly.CodeConflict {
			// Somebody who asked for the same name was quicker: then this is a repeated
			// request, or a conflict with what he made of it.
			quicker, lookErr := c.appeared(ctx, spec.Name)
			if lookErr != nil {
				return none, false, lookErr
			}
			if quicker {
				return c.put(ctx, w)
			}
		}
		return none, false, err
	}
	env, err := c.Environment(ctx, spec.Name)
	return env, !exists, err
}

// room says whether one more environment of a project is within the limits.
func (c *Control) room(project string) error {
	if most := c.config.MaxEnvironments; most > 0 && registry.Len(c.cache, registry.Environments) >= most {
		return dayfly.Errorf(dayfly.CodeConflict, "there are %d environments, and no more are allowed (--max-environments of the server): delete one first", most)
	}
	if most := c.config.MaxPerProject; most > 0 {
		n := 0
		for range registry.EnvironmentsOf(c.cache, project) {
			n++
		}
		if n >= most {
			return dayfly.Errorf(dayfly.CodeConflict, "project %s has %d environments, and no more are allowed (--max-per-project of the server): delete one first", project, most)
		}
	}
	return nil
}

// appeared says whether there is an environment of this name by now, which the cache
// may not have heard of before.
func (c *Control) appeared(ctx context.Context, name string) (bool, error) {
	there, err := registry.Get(ctx, c.store, registry.Environments, name)
	switch {
	case dayfly.ErrorCode(err) == dayfly.CodeNotFound:
		return false, nil
	case err != nil:
		return false, err
	}
	return true, c.cache.Wait(ctx, there.Revision)
}

// settle resolves rec and commits ops together with the resolution, its hosts and
// its addresses. Random addresses that somebody else took meanwhile are chosen again.
func (c *Control) settle(ctx context.Context, w wish, rec dayfly.EnvironmentRecord, before *dayfly.Resolution, token dayfly.Secret, ops []registry.Op) error {
	databases := c.databasesFor(rec)
	defer func() { databases.release() }()
	for attempt := 0; ; attempt++ {
		chosen := map[string]bool{}
		databases.release()
		databases = c.databasesFor(rec)
		databases.dry = w.dry
		res, err := c.resolver.Resolve(ctx, resolve.Input{
			Project: w.project, Record: rec, Repo: repoOf(w.project, rec), Heads: w.heads, Token: token, Database: databases.want,
			Credential: cmp.Or(rec.Credential, w.project.Credential), Previous: before,
			Address: func() (string, error) { return c.freeAddress(chosen) }, Environment: c.look, Registered: c.registered(w.project.Name),
		})
		if err != nil {
			return err
		}
		claims, err := c.claims(rec, before, res)
		if err == nil && w.dry && w.found != nil {
			w.found(rec, res)
		}
		if err != nil || w.dry {
			return err
		}
		all := append(slices.Clone(ops), append(claims, databases.all()...)...)
		err = c.commit(ctx, append(all, registry.Put(registry.Resolutions, rec.Spec.Name, *res))...)
		var conflict *registry.Conflict
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &conflict):
			return err
		case conflict.Kind == registry.Addresses.Name() && attempt < 5:
			continue
		case (conflict.Kind == registry.Templates.Name() || conflict.Kind == registry.Databases.Name()) && attempt < 5:
			if err := c.templatesNow(ctx, conflict); err != nil {
				return err
			}
			continue
		case conflict.Kind == registry.Hosts.Name():
			return c.hostTaken(conflict.Key)
		case conflict.Kind == registry.Environments.Name():
			return changedMeanwhile(rec.Spec.Name)
		default:
			return err
		}
	}
}

// lifeOf says how long an environment lives from its last change on. The baseline of its project does
// not end by itself.
func (c *Control) lifeOf(spec dayfly.EnvironmentSpec, p dayfly.Project) (dayfly.Duration, error) {
	if spec.Name == p.Baseline {
		return dayfly.Forever, nil
	}
	return c.life(spec.Keep, p)
}

// life says how long an environment lives from its last change on.
func (c *Control) life(keep dayfly.Duration, p dayfly.Project) (dayfly.Duration, error) {
	asked := keep != 0
	if !asked {
		keep = p.Keep
	}
	if keep == 0 {
		keep = c.config.Keep
	}
	switch {
	case keep == dayfly.Forever && c.config.AllowForever:
		return keep, nil
	case keep == dayfly.Forever && asked:
		return 0, dayfly.Errorf(dayfly.CodeForbidden, "keep: forever is not allowed on this server (--allow-forever); at most %s", c.config.MaxKeep)
	case keep > c.config.MaxKeep && asked:
		return 0, dayfly.Invalid(dayfly.Problem{Field: "keep", Message: fmt.Sprintf("%s is longer than this server allows (--max-keep %s)", keep, c.config.MaxKeep)})
	}
	return min(keep, c.config.MaxKeep), nil
}

// renew lets a record's life begin again.
func renew(rec *dayfly.EnvironmentRecord, now time.Time, life dayfly.Duration) {
	rec.RenewedAt = now
	if life == dayfly.Forever {
		rec.ExpiresAt = nil
		return
	}
	end := now.Add(time.Duration(life))
	if rec.ExpiresAt == nil || end.After(*rec.ExpiresAt) {
		rec.ExpiresAt = &end
	}
}

// tokenOf gives the user's token, or else the project's.
func (c *Control) tokenOf(own dayfly.Secret, p dayfly.Project) dayfly.Secret {
	if !own.IsZero() {
		return own
	}
	token, err := c.token(p.Credential)
	if err != nil {
		c.log.Error("a stored credential cannot be opened", "project", p.Name, "error", err)
	}
	return token
}

func same(a, b dayfly.EnvironmentSpec) bool           { return sameJSON(a, b) }
func sameServices(a, b []dayfly.ResolvedService) bool { return sameJSON(a, b) }

// sameResolution says whether two resolutions differ in nothing but when they were made.
func sameResolution(a, b *dayfly.Resolution) bool {
	return a.Base == b.Base && sameServices(a.Services, b.Services) && sameJSON(a.Missing, b.Missing) && sameJSON(a.Hosts, b.Hosts)
}

// MayBeThere says whether something that an environment missed may be there by now. It asks nobody.
func (c *Control) MayBeThere(name string) bool {
	rec, res, ok := c.look(name)
	if !ok || res == nil {
		return false
	}
	if c.templateMayBeThere(res) {
		return true
	}
	registered := c.registered(rec.Spec.Project)
	return slices.ContainsFunc(res.Missing, func(m dayfly.Need) bool {
		if m.Service == "" {
			_, base, there := c.look(res.Base)
			return there && base != nil
		}
		return registered(m.Service, m.Version)
	})
}

// look gives another environment, for those that borrow from it.
func (c *Control) look(name string) (dayfly.EnvironmentRecord, *dayfly.Resolution, bool) {
	r, ok := registry.Lookup(c.cache, registry.Environments, name)
	if !ok || r.Value.Deleting {
		return dayfly.EnvironmentRecord{}, nil, false
	}
	res, ok := registry.Lookup(c.cache, registry.Resolutions, name)
	if !ok || res.Value.Environment != r.Value.ID {
		return r.Value, nil, true
	}
	return r.Value, &res.Value, true
}

// registered says which versions have instances that registered themselves.
func (c *Control) registered(project string) func(service, version string) bool {
	return func(service, version string) bool {
		for range registry.RegisteredVersion(c.cache, project, service, version) {
			return true
		}
		return false
	}
}

func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

func changedMeanwhile(name string) error {
	return dayfly.Errorf(dayfly.CodeConflict, "environment %s was changed meanwhile: look at it again and repeat what is still wanted", name)
}

func belongsToFile(rec dayfly.EnvironmentRecord) error {
	if rec.Origin == "" {
		return dayfly.Errorf(dayfly.CodeConflict, "environment %s was made by command, not from a file: delete it first", rec.Spec.Name)
	}
	return dayfly.Errorf(dayfly.CodeConflict, "environment %s belongs to the file %s: change or remove that", rec.Spec.Name, rec.Origin)
}

func orDefault(branch string) string {
	if branch == "" {
		return "the default branch"
	}
	return branch
}
