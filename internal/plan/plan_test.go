package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/plan"
	"github.com/dayfly-dev/dayfly/internal/release"
)

func wanted(service, deployment string, deps ...string) plan.Wanted {
	w := plan.Wanted{Service: service, Deployment: deployment, Version: deployment, Replicas: 1, DependsOn: map[string]dayfly.Condition{}}
	for _, d := range deps {
		name, condition, ok := strings.Cut(d, ":")
		if !ok {
			condition = string(dayfly.ConditionHealthy)
		}
		w.DependsOn[name] = dayfly.Condition(condition)
	}
	return w
}

func runs(service, deployment string, phase dayfly.DeploymentPhase) plan.Existing {
	e := plan.Existing{Service: service, Deployment: deployment, Phase: phase, Replicas: 1}
	if phase == dayfly.DeploymentReady {
		e.Healthy = 1
	}
	return e
}

func serving(pairs ...string) release.State {
	s := release.State{Services: map[string][]release.Target{}}
	for i := 0; i < len(pairs); i += 2 {
		s.Services[pairs[i]] = []release.Target{{Deployment: pairs[i+1], Version: pairs[i+1], Weight: 1}}
	}
	return s
}

func TestMake(t *testing.T) {
	prepared := plan.Existing{Service: "web", Deployment: "w1", Phase: dayfly.DeploymentPrepared}
	for _, tc := range []struct {
		name string
		in   plan.Input
		want string
	}{
		{
			name: "everything is built at once and started in the order of depends_on",
			in:   plan.Input{Wanted: []plan.Wanted{wanted("api", "a1"), wanted("web", "w1", "api")}},
			want: `
create  api a1: wanted by the resolved state
create  web w1: wanted by the resolved state
start   api a1 x1: depends on nothing
wait    web: waits until api is healthy
wait    api: its new deployment is not ready
`,
		},
		{
			name: "who waits for what is no service is built and not started",
			in:   plan.Input{Wanted: []plan.Wanted{{Service: "web", Deployment: "w1", Version: "w1", Replicas: 1, Waits: "waits for the database"}}},
			want: `
create  web w1: wanted by the resolved state
wait    web: waits for the database
`,
		},
		{
			name: "a dependency that is healthy gets its traffic before the dependant starts",
			in: plan.Input{
				Wanted:   []plan.Wanted{wanted("api", "a1"), wanted("web", "w1", "api")},
				Existing: []plan.Existing{runs("api", "a1", dayfly.DeploymentReady), prepared},
			},
			want: `
shift   api a1: its new deployment is ready
wait    web: waits until api is healthy
`,
		},
		{
			name: "then the dependant starts",
			in: plan.Input{
				Wanted:   []plan.Wanted{wanted("api", "a1"), wanted("web", "w1", "api")},
				Existing: []plan.Existing{runs("api", "a1", dayfly.DeploymentReady), prepared},
				Release:  serving("api", "a1"),
			},
			want: `
start   web w1 x1: all it depends on is there
wait    web: its new deployment is not ready
`,
		},
		{
			name: "a new version starts beside the old one",
			in: plan.Input{
				Wanted:   []plan.Wanted{wanted("web", "w2")},
				Existing: []plan.Existing{runs("web", "w1", dayfly.DeploymentReady)},
				Release:  serving("web", "w1"),
			},
			want: `
create  web w2: wanted by the resolved state
start   web w2 x1: depends on nothing
wait    web: its new deployment is not ready
`,
		},
		{
			name: "the traffic moves first",
			in: plan.Input{
				Wanted:   []plan.Wanted{wanted("web", "w2")},
				Existing: []plan.Existing{runs("web", "w1", dayfly.DeploymentReady), runs("web", "w2", dayfly.DeploymentReady)},
				Release:  serving("web", "w1"),
			},
			want: "\nshift   web w2: its new deployment is ready\n",
		},
		{
			name: "the old version goes when the traffic has moved",
			in: plan.Input{
				Wanted:   []plan.Wanted{wanted("web", "w2")},
				Existing: []plan.Existing{runs("web", "w1", dayfly.DeploymentReady), runs("web", "w2", dayfly.DeploymentReady)},
				Release:  serving("web", "w2"),
			},
			want: "\nretire  web w1: neither wanted nor serving\n",
		},
		{
			name: "a version that was overtaken before it served goes at once",
			in: plan.Input{
				Wanted: []plan.Wanted{wanted("web", "w3")},
				Existing: []plan.Existing{runs("web", "w1", dayfly.DeploymentReady), runs("web", "w2", dayfly.DeploymentBuilding),
					runs("web", "w3", dayfly.DeploymentBuilding)},
				Release: serving("web", "w1"),
			},
			want: `
retire  web w2: neither wanted nor serving
wait    web: its new deployment is not ready
`,
		},
		{
			name: "a job that others wait for has to complete",
			in: plan.Input{
				Wanted:   []plan.Wanted{wanted("migrate", "m1"), wanted("web", "w1", "migrate:service_completed_successfully")},
				Existing: []plan.Existing{runs("migrate", "m1", dayfly.DeploymentFailed), prepared},
			},
			want: `
wait    web: waits until migrate has completed
wait    migrate: its new deployment is not ready
`,
		},
		{
			name: "a dependency that got sick stops nothing",
			in: plan.Input{
				Wanted:   []plan.Wanted{wanted("api", "a1"), wanted("web", "w1", "api")},
				Existing: []plan.Existing{runs("api", "a1", dayfly.DeploymentFailed), runs("web", "w1", dayfly.DeploymentReady)},
				Release:  serving("api", "a1", "web", "w1"),
			},
			want: "\n",
		},
		{
			name: "a test run is not ours to retire",
			in:   plan.Input{Existing: []plan.Existing{{Service: "smoke", Deployment: "s1", TestRun: true}}},
			want: "\n",
		},
		{
			name: "deleting takes the traffic and everything else",
			in: plan.Input{
				Deleting: true, Wanted: []plan.Wanted{wanted("web", "w2")},
				Existing: []plan.Existing{runs("web", "w2", dayfly.DeploymentReady), {Service: "smoke", Deployment: "s1", TestRun: true}},
				Release:  serving("web", "w2"),
			},
			want: `
shift   web: the environment is being deleted
retire  web w2: the environment is being deleted
retire  smoke s1: the environment is being deleted
`,
		},
		{
			name: "deleting waits for what is being stopped",
			in:   plan.Input{Deleting: true, Existing: []plan.Existing{{Service: "web", Deployment: "w2", Retiring: true}}},
			want: "\nwait    web: being stopped\n",
		},
		{
			name: "records go last",
			in:   plan.Input{Deleting: true},
			want: "\nforget  : nothing of the environment is left\n",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, "\n"+plan.Make(tc.in).String()); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

// world is a host that does what plans say, in its own time.
type world struct {
	in plan.Input
}

func (w *world) find(id string) *plan.Existing {
	i := slices.IndexFunc(w.in.Existing, func(e plan.Existing) bool { return e.Deployment == id })
	if i < 0 {
		return nil
	}
	return &w.in.Existing[i]
}

// apply carries out the plan's steps and fails where one makes no sense.
func (w *world) apply(t *rapid.T, p plan.Plan) {
	byService := map[string]plan.Wanted{}
	for _, want := range w.in.Wanted {
		byService[want.Service] = want
	}
	for _, s := range p.Steps {
		switch s.Kind {
		case plan.Create:
			if w.find(s.Deployment) != nil {
				t.Fatalf("%s was created twice", s.Deployment)
			}
			w.in.Existing = append(w.in.Existing, plan.Existing{Service: s.Service, Deployment: s.Deployment, Phase: dayfly.DeploymentPrepared})
		case plan.Start:
			for dep := range byService[s.Service].DependsOn {
				if d := w.find(byService[dep].Deployment); d == nil || d.Healthy == 0 {
					t.Fatalf("%s was started before %s was healthy", s.Service, dep)
				}
			}
			e := w.find(s.Deployment)
			e.Replicas, e.Phase = s.Replicas, dayfly.DeploymentStarting
		case plan.Shift:
			if e := w.find(s.Deployment); s.Deployment != "" && e.Healthy == 0 {
				t.Fatalf("%s got the traffic before it was healthy", s.Deployment)
			}
		case plan.Retire:
			if p.Release.Serves(s.Deployment) || !w.in.Deleting && w.in.Release.Serves(s.Deployment) {
				t.Fatalf("%s was retired while it served", s.Deployment)
			}
			w.find(s.Deployment).Retiring = true
		}
	}
	w.in.Release = p.Release
}

// progress lets one random deployment get on with what it was told.
func (w *world) progress(t *rapid.T) {
	if len(w.in.Existing) == 0 {
		return
	}
	i := rapid.IntRange(0, len(w.in.Existing)-1).Draw(t, "who")
	switch e := &w.in.Existing[i]; {
	case e.Retiring:
		w.in.Existing = slices.Delete(w.in.Existing, i, i+1)
	case e.Replicas > 0:
		e.Phase, e.Healthy = dayfly.DeploymentReady, e.Replicas
	}
}

// Applying plans to what is observed leads to what is wanted, whatever was wanted
// before, in an order that respects depends_on, and without a moment in which a
// service that serves serves no more.
func TestPlansLeadToWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{}
		for generation := range rapid.IntRange(1, 4).Draw(t, "generations") {
			n := rapid.IntRange(1, 4).Draw(t, "services")
			w.in.Wanted = nil
			for i := range n {
				want := wanted(fmt.Sprintf("s%d", i), fmt.Sprintf("s%d-%d", i, generation-rapid.IntRange(0, 1).Draw(t, "kept")))
				for dep := range i {
					if rapid.Bool().Draw(t, "depends") {
						want.DependsOn[fmt.Sprintf("s%d", dep)] = dayfly.ConditionHealthy
					}
				}
				w.in.Wanted = append(w.in.Wanted, want)
			}
			for range rapid.IntRange(0, 10).Draw(t, "steps until the next change") {
				before := w.in.Release
				w.apply(t, plan.Make(w.in))
				for _, want := range w.in.Wanted {
					if len(before.Services[want.Service]) > 0 && len(w.in.Release.Services[want.Service]) == 0 {
						t.Fatalf("%s serves no more", want.Service)
					}
				}
				w.progress(t)
			}
		}
		settle(t, w)
		for _, want := range w.in.Wanted {
			if got := w.in.Release.Services[want.Service]; len(got) != 1 || got[0].Deployment != want.Deployment {
				t.Fatalf("%s is served by %v, wanted %s", want.Service, got, want.Deployment)
			}
		}
		if len(w.in.Existing) != len(w.in.Wanted) || len(w.in.Release.Services) != len(w.in.Wanted) {
			t.Fatalf("something is left: %v, %v", w.in.Existing, w.in.Release)
		}
		w.in.Deleting = true
		for range 100 {
			p := plan.Make(w.in)
			if len(p.Steps) == 1 && p.Steps[0].Kind == plan.Forget {
				return
			}
			w.apply(t, p)
			w.progress(t)
		}
		t.Fatalf("deleting did not end: %v", w.in.Existing)
	})
}

func settle(t *rapid.T, w *world) {
	for range 1000 {
		p := plan.Make(w.in)
		done := p.Empty() && len(p.Waits) == 0 && !slices.ContainsFunc(w.in.Existing, func(e plan.Existing) bool { return e.Retiring })
		if done {
			return
		}
		w.apply(t, p)
		w.progress(t)
	}
	t.Fatalf("no end: %s", plan.Make(w.in))
}
