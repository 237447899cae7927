package control

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// PushedBranch is a branch that was pushed to this server; Commit is "" where it was deleted.
type PushedBranch struct {
	Name, Commit string
}

// PushProject finds the project whose branches are pushed to /git/NAME.git. One that nobody has
// added is made with its first branch: until then it has an id, and no revision.
func (c *Control) PushProject(_ context.Context, name string) (dayfly.Project, error) {
	if r, ok := registry.Lookup(c.cache, registry.Projects, name); ok {
		return c.project(r), nil
	}
	if err := dayfly.ValidName(name); err != nil {
		return dayfly.Project{}, dayfly.Invalid(dayfly.Problem{Field: "project", Message: err.Error()})
	}
	return dayfly.Project{Format: dayfly.Format, ID: c.reserve(name), Name: name}, nil
}

// reserve gives the id that the project of this name will have.
func (c *Control) reserve(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reserved[name] == "" {
		c.reserved[name] = dayfly.NewID()
	}
	return c.reserved[name]
}

// AdmitPush says whether a branch may be moved to a commit: the error says what is wrong with the
// definition there, or that its environment is not allowed. Nothing is written.
func (c *Control) AdmitPush(ctx context.Context, p dayfly.Project, b PushedBranch) error {
	if b.Commit == "" {
		return nil
	}
	if p.Revision == 0 {
		if there, ok := registry.Lookup(c.cache, registry.Projects, p.Name); ok && there.Value.ID != p.ID {
			return dayfly.Errorf(dayfly.CodeConflict, "project %s was added meanwhile: push again", p.Name)
		}
		if _, err := c.resolver.ProjectAt(ctx, p.Hosted(), dayfly.Secret{}, b.Name, b.Commit); err != nil {
			return err
		}
	}
	heads, err := c.pushedHeads(ctx, p, b)
	if err != nil {
		return err
	}
	w := wish{project: p, auto: true, pushed: true, replace: true, heads: heads, dry: true}
	followers := c.followersOf(p, b.Name)
	if len(followers) == 0 {
		w.spec = dayfly.EnvironmentSpec{Name: c.usualName(p, b.Name), Project: p.Name, Branch: b.Name}
		_, _, err := c.putNamed(ctx, w)
		return err
	}
	for _, r := range followers {
		if r.Value.Frozen {
			continue
		}
		w.spec, w.origin, w.source = r.Value.Spec, r.Value.Origin, r.Value.Source
		if _, _, err := c.put(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// pushedHeads gives the branches of a hosted repository as they are with one moved.
func (c *Control) pushedHeads(ctx context.Context, p dayfly.Project, b PushedBranch) (map[string]dayfly.Heads, error) {
	heads, err := c.resolver.Heads(ctx, p.Hosted(), dayfly.Secret{})
	if err != nil {
		return nil, err
	}
	branches := map[string]string{}
	maps.Copy(branches, heads.Branches)
	heads.Branches = branches
	if b.Commit != "" {
		heads.Branches[b.Name] = b.Commit
	}
	if heads.Default == "" { // that of the first push, see source
		heads.Default = b.Name
	}
	return map[string]dayfly.Heads{p.Hosted(): heads}, nil
}

// followersOf gives the environments that follow a branch of a project.
func (c *Control) followersOf(p dayfly.Project, branch string) (all []registry.Record[dayfly.EnvironmentRecord]) {
	for r := range registry.EnvironmentsOf(c.cache, p.Name) {
		if r.Value.Spec.Branch == branch && !r.Value.Deleting {
			all = append(all, r)
		}
	}
	return all
}

// PushLanded brings the environments of branches up to date that have been moved by a push, and
// tells what becomes of them until they are settled or ctx ends. What was pushed is done in any
// case.
func (c *Control) PushLanded(ctx context.Context, p dayfly.Project, branches []PushedBranch, wait bool, say func(line string)) {
	done := context.WithoutCancel(ctx)
	p, err := c.pushedProject(done, p)
	if err != nil {
		say("error: " + err.Error())
		return
	}
	heads, err := c.pushedHeads(done, p, PushedBranch{})
	c.see(p, heads)
	var files FilesOutcome
	if err == nil && p.Repo == "" {
		p, files, err = c.followDefault(done, p, heads)
	}
	if err != nil {
		say("error: " + err.Error())
		return
	}
	if p.Problem != "" {
		say("warning: " + p.Problem)
	}
	for _, origin := range slices.Sorted(maps.Keys(files.Problems)) {
		say("warning: " + fileProblem(origin, files.Problems[origin]))
	}
	begun := c.now()
	var moved []string
	for _, b := range branches {
		names, err := c.landed(done, p, b, heads, say)
		if err != nil {
			say(fmt.Sprintf("error: the branch %s: %v", b.Name, err))
		}
		moved = append(moved, names...)
	}
	if !wait {
		for _, name := range moved {
			if env, err := c.Environment(ctx, name); err == nil {
				say(name + ": " + addressOf(env))
			}
		}
		return
	}
	var all sync.WaitGroup
	for _, name := range moved {
		prefix := ""
		if len(moved) > 1 {
			prefix = name + ": "
		}
		all.Go(func() { c.narrate(ctx, name, begun, func(line string) { say(prefix + line) }) })
	}
	all.Wait()
}

// pushedProject gives the project of a push, and makes it where this is its first.
func (c *Control) pushedProject(ctx context.Context, p dayfly.Project) (dayfly.Project, error) {
	if p.Revision != 0 {
		return c.addedProject(p.Name)
	}
	made, _, err := c.createHosted(ctx, p.Name)
	if err == nil && made.ID != p.ID {
		err = dayfly.Errorf(dayfly.CodeConflict, "project %s was added meanwhile: push again", p.Name)
	}
	return made, err
}

// landed does what one moved branch asks for, and gives the environments that it moved.
func (c *Control) landed(ctx context.Context, p dayfly.Project, b PushedBranch, heads map[string]dayfly.Heads, say func(string)) (names []string, err error) {
	if b.Commit == "" {
		ended := false
		for r := range registry.EnvironmentsOf(c.cache, p.Name) {
			if r.Value.Spec.Branch != b.Name || !r.Value.Auto || !r.Value.Pushed || r.Value.Frozen {
				continue
			}
			say("environment " + r.Key + " ends with its branch")
			if ended = true; r.Value.Deleting { // the poll was quicker
				continue
			}
			c.tellEnvironment(ctx, r.Value, "branch-gone", "the branch "+b.Name+" was deleted by a push: so is its environment")
			if _, err := c.deleteRecord(ctx, r, false); err != nil && dayfly.ErrorCode(err) != dayfly.CodeNotFound {
				return nil, err
			}
		}
		for e := range registry.EndedNamed(c.cache, c.usualName(p, b.Name)) {
			if !ended && e.Value.Project == p.Name { // the poll was so quick that nothing is left
				say("environment " + e.Value.Name + " ends with its branch")
				ended = true
			}
		}
		return nil, nil
	}
	followers := c.followersOf(p, b.Name)
	if len(followers) == 0 {
		env, _, err := c.makeBranch(ctx, p, b.Name, true, heads)
		if err != nil {
			return nil, err
		}
		return []string{env.Name}, nil
	}
	for _, r := range followers {
		if r.Value.Frozen {
			say(fmt.Sprintf("environment %s is frozen and stays as it is: `dayfly unfreeze %s` lets it follow again", r.Key, r.Key))
			continue
		}
		w := wish{pushed: true, auto: r.Key == c.usualName(p, b.Name)}
		if err := c.mark(ctx, r.Key, w); err != nil {
			return names, err
		}
		if err := c.Refresh(ctx, r.Key, heads); err != nil {
			return names, err
		}
		names = append(names, r.Key)
	}
	return names, nil
}

// narrate tells what happens to an environment until it is settled.
func (c *Control) narrate(ctx context.Context, name string, begun time.Time, say func(line string)) {
	r, err := c.record(name)
	if err != nil {
		return
	}
	events, stop := context.WithCancel(ctx)
	var teller sync.WaitGroup
	last := int64(0)
	tell := func(e dayfly.Event) {
		if e.ID <= last {
			return
		}
		last = e.ID
		if e.Time.Before(begun) {
			return
		}
		say(fmt.Sprintf("%6.1fs  %s", e.Time.Sub(begun).Seconds(), e.Message))
		for _, l := range e.Log {
			say("         | " + l)
		}
	}
	teller.Go(func() {
		for e, err := range registry.WatchEvents(events, c.store, r.Value.ID, 0) {
			if err != nil {
				return
			}
			tell(e)
		}
	})
	_, err = c.WaitEnvironment(ctx, r.Value.ID, dayfly.Environment.Settled)
	stop()
	teller.Wait()
	if ctx.Err() != nil {
		return
	}
	if rest, err := registry.Events(ctx, c.store, r.Value.ID, last); err == nil {
		for _, e := range rest {
			tell(e)
		}
	}
	env, lookErr := c.Environment(ctx, r.Value.ID)
	switch {
	case err != nil || lookErr != nil:
		say("environment " + name + " is gone")
	case env.Phase == dayfly.PhaseReady || env.Phase == dayfly.PhaseAsleep:
		say("environment " + name + " is ready: " + addressOf(env))
	default:
		say(fmt.Sprintf("environment %s is %s: %s", name, env.Phase, env.Message))
		say("`dayfly details " + name + "` and `dayfly logs " + name + "` tell more")
	}
}

// addressOf says where an environment is reached.
func addressOf(env dayfly.Environment) string {
	if env.URL != "" {
		return env.URL
	}
	var all []string
	for _, s := range env.Services {
		if s.URL != "" {
			all = append(all, s.URL)
		}
	}
	if len(all) == 0 {
		return "it has no public address"
	}
	return strings.Join(all, " ")
}
