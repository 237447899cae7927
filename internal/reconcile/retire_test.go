package reconcile_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/reconcile"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
)

// house is a sweeper with something that nobody uses.
type house struct {
	unused []dayfly.Departure
	err    error
}

func (h house) Sweep(context.Context, time.Duration, func(string) bool) ([]dayfly.Leftover, error) {
	return nil, nil
}
func (h house) Unused(context.Context) ([]dayfly.Departure, error) { return h.unused, h.err }

// sweeper has nothing to keep.
type sweeper struct{}

func (sweeper) Sweep(context.Context, time.Duration, func(string) bool) ([]dayfly.Leftover, error) {
	return nil, nil
}

// shared is a deployment of the project of the world's environment.
func shared(service, version string, now time.Time) dayfly.Deployment {
	key := dayfly.DeploymentKey{Project: "p", Service: service, Version: version, Hash: version, Owner: dayfly.SharedOwner("p")}
	return dayfly.Deployment{
		Format: dayfly.Format, ID: key.ID(), Key: key, Runner: "test", Node: "node", CreatedAt: now,
		Definition: &dayfly.Definition{Service: service, Dir: "."}, Variables: map[string]string{},
	}
}

func TestWhatGoesIsListedWithItsReasonAndWhatGoesFirstComesFirst(t *testing.T) {
	w := newWorld(t, kinds()[0])
	now := time.Now().Truncate(time.Second)
	commit := strings.Repeat("0123456789", 4)
	used := service("used", web, "v1", nil)
	used.From, used.Hosts, used.Address = dayfly.FromShared, nil, ""
	w.create(used)
	record, _ := registry.Lookup(w.cache, registry.Environments, "e")
	keep := shared("used", "v1", now)
	unused := shared("unused", commit, now)
	stops := shared("stops", "v1", now)
	stops.Retiring = &dayfly.Retirement{Since: now, Drain: dayfly.Duration(5 * time.Second)}
	own := shared("own", "v1", now)
	own.ID, own.Key.Owner, own.Environment = "own", record.Value.ID, "e"
	own.Retiring = &dayfly.Retirement{Since: now.Add(-time.Hour), Drain: dayfly.Duration(time.Second)}
	stays := own
	stays.ID, stays.Retiring = "stays", nil
	var ops []registry.Op
	for _, d := range []dayfly.Deployment{keep, unused, stops, own, stays} {
		ops = append(ops, registry.Create(registry.Deployments, d.ID, d))
	}
	for id, r := range map[string]registry.RetiredDeployment{
		"1": {ID: "1", Environment: record.Value.ID, Service: "worker", Node: "node", RetiredAt: now},
		"2": {ID: "2", Environment: dayfly.SharedOwner("p"), Service: "pinned", Node: "node", RetiredAt: now.Add(-3 * time.Hour)},
		"3": {ID: "3", Environment: "gone", Service: "web", Node: "node", RetiredAt: now.Add(time.Minute)},
	} {
		ops = append(ops, registry.Create(registry.Retired, id, r))
	}
	ops = append(ops, registry.Create(registry.Ended, "gone", registry.EndedEnvironment{ID: "gone", Name: "old", Project: "p", EndedAt: now.Add(2 * time.Minute)}))
	w.commit(ops...)
	for id, env := range map[string]string{"a": "temp", "b": "temp", "c": "e", "d": ""} {
		rec, err := w.store.Register(t.Context(), dayfly.Registration{
			Service: "web", ID: id, Version: "v1", Address: "127.0.0.1:1", Project: "p", Environment: env, TTL: dayfly.Duration(10 * time.Minute), CreatedAt: now,
		}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.cache.Wait(t.Context(), rec.Revision); err != nil {
			t.Fatal(err)
		}
	}
	at := func(d time.Duration) *time.Time { at := now.Add(d).UTC(); return &at }
	room := dayfly.Departure{Kind: "build", Name: "/b", Reason: "no deployment uses it", How: "when there is no room", Since: at(-time.Hour), Bytes: 5}
	parts := reconcile.Parts{Store: w.store, Cache: w.cache, Sweepers: []reconcile.Sweeper{sweeper{}, house{unused: []dayfly.Departure{room}}}, Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler)}
	r := reconcile.New(reconcile.Config{NodeID: "node", KeepLogs: time.Hour}, parts)
	got, err := r.Departures(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		kind, name, project, env string
		at                       *time.Time
		reason                   string
		overdue                  bool
	}{
		{"logs", "pinned", "p", "", at(-2 * time.Hour), "gone", true},
		{"deployment", "own@v1", "p", "e", at(-time.Hour + time.Second), "another version", false}, // how long it takes to stop is its own affair
		{"deployment", "stops@v1", "p", "", at(5 * time.Second), "no environment refers", false},
		{"environment", "temp", "p", "temp", at(10 * time.Minute), "2 registered instances", false},
		{"logs", "worker", "p", "e", at(time.Hour), "gone", false},
		{"logs", "web", "p", "old", at(time.Hour + time.Minute), "gone", false},
		{"events", "old", "p", "old", at(time.Hour + 2*time.Minute), "gone", false},
		{"build", "/b", "", "", nil, "no deployment", false},
		{"deployment", "unused@0123456789", "p", "", nil, "no environment refers", false},
	}
	if len(got) != len(want) {
		t.Fatalf("%d are listed: %+v", len(got), got)
	}
	for i, c := range want {
		g := got[i]
		if g.Kind != c.kind || g.Name != c.name || g.Project != c.project || g.Env != c.env || g.Overdue != c.overdue || !strings.Contains(g.Reason, c.reason) || g.How == "" {
			t.Errorf("%d is %+v, want %+v", i, g, c)
		}
		if (g.At == nil) != (c.at == nil) || g.At != nil && g.At.Sub(*c.at).Abs() > 2*time.Second { // leases count in seconds
			t.Errorf("%s goes at %v, want %v", g.Name, g.At, c.at)
		}
	}
	parts.Sweepers = []reconcile.Sweeper{house{err: errors.New("no disk")}}
	if _, err := reconcile.New(reconcile.Config{}, parts).Departures(t.Context()); err == nil || err.Error() != "no disk" {
		t.Errorf("what cannot be listed gives %v", err)
	}
}

