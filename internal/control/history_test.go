package control_test

import (
	"context"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// all reads a sequence to its end or its error.
func all[T any](seq iter.Seq2[T, error]) (list []T, err error) {
	for v, err := range seq {
		if err != nil {
			return list, err
		}
		list = append(list, v)
	}
	return list, nil
}

func (w *world) event(env dayfly.Environment, message string) {
	w.Helper()
	if err := registry.AppendEvent(w.Context(), w.store, env.ID, dayfly.Event{
		Time: w.clock.Now(), Environment: env.Name, Kind: dayfly.EventStep, Message: message}); err != nil {
		w.Fatal(err)
	}
}

// deployed adds a deployment of a service that has printed lines.
func (w *world) deployed(env dayfly.Environment, service string, lines ...string) string {
	w.Helper()
	d := dayfly.NewDeployment(w.record(env.Name).Value, dayfly.ResolvedService{Name: service}, "local", "node1", w.clock.Now())
	w.commit(registry.Create(registry.Deployments, d.ID, d))
	w.prints(d.ID, service, lines...)
	return d.ID
}

func (w *world) prints(deployment, service string, lines ...string) {
	for _, l := range lines {
		w.clock.forward(dayfly.Duration(time.Second))
		w.logs.add(deployment, dayfly.LogLine{Time: w.clock.Now(), Service: service, Line: l})
	}
}

// retire replaces a deployment by what is kept of it.
func (w *world) retire(env dayfly.Environment, deployment, service string) {
	w.Helper()
	w.commit(registry.Delete(registry.Deployments, deployment), registry.Create(registry.Retired, deployment,
		registry.RetiredDeployment{ID: deployment, Environment: env.ID, Service: service, RetiredAt: w.clock.Now()}))
}

func texts(lines []dayfly.LogLine) (list []string) {
	for _, l := range lines {
		list = append(list, l.Line)
	}
	return list
}

func TestEventsAreFoundByNameAndByID(t *testing.T) {
	w := start(t).shop()
	env := w.create("main")
	w.event(env, "one")
	w.event(env, "two")
	for _, by := range []string{env.Name, env.ID} {
		events, err := all(w.Events(t.Context(), by, dayfly.EventOptions{}))
		if err != nil || len(events) != 2 || events[0].Message != "one" || events[1].Message != "two" {
			t.Fatalf("by %s: %+v, %v", by, events, err)
		}
		rest, err := all(w.Events(t.Context(), by, dayfly.EventOptions{After: events[0].ID}))
		if err != nil || len(rest) != 1 || rest[0].Message != "two" {
			t.Errorf("after the first, by %s: %+v, %v", by, rest, err)
		}
	}
	_, err := all(w.Events(t.Context(), "nobody", dayfly.EventOptions{}))
	refused(t, err, dayfly.CodeNotFound, "nobody")
}

func TestFollowedEventsGoOn(t *testing.T) {
	w := start(t).shop()
	env := w.create("main")
	w.event(env, "one")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	for e, err := range w.Events(ctx, env.Name, dayfly.EventOptions{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, e.Message); len(got) == 3 {
			break
		}
		w.event(env, "another")
	}
	if want := []string{"one", "another", "another"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEventsAndLogsOfWhatIsGoneAreFoundOnlyWhenAskedFor(t *testing.T) {
	w := start(t).shop()
	none, err := all(w.Events(t.Context(), "shop-main", dayfly.EventOptions{Deleted: true}))
	refused(t, err, dayfly.CodeNotFound, "nothing is kept", "shop-main")
	if len(none) > 0 {
		t.Errorf("got %+v", none)
	}

	oldest, old := w.end("oldest"), w.end("old")
	for _, by := range []string{"shop-main", old.ID} {
		_, err = all(w.Events(t.Context(), by, dayfly.EventOptions{}))
		refused(t, err, dayfly.CodeNotFound, "--deleted")
	}
	live := w.create("main")
	w.event(live, "live")
	w.deployed(live, "web", "live")

	for _, c := range []struct {
		name    string
		by      string
		deleted bool
		want    string
	}{
		{"the live one by its name", "shop-main", false, "live"},
		{"the last that is gone by its name", "shop-main", true, "old"},
		{"any that is gone by its id", oldest.ID, true, "oldest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			events, err := all(w.Events(t.Context(), c.by, dayfly.EventOptions{Deleted: c.deleted}))
			if err != nil || len(events) != 1 || events[0].Message != c.want {
				t.Errorf("events %+v, %v", events, err)
			}
			lines, err := all(w.Logs(t.Context(), c.by, dayfly.LogQuery{Deleted: c.deleted}))
			if err != nil || !slices.Equal(texts(lines), []string{c.want}) {
				t.Errorf("lines %+v, %v", lines, err)
			}
		})
	}
}

// end makes an environment with one event and one line, which is gone then.
func (w *world) end(text string) dayfly.Environment {
	w.Helper()
	env := w.create("main")
	w.event(env, text)
	w.retire(env, w.deployed(env, "web", text), "web")
	w.clock.forward(hour)
	w.forget(env)
	return env
}

func TestLogsAreOneStreamInTheOrderOfTime(t *testing.T) {
	w := start(t).shop()
	env := w.create("main")
	old := w.deployed(env, "web", "web 1", "web 2")
	api := w.deployed(env, "api", "api 1")
	w.prints(old, "web", "web 3")
	w.prints(api, "api", "api 2")
	w.retire(env, old, "web")
	w.deployed(env, "web", "web 4")
	since := w.clock.Now()
	for _, c := range []struct {
		name string
		q    dayfly.LogQuery
		want []string
	}{
		{"all", dayfly.LogQuery{}, []string{"web 1", "web 2", "api 1", "web 3", "api 2", "web 4"}},
		{"of one service", dayfly.LogQuery{Service: "web"}, []string{"web 1", "web 2", "web 3", "web 4"}},
		{"the last of each service", dayfly.LogQuery{Tail: 1}, []string{"api 2", "web 4"}},
		{"the last two of a service that had two deployments", dayfly.LogQuery{Service: "web", Tail: 2}, []string{"web 3", "web 4"}},
		{"since a time", dayfly.LogQuery{Since: since}, []string{"web 4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, by := range []string{env.Name, env.ID} {
				lines, err := all(w.Logs(t.Context(), by, c.q))
				if err != nil || !slices.Equal(texts(lines), c.want) {
					t.Errorf("by %s: %q, want %q, %v", by, texts(lines), c.want, err)
				}
			}
		})
	}
}

func TestLogsOfAServiceThatIsNotThereAreRefused(t *testing.T) {
	w := start(t).shop()
	env := w.create("main")
	_, err := all(w.Logs(t.Context(), env.Name, dayfly.LogQuery{Service: "nobody"}))
	refused(t, err, dayfly.CodeNotFound, "nobody", env.Name)
	for _, by := range []string{env.Name, env.ID} {
		lines, err := all(w.Logs(t.Context(), by, dayfly.LogQuery{Service: "web"}))
		if err != nil || len(lines) > 0 {
			t.Errorf("one that has not printed yet, by %s: %v, %v", by, lines, err)
		}
	}
}

func TestFollowedLogsGoOnWithNewDeploymentsUntilTheEnvironmentIsGone(t *testing.T) {
	for _, by := range []string{"name", "id"} {
		t.Run("by "+by, func(t *testing.T) {
			w := start(t).shop()
			env := w.create("main")
			first := w.deployed(env, "web", "web 1")
			name := env.Name
			if by == "id" {
				name = env.ID
			}
			lines := make(chan string, 10)
			var following sync.WaitGroup
			following.Go(func() {
				defer close(lines)
				for line, err := range w.Logs(t.Context(), name, dayfly.LogQuery{Follow: true}) {
					if err != nil {
						t.Error(err)
					}
					lines <- line.Line
				}
			})
			if got := <-lines; got != "web 1" {
				t.Errorf("first %q", got)
			}
			d := dayfly.NewDeployment(w.record(env.Name).Value, dayfly.ResolvedService{Name: "web"}, "local", "node1", w.clock.Now())
			w.prints(d.ID, "web", "web 2")
			w.commit(registry.Create(registry.Deployments, d.ID, d))
			if got := <-lines; got != "web 2" {
				t.Errorf("then %q", got)
			}
			w.retire(env, first, "web")
			w.retire(env, d.ID, "web")
			w.forget(env)
			following.Wait()
			if rest, open := <-lines; open {
				t.Errorf("and %q", rest)
			}
		})
	}
}
