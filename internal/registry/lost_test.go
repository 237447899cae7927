package registry_test

import (
	"context"
	"slices"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

func TestNoChangeIsLostWithOneOfThreeMembers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts three servers")
	}
	members := startMembers(t)
	first := leader(t, members)
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, m.address)
	}
	s := open(t, registry.Config{Endpoints: endpoints})
	c := startCache(t, s)
	told := changes(t, c)
	var want []registry.Change
	record := func(key string, revision int64, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		wait(t, c, revision)
		want = append(want, registry.Change{Kind: "host", Key: key, Revision: revision})
	}
	revision, err := registry.Commit(t.Context(), s, registry.Create(registry.Hosts, "before", host("before")))
	record("before", revision, err)

	// Each member is lost in turn, and the connection with it or what it was passed on.
	for i := range members {
		lost := (first + i) % len(members)
		members[lost].kill(t)
		for _, n := range []string{"a", "b", "c"} {
			key := string(rune('0'+i)) + n
			revision, err := registry.Commit(t.Context(), s, registry.Create(registry.Hosts, key, host(key)), registry.Require(registry.Hosts, "before", want[0].Revision))
			record(key, revision, err)
		}
		if _, err := registry.Commit(t.Context(), s, registry.Create(registry.Hosts, "before", host("other"))); dayfly.ErrorCode(err) != dayfly.CodeConflict {
			t.Errorf("what is there is created again: %v", err)
		}
		members[lost].start(t)
		eventually(t, "the member is one of the cluster again", func() bool {
			_, err := members[lost].client(t).Get(context.WithoutCancel(t.Context()), "/")
			return err == nil
		})
	}
	eventually(t, "all told", func() bool { return len(told.all()) >= len(want) })
	if got := told.all(); !slices.Equal(got, want) {
		t.Errorf("told %v\nwant %v", got, want)
	}
}

func TestAChangeWhoseAnswerWasLostIsNotTakenForSomebodyElses(t *testing.T) {
	t.Parallel()
	for name, ops := range map[string]func(revision int64) []registry.Op{
		"created": func(int64) []registry.Op {
			return []registry.Op{registry.Absent(registry.Addresses, "127.0.0.1"), registry.Create(registry.Hosts, "new", host("new"))}
		},
		"updated": func(revision int64) []registry.Op {
			return []registry.Op{registry.Update(registry.Hosts, "old", host("newer"), revision), registry.Create(registry.Hosts, "new", host("new"))}
		},
		"replaced": func(revision int64) []registry.Op {
			return []registry.Op{registry.DeleteIf(registry.Hosts, "old", revision), registry.Create(registry.Hosts, "new", host("new"))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			process := startProcess(t)
			direct := open(t, registry.Config{Endpoints: []string{process.address}})
			old := commit(t, direct, registry.Put(registry.Hosts, "old", host("old")))
			link := startLink(t, process.address)
			s := open(t, registry.Config{Endpoints: []string{link.address()}})

			link.silence(true)
			type result struct {
				revision int64
				err      error
			}
			results := make(chan result, 1)
			go func() {
				revision, err := registry.Commit(context.WithoutCancel(t.Context()), s, ops(old)...)
				results <- result{revision, err}
			}()
			var made registry.Record[registry.HostClaim]
			eventually(t, "the change is made", func() (ok bool) {
				var err error
				made, err = registry.Get(context.WithoutCancel(t.Context()), direct, registry.Hosts, "new")
				return err == nil
			})
			link.cut() // the connection lacks a part, so another one has to be made
			link.silence(false)
			link.mend()
			if got := <-results; got.err != nil || got.revision != made.Revision {
				t.Errorf("got revision %d, %v; made at %d", got.revision, got.err, made.Revision)
			}
			if now, err := registry.Get(t.Context(), direct, registry.Hosts, "new"); err != nil || now.Revision != made.Revision {
				t.Errorf("made again: %+v, %v", now, err)
			}
		})
	}
}
