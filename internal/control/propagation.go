package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// Propagation says which services hand on that a request is for an environment, as far as this server has
// seen their calls.
func (c *Control) Propagation(ctx context.Context, name string) (dayfly.Propagation, error) {
	env, err := c.Environment(ctx, name)
	if err != nil {
		return dayfly.Propagation{}, err
	}
	var counts dayfly.CallCounts
	if c.config.Counts != nil {
		counts = c.config.Counts()
	}
	p := propagation(env, counts)
	others := 0
	for n := range registry.All(c.cache, registry.Nodes) {
		if n.Value.ID == c.config.Server {
			p.Server = cmp.Or(n.Value.Hostname, n.Value.ID)
		} else {
			others++
		}
	}
	if others > 0 {
		p.Unseen = append([]string{fmt.Sprintf("requests that went through the other servers, of which there are %d: each counts for itself", others)}, p.Unseen...)
	}
	return p, nil
}

// unseen is what no counter of a proxy can tell.
func unseen() []string {
	return []string{
		"calls that do not go through dayfly: to the port of an instance itself, to other hosts, over plain TCP",
		"who makes a call, unless its address is its environment's alone, or one service is being asked by the environment at that moment: FROM names all that are, and is empty where nobody is, or more than three are",
		"for whom a call is that carries nothing while its possible callers are being asked by several environments: it is unattributed; one that a service makes at that moment by itself, as a timer does, is taken for one that belongs to the request",
		"what happens in a connection after it was upgraded, and calls that are made after the answer",
	}
}

// propagation makes the report of an environment from what was counted.
func propagation(env dayfly.Environment, counts dayfly.CallCounts) dayfly.Propagation {
	p := dayfly.Propagation{
		Environment: env.Name, Project: env.Project, Since: counts.Since, Unseen: unseen(),
		Called: []dayfly.Called{}, Calls: []dayfly.Calls{}, Unattributed: []dayfly.Calls{}, Dropped: []dayfly.Dropped{},
	}
	called := map[string]uint64{}
	for _, s := range counts.Served {
		if s.EnvironmentID == env.ID {
			called[s.Service] += s.Requests
		}
	}
	for _, s := range env.Services {
		p.Called = append(p.Called, dayfly.Called{Service: s.Name, From: s.From, Env: s.Env, Requests: called[s.Name]})
		delete(called, s.Name)
	}
	for name, n := range called { // of a version that has gone, or of the base alone
		p.Called = append(p.Called, dayfly.Called{Service: name, Requests: n})
	}
	slices.SortFunc(p.Called, func(a, b dayfly.Called) int { return strings.Compare(a.Service, b.Service) })
	for _, call := range counts.Calls {
		row := dayfly.Calls{From: call.From, To: call.To, Env: call.Went, Total: call.Total(), Carried: call.Carried}
		if row.From == nil {
			row.From = []string{}
		}
		switch {
		case row.Total == 0: // it is being counted right now
		case call.EnvironmentID == env.ID:
			p.Calls = append(p.Calls, row)
		case call.EnvironmentID == "" && call.Project == env.Project:
			p.Unattributed = append(p.Unattributed, row)
		}
	}
	order := func(a, b dayfly.Calls) int {
		return cmp.Or(slices.Compare(a.From, b.From), strings.Compare(a.To, b.To), strings.Compare(a.Env, b.Env))
	}
	slices.SortFunc(p.Calls, order)
	slices.SortFunc(p.Unattributed, order)
	for _, row := range p.Calls {
		p.Dropped = append(p.Dropped, dropped(env, row, p)...)
	}
	for _, row := range p.Unattributed {
		if d := perhaps(env, row, p); d != nil {
			p.Dropped = append(p.Dropped, *d)
		}
	}
	return p
}

// dropped says what is wrong with the calls of a row.
func dropped(env dayfly.Environment, row dayfly.Calls, p dayfly.Propagation) (list []dayfly.Dropped) {
	who := "somebody who cannot be seen"
	if len(row.From) > 0 {
		who = strings.Join(row.From, " or ")
	}
	was := ""
	if n := p.Asked(row.From); n > 0 {
		was = fmt.Sprintf("%s was called %s for %s; ", who, times(n), env.Name)
	}
	// Those that carried something, wherever they went, are counted in a row of their own.
	all := uint64(0)
	for _, other := range p.Calls {
		if slices.Equal(other.From, row.From) && other.To == row.To {
			all += other.Total
		}
	}
	if lost := row.Nothing(); lost > 0 && row.Env != env.Name {
		list = append(list, dayfly.Dropped{
			From: row.From, To: row.To, Calls: lost, Env: row.Env, Lost: true, Advice: advice,
			Message: fmt.Sprintf("%s%d of %d calls of %s to %s carried nothing, and went to %s", was, lost, all, who, row.To, row.Env),
		})
	}
	if row.Trace > 0 {
		list = append(list, dayfly.Dropped{
			From: row.From, To: row.To, Calls: row.Trace, Env: row.Env, Advice: advice,
			Message: fmt.Sprintf("%s%d of %d calls of %s to %s carried nothing but a traceparent: they arrive for as long as the trace is remembered, a minute or two and less under heavy load", was, row.Trace, all, who, row.To),
		})
	}
	return list
}

// perhaps says what is wrong with calls that may be for any environment: who makes them hands nothing on,
// also when it is called for this one.
func perhaps(env dayfly.Environment, row dayfly.Calls, p dayfly.Propagation) *dayfly.Dropped {
	n := p.Asked(row.From)
	if n == 0 || row.Env == env.Name || row.Nothing() == 0 {
		return nil
	}
	return &dayfly.Dropped{
		From: row.From, To: row.To, Calls: row.Nothing(), Env: row.Env, Perhaps: true, Advice: advice,
		Message: fmt.Sprintf("%s was called %s for %s; calls of it to %s carried nothing while it was called for several environments, this one perhaps among them: %d of them went to %s",
			row.From[0], times(n), env.Name, row.To, row.Nothing(), row.Env),
	}
}

func times(n uint64) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

// advice says what who makes the calls should do.
const advice = "copy X-Dayfly-Env from the request that is being answered to the calls that are made for it, or baggage, which OpenTelemetry does with OTEL_PROPAGATORS=tracecontext,baggage"
