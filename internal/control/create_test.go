package control_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/control"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

func TestACreatedEnvironmentIsWrittenDownAsAWhole(t *testing.T) {
	w := start(t).shop()
	env := w.create("main")
	if env.Name != "shop-main" || env.Phase != dayfly.PhasePending || env.URL != "http://shop-main.localhost" {
		t.Errorf("got %+v", env)
	}
	if want := w.clock.Now().Add(5 * 24 * time.Hour); !env.ExpiresAt.Equal(want) {
		t.Errorf("lives until %s, want %s", env.ExpiresAt, want)
	}
	if got, want := w.counts(), "1 environments, 1 resolutions, 1 releases, 2 hosts, 3 addresses, 0 credentials"; got != want {
		t.Errorf("there are %s, want %s", got, want)
	}
	byID, err := w.Environment(t.Context(), env.ID)
	if err != nil || byID.Name != env.Name {
		t.Errorf("by its id: %+v, %v", byID, err)
	}
}

func TestCreatingTheSameAgainGivesTheOneThatIsThere(t *testing.T) {
	w := start(t).shop()
	first := w.create("main")
	again, made, err := w.CreateEnvironment(t.Context(), branchOf("shop", "main"))
	if err != nil || made || again.ID != first.ID || again.Revision != first.Revision {
		t.Errorf("made %t, %+v, %v", made, again, err)
	}
}

func TestCreatingTheSameAgainBringsItUpToDate(t *testing.T) {
	w := start(t).shop()
	w.create("main")
	w.git.change(func() { w.git.commits["main"] = "second" })
	env, made, err := w.CreateEnvironment(t.Context(), branchOf("shop", "main"))
	if err != nil || made || env.Services[0].Commit != "second" {
		t.Errorf("made %t, %+v, %v", made, env, err)
	}
}

func TestANameWithAnotherContentIsAConflict(t *testing.T) {
	w := start(t).shop()
	w.create("main")
	before := w.counts()
	_, _, err := w.CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{
		Spec: dayfly.EnvironmentSpec{Name: "shop-main", Project: "shop", Branch: "other"}})
	refused(t, err, dayfly.CodeConflict, "shop-main", "project shop", "branch main")
	if w.counts() != before {
		t.Errorf("there are %s, before %s", w.counts(), before)
	}
}

func TestASecondBranchWithTheSameSlugGetsASuffix(t *testing.T) {
	w := start(t).shop()
	first, second := w.create("feat/x"), w.create("feat-x")
	if first.Name != "shop-feat-x" || !strings.HasPrefix(second.Name, "shop-feat-x-") {
		t.Errorf("got %s and %s", first.Name, second.Name)
	}
	again, made, err := w.CreateEnvironment(t.Context(), branchOf("shop", "feat-x"))
	if err != nil || made || again.ID != second.ID {
		t.Errorf("again: made %t, %s, %v", made, again.Name, err)
	}
}

func TestTheDefaultBranchIsTakenWhereNoneIsGiven(t *testing.T) {
	w := start(t).shop()
	env, _, err := w.CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{})
	if err != nil || env.Name != "shop-main" || env.Branch != "main" {
		t.Errorf("got %+v, %v", env, err)
	}
}

func TestWhatCannotBeCreatedLeavesNothingBehind(t *testing.T) {
	for _, c := range []struct {
		name     string
		request  dayfly.EnvironmentRequest
		code     dayfly.Code
		mentions string
	}{
		{"a branch that is missing", branchOf("shop", "gone"), dayfly.CodeNotFound, "gone"},
		{"a project that is missing", branchOf("nobody", "main"), dayfly.CodeNotFound, "nobody"},
		{"a name that is none", dayfly.EnvironmentRequest{Spec: dayfly.EnvironmentSpec{Name: "No Name", Branch: "main"}}, dayfly.CodeInvalid, "No Name"},
		{"a name that is reserved", dayfly.EnvironmentRequest{Spec: dayfly.EnvironmentSpec{Name: "dayfly-x", Branch: "main"}}, dayfly.CodeInvalid, "reserved"},
		{"a life that is too long", dayfly.EnvironmentRequest{Spec: dayfly.EnvironmentSpec{Branch: "main", Keep: 31 * day}}, dayfly.CodeInvalid, "30d"},
		{"a life without end", dayfly.EnvironmentRequest{Spec: dayfly.EnvironmentSpec{Branch: "main", Keep: dayfly.Forever}}, dayfly.CodeForbidden, "forever"},
		{"a repository that cannot be read", dayfly.EnvironmentRequest{Repo: "https://git.example/nothing"}, dayfly.CodeNotFound, "nothing"},
		{"a repository that is none", dayfly.EnvironmentRequest{Repo: "ftp:x"}, dayfly.CodeInvalid, "repo"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t).shop()
			w.git.missing["gone"] = true
			before := w.counts()
			_, _, err := w.CreateEnvironment(t.Context(), c.request)
			refused(t, err, c.code, c.mentions)
			if w.counts() != before {
				t.Errorf("there are %s, before %s", w.counts(), before)
			}
		})
	}
}

