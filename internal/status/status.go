// Package status says in one phase and one sentence how an environment is,
// computed from its records. It is pure; nothing that it says is stored.
package status

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/release"
)

// Input is all that View looks at.
type Input struct {
	Record      dayfly.EnvironmentRecord
	Revision    int64 // of the record and what belongs to it
	Resolution  *dayfly.Resolution
	Release     release.State
	Deployments []dayfly.Deployment
	Observed    map[string]dayfly.DeploymentStatus // by deployment
	Registered  []dayfly.Registration              // with the environment
	URL         func(host string) string
	// Lenders are the environments from which this one borrows, by name.
	Lenders map[string]Input
	// Databases are those of the environment as they are observed, by id.
	Databases map[string]dayfly.DatabaseStatus
	// Pool is how many instances of a version have registered themselves, by service of those that are
	// provided so.
	Pool map[string]int
	// Away are the servers that are not there and have something of an environment that is being deleted.
	Away []Away
}

// Away is a server that is not there.
type Away struct {
	Node string
	Host string   // where it was reached; "" = not known
	Has  []string // what only it can take away
}

// String says which server it is, and what it has.
func (a Away) String() string {
	name := a.Node
	if a.Host != "" {
		name += " at " + a.Host
	}
	return fmt.Sprintf("server %s, which has %s and is not there", name, strings.Join(a.Has, ", "))
}

// Others leaves out the server that asks: it is there, whatever the state knows of it at the moment.
func Others(away []Away, self string) []Away {
	return slices.DeleteFunc(away, func(a Away) bool { return a.Node == self })
}

// HeldUp says for whom the end of an environment waits that may never come back; "" = for nobody.
func HeldUp(in Input) string {
	if !in.Record.Deleting || len(in.Away) == 0 {
		return ""
	}
	servers := make([]string, len(in.Away))
	for i, a := range in.Away {
		servers[i] = a.String()
	}
	return fmt.Sprintf("waits for %s: start it again, or give up what it has (dayfly delete --force %s)", strings.Join(servers, ", and "), in.Record.Spec.Name)
}

// View computes what the API answers about an environment.
func View(in Input) dayfly.Environment {
	rec := in.Record
	env := dayfly.Environment{
		ID: rec.ID, Name: rec.Spec.Name, Project: rec.Spec.Project, Branch: rec.Spec.Branch,
		Frozen: rec.Frozen, Pushed: rec.Pushed, Origin: rec.Origin,
		CreatedAt: rec.CreatedAt, ExpiresAt: rec.ExpiresAt, Revision: in.Revision,
		Phase: dayfly.PhasePending, URLs: map[string]string{},
		Services: []dayfly.EnvironmentService{}, Databases: []string{}, Missing: []dayfly.Missing{},
	}
	if in.Resolution == nil {
		switch {
		case rec.Deleting:
			env.Phase, env.Message = dayfly.PhaseDeleting, HeldUp(in)
		case rec.Problem != "":
			env.Phase, env.Message = dayfly.PhaseFailed, rec.Problem
		default:
			env.Message = "waiting for its commits to be looked up"
		}
		env.Services = append(env.Services, additional(in, env)...)
		return env
	}
	env.Base = in.Resolution.Base
	var messages []string
	say := func(m string) {
		if m != "" && !slices.Contains(messages, m) {
			messages = append(messages, m)
		}
	}
	counts := map[dayfly.Phase]int{}
	databases := 0
	reachable := false // what the public meets first serves
	for _, rs := range in.Resolution.Services {
		if rs.Definition.Test {
			continue
		}
		s := service(in, rs)
		if name, why := WaitsFor(in, rs); name != "" && s.Instances == 0 && (s.Phase == dayfly.PhasePending || s.Phase == dayfly.PhaseStarting) {
			s.Phase, s.WaitsFor, s.Message = dayfly.PhasePending, name, why
		}
		if over, ok := registered(in.Registered, rs.Name); ok {
			over.Env = in.Record.Spec.Name
			s = over
		}
		if len(rs.Hosts) > 0 {
			s.URL = in.URL(rs.Hosts[len(rs.Hosts)-1])
			env.URLs[rs.Name] = s.URL
			if slices.ContainsFunc(rs.Definition.Routes, func(r dayfly.PathRoute) bool { return r.Path == "/" }) {
				env.URL = in.URL(rs.Hosts[0])
			}
		}
		counts[s.Phase]++
		if len(rs.Definition.Routes) > 0 && s.Instances > 0 {
			reachable = true
		}
		if s.Message != "" && s.WaitsFor == "" {
			say(s.Name + ": " + s.Message)
		}
		env.Services = append(env.Services, s)
	}
	for _, db := range in.Resolution.Databases {
		env.Databases = append(env.Databases, db.Name)
		if db.ID == "" {
			continue // it is among what is missing
		}
		switch st := in.Databases[db.ID]; st.Phase {
		case dayfly.DatabaseReady:
			counts[dayfly.PhaseReady]++
		case dayfly.DatabaseFailed:
			counts[dayfly.PhaseFailed]++
			say("database " + db.Name + ": " + st.Message)
		default:
			counts[dayfly.PhaseStarting]++
			say("database " + db.Name + " is being made")
		}
		databases++
	}
	for _, m := range in.Resolution.Missing {
		env.Missing = append(env.Missing, m.Missing)
		what := m.Doing
		if m.Service != "" {
			what = fmt.Sprintf("%s %s is missing: %s", m.Service, m.Version, m.Doing)
		}
		say(what)
		counts[dayfly.PhasePending]++
	}
	for _, s := range additional(in, env) {
		counts[s.Phase]++
		env.Services = append(env.Services, s)
	}
	env.Phase = overall(counts, len(env.Services)+len(env.Missing)+databases, reachable)
	if in.Resolution.Problem != "" || rec.Problem != "" {
		say(in.Resolution.Problem)
		say(rec.Problem)
		if env.Phase == dayfly.PhaseReady {
			env.Phase = dayfly.PhaseDegraded
		}
	}
	env.Message = strings.Join(messages, "; ")
	if rec.Deleting {
		env.Phase = dayfly.PhaseDeleting
		if held := HeldUp(in); held != "" { // how the rest of it is matters no more
			env.Message = held
		}
	}
	return env
}

