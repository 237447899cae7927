package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
)

// onAll runs a test with every runner.
func onAll(t *testing.T, run func(*world)) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			w := newWorld(t, k)
			w.start()
			run(w)
		})
	}
}

func TestAnEnvironmentStartsInTheOrderOfItsNeeds(t *testing.T) {
	onAll(t, func(w *world) {
		w.create(chain("1")...)
		w.versions(dayfly.PhaseReady, "1", 3)
		w.stop() // writes what is still to be told
		events := w.events()
		var order []int
		for _, what := range []string{"migrate has completed", "starting 1 of backend", "backend is healthy", "starting 1 of frontend", "frontend is healthy"} {
			at := slices.Index(events, what)
			if at < 0 {
				w.Errorf("no event %q in %q", what, events)
			}
			order = append(order, at)
		}
		if !slices.IsSorted(order) {
			w.Errorf("not in order: %q", events)
		}
	})
}

func TestANewVersionTakesOverWithoutAGap(t *testing.T) {
	onAll(t, func(w *world) {
		w.create(chain("1")...)
		w.versions(dayfly.PhaseReady, "1", 3)
		end := w.noGap()
		for _, version := range []string{"2", "3"} {
			w.update(chain(version)...)
			w.versions(dayfly.PhaseReady, version, 3)
		}
		end()
		// What is as it was is not touched.
		before := w.instances()
		w.update(append(chain("3")[:2:2], service("migrate", job, "4", nil))...)
		w.until("migrate at 4", func() bool {
			in, _ := w.gather()
			return in.Release.Services["migrate"][0].Version == "4" && len(in.Deployments) == 3
		})
		after := w.instances()
		for _, name := range []string{"frontend", "backend"} {
			if diff := cmp.Diff(before[name], after[name]); diff != "" {
				w.Errorf("%s changed with migrate:\n%s", name, diff)
			}
		}
	})
}

func TestAVersionThatFailsLeavesTheOldOneAlone(t *testing.T) {
	for _, broken := range []string{badBuild, crashing} {
		t.Run(broken, func(t *testing.T) {
			onAll(t, func(w *world) {
				w.create(service("frontend", web, "1", nil))
				w.versions(dayfly.PhaseReady, "1", 1)
				end := w.noGap()
				before := w.instances()["frontend"]
				w.update(service("frontend", broken, "2", nil))
				w.versions(dayfly.PhaseDegraded, "1", 2)
				if !slices.ContainsFunc(w.instances()["frontend"], func(i dayfly.Instance) bool { return i.ID == before[0].ID }) {
					w.Errorf("the old instance is gone: %+v", w.instances())
				}
				w.told(func(e string) bool { return strings.Contains(e, "the build failed") || strings.Contains(e, "code 3") })
				w.update(service("frontend", web, "3", nil))
				w.versions(dayfly.PhaseReady, "3", 1)
				end()
			})
		})
	}
}

func TestAServiceThatIsNoLongerAskedForGoes(t *testing.T) {
	onAll(t, func(w *world) {
		w.create(chain("1")...)
		w.versions(dayfly.PhaseReady, "1", 3)
		w.update(service("frontend", web, "1", nil))
		w.until("only the frontend is left", func() bool {
			in, _ := w.gather()
			return len(in.Deployments) == 1 && len(in.Release.Services) == 1 && len(w.there()) == 1
		})
	})
}

func TestDeletingLeavesOnlyLogsAndEventsAndThoseForAWhile(t *testing.T) {
	onAll(t, func(w *world) {
		w.create(chain("1")...)
		w.versions(dayfly.PhaseReady, "1", 3)
		id := w.view().ID
		w.delete()
		w.until("gone", func() bool { _, ok := w.gather(); return !ok })
		counts := func() map[string]int {
			return map[string]int{
				"environments": registry.Len(w.cache, registry.Environments), "resolutions": registry.Len(w.cache, registry.Resolutions),
				"releases": registry.Len(w.cache, registry.Releases), "deployments": registry.Len(w.cache, registry.Deployments),
				"observed": registry.Len(w.cache, registry.Observed), "hosts": registry.Len(w.cache, registry.Hosts),
				"addresses": registry.Len(w.cache, registry.Addresses), "in the runner": len(w.there()),
				"ended": registry.Len(w.cache, registry.Ended), "retired": registry.Len(w.cache, registry.Retired),
			}
		}
		want := map[string]int{
			"environments": 0, "resolutions": 0, "releases": 0, "deployments": 0, "observed": 0, "hosts": 0, "addresses": 0, "in the runner": 0,
			"ended": 1, "retired": 3,
		}
		if diff := cmp.Diff(want, counts()); diff != "" {
			w.Errorf("left (-want +got):\n%s", diff)
		}
		w.told(func(e string) bool { return e == "the environment is gone" })
		w.mu.Lock()
		w.ahead = 2 * time.Hour
		w.mu.Unlock()
		w.restart() // the pruner looks at once when it starts
		w.until("its events and logs are pruned", func() bool {
			return registry.Len(w.cache, registry.Ended) == 0 && registry.Len(w.cache, registry.Retired) == 0
		})
		if events, err := registry.Events(w.Context(), w.store, id, 0); err != nil || len(events) > 0 {
			w.Errorf("events left: %v, %v", events, err)
		}
	})
}

