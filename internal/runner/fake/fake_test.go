package fake

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/runner"
	"github.com/dayfly-dev/dayfly/internal/runner/runnertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBothModesPassTheSuite(t *testing.T) {
	t.Run("single", func(t *testing.T) { runnertest.Run(t, harness(Single, 1)) })
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("replicas, seed %d", seed), func(t *testing.T) { runnertest.Run(t, harness(Replicas, seed)) })
	}
}

func harness(mode Mode, seed uint64) runnertest.Harness {
	var mu sync.Mutex
	hosts := map[string]*Host{}
	get := func(name string) *Host {
		mu.Lock()
		defer mu.Unlock()
		return hosts[name]
	}
	return runnertest.Harness{
		New: func(t *testing.T, name string, hooks runner.Hooks) runner.Runner {
			mu.Lock()
			defer mu.Unlock()
			if hosts[name] == nil {
				h := NewHost(mode, seed, program)
				hosts[name] = h
				t.Cleanup(h.Close)
			}
			return New(hosts[name], hooks)
		},
		Deployment: func(_ *testing.T, kind runnertest.Kind) dayfly.Deployment {
			d := dayfly.Deployment{
				ID: dayfly.NewID(), Key: dayfly.DeploymentKey{Project: "p", Service: "s"},
				Definition: &dayfly.Definition{Service: "s", Run: dayfly.Command{string(kind)}, Stop: dayfly.Stop{Grace: dayfly.Duration(100 * time.Millisecond)}},
			}
			switch kind {
			case runnertest.Web, runnertest.Stubborn:
				d.Definition.Port = 80
			case runnertest.Job, runnertest.BadJob:
				d.Definition.Job = true
			}
			return d
		},
		Crash: func(t *testing.T, name string, i dayfly.Instance) {
			if !get(name).Crash(i.ID) {
				t.Errorf("there is no instance %s", i.ID)
			}
		},
		Left: func(_ *testing.T, name, id string) (left []string) {
			for _, there := range get(name).Deployments() {
				if there == id {
					left = append(left, id)
				}
			}
			return left
		},
		Starts: func(_ *testing.T, name, id string) int { return get(name).Starts(id) },
	}
}

func program(d dayfly.Deployment) Program {
	p := Program{Lines: []string{"hello"}, Handler: http.NotFoundHandler()}
	code := func(n int) *int { return &n }
	switch kind := runnertest.Kind(d.Definition.Run[0]); kind {
	case runnertest.Stubborn:
		p.Stubborn = true
	case runnertest.Printer:
		p.Lines = nil
		for n := range 50 {
			p.Lines = append(p.Lines, fmt.Sprintf("line %d", n+1))
		}
	case runnertest.Crashing:
		p.Lines, p.Exit = []string{"giving up"}, code(3)
	case runnertest.Job:
		p.Lines, p.Exit = []string{"done"}, code(0)
	case runnertest.BadJob:
		p.Lines, p.Exit = []string{"not done"}, code(4)
	case runnertest.BadBuild:
		p.BuildFails = "no such thing"
	case runnertest.SlowBuild:
		p.BuildTime = time.Second
	}
	return p
}

func TestAMovedInstanceIsAnotherOneAtAnotherAddress(t *testing.T) {
	h := NewHost(Replicas, 7, program)
	defer h.Close()
	r := New(h, runner.Hooks{})
	defer r.Close()
	d := harness(Replicas, 7).Deployment(t, runnertest.Web)
	if err := r.Prepare(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := r.Ensure(t.Context(), d, 1); err != nil {
		t.Fatal(err)
	}
	changes := r.Changes(t.Context())
	var first dayfly.Instance
	for range changes {
		found, err := r.Observe(t.Context(), d.ID)
		if err != nil || len(found) != 1 {
			t.Fatalf("Observe: %v, %v", found, err)
		}
		o := found[0]
		if o.Phase != dayfly.DeploymentReady || len(o.Instances) != 1 {
			continue
		}
		if first.ID == "" {
			first = o.Instances[0]
			if !h.Move(first.ID) {
				t.Fatal("it could not be moved")
			}
			continue
		}
		if now := o.Instances[0]; now.ID != first.ID {
			if now.Address == first.Address {
				t.Errorf("it has the address of before: %s", now.Address)
			}
			return
		}
	}
}
