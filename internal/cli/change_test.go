package cli_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dayfly-dev/dayfly"
)

func TestCreateWaitsShowsItsStepsAndPrintsTheAddress(t *testing.T) {
	s := newShell(t)
	s.control.OnCreate = func(e *dayfly.Environment) {
		go func(name string) {
			for _, phase := range []dayfly.Phase{dayfly.PhaseBuilding, dayfly.PhaseStarting, dayfly.PhaseReady} {
				// The environment is there for others only after this call.
				for !slices.Contains(s.control.Names(), name) {
					time.Sleep(time.Millisecond)
				}
				s.control.Happen(name, dayfly.Event{Time: time.Now(), Kind: dayfly.EventStep, Message: "web is " + string(phase)})
				s.control.Change(name, func(e *dayfly.Environment) {
					ready(e)
					e.Phase = phase
				})
			}
		}(e.Name)
	}
	r := s.run("create", "--project", "shop", "--branch", "x")
	if r.code != 0 || r.out != "http://shop-x.localhost:8080\n" {
		t.Errorf("it ends with %d and prints %q", r.code, r.out)
	}
	at := -1
	for _, text := range []string{"web is building", "web is starting", "web is ready"} {
		i := strings.Index(r.err, text)
		if i <= at {
			t.Errorf("the steps are %q, want %q at its place", r.err, text)
		}
		at = i
	}
}

func TestTheHistoryOfAnEnvironmentIsNotToldAgain(t *testing.T) {
	s := newShell(t)
	s.add("a")
	s.control.Change("a", func(e *dayfly.Environment) { e.CreatedAt = time.Now().Add(-2 * time.Hour) })
	s.control.Happen("a", dayfly.Event{Time: time.Now().Add(-time.Hour), Message: "old news"})
	s.control.Happen("a", dayfly.Event{Time: time.Now().Add(time.Minute), Message: "fresh news"})
	if r := s.run("apply", files(t, "name: a\nproject: shop\n")[0]); r.code != 0 || strings.Contains(r.err, "old news") || strings.Count(r.err, "fresh news") != 1 {
		t.Errorf("it ends with %d and says %q", r.code, r.err)
	}
}

func TestCreateWithoutWaitingReturnsAtOnce(t *testing.T) {
	s := newShell(t) // nothing ever gets ready here
	for i, args := range [][]string{{"create", "a", "--no-wait"}, {"create", "b", "--wait=false"}} {
		if r := s.run(args...); r.code != 0 || r.out != "" || r.err != "" {
			t.Errorf("%v ends with %d: %q %q", args, r.code, r.out, r.err)
		}
		if calls := s.called(); len(calls) != i+1 {
			t.Errorf("it called %v", calls)
		}
	}
	if e := onlyJSON[dayfly.Environment](t, s.ok("create", "c", "--no-wait", "-o", "json")); e.Phase != dayfly.PhasePending {
		t.Errorf("it prints %+v", e)
	}
}

