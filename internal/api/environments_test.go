package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dayfly-dev/dayfly"
)

func TestAnEnvironmentIsAnsweredWithThePromisedKeys(t *testing.T) {
	r := newRig(t)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	expires := at.Add(7 * 24 * time.Hour)
	r.control.Add(dayfly.Environment{
		ID: "abc", Name: "shop-x", Project: "shop", Branch: "x", Base: "shop-main", Phase: dayfly.PhaseDegraded, Message: "api is down",
		URL: "http://shop-x.localhost", URLs: map[string]string{"web": "http://web-shop-x.localhost"},
		CreatedAt: at, ExpiresAt: &expires, Revision: 12, Databases: []string{},
		Services: []dayfly.EnvironmentService{{
			Name: "web", Version: "x", Commit: "c0ffee", From: dayfly.FromOwn, Env: "shop-x", Phase: dayfly.PhaseReady, Instances: 2,
			URL: "http://web-shop-x.localhost", Message: "as it should be",
		}},
		Missing: []dayfly.Missing{{Service: "api", Version: "v2", Have: "v1", Doing: "building", Since: at}},
	}, dayfly.EnvironmentSpec{})
	want := `{
		"id": "abc", "name": "shop-x", "project": "shop", "branch": "x", "base": "shop-main", "phase": "degraded", "message": "api is down",
		"url": "http://shop-x.localhost", "urls": {"web": "http://web-shop-x.localhost"},
		"created_at": "2026-03-01T12:00:00Z", "expires_at": "2026-03-08T12:00:00Z", "revision": 12,
		"services": [{"name": "web", "version": "x", "commit": "c0ffee", "from": "own", "env": "shop-x", "phase": "ready", "message": "as it should be", "instances": 2, "url": "http://web-shop-x.localhost"}],
		"databases": [],
		"missing": [{"service": "api", "version": "v2", "have": "v1", "doing": "building", "since": "2026-03-01T12:00:00Z"}]
	}`
	for _, name := range []string{"shop-x", "abc"} { // where an id goes a name goes
		got := decode[any](r, r.call("GET", "/v1/environments/"+name, ""), http.StatusOK)
		var wanted any
		if err := json.Unmarshal([]byte(want), &wanted); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestAnEnvironmentThatNeverExpiresSaysNullAndEmptyListsAreLists(t *testing.T) {
	r := newRig(t)
	r.add("quiet")
	got := decode[map[string]any](r, r.call("GET", "/v1/environments/quiet", ""), http.StatusOK)
	if v, there := got["expires_at"]; !there || v != nil {
		t.Errorf("expires_at is %v", v)
	}
	for _, key := range []string{"services", "databases", "missing"} {
		if l, ok := got[key].([]any); !ok || len(l) != 0 {
			t.Errorf("%s is %v, want an empty list", key, got[key])
		}
	}
	if m, ok := got["urls"].(map[string]any); !ok || len(m) != 0 {
		t.Errorf("urls is %v", got["urls"])
	}
}

func TestEmptyListsAreNotNull(t *testing.T) {
	r := newRig(t)
	r.control.Add(dayfly.Environment{Name: "a", Services: []dayfly.EnvironmentService{{Name: "web"}}}, dayfly.EnvironmentSpec{})
	if err := r.control.DeleteProject(t.Context(), "none"); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Fatal(err)
	}
	for _, path := range []string{"/v1/projects", "/v1/doctor", "/v1/doctor/retire", "/v1/environments?project=none", "/v1/services/web/instances", "/v1/environments/a/events", "/v1/environments/a/logs"} {
		got := r.call("GET", path, "")
		if compact := strings.Join(strings.Fields(got.body), ""); compact != `{"items":[],"next":""}` || got.status != http.StatusOK {
			t.Errorf("%s answers %d %s", path, got.status, got.body)
		}
	}
	r = newRig(t)
	if got := r.call("GET", "/v1/services", ""); !strings.Contains(got.body, `"items":[]`) {
		t.Errorf("/v1/services answers %s", got.body)
	}
}

func TestEveryCodeHasItsStatus(t *testing.T) {
	for code, status := range map[dayfly.Code]int{
		dayfly.CodeInvalid: 422, dayfly.CodeUnauthorized: 401, dayfly.CodeForbidden: 403, dayfly.CodeNotFound: 404, dayfly.CodeConflict: 409,
		dayfly.CodeTimeout: 504, dayfly.CodeUnavailable: 503, dayfly.CodeFailed: 502, dayfly.CodeInternal: 500,
	} {
		t.Run(string(code), func(t *testing.T) {
			r := newRig(t)
			r.add("a")
			r.control.Fail(fmt.Errorf("on the way: %w", dayfly.Errorf(code, "that went wrong")))
			for _, call := range [][3]string{
				{"GET", "/v1/projects"}, {"POST", "/v1/projects", `{"repo":"/r","name":"p"}`}, {"GET", "/v1/projects/p"}, {"DELETE", "/v1/projects/p"},
				{"GET", "/v1/environments"}, {"POST", "/v1/environments", `{}`}, {"GET", "/v1/environments/a"}, {"PUT", "/v1/environments/a", `{}`},
				{"PATCH", "/v1/environments/a", `{}`}, {"DELETE", "/v1/environments/a"}, {"GET", "/v1/environments/a/spec"}, {"GET", "/v1/environments/a/propagation"}, {"POST", "/v1/environments/a/tests", `{}`},
				{"GET", "/v1/environments/a/events"}, {"GET", "/v1/environments/a/events?follow=true"},
				{"GET", "/v1/environments/a/logs"}, {"GET", "/v1/environments/a/logs?follow=true"},
				{"GET", "/v1/services"}, {"GET", "/v1/services/web/instances"}, {"GET", "/readyz"},
			} {
				if p := r.refusal(r.call(call[0], call[1], call[2]), status, string(code)); !strings.Contains(p.Detail, "that went wrong") {
					t.Errorf("%s %s says %q", call[0], call[1], p.Detail)
				}
			}
		})
	}
}

func TestWhatIsOurOwnFaultIsNotToldInDetail(t *testing.T) {
	r := newRig(t)
	r.add("a")
	r.control.Fail(errors.New("password swordfish refused"))
	for _, path := range []string{"/v1/environments/a", "/v1/environments/a/logs", "/v1/environments/a/events?follow=true", "/readyz"} {
		if p := r.refusal(r.call("GET", path, ""), http.StatusInternalServerError, "internal"); strings.Contains(p.Detail, "swordfish") {
			t.Errorf("%s tells %q", path, p.Detail)
		}
	}
}

func TestAllProblemsOfAnInputAreAnswered(t *testing.T) {
	r := newRig(t)
	want := []dayfly.Problem{{File: "compose.yaml", Line: 3, Column: 5, Field: "services.web", Message: "has no image"}, {Field: "branch", Message: "is missing"}}
	r.control.Fail(dayfly.Invalid(want...))
	p := r.refusal(r.call("POST", "/v1/environments", `{}`), http.StatusUnprocessableEntity, "invalid")
	if diff := cmp.Diff(want, p.Problems); diff != "" {
		t.Error(diff)
	}
}

func TestWrongInputIsInvalidAndNamesTheField(t *testing.T) {
	for _, c := range []struct{ name, method, path, body, field string }{
		{"unknown field", "POST", "/v1/environments", `{"project":"p","brunch":"x"}`, "brunch"},
		{"unknown field of a service", "POST", "/v1/environments", `{"services":[{"name":"web","brunch":"x"}]}`, "services[0].brunch"},
		{"unknown field of a file", "PUT", "/v1/environments/a", `{"brunch":"x"}`, "brunch"},
		{"unknown field of a change", "PATCH", "/v1/environments/a", `{"extent":"3d"}`, "extent"},
		{"unknown field of a project", "POST", "/v1/projects", `{"repo":"/r","nome":"x"}`, "nome"},
		{"unknown field of a test", "POST", "/v1/environments/a/tests", `{"jobs":"x"}`, "jobs"},
		{"wrong type", "POST", "/v1/environments", `{"project":7}`, "project"},
		{"neither name nor repository", "POST", "/v1/projects", `{}`, "repo"},
		{"empty repository", "POST", "/v1/projects", `{"repo":""}`, "repo"},
		{"service without name", "POST", "/v1/environments", `{"services":[{"branch":"x"}]}`, "services[0]"},
		{"unknown kind of data", "POST", "/v1/environments", `{"data":"all"}`, "data"},
		{"no duration to keep", "POST", "/v1/environments", `{"keep":"soon"}`, "keep"},
		{"no duration to keep in a file", "PUT", "/v1/environments/a", `{"keep":"-3d"}`, "keep"},
		{"no duration to wait", "POST", "/v1/environments?wait=soon", `{"project":"p"}`, "wait"},
		{"no duration to wait for a file", "PUT", "/v1/environments/a?wait=soon", `{}`, "wait"},
		{"no duration to wait when deleting", "DELETE", "/v1/environments/a?wait=soon", ``, "wait"},
		{"no duration to wait when looking", "GET", "/v1/environments/a?wait=soon", ``, "wait"},
		{"no number", "GET", "/v1/environments?limit=all", ``, "query.limit"},
		{"no page at all", "GET", "/v1/environments?limit=0", ``, "query.limit"},
		{"no time", "GET", "/v1/environments/a/logs?since=yesterday", ``, "since"},
		{"no number of lines", "GET", "/v1/environments/a/logs?tail=-1", ``, "query.tail"},
		{"no revision", "PATCH", "/v1/environments/a", `{"extend":"3d"}`, "If-Match"},
		{"no JSON", "POST", "/v1/environments", `{"project"`, "body"},
		{"no body", "POST", "/v1/environments", ``, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.add("a")
			before := r.call("GET", "/v1/environments/a", "").body
			headers := []string{}
			if c.field == "If-Match" {
				headers = append(headers, "If-Match: newest")
			}
			p := r.refusal(r.call(c.method, c.path, c.body, headers...), http.StatusUnprocessableEntity, "invalid")
			if c.field != "" && !slices.ContainsFunc(p.Problems, func(p dayfly.Problem) bool { return p.Field == c.field && p.Message != "" }) {
				t.Errorf("no problem is about %s: %+v", c.field, p.Problems)
			}
			if after := r.call("GET", "/v1/environments/a", "").body; after != before || len(r.control.Names()) != 1 {
				t.Errorf("wrong input changed something: %v, %s", r.control.Names(), after)
			}
		})
	}
}

