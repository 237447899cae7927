package reconcile

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// News says whether repositories have changed.
type News interface {
	// Fingerprint changes whenever a branch of a local repository does; ok is
	// false for repositories elsewhere. It starts no process.
	Fingerprint(repo string) (print string, ok bool)
	// Heads gives the branches of a repository and their commits.
	Heads(ctx context.Context, repo, credential string) (map[string]string, error)
}

// localPoll is how often the files of local repositories are looked at.
const localPoll = 300 * time.Millisecond

// followers is how many repositories are asked at a time: one that does not answer must
// not keep the others from being followed.
const followers = 8

// followed is what is known of one repository that environments follow.
type followed struct {
	busy  atomic.Bool // it is being asked; who set this has the rest for himself
	print string
	heads map[string]string
	next  time.Time // the next look at a remote one
	known bool
}

// follower knows what is followed.
type follower struct {
	revision   int64               // of the state that the next two were read from
	users      map[string][]string // environments by repository
	credential map[string]string   // by repository
	known      map[string]*followed
	slots      chan struct{} // a place for each that is being asked
	asking     sync.WaitGroup
}

// follow brings environments up to date when the branches they follow move.
func (r *Reconciler) follow(ctx context.Context) {
	f := &follower{known: map[string]*followed{}, slots: make(chan struct{}, followers)}
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
		r.readUsers(f)
		f.revision = revision
	}
	for repo, environments := range f.users {
		if f.known[repo] == nil {
			f.known[repo] = &followed{}
		}
		known, credential := f.known[repo], f.credential[repo]
		if !known.busy.CompareAndSwap(false, true) {
			continue
		}
		if !r.due(repo, known) {
			known.busy.Store(false)
			continue
		}
		f.asking.Go(func() {
			defer known.busy.Store(false)
			select {
			case f.slots <- struct{}{}:
				defer func() { <-f.slots }()
			case <-ctx.Done():
				return
			}
			first := !known.known
			if !r.changed(ctx, repo, credential, known) {
				return
			}
			for _, name := range environments {
				// The first time all are looked at: what hosts and variables are made from may
				// have changed with the server's flags.
				if first || !r.current(name, repo, known.heads) {
					r.refresh(ctx, name)
				}
			}
		})
	}
}

// due says whether a repository has to be asked now. It starts no process.
func (r *Reconciler) due(repo string, f *followed) bool {
	if print, local := r.News.Fingerprint(repo); local {
		return !f.known || print != f.print
	}
	return !r.Now().Before(f.next)
}

// readUsers finds who follows which repository. It is done again only when the state has
// changed: a server at rest does nothing here.
func (r *Reconciler) readUsers(f *follower) {
	f.users, f.credential = map[string][]string{}, map[string]string{}
	for e := range registry.All(r.Cache, registry.Environments) {
		res, ok := registry.Lookup(r.Cache, registry.Resolutions, e.Key)
		if !ok || e.Value.Deleting {
			continue
		}
		seen := map[string]bool{}
		for _, rs := range res.Value.Services {
			if !seen[rs.Repo] {
				seen[rs.Repo] = true
				f.users[rs.Repo] = append(f.users[rs.Repo], e.Key)
				f.credential[rs.Repo] = rs.Credential
			}
		}
	}
	maps.DeleteFunc(f.known, func(repo string, _ *followed) bool { return f.users[repo] == nil })
}

// changed says whether a repository has news. The first look at one counts as
// news: a branch may have moved while no server ran.
func (r *Reconciler) changed(ctx context.Context, repo, credential string, f *followed) bool {
	if print, local := r.News.Fingerprint(repo); local {
		news := !f.known || print != f.print
		if news && f.known {
			// Without them nothing counts as current, and each environment says what is wrong.
			f.heads, _ = r.News.Heads(ctx, repo, credential)
		}
		f.known, f.print = true, print
		return news
	}
	f.next = r.Now().Add(r.Poll)
	heads, err := r.News.Heads(ctx, repo, credential)
	if err != nil {
		return !f.known // say so once, through the environments
	}
	news := !f.known || !maps.Equal(heads, f.heads)
	f.known, f.heads = true, heads
	return news
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
func (r *Reconciler) refresh(ctx context.Context, name string) {
	err := r.Asked.Refresh(ctx, name)
	switch {
	case err == nil || ctx.Err() != nil:
		return
	case dayfly.ErrorCode(err) == dayfly.CodeConflict:
		err = r.Asked.Refresh(ctx, name) // somebody changed it at the same moment
	}
	if err == nil {
		return
	}
	problem := "cannot follow its branch: " + err.Error()
	if err := r.Asked.ReportProblem(ctx, name, problem); err != nil {
		r.Logger.Warn("a problem could not be written", "environment", name, "error", err)
	}
	if e, ok := registry.Lookup(r.Cache, registry.Environments, name); ok {
		r.event(ctx, e.Value.ID, dayfly.Event{Environment: name, Kind: dayfly.EventWarning, Reason: "follow-failed", Message: problem})
	}
}
