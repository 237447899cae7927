// Package plan compares what an environment should be with what is observed and
// says which small steps lead from one to the other. It is pure: Make looks at
// nothing but its input and does nothing. A plan holds only steps that can be
// taken now; what has to wait for something is a Wait, and the change it waits for
// brings the next plan.
package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/release"
)

// Kind is what a step does.
type Kind string

// The kinds of steps, in the order in which a plan lists them.
const (
	Create Kind = "create" // write the deployment's record, so that its node prepares (builds) it
	Start  Kind = "start"  // let its instances run
	Stop   Kind = "stop"   // let none run, and keep what was built
	Shift  Kind = "shift"  // move the traffic, Plan.Release says where to
	Retire Kind = "retire" // drain, stop and remove the deployment
	Forget Kind = "forget" // nothing is left: remove the environment's records
)

var order = []Kind{Create, Start, Stop, Shift, Retire, Forget}

// Step is one small, idempotent change.
type Step struct {
	Kind       Kind
	Service    string
	Deployment string
	Replicas   int
	Cause      string // why, for people
}

// Wait is something that cannot be done yet.
type Wait struct {
	Service string
	Cause   string
}

// Wanted is a deployment that the resolved state asks for.
type Wanted struct {
	Service    string
	Deployment string
	Version    string
	DependsOn  map[string]dayfly.Condition
	Replicas   int
	Waits      string // for what is no service, such as a database; "" = for nothing
}

// Existing is a deployment that has a record.
type Existing struct {
	Service    string
	Deployment string
	Replicas   int
	Phase      dayfly.DeploymentPhase
	Healthy    int
	Retiring   bool
	TestRun    bool // belongs to a test run, which retires it by itself
	Shared     bool // other environments may need it: it is not this one's to stop
}

// Input is all that Make looks at.
type Input struct {
	Deleting bool
	Wanted   []Wanted
	Existing []Existing
	Release  release.State
}

// Plan is what to do now, and what is being waited for.
type Plan struct {
	Steps   []Step
	Waits   []Wait
	Release release.State // after the Shift step
	// Decision is what package release found, for messages.
	Decision release.Decision
}

// Make makes the plan. Order: a deployment is created (and so built) at once,
// started when what it depends on is there, given traffic when package release
// says so, and retired when it neither is wanted nor serves.
func Make(in Input) Plan {
	if in.Deleting {
		return takeAway(in)
	}
	existing := map[string]Existing{}
	facts := map[string]release.Fact{}
	for _, e := range in.Existing {
		existing[e.Deployment] = e
		facts[e.Deployment] = release.Fact{Phase: e.Phase, Healthy: e.Healthy}
	}
	var p Plan
	byService := map[string]Wanted{}
	wanted := map[string]bool{}
	candidates := make([]release.Candidate, 0, len(in.Wanted))
	for _, w := range in.Wanted {
		byService[w.Service] = w
		wanted[w.Deployment] = true
		candidates = append(candidates, release.Candidate{Service: w.Service, Deployment: w.Deployment, Version: w.Version})
	}
	for _, w := range in.Wanted {
		e, ok := existing[w.Deployment]
		if e.Shared && e.Retiring {
			p.Waits = append(p.Waits, Wait{w.Service, "the one before is still being stopped"})
			continue
		}
		if !ok {
			p.add(Create, w.Service, w.Deployment, 0, "wanted by the resolved state")
		}
		switch missing := unmet(w, byService, existing, in.Release); {
		case e.Replicas == w.Replicas && ok:
		case e.Replicas > 0 && w.Replicas > 0:
			// What runs is not stopped because something it once waited for got sick.
			p.add(Start, w.Service, w.Deployment, w.Replicas, fmt.Sprintf("%d wanted, %d asked for so far", w.Replicas, e.Replicas))
		case w.Replicas == 0:
			if ok {
				p.add(Stop, w.Service, w.Deployment, 0, "none wanted")
			}
		case missing != "":
			p.Waits = append(p.Waits, Wait{w.Service, missing})
		default:
			p.add(Start, w.Service, w.Deployment, w.Replicas, startCause(w))
		}
	}

	p.Release, p.Decision = release.Next(in.Release, candidates, facts)
	for _, name := range p.Decision.Shifted {
		deployment := ""
		if targets := p.Release.Services[name]; len(targets) > 0 {
			deployment = targets[0].Deployment
		}
		cause := "its new deployment is ready"
		if deployment == "" {
			cause = "no longer a service of this environment"
		}
		p.add(Shift, name, deployment, 0, cause)
	}
	for _, name := range p.Decision.Waiting {
		if !slices.ContainsFunc(p.Waits, func(w Wait) bool { return w.Service == name }) {
			p.Waits = append(p.Waits, Wait{name, "its new deployment is not ready"})
		}
	}
	for _, e := range in.Existing {
		// Traffic leaves in one pass and the deployment in a later one, so
		// that every proxy has heard of the first before the second.
		if !wanted[e.Deployment] && !e.Retiring && !e.TestRun && !e.Shared &&
			!in.Release.Serves(e.Deployment) && !p.Release.Serves(e.Deployment) {
			p.add(Retire, e.Service, e.Deployment, 0, "neither wanted nor serving")
		}
	}
	p.sort()
	return p
}