func TestCreatingAsksForAllThatTheBodySays(t *testing.T) {
	r := newRig(t)
	got := r.call("POST", "/v1/environments", `{"name":"n","project":"p","branch":"b","base":"none","prefix":"pre","keep":"5d","data":"fixtures","public_header":true,
		"only":["web"],"services":[{"name":"web","version":"v1","branch":"x","repo":"/r","url":"http://u","route":"/w","variables":{"A":"1"}}],
		"repo":"/repo","token":"swordfish","with_fixtures":true}`)
	env := decode[dayfly.Environment](r, got, http.StatusAccepted)
	if env.Name != "n" || env.Phase != dayfly.PhasePending {
		t.Errorf("answered %+v", env)
	}
	req := r.control.Requests()[0]
	if req.Token.Reveal() != "swordfish" || strings.Contains(got.body, "swordfish") {
		t.Errorf("the token is %q; the answer is %s", req.Token.Reveal(), got.body)
	}
	req.Token = dayfly.Secret{}
	want := dayfly.EnvironmentRequest{Repo: "/repo", WithFixtures: true, Spec: dayfly.EnvironmentSpec{
		Name: "n", Project: "p", Branch: "b", Base: "none", Prefix: "pre", Keep: dayfly.Duration(5 * 24 * time.Hour), Data: "fixtures", PublicHeader: true, Only: []string{"web"},
		Services: []dayfly.ServiceSpec{{Name: "web", Version: "v1", Branch: "x", Repo: "/r", URL: "http://u", Route: "/w", Variables: map[string]string{"A": "1"}}},
	}}
	if diff := cmp.Diff(want, req, cmp.AllowUnexported(dayfly.Secret{})); diff != "" {
		t.Error(diff)
	}
	spec := decode[dayfly.EnvironmentSpec](r, r.call("GET", "/v1/environments/n/spec", ""), http.StatusOK)
	if diff := cmp.Diff(want.Spec, spec); diff != "" {
		t.Errorf("the spec is not what was asked for: %s", diff)
	}
}

