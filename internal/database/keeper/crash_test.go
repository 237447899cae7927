//go:build crashpoints && linux

package keeper

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/database/enginetest"
)

// lives are the ports of the two clones of a life.
const lives = "DAYFLY_TEST_LIFE"

// TestLife is what the process does that is killed.
func TestLife(t *testing.T) {
	root, ports, ok := strings.Cut(os.Getenv(lives), " ")
	if !ok {
		t.Skip("this is a part of another test")
	}
	w := &world{t: t, root: root}
	a, b := crashClones(ports)
	w.open()
	w.template("tpl")
	w.ensure(a)
	w.insert(a, "two")
	w.ensure(b)
	if err := w.Reset(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	a.Settings = map[string]string{"work_mem": "7MB"}
	w.ensure(a)
	for _, id := range []string{"b", "a"} {
		if err := w.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Forget(t.Context(), "tpl"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func crashClones(ports string) (a, b database.Clone) {
	pa, pb, _ := strings.Cut(ports, " ")
	port := func(s string) int { n, _ := strconv.Atoi(s); return n }
	return database.Clone{ID: "a", Template: "tpl", User: "app", Password: "a", Port: port(pa)},
		database.Clone{ID: "b", From: "a", User: "app", Password: "b", Port: port(pb)}
}

func TestWhoIsKilledAtAnyStepLeavesNothingThatCannotBeUsed(t *testing.T) {
	w := newWorld(t)
	w.template("first") // loads what is shared
	if err := w.Remove(t.Context(), "none"); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(w.root, "points")
	life := func(root, at string) (string, error) {
		t.Helper()
		ports := strconv.Itoa(enginetest.Port(t)) + " " + strconv.Itoa(enginetest.Port(t))
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLife$")
		cmd.Env = append(os.Environ(), lives+"="+root+" "+ports, sharedDir+"="+shared.dir, "DAYFLY_CRASH_AT="+at, "DAYFLY_CRASH_LOG="+log)
		out, err := cmd.CombinedOutput()
		if at == "" && err != nil {
			t.Fatalf("a life that nobody ends fails: %v: %s", err, out)
		}
		return ports, err
	}
	fresh := func(t *testing.T) *world {
		w := newWorld(t)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return w
	}
	life(fresh(t).root, "")
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	// Of each point the first time and the last: those between are alike.
	all := strings.Fields(string(b))
	var points []string
	name := func(p string) string { n, _, _ := strings.Cut(p, "#"); return n }
	for i, p := range all {
		same := func(q string) bool { return name(q) == name(p) }
		if !slices.ContainsFunc(all[:i], same) || !slices.ContainsFunc(all[i+1:], same) {
			points = append(points, p)
		}
	}
	if len(points) < 20 {
		t.Fatalf("there are just the points %q", points)
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			w := fresh(t)
			ports, err := life(w.root, point)
			if err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("it was not killed: %v", err)
			}
			a, _ := crashClones(ports)
			w.open()
			w.template("tpl")
			w.ensure(a)
			if got := w.rows(a); got != "one" && got != "one two" {
				t.Errorf("the clone has %q", got)
			}
			known := func(id string) bool { return id == "a" || id == "tpl" }
			if left, err := w.Sweep(t.Context(), 0, known); err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
			if there, want := w.there(), "ca ttpl templates/tpl.json clones/a.json"; there != want {
				t.Errorf("there is %s, want %s", there, want)
			}
			if err := w.Remove(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			enginetest.NothingRuns(t, w.root)
			if b, err := os.ReadFile(filepath.Join(w.root, "records/clones/a.json")); err == nil {
				t.Errorf("the record %s is left", bytes.TrimSpace(b))
			}
		})
	}
}
