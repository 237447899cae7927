package reconcile_test

import (
	"slices"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
)

// Whoever follows the events of an environment waits for that one.
func TestAnEnvironmentThatBorrowsSaysThatItIsReadyAsSoonAsWhatItBorrowsIs(t *testing.T) {
	w := newWorld(t, kinds()[0])
	borrowed := service("web", web, "v1", nil)
	borrowed.From, borrowed.Hosts, borrowed.Address = dayfly.FromBorrowed, nil, ""
	own := service("own", web, "v1", nil)
	own.Hosts, own.Address = nil, ""
	for _, c := range []struct {
		name, base string
		services   []dayfly.ResolvedService
	}{{"b", "e", []dayfly.ResolvedService{borrowed, own}}, {"c", "b", []dayfly.ResolvedService{borrowed}}} {
		rec := dayfly.EnvironmentRecord{Format: dayfly.Format, ID: "id-" + c.name, CreatedAt: w.now(), RenewedAt: w.now(), Spec: dayfly.EnvironmentSpec{Name: c.name, Project: "p", Base: c.base}}
		w.commit(
			registry.Create(registry.Environments, c.name, rec),
			registry.Create(registry.Resolutions, c.name, dayfly.Resolution{Format: dayfly.Format, Environment: rec.ID, Base: c.base, Services: c.services}),
			registry.Create(registry.Releases, c.name, release.State{Format: dayfly.Format, Services: map[string][]release.Target{}}),
		)
	}
	w.start()
	events := func(id string) (reasons []string) {
		t.Helper()
		all, err := registry.Events(t.Context(), w.store, id, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			reasons = append(reasons, e.Service+" "+e.Reason)
		}
		return reasons
	}
	until := func(id, reason string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !slices.Contains(events(id), reason); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s never says %q, only %q", id, reason, events(id))
			}
		}
	}
	until("id-b", "own shift") // it is done with all that is its own
	if said := events("id-b"); slices.Contains(said, " ready") {
		t.Fatalf("without what it borrows it says %q", said)
	}
	w.create(service("web", web, "v1", nil))
	until("id-b", " ready")
	until("id-c", " ready")
}
