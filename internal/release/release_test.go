package release_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/release"
)

var (
	ready    = release.Fact{Phase: dayfly.DeploymentReady, Healthy: 1}
	starting = release.Fact{Phase: dayfly.DeploymentStarting}
	failed   = release.Fact{Phase: dayfly.DeploymentFailed}
	done     = release.Fact{Phase: dayfly.DeploymentCompleted}
)

// serving makes a state from pairs of service and deployment.
func serving(pairs ...string) map[string][]release.Target {
	m := map[string][]release.Target{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = []release.Target{{Deployment: pairs[i+1], Version: "v-" + pairs[i+1], Weight: 1}}
	}
	return m
}

func candidates(pairs ...string) (c []release.Candidate) {
	for i := 0; i < len(pairs); i += 2 {
		c = append(c, release.Candidate{Service: pairs[i], Deployment: pairs[i+1], Version: "v-" + pairs[i+1]})
	}
	return c
}

func TestNext(t *testing.T) {
	for _, tc := range []struct {
		name   string
		now    map[string][]release.Target
		wanted []release.Candidate
		facts  map[string]release.Fact
		want   map[string][]release.Target
		decide release.Decision
	}{
		{
			name:   "a service that nobody serves yet gets its traffic as soon as it is healthy",
			wanted: candidates("web", "w1", "api", "a1"),
			facts:  map[string]release.Fact{"a1": ready, "w1": starting},
			want:   serving("api", "a1"),
			decide: release.Decision{Shifted: []string{"api"}, Waiting: []string{"web"}},
		},
		{
			name:   "services that serve already wait for each other",
			now:    serving("web", "w1", "api", "a1"),
			wanted: candidates("web", "w2", "api", "a2"),
			facts:  map[string]release.Fact{"a2": ready, "w2": starting, "w1": ready, "a1": ready},
			want:   serving("web", "w1", "api", "a1"),
			decide: release.Decision{Waiting: []string{"web"}},
		},
		{
			name:   "and move together",
			now:    serving("web", "w1", "api", "a1"),
			wanted: candidates("web", "w2", "api", "a2"),
			facts:  map[string]release.Fact{"a2": ready, "w2": ready},
			want:   serving("web", "w2", "api", "a2"),
			decide: release.Decision{Shifted: []string{"api", "web"}},
		},
		{
			name:   "a failed one keeps the old version of all",
			now:    serving("web", "w1", "api", "a1"),
			wanted: candidates("web", "w2", "api", "a2"),
			facts:  map[string]release.Fact{"a2": ready, "w2": failed},
			want:   serving("web", "w1", "api", "a1"),
			decide: release.Decision{Waiting: []string{"web"}, Failed: []string{"web"}},
		},
		{
			name:   "a service that is gone leaves when the others have moved",
			now:    serving("web", "w1", "old", "o1"),
			wanted: candidates("web", "w2"),
			facts:  map[string]release.Fact{"w2": starting},
			want:   serving("web", "w1", "old", "o1"),
			decide: release.Decision{Waiting: []string{"web"}},
		},
		{
			name:   "a service that is gone leaves",
			now:    serving("web", "w1", "old", "o1"),
			wanted: candidates("web", "w1"),
			facts:  map[string]release.Fact{"w1": ready},
			want:   serving("web", "w1"),
			decide: release.Decision{Shifted: []string{"old"}},
		},
		{
			name:   "a job counts when it has completed",
			wanted: candidates("migrate", "m1"),
			facts:  map[string]release.Fact{"m1": done},
			want:   serving("migrate", "m1"),
			decide: release.Decision{Shifted: []string{"migrate"}},
		},
		{
			name:   "what serves goes on serving when it gets sick",
			now:    serving("web", "w1"),
			wanted: candidates("web", "w1"),
			facts:  map[string]release.Fact{"w1": failed},
			want:   serving("web", "w1"),
		},
		{
			name:   "nothing wanted, nothing served",
			now:    serving("web", "w1"),
			want:   serving(),
			decide: release.Decision{Shifted: []string{"web"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := release.State{Services: tc.now}
			got, decision := release.Next(before, tc.wanted, tc.facts)
			if diff := cmp.Diff(tc.want, got.Services); diff != "" {
				t.Errorf("targets (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.decide, decision); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
			again, second := release.Next(got, tc.wanted, tc.facts)
			if diff := cmp.Diff(got, again); diff != "" || len(second.Shifted) > 0 {
				t.Errorf("a second pass over the same facts changed something: %s %v", diff, second)
			}
		})
	}
}
