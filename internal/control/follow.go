package control

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// told is what was last said about a branch that is no environment.
type told struct {
	commit, problem string
	again           time.Time // when it is tried again
}

// retryBranch is how long a branch waits that could not become an environment.
const retryBranch = time.Minute

// ProjectRepos gives the repositories whose branches concern a project.
func (*Control) ProjectRepos(p dayfly.Project) []string { return reposOf(p) }

func reposOf(p dayfly.Project) []string {
	repos := []string{p.Hosted()}
	if p.Repo != "" {
		repos = append(repos, p.Repo)
	}
	return append(repos, p.Repos...)
}

// FollowProject brings a project in line with its repositories: with what its file on the default
// branch says, and with the branches that become environments by themselves or have gone. Heads
// are those of the repositories that could be asked. It says whether it has to be asked again in a
// while although nothing changes.
func (c *Control) FollowProject(ctx context.Context, name string, heads map[string]dayfly.Heads) (again bool, err error) {
	p, err := c.addedProject(name)
	if err != nil {
		return false, nil //nolint:nilerr // it is gone
	}
	defer c.moves.Add(1)
	c.see(p, heads)
	p, files, err := c.followDefault(ctx, p, heads)
	if err != nil {
		return false, err
	}
	waits, err := c.endBranches(ctx, p, heads)
	if err != nil {
		return false, err
	}
	again, err = c.makeBranches(ctx, p, heads)
	return again || waits || files.Again > 0, err
}

// followDefault follows what is on the default branch: the project's file, and files of
// environments. Polls, pushes and hooks may do that at the same moment; one after the other they
// never follow an older commit after a newer one.
func (c *Control) followDefault(ctx context.Context, p dayfly.Project, heads map[string]dayfly.Heads) (dayfly.Project, FilesOutcome, error) {
	c.mu.Lock()
	lock := c.following[p.ID]
	if lock == nil {
		lock = make(chan struct{}, 1)
		c.following[p.ID] = lock
	}
	c.mu.Unlock()
	select {
	case lock <- struct{}{}:
		defer func() { <-lock }()
	case <-ctx.Done():
		return p, FilesOutcome{}, ctx.Err()
	}
	p, err := c.addedProject(p.Name)
	if err != nil {
		return p, FilesOutcome{}, err
	}
	if p, err = c.readProject(ctx, p, heads); err != nil {
		return p, FilesOutcome{}, err
	}
	files, err := c.syncProjectFiles(ctx, p)
	return p, files, err
}

// readProject reads the project's file again where the default branch has moved.
func (c *Control) readProject(ctx context.Context, p dayfly.Project, heads map[string]dayfly.Heads) (dayfly.Project, error) {
	home, ok := heads[p.Home()]
	commit := home.Branches[home.Default]
	if !ok || commit == "" || commit == p.Commit {
		return p, nil
	}
	// It was asked a while ago, and a push or a hook may have brought a newer commit since.
	home, err := c.resolver.Heads(ctx, p.Home(), c.tokenOf(dayfly.Secret{}, p))
	if err != nil {
		return p, err
	}
	if commit = home.Branches[home.Default]; commit == "" || commit == p.Commit {
		return p, nil
	}
	changed := p
	info, err := c.resolver.ProjectAt(ctx, p.Home(), c.tokenOf(dayfly.Secret{}, p), home.Default, commit)
	switch {
	case err == nil:
		tell(&changed, info)
	case ctx.Err() != nil || dayfly.ErrorCode(err) == dayfly.CodeUnavailable:
		return p, err
	default: // what the file said before goes on, and the mistake is shown
		changed.DefaultBranch, changed.Commit = home.Default, commit
		changed.Problem = fmt.Sprintf("the project file on %s cannot be used: %v", home.Default, err)
		c.tellProject(ctx, p, dayfly.EventWarning, "project-file", changed.Problem)
	}
	changed.PushURL = ""
	err = c.commit(ctx, registry.Update(registry.Projects, p.Name, changed, p.Revision))
	if err != nil && dayfly.ErrorCode(err) != dayfly.CodeConflict {
		return p, err
	}
	return c.addedProject(p.Name)
}

