package control_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/control"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

func TestByForceOnlyWhatAServerHasThatIsNotThereIsGivenUp(t *testing.T) {
	w := start(t, func(c *control.Config) { c.DatabaseNode = "node1" }).shop()
	w.git.change(func() { w.git.commits["other"] = "commit of other" })
	one, other := w.create("main"), w.create("other")
	ops := []registry.Op{
		registry.Put(registry.Nodes, "node2", registry.Node{ID: "node2"}), // and node1 does not say so at the moment
	}
	has := func(env dayfly.Environment, node string) {
		rec := w.record(env.Name).Value
		d := dayfly.NewDeployment(rec, dayfly.ResolvedService{Name: "web", Hash: node}, "local", node, w.clock.Now())
		db := dayfly.DatabaseRecord{
			ID: "db-" + env.ID + node, Name: env.Name + "." + node, Node: node, Owner: env.ID, Environment: env.Name, Label: node, Host: "10.0.0.1",
		}
		ops = append(ops,
			registry.Put(registry.Deployments, d.ID, d), registry.Put(registry.Observed, d.ID, dayfly.DeploymentStatus{Deployment: d.ID, Node: node}),
			registry.Put(registry.Databases, db.Name, db), registry.Put(registry.DatabaseStatuses, db.ID, dayfly.DatabaseStatus{Database: db.ID, Node: node}))
	}
	has(one, "node1")
	has(one, "node2")
	has(one, "gone")
	has(other, "gone")
	w.commit(ops...)

	found := w.Missed()
	if len(found) != 1 {
		t.Fatalf("missed are %+v", found)
	}
	for _, want := range []string{"server gone at 10.0.0.1 is not there", "web of shop-main", "web of shop-other", "database shop-main.gone", "database shop-other.gone"} {
		if !strings.Contains(found[0].Message, want) {
			t.Errorf("%q does not say %q", found[0].Message, want)
		}
	}
	nodes := func(env dayfly.Environment) (deployments, databases string) {
		var a, b []string
		for d := range registry.DeploymentsOf(w.cache, env.ID) {
			if _, ok := registry.Lookup(w.cache, registry.Observed, d.Key); ok {
				a = append(a, d.Value.Node)
			}
		}
		for d := range registry.DatabasesOf(w.cache, env.ID) {
			if _, ok := registry.Lookup(w.cache, registry.DatabaseStatuses, d.Value.ID); ok {
				b = append(b, d.Value.Node)
			}
		}
		slices.Sort(a)
		slices.Sort(b)
		return strings.Join(a, " "), strings.Join(b, " ")
	}
	for _, o := range []dayfly.DeleteOptions{{}, {Force: true}} {
		if _, err := w.DeleteEnvironment(t.Context(), one.Name, o); err != nil {
			t.Fatal(err)
		}
		want := "gone node1 node2"
		if o.Force {
			want = "node1 node2"
		}
		if a, b := nodes(one); a != want || b != want {
			t.Errorf("force %t: deployments of %q and databases of %q are left, want %q", o.Force, a, b, want)
		}
	}
	if a, b := nodes(other); a != "gone" || b != "gone" {
		t.Errorf("of another environment are left: %q, %q", a, b)
	}
	left := 0
	for range registry.All(w.cache, registry.DatabaseStatuses) {
		left++
	}
	if left != 3 {
		t.Errorf("%d statuses of databases are left, want those of 3", left)
	}
}
