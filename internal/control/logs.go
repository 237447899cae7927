package control

import (
	"context"
	"iter"
	"slices"
	"sync"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/runner"
)

// Logs gives what an environment's services printed, in the order of time. With
// Follow it goes on until ctx ends, with deployments that begin meanwhile.
func (c *Control) Logs(ctx context.Context, name string, q dayfly.LogQuery) iter.Seq2[dayfly.LogLine, error] {
	return func(yield func(dayfly.LogLine, error) bool) {
		id, err := c.environmentID(name, q.Deleted)
		if err != nil {
			yield(dayfly.LogLine{}, err)
			return
		}
		if r, err := c.record(name); err == nil {
			name = r.Key // what changes are told of by
		}
		if err := c.hasService(name, id, q.Service); err != nil {
			yield(dayfly.LogLine{}, err)
			return
		}
		if q.Follow && !q.Deleted {
			c.followLogs(ctx, name, id, q, yield)
			return
		}
		var lines []dayfly.LogLine
		for _, deployment := range c.printed(id, q.Service) {
			for line, err := range c.logs.Logs(ctx, deployment, runner.LogOptions{Since: q.Since, Tail: q.Tail, After: q.After[deployment]}) {
				if err != nil {
					yield(line, err)
					return
				}
				lines = append(lines, line)
			}
		}
		slices.SortStableFunc(lines, func(a, b dayfly.LogLine) int { return a.Time.Compare(b.Time) })
		for _, line := range lastOf(lines, q.Tail) {
			if !yield(line, nil) {
				return
			}
		}
	}
}

// lastOf keeps the last tail lines of each service, which may have had several
// deployments; 0 keeps all.
func lastOf(lines []dayfly.LogLine, tail int) []dayfly.LogLine {
	if tail <= 0 {
		return lines
	}
	kept := map[string]int{}
	var last []dayfly.LogLine
	for _, line := range slices.Backward(lines) {
		if kept[line.Service]++; kept[line.Service] <= tail {
			last = append(last, line)
		}
	}
	slices.Reverse(last)
	return last
}

// hasService refuses the name of a service that the environment does not have.
func (c *Control) hasService(name, id, service string) error {
	if service == "" || len(c.printed(id, service)) > 0 {
		return nil
	}
	if res, ok := registry.Lookup(c.cache, registry.Resolutions, name); ok {
		for _, rs := range res.Value.Services {
			if rs.Name == service {
				return nil
			}
		}
	}
	return dayfly.Errorf(dayfly.CodeNotFound, "environment %s has no service %q", name, service)
}

// printed gives the deployments of an environment whose logs are kept, oldest first.
func (c *Control) printed(id, service string) []string {
	var retired []registry.RetiredDeployment
	for r := range registry.RetiredOf(c.cache, id) {
		if service == "" || r.Value.Service == service {
			retired = append(retired, r.Value)
		}
	}
	slices.SortFunc(retired, func(a, b registry.RetiredDeployment) int { return a.RetiredAt.Compare(b.RetiredAt) })
	var current []dayfly.Deployment
	for d := range registry.DeploymentsOf(c.cache, id) {
		if service == "" || d.Value.Key.Service == service {
			current = append(current, d.Value)
		}
	}
	slices.SortFunc(current, func(a, b dayfly.Deployment) int { return a.CreatedAt.Compare(b.CreatedAt) })
	var ids []string
	for _, r := range retired {
		ids = append(ids, r.ID)
	}
	for _, d := range current {
		ids = append(ids, d.ID)
	}
	return ids
}

// followLogs reads every deployment of the environment in a goroutine of its own
// and waits for all of them before it returns.
func (c *Control) followLogs(ctx context.Context, name, id string, q dayfly.LogQuery, yield func(dayfly.LogLine, error) bool) {
	type result struct {
		line dayfly.LogLine
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	lines := make(chan result)
	var readers sync.WaitGroup
	defer func() {
		cancel()
		readers.Wait()
	}()
	changed, stop := c.hub.listen(name)
	defer stop()
	reading := map[string]bool{}
	first := true
	for {
		for _, deployment := range c.printed(id, q.Service) {
			if reading[deployment] {
				continue
			}
			reading[deployment] = true
			o := runner.LogOptions{Since: q.Since, Tail: q.Tail, Follow: true}
			if !first || len(q.After) > 0 {
				o.Tail = 0 // begun meanwhile: from its first line on
			}
			o.After = q.After[deployment]
			readers.Go(func() {
				for line, err := range c.logs.Logs(ctx, deployment, o) {
					select {
					case lines <- result{line, err}:
					case <-ctx.Done():
						return
					}
				}
			})
		}
		first = false
		select {
		case <-ctx.Done():
			return
		case <-changed:
			if r, ok := registry.Lookup(c.cache, registry.Environments, name); !ok || r.Value.ID != id {
				return // the environment is gone
			}
		case r := <-lines:
			if !yield(r.line, r.err) || r.err != nil {
				return
			}
		}
	}
}
