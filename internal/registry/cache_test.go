package registry_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// hostsOf gives the names of the host claims that a cache has, by host.
func hostsOf(c *registry.Cache) map[string]string {
	hosts := map[string]string{}
	for r := range registry.All(c, registry.Hosts) {
		hosts[r.Key] = r.Value.Name
	}
	return hosts
}

func TestACacheHasWhatWasThereAndWhatComes(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		before := commit(t, s, registry.Put(registry.Hosts, "b", host("b")), registry.Put(registry.Hosts, "c", host("c")))
		c := startCache(t, s)
		if got, ok := registry.Lookup(c, registry.Hosts, "b"); !ok || got.Value != host("b") || got.Revision != before || got.Created != before {
			t.Errorf("got %+v, %v", got, ok)
		}
		commit(t, s, registry.Put(registry.Hosts, "b", host("b2")))
		commit(t, s, registry.Put(registry.Hosts, "a", host("a")))
		last := commit(t, s, registry.Delete(registry.Hosts, "c"))
		wait(t, c, last)
		var keys []string
		for r := range registry.All(c, registry.Hosts) {
			keys = append(keys, r.Key+"="+r.Value.Name)
		}
		if want := []string{"a=a", "b=b2"}; !slices.Equal(keys, want) {
			t.Errorf("got %v, want %v", keys, want)
		}
		if _, ok := registry.Lookup(c, registry.Hosts, "c"); ok {
			t.Error("has what was deleted")
		}
		if c.Revision() < last || registry.Len(c, registry.Hosts) != 2 || !c.Healthy() {
			t.Errorf("revision %d, %d hosts, healthy %v", c.Revision(), registry.Len(c, registry.Hosts), c.Healthy())
		}
	})
}

func TestWaitingForACommitThatChangedNothingEnds(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		c := startCache(t, s)
		if err := registry.AppendEvent(t.Context(), s, "env", dayfly.Event{Message: "not of the cache"}); err != nil {
			t.Fatal(err)
		}
		if _, err := registry.Events(t.Context(), s, "env", 0); err != nil {
			t.Fatal(err)
		}
		wait(t, c, commit(t, s, registry.Delete(registry.Hosts, "never-there")))
	})
}

