package control_test

import (
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

func TestAProjectThatNobodyAddedIsShownForAsLongAsSomethingIsRegisteredForIt(t *testing.T) {
	w := start(t, hosted).shop()
	w.register(func(r *dayfly.RegistrationRequest) { r.Project = "shop" })
	of := func(id, project, env string) {
		w.register(func(r *dayfly.RegistrationRequest) {
			r.ID, r.Project, r.Environment, r.Service = id, project, env, "api"
		})
	}
	of("1", "zoo", "temp")
	of("2", "legacy", "")
	of("3", "legacy", "old")
	show := func() (names []string) {
		t.Helper()
		list, err := w.Projects(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			if p.CreatedAt.IsZero() || p.Revision == 0 || p.Registered > 0 != strings.HasPrefix(p.ID, "registered:") {
				t.Errorf("%+v", p)
			}
			names = append(names, p.Name)
		}
		return names
	}
	if got := strings.Join(show(), " "); got != "legacy shop zoo" {
		t.Errorf("there are %s", got)
	}
	for _, name := range []string{"legacy", "registered:legacy"} {
		p, err := w.Project(t.Context(), name)
		if err != nil || p.Name != "legacy" || p.Registered != 2 || p.Repo != "" {
			t.Errorf("%s is %+v, %v", name, p, err)
		}
	}
	if p, err := w.Project(t.Context(), "shop"); err != nil || p.Registered != 0 {
		t.Errorf("one that was added is %+v, %v", p, err)
	}

	_, _, create := w.CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{Spec: dayfly.EnvironmentSpec{Project: "legacy", Branch: "main"}})
	_, hook := w.NewHookSecret(t.Context(), "legacy")
	_, events := w.ProjectEvents(t.Context(), "legacy")
	for what, err := range map[string]error{"create": create, "hook": hook, "events": events} {
		if dayfly.ErrorCode(err) != dayfly.CodeNotFound || !strings.Contains(err.Error(), "only by what is registered") || !strings.Contains(err.Error(), "dayfly project add legacy") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := w.DeleteProject(t.Context(), "legacy"); dayfly.ErrorCode(err) != dayfly.CodeConflict || !strings.Contains(err.Error(), "nobody has added project legacy") {
		t.Errorf("removing it: %v", err)
	}
	// What is said of no project at all is not that.
	if _, err := w.Project(t.Context(), "nowhere"); dayfly.ErrorCode(err) != dayfly.CodeNotFound || !strings.Contains(err.Error(), "there is no project") {
		t.Errorf("nowhere: %v", err)
	}

	if p, created, err := w.CreateProject(t.Context(), dayfly.ProjectRequest{Name: "legacy"}); err != nil || !created || p.Registered != 0 {
		t.Errorf("adding it gives %+v, %v, %v", p, created, err)
	}
	if err := w.Deregister(t.Context(), "api", "1", 0); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(show(), " "); got != "legacy shop" {
		t.Errorf("after one was added and the other has lost its instance there are %s", got)
	}
	if p, err := w.Project(t.Context(), "legacy"); err != nil || p.Registered != 0 {
		t.Errorf("the added one is %+v, %v", p, err)
	}
}
