package registry_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

func add(t testing.TB, s *registry.Store, env string, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if err := registry.AppendEvent(context.Background(), s, env, dayfly.Event{Message: m}); err != nil {
			t.Fatal(err)
		}
	}
}

func events(t testing.TB, s *registry.Store, env string, after int64) []dayfly.Event {
	t.Helper()
	list, err := registry.Events(context.Background(), s, env, after)
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		if list[i].ID <= after || i > 0 && list[i].ID <= list[i-1].ID {
			t.Errorf("event %d has id %d", i, list[i].ID)
		}
	}
	return list
}

func messages(list []dayfly.Event) []string {
	got := []string{}
	for _, e := range list {
		got = append(got, e.Message)
	}
	return got
}

func numbers(from, to int) (list []string) {
	for i := from; i < to; i++ {
		list = append(list, fmt.Sprint(i))
	}
	return list
}

// following collects the messages that a watch gives.
func following(t testing.TB, s *registry.Store, env string, after int64) *collector[string] {
	return collect(t, func(ctx context.Context, add func(string)) {
		for e, err := range registry.WatchEvents(ctx, s, env, after) {
			if err != nil {
				add("error: " + err.Error())
				return
			}
			add(e.Message)
		}
	})
}

func TestEventsAreReadAsTheyWereAppended(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		want := dayfly.Event{Environment: "shop-main", Service: "web", Kind: dayfly.EventError, Reason: "build-failed",
			Message: "the build failed", Cause: "a push", Log: []string{"a", "b"}}
		if err := registry.AppendEvent(t.Context(), s, "e1", want); err != nil {
			t.Fatal(err)
		}
		add(t, s, "e2", "of another")
		got := events(t, s, "e1", 0)
		if len(got) != 1 {
			t.Fatalf("got %v", got)
		}
		want.ID, want.Format = got[0].ID, dayfly.Format
		if fmt.Sprintf("%+v", got[0]) != fmt.Sprintf("%+v", want) {
			t.Errorf("got %+v\nwant %+v", got[0], want)
		}
		if rest := events(t, s, "e1", want.ID); len(rest) != 0 {
			t.Errorf("after the last: %v", rest)
		}
		if err := registry.AppendEvent(t.Context(), s, "", want); err == nil {
			t.Error("accepted an event of nothing")
		}
	})
}

func TestTheNewest200EventsAreKept(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		add(t, s, "other", "untouched")
		add(t, s, "e", numbers(0, 450)...)
		if got, want := messages(events(t, s, "e", 0)), numbers(250, 450); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		middle := events(t, s, "e", 0)[150].ID
		if got, want := messages(events(t, s, "e", middle)), numbers(401, 450); !slices.Equal(got, want) {
			t.Errorf("after the middle: %v", got)
		}
		if got := messages(events(t, s, "other", 0)); !slices.Equal(got, []string{"untouched"}) {
			t.Errorf("the other has %v", got)
		}
	})
}

func TestSeveralServersWriteEventsOfOneEnvironment(t *testing.T) {
	p := startProcess(t)
	var writers sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		s := open(t, registry.Config{Endpoints: []string{p.address}})
		writers.Go(func() {
			for i := range 40 {
				add(t, s, "e", fmt.Sprint(name, i))
				if i%10 == 0 {
					events(t, s, "e", 0)
				}
			}
			events(t, s, "e", 0)
		})
	}
	writers.Wait()
	s := open(t, registry.Config{Endpoints: []string{p.address}})
	all := messages(events(t, s, "e", 0))
	if len(all) != 120 {
		t.Errorf("%d events", len(all))
	}
	for _, name := range []string{"a", "b", "c"} {
		var own []string
		for _, m := range all {
			if m[:1] == name {
				own = append(own, m[1:])
			}
		}
		if !slices.Equal(own, numbers(0, 40)) {
			t.Errorf("%s: %v", name, own)
		}
	}
}

