package registry_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dayfly-dev/dayfly/internal/registry"
)

// away is a cache behind a link, and a store that reaches the same etcd without it.
type away struct {
	process *process
	link    *link
	direct  *registry.Store
	store   *registry.Store
	cache   *registry.Cache
	told    *collector[registry.Change]

	mu     sync.Mutex
	health []bool
}

func startAway(t *testing.T) *away {
	a := &away{process: startProcess(t)}
	a.link = startLink(t, a.process.address)
	a.direct = open(t, registry.Config{Endpoints: []string{a.process.address}})
	commit(t, a.direct, registry.Put(registry.Hosts, "kept", host("kept")),
		registry.Put(registry.Hosts, "changed", host("old")), registry.Put(registry.Hosts, "removed", host("removed")))
	a.store = open(t, registry.Config{Endpoints: []string{a.link.address()}})
	a.cache = registry.NewCache(a.store)
	a.cache.OnHealth(func(healthy bool) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.health = append(a.health, healthy)
	})
	if err := a.cache.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.cache.Close)
	a.told = changes(t, a.cache)
	return a
}

func (a *away) cut(t *testing.T) {
	a.link.cut()
	eventually(t, "the loss is noticed", func() bool { return !a.cache.Healthy() })
}

func (a *away) mend(t *testing.T, revision int64) {
	a.link.mend()
	eventually(t, "the cache is current", func() bool { return a.cache.Revision() >= revision && a.cache.Healthy() })
}

func (a *away) expect(t *testing.T, want []registry.Change) {
	t.Helper()
	// One more tells that nothing else comes before it.
	end := commit(t, a.direct, registry.Put(registry.Hosts, "end", host("end")))
	want = append(want, registry.Change{Kind: "host", Key: "end", Revision: end})
	eventually(t, "the last change is told", func() bool {
		got := a.told.all()
		return len(got) > 0 && got[len(got)-1].Revision >= end
	})
	if got := a.told.all(); !slices.Equal(got, want) {
		t.Errorf("told %v\nwant %v", got, want)
	}
}

func TestACacheGoesOnAfterALostConnectionWithoutMissingOrRepeatingAChange(t *testing.T) {
	t.Parallel()
	a := startAway(t)
	a.cut(t)
	if got, ok := registry.Lookup(a.cache, registry.Hosts, "removed"); !ok || got.Value.Name != "removed" {
		t.Error("does not answer while etcd is away")
	}
	var want []registry.Change
	for i := range 10 {
		key := fmt.Sprint("host", i)
		want = append(want, registry.Change{Kind: "host", Key: key, Revision: commit(t, a.direct, registry.Put(registry.Hosts, key, host(key)))})
	}
	gone := commit(t, a.direct, registry.Delete(registry.Hosts, "removed"))
	want = append(want, registry.Change{Kind: "host", Key: "removed", Revision: gone, Deleted: true})
	a.mend(t, gone)
	a.expect(t, want)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Equal(a.health, []bool{true, false, true}) {
		t.Errorf("health was told as %v", a.health)
	}
}