func TestARestartAdoptsWhatRuns(t *testing.T) {
	onAll(t, func(w *world) {
		w.create(chain("1")...)
		w.versions(dayfly.PhaseReady, "1", 3)
		before, deployments := w.instances(), w.there()
		revision := w.cache.Revision()
		w.restart()
		// Something that is reconciled after everything else was looked at.
		w.update(append(chain("1"), service("other", web, "1", nil))...)
		w.versions(dayfly.PhaseReady, "1", 4)
		after := w.instances()
		delete(after, "other")
		if diff := cmp.Diff(before, after); diff != "" {
			w.Errorf("not as before the restart (%d changes):\n%s", w.cache.Revision()-revision, diff)
		}
		for _, id := range deployments {
			if !slices.Contains(w.there(), id) {
				w.Errorf("deployment %s is gone", id)
			}
		}
	})
}

func TestStoppingAnywhereLosesAndDoublesNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	onAll(t, func(w *world) {
		random := rand.New(rand.NewPCG(seed, 2))
		// disturbed restarts the reconciler after a few changes of the state, several times.
		disturbed := func(what string, is func() bool) {
			w.Helper()
			for range 3 {
				left := random.IntN(12)
				w.until(what, func() bool { left--; return left < 0 || is() })
				w.restart()
			}
			w.until(what, is)
		}
		at := func(version string) func() bool {
			return func() bool {
				in, ok := w.gather()
				if !ok || len(in.Deployments) != 3 || w.view().Phase != dayfly.PhaseReady {
					return false
				}
				for _, targets := range in.Release.Services {
					if targets[0].Version != version {
						return false
					}
				}
				return len(in.Release.Services) == 3
			}
		}
		w.create(chain("1")...)
		disturbed("ready at 1", at("1"))
		end := w.noGap()
		w.update(chain("2")...)
		disturbed("ready at 2", at("2"))
		end()
		if there := w.there(); len(there) != 3 {
			w.Errorf("the runner has %d deployments, want 3", len(there))
		}
		w.delete()
		disturbed("gone", func() bool { _, ok := w.gather(); return !ok })
		if there := w.there(); len(there) != 0 {
			w.Errorf("the runner has %v after the deletion", there)
		}
	})
}

func TestWhatNoRecordKnowsIsRemovedAtTheStart(t *testing.T) {
	onAll(t, func(w *world) {
		w.create(service("frontend", web, "1", nil))
		w.versions(dayfly.PhaseReady, "1", 1)
		orphan := dayfly.Deployment{ID: dayfly.NewID(), Key: dayfly.DeploymentKey{Project: "p", Service: "s"}, Definition: service("s", web, "1", nil).Definition}
		if err := errors.Join(w.runner.Prepare(w.Context(), orphan), w.runner.Ensure(w.Context(), orphan, 1)); err != nil {
			w.Fatal(err)
		}
		w.restart()
		ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
		defer cancel()
		gone := func() bool { return !slices.Contains(w.there(), orphan.ID) }
		for range w.runner.Changes(ctx) {
			if gone() {
				break
			}
		}
		if !gone() {
			w.Fatal("the orphan is still there")
		}
		w.versions(dayfly.PhaseReady, "1", 1)
	})
}

