package control

import (
	"context"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// keepTest is how long a test run may take.
const keepTest = 30 * time.Minute

// Test runs a test job of an environment to its end: a deployment of its own,
// which goes again when it has ended or when ctx does. job "" = the only one.
func (c *Control) Test(ctx context.Context, name, job string) (dayfly.TestRun, error) {
	r, err := c.record(name)
	if err != nil {
		return dayfly.TestRun{}, err
	}
	rs, err := c.testJob(r, job)
	if err != nil {
		return dayfly.TestRun{}, err
	}
	env := c.view(r)
	if env.Phase != dayfly.PhaseReady && env.Phase != dayfly.PhaseDegraded {
		return dayfly.TestRun{}, dayfly.Errorf(dayfly.CodeConflict, "environment %s is %s: tests run when it is ready", r.Key, env.Phase)
	}
	run := dayfly.TestRun{Job: rs.Name, StartedAt: c.now(), Log: []string{}}
	d := dayfly.NewDeployment(r.Value, rs, c.config.Runner, c.config.NodeID, c.now())
	d.TestRun = dayfly.NewID()
	d.Replicas = 1
	// Not the public address: that needs a DNS which knows it.
	if res, ok := registry.Lookup(c.cache, registry.Resolutions, r.Key); ok && res.Value.Address != "" {
		d.Variables["URL"] = c.config.InternalURL(res.Value.Address)
	}
	ctx, cancel := context.WithTimeout(ctx, keepTest)
	defer cancel()
	changed, stop := c.hub.listen(r.Key)
	defer stop()
	if err := c.commit(ctx, registry.Require(registry.Environments, r.Key, r.Revision), registry.Create(registry.Deployments, d.ID, d)); err != nil {
		return run, err
	}
	defer c.retire(context.WithoutCancel(ctx), d.ID)
	for {
		st, _ := registry.Lookup(c.cache, registry.Observed, d.ID)
		switch st.Value.Phase {
		case dayfly.DeploymentCompleted, dayfly.DeploymentFailed:
			run.EndedAt = c.now()
			run.Log, run.Message = append(run.Log, st.Value.LogTail...), st.Value.Message
			run.Phase = "failed"
			if st.Value.Phase == dayfly.DeploymentCompleted {
				run.Phase = "passed"
			}
			for _, i := range st.Value.Instances {
				run.ExitCode = i.ExitCode
			}
			return run, nil
		}
		if now, ok := registry.Lookup(c.cache, registry.Environments, r.Key); !ok || now.Value.Deleting {
			return run, dayfly.Errorf(dayfly.CodeFailed, "environment %s was deleted while its test ran", r.Key)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return run, dayfly.Errorf(dayfly.CodeTimeout, "the test %s had not ended after %s", rs.Name, c.now().Sub(run.StartedAt).Round(time.Second))
		}
	}
}

// testJob finds the test that is meant.
func (c *Control) testJob(r registry.Record[dayfly.EnvironmentRecord], job string) (dayfly.ResolvedService, error) {
	res, _ := registry.Lookup(c.cache, registry.Resolutions, r.Key)
	var tests []string
	var found dayfly.ResolvedService
	for _, rs := range res.Value.Services {
		if rs.Definition.Test {
			tests = append(tests, rs.Name)
			if job == "" || rs.Name == job {
				found = rs
			}
		}
	}
	switch {
	case len(tests) == 0:
		return found, dayfly.Errorf(dayfly.CodeNotFound, "environment %s has no test: add a service with x-dayfly.test: true", r.Key)
	case found.Name == "":
		return found, dayfly.Errorf(dayfly.CodeNotFound, "environment %s has no test %q; it has %s", r.Key, job, strings.Join(tests, ", "))
	case job == "" && len(tests) > 1:
		return found, dayfly.Invalid(dayfly.Problem{Field: "job", Message: "say which one: " + strings.Join(tests, ", ")})
	}
	return found, nil
}

// retire marks a deployment as wanted no more.
func (c *Control) retire(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	d, ok := registry.Lookup(c.cache, registry.Deployments, id)
	if !ok || d.Value.Retiring != nil {
		return
	}
	next := d.Value
	next.Retiring = &dayfly.Retirement{Since: c.now()}
	if err := c.commit(ctx, registry.Update(registry.Deployments, id, next, d.Revision)); err != nil {
		c.log.Warn("a test run could not be cleared away; the reaper will", "deployment", id, "error", err)
	}
}
