//go:build linux

// Package torture kills the server at every point where it leaves a trace, starts it again
// as a service manager would, and checks after each life of the environments that
// everything is as if nothing had happened:
//
//	make test       some of the points and some kills at random moments
//	make torture    all of them, and a table of what was checked
//
// The points are not listed anywhere: a first life with a build that notes them says which
// there are, so a new step of the server is covered by itself.
//
// There are lives of environments and lives of databases, with real PostgreSQL, where that is
// installed.
//
// Where the state is in an etcd outside, that is compacted, cut off, filled up and robbed of
// its members, with real processes, networks and disks.
package torture

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

var (
	long    = flag.Bool("long", false, "kill at all points and at 50 random moments, and let etcd fail in all ways")
	seed    = flag.Uint64("seed", 0, "of the random choices; 0 = another one each time")
	only    = flag.String("only", "", "kill at this point alone, such as 'after Prepare#1', or at these with | between them, or let etcd fail in this way alone")
	workers = flag.Int("workers", 2, "lives at a time")
)

var programs string // folder of the binaries under test

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "dayfly-torture-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // services run as other users
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	programs = dir
	build := exec.Command("go", "build", "-tags", "crashpoints", "-o", dir+"/", "../../cmd/dayfly", "../e2e/testservice", "../e2e/etcdserver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "the binary does not build: %s\n", out)
		return 1
	}
	return m.Run()
}

func TestTheServerMayDieAnywhere(t *testing.T) {
	random := dice(t)
	undisturbed := newLife(t, "undisturbed")
	undisturbed.live(fate{})
	points := undisturbed.points()
	if len(points) < 50 {
		t.Fatalf("only %d points were noted: %q", len(points), points)
	}

	var fates []fate
	kills := 50
	switch {
	case *only != "":
		points, kills = strings.Split(*only, "|"), 0
	case !*long:
		points, kills = sample(random, points, 16), 4
	}
	for _, p := range points {
		fates = append(fates, fate{point: p})
	}
	moment := func() time.Duration { return time.Duration(random.Int64N(int64(undisturbed.took))) }
	for range kills {
		fates = append(fates, fate{after: moment()})
	}
	for range (kills + 4) / 5 {
		fates = append(fates, fate{after: moment(), away: time.Second + moment()/2})
	}
	suffer(t, fates, checked, func(t *testing.T, f fate) *life {
		l := newLife(t, f.String())
		l.live(f)
		return l
	})
}

// dice are for the random choices of a test.
func dice(t *testing.T) *rand.Rand {
	t.Helper()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", *seed)
	return rand.New(rand.NewPCG(*seed, 0))
}

// suffer lives once with each fate, as many at a time as was asked for, and prints what came of it.
func suffer(t *testing.T, fates []fate, checked []string, live func(*testing.T, fate) *life) {
	t.Helper()
	// Not t.Parallel: as many at a time as was asked for, each with its own folder.
	next := make(chan fate)
	var all sync.WaitGroup
	var mu sync.Mutex
	var table []string
	deaths := 0
	for range *workers {
		all.Go(func() {
			for f := range next {
				passed := t.Run(f.String(), func(t *testing.T) {
					l := live(t, f)
					mu.Lock()
					defer mu.Unlock()
					deaths += l.deaths()
					table = append(table, fmt.Sprintf("%s\t%d\t%s", f, l.deaths(), l.took.Round(time.Millisecond)))
				})
				if !passed {
					mu.Lock()
					table = append(table, fmt.Sprintf("%s\t\tFAILED", f))
					mu.Unlock()
				}
			}
		})
	}
	for _, f := range fates {
		next <- f
	}
	close(next)
	all.Wait()
	slices.Sort(table)
	printTable(t, "KILLED\tTIMES\tLIFE TOOK", table)
	t.Logf("%d deaths; after each of %d lives: %s", deaths, len(table), strings.Join(checked, "; "))
}