// service computes one service: what serves it, and how its next deployment
// fares where another is to take over.
func service(in Input, rs dayfly.ResolvedService) dayfly.EnvironmentService {
	s := dayfly.EnvironmentService{
		Name: rs.Name, Version: rs.Version, Commit: rs.Commit, From: rs.From, Env: rs.Environment,
		Phase: dayfly.PhasePending,
	}
	if s.Env == "" {
		s.Env = in.Record.Spec.Name
	}
	s.Reason = rs.Reason
	switch rs.From {
	case dayfly.FromBorrowed:
		return borrowed(in, rs, s)
	case dayfly.FromExternal:
		s.Phase = dayfly.PhaseReady
		return s
	case dayfly.FromRegistered:
		if s.Phase, s.Instances = dayfly.PhaseReady, in.Pool[rs.Name]; s.Instances == 0 {
			s.Phase, s.Message = dayfly.PhaseFailed, "no instance of version "+rs.Version+" is registered any more: register one (dayfly register)"
		}
		return s
	}
	serving := ""
	if targets := in.Release.Services[rs.Name]; len(targets) > 0 {
		serving = targets[0].Deployment
	}
	wanted := ""
	for _, d := range in.Deployments {
		if d.TestRun == "" && d.Retiring == nil && d.Key.Service == rs.Name &&
			d.Key.Hash == rs.Hash && d.Key.Version == rs.Commit && (d.Key.Owner == in.Record.ID) == (rs.From != dayfly.FromShared) {
			wanted = d.ID
		}
	}
	if serving != "" {
		st := in.Observed[serving]
		s.Instances = Healthy(st)
		s.Phase = servicePhase(st.Phase)
		s.Message = st.Message
		if serving == wanted {
			return s
		}
		// The old deployment answers while the new one gets ready.
		next := in.Observed[wanted]
		if next.Phase == dayfly.DeploymentFailed {
			s.Phase = dayfly.PhaseDegraded
			s.Message = "the new version failed, the old one goes on: " + next.Message
		} else if s.Phase = servicePhase(next.Phase); s.Phase == dayfly.PhaseReady {
			s.Phase = dayfly.PhaseStarting // it is healthy, and not reached yet
		}
		return s
	}
	if wanted != "" {
		st := in.Observed[wanted]
		s.Instances = Healthy(st)
		s.Phase = servicePhase(st.Phase)
		s.Message = st.Message
		if s.Phase == dayfly.PhaseReady {
			s.Phase = dayfly.PhaseStarting // it is healthy, and not reached yet
		}
	}
	return s
}

