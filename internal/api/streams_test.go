package api_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api"
	"github.com/dayfly-dev/dayfly/internal/api/apitest"
)

func step(message string) dayfly.Event {
	return dayfly.Event{Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Kind: dayfly.EventStep, Reason: "built", Message: message}
}

func line(service, text string) dayfly.LogLine {
	return dayfly.LogLine{Time: time.Now(), Service: service, Source: "run", Line: text}
}

func TestEventsAreAListWithTheirNumbers(t *testing.T) {
	r := newRig(t)
	r.add("a")
	r.control.Happen("a", step("one"))
	r.control.Happen("a", step("two"))
	got := decode[any](r, r.call("GET", "/v1/environments/a/events?after=1", ""), http.StatusOK)
	want := `map[items:[map[environment:a id:2 kind:step message:two reason:built time:2026-03-01T12:00:00Z]] next:]`
	if s := fmt.Sprint(got); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func TestFollowedEventsComeAsTheyHappenUntilTheEnvironmentIsGone(t *testing.T) {
	r := newRig(t)
	r.add("a")
	r.control.Happen("a", step("one"))
	s := r.follow("/v1/environments/a/events?follow=true")
	s.want("event", "1", `"message":"one"`)
	r.control.Happen("a", step("two\nin lines"))
	s.want("event", "2", `"message":"two\nin lines"`)
	r.control.Remove("a")
	s.ends()
}

func TestAStreamOfEventsGoesOnWhereItWasLeft(t *testing.T) {
	r := newRig(t)
	r.add("a")
	for i := range 4 {
		r.control.Happen("a", step(fmt.Sprint("number ", i+1)))
	}
	s := r.follow("/v1/environments/a/events?follow=true", "Last-Event-ID: 2")
	s.want("event", "3", "number 3")
	s.want("event", "4", "number 4")
	// What the client has seen last counts, not what it asked for at first.
	s = r.follow("/v1/environments/a/events?follow=true&after=1", "Last-Event-ID: 3")
	s.want("event", "4", "number 4")
	s = r.follow("/v1/environments/a/events?follow=true&after=3")
	s.want("event", "4", "number 4")
	s = r.follow("/v1/environments/a/events?follow=true&after=3", "Last-Event-ID: nonsense")
	s.want("event", "4", "number 4")
}

func TestLogsAreAListOfWhatWasAskedFor(t *testing.T) {
	r := newRig(t)
	r.add("a")
	old := line("web", "old")
	old.Time = time.Now().Add(-2 * time.Hour)
	r.control.Print("a", old, line("web", "one"), line("api", "two"), line("web", "three"))
	for query, want := range map[string]string{
		"": "old one two three", "service=web": "old one three", "service=api": "two", "tail=2": "two three", "since=1h": "one two three",
		"since=" + time.Now().Add(-time.Hour).UTC().Format(time.RFC3339): "one two three", "since=3h&service=web&tail=1": "three",
		"since=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano): "", "since=forever": "old one two three",
	} {
		got := decode[struct{ Items []dayfly.LogLine }](r, r.call("GET", "/v1/environments/a/logs?"+query, ""), http.StatusOK)
		var texts []string
		for _, l := range got.Items {
			texts = append(texts, l.Line)
		}
		if s := strings.Join(texts, " "); s != want {
			t.Errorf("%q gives %q, want %q", query, s, want)
		}
	}
}

func TestFollowedLogsComeAsTheyArePrintedAndEndWithTheEnvironment(t *testing.T) {
	r := newRig(t)
	r.add("a")
	r.control.Print("a", line("web", "first"))
	s := r.follow("/v1/environments/a/logs?follow=true&service=web")
	s.want("line", "a.run.1", `"line":"first"`)
	r.control.Print("a", line("api", "not asked for"), line("web", "data: x\n\nevent: end"))
	s.want("line", "a.run.3", `"line":"data: x\n\nevent: end"`)
	r.control.Remove("a")
	s.ends()
}

func TestAStreamOfLinesGoesOnWhereItWasLeft(t *testing.T) {
	r := newRig(t)
	r.add("a")
	r.control.Print("a", line("web", "one"), line("web", "two"), line("web", "three"))
	s := r.follow("/v1/environments/a/logs?follow=true", "Last-Event-ID: a.run.1")
	s.want("line", "a.run.2", "two")
	s.want("line", "a.run.3", "three")
	// Where others have come to is told on.
	s = r.follow("/v1/environments/a/logs?follow=true&tail=1&since=1h", "Last-Event-ID: a.run.2,other.build.zz")
	s.want("line", "a.run.3,other.build.zz", "three")
	for _, nonsense := range []string{"32001", "a.run", "a.run.-1", "a.run.!", ".run.1", ",,", "a.run.1.1"} {
		s = r.follow("/v1/environments/a/logs?follow=true", "Last-Event-ID: "+nonsense)
		if event, ok := s.next(); !ok || !strings.Contains(event.data, `"one"`) {
			t.Errorf("behind %q comes %+v, %t", nonsense, event, ok)
		}
	}
}

func TestWhatIsGoneIsShownOnlyWhenAskedFor(t *testing.T) {
	r := newRig(t)
	r.add("a")
	r.control.Happen("a", step("made"))
	r.control.Print("a", line("web", "hello"))
	r.control.Remove("a")
	for kind, text := range map[string]string{"events": "made", "logs": "hello"} {
		path := "/v1/environments/a/" + kind
		r.refusal(r.call("GET", path, ""), http.StatusNotFound, "not_found")
		r.refusal(r.call("GET", path+"?follow=true", ""), http.StatusNotFound, "not_found")
		if got := r.call("GET", path+"?deleted=true", ""); !strings.Contains(got.body, text) {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
		s := r.follow(path + "?deleted=true&follow=true")
		if e, _ := s.next(); !strings.Contains(e.data, text) {
			t.Errorf("%s followed gives %+v", path, e)
		}
		s.ends()
	}
}

func TestAClientThatLeavesEndsItsStream(t *testing.T) {
	r := newRig(t)
	r.add("a")
	r.control.Happen("a", step("one"))
	s := r.follow("/v1/environments/a/events?follow=true")
	s.want("event", "1", "one")
	s.resp.Body.Close()
	r.server.Close() // waits for all requests, and would for ever
}

// breaking is a control plane whose events end with an error.
type breaking struct {
	*apitest.Control
	err error
}

func (b breaking) Events(ctx context.Context, name string, o dayfly.EventOptions) iter.Seq2[dayfly.Event, error] {
	return func(yield func(dayfly.Event, error) bool) {
		for e, err := range b.Control.Events(ctx, name, dayfly.EventOptions{}) {
			if !yield(e, err) {
				return
			}
		}
		yield(dayfly.Event{}, b.err)
	}
}

func TestAnErrorInTheMiddleOfAStreamIsAnEvent(t *testing.T) {
	for _, c := range []struct {
		err             error
		code, secretive string
	}{
		{dayfly.Errorf(dayfly.CodeUnavailable, "the state is away"), `"code":"unavailable"`, "the state is away"},
		{errors.New("swordfish"), `"code":"internal"`, "server's log"},
	} {
		r := newRig(t)
		r.add("a")
		r.control.Happen("a", step("one"))
		r.server.Config.Handler = api.New(api.Config{Control: breaking{r.control, c.err}, Logger: slog.New(slog.DiscardHandler)})
		s := r.follow("/v1/environments/a/events?follow=true")
		s.want("event", "1", "one")
		e, _ := s.next()
		if e.name != "error" || !strings.Contains(e.data, c.code) || !strings.Contains(e.data, c.secretive) || strings.Contains(e.data, "swordfish") {
			t.Errorf("got %+v", e)
		}
		if e, ok := s.next(); ok {
			t.Errorf("after the error comes %+v", e)
		}
		// As a list, none of it is given.
		r.refusal(r.call("GET", "/v1/environments/a/events", ""), map[bool]int{true: 503, false: 500}[c.secretive == "the state is away"], string(dayfly.ErrorCode(c.err)))
	}
}

// recorder takes an answer and is read while it is written.
type recorder struct {
	mu sync.Mutex
	*httptest.ResponseRecorder
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ResponseRecorder.Write(b)
}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Body.String()
}

func TestAQuietStreamSaysThatItLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		control := &apitest.Control{}
		control.Add(dayfly.Environment{Name: "a"}, dayfly.EnvironmentSpec{})
		ctx, cancel := context.WithCancel(t.Context())
		req := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/v1/environments/a/logs?follow=true", nil)
		out := &recorder{ResponseRecorder: httptest.NewRecorder()}
		var served sync.WaitGroup
		served.Go(func() { apitest.Handler(control).ServeHTTP(out, req) })
		synctest.Wait()
		if out.text() != "" {
			t.Errorf("nothing was printed, and it says %q", out.text())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if beats := strings.Count(out.text(), ": still here\n\n"); beats < 3 || out.Header().Get("Content-Type") != "text/event-stream" {
			t.Errorf("a minute without a line gives %q, %v", out.text(), out.Header())
		}
		control.Print("a", line("web", "hello"))
		synctest.Wait()
		if !strings.Contains(out.text(), "hello") {
			t.Errorf("the line does not come: %q", out.text())
		}
		cancel()
		served.Wait()
		if strings.Contains(out.text(), "event: end") {
			t.Error("a client that went away is told that the environment did")
		}
	})
}
