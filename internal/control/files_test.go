package control_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/control"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

func file(origin string, specs ...dayfly.EnvironmentSpec) control.EnvironmentFile {
	return control.EnvironmentFile{Origin: origin, Specs: specs}
}

func brokenFile(origin string) control.EnvironmentFile {
	return control.EnvironmentFile{Origin: origin, Err: errors.New(origin + ":1:1: is broken")}
}

func of(name, branch string) dayfly.EnvironmentSpec {
	return dayfly.EnvironmentSpec{Name: name, Project: "shop", Branch: branch}
}

func (w *world) sync(source string, files ...control.EnvironmentFile) control.FilesOutcome {
	w.Helper()
	out, err := w.SyncFiles(context.Background(), source, files)
	if err != nil {
		w.Fatal(err)
	}
	return out
}

// settled follows the same files until they change nothing any more, and checks that this is soon.
func (w *world) settled(source string, files ...control.EnvironmentFile) (out control.FilesOutcome) {
	w.Helper()
	for range 5 {
		before := w.cache.Revision()
		out = w.sync(source, files...)
		w.letGo()
		if w.cache.Revision() == before {
			return out
		}
	}
	w.Fatalf("the files are never followed: %v, %+v", w.names(), out)
	return out
}

func TestFilesThatWaitChangeNothingWhileTheyDo(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []control.EnvironmentFile
		there string // a placeholder's name, or its beginning
	}{
		{"a name that a command has", []control.EnvironmentFile{file("f.yaml", of("shop-main", "main"), of("other", "x"))}, "shop-main-"},
		{"a file that cannot be read", []control.EnvironmentFile{brokenFile("dir/e.yaml")}, "e"},
		{"two of them called alike", []control.EnvironmentFile{brokenFile("e.yaml"), brokenFile("e.yml")}, "e"},
		{"one called like another's environment", []control.EnvironmentFile{file("a.yaml", of("e", "x")), brokenFile("e.yaml")}, "e-"},
		{"one called like a command's environment", []control.EnvironmentFile{brokenFile("shop-main.yaml")}, "shop-main-"},
		{"one whose name is no name", []control.EnvironmentFile{brokenFile("---.yaml")}, ""},
		{"an unknown project", []control.EnvironmentFile{file("f.yaml", dayfly.EnvironmentSpec{Name: "e", Project: "unknown"})}, "e"},
		{"a branch that is not there", []control.EnvironmentFile{file("f.yaml", of("e", "missing"))}, "e"},
		{"two files with one name", []control.EnvironmentFile{file("a.yaml", of("e", "x")), file("b.yaml", of("e", "y"))}, "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t).shop()
			w.git.missing["missing"] = true
			w.create("main")
			out := w.settled("folder", c.files...)
			if len(out.Problems) == 0 || len(out.Expired) != 0 || out.Again == 0 {
				t.Errorf("came out as %+v", out)
			}
			found := false
			for _, name := range w.names() {
				env, err := w.Environment(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				if len(env.Services) > 0 {
					continue
				}
				found = found || strings.HasPrefix(name, c.there)
				if env.Phase != dayfly.PhaseFailed || env.Message == "" || w.reasons(env.ID)["file"] != 1 {
					t.Errorf("%s is %s: %q, with %v", name, env.Phase, env.Message, w.reasons(env.ID))
				}
			}
			if !found {
				t.Errorf("nothing called %s says it: %q", c.there, w.names())
			}
			w.settled("folder")
			w.are("shop-main")
		})
	}
}