func TestCreateAsksForWhatItsFlagsSay(t *testing.T) {
	s := newShell(t)
	s.vars["DAYFLY_GITHUB_TOKEN"] = "swordfish"
	s.ok("create", "n", "--project", "shop", "--branch", "x", "--service", "web=feature/y", "--service", "api=https://example.org/api#z#1", "--service", "db=a#b", "--only", "web,api", "--only", "db",
		"--base", "none", "--keep", "1d12h", "--with-fixtures", "--no-wait")
	got := s.control.Requests()[0]
	if got.Token.Reveal() != "swordfish" {
		t.Errorf("the token is %q", got.Token.Reveal())
	}
	got.Token = dayfly.Secret{}
	want := dayfly.EnvironmentRequest{WithFixtures: true, Spec: dayfly.EnvironmentSpec{
		Name: "n", Project: "shop", Branch: "x", Base: "none", Keep: dayfly.Duration(36 * time.Hour), Only: []string{"web", "api", "db"},
		// The last # parts, and only a repository has one: "a#b" is a branch.
		Services: []dayfly.ServiceSpec{{Name: "web", Branch: "feature/y"}, {Name: "api", Repo: "https://example.org/api#z", Branch: "1"}, {Name: "db", Branch: "a#b"}},
	}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(dayfly.Secret{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	s.ok("create", "m", "--repo", "./shop", "--github-token", "other", "--no-wait")
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got := s.control.Requests()[1]; got.Repo != filepath.Join(wd, "shop") || got.Token.Reveal() != "other" {
		t.Errorf("it asks for %q with %q", got.Repo, got.Token.Reveal())
	}
}

func TestWithoutAMainAddressThoseOfTheServicesArePrinted(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no browser
	s := newShell(t)
	s.control.OnCreate = func(e *dayfly.Environment) {
		e.Phase = dayfly.PhaseReady
		e.Services = []dayfly.EnvironmentService{{Name: "a", URL: "http://a"}, {Name: "b"}, {Name: "c", URL: "http://c"}}
	}
	if out := s.ok("create", "n"); out != "http://a\nhttp://c\n" {
		t.Errorf("it prints %q", out)
	}
	s.add("silent")
	s.control.Change("silent", func(e *dayfly.Environment) { e.URL = "" })
	if r := s.run("open", "silent"); r.code != 3 || !strings.Contains(r.err, "no public address") {
		t.Errorf("it ends with %d: %q", r.code, r.err)
	}
}

func TestOpenStartsTheBrowserWithTheAddressAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	said := filepath.Join(dir, "said")
	script := "#!/bin/sh\nprintf '%s|' \"$@\" > '" + said + "'\n"
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	s := newShell(t)
	s.add("a")
	if out := s.ok("open", "a"); out != "http://a.localhost\n" {
		t.Errorf("it prints %q", out)
	}
	if got, err := os.ReadFile(said); err != nil || string(got) != "http://a.localhost|" {
		t.Errorf("the browser got %q, %v", got, err)
	}
	if err := os.Remove(said); err != nil {
		t.Fatal(err)
	}
	s.control.Change("a", func(e *dayfly.Environment) { e.URL = "--new-window=file:///etc/passwd" })
	s.ok("open", "a")
	if _, err := os.ReadFile(said); err == nil {
		t.Error("the browser was started with something that is no address of the web")
	}
}

func TestExtendSaysWhenItEnds(t *testing.T) {
	s := newShell(t)
	s.add("a")
	if out := s.ok("extend", "a", "forever"); out != "a never expires\n" {
		t.Errorf("it prints %q", out)
	}
	out := s.ok("extend", "a", "3d")
	e, err := s.control.Environment(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if want := "a expires at " + e.ExpiresAt.Local().Format(time.DateTime) + "\n"; out != want {
		t.Errorf("it prints %q, want %q", out, want)
	}
	if d := *s.control.Patches()[1].ExtendBy; d != dayfly.Duration(72*time.Hour) {
		t.Errorf("it asked for %s", d)
	}
}

func TestDeleteTakesSeveralAndGoesOnAfterAnError(t *testing.T) {
	s := newShell(t)
	s.control.DeleteAtOnce = true
	s.add("a", "b", "c")
	r := s.run("delete", "a", "nobody", "c")
	if r.code != 3 || r.out != "" || !strings.Contains(r.err, `"nobody"`) {
		t.Errorf("it ends with %d: %q %q", r.code, r.out, r.err)
	}
	if names := s.control.Names(); !slices.Equal(names, []string{"b"}) {
		t.Errorf("there are %v", names)
	}
}

func TestDeleteWaitsUntilAllAreGone(t *testing.T) {
	s := newShell(t)
	s.add("a", "b")
	done := make(chan result, 1)
	go func() { done <- s.run("rm", "a", "b") }()
	for _, name := range []string{"a", "b"} {
		for {
			e, err := s.control.Environment(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if e.Phase == dayfly.PhaseDeleting {
				break
			}
			time.Sleep(time.Millisecond)
		}
		select {
		case r := <-done:
			t.Fatalf("it ended before %s was gone: %+v", name, r)
		default:
		}
		s.control.Remove(name)
	}
	if r := <-done; r.code != 0 || r.out != "" {
		t.Errorf("it ends with %+v", r)
	}
}

func TestDeleteNeedsForceWhereOthersBorrow(t *testing.T) {
	s := newShell(t)
	s.add("base", "borrower")
	s.control.Change("borrower", func(e *dayfly.Environment) { e.Base = "base" })
	if r := s.run("delete", "base", "--no-wait"); r.code != 7 || !strings.Contains(r.err, "--force") {
		t.Errorf("it ends with %d: %q", r.code, r.err)
	}
	if l := onlyJSON[struct{ Items []dayfly.Environment }](t, s.ok("delete", "base", "--force", "--no-wait", "-o", "json")); len(l.Items) != 1 || l.Items[0].Phase != dayfly.PhaseDeleting {
		t.Errorf("it prints %+v", l)
	}
}

// files writes files into a folder of the test and gives their paths.
func files(t *testing.T, contents ...string) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	for i, content := range contents {
		path := filepath.Join(dir, string(rune('a'+i))+".yaml")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

func TestApplyMakesWhatAllFilesSay(t *testing.T) {
	s := newShell(t)
	s.control.OnCreate = ready
	f := files(t, "name: one\nproject: shop\nbranch: x\n", "name: two\nproject: shop\n", "name: three\nproject: shop\n")
	if out := s.ok("apply", "-f", f[0], "--file", f[1], f[2]); out != "http://one.localhost:8080\nhttp://two.localhost:8080\nhttp://three.localhost:8080\n" {
		t.Errorf("it prints %q", out)
	}
	if names := s.control.Names(); !slices.Equal(names, []string{"one", "three", "two"}) {
		t.Errorf("there are %v", names)
	}
	if spec, err := s.control.Spec(t.Context(), "one"); err != nil || spec.Branch != "x" {
		t.Errorf("%+v, %v", spec, err)
	}
}

func TestApplyPrintsOneDocumentHoweverManyFilesThereAre(t *testing.T) {
	s := newShell(t)
	s.control.OnCreate = func(e *dayfly.Environment) {
		if ready(e); e.Name == "bad" {
			e.Phase, e.Message = dayfly.PhaseFailed, "web crashes"
		}
	}
	f := files(t, "name: one\nproject: shop\n", "name: bad\nproject: shop\n", "name: three\nproject: shop\n")
	names := func(l listOf[dayfly.Environment]) (names []string) {
		for _, e := range l.Items {
			names = append(names, e.Name)
		}
		return names
	}
	if e := onlyJSON[dayfly.Environment](t, s.ok("apply", f[0], "-o", "json")); e.Name != "one" || e.Phase != dayfly.PhaseReady {
		t.Errorf("one file: %+v", e)
	}
	if l := onlyJSON[listOf[dayfly.Environment]](t, s.ok("apply", f[0], f[2], "-o", "json")); !slices.Equal(names(l), []string{"one", "three"}) {
		t.Errorf("two files: %v", names(l))
	}
	if out := s.ok("apply", f[0], f[2], "-o", "yaml"); strings.Contains(out, "---") || strings.Count(out, "name: one\n")+strings.Count(out, "name: three\n") != 2 {
		t.Errorf("two files as YAML: %s", out)
	}
	// What was done before an error, and what failed, is told.
	r := s.run("apply", f[0], f[1], f[2], "-o", "json")
	if l := onlyJSON[listOf[dayfly.Environment]](t, r.out); r.code != 1 || !slices.Equal(names(l), []string{"one", "bad"}) || !strings.Contains(r.err, "web crashes") {
		t.Errorf("one of three fails: %d, %v, %s", r.code, names(l), r.err)
	}
	s.before = func(r *http.Request) {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "three") {
			s.control.Fail(dayfly.Errorf(dayfly.CodeForbidden, "no more"))
		}
	}
	r = s.run("apply", f[0], f[2], "-o", "json")
	if l := onlyJSON[listOf[dayfly.Environment]](t, r.out); r.code != 4 || !slices.Equal(names(l), []string{"one"}) || !strings.Contains(r.err, "no more") {
		t.Errorf("the second of two is refused: %d, %v, %s", r.code, names(l), r.err)
	}
}

type listOf[T any] struct{ Items []T }

func TestApplyUndoesNothingThatSomebodyElseDidMeanwhile(t *testing.T) {
	theirs := dayfly.EnvironmentSpec{Name: "a", Project: "shop", Branch: "theirs"}
	mine := dayfly.EnvironmentSpec{Name: "a", Project: "shop", Branch: "mine"}
	put := func(t *testing.T, s *shell, spec dayfly.EnvironmentSpec) {
		t.Helper()
		if _, _, err := s.control.PutEnvironment(t.Context(), "a", spec, "", 0); err != nil {
			t.Error(err)
		}
	}
	extend := func(t *testing.T, s *shell) {
		t.Helper()
		hour := dayfly.Duration(time.Hour)
		if _, err := s.control.PatchEnvironment(t.Context(), "a", dayfly.EnvironmentPatch{ExtendBy: &hour}, 0); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct {
		name      string
		meanwhile func(*testing.T, *shell, int) // before the n-th PUT
		code      int
		says      string
		branch    string // in the end
		puts      int
	}{
		{"nothing", func(*testing.T, *shell, int) {}, 0, "", "mine", 1},
		{"another content", func(t *testing.T, s *shell, _ int) { put(t, s, theirs) }, 7, "dayfly details a", "theirs", 2},
		{"the same content", func(t *testing.T, s *shell, _ int) { put(t, s, mine) }, 0, "", "mine", 1},
		{"the same content at the same moment", func(t *testing.T, s *shell, n int) {
			if n == 1 {
				put(t, s, theirs) // refused, as by a server on which the same is just being written
			} else {
				put(t, s, mine)
			}
		}, 0, "", "mine", 2},
		{"a longer life", func(t *testing.T, s *shell, n int) {
			if n == 1 {
				extend(t, s)
			}
		}, 0, "", "mine", 2},
		{"a longer life, then another content", func(t *testing.T, s *shell, n int) {
			if extend(t, s); n == 2 {
				put(t, s, theirs)
			}
		}, 7, "dayfly details a", "theirs", 3},
		{"a longer life all the time", func(t *testing.T, s *shell, _ int) { extend(t, s) }, 7, "meanwhile", "main", 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShell(t)
			s.add("a")
			puts := 0
			s.before = func(r *http.Request) {
				if r.Method == http.MethodPut {
					puts++
					c.meanwhile(t, s, puts)
				}
			}
			r := s.run("apply", files(t, "name: a\nproject: shop\nbranch: mine\n")[0])
			if r.code != c.code || !strings.Contains(r.err, c.says) || puts != c.puts {
				t.Errorf("it ends with %d after %d tries: %s", r.code, puts, r.err)
			}
			if spec, err := s.control.Spec(t.Context(), "a"); err != nil || spec.Branch != c.branch {
				t.Errorf("it is %+v, %v; want the branch %s", spec, err, c.branch)
			}
		})
	}
}

func TestApplyMakesAnewWhatIsBeingDeleted(t *testing.T) {
	s := newShell(t)
	s.control.OnCreate = ready
	s.add("a")
	s.control.Change("a", func(e *dayfly.Environment) { e.Phase = dayfly.PhaseDeleting })
	s.before = func(r *http.Request) {
		if r.Method == http.MethodPut {
			if match := r.Header.Get("If-Match"); match != "" {
				t.Errorf("it asks for the revision %s of one that will be gone", match)
			}
			s.control.Remove("a")
		}
	}
	if out := s.ok("apply", files(t, "name: a\nproject: shop\n")[0]); out != "http://a.localhost:8080\n" {
		t.Errorf("it prints %q", out)
	}
}

func TestApplyOfAProjectFileSaysWhatToDoWithIt(t *testing.T) {
	s := newShell(t)
	dir := t.TempDir()
	for name, content := range map[string]string{
		"compose.yaml": "services:\n  web:\n    ports: [\"80\"]\n", "Procfile": "web: serve\n", "named.yaml": "name: shop\nservices:\n  web: {}\n",
		"include.yaml": "name: shop\ninclude: [other.yaml]\n", "dayfly.yaml": "name: shop\nx-dayfly: {keep: 3d}\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		r := s.run("apply", file)
		if r.code != 2 || !strings.Contains(r.err, file+": is a project file") || !strings.Contains(r.err, "dayfly project add") || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%s ends with %d: %s", name, r.code, r.err)
		}
	}
	// An environment file with a mistake in its services stays one.
	if r := s.run("apply", files(t, "name: a\nproject: shop\nservices: {web: {}}\n")[0]); r.code != 2 || !strings.Contains(r.err, "services: has to be a list") {
		t.Errorf("it ends with %d: %s", r.code, r.err)
	}
	if calls := s.called(); len(calls) != 0 {
		t.Errorf("the server was asked for %v", calls)
	}
}

func TestApplyMakesAllEnvironmentsOfAList(t *testing.T) {
	s := newShell(t)
	s.control.OnCreate = ready
	f := files(t, "- {name: one, project: shop, header: H.1}\n- {name: two, project: shop, format: mayfly, services: [web]}\n")
	if out := s.ok("apply", "-f", f[0]); out != "http://one.localhost:8080\nhttp://two.localhost:8080\n" {
		t.Errorf("it prints %q", out)
	}
	if spec, err := s.control.Spec(t.Context(), "one"); err != nil || spec.Header != "H.1" {
		t.Errorf("%+v, %v", spec, err)
	}
	if spec, err := s.control.Spec(t.Context(), "two"); err != nil || spec.Prefix != "www-two" || spec.Base != "none" || len(spec.Services) != 1 || spec.Services[0].Version != "latest" {
		t.Errorf("%+v, %v", spec, err)
	}
}

func TestApplyChecksAllFilesBeforeAnyIsSent(t *testing.T) {
	s := newShell(t)
	f := files(t, "name: one\nproject: shop\n", "name: two\nproject: shop\nbrunch: x\n", "name: THREE\nproject: shop\n", strings.Repeat("#", 1<<20+1))
	missing := filepath.Join(t.TempDir(), "nowhere.yaml")
	r := s.run("apply", "-f", f[0], "-f", f[1], "-f", f[2], "-f", f[3], "-f", missing)
	if r.code != 2 || r.out != "" {
		t.Errorf("it ends with %d and prints %q", r.code, r.out)
	}
	for _, text := range []string{f[1] + ":3:", "brunch", f[2] + ":1:", f[3] + ": is larger than 1 MiB", missing + ": "} {
		if !strings.Contains(r.err, text) {
			t.Errorf("it does not say %q: %s", text, r.err)
		}
	}
	if strings.Contains(r.err, f[0]) {
		t.Errorf("it finds something wrong with the good one: %s", r.err)
	}
	if calls := s.called(); len(calls) != 0 {
		t.Errorf("the server was asked for %v", calls)
	}
}

func TestCheckFindsAllMistakesWithoutAServer(t *testing.T) {
	s := newShell(t)
	s.vars["DAYFLY_SERVER"] = "nowhere"
	f := files(t, "name: one\nproject: shop\n", "name: two\nproject: shop\nbrunch: x\nbronch: y\n")
	if out := s.ok("check", f[0]); out != "nothing is wrong\n" {
		t.Errorf("it prints %q", out)
	}
	missing := filepath.Join(t.TempDir(), "nowhere.yaml")
	r := s.run("check", f[0], f[1], missing)
	if r.code != 2 || r.out != "" {
		t.Errorf("it ends with %d and prints %q", r.code, r.out)
	}
	for _, text := range []string{f[1] + ":3:", f[1] + ":4:", missing} {
		if strings.Count(r.err, text) != 1 {
			t.Errorf("it does not say %q once: %s", text, r.err)
		}
	}
	r = s.run("check", f[1], "-o", "json")
	if l := onlyJSON[struct{ Problems []dayfly.Problem }](t, r.out); r.code != 2 || r.err != "" || len(l.Problems) != 2 || l.Problems[0].Line != 3 || l.Problems[0].File != f[1] {
		t.Errorf("as JSON it ends with %d: %s %s", r.code, r.out, r.err)
	}
}
