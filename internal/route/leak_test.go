package route

import (
	"context"
	"fmt"
	"testing"
)

// What a table keeps, and the moment between a claim's look at the instances and
// its entry to one of them, can't be seen from outside, so these look inside.

func TestNobodyEntersAnInstanceThatHasLeftSinceItWasSeen(t *testing.T) {
	for name, leave := range map[string]func(*Table){
		"removed": func(table *Table) { table.SetDeployment("d", nil) },
		"deleted": func(table *Table) { table.DeleteDeployment("d") },
		"drained": func(table *Table) { _ = table.Drain(context.Background(), "d", "i") },
		"cut":     func(table *Table) { table.Cut("d", "i") },
	} {
		t.Run(name, func(t *testing.T) {
			table := New(Options{})
			table.SetDeployment("d", []Endpoint{{Instance: "i", Address: "x:1"}})
			seen := table.deployments["d"].instances()[0]
			leave(table)
			if seen.enter() {
				t.Error("a request got in")
			}
			if n := seen.inFlight(); n != 0 {
				t.Errorf("%d are counted", n)
			}
		})
	}
}

func TestNothingIsKeptOfWhatIsGone(t *testing.T) {
	table := New(Options{})
	for n := range 50 {
		id := fmt.Sprint(n)
		if err := table.SetEnvironment(Environment{
			Name: id, Project: id, Hosts: []Host{{Name: id}},
			Services: []Service{{Name: "web", Targets: []Target{{Deployment: id}, {Deployment: "never set " + id}}}},
		}); err != nil {
			t.Fatal(err)
		}
		table.SetDeployment(id, []Endpoint{{Instance: id, Address: id}})
		table.SetProject(Project{Name: id})
	}
	for n := range 50 {
		id := fmt.Sprint(n)
		if n%2 == 0 {
			table.DeleteEnvironment(id)
			table.DeleteDeployment(id)
		} else {
			table.DeleteDeployment(id)
			if err := table.SetEnvironment(Environment{Name: id, Project: id}); err != nil {
				t.Fatal(err)
			}
			table.DeleteEnvironment(id)
		}
		table.DeleteProject(id)
	}
	s := table.state.Load()
	if s.projects.root != nil || s.environments.root != nil || s.hosts.root != nil || s.addresses.root != nil || s.holders.root != nil {
		t.Errorf("the state is not empty: %+v", s)
	}
	if n := len(table.deployments); n != 0 {
		t.Errorf("%d deployments are left", n)
	}
}

func TestOnlySoManyDrainedInstancesAreRemembered(t *testing.T) {
	table := New(Options{})
	for n := range 10 * remembered {
		id := fmt.Sprint("i", n)
		table.SetDeployment("d", []Endpoint{{Instance: id, Address: "x:1"}})
		if err := table.Drain(context.Background(), "d", id); err != nil {
			t.Fatal(err)
		}
		if err := table.Drain(context.Background(), "d", "other"+id); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(table.deployments["d"].leaving); n != remembered {
		t.Errorf("%d are remembered", n)
	}
}