// takeAway plans the end of an environment: no traffic, no deployments, then no
// records.
func takeAway(in Input) Plan {
	var p Plan
	p.Release = release.State{Format: dayfly.Format, Services: map[string][]release.Target{}}
	if len(in.Release.Services) > 0 {
		for name := range in.Release.Services {
			p.Decision.Shifted = append(p.Decision.Shifted, name)
		}
		slices.Sort(p.Decision.Shifted)
		for _, name := range p.Decision.Shifted {
			p.add(Shift, name, "", 0, "the environment is being deleted")
		}
	}
	left := 0
	for _, e := range in.Existing {
		if e.Shared {
			continue
		}
		left++
		if e.Retiring {
			p.Waits = append(p.Waits, Wait{e.Service, "being stopped"})
			continue
		}
		p.add(Retire, e.Service, e.Deployment, 0, "the environment is being deleted")
	}
	if left == 0 && len(p.Steps) == 0 {
		p.add(Forget, "", "", 0, "nothing of the environment is left")
	}
	p.sort()
	return p
}

// unmet gives the first reason, in the order of names, why w cannot start yet.
func unmet(w Wanted, byService map[string]Wanted, existing map[string]Existing, serving release.State) string {
	if w.Waits != "" {
		return w.Waits
	}
	names := make([]string, 0, len(w.DependsOn))
	for name := range w.DependsOn {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		dep, ok := byService[name]
		if !ok {
			continue // not a service of this environment: reached through its base, or missing
		}
		e := existing[dep.Deployment]
		switch w.DependsOn[name] {
		case dayfly.ConditionHealthy:
			// Reachable, too: its first request may come at once. One that
			// replaces another is reached through the old one until it takes over.
			if len(serving.Services[name]) == 0 || e.Healthy == 0 {
				return "waits until " + name + " is healthy"
			}
		case dayfly.ConditionCompleted:
			if e.Phase != dayfly.DeploymentCompleted {
				return "waits until " + name + " has completed"
			}
		default:
			if e.Replicas == 0 {
				return "waits until " + name + " has started"
			}
		}
	}
	return ""
}

func startCause(w Wanted) string {
	if len(w.DependsOn) == 0 {
		return "depends on nothing"
	}
	return "all it depends on is there"
}

func (p *Plan) add(kind Kind, service, deployment string, replicas int, cause string) {
	p.Steps = append(p.Steps, Step{kind, service, deployment, replicas, cause})
}

func (p *Plan) sort() {
	slices.SortStableFunc(p.Steps, func(a, b Step) int {
		return slices.Index(order, a.Kind) - slices.Index(order, b.Kind)
	})
}

// Empty says whether there is nothing to do now.
func (p Plan) Empty() bool { return len(p.Steps) == 0 }

// String gives a line for each step and each wait, with its cause.
func (p Plan) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%-7s %s", s.Kind, s.Service)
		if s.Deployment != "" {
			fmt.Fprintf(&b, " %s", s.Deployment)
		}
		if s.Kind == Start {
			fmt.Fprintf(&b, " x%d", s.Replicas)
		}
		fmt.Fprintf(&b, ": %s\n", s.Cause)
	}
	for _, w := range p.Waits {
		fmt.Fprintf(&b, "%-7s %s: %s\n", "wait", w.Service, w.Cause)
	}
	return b.String()
}