func TestCreatingTheSameTwiceIsFineAndAnotherOneAConflict(t *testing.T) {
	r := newRig(t)
	decode[dayfly.Environment](r, r.call("POST", "/v1/environments", `{"name":"n","branch":"b"}`), http.StatusAccepted)
	decode[dayfly.Environment](r, r.call("POST", "/v1/environments", `{"name":"n","branch":"b"}`), http.StatusOK)
	r.refusal(r.call("POST", "/v1/environments", `{"name":"n","branch":"other"}`), http.StatusConflict, "conflict")
}

func TestListsComeInPages(t *testing.T) {
	r := newRig(t)
	r.add("a", "b", "c", "d", "e")
	type page struct {
		Items []dayfly.Environment
		Next  string
	}
	var names []string
	next, pages := "", 0
	for {
		p := decode[page](r, r.call("GET", "/v1/environments?limit=2&after="+next, ""), http.StatusOK)
		for _, e := range p.Items {
			names = append(names, e.Name)
		}
		pages++
		if next = p.Next; next == "" {
			break
		}
	}
	if pages != 3 || strings.Join(names, "") != "abcde" {
		t.Errorf("%d pages with %v", pages, names)
	}
	if p := decode[page](r, r.call("GET", "/v1/environments?project=other", ""), http.StatusOK); len(p.Items) != 0 {
		t.Errorf("another project has %v", p.Items)
	}
}

