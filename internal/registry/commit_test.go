package registry_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

func host(name string) registry.HostClaim {
	return registry.HostClaim{Environment: "id-" + name, Name: name}
}

func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		created := time.Date(2026, 11, 1, 2, 3, 4, 5, time.UTC)
		project := dayfly.Project{ID: "p1", Name: "shop", Repo: "https://example.org/shop", Keep: dayfly.Forever,
			Credential: "c1", CreatedAt: created}
		revision := commit(t, s,
			registry.Create(registry.Projects, "shop", project),
			registry.Put(registry.Hosts, "shop.localhost", host("shop")),
			registry.Create(registry.Addresses, "127.1.2.3", registry.AddressClaim{Environment: "e", Service: "web"}))

		got, err := registry.Get(t.Context(), s, registry.Projects, "shop")
		project.Format = dayfly.Format
		want := registry.Record[dayfly.Project]{Key: "shop", Value: project, Revision: revision, Created: revision}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v\nwant %+v", got, err, want)
		}
		later := commit(t, s, registry.Put(registry.Hosts, "shop.localhost", host("other")))
		claim, err := registry.Get(t.Context(), s, registry.Hosts, "shop.localhost")
		if err != nil || claim.Value != host("other") || claim.Revision != later || claim.Created != revision {
			t.Errorf("got %+v, %v", claim, err)
		}
		list, err := registry.List(t.Context(), s, registry.Addresses)
		if err != nil || len(list) != 1 || list[0].Key != "127.1.2.3" || list[0].Value.Service != "web" {
			t.Errorf("got %+v, %v", list, err)
		}
	})
}

func TestWhatIsNotThereIsNotFound(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		_, err := registry.Get(t.Context(), s, registry.Hosts, "nobody.localhost")
		if dayfly.ErrorCode(err) != dayfly.CodeNotFound || !strings.Contains(err.Error(), "nobody.localhost") {
			t.Errorf("got %v", err)
		}
		list, err := registry.List(t.Context(), s, registry.Hosts)
		if err != nil || len(list) != 0 {
			t.Errorf("got %v, %v", list, err)
		}
	})
}

func TestATransactionIsDoneWhollyOrNotAtAllAndNamesWhatStoodInItsWay(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		old := commit(t, s, registry.Create(registry.Hosts, "a", host("a")))
		now := commit(t, s, registry.Put(registry.Hosts, "a", host("a2")),
			registry.Create(registry.Addresses, "127.0.0.9", registry.AddressClaim{}))
		fine := registry.Create(registry.Hosts, "z", host("z"))
		for _, test := range []struct {
			name string
			op   registry.Op
			kind string
			key  string // "" = no conflict
		}{
			{"create what is there", registry.Create(registry.Hosts, "a", host("x")), "host", "a"},
			{"update an old revision", registry.Update(registry.Hosts, "a", host("x"), old), "host", "a"},
			{"update what is gone", registry.Update(registry.Hosts, "b", host("x"), old), "host", "b"},
			{"delete an old revision", registry.DeleteIf(registry.Hosts, "a", old), "host", "a"},
			{"require an old revision", registry.Require(registry.Hosts, "a", old), "host", "a"},
			{"require nothing where something is", registry.Absent(registry.Addresses, "127.0.0.9"), "address", "127.0.0.9"},
			{"require the current revision", registry.Require(registry.Hosts, "a", now), "", ""},
			{"require nothing where nothing is", registry.Absent(registry.Addresses, "127.0.0.8"), "", ""},
			{"update the current revision", registry.Update(registry.Hosts, "a", host("a3"), now), "", ""},
		} {
			t.Run(test.name, func(t *testing.T) {
				_, err := registry.Commit(t.Context(), s, registry.Absent(registry.Hosts, "never"), fine, test.op)
				_, missing := registry.Get(t.Context(), s, registry.Hosts, "z")
				if test.key == "" {
					if err != nil || missing != nil {
						t.Fatalf("got %v, and then %v", err, missing)
					}
					commit(t, s, registry.Delete(registry.Hosts, "z"))
					return
				}
				var conflict *registry.Conflict
				if dayfly.ErrorCode(err) != dayfly.CodeConflict || !errors.As(err, &conflict) ||
					conflict.Kind != test.kind || conflict.Key != test.key {
					t.Errorf("got %v", err)
				}
				if missing == nil {
					t.Error("half of it was done")
				}
			})
		}
		record, err := registry.Get(t.Context(), s, registry.Hosts, "a")
		if err != nil || record.Value.Name != "a3" {
			t.Errorf("got %v, %v", record, err)
		}
		commit(t, s, registry.DeleteIf(registry.Hosts, "a", record.Revision))
		if _, err := registry.Get(t.Context(), s, registry.Hosts, "a"); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			t.Errorf("got %v", err)
		}
	})
}

