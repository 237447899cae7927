package registry_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

const second = dayfly.Duration(time.Second)

func registration(project, env, service, version, id string) dayfly.Registration {
	r := dayfly.Registration{Service: service, ID: id, Version: version, Address: "10.0.0.1:80", Project: project, Environment: env,
		TTL: 60 * second, CreatedAt: time.Date(2026, 11, 1, 2, 3, 4, 0, time.UTC)}
	if env != "" {
		r.Host = service + "-" + env + ".localhost"
	}
	return r
}

func register(t testing.TB, s *registry.Store, r dayfly.Registration, revision int64) registry.Record[dayfly.Registration] {
	t.Helper()
	made, err := s.Register(t.Context(), r, revision)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestARegistrationLeavesTheCacheWhenItsLeaseRunsOutAndStaysWhileItIsRenewed(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		c := startCache(t, s)
		short := registration("shop", "", "web", "v1", "short")
		short.TTL = second
		kept := short
		kept.ID = "kept"
		register(t, s, short, 0)
		made := register(t, s, kept, 0)
		wait(t, c, made.Revision)
		if n := registry.Len(c, registry.Registrations); n != 2 {
			t.Fatalf("%d registrations", n)
		}
		eventually(t, "the one that nobody renews has gone", func() bool {
			if alive, err := s.Renew(t.Context(), made.Value); err != nil || !alive {
				t.Fatalf("the other one is not renewed: %t, %v", alive, err)
			}
			_, there := registry.Lookup(c, registry.Registrations, "web/short")
			return !there
		})
		now, ok := registry.Lookup(c, registry.Registrations, "web/kept")
		if !ok || now.Revision != made.Revision || now.Value != made.Value {
			t.Errorf("renewing has changed the record: %+v, was %+v", now, made)
		}
		if _, alive, err := s.LastSeen(t.Context(), made.Value, time.Now()); err != nil || !alive {
			t.Errorf("the one that is renewed was not seen: %v", err)
		}
	})
}

func TestOneThatHasRunOutCanNotBeRenewed(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		made := register(t, s, registration("shop", "", "web", "v1", "a"), 0)
		if _, err := s.Deregister(t.Context(), made.Value); err != nil {
			t.Fatal(err)
		}
		if _, err := registry.Get(t.Context(), s, registry.Registrations, made.Key); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			t.Errorf("it is still there: %v", err)
		}
		if alive, err := s.Renew(t.Context(), made.Value); alive || err != nil {
			t.Errorf("renewed: %t, %v", alive, err)
		}
		if _, alive, err := s.LastSeen(t.Context(), made.Value, time.Now()); alive || err != nil {
			t.Errorf("seen: %t, %v", alive, err)
		}
		if _, err := s.Deregister(t.Context(), made.Value); err != nil {
			t.Errorf("ended twice: %v", err)
		}
	})
}

// The lease of what was registered before must not end what is registered now.
func TestAChangedRegistrationLivesUnderALeaseOfItsOwn(t *testing.T) {
	everywhere(t, func(t *testing.T, s *registry.Store) {
		first := register(t, s, registration("shop", "", "web", "v1", "a"), 0)
		next := first.Value
		next.Version = "v2"
		second := register(t, s, next, first.Revision)
		if second.Value.Lease == first.Value.Lease {
			t.Error("the lease is the same")
		}
		if alive, err := s.Renew(t.Context(), first.Value); alive || err != nil {
			t.Errorf("the lease of before is still there: %t, %v", alive, err)
		}
		got, err := registry.Get(t.Context(), s, registry.Registrations, "web/a")
		if err != nil || got.Value != second.Value || got.Created != first.Revision {
			t.Errorf("got %+v, %v", got, err)
		}

		var conflict *registry.Conflict
		if _, err := s.Register(t.Context(), next, first.Revision); !errors.As(err, &conflict) || conflict.Key != "web/a" {
			t.Errorf("changed from a revision that has passed: %v", err)
		}
		if _, err := s.Register(t.Context(), next, 0); !errors.As(err, &conflict) {
			t.Errorf("made though it is there: %v", err)
		}
	})
}

