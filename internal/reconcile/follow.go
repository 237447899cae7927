package reconcile

import (
	"context"
	"hash/fnv"
	"iter"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/resolve"
)

// News says whether repositories have changed.
type News interface {
	// Fingerprint changes whenever a branch of a local repository does; ok is
	// false for repositories elsewhere. It starts no process.
	Fingerprint(repo string) (print string, ok bool)
	// Heads gives the branches of a repository and their commits.
	Heads(ctx context.Context, repo, credential string) (dayfly.Heads, error)
}

const (
	// localPoll is how often the files of local repositories are looked at.
	localPoll = 300 * time.Millisecond
	// followers is how many repositories are asked at a time: one that does not answer must
	// not keep the others from being followed.
	followers = 8
	// longestPause is between looks at a repository that has not answered for long.
	longestPause = 30 * time.Minute
)

// followed is what is known of one repository that somebody follows.
type followed struct {
	busy  atomic.Bool // it is being asked; who set this has the rest for himself
	print string
	next  time.Time // the next look at a remote one, or at one whose followers want another
	fails int       // looks in a row without an answer
	known bool
	again bool // who follows wants another look although nothing may have changed

	mu    sync.Mutex // for what follows: others read it
	heads dayfly.Heads
	has   bool // heads are those of the last look
}

// last gives the heads as last seen.
func (f *followed) last() (heads dayfly.Heads, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heads, f.has
}

func (f *followed) saw(heads dayfly.Heads, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heads, f.has = heads, ok
}

// follower knows what is followed.
type follower struct {
	revision int64               // of the state that the next two were read from
	repos    map[string]string   // the credentials that projects have, by repository that somebody follows
	projects map[string][]string // projects by repository
	known    map[string]*followed
	slots    chan struct{} // a place for each that is being asked
	asking   sync.WaitGroup
	// projectLocks let one repository at a time change a project.
	projectLocks map[string]*sync.Mutex
}