func TestProjectsAreAddedListedShownAndRemoved(t *testing.T) {
	r := newRig(t)
	body := `{"name":"shop","repo":"https://example.org/shop","token":"swordfish"}`
	got := r.call("POST", "/v1/projects", body)
	if p := decode[dayfly.Project](r, got, http.StatusCreated); p.Name != "shop" || p.Repo != "https://example.org/shop" || strings.Contains(got.body, "swordfish") {
		t.Errorf("added: %s", got.body)
	}
	decode[dayfly.Project](r, r.call("POST", "/v1/projects", body), http.StatusOK)
	if got := r.call("GET", "/v1/projects", ""); !strings.Contains(got.body, `"name":"shop"`) {
		t.Errorf("listed: %s", got.body)
	}
	if got := r.call("GET", "/v1/projects/shop", ""); got.header.Get("ETag") != `"1"` {
		t.Errorf("the ETag is %q", got.header.Get("ETag"))
	}
	if got := r.call("DELETE", "/v1/projects/shop", ""); got.status != http.StatusNoContent || got.body != "" {
		t.Errorf("removed: %d %q", got.status, got.body)
	}
	r.refusal(r.call("GET", "/v1/projects/shop", ""), http.StatusNotFound, "not_found")
}

func TestWaitHoldsTheAnswerUntilTheEnvironmentHasComeToAnEnd(t *testing.T) {
	for _, end := range []dayfly.Phase{dayfly.PhaseReady, dayfly.PhaseFailed, dayfly.PhaseDegraded, dayfly.PhaseAsleep} {
		for _, call := range [][3]string{
			{"POST", "/v1/environments?wait=60s", `{"name":"n"}`}, {"PUT", "/v1/environments/n?wait=60s", `{}`}, {"GET", "/v1/environments/n?wait=60s"},
		} {
			t.Run(call[0]+" "+string(end), func(t *testing.T) {
				r := newRig(t)
				if call[0] == "GET" {
					r.add("n")
					r.control.Change("n", func(e *dayfly.Environment) { e.Phase = dayfly.PhasePending })
				}
				done := make(chan reply, 1)
				go func() { done <- r.call(call[0], call[1], call[2]) }()
				poll(t, func() bool { return slices.Contains(r.control.Names(), "n") })
				for _, phase := range []dayfly.Phase{dayfly.PhaseBuilding, dayfly.PhaseStarting, end} {
					select {
					case got := <-done:
						t.Fatalf("answered before %s: %s", phase, got.body)
					default:
					}
					r.control.Change("n", func(e *dayfly.Environment) { e.Phase = phase })
				}
				var env dayfly.Environment
				if err := json.Unmarshal([]byte((<-done).body), &env); err != nil || env.Phase != end {
					t.Errorf("answered with phase %s, %v", env.Phase, err)
				}
			})
		}
	}
}

