package control_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/control"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// branchesOf gives the heads of a repository with these branches, each as NAME=COMMIT.
func branchesOf(all ...string) dayfly.Heads {
	heads := dayfly.Heads{Default: "main", Branches: map[string]string{}}
	for _, b := range all {
		name, commit, _ := strings.Cut(b, "=")
		heads.Branches[name] = commit
	}
	return heads
}

// holds says what a repository has from now on.
func (w *world) holds(repo string, all ...string) {
	w.git.change(func() {
		if w.git.heads == nil {
			w.git.heads = map[string]dayfly.Heads{}
		}
		w.git.heads[repo] = branchesOf(all...)
	})
}

// known gives the branches of the repositories of a project that answer.
func (w *world) known(name string) map[string]dayfly.Heads {
	w.Helper()
	p, err := w.Project(context.Background(), name)
	if err != nil {
		w.Fatal(err)
	}
	heads := map[string]dayfly.Heads{}
	for _, repo := range w.ProjectRepos(p) {
		if h, err := w.git.Heads(context.Background(), repo, dayfly.Secret{}); err == nil {
			heads[repo] = h
		}
	}
	return heads
}

// follow looks at the repositories of a project as often as it asks for, and lets go what ends.
func (w *world) follow(name string) (again bool) {
	w.Helper()
	for range 2 {
		var err error
		if again, err = w.FollowProject(context.Background(), name, w.known(name)); err != nil {
			w.Fatal(err)
		}
		w.letGo()
	}
	return again
}

// letGo removes what is on its way out.
func (w *world) letGo() {
	w.Helper()
	for r := range registry.All(w.cache, registry.Environments) {
		if r.Value.Deleting {
			w.forget(dayfly.Environment{ID: r.Value.ID, Name: r.Key, Project: r.Value.Spec.Project})
		}
	}
}

// names gives the environments that are not on their way out.
func (w *world) names() (names []string) {
	for r := range registry.All(w.cache, registry.Environments) {
		if !r.Value.Deleting {
			names = append(names, r.Key)
		}
	}
	return names
}

func (w *world) are(names ...string) {
	w.Helper()
	if got := w.names(); !slices.Equal(got, names) {
		w.Errorf("the environments are %q, want %q", got, names)
	}
}

// reasons counts the events of a project or an environment, by reason.
func (w *world) reasons(id string) map[string]int {
	w.Helper()
	events, err := registry.Events(w.Context(), w.store, id, 0)
	if err != nil {
		w.Fatal(err)
	}
	counts := map[string]int{}
	for _, e := range events {
		counts[e.Reason]++
	}
	return counts
}

// followed is a world whose project has branches that become environments.
func followed(t *testing.T, change ...func(*control.Config)) *world {
	w := start(t, change...)
	w.git.branches = dayfly.BranchPatterns{"*", "!main"}
	w.holds(shopRepo, "main=m1", "a=a1", "b=b1")
	w.shop().follow("shop")
	return w
}

func (w *world) project() dayfly.Project {
	w.Helper()
	p, err := w.Project(w.Context(), "shop")
	if err != nil {
		w.Fatal(err)
	}
	return p
}

func TestABranchBecomesAnEnvironmentAndEndsIt(t *testing.T) {
	w := followed(t)
	w.are("shop-a", "shop-b")
	w.holds(shopRepo, "main=m1", "b=b1", "c=c1")
	w.follow("shop")
	w.are("shop-b", "shop-c")
}

