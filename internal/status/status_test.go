package status_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/release"
	"github.com/dayfly-dev/dayfly/internal/status"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world makes an Input step by step.
type world struct{ status.Input }

// environment begins with a record that has not been resolved.
func environment() *world {
	end := noon.Add(time.Hour)
	return &world{status.Input{
		Record: dayfly.EnvironmentRecord{
			ID: "id1", CreatedAt: noon, ExpiresAt: &end,
			Spec: dayfly.EnvironmentSpec{Name: "shop-main", Project: "shop", Branch: "main"},
		},
		Revision: 7,
		Release:  release.State{Services: map[string][]release.Target{}},
		Observed: map[string]dayfly.DeploymentStatus{},
		URL:      func(host string) string { return "http://" + host + ":8080" },
	}}
}

// service resolves a service, with a route where a path is given.
func (w *world) service(name string, paths ...string) *world {
	if w.Resolution == nil {
		w.Resolution = &dayfly.Resolution{Environment: w.Record.ID}
	}
	rs := dayfly.ResolvedService{
		Name: name, From: dayfly.FromOwn, Version: "main", Commit: "c2", Hash: "h2",
		Definition: &dayfly.Definition{Service: name},
		Hosts:      []string{name + "-shop-main.localhost"},
	}
	for _, p := range paths {
		rs.Definition.Routes = append(rs.Definition.Routes, dayfly.PathRoute{Path: p})
	}
	if len(paths) > 0 {
		rs.Hosts = append([]string{"shop-main.localhost"}, rs.Hosts...)
	}
	w.Resolution.Services = append(w.Resolution.Services, rs)
	return w
}

// runs adds the deployment of a service at commit c1 or c2 with what is observed of it.
func (w *world) runs(service, commit string, phase dayfly.DeploymentPhase, message string, instances ...dayfly.InstancePhase) *world {
	id := service + "@" + commit
	w.Deployments = append(w.Deployments, dayfly.Deployment{ID: id, Key: dayfly.DeploymentKey{
		Service: service, Version: commit, Hash: "h" + commit[1:], Owner: w.Record.ID,
	}})
	st := dayfly.DeploymentStatus{Deployment: id, Phase: phase, Message: message}
	for i, p := range instances {
		st.Instances = append(st.Instances, dayfly.Instance{ID: fmt.Sprint(id, "-", i), Phase: p})
	}
	w.Observed[id] = st
	return w
}

// serves puts a deployment of a service into the release.
func (w *world) serves(service, commit string) *world {
	w.Release.Services[service] = []release.Target{{Deployment: service + "@" + commit, Version: commit, Weight: 1}}
	return w
}

func (w *world) with(change func(in *status.Input)) *world {
	change(&w.Input)
	return w
}

const (
	healthy   = dayfly.InstanceHealthy
	unhealthy = dayfly.InstanceUnhealthy
)