func TestACacheGoesOnAfterACompactionWithoutMissingOrRepeatingAChange(t *testing.T) {
	t.Parallel()
	a := startAway(t)
	a.cut(t)
	known := a.cache.Revision()
	commit(t, a.direct, registry.Put(registry.Hosts, "changed", host("newer")))
	changed := commit(t, a.direct, registry.Put(registry.Hosts, "changed", host("new")))
	commit(t, a.direct, registry.Put(registry.Hosts, "came-and-went", host("x")))
	commit(t, a.direct, registry.Delete(registry.Hosts, "came-and-went"))
	commit(t, a.direct, registry.Delete(registry.Hosts, "removed"))
	added := commit(t, a.direct, registry.Put(registry.Hosts, "added", host("added")))
	if _, err := a.process.client(t).Compact(t.Context(), added, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	a.mend(t, added)
	if want := map[string]string{"kept": "kept", "changed": "new", "added": "added"}; fmt.Sprint(hostsOf(a.cache)) != fmt.Sprint(want) {
		t.Errorf("has %v, want %v", hostsOf(a.cache), want)
	}
	// The compaction must have hit the revision that the watch goes on from.
	watch := a.process.client(t).Watch(t.Context(), "/", clientv3.WithPrefix(), clientv3.WithRev(known+1))
	if resp := <-watch; resp.CompactRevision == 0 {
		t.Fatal("the watched revision was not compacted")
	}
	// When exactly "removed" went is lost with the compaction.
	a.expect(t, []registry.Change{
		{Kind: "host", Key: "changed", Revision: changed},
		{Kind: "host", Key: "added", Revision: added},
		{Kind: "host", Key: "removed", Revision: added, Deleted: true},
	})
}

func TestACacheAnswersWhileEtcdIsKilledAndGoesOnWhenItIsBack(t *testing.T) {
	t.Parallel()
	a := startAway(t)
	last := commit(t, a.direct, registry.Put(registry.Hosts, "acknowledged", host("acknowledged")))
	wait(t, a.cache, last)
	want := []registry.Change{{Kind: "host", Key: "acknowledged", Revision: last}}
	for i := range 3 {
		a.process.kill(t)
		eventually(t, "the loss is noticed", func() bool { return !a.cache.Healthy() })
		if _, ok := registry.Lookup(a.cache, registry.Hosts, "kept"); !ok {
			t.Error("does not answer while etcd is away")
		}
		a.process.start(t)
		got, err := registry.Get(t.Context(), a.direct, registry.Hosts, "acknowledged")
		if err != nil || got.Revision != last-int64(i) {
			t.Fatalf("what was acknowledged before the kill: %+v, %v", got, err)
		}
		key := fmt.Sprint("after", i)
		last = commit(t, a.direct, registry.Put(registry.Hosts, key, host(key)))
		want = append(want, registry.Change{Kind: "host", Key: key, Revision: last})
		eventually(t, "the cache is current", func() bool { return a.cache.Revision() >= last && a.cache.Healthy() })
	}
	a.expect(t, want)
}

func TestAnEmbeddedStateIsThereAgainAfterAStop(t *testing.T) {
	dir := t.TempDir()
	s, err := registry.Open(t.Context(), registry.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	id := s.ClusterID()
	c := registry.NewCache(s)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	revision := commit(t, s, registry.Put(registry.Hosts, "a", host("a")))
	c.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, registry.Config{Dir: dir})
	got, err := registry.Get(t.Context(), again, registry.Hosts, "a")
	if err != nil || got.Revision != revision || again.ClusterID() != id {
		t.Errorf("got %+v, %v; cluster %s, was %s", got, err, again.ClusterID(), id)
	}
}

func TestANodeIsThereAgainWhenEtcdCameBackWithoutItsLease(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	l := startLink(t, p.address)
	direct := open(t, registry.Config{Endpoints: []string{p.address}})
	c := startCache(t, direct)
	s := open(t, registry.Config{Endpoints: []string{l.address()}, LeaseTTL: time.Second, Timeout: time.Second})
	node := registry.Node{ID: "n1", Address: "10.0.0.1:7070", Hostname: "one", Version: "v1", StartedAt: time.Unix(1, 0).UTC()}
	m, err := s.Join(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	there := func() bool { _, ok := registry.Lookup(c, registry.Nodes, "n1"); return ok }
	eventually(t, "the node is known", there)
	l.cut()
	eventually(t, "the lease has ended", func() bool { return !there() })
	l.mend()
	eventually(t, "the node is known again", there)
	if got, _ := registry.Lookup(c, registry.Nodes, "n1"); got.Value != node {
		t.Errorf("got %+v", got.Value)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	// By revoking its lease, not by waiting for its end.
	list, err := registry.List(t.Context(), direct, registry.Nodes)
	if err != nil || len(list) != 0 {
		t.Errorf("after it left: %v, %v", list, err)
	}
}

func TestJoiningAnEtcdThatIsAwayFails(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	s := open(t, registry.Config{Endpoints: []string{p.address}, Timeout: 300 * time.Millisecond})
	p.kill(t)
	if _, err := s.Join(context.Background(), registry.Node{ID: "n"}); err == nil {
		t.Error("joined")
	}
	p.start(t)
}