func TestARepositoryThatIsBrokenEndsNothing(t *testing.T) {
	for name, broken := range map[string]func(*world){
		"it does not answer":      func(w *world) { w.git.silent = map[string]bool{shopRepo: true} },
		"it has no branch at all": func(w *world) { w.git.heads[shopRepo] = dayfly.Heads{} },
		"another does not answer": func(w *world) {
			w.git.heads[shopRepo] = branchesOf("main=m1")
			w.git.silent = map[string]bool{"https://git.example/acme/api": true}
		},
		"its default branch is gone": func(w *world) { w.git.heads[shopRepo] = branchesOf("a=a1", "b=b1") },
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			w.git.repos = []string{"https://git.example/acme/api"}
			w.git.branches = dayfly.BranchPatterns{"*", "!main"}
			w.holds(shopRepo, "main=m1", "a=a1", "b=b1")
			w.holds("https://git.example/acme/api", "main=m1")
			w.shop().follow("shop")
			w.git.change(func() { broken(w) })
			w.follow("shop")
			w.are("shop-a", "shop-b")
		})
	}
}

func TestAnEnvironmentIsNotEndedByWhatWasSeenBeforeItsBranchWasThere(t *testing.T) {
	w := followed(t)
	before := w.known("shop")
	w.push("new", "n1")
	w.are("shop-a", "shop-b", "shop-new")
	if again, err := w.FollowProject(t.Context(), "shop", before); err != nil || !again {
		t.Errorf("again %t, %v", again, err)
	}
	w.are("shop-a", "shop-b", "shop-new")
}

func TestTheDefaultBranchIsNotTakenBackByWhatWasSeenBefore(t *testing.T) {
	w := followed(t)
	before := w.known("shop")
	w.holds(shopRepo, "main=m2", "a=a1", "b=b1")
	w.follow("shop")
	if _, err := w.FollowProject(t.Context(), "shop", before); err != nil {
		t.Fatal(err)
	}
	if p := w.project(); p.Commit != "m2" {
		t.Errorf("the project is at %s", p.Commit)
	}
}

func TestABranchThatComesBackWhileItsEnvironmentIsOnItsWayOutIsAnEnvironmentAgain(t *testing.T) {
	w := followed(t)
	old := w.record("shop-a").Value
	w.holds(shopRepo, "main=m1", "b=b1")
	if _, err := w.FollowProject(t.Context(), "shop", w.known("shop")); err != nil {
		t.Fatal(err)
	}
	w.holds(shopRepo, "main=m1", "a=a1", "b=b1")
	done := make(chan error, 1)
	heads := w.known("shop")
	go func() {
		_, err := w.FollowProject(w.Context(), "shop", heads)
		done <- err
	}()
	w.letGo()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := w.record("shop-a").Value; got.ID == old.ID || got.Deleting {
		t.Errorf("there is %+v", got)
	}
}

func TestAnEnvironmentThatSomebodyDeletedStaysAwayUntilItsBranchMoves(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(*world)
	}{
		{"up to date", func(*world) {}},
		{"frozen and behind its branch", func(w *world) {
			yes := true
			if _, err := w.PatchEnvironment(w.Context(), "shop-a", dayfly.EnvironmentPatch{Frozen: &yes}, 0); err != nil {
				w.Fatal(err)
			}
			w.holds(shopRepo, "main=m1", "a=a2", "b=b1")
			w.follow("shop")
		}},
		{"pushed here, and at another commit elsewhere", func(w *world) { w.push("a", "pushed") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := followed(t)
			c.before(w)
			w.follow("shop")
			if _, err := w.DeleteEnvironment(t.Context(), "shop-a", dayfly.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			w.letGo()
			w.follow("shop")
			w.Control = w.again()
			w.follow("shop")
			w.are("shop-b")
			w.holds(shopRepo, "main=m1", "a=a9", "b=b1")
			w.follow("shop")
			w.are("shop-a", "shop-b")
		})
	}
}

func TestAFrozenEnvironmentStaysWhenItsBranchGoesAndEndsWhenItFollowsAgain(t *testing.T) {
	w := followed(t)
	frozen := true
	if _, err := w.PatchEnvironment(t.Context(), "shop-a", dayfly.EnvironmentPatch{Frozen: &frozen}, 0); err != nil {
		t.Fatal(err)
	}
	w.holds(shopRepo, "main=m1", "b=b1")
	if !w.follow("shop") {
		t.Error("nobody looks again")
	}
	w.are("shop-a", "shop-b")
	frozen = false
	// It cannot be brought up to date: the branch is gone.
	if _, err := w.PatchEnvironment(t.Context(), "shop-a", dayfly.EnvironmentPatch{Frozen: &frozen}, 0); err == nil {
		t.Error("it was brought up to date")
	}
	w.follow("shop")
	w.are("shop-b")
}