func TestOnePhaseAndOneSentenceTellHowAnEnvironmentIs(t *testing.T) {
	for _, c := range []struct {
		name      string
		in        *world
		phase     dayfly.Phase
		message   string
		instances map[string]int
		phases    map[string]dayfly.Phase
	}{
		{
			name:  "before its commits are known it is pending",
			in:    environment(),
			phase: dayfly.PhasePending, message: "waiting for its commits to be looked up",
		},
		{
			name:  "one that is deleted before its commits are known waits for nothing",
			in:    environment().with(func(in *status.Input) { in.Record.Deleting = true }),
			phase: dayfly.PhaseDeleting,
		},
		{
			name: "what is healthy and gets no requests yet is starting",
			in: environment().service("web", "/").
				runs("web", "c2", dayfly.DeploymentReady, "", healthy),
			phase: dayfly.PhaseStarting, instances: map[string]int{"web": 1},
		},
		{
			name:  "without deployments it is pending",
			in:    environment().service("web", "/"),
			phase: dayfly.PhasePending, phases: map[string]dayfly.Phase{"web": dayfly.PhasePending},
		},
		{
			name: "a deployment that nothing was observed of yet is pending",
			in: environment().service("web", "/").runs("web", "c2", "", "").
				with(func(in *status.Input) { clear(in.Observed) }),
			phase: dayfly.PhasePending, phases: map[string]dayfly.Phase{"web": dayfly.PhasePending},
		},
		{
			name:  "a build shows, with its service and its message",
			in:    environment().service("web", "/").runs("web", "c2", dayfly.DeploymentBuilding, "go build"),
			phase: dayfly.PhaseBuilding, message: "web: go build",
		},
		{
			name: "while one builds and another starts it is building",
			in: environment().service("web", "/").service("api").
				runs("web", "c2", dayfly.DeploymentStarting, "").runs("api", "c2", dayfly.DeploymentBuilding, ""),
			phase:  dayfly.PhaseBuilding,
			phases: map[string]dayfly.Phase{"web": dayfly.PhaseStarting, "api": dayfly.PhaseBuilding},
		},
		{
			name:  "what is built and not started yet is starting",
			in:    environment().service("web", "/").runs("web", "c2", dayfly.DeploymentPrepared, ""),
			phase: dayfly.PhaseStarting,
		},
		{
			name: "it is ready when every service is",
			in: environment().service("web", "/").service("api").
				runs("web", "c2", dayfly.DeploymentReady, "", healthy, healthy).serves("web", "c2").
				runs("api", "c2", dayfly.DeploymentReady, "", healthy).serves("api", "c2"),
			phase: dayfly.PhaseReady, instances: map[string]int{"web": 2, "api": 1},
		},
		{
			name: "a job that has completed is ready",
			in: environment().service("web", "/").service("migrate").
				runs("web", "c2", dayfly.DeploymentReady, "", healthy).serves("web", "c2").
				runs("migrate", "c2", dayfly.DeploymentCompleted, "", dayfly.InstanceExited).serves("migrate", "c2"),
			phase: dayfly.PhaseReady, instances: map[string]int{"web": 1, "migrate": 0},
		},
		{
			name: "it is pending while one service waits for another",
			in: environment().service("web", "/").service("api").
				runs("web", "c2", dayfly.DeploymentReady, "", healthy).serves("web", "c2"),
			phase: dayfly.PhasePending, instances: map[string]int{"web": 1, "api": 0},
		},
		{
			name: "while a new version builds the instances of the old one count",
			in: environment().service("web", "/").
				runs("web", "c1", dayfly.DeploymentReady, "", healthy).serves("web", "c1").
				runs("web", "c2", dayfly.DeploymentBuilding, "go build"),
			phase: dayfly.PhaseBuilding, instances: map[string]int{"web": 1},
		},
		{
			name: "a new version that is not begun yet is waited for",
			in: environment().service("web", "/").
				runs("web", "c1", dayfly.DeploymentReady, "", healthy).serves("web", "c1"),
			phase: dayfly.PhasePending, instances: map[string]int{"web": 1},
		},
		{
			name: "a new version that failed degrades what the old one serves",
			in: environment().service("web", "/").
				runs("web", "c1", dayfly.DeploymentReady, "", healthy).serves("web", "c1").
				runs("web", "c2", dayfly.DeploymentFailed, "the build failed"),
			phase: dayfly.PhaseDegraded, instances: map[string]int{"web": 1},
			message: "web: the new version failed, the old one goes on: the build failed",
		},
		{
			name: "an old version that is retiring is not the wanted one",
			in: environment().service("web", "/").
				runs("web", "c2", dayfly.DeploymentFailed, "of no interest").
				with(func(in *status.Input) { in.Deployments[0].Retiring = &dayfly.Retirement{Since: noon} }),
			phase: dayfly.PhasePending,
		},
		{
			name: "a deployment with other variables is not the wanted one",
			in: environment().service("web", "/").
				runs("web", "c2", dayfly.DeploymentFailed, "of no interest").
				with(func(in *status.Input) { in.Deployments[0].Key.Hash = "another" }),
			phase: dayfly.PhasePending,
		},
		{
			name: "a test run says nothing about its service",
			in: environment().service("web", "/").
				runs("web", "c2", dayfly.DeploymentFailed, "of no interest").
				with(func(in *status.Input) { in.Deployments[0].TestRun = "run1" }),
			phase: dayfly.PhasePending,
		},
		{
			name:  "it has failed when what the public meets first does not serve",
			in:    environment().service("web", "/").runs("web", "c2", dayfly.DeploymentFailed, "exits with 3"),
			phase: dayfly.PhaseFailed, message: "web: exits with 3",
		},
		{
			name: "it has failed although an internal service is healthy",
			in: environment().service("web", "/").service("api").
				runs("web", "c2", dayfly.DeploymentFailed, "exits with 3").
				runs("api", "c2", dayfly.DeploymentReady, "", healthy).serves("api", "c2"),
			phase: dayfly.PhaseFailed, message: "web: exits with 3", instances: map[string]int{"web": 0, "api": 1},
		},
		{
			name: "it is degraded when it can be reached and one service failed",
			in: environment().service("web", "/").service("api").
				runs("web", "c2", dayfly.DeploymentReady, "", healthy).serves("web", "c2").
				runs("api", "c2", dayfly.DeploymentFailed, "exits with 3"),
			phase: dayfly.PhaseDegraded, message: "api: exits with 3",
			phases: map[string]dayfly.Phase{"web": dayfly.PhaseReady, "api": dayfly.PhaseFailed},
		},
		{
			name: "only healthy instances count",
			in: environment().service("web", "/").
				runs("web", "c2", dayfly.DeploymentDegraded, "1 of 3 is healthy", healthy, unhealthy, dayfly.InstanceStopping).serves("web", "c2"),
			phase: dayfly.PhaseDegraded, message: "web: 1 of 3 is healthy", instances: map[string]int{"web": 1},
		},
		{
			name: "messages of several services are put together",
			in: environment().service("web", "/").service("api").
				runs("web", "c2", dayfly.DeploymentFailed, "exits with 3").
				runs("api", "c2", dayfly.DeploymentFailed, "the build failed"),
			phase: dayfly.PhaseFailed, message: "web: exits with 3; api: the build failed",
		},
		{
			name: "the last commits not being found degrades one that is ready",
			in: environment().service("web", "/").
				runs("web", "c2", dayfly.DeploymentReady, "", healthy).serves("web", "c2").
				with(func(in *status.Input) { in.Resolution.Problem = "branch main is gone" }),
			phase: dayfly.PhaseDegraded, message: "branch main is gone",
		},
		{
			name: "the last commits not being found does not hide that it failed",
			in: environment().service("web", "/").
				runs("web", "c2", dayfly.DeploymentFailed, "exits with 3").
				with(func(in *status.Input) { in.Resolution.Problem = "branch main is gone" }),
			phase: dayfly.PhaseFailed, message: "web: exits with 3; branch main is gone",
		},
		{
			name: "one on its way out is deleting, whatever else it is",
			in: environment().service("web", "/").
				runs("web", "c2", dayfly.DeploymentFailed, "exits with 3").
				with(func(in *status.Input) { in.Record.Deleting = true }),
			phase: dayfly.PhaseDeleting, message: "web: exits with 3",
		},
		{
			name: "a test job is not waited for and not listed",
			in: environment().service("web", "/").service("smoke").
				runs("web", "c2", dayfly.DeploymentReady, "", healthy).serves("web", "c2").
				with(func(in *status.Input) { in.Resolution.Services[1].Definition.Test = true }),
			phase: dayfly.PhaseReady, instances: map[string]int{"web": 1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := status.View(c.in.Input)
			if env.Phase != c.phase || env.Message != c.message {
				t.Errorf("is %s %q, want %s %q", env.Phase, env.Message, c.phase, c.message)
			}
			instances, phases := map[string]int{}, map[string]dayfly.Phase{}
			for _, s := range env.Services {
				instances[s.Name], phases[s.Name] = s.Instances, s.Phase
			}
			if c.instances != nil && !maps.Equal(instances, c.instances) {
				t.Errorf("instances %v, want %v", instances, c.instances)
			}
			if c.phases != nil && !maps.Equal(phases, c.phases) {
				t.Errorf("phases %v, want %v", phases, c.phases)
			}
		})
	}
}