func TestAHostThatSomebodyHasIsRefusedWithItsHolder(t *testing.T) {
	w := start(t).shop()
	w.git.hosts["one"] = []string{"shared.localhost"}
	w.git.hosts["two"] = []string{"shared.localhost"}
	w.create("one")
	before := w.counts()
	_, _, err := w.CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{
		Spec: dayfly.EnvironmentSpec{Project: "shop", Branch: "two"}, Token: dayfly.NewSecret("t0ken")})
	refused(t, err, dayfly.CodeConflict, "shared.localhost", "environment shop-one")
	if w.counts() != before {
		t.Errorf("there are %s, before %s", w.counts(), before)
	}
}

func TestAUsersTokenIsKeptSealedAndShownAgain(t *testing.T) {
	w := start(t).shop()
	request := branchOf("shop", "main")
	request.Token = dayfly.NewSecret("t0ken")
	if _, _, err := w.CreateEnvironment(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	for c := range registry.All(w.cache, registry.Credentials) {
		if strings.Contains(string(c.Value.Ciphertext), "t0ken") {
			t.Error("the state holds the token in clear")
		}
	}
	if err := w.Refresh(t.Context(), "shop-main", nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.PutEnvironment(t.Context(), "shop-main",
		dayfly.EnvironmentSpec{Project: "shop", Branch: "other"}, "", 0); err != nil {
		t.Fatal(err)
	}
	if want := []string{"t0ken", "t0ken", "t0ken"}; !slices.Equal(w.git.tokens, want) {
		t.Errorf("resolving saw %q, want %q", w.git.tokens, want)
	}
}

func TestAFileMakesAndChangesItsEnvironment(t *testing.T) {
	w := start(t).shop()
	spec := dayfly.EnvironmentSpec{Project: "shop", Branch: "main", Services: []dayfly.ServiceSpec{{Name: "web"}, {Name: "api"}}}
	put := func(origin string, ifMatch int64) (dayfly.Environment, bool, error) {
		return w.PutEnvironment(t.Context(), "demo", spec, origin, ifMatch)
	}
	first, made, err := put("envs/demo.yaml", 0)
	if err != nil || !made || len(first.Services) != 2 {
		t.Fatalf("made %t, %+v, %v", made, first, err)
	}
	same, made, err := put("envs/demo.yaml", 0)
	if err != nil || made || same.Revision != first.Revision {
		t.Fatalf("the same again: made %t, %+v, %v", made, same, err)
	}

	w.clock.forward(hour)
	spec.Services = spec.Services[:1]
	changed, made, err := put("envs/demo.yaml", first.Revision)
	if err != nil || made || changed.ID != first.ID || !changed.CreatedAt.Equal(first.CreatedAt) || len(changed.Services) != 1 {
		t.Fatalf("changed: made %t, %+v, %v", made, changed, err)
	}
	if want := w.clock.Now().Add(5 * 24 * time.Hour); !changed.ExpiresAt.Equal(want) {
		t.Errorf("lives until %s, want %s", changed.ExpiresAt, want)
	}
	if got, want := w.counts(), "1 environments, 1 resolutions, 1 releases, 2 hosts, 2 addresses, 0 credentials"; got != want {
		t.Errorf("there are %s, want %s", got, want)
	}

	// Who asked for the same at the same time, of what was there before, has what they want.
	if again, made, err := put("envs/demo.yaml", first.Revision); err != nil || made || again.Revision != changed.Revision {
		t.Errorf("the same of an earlier revision: made %t, %+v, %v", made, again, err)
	}

	spec.Branch = "other"
	_, _, err = put("envs/demo.yaml", first.Revision)
	refused(t, err, dayfly.CodeConflict, "demo", "meanwhile")
	_, _, err = put("envs/another.yaml", 0)
	refused(t, err, dayfly.CodeConflict, "demo", "envs/demo.yaml")
	_, err = w.DeleteEnvironment(t.Context(), "demo", dayfly.DeleteOptions{})
	refused(t, err, dayfly.CodeConflict, "envs/demo.yaml")
	keep := hour
	_, err = w.PatchEnvironment(t.Context(), "demo", dayfly.EnvironmentPatch{Keep: &keep}, 0)
	refused(t, err, dayfly.CodeConflict, "envs/demo.yaml")
	if got := w.record("demo"); got.Revision != changed.Revision {
		t.Errorf("is at revision %d, want %d", got.Revision, changed.Revision)
	}
}

func TestAFileDoesNotTakeOverWhatACommandMade(t *testing.T) {
	w := start(t).shop()
	w.create("main")
	_, _, err := w.PutEnvironment(t.Context(), "shop-main", dayfly.EnvironmentSpec{Project: "shop", Branch: "other"}, "envs/x.yaml", 0)
	refused(t, err, dayfly.CodeConflict, "shop-main", "by command")
}

func TestAnIfMatchOfWhatIsNotThereIsAConflict(t *testing.T) {
	w := start(t).shop()
	_, _, err := w.PutEnvironment(t.Context(), "demo", dayfly.EnvironmentSpec{Project: "shop", Branch: "main"}, "", 5)
	refused(t, err, dayfly.CodeConflict, "demo")
	if got := registry.Len(w.cache, registry.Environments); got != 0 {
		t.Errorf("there are %d environments", got)
	}
}

func TestTheNamesInPathAndBodyHaveToAgree(t *testing.T) {
	w := start(t).shop()
	_, _, err := w.PutEnvironment(t.Context(), "demo", dayfly.EnvironmentSpec{Name: "other", Project: "shop"}, "", 0)
	refused(t, err, dayfly.CodeInvalid, "demo", "other")
}

func TestHowLongAnEnvironmentLives(t *testing.T) {
	for _, c := range []struct {
		name           string
		asked, project dayfly.Duration
		forever        bool
		want           dayfly.Duration
	}{
		{"the server's default", 0, 0, false, 5 * day},
		{"the project's default", 0, 2 * day, false, 2 * day},
		{"what was asked for", hour, 2 * day, false, hour},
		{"a project's default is cut to what is allowed", 0, 60 * day, false, 30 * day},
		{"a project's forever is cut to what is allowed", 0, dayfly.Forever, false, 30 * day},
		{"forever where that is allowed", dayfly.Forever, 0, true, dayfly.Forever},
		{"a project's forever where that is allowed", 0, dayfly.Forever, true, dayfly.Forever},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, func(config *control.Config) { config.AllowForever = c.forever })
			w.git.keep = c.project
			env, _, err := w.shop().CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{
				Spec: dayfly.EnvironmentSpec{Branch: "main", Keep: c.asked}})
			switch {
			case err != nil:
				t.Fatal(err)
			case c.want == dayfly.Forever && env.ExpiresAt != nil:
				t.Errorf("lives until %s", env.ExpiresAt)
			case c.want != dayfly.Forever && !env.ExpiresAt.Equal(w.clock.Now().Add(time.Duration(c.want))):
				t.Errorf("lives until %s, want %s", env.ExpiresAt, c.want)
			}
		})
	}
}