func TestOneMadeByHandWithItsUsualNameBelongsToItsBranchAlsoBesideAnother(t *testing.T) {
	w := start(t)
	w.holds(shopRepo, "main=m1", "a=a1")
	w.shop()
	w.create("a")
	asked := branchOf("shop", "a")
	asked.Spec.Name = "demo"
	if _, _, err := w.CreateEnvironment(t.Context(), asked); err != nil {
		t.Fatal(err)
	}
	w.git.change(func() { w.git.branches = dayfly.BranchPatterns{"*", "!main"} })
	w.holds(shopRepo, "main=m2", "a=a1")
	w.follow("shop")
	w.holds(shopRepo, "main=m2")
	w.follow("shop")
	w.are("demo")
}

func TestABranchThatIsNoEnvironmentIsSaidOnce(t *testing.T) {
	w := followed(t, func(c *control.Config) { c.MaxPerProject = 2 })
	w.holds(shopRepo, "main=m1", "a=a1", "b=b1", "c=c1")
	for range 5 {
		if !w.follow("shop") {
			t.Error("it is not tried again")
		}
		w.clock.forward(hour)
	}
	if got := w.reasons(w.project().ID)["branch-skipped"]; got != 1 {
		t.Errorf("said %d times", got)
	}
	w.holds(shopRepo, "main=m1", "a=a1", "c=c1")
	for range 2 { // while b is on its way out there is no room yet
		w.clock.forward(hour)
		w.follow("shop")
	}
	w.are("shop-a", "shop-c")
}

func TestAMistakeInTheProjectFileLeavesWhatItSaidBefore(t *testing.T) {
	w := followed(t)
	w.git.change(func() { w.git.broken = map[string]bool{"m2": true}; w.git.branches = nil })
	w.holds(shopRepo, "main=m2", "a=a1", "b=b1", "c=c1")
	w.follow("shop")
	w.are("shop-a", "shop-b", "shop-c")
	if p := w.project(); !strings.Contains(p.Problem, "compose.yaml:3:1") || w.reasons(p.ID)["project-file"] != 1 {
		t.Errorf("the problem is %q, said %d times", p.Problem, w.reasons(p.ID)["project-file"])
	}
	w.holds(shopRepo, "main=m3", "a=a1", "b=b1", "c=c1", "d=d1")
	w.follow("shop")
	w.are("shop-a", "shop-b", "shop-c") // what is there stays, but no pattern matches d
	if p := w.project(); p.Problem != "" {
		t.Errorf("the problem is %q still", p.Problem)
	}
}

// model says slowly which branches have an environment.
type model struct {
	there     map[string]*modelled
	away      map[string][]string // commits at which a branch stays away
	patterns  dayfly.BranchPatterns
	seen      map[string]dayfly.Heads
	hosted    string
	home, api string
}

type modelled struct{ pushed, frozen bool }

func (m *model) commits(heads map[string]dayfly.Heads, branch string) (all []string) {
	for _, repo := range []string{m.hosted, m.home, m.api} {
		if commit := heads[repo].Branches[branch]; commit != "" {
			all = append(all, commit)
		}
	}
	return all
}

func within(some, all []string) bool {
	for _, s := range some {
		if !slices.Contains(all, s) {
			return false
		}
	}
	return true
}