// WaitsFor gives the first database without which a service of an environment is not started, and what
// it waits for; "" = all are there.
func WaitsFor(in Input, rs dayfly.ResolvedService) (name, why string) {
	if in.Resolution == nil {
		return "", ""
	}
	for _, db := range in.Resolution.Databases {
		switch {
		case !slices.Contains(rs.Databases, db.Name):
		case db.ID == "":
			return db.Name, "waits for the database " + db.Name + ": " + db.Waiting
		case in.Databases[db.ID].Phase != dayfly.DatabaseReady:
			return db.Name, "waits until the database " + db.Name + " takes connections"
		}
	}
	return "", ""
}

// borrowed computes a service that another environment has, as that has it now.
func borrowed(in Input, rs dayfly.ResolvedService, s dayfly.EnvironmentService) dayfly.EnvironmentService {
	s.Message = "nobody has it any more"
	for name, n := in.Resolution.Base, 0; name != "" && n < len(in.Lenders); n++ {
		lender, ok := in.Lenders[name]
		if !ok || lender.Resolution == nil {
			return s
		}
		for _, theirs := range lender.Resolution.Services {
			if theirs.Name == rs.Name && theirs.From != dayfly.FromBorrowed {
				lender.Lenders = nil
				has := service(lender, theirs)
				has.From, has.Env, has.Reason, has.URL = dayfly.FromBorrowed, name, s.Reason, s.URL
				return has
			}
		}
		name = lender.Resolution.Base
	}
	return s
}

// servicePhase says what a deployment's phase means for its service.
func servicePhase(p dayfly.DeploymentPhase) dayfly.Phase {
	switch p {
	case dayfly.DeploymentBuilding:
		return dayfly.PhaseBuilding
	case dayfly.DeploymentPrepared, dayfly.DeploymentStarting:
		return dayfly.PhaseStarting
	case dayfly.DeploymentReady, dayfly.DeploymentCompleted:
		return dayfly.PhaseReady
	case dayfly.DeploymentDegraded:
		return dayfly.PhaseDegraded
	case dayfly.DeploymentFailed:
		return dayfly.PhaseFailed
	default:
		return dayfly.PhasePending
	}
}

// overall says how an environment is whose n services are in these phases: the
// worst news first. One that can be reached is degraded by a failed service, one
// that cannot has failed.
func overall(counts map[dayfly.Phase]int, n int, reachable bool) dayfly.Phase {
	ready := counts[dayfly.PhaseReady] + counts[dayfly.PhaseAsleep]
	switch {
	case counts[dayfly.PhaseFailed] > 0 && !reachable:
		return dayfly.PhaseFailed
	case counts[dayfly.PhaseFailed] > 0:
		return dayfly.PhaseDegraded
	case counts[dayfly.PhaseDegraded] > 0:
		return dayfly.PhaseDegraded
	case counts[dayfly.PhaseBuilding] > 0:
		return dayfly.PhaseBuilding
	case counts[dayfly.PhaseStarting] > 0:
		return dayfly.PhaseStarting
	case counts[dayfly.PhaseAsleep] > 0 && counts[dayfly.PhaseAsleep] == ready && ready == n:
		return dayfly.PhaseAsleep
	case ready == n:
		return dayfly.PhaseReady
	default:
		return dayfly.PhasePending
	}
}

// Healthy counts the healthy instances of a deployment.
func Healthy(st dayfly.DeploymentStatus) int {
	n := 0
	for _, i := range st.Instances {
		if i.Phase == dayfly.InstanceHealthy {
			n++
		}
	}
	return n
}

// Expired says whether an environment's life is over.
func Expired(rec dayfly.EnvironmentRecord, now time.Time) bool {
	return !rec.Deleting && rec.ExpiresAt != nil && !now.Before(*rec.ExpiresAt)
}