func TestAnInstanceThatTheClusterMovesIsFollowed(t *testing.T) {
	onAll(t, func(w *world) {
		if w.host.move == nil {
			return // nothing moves by itself there
		}
		w.create(chain("1")...)
		w.versions(dayfly.PhaseReady, "1", 3)
		for range 5 {
			before := w.instances()["frontend"][0]
			w.host.move(before.ID)
			w.until("at another address", func() bool {
				now := w.instances()["frontend"]
				return len(now) == 1 && now[0].Address != before.Address && w.view().Phase == dayfly.PhaseReady
			})
		}
	})
}

// news is a repository whose branches the test moves.
type news struct{ print chan string }

func (n news) Fingerprint(string) (string, bool) {
	p := <-n.print
	n.print <- p
	return p, true
}

func (news) Heads(context.Context, string, string) (dayfly.Heads, error) { return dayfly.Heads{}, nil }

// branches is a repository whose branches are on these commits.
type branches struct {
	news
	heads map[string]string // not changed after the print
}

func (b branches) Heads(context.Context, string, string) (dayfly.Heads, error) {
	return dayfly.Heads{Branches: b.heads}, nil
}

func TestOnlyWhatANewCommitConcernsIsResolvedAgain(t *testing.T) {
	w := newWorld(t, kinds()[0])
	at := func(version, commit string) dayfly.ResolvedService {
		rs := service("web-"+commit, web, commit, nil)
		rs.Version, rs.Hosts, rs.Address = version, nil, ""
		return rs
	}
	for name, e := range map[string]struct {
		spec dayfly.EnvironmentSpec
		res  dayfly.Resolution
	}{
		"a-stays":    {dayfly.EnvironmentSpec{Branch: "stays"}, dayfly.Resolution{Services: []dayfly.ResolvedService{at("stays", "1")}}},
		"b-moves":    {dayfly.EnvironmentSpec{Branch: "moves"}, dayfly.Resolution{Services: []dayfly.ResolvedService{at("moves", "1")}}},
		"c-gone":     {dayfly.EnvironmentSpec{Branch: "gone"}, dayfly.Resolution{Services: []dayfly.ResolvedService{at("gone", "1")}}},
		"d-default":  {dayfly.EnvironmentSpec{}, dayfly.Resolution{Services: []dayfly.ResolvedService{at("stays", "1")}}},
		"e-problem":  {dayfly.EnvironmentSpec{Branch: "stays"}, dayfly.Resolution{Problem: "no", Services: []dayfly.ResolvedService{at("stays", "1")}}},
		"f-pinned":   {dayfly.EnvironmentSpec{Branch: "stays", Services: []dayfly.ServiceSpec{{Name: "web-1", Version: "tag"}}}, dayfly.Resolution{Services: []dayfly.ResolvedService{at("tag", "1")}}},
		"g-instead":  {dayfly.EnvironmentSpec{Branch: "begins"}, dayfly.Resolution{Services: []dayfly.ResolvedService{at("stays", "1")}}},
		"h-one-of-2": {dayfly.EnvironmentSpec{Branch: "stays"}, dayfly.Resolution{Services: []dayfly.ResolvedService{at("stays", "1"), at("stays", "0")}}},
		"z-last":     {dayfly.EnvironmentSpec{Branch: "moves"}, dayfly.Resolution{Services: []dayfly.ResolvedService{at("moves", "1")}}},
	} {
		id := dayfly.NewID()
		e.spec.Name, e.spec.Project = name, "p"
		e.res.Format, e.res.Environment = dayfly.Format, id
		w.commit(
			registry.Create(registry.Environments, name, dayfly.EnvironmentRecord{Format: dayfly.Format, ID: id, Spec: e.spec}),
			registry.Create(registry.Resolutions, name, e.res),
			registry.Create(registry.Releases, name, release.State{Format: dayfly.Format, Services: map[string][]release.Target{}}))
	}
	b := branches{news{make(chan string, 1)}, map[string]string{"stays": "1", "moves": "2", "begins": "2"}}
	b.print <- "1"
	refreshed := make(chan string)
	w.news = b
	w.asked = asked{refresh: func(name string) error {
		select {
		case refreshed <- name:
		case <-w.Context().Done():
		}
		return nil
	}}
	w.start()
	read := func() (names []string) {
		for name := range refreshed {
			if names = append(names, name); name == "z-last" {
				break
			}
		}
		return names
	}
	if got := read(); len(got) != 9 {
		t.Errorf("at the start only %v are looked at", got)
	}
	<-b.print
	b.print <- "2"
	want := []string{"b-moves", "c-gone", "d-default", "e-problem", "f-pinned", "g-instead", "h-one-of-2", "z-last"}
	if got := read(); !slices.Equal(got, want) {
		t.Errorf("refreshed %v, want %v", got, want)
	}
}