func TestTheRecordIsSeenInTheAnswer(t *testing.T) {
	w := environment().service("web", "/")
	w.Resolution.Base = "shop-base"
	env := status.View(w.Input)
	if env.ID != "id1" || env.Name != "shop-main" || env.Project != "shop" || env.Branch != "main" ||
		env.Base != "shop-base" || env.Revision != 7 || !env.CreatedAt.Equal(noon) || !env.ExpiresAt.Equal(noon.Add(time.Hour)) {
		t.Errorf("got %+v", env)
	}
	s := env.Services[0]
	if s.Version != "main" || s.Commit != "c2" || s.From != dayfly.FromOwn || s.Env != "shop-main" {
		t.Errorf("got %+v", s)
	}
}

func TestABorrowedServiceNamesItsLender(t *testing.T) {
	w := environment().service("web", "/")
	w.Resolution.Services[0].Environment = "shop-base"
	if got := status.View(w.Input).Services[0].Env; got != "shop-base" {
		t.Errorf("got %q", got)
	}
}

func TestTheAddressOfAnEnvironmentIsThatOfItsRoot(t *testing.T) {
	w := environment().service("web", "/").service("api", "/api").service("worker")
	w.Resolution.Services[2].Hosts = nil
	env := status.View(w.Input)
	if env.URL != "http://shop-main.localhost:8080" {
		t.Errorf("the environment is at %q", env.URL)
	}
	want := map[string]string{
		"web": "http://web-shop-main.localhost:8080",
		"api": "http://api-shop-main.localhost:8080",
	}
	if !maps.Equal(env.URLs, want) {
		t.Errorf("services are at %v, want %v", env.URLs, want)
	}
	if env.Services[1].URL != want["api"] || env.Services[2].URL != "" {
		t.Errorf("services say %q and %q", env.Services[1].URL, env.Services[2].URL)
	}
}

