package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api/apitest"
	"github.com/dayfly-dev/dayfly/internal/api/client"
)

func TestMain(m *testing.M) {
	// Connections that are kept for the next call are nobody's leak.
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { http.DefaultClient.CloseIdleConnections() }))
}

// serve gives an API and a client of it.
func serve(t *testing.T) (*apitest.Control, *client.Client) {
	t.Helper()
	control := &apitest.Control{}
	server := httptest.NewServer(apitest.Handler(control))
	t.Cleanup(server.Close)
	return control, client.New(server.URL+"/", "")
}

// answering gives a client of a server that answers always the same.
func answering(t *testing.T, status int, kind, body string) *client.Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return client.New(server.URL, "")
}

func TestErrorsOfTheAPIComeThroughWithCodeMessageAndProblems(t *testing.T) {
	control, c := serve(t)
	for _, code := range []dayfly.Code{
		dayfly.CodeInvalid, dayfly.CodeUnauthorized, dayfly.CodeForbidden, dayfly.CodeNotFound, dayfly.CodeConflict, dayfly.CodeTimeout, dayfly.CodeUnavailable, dayfly.CodeFailed, dayfly.CodeInternal,
	} {
		control.Fail(dayfly.Errorf(code, "that is %s", code))
		_, err := c.Environment(t.Context(), "a")
		if dayfly.ErrorCode(err) != code || err.Error() != "that is "+string(code) {
			t.Errorf("%s comes as %s: %v", code, dayfly.ErrorCode(err), err)
		}
	}
	problems := []dayfly.Problem{{File: "compose.yaml", Line: 3, Column: 5, Field: "services.web", Message: "has no image"}, {Field: "branch", Message: "is missing"}}
	control.Fail(dayfly.Invalid(problems...))
	_, _, err := c.CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{})
	var e *dayfly.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(problems, e.Problems); diff != "" {
		t.Error(diff)
	}
	if want := "compose.yaml:3:5: services.web: has no image\nbranch: is missing"; err.Error() != want {
		t.Errorf("it says\n%s\nwant\n%s", err, want)
	}
}

func TestAnswersThatAreNotOursAreErrorsThatSaySo(t *testing.T) {
	for _, c := range []struct {
		name, kind, body string
		status           int
		code             dayfly.Code
		says             string
	}{
		{"page of something else", "text/html", "<html>", 200, dayfly.CodeInternal, "is this a dayfly server?"},
		{"error page of a proxy", "text/html", "<html>", 502, dayfly.CodeInternal, "502 Bad Gateway"},
		{"JSON error without a code", "application/json", `{"error":"x"}`, 404, dayfly.CodeInternal, "404 Not Found"},
		{"refusal that only a browser could cause", "application/problem+json", `{"code":"foreign_origin","detail":"no pages"}`, 403, dayfly.CodeForbidden, "no pages"},
		{"name that the server does not have", "application/problem+json", `{"code":"unknown_host","detail":"no such name"}`, 421, dayfly.CodeForbidden, "no such name"},
		{"cut off", "application/json", `{"name":"a`, 200, dayfly.CodeInternal, "is this a dayfly server?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			api := answering(t, c.status, c.kind, c.body)
			_, one := api.Environment(t.Context(), "a")
			_, _, two := api.CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{})
			_, _, three := api.CreateProject(t.Context(), dayfly.ProjectRequest{})
			var four error
			for _, err := range api.Logs(t.Context(), "a", dayfly.LogQuery{}) {
				four = err
			}
			for i, err := range []error{one, two, three, four} {
				if dayfly.ErrorCode(err) != c.code || !strings.Contains(err.Error(), c.says) {
					t.Errorf("call %d: %s: %v", i, dayfly.ErrorCode(err), err)
				}
			}
		})
	}
}