func (m *model) follow(heads map[string]dayfly.Heads) {
	maps.Copy(m.seen, heads)
	_, homeKnown := heads[m.home]
	_, apiKnown := heads[m.api]
	for branch, e := range m.there {
		if e.frozen || heads[m.hosted].Branches[branch] != "" {
			continue
		}
		elsewhere := !homeKnown || !apiKnown || len(heads[m.home].Branches) == 0 || len(heads[m.api].Branches) == 0 ||
			heads[m.home].Branches[branch] != "" || heads[m.api].Branches[branch] != ""
		if e.pushed || !elsewhere {
			delete(m.there, branch)
		}
	}
	for branch, at := range m.away {
		commits := m.commits(heads, branch)
		if homeKnown && apiKnown && (len(commits) == 0 || !within(commits, at)) {
			delete(m.away, branch)
		}
	}
	for _, branch := range []string{"a", "b", "c"} {
		commits := m.commits(heads, branch)
		pushed := heads[m.hosted].Branches[branch] != ""
		asked := pushed || len(commits) > 0 && m.patterns.Match(branch)
		at, away := m.away[branch]
		switch e := m.there[branch]; {
		case !asked:
		case e != nil:
			e.pushed = e.pushed || pushed
		case !away || !within(commits, at):
			m.there[branch] = &modelled{pushed: pushed}
			delete(m.away, branch)
		}
	}
}

func (m *model) send(branch string, resolved []string) {
	m.away[branch] = append(m.commits(m.seen, branch), resolved...)
	delete(m.there, branch)
}

func TestWhateverHappensJustTheEnvironmentsOfBranchesAreThere(t *testing.T) {
	w := start(t)
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		name := fmt.Sprintf("p%d", round)
		home, api := "https://git.example/acme/"+name, "https://git.example/acme/api"+name
		w.git.change(func() {
			w.git.repos, w.git.branches, w.git.silent = []string{api}, dayfly.BranchPatterns{"*", "!main"}, map[string]bool{}
		})
		w.holds(home, "main=m0")
		w.holds(api, "main=m0")
		p, _, err := w.CreateProject(context.Background(), dayfly.ProjectRequest{Name: name, Repo: home})
		if err != nil {
			t.Fatal(err)
		}
		m := &model{there: map[string]*modelled{}, away: map[string][]string{}, seen: map[string]dayfly.Heads{}, hosted: p.Hosted(), home: home, api: api, patterns: w.git.branches}
		w.holds(m.hosted)
		next := 0
		commit := func() string { next++; return fmt.Sprintf("%s-%d", name, next) }
		resolved := func(branch string) (all []string) {
			for _, rs := range w.resolution(name + "-" + branch).Value.Services {
				all = append(all, rs.Commit)
			}
			return all
		}
		set := func(repo, branch, commit string) {
			w.git.change(func() {
				h := w.git.heads[repo]
				h.Branches = maps.Clone(h.Branches)
				if h.Branches[branch] = commit; commit == "" {
					delete(h.Branches, branch)
				}
				w.git.heads[repo] = h
			})
		}
		branch := rapid.SampledFrom([]string{"a", "b", "c"})
		repo := rapid.SampledFrom([]string{home, home, api})
		var log []string
		ops := map[string]func(b string){
			"move":   func(b string) { set(repo.Draw(t, "repo"), b, commit()) },
			"delete": func(b string) { set(repo.Draw(t, "repo"), b, "") },
			"rename": func(b string) {
				r := repo.Draw(t, "repo")
				to := branch.Draw(t, "to")
				if from := w.git.heads[r].Branches[b]; from != "" {
					set(r, b, "")
					set(r, to, from)
				}
			},
			"push": func(b string) {
				c := commit()
				if err := w.AdmitPush(context.Background(), w.fresh(name), control.PushedBranch{Name: b, Commit: c}); err != nil {
					t.Fatalf("%s: the push is refused: %v", log, err)
				}
				set(m.hosted, b, c)
				w.PushLanded(context.Background(), w.fresh(name), []control.PushedBranch{{Name: b, Commit: c}}, false, func(line string) {
					if strings.HasPrefix(line, "error") {
						t.Errorf("%s: %s", log, line)
					}
				})
				if e := m.there[b]; e != nil && !e.frozen {
					e.pushed = true
				}
			},
			"delete by a push": func(b string) {
				set(m.hosted, b, "")
				w.PushLanded(context.Background(), w.fresh(name), []control.PushedBranch{{Name: b}}, false, func(string) {})
			},
			"send away": func(b string) {
				if m.there[b] != nil {
					m.send(b, resolved(b))
					if _, err := w.DeleteEnvironment(context.Background(), name+"-"+b, dayfly.DeleteOptions{}); err != nil {
						t.Fatal(err)
					}
				}
			},
			"freeze": func(b string) {
				if e := m.there[b]; e != nil {
					e.frozen = !e.frozen
					// Where its branch is gone it cannot be brought up to date, and follows all the same.
					_, _ = w.PatchEnvironment(context.Background(), name+"-"+b, dayfly.EnvironmentPatch{Frozen: &e.frozen}, 0)
				}
			},
			"expire": func(string) {
				for b := range m.there {
					m.send(b, resolved(b))
				}
				w.clock.forward(40 * day)
				if _, err := w.Expire(context.Background()); err != nil {
					t.Fatal(err)
				}
			},
			"patterns": func(string) {
				patterns := rapid.SampledFrom([]dayfly.BranchPatterns{nil, {"*", "!main"}, {"a"}, {"*", "!b", "!main"}}).Draw(t, "patterns")
				w.git.change(func() { w.git.branches = patterns })
				set(home, "main", commit())
			},
			"silence": func(string) {
				r := repo.Draw(t, "repo")
				w.git.change(func() { w.git.silent[r] = !w.git.silent[r] })
			},
			"restart": func(string) {
				w.Control, m.seen = w.again(), map[string]dayfly.Heads{}
			},
		}
		names := slices.Sorted(maps.Keys(ops))
		for range rapid.IntRange(1, 15).Draw(t, "steps") {
			op, b := rapid.SampledFrom(names).Draw(t, "op"), branch.Draw(t, "branch")
			log = append(log, op+" "+b)
			ops[op](b)
			w.letGo()
			heads := w.known(name)
			if _, ok := heads[home]; ok {
				w.git.change(func() { m.patterns = w.git.branches })
			}
			m.follow(heads)
			w.follow(name)
			var want, got []string
			for b := range m.there {
				want = append(want, name+"-"+b)
			}
			for r := range registry.EnvironmentsOf(w.cache, name) {
				got = append(got, r.Key)
			}
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("%q: the environments are %q, want %q\nbranches %v", log, got, want, heads)
			}
		}
	})
}