func TestWithoutARootRouteTheEnvironmentItselfHasNoAddress(t *testing.T) {
	env := status.View(environment().service("api", "/api").Input)
	if env.URL != "" || env.URLs["api"] == "" {
		t.Errorf("the environment is at %q, its services at %v", env.URL, env.URLs)
	}
}

func TestListsAreNeverNull(t *testing.T) {
	env := status.View(environment().Input)
	if env.URLs == nil || env.Services == nil || env.Databases == nil || env.Missing == nil {
		t.Errorf("got %+v", env)
	}
}

// Whatever is observed, the phases of the environment and of its services agree.
func TestAnEnvironmentIsReadyExactlyWhenAllItsServicesAre(t *testing.T) {
	phases := []dayfly.DeploymentPhase{
		"", dayfly.DeploymentPending, dayfly.DeploymentBuilding, dayfly.DeploymentPrepared, dayfly.DeploymentStarting,
		dayfly.DeploymentReady, dayfly.DeploymentDegraded, dayfly.DeploymentFailed, dayfly.DeploymentCompleted,
	}
	rapid.Check(t, func(t *rapid.T) {
		w := environment()
		for i := range rapid.IntRange(1, 4).Draw(t, "services") {
			name := fmt.Sprint("s", i)
			if i == 0 {
				w.service(name, "/")
			} else {
				w.service(name)
			}
			for _, commit := range []string{"c1", "c2"} {
				if !rapid.Bool().Draw(t, "there is "+commit) {
					continue
				}
				phase := rapid.SampledFrom(phases).Draw(t, "phase")
				var instances []dayfly.InstancePhase
				if phase == dayfly.DeploymentReady || phase == dayfly.DeploymentDegraded {
					instances = append(instances, healthy)
				}
				w.runs(name, commit, phase, "", instances...)
				if rapid.Bool().Draw(t, "serves") {
					w.serves(name, commit)
				}
			}
		}
		env := status.View(w.Input)
		all := func(p dayfly.Phase) bool {
			return !slices.ContainsFunc(env.Services, func(s dayfly.EnvironmentService) bool { return s.Phase != p })
		}
		some := func(p dayfly.Phase) bool {
			return slices.ContainsFunc(env.Services, func(s dayfly.EnvironmentService) bool { return s.Phase == p })
		}
		if (env.Phase == dayfly.PhaseReady) != all(dayfly.PhaseReady) {
			t.Fatalf("is %s with %+v", env.Phase, env.Services)
		}
		if bad := env.Phase == dayfly.PhaseFailed || env.Phase == dayfly.PhaseDegraded; bad != (some(dayfly.PhaseFailed) || some(dayfly.PhaseDegraded)) {
			t.Fatalf("is %s with %+v", env.Phase, env.Services)
		}
		if env.Phase == dayfly.PhaseFailed && env.Services[0].Instances > 0 {
			t.Fatalf("has failed although it can be reached: %+v", env.Services)
		}
	})
}

func TestALifeIsOverFromItsLastMomentOn(t *testing.T) {
	end := noon
	for _, c := range []struct {
		name string
		rec  dayfly.EnvironmentRecord
		now  time.Time
		want bool
	}{
		{"before", dayfly.EnvironmentRecord{ExpiresAt: &end}, noon.Add(-time.Nanosecond), false},
		{"then", dayfly.EnvironmentRecord{ExpiresAt: &end}, noon, true},
		{"later", dayfly.EnvironmentRecord{ExpiresAt: &end}, noon.Add(time.Hour), true},
		{"one that is going already", dayfly.EnvironmentRecord{ExpiresAt: &end, Deleting: true}, noon.Add(time.Hour), false},
		{"one that never ends", dayfly.EnvironmentRecord{}, noon.Add(time.Hour), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := status.Expired(c.rec, c.now); got != c.want {
				t.Errorf("got %t", got)
			}
		})
	}
}
