package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/resolve"
)

// CreateProject adds a project, after its repository could be read and its
// project file understood. A repeated request for the same repository gives the
// project that is there and false.
func (c *Control) CreateProject(ctx context.Context, req dayfly.ProjectRequest) (dayfly.Project, bool, error) {
	if req.Repo == "" && req.Name != "" {
		return c.createHosted(ctx, req.Name)
	}
	repo, inURL, err := c.resolver.CleanRepo(req.Repo)
	if err != nil {
		return dayfly.Project{}, false, err
	}
	token := req.Token
	if token.IsZero() {
		token = inURL
	}
	if req.Name != "" {
		if err := dayfly.ValidName(req.Name); err != nil {
			return dayfly.Project{}, false, dayfly.Invalid(dayfly.Problem{Field: "name", Message: err.Error()})
		}
		if p, ok := registry.Lookup(c.cache, registry.Projects, req.Name); ok {
			if p.Value.Repo == repo {
				return c.project(p), false, nil
			}
			return dayfly.Project{}, false, dayfly.Errorf(dayfly.CodeConflict,
				"project %s exists already, for %s: choose another name or remove it first", req.Name, cmp.Or(p.Value.Repo, "what is pushed to it"))
		}
	}
	info, err := c.resolver.Project(ctx, repo, token)
	if err != nil {
		return dayfly.Project{}, false, err
	}
	p := dayfly.Project{
		Format: dayfly.Format, ID: dayfly.NewID(), Name: req.Name, Repo: repo, CreatedAt: c.now(),
	}
	tell(&p, info)
	if p.Name == "" {
		if p.Name = dayfly.Slug(info.Name); p.Name == "" {
			return p, false, dayfly.Invalid(dayfly.Problem{Field: "name", Message: "the project file has no name: give one"})
		}
	}
	ops := []registry.Op{}
	if !token.IsZero() {
		id, op, err := c.seal(token)
		if err != nil {
			return p, false, err
		}
		p.Credential = id
		ops = append(ops, op)
	}
	if err := c.commit(ctx, append(ops, registry.Create(registry.Projects, p.Name, p))...); err != nil {
		if dayfly.ErrorCode(err) == dayfly.CodeConflict {
			// The cache may not have heard of one that was made at the same moment.
			there, lookErr := registry.Get(ctx, c.store, registry.Projects, p.Name)
			if lookErr == nil && there.Value.Repo == repo {
				return c.project(there), false, c.cache.Wait(ctx, there.Revision)
			}
			err = dayfly.Errorf(dayfly.CodeConflict, "project %s exists already: choose another name with its own --repo", p.Name)
		}
		return p, false, err
	}
	made, err := c.freshProject(ctx, p.Name)
	return made, true, err
}

// project gives a stored project with its revision.
func (c *Control) project(r registry.Record[dayfly.Project]) dayfly.Project {
	p := r.Value
	p.Revision = r.Revision
	if c.config.PushURL != nil {
		p.PushURL = c.config.PushURL(p.Name)
	}
	return p
}

// tell writes what the project file says into a project.
func tell(p *dayfly.Project, info resolve.ProjectInfo) {
	p.Baseline, p.Keep, p.Branches, p.Repos = info.Baseline, info.Keep, info.Branches, info.Repos
	p.DefaultBranch, p.Commit, p.Problem = info.DefaultBranch, info.Commit, ""
}

// freshProject gives a project as it is now, which the cache may not have heard of.
func (c *Control) freshProject(ctx context.Context, name string) (dayfly.Project, error) {
	r, err := registry.Get(ctx, c.store, registry.Projects, name)
	if err != nil {
		return dayfly.Project{}, err
	}
	return c.project(r), c.cache.Wait(ctx, r.Revision)
}

// createHosted adds a project that lives on this server alone: its branches are pushed here.
func (c *Control) createHosted(ctx context.Context, name string) (dayfly.Project, bool, error) {
	if err := dayfly.ValidName(name); err != nil {
		return dayfly.Project{}, false, dayfly.Invalid(dayfly.Problem{Field: "name", Message: err.Error()})
	}
	there, ok := registry.Lookup(c.cache, registry.Projects, name)
	if !ok {
		p := dayfly.Project{Format: dayfly.Format, ID: c.reserve(name), Name: name, CreatedAt: c.now()}
		err := c.commit(ctx, registry.Create(registry.Projects, name, p))
		if err == nil {
			c.mu.Lock()
			delete(c.reserved, name) // another project of this name is another one, with branches of its own
			c.mu.Unlock()
			made, err := c.freshProject(ctx, name)
			return made, true, err
		}
		if dayfly.ErrorCode(err) != dayfly.CodeConflict {
			return p, false, err
		}
		if there, err = registry.Get(ctx, c.store, registry.Projects, name); err != nil {
			return p, false, err
		}
	}
	if there.Value.Repo != "" {
		return dayfly.Project{}, false, dayfly.Errorf(dayfly.CodeConflict, "project %s exists already, for %s: choose another name or remove it first", name, there.Value.Repo)
	}
	return c.project(there), false, c.cache.Wait(ctx, there.Revision)
}