// endBranches ends the environments that were made because of a branch that is gone. It says
// whether one has to end as soon as it is no longer frozen.
func (c *Control) endBranches(ctx context.Context, p dayfly.Project, heads map[string]dayfly.Heads) (waits bool, err error) {
	var fresh map[string]dayfly.Heads
	for r := range registry.EnvironmentsOf(c.cache, p.Name) {
		rec := r.Value
		if !rec.Auto || rec.Source != "" || rec.Deleting || rec.Spec.Branch == "" {
			continue
		}
		repos := []string{p.Hosted()}
		if !rec.Pushed {
			repos = reposOf(p)
		}
		have := func(heads map[string]dayfly.Heads) bool {
			return slices.ContainsFunc(repos, func(repo string) bool { return mayHave(p, heads, repo, rec.Spec.Branch, rec.Pushed) })
		}
		if have(heads) {
			continue
		}
		if rec.Frozen {
			waits = true
			continue
		}
		// The branch may be newer than what is known of the repositories: a push makes its
		// environment at once. Asked after the record was read, they have it.
		if fresh == nil {
			if fresh, err = c.askAll(ctx, p); err != nil {
				c.log.Debug("a repository does not say whether a branch is gone", "project", p.Name, "error", err)
			}
			if ctx.Err() != nil {
				return waits, ctx.Err()
			}
			maps.DeleteFunc(fresh, func(repo string, _ dayfly.Heads) bool { _, ok := heads[repo]; return !ok })
		}
		if have(fresh) {
			waits = true
			continue
		}
		c.tellEnvironment(ctx, rec, "branch-gone", "the branch "+rec.Spec.Branch+" is gone: so is its environment")
		if _, err := c.deleteRecord(ctx, r, false); err != nil && dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			return waits, err
		}
	}
	for d := range registry.DismissedOf(c.cache, p.Name) {
		commits, known := branchCommits(p, heads, d.Value.Branch)
		if !known || isDismissed(d.Value, commits) {
			continue
		}
		if err := c.commit(ctx, registry.Delete(registry.Dismissed, d.Key)); err != nil {
			return waits, err
		}
	}
	return waits, nil
}

// mayHave says whether a repository has a branch, as far as one can tell: one that could not be
// asked may, and one without any branch is more likely broken than empty.
func mayHave(p dayfly.Project, heads map[string]dayfly.Heads, repo, branch string, pushed bool) bool {
	h, known := heads[repo]
	switch {
	case repo == p.Hosted():
		return h.Branches[branch] != "" || pushed && !known
	case !known || len(h.Branches) == 0:
		return true
	}
	return h.Branches[branch] != ""
}

// branchCommits gives the commits to which a branch leads in the repositories of a project. Known
// is false where one of them could not be asked.
func branchCommits(p dayfly.Project, heads map[string]dayfly.Heads, branch string) (commits []string, known bool) {
	known = true
	for _, repo := range reposOf(p) {
		h, ok := heads[repo]
		known = known && (ok || repo == p.Hosted())
		if commit := h.Branches[branch]; commit != "" {
			commits = append(commits, commit)
		}
	}
	return commits, known
}

// isDismissed says whether a branch is where it was when its environment was sent away.
func isDismissed(d registry.DismissedBranch, commits []string) bool {
	return len(commits) > 0 && !slices.ContainsFunc(commits, func(commit string) bool { return !slices.Contains(d.Commits, commit) })
}

// see remembers the branches of a project's repositories.
func (c *Control) see(p dayfly.Project, heads map[string]dayfly.Heads) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[p.ID] == nil {
		c.seen[p.ID] = map[string]dayfly.Heads{}
	}
	maps.Copy(c.seen[p.ID], heads)
}

// dismissal notes that a branch shall not become an environment again before it moves.
func (c *Control) dismissal(r registry.Record[dayfly.EnvironmentRecord]) []registry.Op {
	rec := r.Value
	res, ok := registry.Lookup(c.cache, registry.Resolutions, r.Key)
	if !ok || !rec.Auto || rec.Spec.Branch == "" {
		return nil
	}
	d := registry.DismissedBranch{Project: rec.Spec.Project, Branch: rec.Spec.Branch}
	// It may be behind its branch: frozen, or because of a mistake there.
	if p, ok := registry.Lookup(c.cache, registry.Projects, rec.Spec.Project); ok {
		c.mu.Lock()
		d.Commits, _ = branchCommits(p.Value, c.seen[p.Value.ID], rec.Spec.Branch)
		c.mu.Unlock()
	}
	for _, rs := range res.Value.Services {
		if rs.Version == rec.Spec.Branch && !slices.Contains(d.Commits, rs.Commit) {
			d.Commits = append(d.Commits, rs.Commit)
		}
	}
	return []registry.Op{registry.Put(registry.Dismissed, rec.ID, d)}
}

