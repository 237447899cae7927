package control_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/control"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

func TestExtendingAndKeeping(t *testing.T) {
	of := func(d dayfly.Duration) *dayfly.Duration { return &d }
	for _, c := range []struct {
		name     string
		forever  bool
		patch    dayfly.EnvironmentPatch
		want     dayfly.Duration // from now on
		code     dayfly.Code
		mentions string
	}{
		{name: "extending by more gives more", patch: dayfly.EnvironmentPatch{ExtendBy: of(7 * day)}, want: 7 * day},
		{name: "extending by less changes nothing", patch: dayfly.EnvironmentPatch{ExtendBy: of(day)}, want: 4 * day},
		{name: "extending by all that is allowed", patch: dayfly.EnvironmentPatch{ExtendBy: of(30 * day)}, want: 30 * day},
		{name: "extending by more than is allowed", patch: dayfly.EnvironmentPatch{ExtendBy: of(31 * day)}, code: dayfly.CodeInvalid, mentions: "--max-keep 30d"},
		{name: "extending forever where that is not allowed", patch: dayfly.EnvironmentPatch{ExtendBy: of(dayfly.Forever)}, code: dayfly.CodeForbidden, mentions: "--allow-forever"},
		{name: "extending forever where that is allowed", forever: true, patch: dayfly.EnvironmentPatch{ExtendBy: of(dayfly.Forever)}, want: dayfly.Forever},
		{name: "keeping less gives less", patch: dayfly.EnvironmentPatch{Keep: of(hour)}, want: hour},
		{name: "keeping more gives more", patch: dayfly.EnvironmentPatch{Keep: of(9 * day)}, want: 9 * day},
		{name: "keeping more than is allowed", patch: dayfly.EnvironmentPatch{Keep: of(31 * day)}, code: dayfly.CodeInvalid, mentions: "--max-keep 30d"},
		{name: "keeping forever where that is not allowed", patch: dayfly.EnvironmentPatch{Keep: of(dayfly.Forever)}, code: dayfly.CodeForbidden, mentions: "--allow-forever"},
		{name: "keeping forever where that is allowed", forever: true, patch: dayfly.EnvironmentPatch{Keep: of(dayfly.Forever)}, want: dayfly.Forever},
		{name: "changing nothing", want: 4 * day},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, func(config *control.Config) { config.AllowForever = c.forever }).shop()
			before := w.create("main") // lives for 5 days
			w.clock.forward(day)
			env, err := w.PatchEnvironment(t.Context(), "shop-main", c.patch, before.Revision)
			switch {
			case c.code != "":
				refused(t, err, c.code, c.mentions)
				if w.record("shop-main").Revision != before.Revision {
					t.Error("it was changed all the same")
				}
			case err != nil:
				t.Fatal(err)
			case c.want == dayfly.Forever && env.ExpiresAt != nil:
				t.Errorf("lives until %s", env.ExpiresAt)
			case c.want != dayfly.Forever && !env.ExpiresAt.Equal(w.clock.Now().Add(time.Duration(c.want))):
				t.Errorf("lives until %s, want %s from %s on", env.ExpiresAt, c.want, w.clock.Now())
			}
		})
	}
}

func TestALifeThatWasKeptCountsFromTheNextChangeAgain(t *testing.T) {
	w := start(t).shop()
	w.create("main")
	keep := 9 * day
	if _, err := w.PatchEnvironment(t.Context(), "shop-main", dayfly.EnvironmentPatch{Keep: &keep}, 0); err != nil {
		t.Fatal(err)
	}
	w.clock.forward(day)
	w.git.change(func() { w.git.commits["main"] = "second" })
	if err := w.Refresh(t.Context(), "shop-main", nil); err != nil {
		t.Fatal(err)
	}
	if got, want := w.record("shop-main").Value.ExpiresAt, w.clock.Now().Add(time.Duration(keep)); !got.Equal(want) {
		t.Errorf("lives until %s, want %s", got, want)
	}
}