func TestAnAddressThatIsNoneIsInvalidAtOnce(t *testing.T) {
	for _, address := range []string{"127.0.0.1:7070", "localhost:7070", "ftp://localhost", "http://", "", "http://a b", "%"} {
		_, err := client.New(address, "").Environment(t.Context(), "a")
		if dayfly.ErrorCode(err) != dayfly.CodeInvalid || !strings.Contains(err.Error(), "--server") {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestTheTokenGoesAlongAndNamesAreEscaped(t *testing.T) {
	var seen atomic.Pointer[http.Request]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Clone(context.Background()))
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(server.Close)
	if _, err := client.New(server.URL, "swordfish").Environment(t.Context(), "../projects?x#y"); err != nil {
		t.Fatal(err)
	}
	if r := seen.Load(); r.Header.Get("Authorization") != "Bearer swordfish" || r.URL.EscapedPath() != "/v1/environments/..%2Fprojects%3Fx%23y" || r.URL.RawQuery != "" {
		t.Errorf("asked %s with %v", r.URL, r.Header)
	}
	if _, err := client.New(server.URL, "").Environment(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if r := seen.Load(); r.Header.Get("Authorization") != "" {
		t.Errorf("without a token it sends %v", r.Header)
	}
}

func TestEveryCallArrivesAsItWasMeant(t *testing.T) {
	control, c := serve(t)
	ctx := t.Context()
	if p, created, err := c.CreateProject(ctx, dayfly.ProjectRequest{Name: "shop", Repo: "/r", Token: dayfly.NewSecret("x")}); err != nil || !created || p.Repo != "/r" {
		t.Errorf("%+v, %v, %v", p, created, err)
	}
	if _, created, err := c.CreateProject(ctx, dayfly.ProjectRequest{Name: "shop", Repo: "/r"}); err != nil || created {
		t.Errorf("%v, %v", created, err)
	}
	if l, err := c.Projects(ctx); err != nil || len(l) != 1 || l[0].Name != "shop" {
		t.Errorf("%v, %v", l, err)
	}
	if err := c.DeleteProject(ctx, "shop"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteProject(ctx, "shop"); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Error(err)
	}

	request := dayfly.EnvironmentRequest{Repo: "/r", Token: dayfly.NewSecret("swordfish"), WithFixtures: true, Spec: dayfly.EnvironmentSpec{
		Name: "n", Project: "p", Branch: "b", Base: "none", Prefix: "pre", Keep: dayfly.Duration(36 * time.Hour), Data: "none", PublicHeader: true, Only: []string{"web", "api"},
		Services: []dayfly.ServiceSpec{{Name: "web", Version: "v", Branch: "x", Repo: "/s", URL: "http://u", Route: "/w", Variables: map[string]string{"A": ""}}},
	}}
	if _, created, err := c.CreateEnvironment(ctx, request); err != nil || !created {
		t.Fatal(created, err)
	}
	if _, created, err := c.CreateEnvironment(ctx, request); err != nil || created {
		t.Error(created, err)
	}
	if diff := cmp.Diff(request, control.Requests()[0], cmp.AllowUnexported(dayfly.Secret{})); diff != "" {
		t.Errorf("the request has changed on its way: %s", diff)
	}
	if spec, err := c.Spec(ctx, "n"); err != nil || cmp.Diff(request.Spec, spec) != "" {
		t.Errorf("%+v, %v", spec, err)
	}
	changed := request.Spec
	changed.Branch = "other"
	if e, err := c.PutEnvironment(ctx, changed, 0); err != nil || e.Branch != "other" {
		t.Errorf("%+v, %v", e, err)
	}
	stale := changed
	stale.Branch = "stale"
	if _, err := c.PutEnvironment(ctx, stale, 12345); dayfly.ErrorCode(err) != dayfly.CodeConflict {
		t.Errorf("a change of another revision: %v", err)
	}
	if _, err := c.ExtendEnvironment(ctx, "n", dayfly.Forever); err != nil || *control.Patches()[0].ExtendBy != dayfly.Forever || control.Patches()[0].Keep != nil {
		t.Errorf("%+v, %v", control.Patches(), err)
	}
	control.TestEnds(dayfly.TestRun{Job: "only", Phase: "passed"})
	for job, want := range map[string]string{"": "only", "smoke": "smoke"} {
		if run, err := c.Test(ctx, "n", job); err != nil || run.Job != want {
			t.Errorf("%+v, %v", run, err)
		}
	}
	control.Add(dayfly.Environment{Name: "borrower", Base: "n"}, dayfly.EnvironmentSpec{})
	if _, err := c.DeleteEnvironment(ctx, "n", false); dayfly.ErrorCode(err) != dayfly.CodeConflict {
		t.Error(err)
	}
	if e, err := c.DeleteEnvironment(ctx, "n", true); err != nil || e.Phase != dayfly.PhaseDeleting {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestAllPagesOfAListAreRead(t *testing.T) {
	control, c := serve(t)
	for i := range 10 {
		control.Add(dayfly.Environment{Name: fmt.Sprint("e", i), Project: []string{"even", "odd"}[i%2]}, dayfly.EnvironmentSpec{})
	}
	for project, want := range map[string]int{"": 10, "odd": 5, "none": 0} {
		all, err := c.Environments(t.Context(), project)
		if err != nil || len(all) != want || all == nil {
			t.Errorf("%q has %d, %v", project, len(all), err)
		}
	}
}

func TestListsOfEventsAndLinesAreReadToTheirEnd(t *testing.T) {
	control, c := serve(t)
	control.Add(dayfly.Environment{Name: "a"}, dayfly.EnvironmentSpec{})
	for i := range 3 {
		control.Happen("a", dayfly.Event{Message: fmt.Sprint("event ", i)})
		control.Print("a", dayfly.LogLine{Time: time.Now(), Service: "web", Line: fmt.Sprint("line ", i)})
	}
	var got []string
	for e, err := range c.Events(t.Context(), "a", dayfly.EventOptions{After: 1}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Message)
	}
	for l, err := range c.Logs(t.Context(), "a", dayfly.LogQuery{Tail: 1, Service: "web", Since: time.Now().Add(-time.Hour)}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, l.Line)
	}
	for l := range c.Logs(t.Context(), "a", dayfly.LogQuery{}) {
		got = append(got, "first "+l.Line)
		break
	}
	if s := strings.Join(got, ", "); s != "event 1, event 2, line 2, first line 0" {
		t.Errorf("got %s", s)
	}
	for _, err := range c.Events(t.Context(), "nobody", dayfly.EventOptions{}) {
		if dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			t.Error(err)
		}
	}
}

// restartable is a server that can be killed and started again at the same address.
type restartable struct {
	*testing.T
	address string
	handler http.Handler
	server  *http.Server
	serving sync.WaitGroup
}

func (r *restartable) start() {
	r.Helper()
	if r.address == "" {
		r.address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", r.address)
	if err != nil {
		r.Fatal(err)
	}
	r.address = l.Addr().String()
	r.server = &http.Server{Handler: r.handler}
	r.serving.Go(func() { _ = r.server.Serve(l) })
}

// kill closes the listener and then every connection.
func (r *restartable) kill() {
	_ = r.server.Close()
	r.serving.Wait()
}

func TestFollowingGoesOnOverARestartOfTheServer(t *testing.T) {
	control := &apitest.Control{}
	control.Add(dayfly.Environment{Name: "a"}, dayfly.EnvironmentSpec{})
	at := time.Now().Add(-time.Hour) // of all lines: times do not tell them apart
	happen := func(n int) {
		control.Happen("a", dayfly.Event{Message: fmt.Sprint(n)})
		control.Print("a", dayfly.LogLine{Time: at, Service: "web", Line: fmt.Sprint(n)})
	}
	r := &restartable{T: t, handler: apitest.Handler(control)}
	r.start()
	c := client.New("http://"+r.address, "")
	events, lines := make(chan string, 100), make(chan string, 100)
	go func() {
		defer close(events)
		for e, err := range c.Events(t.Context(), "a", dayfly.EventOptions{Follow: true}) {
			events <- fmt.Sprint(e.Message, err)
		}
	}()
	go func() {
		defer close(lines)
		for l, err := range c.Logs(t.Context(), "a", dayfly.LogQuery{Follow: true, Tail: 1}) {
			lines <- fmt.Sprint(l.Line, err)
		}
	}()
	want := func(text string) {
		t.Helper()
		for _, from := range []chan string{events, lines} {
			select {
			case got := <-from:
				if got != text {
					t.Fatalf("got %q, want %q", got, text)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%s does not come", text)
			}
		}
	}
	happen(1)
	want("1<nil>")
	r.kill()
	happen(2) // while nobody is there to tell it
	happen(3)
	r.start()
	want("2<nil>")
	want("3<nil>")
	r.kill()
	r.start()
	happen(4)
	want("4<nil>")
	control.Remove("a")
	want("") // both are over
	r.kill()
}

func TestFollowingEndsWithItsContextAndWithoutAnError(t *testing.T) {
	control, c := serve(t)
	control.Add(dayfly.Environment{Name: "a"}, dayfly.EnvironmentSpec{})
	control.Happen("a", dayfly.Event{Message: "one"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for e, err := range c.Events(ctx, "a", dayfly.EventOptions{Follow: true}) {
		if err != nil || e.Message != "one" {
			t.Errorf("got %+v, %v", e, err)
		}
		cancel()
	}
	cancel()
	for e, err := range c.Logs(ctx, "a", dayfly.LogQuery{Follow: true}) {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestFollowingPassesOnWhatTheStreamSaysIsWrong(t *testing.T) {
	c := answering(t, 200, "text/event-stream", ": still here\n\nid: 1\nevent: event\ndata: {\"message\":\"one\"}\n\nevent: error\ndata: {\"code\":\"unavailable\",\"detail\":\"the state is away\"}\n\n")
	var got []string
	for e, err := range c.Events(t.Context(), "a", dayfly.EventOptions{Follow: true}) {
		got = append(got, fmt.Sprint(e.Message, "/", dayfly.ErrorCode(err), "/", err))
	}
	if s := strings.Join(got, ", "); s != "one//<nil>, /unavailable/the state is away" {
		t.Errorf("got %s", s)
	}
	c = answering(t, 200, "text/event-stream", "event: event\ndata: nonsense\n\n")
	for _, err := range c.Events(t.Context(), "a", dayfly.EventOptions{Follow: true}) {
		if err == nil {
			t.Error("nonsense is an event")
		}
	}
	c = answering(t, 404, "application/problem+json", `{"code":"not_found","detail":"nobody"}`)
	for _, err := range c.Events(t.Context(), "a", dayfly.EventOptions{Follow: true}) {
		if dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			t.Error(err)
		}
	}
}

func TestALineMayBeVeryLong(t *testing.T) {
	long := strings.Repeat("x", 3<<20)
	data, err := json.Marshal(dayfly.LogLine{Line: long})
	if err != nil {
		t.Fatal(err)
	}
	c := answering(t, 200, "text/event-stream", "event: line\ndata: "+string(data)+"\n\nevent: end\ndata: {}\n\n")
	n := 0
	for l, err := range c.Logs(t.Context(), "a", dayfly.LogQuery{Follow: true}) {
		if err != nil || l.Line != long {
			t.Errorf("%d bytes, %v", len(l.Line), err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d lines", n)
	}
}