func TestARecordIsFoundByWhatItBelongsTo(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	c := startCache(t, s)
	deployment := func(id, owner, project string) registry.Op {
		return registry.Put(registry.Deployments, id, dayfly.Deployment{ID: id, Key: dayfly.DeploymentKey{Owner: owner, Project: project}})
	}
	environment := func(name, id, project string) registry.Op {
		return registry.Put(registry.Environments, name, dayfly.EnvironmentRecord{ID: id, Spec: dayfly.EnvironmentSpec{Name: name, Project: project}})
	}
	of := func(owner string) (ids []string) {
		for r := range registry.DeploymentsOf(c, owner) {
			ids = append(ids, r.Key)
		}
		return ids
	}
	wait(t, c, commit(t, s,
		deployment("d2", "e1", "shop"), deployment("d1", "e1", "shop"), deployment("d3", "e10", "shop"), deployment("d4", "project:blog", "blog"),
		environment("shop-main", "e1", "shop"), environment("blog-main", "e2", "blog"),
		registry.Put(registry.Projects, "shop", dayfly.Project{ID: "p1", Name: "shop"}),
		registry.Put(registry.Retired, "d0", registry.RetiredDeployment{ID: "d0", Environment: "e1"}),
		registry.Put(registry.Ended, "e0", registry.EndedEnvironment{ID: "e0", Name: "shop-old"})))
	if got, want := of("e1"), []string{"d1", "d2"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := of("e"); got != nil {
		t.Errorf("an owner whose id only begins so has %v", got)
	}
	if got := len(slices.Collect(registry.DeploymentsOfProject(c, "shop"))); got != 3 {
		t.Errorf("the project has %d deployments", got)
	}
	if got := len(slices.Collect(registry.EnvironmentsOf(c, "blog"))); got != 1 {
		t.Errorf("the project has %d environments", got)
	}
	if r, ok := registry.EnvironmentByID(c, "e1"); !ok || r.Key != "shop-main" {
		t.Errorf("got %v, %v", r, ok)
	}
	if r, ok := registry.ProjectByID(c, "p1"); !ok || r.Key != "shop" {
		t.Errorf("got %v, %v", r, ok)
	}
	if _, ok := registry.ProjectByID(c, "p2"); ok {
		t.Error("found what is not there")
	}
	if got := len(slices.Collect(registry.RetiredOf(c, "e1"))); got != 1 {
		t.Errorf("%d retired deployments", got)
	}
	if got := len(slices.Collect(registry.EndedNamed(c, "shop-old"))); got != 1 {
		t.Errorf("%d ended environments", got)
	}

	// An index follows what changes and what goes.
	wait(t, c, commit(t, s, deployment("d1", "e2", "shop"), registry.Delete(registry.Deployments, "d2")))
	if got := append(of("e1"), of("e2")...); !slices.Equal(got, []string{"d1"}) {
		t.Errorf("got %v", got)
	}
}

func TestEveryChangeIsToldOnceAndInOrder(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		commit(t, s, registry.Put(registry.Hosts, "before", host("x")))
		c := startCache(t, s)
		got := changes(t, c)
		var want []registry.Change
		for i := range 50 {
			key := fmt.Sprint("host", i)
			want = append(want, registry.Change{Kind: "host", Key: key, Revision: commit(t, s, registry.Create(registry.Hosts, key, host("x")))})
		}
		gone := commit(t, s, registry.Delete(registry.Hosts, "before"))
		want = append(want, registry.Change{Kind: "host", Key: "before", Revision: gone, Deleted: true})
		wait(t, c, gone)
		eventually(t, "all told", func() bool { return len(got.all()) >= len(want) })
		if got := got.all(); !slices.Equal(got, want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
	})
}

func TestChangesBeforeTheStartTellWhatIsLoaded(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	revision := commit(t, s, registry.Put(registry.Hosts, "a", host("a")))
	c := registry.NewCache(s)
	t.Cleanup(c.Close)
	seq := c.Changes(t.Context())
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for change := range seq {
		if want := (registry.Change{Kind: "host", Key: "a", Revision: revision}); change != want {
			t.Errorf("got %v, want %v", change, want)
		}
		break
	}
}