func TestCloseWritesTheEventsThatWait(t *testing.T) {
	dir := t.TempDir()
	s, err := registry.Open(t.Context(), registry.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	add(t, s, "e", numbers(0, 150)...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := registry.AppendEvent(t.Context(), s, "e", dayfly.Event{}); dayfly.ErrorCode(err) != dayfly.CodeUnavailable {
		t.Errorf("after Close: %v", err)
	}
	again := open(t, registry.Config{Dir: dir})
	if got := messages(events(t, again, "e", 0)); !slices.Equal(got, numbers(0, 150)) {
		t.Errorf("got %v", got)
	}
	// The ring goes on where it was.
	add(t, again, "e", numbers(150, 250)...)
	if got := messages(events(t, again, "e", 0)); !slices.Equal(got, numbers(50, 250)) {
		t.Errorf("got %v", got)
	}
}

func TestEventsThatCameWhileEtcdWasAwayAreWrittenOnceWhenItIsBack(t *testing.T) {
	p := startProcess(t)
	l := startLink(t, p.address)
	s := open(t, registry.Config{Endpoints: []string{l.address()}})
	add(t, s, "e", numbers(0, 5)...)
	events(t, s, "e", 0)
	for i := range 5 {
		add(t, s, "e", numbers(5+20*i, 15+20*i)...)
		l.cut() // in the middle, or not, of writing them
		add(t, s, "e", numbers(15+20*i, 25+20*i)...)
		l.mend()
		if got := messages(events(t, s, "e", 0)); !slices.Equal(got, numbers(0, 25+20*i)) {
			t.Fatalf("got %v", got)
		}
	}
}

func TestAnEventWhoseConfirmationWasLostIsNotWrittenTwice(t *testing.T) {
	p := startProcess(t)
	l := startLink(t, p.address)
	direct := open(t, registry.Config{Endpoints: []string{p.address}})
	s := open(t, registry.Config{Endpoints: []string{l.address()}})
	add(t, s, "e", "before")
	events(t, s, "e", 0)
	l.silence(true)
	add(t, s, "e", "in the dark")
	eventually(t, "it is written", func() bool { return len(events(t, direct, "e", 0)) == 2 })
	l.cut()
	l.silence(false)
	l.mend()
	add(t, s, "e", "after")
	if got, want := messages(events(t, s, "e", 0)), []string{"before", "in the dark", "after"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAFollowerGetsEveryEventOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		add(t, s, "e", numbers(0, 10)...)
		fifth := events(t, s, "e", 0)[4].ID
		all, later, early := following(t, s, "e", 0), following(t, s, "e", fifth), following(t, s, "none-yet", 0)
		for i := 10; i < 100; i += 10 {
			add(t, s, "e", numbers(i, i+10)...)
			events(t, s, "e", 0)
		}
		add(t, s, "none-yet", "first")
		for _, test := range []struct {
			got  *collector[string]
			want []string
		}{{all, numbers(0, 100)}, {later, numbers(5, 100)}, {early, []string{"first"}}} {
			eventually(t, "all followed", func() bool { return len(test.got.all()) >= len(test.want) })
			if got := test.got.all(); !slices.Equal(got, test.want) {
				t.Errorf("got %v\nwant %v", got, test.want)
			}
		}
	})
}

func TestAFollowerGoesOnAfterALostConnectionAndACompaction(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	l := startLink(t, p.address)
	direct := open(t, registry.Config{Endpoints: []string{p.address}})
	far := open(t, registry.Config{Endpoints: []string{l.address()}})
	add(t, direct, "e", numbers(0, 3)...)
	events(t, direct, "e", 0)
	got := following(t, far, "e", 0)
	eventually(t, "it follows", func() bool { return len(got.all()) == 3 })
	l.cut()
	add(t, direct, "e", numbers(3, 50)...)
	events(t, direct, "e", 0)
	revision := commit(t, direct, registry.Put(registry.Hosts, "a", host("a")))
	if _, err := p.client(t).Compact(t.Context(), revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	l.mend()
	add(t, direct, "e", numbers(50, 60)...)
	eventually(t, "all followed", func() bool { return len(got.all()) >= 60 })
	if got := got.all(); !slices.Equal(got, numbers(0, 60)) {
		t.Errorf("got %v", got)
	}
}

func TestDeletingEventsEndsWhoFollowsThem(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		add(t, s, "e", numbers(0, 10)...)
		add(t, s, "e2", "stays")
		got := following(t, s, "e", 0)
		eventually(t, "it follows", func() bool { return len(got.all()) == 10 })
		add(t, s, "e", "last")
		if err := registry.DeleteEvents(t.Context(), s, "e"); err != nil {
			t.Fatal(err)
		}
		<-got.done
		if got := got.all(); !slices.Equal(got, append(numbers(0, 10), "last")) {
			t.Errorf("got %v", got)
		}
		if left := events(t, s, "e", 0); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		if left := events(t, s, "e2", 0); len(left) != 1 {
			t.Errorf("of the other: %v", left)
		}
		add(t, s, "e", "anew")
		if got := messages(events(t, s, "e", 0)); !slices.Equal(got, []string{"anew"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestEventsBeginAnewAfterAnotherServerDeletedThem(t *testing.T) {
	p := startProcess(t)
	config := registry.Config{Endpoints: []string{p.address}}
	s, other := open(t, config), open(t, config)
	add(t, s, "e", numbers(0, 10)...)
	events(t, s, "e", 0)
	if err := registry.DeleteEvents(t.Context(), other, "e"); err != nil {
		t.Fatal(err)
	}
	add(t, s, "e", "anew")
	if got := messages(events(t, s, "e", 0)); !slices.Equal(got, []string{"anew"}) {
		t.Errorf("got %v", got)
	}
}
