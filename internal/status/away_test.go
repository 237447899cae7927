package status_test

import (
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/status"
)

func TestAnEndThatWaitsForAServerThatIsNotThereNamesItAndTheWayOut(t *testing.T) {
	db := status.Away{Node: "b", Host: "10.0.0.2", Has: []string{"web", "the database db"}}
	other := status.Away{Node: "c", Has: []string{"api"}}
	resolved := &dayfly.Resolution{Services: []dayfly.ResolvedService{}}
	for name, c := range map[string]struct {
		deleting   bool
		resolution *dayfly.Resolution
		away       []status.Away
		want       string
	}{
		"one server": {true, resolved, []status.Away{db},
			"waits for server b at 10.0.0.2, which has web, the database db and is not there: start it again, or give up what it has (dayfly delete --force e)"},
		"two servers": {true, resolved, []status.Away{db, other},
			"waits for server b at 10.0.0.2, which has web, the database db and is not there, and server c, which has api and is not there: start it again, or give up what it has (dayfly delete --force e)"},
		"nothing was resolved yet": {true, nil, []status.Away{other},
			"waits for server c, which has api and is not there: start it again, or give up what it has (dayfly delete --force e)"},
		"all are there":     {true, resolved, nil, ""},
		"it is not deleted": {false, resolved, []status.Away{db}, ""},
		"the one that asks": {true, resolved, status.Others([]status.Away{db}, "b"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			in := status.Input{
				Record:     dayfly.EnvironmentRecord{Deleting: c.deleting, Spec: dayfly.EnvironmentSpec{Name: "e"}},
				Resolution: c.resolution, Away: c.away, URL: func(host string) string { return host },
			}
			env := status.View(in)
			if env.Message != c.want {
				t.Errorf("says %q, want %q", env.Message, c.want)
			}
			if (env.Phase == dayfly.PhaseDeleting) != c.deleting {
				t.Errorf("is %s", env.Phase)
			}
		})
	}
}