func TestAFileThatWaitedIsAnEnvironmentWhenItCan(t *testing.T) {
	w := start(t).shop()
	main := w.create("main")
	f := file("f.yaml", of("shop-main", "main"), dayfly.EnvironmentSpec{Name: "late", Project: "late", Branch: "x"})
	w.settled("folder", f)
	waiting := w.Surroundings("folder", true)
	if _, err := w.DeleteEnvironment(t.Context(), main.Name, dayfly.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.letGo()
	if _, _, err := w.CreateProject(t.Context(), dayfly.ProjectRequest{Name: "late", Repo: "https://git.example/late"}); err != nil {
		t.Fatal(err)
	}
	if w.Surroundings("folder", true) == waiting {
		t.Error("nobody looks again")
	}
	if out := w.settled("folder", f); len(out.Problems) != 0 {
		t.Errorf("the problems are %v", out.Problems)
	}
	w.are("late", "shop-main")
	for _, name := range w.names() {
		if env, err := w.Environment(t.Context(), name); err != nil || len(env.Services) == 0 || env.Origin != "f.yaml" {
			t.Errorf("%s is %+v, %v", name, env, err)
		}
	}
}

func TestAFileThatBreaksLeavesWhatRunsOfIt(t *testing.T) {
	w := start(t).shop()
	w.settled("folder", file("f.yaml", of("e", "x"), of("g", "y")))
	w.settled("folder", brokenFile("f.yaml"))
	w.are("e", "g")
	for _, name := range w.names() {
		if rec := w.record(name).Value; !strings.Contains(rec.Problem, "f.yaml:1:1") || w.reasons(rec.ID)["file"] != 1 {
			t.Errorf("%s says %q", name, rec.Problem)
		}
	}
	w.settled("folder", file("f.yaml", of("e", "x"), of("g", "y")))
	if rec := w.record("e").Value; rec.Problem != "" {
		t.Errorf("it still says %q", rec.Problem)
	}
}

func TestWhatTwoFilesAskForIsNeverPutIntoTheArchive(t *testing.T) {
	w := start(t).shop()
	files := []control.EnvironmentFile{file("a.yaml", of("e", "x")), file("b.yaml", of("e", "y")), file("c.yaml")}
	if out := w.settled("folder", files...); len(out.Expired) != 0 {
		t.Errorf("%q have expired", out.Expired)
	}
	if b := w.record("e").Value.Spec.Branch; b != "x" {
		t.Errorf("it is of %s", b)
	}
	w.settled("folder", files[1])
	w.are("e")
	if b := w.record("e").Value.Spec.Branch; b != "y" {
		t.Errorf("it is of %s", b)
	}
}

func TestWhatHasExpiredComesBackWhenItsFileSaysSomethingElse(t *testing.T) {
	for name, end := range map[string]func(*world){
		"its time is over": func(w *world) {
			w.clock.forward(40 * day)
			if ended, err := w.Expire(w.Context()); err != nil || len(ended) != 1 {
				w.Fatalf("ended %q, %v", ended, err)
			}
		},
		"delete --force": func(w *world) {
			if _, err := w.DeleteEnvironment(w.Context(), "e", dayfly.DeleteOptions{}); err == nil {
				w.Error("it is deleted without --force")
			}
			if _, err := w.DeleteEnvironment(w.Context(), "e", dayfly.DeleteOptions{Force: true}); err != nil {
				w.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t).shop()
			w.settled("folder", file("f.yaml", of("e", "x")))
			end(w)
			w.letGo()
			for range 2 {
				if out := w.settled("folder", file("f.yaml", of("e", "x"))); !slices.Equal(out.Expired, []string{"f.yaml"}) {
					t.Errorf("came out as %+v", out)
				}
				w.are()
				w.settled("folder", brokenFile("f.yaml"))
				w.settled("folder", file("f.yaml", of("e", "x")))
				w.Control = w.again()
			}
			w.settled("folder", file("f.yaml", of("e", "y")))
			w.are("e")
		})
	}
}

func TestAHostMovesFromOneFileToAnotherInOneChange(t *testing.T) {
	for _, names := range [][2]string{{"a", "b"}, {"b", "a"}} {
		w := start(t).shop()
		w.git.hosts["has"], w.git.hosts["not"] = []string{"demo.example"}, []string{}
		w.settled("folder", file("f.yaml", of(names[0], "has")), file("g.yaml", of(names[1], "not")))
		out := w.settled("folder", file("f.yaml", of(names[0], "not")), file("g.yaml", of(names[1], "has")))
		if claim, ok := registry.Lookup(w.cache, registry.Hosts, "demo.example"); len(out.Problems) != 0 || !ok || claim.Value.Name != names[1] {
			t.Errorf("the host is of %q, problems %v", claim.Value.Name, out.Problems)
		}
	}
}

func TestAThousandFilesAreFollowedInOneGo(t *testing.T) {
	w := start(t).shop()
	var files []control.EnvironmentFile
	for i := range 1000 {
		files = append(files, file(fmt.Sprintf("f%03d.yaml", i), of(fmt.Sprintf("e%03d", i), "x")))
	}
	w.sync("folder", files...)
	before := w.cache.Revision()
	w.sync("folder", files...)
	if n := len(w.names()); n != 1000 || w.cache.Revision() != before {
		t.Errorf("there are %d, and the second time wrote %d revisions", n, w.cache.Revision()-before)
	}
}

func TestFilesOfARepositoryAreThoseOnItsDefaultBranch(t *testing.T) {
	w := start(t)
	w.git.files = nil
	w.push("main", "m1")
	text := func(s string) { // at the next commit
		w.git.change(func() { w.git.files = filesAt("m2", "environments/e.yaml", s) })
	}
	text("name: e\nbranch: main\n")
	w.push("main", "m2")
	w.are("e", "shop-main")
	w.git.change(func() { w.git.files["m3"] = filesAt("m3", "environments/e.yaml", "name: [\n")["m3"] })
	if said := w.push("main", "m3"); !slices.ContainsFunc(said, func(line string) bool {
		return strings.HasPrefix(line, "warning: ") && strings.Contains(line, "environments/e.yaml:")
	}) {
		t.Errorf("said %q", said)
	}
	w.are("e", "shop-main")
	w.git.change(func() {
		w.git.files["m4"] = filesAt("m4", "environments/e.yaml", "name: e\nproject: other\nbranch: main\n")["m4"]
	})
	w.push("main", "m4")
	if problem := w.record("e").Value.Problem; !strings.Contains(problem, "in the repository of shop") {
		t.Errorf("the problem is %q", problem)
	}
	w.push("main", "m5")
	w.letGo()
	w.are("shop-main")
}

