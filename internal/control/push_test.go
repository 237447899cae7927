package control_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/control"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

func TestTheFirstPushMakesAProjectAndItsEnvironment(t *testing.T) {
	w := start(t)
	said := w.push("main", "p1")
	w.are("shop-main")
	p := w.project()
	if p.Repo != "" || p.Commit != "p1" || p.DefaultBranch != "main" || len(said) != 1 || !strings.Contains(said[0], "shop-main") {
		t.Errorf("the project is %+v, said %q", p, said)
	}
	if rec := w.record("shop-main").Value; !rec.Auto || !rec.Pushed {
		t.Errorf("it is %+v", rec)
	}
	w.push("main", "")
	w.letGo()
	w.are()
}

func TestAProjectThatIsMadeAgainIsAnotherOne(t *testing.T) {
	w := start(t)
	w.push("main", "p1")
	first := w.project().ID
	w.push("main", "")
	w.letGo()
	if err := w.DeleteProject(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	if p, err := w.PushProject(t.Context(), "shop"); err != nil || p.ID == first {
		t.Errorf("it has the id of the one that is gone: what was pushed to that would be there again (%v)", err)
	}
}

func TestAPushIsRefusedBeforeItsBranchMoves(t *testing.T) {
	for _, c := range []struct {
		name     string
		before   func(*world)
		push     control.PushedBranch
		code     dayfly.Code
		mentions string
	}{
		{"a limit of a project", func(*world) {}, control.PushedBranch{Name: "c", Commit: "c1"}, dayfly.CodeConflict, "--max-per-project"},
		{"a host that another has", func(w *world) {
			w.git.change(func() { w.git.hosts["a"] = []string{"shop-b.localhost"} })
		}, control.PushedBranch{Name: "a", Commit: "a2"}, dayfly.CodeConflict, "belongs to environment shop-b"},
		{"a definition with a mistake", func(w *world) {
			w.git.change(func() { w.git.missing["a"] = true })
		}, control.PushedBranch{Name: "a", Commit: "a2"}, dayfly.CodeNotFound, "no branch a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := followed(t, func(c *control.Config) { c.MaxPerProject = 2 })
			c.before(w)
			before := w.counts()
			refused(t, w.AdmitPush(t.Context(), w.project(), c.push), c.code, c.mentions)
			if w.counts() != before || w.resolution("shop-a").Value.Services[0].Commit != "a1" {
				t.Errorf("something was written: %s, then %s", before, w.counts())
			}
			if err := w.AdmitPush(t.Context(), w.project(), control.PushedBranch{Name: "b", Commit: "b2"}); err != nil {
				t.Errorf("another branch: %v", err)
			}
			if err := w.AdmitPush(t.Context(), w.project(), control.PushedBranch{Name: "a"}); err != nil {
				t.Errorf("a deletion: %v", err)
			}
		})
	}
}

