package control_test

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
)

func TestAProjectIsAddedOnce(t *testing.T) {
	w := start(t)
	for i, request := range []dayfly.ProjectRequest{
		{Name: "shop", Repo: shopRepo}, {Name: "shop", Repo: shopRepo}, {Repo: shopRepo},
	} {
		p, made, err := w.CreateProject(t.Context(), request)
		if err != nil || made != (i == 0) || p.Name != "shop" || p.Repo != shopRepo || p.Revision == 0 {
			t.Errorf("%d: made %t, %+v, %v", i, made, p, err)
		}
	}
	list, err := w.Projects(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("got %+v, %v", list, err)
	}
	for _, by := range []string{"shop", list[0].ID} {
		if p, err := w.Project(t.Context(), by); err != nil || !reflect.DeepEqual(p, list[0]) {
			t.Errorf("by %s: %+v, %v", by, p, err)
		}
	}
}

func TestAProjectThatCannotBeAddedIsRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		request dayfly.ProjectRequest
		code    dayfly.Code
		mention string
	}{
		{"a name that another repository has", dayfly.ProjectRequest{Name: "shop", Repo: "https://git.example/other"}, dayfly.CodeConflict, shopRepo},
		{"a name from the file that another repository has", dayfly.ProjectRequest{Repo: "https://git.example/fork/shop"}, dayfly.CodeConflict, "shop"},
		{"a name that is none", dayfly.ProjectRequest{Name: "No Name", Repo: shopRepo}, dayfly.CodeInvalid, "No Name"},
		{"a repository that is none", dayfly.ProjectRequest{Name: "x", Repo: "ftp:x"}, dayfly.CodeInvalid, "repo"},
		{"a repository that cannot be read", dayfly.ProjectRequest{Name: "x", Repo: "https://git.example/nothing"}, dayfly.CodeNotFound, "nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t).shop()
			c.request.Token = dayfly.NewSecret("t0ken")
			_, _, err := w.CreateProject(t.Context(), c.request)
			refused(t, err, c.code, c.mention)
			if strings.Contains(err.Error(), "t0ken") {
				t.Errorf("%q shows the token", err)
			}
			if got := registry.Len(w.cache, registry.Projects) + registry.Len(w.cache, registry.Credentials); got != 1 {
				t.Errorf("%d records", got)
			}
		})
	}
}

func TestATokenInTheAddressIsKeptSealedAndUsed(t *testing.T) {
	w := start(t)
	p, _, err := w.CreateProject(t.Context(), dayfly.ProjectRequest{Name: "shop", Repo: "https://t0ken@git.example/acme/shop"})
	if err != nil || p.Repo != shopRepo {
		t.Fatalf("%+v, %v", p, err)
	}
	w.create("main")
	if len(w.git.tokens) != 1 || w.git.tokens[0] != "t0ken" {
		t.Errorf("resolving saw %q", w.git.tokens)
	}
}

func TestAProjectWithEnvironmentsStays(t *testing.T) {
	w := start(t)
	if _, _, err := w.CreateProject(t.Context(), dayfly.ProjectRequest{Name: "shop", Repo: shopRepo, Token: dayfly.NewSecret("t0ken")}); err != nil {
		t.Fatal(err)
	}
	env := w.create("main")
	refused(t, w.DeleteProject(t.Context(), "shop"), dayfly.CodeConflict, "shop-main")
	w.forget(env)
	if err := w.DeleteProject(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	if got := registry.Len(w.cache, registry.Projects) + registry.Len(w.cache, registry.Credentials); got != 0 {
		t.Errorf("%d records are left", got)
	}
	refused(t, w.DeleteProject(t.Context(), "shop"), dayfly.CodeNotFound, "shop")
}

func TestTheProjectOfAnEnvironmentIsFound(t *testing.T) {
	t.Run("there is none", func(t *testing.T) {
		_, _, err := start(t).CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{})
		refused(t, err, dayfly.CodeNotFound, "project add")
	})
	t.Run("by its repository, made where it is missing", func(t *testing.T) {
		w := start(t)
		for _, branch := range []string{"main", "other"} {
			env, _, err := w.CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{
				Repo: shopRepo, Spec: dayfly.EnvironmentSpec{Branch: branch}})
			if err != nil || env.Project != "shop" {
				t.Errorf("%+v, %v", env, err)
			}
		}
		if got := registry.Len(w.cache, registry.Projects); got != 1 {
			t.Errorf("there are %d projects", got)
		}
	})
	t.Run("one of several has to be named", func(t *testing.T) {
		w := start(t).shop()
		if _, _, err := w.CreateProject(t.Context(), dayfly.ProjectRequest{Name: "blog", Repo: "https://git.example/blog"}); err != nil {
			t.Fatal(err)
		}
		_, _, err := w.CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{})
		refused(t, err, dayfly.CodeInvalid, "blog, shop")
	})
}

func TestOneProjectAddedByManyAtOnceIsAddedOnce(t *testing.T) {
	w := start(t)
	ids := make([]string, 20)
	made := make([]bool, len(ids))
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			p, mine, err := w.CreateProject(t.Context(), dayfly.ProjectRequest{Name: "shop", Repo: shopRepo})
			if err != nil {
				t.Error(err)
			}
			ids[i], made[i] = p.ID, mine
		})
	}
	all.Wait()
	count := 0
	for i := range ids {
		if ids[i] != ids[0] {
			t.Errorf("got the ids %s and %s", ids[0], ids[i])
		}
		if made[i] {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d say that they made it", count)
	}
}