// fresh gives a project as it is now.
func (w *world) fresh(name string) dayfly.Project {
	w.Helper()
	p, err := w.Project(context.Background(), name)
	if err != nil {
		w.Fatal(err)
	}
	return p
}

// push pushes a branch of the shop here, and gives what git would print.
func (w *world) push(branch, commit string) (said []string) {
	w.Helper()
	p, err := w.PushProject(w.Context(), "shop")
	if err != nil {
		w.Fatal(err)
	}
	b := control.PushedBranch{Name: branch, Commit: commit}
	if err := w.AdmitPush(w.Context(), p, b); err != nil {
		w.Fatalf("the push of %s is refused: %v", branch, err)
	}
	w.git.change(func() {
		if w.git.heads == nil {
			w.git.heads = map[string]dayfly.Heads{}
		}
		h := w.git.heads[p.Hosted()]
		if h.Default == "" {
			h.Default = branch
		}
		if h.Branches = maps.Clone(h.Branches); h.Branches == nil {
			h.Branches = map[string]string{}
		}
		if h.Branches[branch] = commit; commit == "" {
			delete(h.Branches, branch)
		}
		w.git.heads[p.Hosted()] = h
	})
	w.PushLanded(w.Context(), p, []control.PushedBranch{b}, false, func(line string) { said = append(said, line) })
	return said
}