func TestAReaderThatFallsBehindGetsTheNewestOfEachRecord(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	c := startCache(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seq := c.Changes(ctx)
	commit(t, s, registry.Put(registry.Hosts, "a", host("0")))
	for i := range 20 {
		commit(t, s, registry.Put(registry.Hosts, "b", host(fmt.Sprint(i))))
	}
	last := commit(t, s, registry.Put(registry.Hosts, "a", host("1")))
	end := commit(t, s, registry.Put(registry.Hosts, "c", host("c")))
	wait(t, c, end)
	var got []registry.Change
	for change := range seq {
		if got = append(got, change); change.Key == "c" || len(got) > 3 {
			break
		}
	}
	want := []registry.Change{{Kind: "host", Key: "a", Revision: last}, {Kind: "host", Key: "b", Revision: last - 1},
		{Kind: "host", Key: "c", Revision: end}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestChangesEndWithTheirContextAndWithTheCache(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	c := startCache(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	first := collect(t, func(_ context.Context, add func(registry.Change)) {
		for change := range c.Changes(ctx) {
			add(change)
		}
	})
	second := changes(t, c)
	cancel()
	<-first.done
	c.Close()
	<-second.done
	if _, ok := registry.Lookup(c, registry.Hosts, "a"); ok {
		t.Error("found what is not there")
	}
	if err := c.Wait(t.Context(), c.Revision()+1); dayfly.ErrorCode(err) != dayfly.CodeUnavailable {
		t.Errorf("waiting for a cache that has ended: %v", err)
	}
}

// An iteration shows one state, whatever is written meanwhile.
func TestAnIterationIsNotDisturbedByWhatIsWrittenMeanwhile(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	c := startCache(t, s)
	var ops []registry.Op
	for i := range 100 {
		ops = append(ops, registry.Create(registry.Hosts, fmt.Sprintf("host%03d", i), host("old")))
	}
	wait(t, c, commit(t, s, ops...))
	n := 0
	for r := range registry.All(c, registry.Hosts) {
		if n == 0 {
			wait(t, c, commit(t, s, registry.Delete(registry.Hosts, "host050"), registry.Put(registry.Hosts, "host051", host("new"))))
		}
		if r.Value.Name != "old" {
			t.Errorf("%s is of a later state", r.Key)
		}
		n++
	}
	if n != 100 || registry.Len(c, registry.Hosts) != 99 {
		t.Errorf("%d seen, %d left", n, registry.Len(c, registry.Hosts))
	}
}

// Whatever is written, a cache, its indexes and a reader of its changes end up with
// what is in etcd.
func TestACacheEndsUpWithWhatIsInEtcd(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	c := startCache(t, s)
	rapid.Check(t, func(t *rapid.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		told := map[string]string{}
		for r := range registry.All(c, registry.Deployments) {
			told[r.Key] = r.Value.Key.Owner
		}
		seq := c.Changes(ctx)
		keys, owners := rapid.SampledFrom([]string{"d1", "d2", "d3", "d4"}), rapid.SampledFrom([]string{"e1", "e2", ""})
		var last int64
		for range rapid.IntRange(1, 12).Draw(t, "commits") {
			key, owner := keys.Draw(t, "key"), owners.Draw(t, "owner")
			op := registry.Put(registry.Deployments, key, dayfly.Deployment{ID: key, Key: dayfly.DeploymentKey{Owner: owner}})
			if rapid.Bool().Draw(t, "delete") {
				op = registry.Delete(registry.Deployments, key)
			}
			revision, err := registry.Commit(ctx, s, op)
			if err != nil {
				t.Fatal(err)
			}
			last = revision
		}
		// The last one shows when all has been told.
		end, err := registry.Commit(ctx, s, registry.Put(registry.Hosts, "end", host(fmt.Sprint(last))))
		if err != nil {
			t.Fatal(err)
		}
		for change := range seq {
			if change.Kind == "host" {
				if change.Revision == end {
					break
				}
				continue
			}
			delete(told, change.Key)
			if r, ok := registry.Lookup(c, registry.Deployments, change.Key); ok {
				told[change.Key] = r.Value.Key.Owner
			}
		}
		list, err := registry.List(ctx, s, registry.Deployments)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		byOwner := map[string][]string{}
		for _, r := range list {
			owner := r.Value.Key.Owner
			want[r.Key] = owner
			if owner != "" {
				byOwner[owner] = append(byOwner[owner], r.Key)
			}
		}
		if fmt.Sprint(told) != fmt.Sprint(want) {
			t.Fatalf("told %v, want %v", told, want)
		}
		cached := slices.Collect(registry.All(c, registry.Deployments))
		if !slices.EqualFunc(cached, list, func(a, b registry.Record[dayfly.Deployment]) bool {
			return a.Key == b.Key && a.Revision == b.Revision && a.Created == b.Created && a.Value.Key == b.Value.Key
		}) {
			t.Fatalf("cached %v, want %v", cached, list)
		}
		for _, owner := range []string{"e1", "e2"} {
			var got []string
			for r := range registry.DeploymentsOf(c, owner) {
				got = append(got, r.Key)
			}
			if !slices.Equal(got, byOwner[owner]) {
				t.Fatalf("%s has %v, want %v", owner, got, byOwner[owner])
			}
		}
	})
}