// test is an environment that is ready and has a test job.
func tested(t *testing.T) (*world, dayfly.Environment) {
	w := start(t).shop()
	env := w.create("main")
	res := w.resolution(env.Name).Value
	var services []dayfly.ResolvedService
	serving := release.State{Format: dayfly.Format, Services: map[string][]release.Target{}}
	for _, rs := range res.Services {
		services = append(services, rs)
		d := dayfly.NewDeployment(w.record(env.Name).Value, rs, "local", "node1", w.clock.Now())
		w.commit(registry.Create(registry.Deployments, d.ID, d), registry.Put(registry.Observed, d.ID, dayfly.DeploymentStatus{
			Phase: dayfly.DeploymentReady, Instances: []dayfly.Instance{{Phase: dayfly.InstanceHealthy}}}))
		serving.Services[rs.Name] = []release.Target{{Deployment: d.ID, Version: rs.Commit, Weight: 1}}
	}
	w.commit(registry.Put(registry.Releases, env.Name, serving))
	res.Services = append(services, dayfly.ResolvedService{
		Name: "smoke", Definition: &dayfly.Definition{Service: "smoke", Test: true, Job: true}, Variables: map[string]string{"URL": "http://public"}})
	w.commit(registry.Put(registry.Resolutions, env.Name, res))
	return w, env
}

// run plays the runner of the one test run there is: it ends it with a status.
func (w *world) run(env dayfly.Environment, status dayfly.DeploymentStatus) (dayfly.Deployment, error) {
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		for d := range registry.DeploymentsOf(w.cache, env.ID) {
			if d.Value.TestRun != "" && d.Value.Retiring == nil {
				_, err := registry.Commit(w.Context(), w.store, registry.Put(registry.Observed, d.Key, status))
				return d.Value, err
			}
		}
		time.Sleep(time.Millisecond)
	}
	return dayfly.Deployment{}, fmt.Errorf("no test run was begun")
}

func TestATestRunsToItsEndAndIsClearedAway(t *testing.T) {
	three := 3
	for _, c := range []struct {
		name   string
		status dayfly.DeploymentStatus
		phase  string
	}{
		{"one that passes", dayfly.DeploymentStatus{Phase: dayfly.DeploymentCompleted, LogTail: []string{"ok"}}, "passed"},
		{"one that fails", dayfly.DeploymentStatus{Phase: dayfly.DeploymentFailed, Message: "exits with 3",
			Instances: []dayfly.Instance{{ExitCode: &three}}}, "failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, env := tested(t)
			var d dayfly.Deployment
			var runErr error
			var running sync.WaitGroup
			running.Go(func() { d, runErr = w.run(env, c.status) })
			got, err := w.Test(t.Context(), env.Name, "")
			running.Wait()
			if err != nil || runErr != nil || got.Job != "smoke" || got.Phase != c.phase || got.Message != c.status.Message || len(got.Log) != len(c.status.LogTail) {
				t.Fatalf("got %+v, %v, %v", got, err, runErr)
			}
			if c.phase == "failed" && (got.ExitCode == nil || *got.ExitCode != 3) {
				t.Errorf("exited with %v", got.ExitCode)
			}
			if want := "http://" + w.resolution(env.Name).Value.Address; d.Variables["URL"] != want || d.Replicas != 1 {
				t.Errorf("ran %d at %s, want 1 at %s", d.Replicas, d.Variables["URL"], want)
			}
			if left, ok := registry.Lookup(w.cache, registry.Deployments, d.ID); !ok || left.Value.Retiring == nil {
				t.Errorf("is left as %+v", left.Value)
			}
			if url := w.resolution(env.Name).Value.Services[2].Variables["URL"]; url != "http://public" {
				t.Errorf("the resolution says %s now", url)
			}
		})
	}
}

func TestATestThatCannotRunIsRefused(t *testing.T) {
	w, env := tested(t)
	_, err := w.Test(t.Context(), env.Name, "load")
	refused(t, err, dayfly.CodeNotFound, "load", "smoke")
	other := w.create("other")
	_, err = w.Test(t.Context(), other.Name, "")
	refused(t, err, dayfly.CodeNotFound, "has no test")
	if _, err := w.DeleteEnvironment(t.Context(), env.Name, dayfly.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = w.Test(t.Context(), env.Name, "smoke")
	refused(t, err, dayfly.CodeConflict, "deleting")
}

func TestATestEndsWithItsEnvironment(t *testing.T) {
	w, env := tested(t)
	var running sync.WaitGroup
	running.Go(func() {
		if _, err := w.run(env, dayfly.DeploymentStatus{Phase: dayfly.DeploymentStarting}); err != nil {
			t.Error(err)
		}
		if _, err := w.DeleteEnvironment(t.Context(), env.Name, dayfly.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	_, err := w.Test(t.Context(), env.Name, "smoke")
	running.Wait()
	refused(t, err, dayfly.CodeFailed, env.Name)
}