func TestWaitEndsWithTheEnvironmentAsItIs(t *testing.T) {
	r := newRig(t)
	r.add("n")
	r.control.Change("n", func(e *dayfly.Environment) { e.Phase = dayfly.PhaseBuilding })
	if env := decode[dayfly.Environment](r, r.call("GET", "/v1/environments/n?wait=1ms", ""), http.StatusOK); env.Name != "n" || env.Phase != dayfly.PhaseBuilding {
		t.Errorf("answered %+v", env)
	}
	if env := decode[dayfly.Environment](r, r.call("POST", "/v1/environments?wait=1ms", `{"name":"new"}`), http.StatusAccepted); env.Phase != dayfly.PhasePending {
		t.Errorf("answered %+v", env)
	}
}

func TestDeletingAnswersHowItGoesAndWithWaitWhenItIsGone(t *testing.T) {
	r := newRig(t)
	r.add("base", "a", "b")
	r.control.Change("a", func(e *dayfly.Environment) { e.Base = "base" })
	r.refusal(r.call("DELETE", "/v1/environments/base", ""), http.StatusConflict, "conflict")
	if env := decode[dayfly.Environment](r, r.call("DELETE", "/v1/environments/base?force=true", ""), http.StatusAccepted); env.Phase != dayfly.PhaseDeleting {
		t.Errorf("answered %+v", env)
	}
	if env := decode[dayfly.Environment](r, r.call("DELETE", "/v1/environments/base?force=true&wait=1ms", ""), http.StatusAccepted); env.Phase != dayfly.PhaseDeleting {
		t.Errorf("answered %+v", env)
	}
	done := make(chan reply, 1)
	go func() { done <- r.call("DELETE", "/v1/environments/b?wait=60s", "") }()
	poll(t, func() bool { return strings.Contains(r.call("GET", "/v1/environments/b", "").body, "deleting") })
	r.control.Remove("b")
	if got := <-done; got.status != http.StatusNoContent || got.body != "" {
		t.Errorf("answered %d %s", got.status, got.body)
	}
	r.refusal(r.call("DELETE", "/v1/environments/b?wait=60s", ""), http.StatusNotFound, "not_found")
}

func TestAChangeCanBeMadeToDependOnTheRevision(t *testing.T) {
	r := newRig(t)
	r.add("a")
	tag := r.call("GET", "/v1/environments/a", "").header.Get("ETag")
	if tag != `"7"` {
		t.Fatalf("the ETag is %s", tag)
	}
	for _, c := range []struct{ method, body, match string }{
		{"PUT", `{"branch":"x"}`, tag}, {"PATCH", `{"extend":"3d"}`, `W/"8"`}, {"PUT", `{"branch":"y"}`, "*"}, {"PATCH", `{"keep":"3d"}`, "10"}, {"PUT", `{}`, ""},
	} {
		before := r.call("GET", "/v1/environments/a", "").header.Get("ETag")
		got := r.call(c.method, "/v1/environments/a", c.body, "If-Match: "+c.match)
		if got.status >= 300 || got.header.Get("ETag") == before {
			t.Errorf("%s with If-Match %q at %s is %d %s, ETag %s", c.method, c.match, before, got.status, got.body, got.header.Get("ETag"))
		}
	}
	for _, c := range [][2]string{{"PUT", `{"branch":"z"}`}, {"PATCH", `{"extend":"3d"}`}} {
		r.refusal(r.call(c[0], "/v1/environments/a", c[1], `If-Match: "7"`), http.StatusConflict, "conflict")
	}
}

