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

// lives are the folder of a life and the ports of its two clones, or that it has spares.
const lives = "DAYFLY_TEST_LIFE"

// TestLife is what the process does that is killed.
func TestLife(t *testing.T) {
	root, ports, ok := strings.Cut(os.Getenv(lives), " ")
	if !ok {
		t.Skip("this is a part of another test")
	}
	if ports == sparingLife {
		liveWithSpares(t, root)
		return
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

// sparingLife is one in which a spare is made, given away, left for the next life and taken away.
const sparingLife = "spares"

func liveWithSpares(t *testing.T, root string) {
	w := &world{t: t, root: root, change: []func(*Options){sparing(1)}}
	w.open()
	w.template("tpl")
	w.Reserve(likeAll("tpl"))
	w.ready("tpl")
	c := w.placed("tpl")
	w.ensure(c)
	w.insert(c, "two")
	w.ready("tpl")
	w.reopen()
	w.ready("tpl")
	if err := w.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if err := w.Forget(t.Context(), "tpl"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWhoIsKilledWhileThereAreSparesLeavesNothingThatCannotBeUsed(t *testing.T) {
	w := newWorld(t)
	w.template("first") // loads what is shared
	root := func() string { return closedWorld(t).root }
	log := filepath.Join(w.root, "points")
	life := func(root, at string) error {
		t.Helper()
		_, err := killed(t, root, sparingLife, at, log)
		return err
	}
	if err := life(root(), ""); err != nil {
		t.Fatal(err)
	}
	points := firstAndLast(t, log)
	if len(points) < 15 {
		t.Fatalf("there are just the points %q", points)
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			w := closedWorld(t, sparing(1))
			if err := life(w.root, point); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("it was not killed: %v", err)
			}
			w.open()
			w.template("tpl")
			w.Reserve(likeAll("tpl"))
			w.ready("tpl")
			all, err := w.Observe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, st := range all { // who asked for it asks again
				w.mu.Lock()
				c := w.clones[st.ID].rec.Clone
				made := w.clones[st.ID].rec.Made
				w.mu.Unlock()
				c.Password = "secret-of-" + c.ID
				w.ensure(c)
				if got := w.rows(c); got != "one" && (got != "one two" || !made) {
					t.Errorf("the clone has %q", got)
				}
				if err := w.Remove(t.Context(), st.ID); err != nil {
					t.Fatal(err)
				}
			}
			if left, err := w.Sweep(t.Context(), 0, func(id string) bool { return id == "tpl" }); err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
			id, _ := w.ready("tpl")
			if there, want := w.there(), "c"+id+" ttpl templates/tpl.json spares/"+id+".json"; there != want {
				t.Errorf("there is %s, want %s", there, want)
			}
			if err := w.Forget(t.Context(), "tpl"); err != nil {
				t.Fatal(err)
			}
			if there := w.there(); there != "" {
				t.Errorf("there is %s", there)
			}
			enginetest.NothingRuns(t, w.root)
		})
	}
}

// closedWorld is one that nobody has opened yet.
func closedWorld(t *testing.T, change ...func(*Options)) *world {
	t.Helper()
	w := newWorld(t, change...)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w
}

// killed has a process live that is killed at a point, and gives the ports that it had.
func killed(t *testing.T, root, kind, at, log string) (ports string, err error) {
	t.Helper()
	ports = kind
	if kind == "" {
		ports = strconv.Itoa(enginetest.Port(t)) + " " + strconv.Itoa(enginetest.Port(t))
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLife$")
	cmd.Env = append(os.Environ(), lives+"="+root+" "+ports, sharedDir+"="+shared.dir, "DAYFLY_CRASH_AT="+at, "DAYFLY_CRASH_LOG="+log)
	out, err := cmd.CombinedOutput()
	if at == "" && err != nil {
		t.Fatalf("a life that nobody ends fails: %v: %s", err, out)
	}
	return ports, err
}

// firstAndLast gives of each point that was noted the first time and the last: those between are alike.
func firstAndLast(t *testing.T, log string) (points []string) {
	t.Helper()
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Fields(string(b))
	name := func(p string) string { n, _, _ := strings.Cut(p, "#"); return n }
	for i, p := range all {
		same := func(q string) bool { return name(q) == name(p) }
		if !slices.ContainsFunc(all[:i], same) || !slices.ContainsFunc(all[i+1:], same) {
			points = append(points, p)
		}
	}
	return points
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
		return killed(t, root, "", at, log)
	}
	if _, err := life(closedWorld(t).root, ""); err != nil {
		t.Fatal(err)
	}
	points := firstAndLast(t, log)
	if len(points) < 20 {
		t.Fatalf("there are just the points %q", points)
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			w := closedWorld(t)
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