func TestABranchThatMovesIsFollowedAndAProblemIsSaid(t *testing.T) {
	w := newWorld(t, kinds()[0])
	repository := news{make(chan string, 1)}
	repository.print <- "1"
	refreshed, problems := make(chan string, 10), make(chan string, 10)
	result := make(chan error, 10)
	w.news = repository
	w.asked = asked{
		refresh: func(name string) error { refreshed <- name; return <-result },
		problem: func(name, problem string) { problems <- name + ": " + problem },
	}
	result <- nil
	w.create(service("frontend", web, "1", nil))
	w.start()
	if name := <-refreshed; name != "e" { // a branch may have moved while no server ran
		t.Errorf("refreshed %s", name)
	}
	<-repository.print
	repository.print <- "2"
	result <- fmt.Errorf("the branch is gone")
	<-refreshed
	if p := <-problems; p != "e: cannot follow its branch: the branch is gone" {
		t.Errorf("problem %q", p)
	}
	<-repository.print
	repository.print <- "3"
	result <- dayfly.Errorf(dayfly.CodeConflict, "somebody was faster")
	result <- nil
	<-refreshed
	<-refreshed // a conflict is tried again at once
	select {
	case p := <-problems:
		t.Errorf("a conflict became a problem: %s", p)
	default:
	}
}

func TestWhatHasExpiredIsEndedWhenItIsDue(t *testing.T) {
	w := newWorld(t, kinds()[0])
	ended := make(chan bool, 1)
	w.asked = asked{expire: func() ([]string, error) {
		select {
		case ended <- true:
		default:
		}
		return nil, nil
	}}
	w.create(service("frontend", web, "1", nil))
	rec, _ := registry.Lookup(w.cache, registry.Environments, "e")
	due := w.now().Add(time.Hour)
	rec.Value.ExpiresAt = &due
	w.commit(registry.Update(registry.Environments, "e", rec.Value, rec.Revision))
	w.start()
	w.versions(dayfly.PhaseReady, "1", 1)
	select {
	case <-ended:
		t.Fatal("ended an hour too early")
	default:
	}
	w.mu.Lock()
	w.ahead = time.Hour + time.Second
	w.mu.Unlock()
	w.restart() // while one runs, a clock that jumps is not believed
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("never ended")
	}
}

// partly is two repositories: "silent" never answers, the others have one branch.
type partly struct{ asked chan string }

func (partly) Fingerprint(string) (string, bool) { return "", false }

func (p partly) Heads(ctx context.Context, repo, _ string) (dayfly.Heads, error) {
	p.asked <- repo
	if repo == "silent" {
		<-ctx.Done()
		return dayfly.Heads{}, ctx.Err()
	}
	return dayfly.Heads{Branches: map[string]string{"main": "1"}}, nil
}

func TestARepositoryThatDoesNotAnswerKeepsNoOtherFromBeingFollowed(t *testing.T) {
	w := newWorld(t, kinds()[0])
	for name, repo := range map[string]string{"a": "silent", "b": "quick"} {
		rs := service("web-"+name, web, "1", nil)
		rs.Repo, rs.Hosts, rs.Address = repo, nil, ""
		id := dayfly.NewID()
		w.commit(
			registry.Create(registry.Environments, name, dayfly.EnvironmentRecord{Format: dayfly.Format, ID: id, Spec: dayfly.EnvironmentSpec{Name: name, Project: "p", Branch: "main"}}),
			registry.Create(registry.Resolutions, name, dayfly.Resolution{Format: dayfly.Format, Environment: id, Services: []dayfly.ResolvedService{rs}}),
			registry.Create(registry.Releases, name, release.State{Format: dayfly.Format, Services: map[string][]release.Target{}}))
	}
	p := partly{make(chan string, 100)}
	refreshed := make(chan string, 100)
	w.news = p
	w.asked = asked{refresh: func(name string) error { refreshed <- name; return nil }}
	w.start()
	for asked := map[string]bool{}; !asked["silent"] || !asked["quick"]; {
		asked[<-p.asked] = true
	}
	if name := <-refreshed; name != "b" {
		t.Errorf("refreshed %s", name)
	}
}