func TestRegistrationsAreFoundByWhatTheyAreFor(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	c := startCache(t, s)
	var last int64
	for _, r := range []dayfly.Registration{
		registration("shop", "", "web", "v1", "1"), registration("shop", "", "web", "v1", "2"), registration("shop", "", "web", "v2", "3"),
		registration("shop", "", "api", "v1", "4"), registration("other", "", "web", "v1", "5"),
		registration("shop", "temp", "web", "v1", "6"), registration("shop", "temp", "web", "v2", "7"), registration("shop", "temp-2", "web", "v1", "8"),
		registration("other", "temp", "api", "v1", "9"),
	} {
		last = register(t, s, r, 0).Revision
	}
	last = max(last, commit(t, s, registry.Create(registry.Environments, "temp-2", dayfly.EnvironmentRecord{ID: "e2", Spec: dayfly.EnvironmentSpec{Name: "temp-2", Project: "shop"}})))
	wait(t, c, last)
	ids := func(seq func(func(registry.Record[dayfly.Registration]) bool)) string {
		var found []string
		for r := range seq {
			found = append(found, r.Value.ID)
		}
		slices.Sort(found)
		return fmt.Sprint(found)
	}
	for what, c := range map[string][2]string{
		"pool":         {ids(registry.RegistrationsOf(c, "shop", "")), "[1 2 3 4]"},
		"version":      {ids(registry.RegisteredVersion(c, "shop", "web", "v1")), "[1 2]"},
		"no version":   {ids(registry.RegisteredVersion(c, "shop", "web", "v")), "[]"},
		"environment":  {ids(registry.RegistrationsOf(c, "shop", "temp")), "[6 7]"},
		"name":         {ids(registry.RegistrationsNamed(c, "temp")), "[6 7 9]"},
		"no name":      {ids(registry.RegistrationsNamed(c, "")), "[]"},
		"deployment":   {ids(registry.RegisteredAs(c, registry.RegisteredID("shop", "temp", "web", "v2"))), "[7]"},
		"host":         {ids(registry.RegistrationsAt(c, "web-temp.localhost")), "[6 7]"},
		"environments": {fmt.Sprint(slices.Collect(registry.RegisteredEnvironments(c, ""))), "[temp temp-2]"},
		"after":        {fmt.Sprint(slices.Collect(registry.RegisteredEnvironments(c, "temp"))), "[temp-2]"},
		"holder":       {registry.Holder(c, "web-temp.localhost"), "what is registered with environment temp"},
		"no holder":    {registry.Holder(c, "x.localhost"), ""},
	} {
		if c[0] != c[1] {
			t.Errorf("%s: %s, want %s", what, c[0], c[1])
		}
	}
	if project, ok := registry.Unmanaged(c, "temp"); !ok || project != "shop" {
		t.Errorf("temp is of %q, %t: the first to register decides", project, ok)
	}
	for _, name := range []string{"temp-2", "nowhere", ""} {
		if project, ok := registry.Unmanaged(c, name); ok {
			t.Errorf("%q is an environment of %q that nobody created", name, project)
		}
	}
}

// With an etcd in the process, its leases begin anew when it starts.
func TestARegistrationOutlivesTheServer(t *testing.T) {
	dir := t.TempDir()
	s, err := registry.Open(t.Context(), registry.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	made := register(t, s, registration("shop", "temp", "web", "v1", "a"), 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, registry.Config{Dir: dir})
	c := startCache(t, s)
	if got, ok := registry.Lookup(c, registry.Registrations, "web/a"); !ok || got.Value != made.Value {
		t.Errorf("got %+v", got)
	}
	if alive, err := s.Renew(t.Context(), made.Value); !alive || err != nil {
		t.Errorf("renewed: %t, %v", alive, err)
	}
}