// departure waits until one of that kind and name is listed, or none is.
func (w *world) departure(kind, name string, there bool) (found dayfly.Departure) {
	w.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		list, err := w.loop.Departures(w.Context())
		if err != nil {
			w.Fatal(err)
		}
		is := false
		for _, d := range list {
			if d.Kind == kind && d.Name == name && (kind != "deployment" || d.At != nil) {
				found, is = d, true
			}
		}
		if is == there {
			return found
		}
		if time.Now().After(deadline) {
			w.Fatalf("%s %s: listed %v, want %v: %+v", kind, name, is, there, list)
		}
	}
}

func TestASharedDeploymentIsListedFromWhenNobodyRefersToItUntilItIsGone(t *testing.T) {
	w := newWorld(t, kinds()[0])
	rs := service("pinned", web, "v1", nil)
	rs.From, rs.Hosts, rs.Address = dayfly.FromShared, nil, ""
	w.create(rs)
	w.start()
	for deadline := time.Now().Add(30 * time.Second); registry.Len(w.cache, registry.Deployments) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not made")
		}
	}
	w.departure("deployment", "pinned@v1", false)
	res, _ := registry.Lookup(w.cache, registry.Resolutions, "e")
	nothing := res.Value
	nothing.Services = nil
	w.commit(registry.Put(registry.Resolutions, "e", nothing), registry.Put(registry.Releases, "e", release.State{Format: dayfly.Format, Services: map[string][]release.Target{}}))
	gone := w.departure("deployment", "pinned@v1", true)
	if grace := gone.At.Sub(*gone.Since); grace != 30*time.Second || gone.Overdue {
		t.Errorf("it goes after %s: %+v", grace, gone)
	}
	// Somebody pins it again: it stays.
	w.commit(registry.Put(registry.Resolutions, "e", res.Value))
	w.departure("deployment", "pinned@v1", false)
	w.commit(registry.Put(registry.Resolutions, "e", nothing), registry.Put(registry.Releases, "e", release.State{Format: dayfly.Format, Services: map[string][]release.Target{}}))
	w.departure("deployment", "pinned@v1", true)
	w.mu.Lock()
	w.ahead = 31 * time.Second
	w.mu.Unlock()
	w.departure("deployment", "pinned@v1", false)
	if logs := w.departure("logs", "pinned", true); logs.Project != "p" || logs.Env != "" {
		t.Errorf("its logs are %+v", logs)
	}
}