func TestAFirstPushIsRefusedWithItsFileAndWhenSomebodyElseAddsTheProject(t *testing.T) {
	w := start(t)
	w.git.broken = map[string]bool{"bad": true}
	p, err := w.PushProject(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	refused(t, w.AdmitPush(t.Context(), p, control.PushedBranch{Name: "main", Commit: "bad"}), dayfly.CodeInvalid, "compose.yaml:3:1")
	if _, err := w.Project(t.Context(), "shop"); err == nil {
		t.Error("a push that was refused has made a project")
	}
	w.shop()
	refused(t, w.AdmitPush(t.Context(), p, control.PushedBranch{Name: "main", Commit: "good"}), dayfly.CodeConflict, "push again")
	var said []string
	w.PushLanded(t.Context(), p, []control.PushedBranch{{Name: "main", Commit: "good"}}, false, func(line string) { said = append(said, line) })
	if len(said) != 1 || !strings.HasPrefix(said[0], "error: ") {
		t.Errorf("said %q", said)
	}
	w.are()
}

func TestAPushedBranchBelongsToThePushAlsoWhereItIsElsewhere(t *testing.T) {
	w := followed(t)
	w.push("a", "here")
	if got := w.resolution("shop-a").Value.Services[0].Commit; got != "here" {
		t.Errorf("it is at %s", got)
	}
	for _, elsewhere := range [][]string{{"main=m1", "a=a2", "b=b1"}, {"main=m1", "b=b1"}} {
		w.holds(shopRepo, elsewhere...)
		w.follow("shop")
		if err := w.Refresh(t.Context(), "shop-a", w.known("shop")); err != nil {
			t.Fatal(err)
		}
		w.are("shop-a", "shop-b")
		if got := w.resolution("shop-a").Value.Services[0].Commit; got != "here" {
			t.Errorf("with %q elsewhere it is at %s", elsewhere, got)
		}
	}
	w.push("a", "")
	w.letGo()
	w.are("shop-b")
}

func TestAFrozenEnvironmentIsLeftAloneByPushes(t *testing.T) {
	w := start(t)
	w.push("main", "p1")
	frozen := true
	if _, err := w.PatchEnvironment(t.Context(), "shop-main", dayfly.EnvironmentPatch{Frozen: &frozen}, 0); err != nil {
		t.Fatal(err)
	}
	if said := w.push("main", "p2"); len(said) != 1 || !strings.Contains(said[0], "frozen") {
		t.Errorf("said %q", said)
	}
	if got := w.resolution("shop-main").Value.Services[0].Commit; got != "p1" {
		t.Errorf("it is at %s", got)
	}
	w.push("main", "")
	w.letGo()
	w.are("shop-main")
}

func TestEveryEnvironmentOfAPushedBranchFollowsItAndOnlyTheUsualOneEndsWithIt(t *testing.T) {
	w := start(t)
	w.push("main", "p1")
	asked := branchOf("shop", "main")
	asked.Spec.Name = "demo"
	if _, _, err := w.CreateEnvironment(t.Context(), asked); err != nil {
		t.Fatal(err)
	}
	w.sync("folder", file("a.yaml", dayfly.EnvironmentSpec{Name: "of-file", Project: "shop", Branch: "main"}))
	if said := w.push("main", "p2"); len(said) != 3 {
		t.Errorf("said %q", said)
	}
	for _, name := range w.names() {
		if got := w.resolution(name).Value.Services[0].Commit; got != "p2" {
			t.Errorf("%s is at %s", name, got)
		}
	}
	w.push("main", "")
	w.letGo()
	w.are("demo", "of-file")
}

func TestAnEnvironmentOfAFileWithTheUsualNameEndsWithItsFileOnly(t *testing.T) {
	w := start(t)
	w.push("main", "p1")
	f := file("a.yaml", dayfly.EnvironmentSpec{Name: "shop-x", Project: "shop", Branch: "x"})
	w.sync("folder", f) // there is no such branch yet
	w.push("x", "x1")
	w.sync("folder", f)
	w.follow("shop")
	w.push("x", "x2")
	w.push("x", "")
	w.follow("shop")
	w.are("shop-main", "shop-x")
	w.sync("folder")
	w.letGo()
	w.are("shop-main")
}

func TestFiftyBranchesAtOnceAndOneByTwoAtOnce(t *testing.T) {
	w := start(t)
	w.push("main", "m1")
	p := w.project()
	var all []control.PushedBranch
	want := []string{"shop-main"}
	w.git.change(func() {
		h := branchesOf("main=m1", "twice=t1")
		for i := range 50 {
			b := control.PushedBranch{Name: fmt.Sprintf("b%02d", i), Commit: "c"}
			h.Branches[b.Name] = b.Commit
			all, want = append(all, b), append(want, "shop-"+b.Name)
		}
		w.git.heads[p.Hosted()] = h
	})
	var pushes sync.WaitGroup
	var mu sync.Mutex
	land := func(branches []control.PushedBranch) {
		w.PushLanded(t.Context(), p, branches, false, func(line string) {
			mu.Lock()
			defer mu.Unlock()
			if strings.HasPrefix(line, "error") {
				t.Error(line)
			}
		})
	}
	pushes.Go(func() { land(all) })
	for range 2 {
		pushes.Go(func() { land([]control.PushedBranch{{Name: "twice", Commit: "t1"}}) })
	}
	pushes.Go(func() { // the poll sees them at the same moment
		if _, err := w.FollowProject(t.Context(), "shop", w.known("shop")); err != nil {
			t.Error(err)
		}
	})
	pushes.Wait()
	want = append(want, "shop-twice")
	slices.Sort(want)
	w.are(want...)
	if events := w.reasons(p.ID); len(events) != 0 {
		t.Errorf("the project says %v", events)
	}
}

func TestTwoFirstPushesAtOnceMakeOneProject(t *testing.T) {
	w := start(t)
	p, err := w.PushProject(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	w.git.heads = map[string]dayfly.Heads{p.Hosted(): branchesOf("main=m1", "x=x1")}
	var pushes sync.WaitGroup
	for _, b := range []control.PushedBranch{{Name: "main", Commit: "m1"}, {Name: "x", Commit: "x1"}} {
		pushes.Go(func() {
			w.PushLanded(t.Context(), p, []control.PushedBranch{b}, false, func(line string) {
				if strings.HasPrefix(line, "error") {
					t.Error(line)
				}
			})
		})
	}
	pushes.Wait()
	w.are("shop-main", "shop-x")
	if n := registry.Len(w.cache, registry.Projects); n != 1 {
		t.Errorf("there are %d projects", n)
	}
}