// faulty is one repository that answers as the test says.
type faulty struct {
	local bool
	fails chan bool // whether the next question fails
	asked chan time.Time
	now   func() time.Time
}

func (f faulty) Fingerprint(string) (string, bool) { return "same", f.local }

func (f faulty) Heads(context.Context, string, string) (dayfly.Heads, error) {
	fails := <-f.fails
	f.asked <- f.now()
	if fails {
		return dayfly.Heads{}, fmt.Errorf("no answer")
	}
	return dayfly.Heads{Default: "main", Branches: map[string]string{"main": "1"}}, nil
}

// pass sets the clock forward in steps until the repository is asked, and says how long that took.
func (w *world) pass(f faulty, fails bool, step time.Duration) time.Duration {
	w.Helper()
	f.fails <- fails
	began := w.now()
	for {
		select {
		case at := <-f.asked:
			return at.Sub(began)
		case <-time.After(400 * time.Millisecond): // it had its chance: it looks every 300 ms
			w.mu.Lock()
			w.ahead += step
			w.mu.Unlock()
		case <-w.Context().Done():
			w.Fatal("it is never asked")
		}
	}
}

func TestARepositoryThatDoesNotAnswerIsAskedLessAndLessOften(t *testing.T) {
	w := newWorld(t, kinds()[0])
	w.commit(registry.Create(registry.Projects, "p", dayfly.Project{Format: dayfly.Format, ID: dayfly.NewID(), Name: "p", Repo: "elsewhere"}))
	f := faulty{fails: make(chan bool, 1), asked: make(chan time.Time), now: w.now}
	w.news = f
	w.start()
	w.pass(f, true, 0)
	for i, least := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		least *= time.Minute
		if got := w.pass(f, true, least/2); got < least-10*time.Second {
			t.Errorf("pause %d: %s, want %s", i, got, least)
		}
	}
	w.pass(f, false, 30*time.Minute)
	if got := w.pass(f, false, time.Minute/4); got > 2*time.Minute { // back to what is usual
		t.Errorf("it is asked after %s", got)
	}
}

func TestALocalRepositoryThatCouldNotBeReadIsReadAgainAlthoughItStays(t *testing.T) {
	w := newWorld(t, kinds()[0])
	w.commit(registry.Create(registry.Projects, "p", dayfly.Project{Format: dayfly.Format, ID: dayfly.NewID(), Name: "p", Repo: "/here"}))
	f := faulty{local: true, fails: make(chan bool, 1), asked: make(chan time.Time), now: w.now}
	followed := make(chan int, 10)
	w.news = f
	w.asked = asked{follow: func(_ string, heads map[string]dayfly.Heads) (bool, error) {
		followed <- len(heads)
		return false, nil
	}}
	w.start()
	w.pass(f, true, 0)
	if n := <-followed; n != 0 {
		t.Errorf("what is not known counts as known")
	}
	w.pass(f, false, time.Minute)
	if n := <-followed; n != 1 {
		t.Errorf("it is followed with %d repositories", n)
	}
}

func TestAProblemThatStaysIsSaidOnce(t *testing.T) {
	w := newWorld(t, kinds()[0])
	repository := news{make(chan string, 1)}
	repository.print <- "0"
	refreshed := make(chan string)
	w.news = repository
	w.asked = asked{
		refresh: func(name string) error { refreshed <- name; return fmt.Errorf("the branch is gone") },
		problem: func(_, problem string) {
			res, _ := registry.Lookup(w.cache, registry.Resolutions, "e")
			res.Value.Problem = problem
			w.commit(registry.Update(registry.Resolutions, "e", res.Value, res.Revision))
		},
	}
	w.create(service("frontend", web, "1", nil))
	w.start()
	<-refreshed
	said := func() (n int) {
		for _, message := range w.events() {
			if message == "cannot follow its branch: the branch is gone" {
				n++
			}
		}
		return n
	}
	w.told(func(message string) bool { return strings.HasPrefix(message, "cannot follow") })
	for i := range 5 {
		<-repository.print
		repository.print <- fmt.Sprint(i + 1)
		<-refreshed
	}
	w.stop() // all that was begun is done
	if n := said(); n != 1 {
		t.Errorf("said %d times", n)
	}
}