func TestRefreshingWritesOnlyWhatChanged(t *testing.T) {
	w := start(t).shop()
	w.create("main")
	before, record := w.resolution("shop-main"), w.record("shop-main")
	w.clock.forward(day)
	if err := w.Refresh(t.Context(), "shop-main", nil); err != nil {
		t.Fatal(err)
	}
	if w.resolution("shop-main").Revision != before.Revision || w.record("shop-main").Revision != record.Revision {
		t.Error("nothing changed, and yet it was written")
	}

	w.git.change(func() { w.git.commits["main"] = "second" })
	if err := w.Refresh(t.Context(), "shop-main", nil); err != nil {
		t.Fatal(err)
	}
	after := w.resolution("shop-main").Value
	if after.Services[0].Commit != "second" || after.Address != before.Value.Address || after.Services[0].Address != before.Value.Services[0].Address {
		t.Errorf("was %+v, is %+v", before.Value, after)
	}
	if got, want := w.record("shop-main").Value, w.clock.Now(); !got.RenewedAt.Equal(want) || !got.ExpiresAt.Equal(want.Add(5*24*time.Hour)) {
		t.Errorf("renewed at %s, lives until %s", got.RenewedAt, got.ExpiresAt)
	}
}

func TestRefreshingNeverShortensALife(t *testing.T) {
	w := start(t).shop()
	w.create("main")
	long := 20 * day
	extended, err := w.PatchEnvironment(t.Context(), "shop-main", dayfly.EnvironmentPatch{ExtendBy: &long}, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.git.change(func() { w.git.commits["main"] = "second" })
	if err := w.Refresh(t.Context(), "shop-main", nil); err != nil {
		t.Fatal(err)
	}
	if got := w.record("shop-main").Value.ExpiresAt; !got.Equal(*extended.ExpiresAt) {
		t.Errorf("lives until %s, was %s", got, extended.ExpiresAt)
	}
}

func TestAProblemIsShownOnceAndGoesWithTheNextSuccess(t *testing.T) {
	w := start(t).shop()
	w.create("main")
	for range 2 {
		if err := w.ReportProblem(t.Context(), "shop-main", "branch main is gone"); err != nil {
			t.Fatal(err)
		}
	}
	reported := w.resolution("shop-main")
	if reported.Value.Problem == "" || len(reported.Value.Services) != 2 {
		t.Errorf("got %+v", reported.Value)
	}
	if err := w.ReportProblem(t.Context(), "shop-main", "branch main is gone"); err != nil || w.resolution("shop-main").Revision != reported.Revision {
		t.Errorf("the same problem was written again, %v", err)
	}
	expires := *w.record("shop-main").Value.ExpiresAt
	w.clock.forward(hour)
	if err := w.Refresh(t.Context(), "shop-main", nil); err != nil {
		t.Fatal(err)
	}
	if got := w.resolution("shop-main").Value.Problem; got != "" {
		t.Errorf("still says %q", got)
	}
	if got := *w.record("shop-main").Value.ExpiresAt; !got.Equal(expires) {
		t.Errorf("nothing changed, and yet it lives until %s instead of %s", got, expires)
	}
}

func TestRefreshingWhatIsGoneOrGoingDoesNothing(t *testing.T) {
	w := start(t).shop()
	w.create("main")
	if _, err := w.DeleteEnvironment(t.Context(), "shop-main", dayfly.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.git.change(func() { w.git.commits["main"] = "second"; w.git.resolved = 0 })
	for _, name := range []string{"shop-main", "nobody"} {
		if err := w.Refresh(t.Context(), name, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if w.git.resolved != 0 {
		t.Errorf("git was asked %d times", w.git.resolved)
	}
}

func TestRefreshingAtOnceIsNoConflict(t *testing.T) {
	w := start(t).shop()
	w.create("main")
	w.git.change(func() { w.git.commits["main"] = "second" })
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := w.Refresh(t.Context(), "shop-main", nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := w.resolution("shop-main").Value.Services[0].Commit; got != "second" {
		t.Errorf("is at %s", got)
	}
}

func TestFiftyOfDifferentNamesAtOnceAreAllMade(t *testing.T) {
	w := start(t).shop()
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			if _, made, err := w.CreateEnvironment(t.Context(), branchOf("shop", fmt.Sprint("branch-", i))); err != nil || !made {
				t.Errorf("%d: made %t, %v", i, made, err)
			}
		})
	}
	all.Wait()
	if got, want := w.counts(), "50 environments, 50 resolutions, 50 releases, 100 hosts, 150 addresses, 0 credentials"; got != want {
		t.Errorf("there are %s, want %s", got, want)
	}
}

func TestFiftyOfOneNameAtOnceMakeOne(t *testing.T) {
	w := start(t).shop()
	made, ids := w.together(slices.Repeat([]string{"main"}, 50))
	if made != 1 || len(ids) != 1 {
		t.Errorf("%d say that they made it, it has %d ids", made, len(ids))
	}
	if got, want := w.counts(), "1 environments, 1 resolutions, 1 releases, 2 hosts, 3 addresses, 0 credentials"; got != want {
		t.Errorf("there are %s, want %s", got, want)
	}
}

func TestTwoBranchesOfOneSlugAtOnceBothGetAName(t *testing.T) {
	w := start(t).shop()
	made, ids := w.together([]string{"feat/x", "feat-x"})
	if made != 2 || len(ids) != 2 {
		t.Errorf("%d were made, with %d ids", made, len(ids))
	}
}

// together creates environments of branches, all of which have looked whether there is
// one before the first of them is written.
func (w *world) together(branches []string) (made int, ids map[string]bool) {
	w.Helper()
	w.git.change(func() {
		w.git.expected = len(branches)
		w.git.meeting.Add(len(branches))
	})
	var mu sync.Mutex
	ids = map[string]bool{}
	var all sync.WaitGroup
	for _, branch := range branches {
		all.Go(func() {
			env, mine, err := w.CreateEnvironment(w.Context(), branchOf("shop", branch))
			if err != nil {
				w.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[env.ID] = true
			if mine {
				made++
			}
		})
	}
	all.Wait()
	return made, ids
}
