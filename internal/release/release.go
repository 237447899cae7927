// Package release decides which deployments carry the traffic of an
// environment: (state, facts) -> (state, decision). It is pure; what it decides
// is carried out by package reconcile.
package release

import (
	"slices"

	"github.com/dayfly-dev/dayfly"
)

// Target is a deployment that carries a share of a service's requests.
type Target struct {
	Deployment string `json:"deployment"`
	Version    string `json:"version"`
	Weight     int    `json:"weight"`
}

// State is which deployments serve an environment now.
type State struct {
	Format   int                 `json:"format"`
	Services map[string][]Target `json:"services"`
}

// Serves says whether a deployment is among the targets of any service.
func (s State) Serves(deployment string) bool {
	for _, targets := range s.Services {
		if slices.ContainsFunc(targets, func(t Target) bool { return t.Deployment == deployment }) {
			return true
		}
	}
	return false
}

// Candidate is the deployment that a service should be served by.
type Candidate struct {
	Service    string
	Deployment string
	Version    string
}

// Fact is what is observed of a deployment.
type Fact struct {
	Phase   dayfly.DeploymentPhase
	Healthy int // instances
}

// usable says whether a deployment can take over: an instance is healthy, or a
// job has completed.
func (f Fact) usable() bool {
	return f.Phase == dayfly.DeploymentCompleted || f.Healthy > 0 &&
		(f.Phase == dayfly.DeploymentReady || f.Phase == dayfly.DeploymentDegraded)
}

// Decision says what Next found.
type Decision struct {
	Shifted []string // services whose targets changed
	Waiting []string // services whose new deployment is not ready yet
	Failed  []string // those of Waiting whose new deployment has failed
}

// Next is the direct strategy. A service without targets gets its candidate as
// soon as that is usable, so that the ones that depend on it can reach it. Services
// that serve already move together, once every candidate is usable: until then,
// and for as long as one of them fails, the old deployments go on and nobody meets
// half of a change. Services without a candidate leave with that move.
func Next(s State, wanted []Candidate, facts map[string]Fact) (State, Decision) {
	next := State{Format: dayfly.Format, Services: map[string][]Target{}}
	for name, targets := range s.Services {
		next.Services[name] = targets
	}
	var d Decision
	var move []Candidate
	isWanted := map[string]bool{}
	for _, c := range wanted {
		isWanted[c.Service] = true
		current := s.Services[c.Service]
		if len(current) == 1 && current[0].Deployment == c.Deployment {
			continue
		}
		fact := facts[c.Deployment]
		switch {
		case !fact.usable():
			d.Waiting = append(d.Waiting, c.Service)
			if fact.Phase == dayfly.DeploymentFailed {
				d.Failed = append(d.Failed, c.Service)
			}
		case len(current) == 0:
			next.Services[c.Service] = only(c)
			d.Shifted = append(d.Shifted, c.Service)
		default:
			move = append(move, c)
		}
	}
	if len(d.Waiting) == 0 {
		for _, c := range move {
			next.Services[c.Service] = only(c)
			d.Shifted = append(d.Shifted, c.Service)
		}
		for name := range s.Services {
			if !isWanted[name] {
				delete(next.Services, name)
				d.Shifted = append(d.Shifted, name)
			}
		}
	}
	slices.Sort(d.Shifted)
	slices.Sort(d.Waiting)
	slices.Sort(d.Failed)
	return next, d
}

func only(c Candidate) []Target {
	return []Target{{Deployment: c.Deployment, Version: c.Version, Weight: 1}}
}