// makeBranches makes the environments of branches that have none: of those that were pushed here,
// and of those that the project's file names.
func (c *Control) makeBranches(ctx context.Context, p dayfly.Project, heads map[string]dayfly.Heads) (again bool, err error) {
	wanted := map[string]bool{} // whether it was pushed, by branch
	for _, repo := range reposOf(p) {
		for branch := range heads[repo].Branches {
			if hosted := repo == p.Hosted(); hosted || p.Branches.Match(branch) {
				wanted[branch] = wanted[branch] || hosted
			}
		}
	}
	has, going := map[string]bool{}, map[string]bool{}
	for r := range registry.EnvironmentsOf(c.cache, p.Name) {
		branch := r.Value.Spec.Branch
		pushed, ok := wanted[branch]
		usual := r.Key == c.usualName(p, branch)
		switch {
		case !ok || r.Value.Origin != "" && !usual:
		case r.Value.Deleting: // there is another one to be made when it is gone
			going[branch] = true
		default:
			has[branch] = true
			if usual {
				if err := c.mark(ctx, r.Key, wish{auto: true, pushed: pushed}); err != nil {
					return false, err
				}
			}
		}
	}
	maps.DeleteFunc(wanted, func(branch string, _ bool) bool { return has[branch] })
	branches := slices.Sorted(maps.Keys(wanted))
	// Those whose name is still in use come last: they wait for it.
	slices.SortStableFunc(branches, func(a, b string) int { return order(going[a]) - order(going[b]) })
	for _, branch := range branches {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		commits, _ := branchCommits(p, heads, branch)
		dismissed := false
		for d := range registry.DismissedOf(c.cache, p.Name) {
			dismissed = dismissed || d.Value.Branch == branch && isDismissed(d.Value, commits)
		}
		key, state := p.ID+"/"+branch, fmt.Sprint(commits)
		c.mu.Lock()
		last := c.told[key]
		c.mu.Unlock()
		if dismissed {
			continue
		}
		if last.commit == state && c.now().Before(last.again) {
			again = true
			continue
		}
		_, _, err := c.makeBranch(ctx, p, branch, wanted[branch], heads)
		if err == nil || ctx.Err() != nil {
			c.mu.Lock()
			delete(c.told, key)
			c.mu.Unlock()
			continue
		}
		again = true
		problem := fmt.Sprintf("the branch %s is no environment: %v", branch, err)
		if last.commit != state || last.problem != problem {
			c.tellProject(ctx, p, dayfly.EventWarning, "branch-skipped", problem)
		}
		c.mu.Lock()
		c.told[key] = told{state, problem, c.now().Add(retryBranch)}
		c.mu.Unlock()
	}
	return again, nil
}

func order(last bool) int {
	if last {
		return 1
	}
	return 0
}

// usualName is what the environment of a branch is called.
func (c *Control) usualName(p dayfly.Project, branch string) string {
	return dayfly.EnvironmentName(c.config.NamePattern, p.Name, branch)
}

// makeBranch makes the environment that a branch becomes by itself.
func (c *Control) makeBranch(ctx context.Context, p dayfly.Project, branch string, pushed bool, heads map[string]dayfly.Heads) (dayfly.Environment, bool, error) {
	return c.putNamed(ctx, wish{
		project: p, spec: dayfly.EnvironmentSpec{Name: c.usualName(p, branch), Project: p.Name, Branch: branch},
		auto: true, pushed: pushed, heads: heads,
	})
}

// repoOf says where the project's own commit of an environment comes from.
func repoOf(p dayfly.Project, rec dayfly.EnvironmentRecord) string {
	if rec.Pushed {
		return p.Hosted()
	}
	return p.Home()
}

// mark writes that an environment belongs to its branch, where the wish says so and the record
// does not.
func (c *Control) mark(ctx context.Context, name string, w wish) error {
	for {
		r, ok := registry.Lookup(c.cache, registry.Environments, name)
		rec := r.Value
		// One of a file ends with that, whatever becomes of the branch.
		auto, isPushed, frozen := rec.Auto || w.auto && rec.Source == "", rec.Pushed || w.pushed, rec.Frozen || w.frozen
		same := auto == rec.Auto && isPushed == rec.Pushed && frozen == rec.Frozen
		rec.Auto, rec.Pushed, rec.Frozen = auto, isPushed, frozen
		if !ok || rec.Deleting || same {
			return nil
		}
		err := c.commit(ctx, registry.Update(registry.Environments, name, rec, r.Revision))
		if dayfly.ErrorCode(err) != dayfly.CodeConflict {
			return err
		}
		if _, err := c.appeared(ctx, name); err != nil {
			return err
		}
	}
}

// tellProject makes an event of a project; one that cannot be written is logged.
func (c *Control) tellProject(ctx context.Context, p dayfly.Project, kind dayfly.EventKind, reason, message string) {
	err := registry.AppendEvent(ctx, c.store, p.ID, dayfly.Event{Time: c.now(), Kind: kind, Reason: reason, Message: message})
	if err != nil {
		c.log.Warn("an event could not be written", "project", p.Name, "reason", reason, "error", err)
	}
}

// tellEnvironment makes an event of an environment; one that cannot be written is logged.
func (c *Control) tellEnvironment(ctx context.Context, rec dayfly.EnvironmentRecord, reason, message string) {
	err := registry.AppendEvent(ctx, c.store, rec.ID, dayfly.Event{Time: c.now(), Environment: rec.Spec.Name, Kind: dayfly.EventStep, Reason: reason, Message: message})
	if err != nil {
		c.log.Warn("an event could not be written", "environment", rec.Spec.Name, "reason", reason, "error", err)
	}
}