func TestWhatOnlyACreationCanSayIsRefusedWhereItWouldHaveNoEffect(t *testing.T) {
	r := newRig(t)
	r.add("a")
	for field, body := range map[string]string{
		"repo": `{"project":"shop","repo":"/r"}`, "token": `{"token":"swordfish"}`, "with_fixtures": `{"with_fixtures":true}`,
	} {
		for _, name := range []string{"a", "new"} {
			got := r.call("PUT", "/v1/environments/"+name, body)
			r.refusal(got, http.StatusUnprocessableEntity, "invalid")
			if !strings.Contains(got.body, `"field":"`+field+`"`) || !strings.Contains(got.body, "cannot be given to PUT: ") || strings.Contains(got.body, "swordfish") {
				t.Errorf("%s of %s: %s", field, name, got.body)
			}
		}
	}
	if tag := r.call("GET", "/v1/environments/a", "").header.Get("ETag"); tag != `"7"` {
		t.Errorf("the environment was changed: %s", tag)
	}
	if got := r.call("PUT", "/v1/environments/a", `{"repo":"","token":"","with_fixtures":false,"branch":"x"}`); got.status != http.StatusAccepted {
		t.Errorf("empty ones: %d %s", got.status, got.body)
	}
}

func TestAPatchSaysOnlyWhatItChanges(t *testing.T) {
	r := newRig(t)
	r.add("a")
	for body, want := range map[string]string{
		`{"extend":"3d"}`: "3d ", `{"keep":"forever"}`: " forever", `{"extend":"1h","keep":"2w"}`: "1h 2w",
	} {
		before := len(r.control.Patches())
		decode[dayfly.Environment](r, r.call("PATCH", "/v1/environments/a", body), http.StatusOK)
		p := r.control.Patches()[before]
		got := ""
		if p.ExtendBy != nil {
			got = p.ExtendBy.String()
		}
		got += " "
		if p.Keep != nil {
			got += p.Keep.String()
		}
		if got != want {
			t.Errorf("%s asks for %q, want %q", body, got, want)
		}
	}
}

func TestAnAppliedFileIsRemembered(t *testing.T) {
	r := newRig(t)
	decode[dayfly.Environment](r, r.call("PUT", "/v1/environments/n", `{"branch":"b","origin":"envs/n.yaml"}`), http.StatusAccepted)
	if origin := r.control.Origin("n"); origin != "envs/n.yaml" {
		t.Errorf("the origin is %q", origin)
	}
}

func TestATestRunIsAnswered(t *testing.T) {
	r := newRig(t)
	r.add("a")
	code := 3
	r.control.TestEnds(dayfly.TestRun{Job: "smoke", Phase: "failed", ExitCode: &code, Log: []string{"no"}})
	run := decode[dayfly.TestRun](r, r.call("POST", "/v1/environments/a/tests", `{}`), http.StatusOK)
	if run.Job != "smoke" || run.Phase != "failed" || *run.ExitCode != 3 {
		t.Errorf("answered %+v", run)
	}
	if run := decode[dayfly.TestRun](r, r.call("POST", "/v1/environments/a/tests", `{"job":"other"}`), http.StatusOK); run.Job != "other" {
		t.Errorf("answered %+v", run)
	}
}

// poll waits until something is so.
func poll(t *testing.T, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}
