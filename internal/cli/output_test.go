package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/dayfly-dev/dayfly"
)

// sample is an environment that has something in every column.
func sample(created time.Time) dayfly.Environment {
	expires := time.Now().Add(5*24*time.Hour + time.Minute)
	return dayfly.Environment{
		ID: "abc", Name: "shop-x", Project: "shop", Branch: "feature/x", Base: "shop-main", Phase: dayfly.PhaseDegraded, Message: "api does not build",
		URL: "http://shop-x.localhost:8080", URLs: map[string]string{}, CreatedAt: created, ExpiresAt: &expires, Revision: 3,
		Services: []dayfly.EnvironmentService{
			{Name: "web", Version: "feature/x", Commit: "0123456789abcdef0123456789abcdef01234567", From: dayfly.FromOwn, Env: "shop-x", Phase: dayfly.PhaseReady, Instances: 2, URL: "http://web-shop-x.localhost:8080"},
			{Name: "a-long-name", From: dayfly.FromBorrowed, Env: "shop-main", Phase: dayfly.PhaseFailed},
		},
		Databases: []string{}, Missing: []dayfly.Missing{},
	}
}

// same compares what is printed, line by line.
func same(t *testing.T, got, want string) {
	t.Helper()
	want = strings.TrimPrefix(want, "\n")
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestListIsATableThatLinesUp(t *testing.T) {
	s := newShell(t)
	same(t, s.ok("list"), "NAME   PROJECT   BRANCH   PHASE   AGE   EXPIRES   URL\n")
	s.control.Add(sample(time.Now().Add(-3*time.Hour)), dayfly.EnvironmentSpec{})
	s.control.Add(dayfly.Environment{Name: "zoo", Project: "zoo", Phase: dayfly.PhaseReady, CreatedAt: time.Now().Add(-90 * time.Second)}, dayfly.EnvironmentSpec{})
	same(t, s.ok("list"), `
NAME     PROJECT   BRANCH      PHASE      AGE   EXPIRES   URL
shop-x   shop      feature/x   degraded   3h    in 5d     http://shop-x.localhost:8080
zoo      zoo       -           ready      1m    never     -
`)
	same(t, s.ok("ls", "--project", "zoo"), `
NAME   PROJECT   BRANCH   PHASE   AGE   EXPIRES   URL
zoo    zoo       -        ready   1m    never     -
`)
}

func TestDetailsShowsAnEnvironmentAndItsServices(t *testing.T) {
	s := newShell(t)
	created := time.Now().Add(-3 * time.Hour)
	s.control.Add(sample(created), dayfly.EnvironmentSpec{Name: "shop-x", Project: "shop", Branch: "feature/x"})
	same(t, s.ok("details", "shop-x"), strings.ReplaceAll(`
name       shop-x
project    shop
branch     feature/x
base       shop-main
phase      degraded
message    api does not build
url        http://shop-x.localhost:8080
created    CREATED
expires    in 5d

SERVICE       VERSION     COMMIT       FROM                   PHASE    INSTANCES   URL
web           feature/x   0123456789   own                    ready    2           http://web-shop-x.localhost:8080
a-long-name   -           -            borrowed (shop-main)   failed   0           -
`, "CREATED", created.Local().Format(time.DateTime)))
	if out := s.ok("details", "shop-x", "-o", "envfile"); !strings.Contains(out, "shop-x") || !strings.Contains(out, "feature/x") {
		t.Errorf("the environment file is %q", out)
	}
}

func TestAnEnvironmentFileFromDetailsCanBeApplied(t *testing.T) {
	s := newShell(t)
	s.control.OnCreate = ready
	spec := dayfly.EnvironmentSpec{
		Name: "n", Project: "shop", Branch: "x", Base: "none", Keep: dayfly.Duration(36 * time.Hour), Data: "fixtures",
		Services: []dayfly.ServiceSpec{{Name: "web", Branch: "y: #z", Variables: map[string]string{"A": "1", "B": "yes"}}, {Name: "api", Version: "1.10"}},
	}
	s.control.Add(dayfly.Environment{Name: "n", Phase: dayfly.PhaseReady}, spec)
	file := filepath.Join(t.TempDir(), "n.yaml")
	if err := os.WriteFile(file, []byte(s.ok("details", "n", "-o", "envfile")), 0o600); err != nil {
		t.Fatal(err)
	}
	s.control.Remove("n")
	s.ok("apply", "-f", file)
	got, err := s.control.Spec(t.Context(), "n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec, got); diff != "" {
		t.Errorf("(-was +is)\n%s", diff)
	}
}

func events(at time.Time) []dayfly.Event {
	return []dayfly.Event{
		{Time: at, Kind: dayfly.EventStep, Reason: "created", Message: "environment created", Cause: "dayfly create"},
		{Time: at.Add(1500 * time.Millisecond), Kind: dayfly.EventError, Reason: "build-failed", Message: "api does not build", Service: "api", Log: []string{"main.go:3: no", "exit 1"}},
	}
}

func TestEventsAreLinesWithTheirCauseAndLog(t *testing.T) {
	s := newShell(t)
	s.add("a")
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	for _, e := range events(at) {
		s.control.Happen("a", e)
	}
	want := `
2026-03-01 12:00:00.000  environment created (dayfly create)
2026-03-01 12:00:01.500  api does not build
    | main.go:3: no
    | exit 1
`
	same(t, s.ok("events", "a"), want)
	s.control.Remove("a")
	same(t, s.ok("events", "a", "--deleted"), want)
	same(t, s.ok("events", "a", "--deleted", "--follow"), want)
	if r := s.run("events", "a"); r.code != 3 || r.out != "" {
		t.Errorf("without --deleted it ends with %d: %q", r.code, r.out)
	}
}

func TestLogsSayWhosTheyAreUnlessThatWasAskedFor(t *testing.T) {
	s := newShell(t)
	s.add("a")
	old := time.Now().Add(-2 * time.Hour)
	s.control.Print("a", dayfly.LogLine{Time: old, Service: "web", Source: "build", Line: "compiling"}, dayfly.LogLine{Time: old, Service: "web", Source: "run", Line: "  hello"},
		dayfly.LogLine{Time: time.Now(), Service: "api", Source: "run", Line: "there"})
	for command, want := range map[string]string{
		"logs a": "web[build] compiling\nweb   hello\napi there\n", "logs a web": "[build] compiling\n  hello\n", "logs a api": "there\n",
		"logs a --since 1h": "api there\n", "logs a --tail 1": "api there\n",
	} {
		if out := s.ok(strings.Fields(command)...); out != want {
			t.Errorf("%s prints %q, want %q", command, out, want)
		}
	}
	s.control.Remove("a")
	if out := s.ok("logs", "a", "-f", "--deleted"); strings.Count(out, "\n") != 3 {
		t.Errorf("followed to its end it prints %q", out)
	}
}

func TestProjectsAreAddedListedAndRemoved(t *testing.T) {
	s := newShell(t)
	same(t, s.ok("project", "add", "shop", "--repo", "https://example.org/shop"), "project shop added; create an environment with: dayfly create --project shop --branch BRANCH\n")
	same(t, s.ok("project", "add", "shop", "--repo", "https://example.org/shop"), "project shop is there already\n")
	if out := s.ok("project", "list"); strings.Join(strings.Fields(out)[:5], " ") != "NAME REPOSITORY AGE shop https://example.org/shop" {
		t.Errorf("the list is %q", out)
	}
	if l := onlyJSON[struct{ Items []dayfly.Project }](t, s.ok("project", "list", "-o", "json")); len(l.Items) != 1 || l.Items[0].Name != "shop" {
		t.Errorf("the list is %+v", l)
	}
	same(t, s.ok("project", "remove", "shop"), "")
	if r := s.run("project", "rm", "shop"); r.code != 3 {
		t.Errorf("removing it again ends with %d", r.code)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if p := onlyJSON[dayfly.Project](t, s.ok("project", "add", "here", "--repo", "./x", "-o", "json")); p.Repo != filepath.Join(wd, "x") {
		t.Errorf("a path of this folder is sent as %q", p.Repo)
	}
}

func TestWithJSONStandardOutputHasTheAnswerAndNothingElse(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no browser
	s := newShell(t)
	s.control.OnCreate = func(e *dayfly.Environment) { ready(e) }
	s.control.DeleteAtOnce = true
	s.control.TestEnds(dayfly.TestRun{Job: "smoke", Phase: "passed"})
	s.add("a", "b", "c", "d", "gone")
	for _, e := range events(time.Now()) {
		s.control.Happen("a", e)
	}
	s.control.Print("a", dayfly.LogLine{Service: "web", Line: "<hello>"})
	file := filepath.Join(t.TempDir(), "e.yaml")
	if err := os.WriteFile(file, []byte("name: e\nproject: shop\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		command string
		has     string // in the answer, printed without spaces
	}{
		{"list", `{"items":[{`}, {"list --project none", `{"items":[],"next":""}`}, {"details a", `"name":"a"`}, {"events a", `{"items":[{"cause":"dayflycreate"`}, {"logs a", `{"items":[{`},
		{"open a", `"name":"a"`}, {"extend a 3d", `"name":"a"`}, {"test a", `"phase":"passed"`}, {"create new --project shop", `"phase":"ready"`},
		{"create newer --project shop --no-wait", `"name":"newer"`}, {"apply -f " + file, `"name":"e"`}, {"check " + file, `{"problems":[]}`},
		{"delete b", `{"items":[{`}, {"delete c d --no-wait", `"name":"d"`}, {"version", `"version":"v1.2.3"`}, {"project add p --repo /r", `"name":"p"`}, {"project list", `{"items":[{`},
	} {
		for _, form := range []string{"json", "yaml"} {
			args := append(strings.Fields(c.command), "-o", form)
			if form == "yaml" && strings.HasPrefix(c.command, "delete") {
				continue // they are gone
			}
			out := s.ok(args...)
			var v any
			if form == "json" {
				v = onlyJSON[any](t, out)
			} else if err := yaml.Unmarshal([]byte(out), &v); err != nil {
				t.Errorf("%s: %v in %q", c.command, err, out)
			}
			compact, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.ReplaceAll(string(compact), " ", ""), c.has) {
				t.Errorf("%s -o %s prints %s, want %s in it", c.command, form, compact, c.has)
			}
		}
	}
	if r := s.run("details", "nobody", "-o", "json"); r.code != 3 || r.out != "" || r.err == "" {
		t.Errorf("an error ends with %d: %q %q", r.code, r.out, r.err)
	}
}

func TestFollowingAsJSONOrYAMLIsADocumentForEach(t *testing.T) {
	s := newShell(t)
	s.add("a")
	for i := range 3 {
		s.control.Happen("a", dayfly.Event{Message: fmt.Sprint("event ", i)})
		s.control.Print("a", dayfly.LogLine{Line: fmt.Sprint("line ", i)})
	}
	s.control.Remove("a")
	for _, command := range []string{"events", "logs"} {
		d := json.NewDecoder(strings.NewReader(s.ok(command, "a", "-f", "--deleted", "-o", "json")))
		n := 0
		for ; d.More(); n++ {
			var v map[string]any
			if err := d.Decode(&v); err != nil {
				t.Fatal(err)
			}
		}
		out := s.ok(command, "a", "-f", "--deleted", "-o", "yaml")
		documents := strings.Split(out, "---\n")
		for _, document := range documents {
			var v map[string]any
			if err := yaml.Unmarshal([]byte(document), &v); err != nil || len(v) == 0 {
				t.Errorf("%q: %v", document, err)
			}
		}
		if n != 3 || len(documents) != 3 {
			t.Errorf("%s has %d documents as JSON and %d as YAML:\n%s", command, n, len(documents), out)
		}
	}
}

func TestWithoutATerminalNothingIsColouredOrRedrawn(t *testing.T) {
	for _, c := range []struct {
		name             string
		terminal, colour bool
		noColour         string
	}{{"no terminal", false, false, ""}, {"no colour wanted", true, false, "1"}, {"terminal", true, true, ""}} {
		t.Run(c.name, func(t *testing.T) {
			s := newShell(t)
			s.terminal, s.colour, s.vars["NO_COLOR"] = c.terminal, c.colour, c.noColour
			s.control.OnCreate = ready
			s.add("a")
			s.control.Happen("a", events(time.Now())[1])
			s.control.Print("a", dayfly.LogLine{Service: "web", Line: "hello"})
			for _, command := range []string{"list", "details a", "events a", "logs a"} {
				r := s.run(strings.Fields(command)...)
				if got := strings.Contains(r.out, "\x1b"); got != c.colour || r.err != "" {
					t.Errorf("%s prints %q %q", command, r.out, r.err)
				}
			}
			file := filepath.Join(t.TempDir(), "a.yaml")
			if err := os.WriteFile(file, []byte("name: a\nproject: shop\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			// The event is of before, so one of now has to be told.
			s.control.Happen("a", dayfly.Event{Time: time.Now().Add(time.Hour), Kind: dayfly.EventError, Message: "web is late", Log: []string{"why"}})
			r := s.run("apply", "-f", file)
			if r.code != 0 || r.out != "http://a.localhost\n" {
				t.Errorf("it ends with %d and prints %q", r.code, r.out)
			}
			if !strings.Contains(r.err, "web is late") || !strings.Contains(r.err, "         | why\n") {
				t.Errorf("the steps are %q", r.err)
			}
			if redrawn := strings.Contains(r.err, "\r"); redrawn != c.terminal {
				t.Errorf("the steps are redrawn: %v, %q", redrawn, r.err)
			}
			if coloured := strings.Contains(r.err, "\x1b[3"); coloured != c.colour {
				t.Errorf("the steps have colours: %v, %q", coloured, r.err)
			}
		})
	}
}

func TestDoctorShowsWhatIsWrongAndWhatToDo(t *testing.T) {
	s := newShell(t)
	s.control.Find(dayfly.Finding{Check: "git", OK: true, Message: "2.50", Advice: "nothing"}, dayfly.Finding{Check: "disk", Message: "is full", Advice: "make room"})
	r := s.run("doctor")
	if r.code != 1 || r.err != "" {
		t.Errorf("it ends with %d: %q", r.code, r.err)
	}
	same(t, r.out, "ok     git: 2.50\nWRONG  disk: is full\n       -> make room\n")
	r = s.run("doctor", "-o", "json")
	if l := onlyJSON[struct{ Items []dayfly.Finding }](t, r.out); r.code != 1 || len(l.Items) != 2 || l.Items[1].Advice != "make room" {
		t.Errorf("as JSON it ends with %d: %q", r.code, r.out)
	}
	s.control.Find(dayfly.Finding{Check: "git", OK: true, Message: "2.50"})
	same(t, s.ok("doctor"), "ok     git: 2.50\n")
}

func TestDoctorShowsWhatWouldGoAndWhy(t *testing.T) {
	s := newShell(t)
	same(t, s.ok("doctor", "--retire"), "Nothing would go: all that is there is needed.\n")
	now := time.Now()
	at := func(d time.Duration) *time.Time { at := now.Add(d); return &at }
	list := []dayfly.Departure{
		{Kind: "environment", Name: "temp-1", Project: "shop", Env: "temp-1", Reason: "nobody created it", How: "with its last instance", Since: at(-time.Hour), At: at(90*time.Minute + 20*time.Second)},
		{Kind: "logs", Name: "web", Project: "shop", Env: "main", Reason: "it is gone", How: "later", Since: at(-time.Hour), At: at(-time.Second)},
		{Kind: "deployment", Name: "web@v2", Project: "shop", Reason: "nobody refers to it", How: "soon"},
		{Kind: "build", Name: "/b/1", Reason: "unused", How: "when there is no room", Since: at(-2 * time.Hour), Bytes: 1 << 20},
		{Kind: "build", Name: "/b/2", Reason: "unused", How: "when there is no room", Since: at(-9 * time.Hour), Bytes: 2 << 20},
		{Kind: "mirror", Name: "/m/1", Reason: "unused", How: "when there is no room", Bytes: 9},
	}
	s.control.Depart(list...)
	same(t, s.ok("doctor", "--retire"), `GOES    KIND          NAME             SINCE   WHY
in 2h   environment   temp-1 of shop   1h      nobody created it
now     logs          web of main      1h      it is gone
-       deployment    web@v2 of shop   -       nobody refers to it
-       build         2, 3.0 MiB       9h      unused
-       mirror        1, 9 B           -       unused

environment: with its last instance
logs: later
deployment: soon
build, mirror: when there is no room
`)
	if l := onlyJSON[struct{ Items []dayfly.Departure }](t, s.ok("doctor", "--retire", "-o", "json")); len(l.Items) != 6 || l.Items[4].Bytes != 2<<20 || !l.Items[0].At.Equal(*list[0].At) {
		t.Errorf("as JSON it is %+v", l)
	}
	list[1].Overdue = true
	s.control.Depart(list...)
	for _, format := range []string{"table", "json"} {
		r := s.run("doctor", "--retire", "-o", format)
		if r.code != 1 || r.err != "" || !strings.Contains(strings.ToUpper(r.out), "OVERDUE") {
			t.Errorf("as %s what is overdue ends with %d: %q %q", format, r.code, r.err, r.out)
		}
	}
}

func TestVersionSaysWhatItIs(t *testing.T) {
	s := newShell(t)
	if out := s.ok("version"); !strings.HasPrefix(out, "dayfly v1.2.3 (go1.") {
		t.Errorf("it prints %q", out)
	}
	v := onlyJSON[map[string]string](t, s.ok("version", "-o", "json"))
	if len(v) != 3 || v["version"] != "v1.2.3" || v["go"] == "" || !strings.Contains(v["platform"], "/") {
		t.Errorf("it is %v", v)
	}
	if calls := s.called(); len(calls) != 0 {
		t.Errorf("the server was asked for %v", calls)
	}
}

func TestCompletionIsMadeForEveryShell(t *testing.T) {
	s := newShell(t)
	for shell, has := range map[string]string{"bash": "complete -o", "zsh": "#compdef dayfly", "fish": "complete -c dayfly", "powershell": "Register-ArgumentCompleter"} {
		r := s.run("completion", shell)
		if r.code != 0 || r.err != "" || !strings.Contains(r.out, has) || !strings.Contains(r.out, "dayfly") {
			t.Errorf("%s ends with %d and %d bytes; %s", shell, r.code, len(r.out), r.err)
		}
	}
	if r := s.run("completion", "tcsh"); r.code != 2 || !strings.Contains(r.err, "tcsh") {
		t.Errorf("an unknown shell ends with %d: %q %q", r.code, r.out, r.err)
	}
}

func TestNamesOfEnvironmentsAreCompleted(t *testing.T) {
	s := newShell(t)
	s.add("shop-a", "shop-b", "zoo", "zoo-b")
	for command, want := range map[string]string{"details shop": "shop-a\nshop-b\n", "delete shop-a zoo": "zoo\nzoo-b\n", "logs x": ""} {
		out := s.ok(append([]string{"__complete"}, strings.Fields(command)...)...)
		if names, _, _ := strings.Cut(out, ":4"); names != want {
			t.Errorf("%s completes to %q, want %q", command, names, want)
		}
	}
}