// modelFile is what a test says of one file: environments and their branches, or nil where it is broken.
type modelFile map[string]string

func TestWhateverHappensJustTheEnvironmentsOfFilesAreThere(t *testing.T) {
	w := start(t).shop()
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		source := fmt.Sprintf("folder:%d", round)
		prefix := fmt.Sprintf("r%d-", round)
		files := map[string]modelFile{}
		type runs struct {
			origin, branch string
			frozen         bool
		}
		there := map[string]*runs{}
		over := map[string]map[string]string{} // branch and file at which a name has had its time
		names := rapid.SampledFrom([]string{prefix + "x", prefix + "y", prefix + "z"})
		origins := rapid.SampledFrom([]string{prefix + "1.yaml", prefix + "2.yaml", prefix + "3.yaml"})
		end := func(name string) {
			e := there[name]
			over[name] = map[string]string{"branch": e.branch, "origin": e.origin}
			delete(there, name)
		}
		var log []string
		ops := map[string]func(){
			"write": func() {
				f := modelFile{}
				for range rapid.IntRange(0, 3).Draw(t, "environments") {
					f[names.Draw(t, "name")] = rapid.SampledFrom([]string{"b1", "b2"}).Draw(t, "branch")
				}
				files[origins.Draw(t, "file")] = f
			},
			"break":  func() { files[origins.Draw(t, "file")] = nil },
			"remove": func() { delete(files, origins.Draw(t, "file")) },
			"rename": func() {
				from, to := origins.Draw(t, "from"), origins.Draw(t, "to")
				if f, ok := files[from]; ok {
					delete(files, from)
					files[to] = f
				}
			},
			"freeze": func() {
				name := names.Draw(t, "name")
				if e := there[name]; e != nil {
					e.frozen = !e.frozen
					if _, err := w.PatchEnvironment(context.Background(), name, dayfly.EnvironmentPatch{Frozen: &e.frozen}, 0); err != nil {
						t.Fatal(err)
					}
				}
			},
			"delete": func() {
				name := names.Draw(t, "name")
				if there[name] != nil {
					end(name)
					if _, err := w.DeleteEnvironment(context.Background(), name, dayfly.DeleteOptions{Force: true}); err != nil {
						t.Fatal(err)
					}
				}
			},
			"restart": func() { w.Control = w.again() },
		}
		kinds := slices.Sorted(maps.Keys(ops))
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			op := rapid.SampledFrom(kinds).Draw(t, "op")
			ops[op]()
			w.letGo()
			var given []control.EnvironmentFile
			wanted, broken := map[string]runs{}, map[string]bool{}
			for _, origin := range slices.Sorted(maps.Keys(files)) {
				f := files[origin]
				if f == nil {
					broken[origin] = true
					given = append(given, brokenFile(origin))
					continue
				}
				var specs []dayfly.EnvironmentSpec
				for _, name := range slices.Sorted(maps.Keys(f)) {
					specs = append(specs, of(name, f[name]))
					if _, taken := wanted[name]; taken {
						broken[origin] = true
					} else {
						wanted[name] = runs{origin: origin, branch: f[name]}
					}
				}
				given = append(given, file(origin, specs...))
			}
			log = append(log, fmt.Sprint(op, files))
			for name, was := range over {
				switch now, asked := wanted[name]; {
				case asked && now.branch == was["branch"]:
					delete(wanted, name)
				case !broken[was["origin"]]:
					delete(over, name)
				}
			}
			for name, e := range there {
				if _, asked := wanted[name]; !asked && !broken[e.origin] {
					delete(there, name)
				}
			}
			for name, e := range wanted {
				if was := there[name]; was == nil {
					there[name] = &e
				} else if !was.frozen {
					*was = e
				}
			}
			for range 2 {
				if _, err := w.SyncFiles(context.Background(), source, given); err != nil {
					t.Fatal(err)
				}
				w.letGo()
			}
			want, got := map[string]string{}, map[string]string{}
			for name, e := range there {
				want[name] = e.branch
			}
			for r := range registry.EnvironmentsFrom(w.cache, source) {
				if _, ok := registry.Lookup(w.cache, registry.Resolutions, r.Key); ok {
					got[r.Key] = r.Value.Spec.Branch
				}
			}
			if !maps.Equal(got, want) {
				t.Fatalf("%s\nthe environments are %v, want %v", strings.Join(log, "\n"), got, want)
			}
		}
	})
}