// printTable prints rows whose cells are between tabs.
func printTable(t *testing.T, head string, rows []string) {
	t.Helper()
	w := tabwriter.NewWriter(t.Output(), 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "%s\n%s\n", head, strings.Join(rows, "\n"))
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
}

// checked says what live checks, for the table.
var checked = []string{
	"every environment is ready and answers with its version",
	"each service runs once",
	"an environment that nobody touched has its processes of before",
	"what was deleted or expired answers 404 and has left no process, folder or record",
	"a branch that was pushed and acknowledged is there, and its environment goes with it",
	"a branch of the project's and a file of the folder are environments for as long as they are there",
	"a file whose time is over is in the archive, and nowhere else",
	"no half of a build, checkout or mirror is left",
}

// sample gives n of the points, evenly spread.
func sample(random *rand.Rand, points []string, n int) []string {
	var some []string
	step := max(1, len(points)/n)
	for at := random.IntN(step); at < len(points); at += step {
		some = append(some, points[at])
	}
	return some
}

// fate is when the server dies.
type fate struct {
	point string        // where; "" = nowhere
	after time.Duration // or when; 0 = never
	away  time.Duration // not 0: it is the etcd outside that dies then, and is away for so long

	driver   string // of the copies of databases; "" = the best that works here
	takeDown bool   // it dies while it takes everything down
}

// takingDown begins the names of points at which a server dies that takes everything down.
const takingDown = "taking down: "

func (f fate) String() string {
	switch {
	case f.driver != "":
		driver := f.driver
		f.driver = ""
		return driver + ": " + f.String()
	case f.takeDown:
		f.takeDown = false
		return takingDown + f.String()
	}
	if f.point != "" {
		return f.point
	}
	if f.away > 0 {
		return fmt.Sprintf("etcd %.3f s after the start for %.3f s", f.after.Seconds(), f.away.Seconds())
	}
	return fmt.Sprintf("%.3f s after the start", f.after.Seconds())
}

// points gives the points that were reached, the first and the last time each.
func (l *life) points() []string {
	l.Helper()
	return l.pointsIn(l.crashLog)
}

func (l *life) pointsIn(log string) []string {
	l.Helper()
	b, err := os.ReadFile(log)
	if err != nil {
		l.Fatal(err)
	}
	last := map[string]string{}
	var names, points []string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		name, n, _ := strings.Cut(line, "#")
		if n == "1" {
			names = append(names, name)
		}
		last[name] = line
	}
	for _, name := range names {
		points = append(points, name+"#1")
		if last[name] != name+"#1" {
			points = append(points, last[name])
		}
	}
	return points
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@example.org", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@example.org",
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

// repository makes one with a chain of three services, on two branches.
func repository(t *testing.T, dir string) {
	t.Helper()
	for name, text := range map[string]string{
		"VERSION": "1",
		"compose.yaml": `
x-dayfly: {branches: [auto/*]}
services:
  frontend:
    ports: ["80"]
    depends_on: {backend: {condition: service_healthy}}
    x-dayfly: {route: /, process: {build: cp VERSION BUILT, run: testservice http}}
  backend:
    ports: ["80"]
    depends_on: {migrate: {condition: service_completed_successfully}}
    x-dayfly: {health: /, process: {build: cp VERSION BUILT, run: testservice http}}
  migrate:
    x-dayfly: {process: {run: testservice job 0 migrated}}
`,
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git(t, dir, "init", "-q", "-b", "main")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-qm", "one")
	git(t, dir, "branch", "feature")
}

// commit changes the version on a branch.
func commit(t *testing.T, dir, branch, version string) {
	t.Helper()
	git(t, dir, "checkout", "-q", branch)
	if err := os.WriteFile(filepath.Join(dir, "VERSION"), []byte(version), 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "commit", "-qam", version)
	git(t, dir, "checkout", "-q", "main")
}
