package control

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

func (c *Control) elsewhere(what, node string) error {
	n, ok := registry.Lookup(c.cache, registry.Nodes, node)
	if !ok {
		return dayfly.Errorf(dayfly.CodeUnavailable, "%s is kept by server %s, which is not there: start that one again", what, node)
	}
	where := cmp.Or(n.Value.Hostname, node)
	if n.Value.Address != "" {
		where += " (" + n.Value.Address + ")"
	}
	return dayfly.Errorf(dayfly.CodeUnavailable, "%s is kept by another server: ask that one, on %s (--server)", what, where)
}

// away says whether another server is not there.
func (c *Control) away(node string) bool {
	return node != c.config.DatabaseNode && registry.IsAway(c.cache, node)
}

// giveUp forgets what servers that are not there have of an environment that is being deleted. A server that
// comes back finds that it has what no record knows, and takes that away. It waits for no revision: a record that
// changes meanwhile is none that anybody needs.
func (c *Control) giveUp(ctx context.Context, environmentID string) error {
	var ops []registry.Op
	for d := range registry.DeploymentsOf(c.cache, environmentID) {
		if c.away(d.Value.Node) {
			ops = append(ops, registry.Delete(registry.Deployments, d.Key), registry.Delete(registry.Observed, d.Key))
		}
	}
	for d := range registry.DatabasesOf(c.cache, environmentID) {
		if c.away(d.Value.Node) {
			ops = append(ops, registry.Delete(registry.Databases, d.Key), registry.Delete(registry.DatabaseStatuses, d.Value.ID))
		}
	}
	for some := range slices.Chunk(ops, maxGivenUp) {
		if err := c.commit(ctx, some...); err != nil {
			return err
		}
	}
	return nil
}

// Missed finds the servers that are not there and have something.
func (c *Control) Missed() (list []dayfly.Finding) {
	type missed struct {
		hosts, has []string
	}
	all := map[string]*missed{}
	note := func(node, host, what string) {
		if !c.away(node) {
			return
		}
		if all[node] == nil {
			all[node] = &missed{}
		}
		m := all[node]
		if host != "" && !slices.Contains(m.hosts, host) {
			m.hosts = append(m.hosts, host)
		}
		if !slices.Contains(m.has, what) {
			m.has = append(m.has, what)
		}
	}
	for d := range registry.All(c.cache, registry.Databases) {
		note(d.Value.Node, d.Value.Host, "database "+d.Key)
	}
	for v := range registry.All(c.cache, registry.TemplateVersions) {
		note(v.Value.Node, "", "template "+v.Value.Template)
	}
	for d := range registry.All(c.cache, registry.Deployments) {
		note(d.Value.Node, "", d.Value.Key.Service+" of "+cmp.Or(d.Value.Environment, "project "+d.Value.Key.Project))
	}
	for _, node := range slices.Sorted(maps.Keys(all)) {
		m, name, more := all[node], node, ""
		if len(m.hosts) > 0 {
			name += " at " + strings.Join(m.hosts, ", ")
		}
		if n := len(m.has); n > maxNamed {
			m.has, more = m.has[:maxNamed], fmt.Sprintf(" and %d more", n-maxNamed)
		}
		list = append(list, dayfly.Finding{
			Check: "servers", Message: fmt.Sprintf("server %s is not there, and has %s%s", name, strings.Join(m.has, ", "), more),
			Advice: "start it again; or, if it never comes back, give up what it has: dayfly delete --force NAME, dayfly db delete --force NAME",
		})
	}
	return list
}

// maxNamed is how many things a sentence names.
const maxNamed = 10

// maxGivenUp keeps a transaction below what etcd takes.
const maxGivenUp = 100