// follow brings projects and environments up to date when the branches they follow move.
func (r *Reconciler) follow(ctx context.Context) {
	f := &follower{known: map[string]*followed{}, slots: make(chan struct{}, followers), projectLocks: map[string]*sync.Mutex{}}
	defer f.asking.Wait()
	tick := time.NewTicker(localPoll)
	defer tick.Stop()
	for {
		r.look(ctx, f)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look asks every repository for news once it is its turn.
func (r *Reconciler) look(ctx context.Context, f *follower) {
	if revision := r.Cache.Revision(); revision != f.revision {
		r.readRepos(f)
		f.revision = revision
	}
	for repo := range f.repos {
		if f.known[repo] == nil {
			f.known[repo] = &followed{}
		}
		known := f.known[repo]
		if !known.busy.CompareAndSwap(false, true) {
			continue
		}
		if !r.due(repo, known) {
			known.busy.Store(false)
			continue
		}
		turn := r.newTurn(f, repo)
		f.asking.Go(func() {
			defer known.busy.Store(false)
			select {
			case f.slots <- struct{}{}:
				defer func() { <-f.slots }()
			case <-ctx.Done():
				return
			}
			r.ask(ctx, turn)
		})
	}
}

// turn is one look at a repository: all that it needs, so that it shares nothing with the next
// one that is prepared.
type turn struct {
	repo, credential string
	known            *followed
	environments     []string
	projects         []followedProject
}

// followedProject is a project with all of its repositories.
type followedProject struct {
	name  string
	lock  *sync.Mutex
	repos map[string]*followed
}

func (r *Reconciler) newTurn(f *follower, repo string) turn {
	t := turn{repo: repo, credential: f.repos[repo], known: f.known[repo]}
	for res := range r.usersOf(repo) {
		t.environments = append(t.environments, res.Key)
		for _, rs := range res.Value.Services {
			if rs.Repo == repo && rs.Credential != "" {
				t.credential = rs.Credential
			}
		}
	}
	for _, name := range f.projects[repo] {
		if f.projectLocks[name] == nil {
			f.projectLocks[name] = &sync.Mutex{}
		}
		p := followedProject{name: name, lock: f.projectLocks[name], repos: map[string]*followed{}}
		for other, names := range f.projects {
			for _, n := range names {
				if n == name && f.known[other] != nil {
					p.repos[other] = f.known[other]
				}
			}
		}
		t.projects = append(t.projects, p)
	}
	return t
}

// ask looks at a repository and brings up to date what follows it.
func (r *Reconciler) ask(ctx context.Context, t turn) {
	first := !t.known.known
	if !r.changed(ctx, t) {
		return
	}
	again := false
	for _, p := range t.projects {
		p.lock.Lock()
		heads := map[string]dayfly.Heads{}
		for repo, known := range p.repos {
			if h, ok := known.last(); ok {
				heads[repo] = h
			}
		}
		more, err := r.Asked.FollowProject(ctx, p.name, heads)
		p.lock.Unlock()
		if err != nil && ctx.Err() == nil {
			r.Logger.Warn("a project could not be followed; it is tried again", "project", p.name, "error", err)
		}
		again = again || more || err != nil
	}
	heads, ok := t.known.last()
	var known map[string]dayfly.Heads
	if ok {
		known = map[string]dayfly.Heads{t.repo: heads}
	}
	many := resolve.Remember(ctx) // they mostly need the same of it
	for _, name := range t.environments {
		// The first time all are looked at: what hosts and variables are made from may
		// have changed with the server's flags.
		if first || !r.current(name, t.repo, heads.Branches) {
			r.refresh(many, name, known)
		}
	}
	t.known.again = again
	if _, local := r.News.Fingerprint(t.repo); again && local {
		t.known.next = r.Now().Add(r.Poll)
	}
}

// due says whether a repository has to be asked now. It starts no process.
func (r *Reconciler) due(repo string, f *followed) bool {
	if print, local := r.News.Fingerprint(repo); local {
		return !f.known || print != f.print || !f.next.IsZero() && !r.Now().Before(f.next)
	}
	return !r.Now().Before(f.next)
}

// usersOf gives the resolutions of the environments that have services from a repository.
func (r *Reconciler) usersOf(repo string) iter.Seq[registry.Record[dayfly.Resolution]] {
	return func(yield func(registry.Record[dayfly.Resolution]) bool) {
		for res := range registry.FromRepo(r.Cache, repo) {
			if e, ok := registry.Lookup(r.Cache, registry.Environments, res.Key); ok && !e.Value.Deleting && !yield(res) {
				return
			}
		}
	}
}

// readRepos finds which repositories somebody follows. It is done again only when the state has
// changed: a server at rest does nothing here. The environments of each are looked up when it is asked,
// for there may be very many.
func (r *Reconciler) readRepos(f *follower) {
	f.repos, f.projects = map[string]string{}, map[string][]string{}
	for p := range registry.All(r.Cache, registry.Projects) {
		for _, repo := range r.Asked.ProjectRepos(p.Value) {
			f.projects[repo] = append(f.projects[repo], p.Key)
			f.repos[repo] = p.Value.Credential
		}
	}
	for repo := range registry.ReposInUse(r.Cache) {
		if _, known := f.repos[repo]; known {
			continue
		}
		for range r.usersOf(repo) {
			f.repos[repo] = ""
			break
		}
	}
	maps.DeleteFunc(f.known, func(repo string, _ *followed) bool { _, ok := f.repos[repo]; return !ok })
	maps.DeleteFunc(f.projectLocks, func(name string, _ *sync.Mutex) bool {
		_, ok := registry.Lookup(r.Cache, registry.Projects, name)
		return !ok
	})
}

// changed says whether a repository has news. The first look at one counts as
// news: a branch may have moved while no server ran.
func (r *Reconciler) changed(ctx context.Context, t turn) bool {
	f := t.known
	print, local := r.News.Fingerprint(t.repo)
	if local {
		news := !f.known || print != f.print || !f.next.IsZero() && !r.Now().Before(f.next)
		if news {
			heads, err := r.News.Heads(ctx, t.repo, t.credential)
			// Without them nothing counts as current, and each environment says what is wrong.
			f.saw(heads, err == nil)
			f.next = time.Time{}
			if err != nil { // its files may stay as they are
				f.next = r.Now().Add(r.Poll)
			}
		}
		f.known, f.print = true, print
		return news
	}
	heads, err := r.News.Heads(ctx, t.repo, t.credential)
	if err != nil {
		f.fails++
		f.next = r.Now().Add(min(longestPause, r.Poll<<min(f.fails-1, 10)))
		first := !f.known
		f.known = true
		return first // say so once, through the environments
	}
	f.next = r.Now().Add(r.Poll)
	if f.fails > 0 || !f.known {
		// Those that are known at once at the start are asked one after the other from then on.
		f.next = r.Now().Add(spread(t.repo, r.Poll))
	}
	before, had := f.last()
	f.fails = 0
	f.saw(heads, true)
	news := !f.known || f.again || !had || before.Default != heads.Default || !maps.Equal(heads.Branches, before.Branches)
	f.known = true
	return news
}

// spread gives a repository its own place within an interval, never near its beginning.
func spread(repo string, interval time.Duration) time.Duration {
	h := fnv.New32a()
	h.Write([]byte(repo))
	return interval/2 + interval/2*time.Duration(h.Sum32()%1000)/1000
}

// current says whether an environment has what the branches of a repository lead to now, so
// that news of others' branches cost it nothing. Where that takes more than a glance at the
// commits it says no.
func (r *Reconciler) current(name, repo string, heads map[string]string) bool {
	rec, ok := registry.Lookup(r.Cache, registry.Environments, name)
	if !ok || rec.Value.Spec.Branch == "" || len(rec.Value.Spec.Services) > 0 {
		return false
	}
	res, ok := registry.Lookup(r.Cache, registry.Resolutions, name)
	if !ok || res.Value.Problem != "" {
		return false
	}
	for _, rs := range res.Value.Services {
		if rs.Repo == repo && (rs.Version != rec.Value.Spec.Branch || rs.Commit == "" || heads[rs.Version] != rs.Commit) {
			return false
		}
	}
	return true
}

// refresh brings one environment up to date, or writes why that is not possible.
func (r *Reconciler) refresh(ctx context.Context, name string, heads map[string]dayfly.Heads) {
	err := r.Asked.Refresh(ctx, name, heads)
	switch {
	case err == nil || ctx.Err() != nil:
		return
	case dayfly.ErrorCode(err) == dayfly.CodeConflict:
		err = r.Asked.Refresh(ctx, name, heads) // somebody changed it at the same moment
	}
	if err == nil {
		return
	}
	problem := "cannot follow its branch: " + err.Error()
	if res, ok := registry.Lookup(r.Cache, registry.Resolutions, name); ok && res.Value.Problem == problem {
		return // it was said
	}
	if err := r.Asked.ReportProblem(ctx, name, problem); err != nil {
		r.Logger.Warn("a problem could not be written", "environment", name, "error", err)
	}
	if e, ok := registry.Lookup(r.Cache, registry.Environments, name); ok {
		r.event(ctx, e.Value.ID, dayfly.Event{Environment: name, Kind: dayfly.EventWarning, Reason: "follow-failed", Message: problem})
	}
}
