package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// Changes of one record are merged in the place of the first: their revisions alone do
// not say that everything before has been given.
func TestProgressIsGivenOnlyAfterEverythingUpToIt(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	c := startCache(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	changes := c.ChangesAndProgress(ctx)
	for _, key := range []string{"a", "b", "a"} {
		commit(t, s, registry.Put(registry.Projects, key, dayfly.Project{Name: key}))
	}
	// An event is no record: nothing but progress tells of its revision.
	if err := registry.AppendEvent(ctx, s, "env", dayfly.Event{Message: "one"}); err != nil {
		t.Fatal(err)
	}
	events, err := registry.Events(ctx, s, "env", 0)
	if err != nil {
		t.Fatal(err)
	}
	last := events[0].ID / 1000 // see eventID
	wait(t, c, last)
	given := map[string]int64{}
	for change := range changes {
		if change.Kind != "" {
			given[change.Key] = change.Revision
			continue
		}
		if len(given) != 2 || given["a"] <= given["b"] {
			t.Errorf("at revision %d only %v were given", change.Revision, given)
		}
		if change.Revision >= last {
			return
		}
	}
	t.Errorf("revision %d was not reached", last)
}
