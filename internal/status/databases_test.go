package status_test

import (
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/status"
)

// stores gives the environment a database that its service web starts after; "" = nothing is known of it yet.
func (w *world) stores(phase dayfly.DatabasePhase, message string) *world {
	w.Resolution.Databases = []dayfly.ResolvedDatabase{{Name: "db", ID: "d1"}}
	w.Resolution.Services[0].Databases = []string{"db"}
	if phase != "" {
		w.Databases = map[string]dayfly.DatabaseStatus{"d1": {Phase: phase, Message: message}}
	}
	return w
}

func TestAnEnvironmentIsNoBetterThanItsDatabases(t *testing.T) {
	prepared := func() *world {
		return environment().service("web", "/").runs("web", "c2", dayfly.DeploymentPrepared, "")
	}
	serving := func() *world {
		return environment().service("web", "/").runs("web", "c2", dayfly.DeploymentReady, "", healthy).serves("web", "c2")
	}
	for _, c := range []struct {
		name    string
		in      *world
		phase   dayfly.Phase
		message string
		web     dayfly.Phase
		waits   string
		settled bool
	}{
		{"while it is made what uses it waits", prepared().stores("", ""), dayfly.PhaseStarting, "database db is being made", dayfly.PhasePending, "db", false},
		{"one that failed is a failure", prepared().stores(dayfly.DatabaseFailed, "the disk is full"), dayfly.PhaseFailed, "database db: the disk is full", dayfly.PhasePending, "db", true},
		{"when it is there it is not waited for", prepared().stores(dayfly.DatabaseReady, ""), dayfly.PhaseStarting, "", dayfly.PhaseStarting, "", false},
		{"with it all is well", serving().stores(dayfly.DatabaseReady, ""), dayfly.PhaseReady, "", dayfly.PhaseReady, "", true},
		{"what serves is degraded when its database fails", serving().stores(dayfly.DatabaseFailed, "it ended"), dayfly.PhaseDegraded, "database db: it ended", dayfly.PhaseReady, "", true},
		{"one whose template is missing is waited for, and nothing else is", prepared().stores("", "").with(func(in *status.Input) {
			in.Resolution.Databases[0] = dayfly.ResolvedDatabase{Name: "db", Waiting: "there is no template"}
			in.Resolution.Missing = []dayfly.Need{{Missing: dayfly.Missing{Service: "db", Version: "shop", Doing: "there is no template"}}}
		}), dayfly.PhasePending, "db shop is missing: there is no template", dayfly.PhasePending, "db", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := status.View(c.in.Input)
			web := env.Services[0]
			if env.Phase != c.phase || env.Message != c.message || web.Phase != c.web || web.WaitsFor != c.waits || env.Settled() != c.settled {
				t.Errorf("is %s %q (settled %t) with web %s waiting for %q", env.Phase, env.Message, env.Settled(), web.Phase, web.WaitsFor)
			}
			if len(env.Databases) != 1 || env.Databases[0] != "db" {
				t.Errorf("has the databases %v", env.Databases)
			}
		})
	}
}