func TestAnEmptyKeyIsRefused(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	if _, err := registry.Commit(t.Context(), s, registry.Delete(registry.Hosts, "")); err == nil {
		t.Error("accepted")
	}
}

func TestABigChangeFitsIntoOneTransaction(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	var ops []registry.Op
	for i := range 500 {
		ops = append(ops, registry.Create(registry.Hosts, fmt.Sprint("host", i), host("x")))
	}
	commit(t, s, ops...)
}

func TestAChangeThatIsTooBigForAClusterSaysWhatToDo(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	var ops []registry.Op
	for i := range 5000 {
		ops = append(ops, registry.Create(registry.Hosts, fmt.Sprint("host", i), host("x")))
	}
	_, err := registry.Commit(t.Context(), s, ops...)
	if dayfly.ErrorCode(err) != dayfly.CodeFailed || !strings.Contains(err.Error(), "--max-txn-ops") {
		t.Errorf("got %v", err)
	}
}

func TestARecordOfANewerVersionIsRefused(t *testing.T) {
	p := startProcess(t)
	s := open(t, registry.Config{Endpoints: []string{p.address}})
	client := p.client(t)
	for data, want := range map[string]string{
		`{"format": 2, "record": {"name": "x"}}`: "newer dayfly",
		`{"format": 1, "record": []}`:            "cannot be read",
		`nonsense`:                               "cannot be read",
	} {
		if _, err := client.Put(t.Context(), "/dayfly/1/record/host/a", data); err != nil {
			t.Fatal(err)
		}
		_, getErr := registry.Get(t.Context(), s, registry.Hosts, "a")
		_, listErr := registry.List(t.Context(), s, registry.Hosts)
		c := registry.NewCache(s)
		startErr := c.Start(t.Context())
		c.Close()
		for _, err := range []error{getErr, listErr, startErr} {
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "host/a") {
				t.Errorf("%s: got %v", data, err)
			}
		}
	}
}

func TestTheClusterHasOneIDForEver(t *testing.T) {
	p := startProcess(t)
	config := registry.Config{Endpoints: []string{p.address}}
	id := open(t, config).ClusterID()
	if len(id) != len(dayfly.NewID()) {
		t.Errorf("got %q", id)
	}
	if again := open(t, config).ClusterID(); again != id {
		t.Errorf("got %q, then %q", id, again)
	}
	if other := open(t, registry.Config{Dir: t.TempDir()}).ClusterID(); other == id {
		t.Error("two clusters have the same id")
	}
}

func TestAnEtcdThatIsAwayIsUnavailableAfterABoundedTime(t *testing.T) {
	p := startProcess(t)
	l := startLink(t, p.address)
	s := open(t, registry.Config{Endpoints: []string{l.address()}, Timeout: 200 * time.Millisecond})
	c := startCache(t, s)
	l.cut()
	_, commitErr := registry.Commit(t.Context(), s, registry.Put(registry.Hosts, "a", host("a")))
	_, getErr := registry.Get(t.Context(), s, registry.Hosts, "a")
	_, eventsErr := registry.Events(t.Context(), s, "env", 0)
	for what, err := range map[string]error{
		"commit": commitErr, "get": getErr, "events": eventsErr, "wait": c.Wait(t.Context(), c.Revision()+1),
	} {
		if dayfly.ErrorCode(err) != dayfly.CodeUnavailable {
			t.Errorf("%s: got %v", what, err)
		}
	}
	_, err := registry.Open(t.Context(), registry.Config{Endpoints: []string{l.address()}, Timeout: 200 * time.Millisecond})
	if dayfly.ErrorCode(err) != dayfly.CodeUnavailable {
		t.Errorf("open: got %v", err)
	}

	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := registry.Get(cancelled, s, registry.Hosts, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}