func TestAPatchOfAnotherRevisionIsAConflict(t *testing.T) {
	w := start(t).shop()
	env := w.create("main")
	week := 7 * day
	_, err := w.PatchEnvironment(t.Context(), "shop-main", dayfly.EnvironmentPatch{ExtendBy: &week}, env.Revision+1)
	refused(t, err, dayfly.CodeConflict, "shop-main", "meanwhile")
	_, err = w.PatchEnvironment(t.Context(), "nobody", dayfly.EnvironmentPatch{ExtendBy: &week}, 0)
	refused(t, err, dayfly.CodeNotFound, "nobody")
	if _, err := w.DeleteEnvironment(t.Context(), "shop-main", dayfly.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = w.PatchEnvironment(t.Context(), "shop-main", dayfly.EnvironmentPatch{ExtendBy: &week}, 0)
	refused(t, err, dayfly.CodeConflict, "being deleted")
}

func TestDeletingMarksAndCanBeRepeated(t *testing.T) {
	w := start(t).shop()
	w.create("main")
	first, err := w.DeleteEnvironment(t.Context(), "shop-main", dayfly.DeleteOptions{})
	if err != nil || first.Phase != dayfly.PhaseDeleting {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := w.DeleteEnvironment(t.Context(), first.ID, dayfly.DeleteOptions{})
	if err != nil || again.Phase != dayfly.PhaseDeleting || again.Revision != first.Revision {
		t.Errorf("again: %+v, %v", again, err)
	}
	_, err = w.DeleteEnvironment(t.Context(), "nobody", dayfly.DeleteOptions{})
	refused(t, err, dayfly.CodeNotFound, "nobody")
}

// Reconciling forgets what has nothing to stop at once, often before the one who
// deletes has his answer.
func TestWhoDeletesIsAnsweredAlthoughItIsGoneAlready(t *testing.T) {
	w := start(t).shop()
	ctx, cancel := context.WithCancel(t.Context())
	changes := w.cache.Changes(ctx)
	var forgetting sync.WaitGroup
	forgetting.Go(func() {
		for change := range changes {
			r, ok := registry.Lookup(w.cache, registry.Environments, change.Key)
			if change.Kind != registry.Environments.Name() || !ok || !r.Value.Deleting {
				continue
			}
			if _, err := registry.Commit(t.Context(), w.store, registry.DeleteIf(registry.Environments, r.Key, r.Revision)); err != nil {
				t.Error(err)
			}
		}
	})
	defer forgetting.Wait()
	defer cancel()
	for i := range 50 {
		env := w.create(fmt.Sprint("branch-", i))
		if got, err := w.DeleteEnvironment(t.Context(), env.Name, dayfly.DeleteOptions{}); err != nil || got.Phase != dayfly.PhaseDeleting || got.Name != env.Name {
			t.Fatalf("%d: %+v, %v", i, got, err)
		}
	}
}

func TestANameCanBeUsedAgainAsSoonAsItsEnvironmentIsGone(t *testing.T) {
	w := start(t).shop()
	old := w.create("main")
	if _, err := w.DeleteEnvironment(t.Context(), old.Name, dayfly.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	created := make(chan dayfly.Environment, 1)
	var creating sync.WaitGroup
	creating.Go(func() {
		env, made, err := w.CreateEnvironment(t.Context(), branchOf("shop", "main"))
		if err != nil || !made {
			t.Errorf("made %t, %v", made, err)
		}
		created <- env
	})
	select {
	case env := <-created:
		t.Errorf("%+v was created beside the old one", env)
	default:
	}
	w.forget(old)
	creating.Wait()
	if env := <-created; env.ID == old.ID || env.Phase == dayfly.PhaseDeleting {
		t.Errorf("got %+v", env)
	}
	if got, want := w.counts(), "1 environments, 1 resolutions, 1 releases, 2 hosts, 3 addresses, 0 credentials"; got != want {
		t.Errorf("there are %s, want %s", got, want)
	}
}

func TestWhoGivesUpOnANameThatIsStillGoingIsTold(t *testing.T) {
	w := start(t).shop()
	w.create("main")
	if _, err := w.DeleteEnvironment(t.Context(), "shop-main", dayfly.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := w.CreateEnvironment(ctx, branchOf("shop", "main"))
	refused(t, err, dayfly.CodeConflict, "still being deleted")
}

func TestWhatIsOverExpires(t *testing.T) {
	w := start(t).shop()
	for branch, keep := range map[string]dayfly.Duration{"a": hour, "b": day, "c": hour} {
		if _, _, err := w.CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{
			Spec: dayfly.EnvironmentSpec{Branch: branch, Keep: keep}}); err != nil {
			t.Fatal(err)
		}
	}
	expire := func(want ...string) {
		t.Helper()
		ended, err := w.Expire(t.Context())
		if err != nil || !slices.Equal(ended, want) {
			t.Errorf("ended %v, want %v, %v", ended, want, err)
		}
	}
	expire()
	w.clock.forward(hour - 1)
	expire()
	w.clock.forward(1)
	expire("shop-a", "shop-c")
	expire()
	if !w.record("shop-a").Value.Deleting || w.record("shop-b").Value.Deleting {
		t.Error("others are deleted than those that ended")
	}
	w.clock.forward(day)
	expire("shop-b")
}

// Also one that belongs to a file ends with its life.
func TestWhatBelongsToAFileExpires(t *testing.T) {
	w := start(t).shop()
	if _, _, err := w.PutEnvironment(t.Context(), "demo", dayfly.EnvironmentSpec{Project: "shop", Branch: "main"}, "envs/demo.yaml", 0); err != nil {
		t.Fatal(err)
	}
	w.clock.forward(30 * day)
	if ended, err := w.Expire(t.Context()); err != nil || !slices.Equal(ended, []string{"demo"}) {
		t.Errorf("ended %v, %v", ended, err)
	}
}

// Of two that meet, extending and expiring, one wins: what was said to live on does.
func TestWhatIsExtendedAtTheLastMomentLivesOn(t *testing.T) {
	w := start(t).shop()
	week := 7 * day
	for i := range 100 {
		env := w.create(fmt.Sprint("branch-", i))
		w.clock.forward(6 * day)
		var both sync.WaitGroup
		var extendErr, expireErr error
		both.Go(func() {
			_, extendErr = w.PatchEnvironment(t.Context(), env.Name, dayfly.EnvironmentPatch{ExtendBy: &week}, 0)
		})
		both.Go(func() { _, expireErr = w.Expire(t.Context()) })
		both.Wait()
		if expireErr != nil {
			t.Fatal(expireErr)
		}
		if deleting := w.record(env.Name).Value.Deleting; deleting != (extendErr != nil) {
			t.Fatalf("%d: extending said %v, and deleting is %t", i, extendErr, deleting)
		}
		w.forget(env)
	}
}

func TestWhoWaitsIsWokenByEveryKindOfChange(t *testing.T) {
	w := start(t).shop()
	env := w.create("main")
	rs := w.resolution(env.Name).Value.Services[1]
	d := dayfly.NewDeployment(w.record(env.Name).Value, rs, "local", "node1", w.clock.Now())
	for _, c := range []struct {
		name string
		op   registry.Op
		done func(dayfly.Environment) bool
	}{
		{"a deployment that is observed", registry.Put(registry.Observed, d.ID, dayfly.DeploymentStatus{Phase: dayfly.DeploymentBuilding}),
			func(e dayfly.Environment) bool { return e.Phase == dayfly.PhaseBuilding }},
		{"a problem", registry.Update(registry.Resolutions, env.Name, func() dayfly.Resolution {
			res := w.resolution(env.Name).Value
			res.Problem = "branch main is gone"
			return res
		}(), w.resolution(env.Name).Revision),
			func(e dayfly.Environment) bool { return e.Message == "branch main is gone" }},
		{"a deletion", registry.Update(registry.Environments, env.Name, func() dayfly.EnvironmentRecord {
			rec := w.record(env.Name).Value
			rec.Deleting = true
			return rec
		}(), w.record(env.Name).Revision),
			func(e dayfly.Environment) bool { return e.Phase == dayfly.PhaseDeleting }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "a deployment that is observed" {
				w.commit(registry.Create(registry.Deployments, d.ID, d))
			}
			looked := make(chan struct{}, 100)
			var waiting sync.WaitGroup
			waiting.Go(func() {
				got, err := w.WaitEnvironment(t.Context(), env.ID, func(e dayfly.Environment) bool {
					looked <- struct{}{}
					return c.done(e)
				})
				if err != nil || !c.done(got) {
					t.Errorf("got %+v, %v", got, err)
				}
			})
			<-looked // it waits, or is about to
			w.commit(c.op)
			waiting.Wait()
		})
	}
}

func TestWaitingForWhatGoesEnds(t *testing.T) {
	w := start(t).shop()
	env := w.create("main")
	never := func(dayfly.Environment) bool { return false }
	looked := make(chan struct{}, 100)
	var waiting sync.WaitGroup
	var err error
	waiting.Go(func() {
		_, err = w.WaitEnvironment(t.Context(), env.Name, func(dayfly.Environment) bool {
			looked <- struct{}{}
			return false
		})
	})
	<-looked
	w.forget(env)
	waiting.Wait()
	refused(t, err, dayfly.CodeNotFound, env.Name)
	_, err = w.WaitEnvironment(t.Context(), env.Name, never)
	refused(t, err, dayfly.CodeNotFound, env.Name)
}

func TestWhoGivesUpWaitingGetsTheEnvironmentAsItIs(t *testing.T) {
	w := start(t).shop()
	env := w.create("main")
	ctx, cancel := context.WithCancel(t.Context())
	got, err := w.WaitEnvironment(ctx, env.Name, func(dayfly.Environment) bool {
		cancel()
		return false
	})
	if !errors.Is(err, context.Canceled) || got.ID != env.ID {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestEnvironmentsAreListedInPages(t *testing.T) {
	w := start(t).shop()
	if _, _, err := w.CreateProject(t.Context(), dayfly.ProjectRequest{Name: "other", Repo: "https://git.example/other"}); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 5 {
		want = append(want, w.create(fmt.Sprint("b", i)).Name)
	}
	if _, _, err := w.CreateEnvironment(t.Context(), branchOf("other", "main")); err != nil {
		t.Fatal(err)
	}
	var got []string
	after, pages := "", 0
	for {
		list, next, err := w.Environments(t.Context(), dayfly.EnvironmentFilter{Project: "shop", Limit: 2, After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, env := range list {
			got = append(got, env.Name)
		}
		pages++
		if after = next; next == "" {
			break
		}
	}
	if !slices.Equal(got, want) || pages != 3 {
		t.Errorf("%d pages with %v, want %v", pages, got, want)
	}
	all, next, err := w.Environments(t.Context(), dayfly.EnvironmentFilter{})
	if err != nil || len(all) != 6 || next != "" {
		t.Errorf("all: %d, next %q, %v", len(all), next, err)
	}
}

func TestServicesAndInstancesAreFoundOverAllEnvironments(t *testing.T) {
	w := start(t).shop()
	env := w.create("main")
	w.create("other")
	services, err := w.Services(t.Context())
	if err != nil || len(services) != 2 || services[0].Name != "api" || !slices.Equal(services[0].Environments, []string{"shop-main", "shop-other"}) {
		t.Errorf("got %+v, %v", services, err)
	}
	_, err = w.Instances(t.Context(), "web")
	refused(t, err, dayfly.CodeNotFound, "web")
	d := dayfly.NewDeployment(w.record(env.Name).Value, w.resolution(env.Name).Value.Services[1], "local", "node1", w.clock.Now())
	w.commit(registry.Create(registry.Deployments, d.ID, d), registry.Put(registry.Observed, d.ID, dayfly.DeploymentStatus{
		Node: "node1", Instances: []dayfly.Instance{{ID: "i1", Address: "127.0.0.1:9"}}}))
	got, err := w.Instances(t.Context(), "web")
	if err != nil || len(got) != 1 || got[0].ID != "i1" || got[0].Environment != "shop-main" || got[0].Project != "shop" || got[0].Node != "node1" {
		t.Errorf("got %+v, %v", got, err)
	}
}