// Projects lists all projects in the order of their names, also those that nobody has added.
func (c *Control) Projects(context.Context) ([]dayfly.Project, error) {
	list := c.addedProjects()
	for name := range c.registeredFor() {
		if _, added := registry.Lookup(c.cache, registry.Projects, name); !added {
			list = append(list, c.registeredProject(name))
		}
	}
	slices.SortFunc(list, func(a, b dayfly.Project) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func (c *Control) addedProjects() []dayfly.Project {
	list := []dayfly.Project{}
	for r := range registry.All(c.cache, registry.Projects) {
		list = append(list, c.project(r))
	}
	return list
}

// Project gives a project by its name or id, also one that nobody has added.
func (c *Control) Project(_ context.Context, name string) (dayfly.Project, error) {
	p, err := c.addedProject(name)
	if registered := strings.TrimPrefix(name, "registered:"); err != nil && c.registeredFor()[registered] > 0 { // its id
		return c.registeredProject(registered), nil
	}
	return p, err
}

// registeredFor counts the instances that are registered, by project.
func (c *Control) registeredFor() map[string]int {
	count := map[string]int{}
	for r := range registry.All(c.cache, registry.Registrations) {
		count[r.Value.Project]++
	}
	return count
}

// registeredProject gives a project that nobody has added: it is there for as long as instances are
// registered for it.
func (c *Control) registeredProject(name string) dayfly.Project {
	p := dayfly.Project{ID: "registered:" + name, Name: name}
	for r := range registry.All(c.cache, registry.Registrations) {
		if r.Value.Project != name {
			continue
		}
		if p.Registered == 0 || r.Value.CreatedAt.Before(p.CreatedAt) {
			p.CreatedAt = r.Value.CreatedAt
		}
		p.Revision = max(p.Revision, r.Revision)
		p.Registered++
	}
	if c.config.PushURL != nil {
		p.PushURL = c.config.PushURL(name)
	}
	return p
}

// addedProject gives a project that somebody has added, by its name or id.
func (c *Control) addedProject(name string) (dayfly.Project, error) {
	if r, ok := registry.Lookup(c.cache, registry.Projects, name); ok {
		return c.project(r), nil
	}
	if r, ok := registry.ProjectByID(c.cache, name); ok {
		return c.project(r), nil
	}
	if registered := strings.TrimPrefix(name, "registered:"); c.registeredFor()[registered] > 0 {
		return dayfly.Project{}, dayfly.Errorf(dayfly.CodeNotFound, "nobody has added project %s, it is there only by what is registered for it: `dayfly project add %s --repo URL` adds it", registered, registered)
	}
	return dayfly.Project{}, dayfly.Errorf(dayfly.CodeNotFound, "there is no project %q: `dayfly project list` shows those there are", name)
}

// ProjectEvents gives what happened to a project, oldest first.
func (c *Control) ProjectEvents(ctx context.Context, name string) ([]dayfly.Event, error) {
	p, err := c.addedProject(name)
	if err != nil {
		return nil, err
	}
	return registry.Events(ctx, c.store, p.ID, 0)
}

// DeleteProject removes a project that has no environments.
func (c *Control) DeleteProject(ctx context.Context, name string) error {
	p, err := c.Project(ctx, name)
	if err != nil {
		return err
	}
	if p.Registered > 0 {
		return dayfly.Errorf(dayfly.CodeConflict, "nobody has added project %s: it goes with the last instance that is registered for it", p.Name)
	}
	var has []string
	for r := range registry.EnvironmentsOf(c.cache, p.Name) {
		has = append(has, r.Key)
	}
	if len(has) > 0 {
		return dayfly.Errorf(dayfly.CodeConflict, "project %s has environments: delete them first (dayfly delete %s)", p.Name, strings.Join(has, " "))
	}
	ops := []registry.Op{registry.DeleteIf(registry.Projects, p.Name, p.Revision)}
	for d := range registry.DismissedOf(c.cache, p.Name) {
		ops = append(ops, registry.Delete(registry.Dismissed, d.Key))
	}
	for _, id := range []string{p.Credential, p.Hook} {
		if id != "" {
			ops = append(ops, registry.Delete(registry.Credentials, id))
		}
	}
	if err := c.commit(ctx, ops...); err != nil {
		return err
	}
	return registry.DeleteEvents(ctx, c.store, p.ID)
}

// projectFor finds the project of a request: by name, by repository (made where
// there is none), or the only one there is.
func (c *Control) projectFor(ctx context.Context, req dayfly.EnvironmentRequest) (dayfly.Project, error) {
	if req.Spec.Project != "" {
		return c.addedProject(req.Spec.Project)
	}
	if req.Repo != "" {
		repo, _, err := c.resolver.CleanRepo(req.Repo)
		if err != nil {
			return dayfly.Project{}, err
		}
		for r := range registry.All(c.cache, registry.Projects) {
			if r.Value.Repo == repo {
				return c.project(r), nil
			}
		}
		p, _, err := c.CreateProject(ctx, dayfly.ProjectRequest{Repo: req.Repo, Token: req.Token})
		return p, err
	}
	all := c.addedProjects()
	switch len(all) {
	case 0:
		return dayfly.Project{}, dayfly.Errorf(dayfly.CodeNotFound, "there is no project yet: add one with `dayfly project add NAME --repo URL`")
	case 1:
		return all[0], nil
	}
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.Name
	}
	slices.Sort(names)
	return dayfly.Project{}, dayfly.Invalid(dayfly.Problem{Field: "project", Message: fmt.Sprintf("say which one: %s", strings.Join(names, ", "))})
}
