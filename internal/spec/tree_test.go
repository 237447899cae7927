package spec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFilesOfTheTreeAreFollowed(t *testing.T) {
	p := mustLoad(t, `
-- compose.yaml --
include:
  - parts/db/compose.yaml
  - path: [parts/queue.yaml, parts/queue.more.yaml]
    project_directory: .
services:
  web:
    extends: {file: parts/base.yaml, service: base}
    env_file: [web.env, parts/more.env, {path: missing.env, required: false}]
    environment: {C: own, G: "${FROM_DOTENV}"}
    label_file: web.labels
configs: {c: {file: parts/c.txt}}
secrets: {s: {file: parts/never-read}}
-- compose.override.yaml --
services:
  web: {environment: {D: override}, env_file: [link.env]}
-- .env --
FROM_DOTENV=dotenv
-- web.env --
A=web
B=web
C=web
E=$DAYFLY_ENV
-- parts/more.env --
B=more
F=${C}
-- link.env@ --
parts/linked.env
-- parts/linked.env --
LINKED=yes
-- web.labels --
a=b
-- parts/base.yaml --
services:
  base: {extends: {file: deeper/base.yaml, service: base}, image: base, env_file: base.env}
-- parts/base.env --
BASE=base
B=base
-- parts/deeper/base.yaml --
services:
  base: {ports: ["80"], env_file: base.env}
-- parts/deeper/base.env --
DEEPER=deeper
-- parts/db/compose.yaml --
include: [more/compose.yaml]
services:
  db: {image: db, env_file: db.env}
-- parts/db/db.env --
DB=db
-- parts/db/more/compose.yaml --
services:
  cache: {image: cache, env_file: cache.env, build: src}
-- parts/db/more/cache.env --
CACHE=cache
-- parts/queue.yaml --
services:
  queue: {image: queue, env_file: web.env}
-- parts/queue.more.yaml --
services:
  queue: {environment: {C: "2"}}
-- parts/c.txt --
c
`[1:])
	if got := strings.Join(p.Services(), " "); got != "cache db queue web" {
		t.Fatalf("services: %s", got)
	}
	for service, want := range map[string]map[string]string{
		"web": {
			"A": "web", "B": "more", "C": "own", "D": "override", "E": "temp-1", "F": "own", "G": "dotenv",
			"LINKED": "yes", "BASE": "base", "DEEPER": "deeper",
		},
		"db":    {"DB": "db"},
		"cache": {"CACHE": "cache"},
		"queue": {"A": "web", "B": "web", "C": "2", "E": "temp-1"},
	} {
		got := definition(t, p, service, map[string]string{"DAYFLY_ENV": "temp-1"}).Variables
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s: %s is %q, want %q", service, name, got[name], value)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %v, want %v", service, got, want)
		}
	}
	if got := definition(t, p, "cache", nil).ImageBuild.Context; got != "parts/db/more/src" {
		t.Errorf("the build context of an included file is %q", got)
	}
}

// outside gives the files of a project that takes something from elsewhere, and the
// places at which that is refused. SECRET stands for a file outside of the tree.
var outside = []struct{ name, file, want string }{
	{"include", `
-- compose.yaml --
include: [../x.yaml, SECRET, {path: [a/../../x.yaml, "~/x.yaml"]}, "https://example.org/c.yaml", "git@example.org:c", "oci://x"]
services: {a: {image: x}}
`, `
compose.yaml:1:11: include[0]: "../x.yaml" lies outside of the repository
compose.yaml:1:22: include[1]: "SECRET" lies outside of the repository
compose.yaml:1:30: include[2]: "a/../../x.yaml" lies outside of the repository
compose.yaml:1:30: include[2]: "~/x.yaml" lies outside of the repository
compose.yaml:1:68: include[3]: "https://example.org/c.yaml" is not in this repository
compose.yaml:1:98: include[4]: "git@example.org:c" is not in this repository
compose.yaml:1:119: include[5]: "oci://x" is not in this repository`},
	{"include through a link", "-- compose.yaml --\ninclude: [in.yaml, folder/x.yaml]\n-- in.yaml@ --\nSECRET\n-- folder@ --\n..\n", `
compose.yaml:1:11: include[0]: "in.yaml" cannot be read: path escapes from parent
compose.yaml:1:20: include[1]: "folder/x.yaml" cannot be read: path escapes from parent`},
	{"variables of an include", "-- compose.yaml --\ninclude: [{path: a.yaml, env_file: SECRET}, {path: a.yaml, project_directory: ..}, b/b.yaml]\n-- a.yaml --\nservices: {a: {image: x}}\n-- b/b.yaml --\nservices: {b: {image: x}}\n-- b/.env@ --\nSECRET\n", `
compose.yaml:1:26: include[0].env_file: "SECRET" lies outside of the repository
compose.yaml:1:60: include[1].project_directory: ".." lies outside of the repository
compose.yaml:1:84: include[2]: ".env" cannot be read: path escapes from parent`},
	{"include of an include", "-- compose.yaml --\ninclude: [a/a.yaml]\n-- a/a.yaml --\ninclude: [../b.yaml, ../../c.yaml, {path: d.yaml, env_file: e}, {path: d.yaml, project_directory: .}]\n-- b.yaml --\nservices: {b: {image: x}}\n", `
a/a.yaml:1:22: include[1]: "../../c.yaml" lies outside of the repository
a/a.yaml:1:36: include[2]: project_directory and env_file are possible in the project file only
a/a.yaml:1:66: include[3]: project_directory and env_file are possible in the project file only`},
	{"extends", `
-- compose.yaml --
services:
  a: {extends: {file: ../x.yaml, service: x}}
  b: {extends: {file: SECRET, service: x}}
  c: {extends: {file: link.yaml, service: x}}
  d: {extends: {file: sub/d.yaml, service: d}}
jobs:
  e: {image: x, extends: {file: SECRET, service: x}}
-- link.yaml@ --
SECRET
-- sub/d.yaml --
services:
  d: {extends: {file: ../../x.yaml, service: x}}
`, `
compose.yaml:2:17: services.a.extends.file: "../x.yaml" lies outside of the repository
compose.yaml:3:17: services.b.extends.file: "SECRET" lies outside of the repository
compose.yaml:4:17: services.c.extends.file: "link.yaml" cannot be read: path escapes from parent
compose.yaml:7:3: jobs.e.triggers: is missing
compose.yaml:7:27: jobs.e.extends.file: "SECRET" lies outside of the repository
sub/d.yaml:2:17: services.d.extends.file: "../../x.yaml" lies outside of the repository`},
	{"what merge keys and aliases bring", "-- compose.yaml --\nx-a: &a {env_file: SECRET, extends: &e {file: SECRET, service: x}}\nservices: {a: {<<: *a, image: x}, b: {extends: *e, image: x}}\n", `
compose.yaml:1:10: services.a.env_file: "SECRET" lies outside of the repository
compose.yaml:1:28: services.a.extends.file: "SECRET" lies outside of the repository
compose.yaml:1:41: services.b.extends.file: "SECRET" lies outside of the repository`},
	{"variables and labels", `
-- compose.yaml --
services:
  a: {image: x, env_file: SECRET, label_file: [SECRET]}
  b: {image: x, env_file: [../b.env, {path: link.env}, {path: SECRET, required: false}]}
-- link.env@ --
SECRET
`, `
compose.yaml:2:17: services.a.env_file: "SECRET" lies outside of the repository
compose.yaml:2:48: services.a.label_file[0]: "SECRET" lies outside of the repository
compose.yaml:3:28: services.b.env_file[0]: "../b.env" lies outside of the repository
compose.yaml:3:38: services.b.env_file[1]: "link.env" cannot be read: path escapes from parent
compose.yaml:3:56: services.b.env_file[2]: "SECRET" lies outside of the repository`},
	{"paths that variables make", `
-- compose.yaml --
services:
  a: {image: x, env_file: ["${UP}/b.env", "${FILE}", "${LINK:-link.env}"]}
-- .env --
UP=..
FILE=SECRET
-- link.env@ --
SECRET
`, `
compose.yaml:2:28: services.a.env_file[0]: "../b.env" lies outside of the repository
compose.yaml:2:43: services.a.env_file[1]: "SECRET" lies outside of the repository
compose.yaml:2:54: services.a.env_file[2]: "link.env" cannot be read: path escapes from parent`},
	{"configs and secrets", `
-- compose.yaml --
services: {a: {image: x}}
configs: {c: {file: SECRET}, d: {file: link.txt}}
secrets: {s: {file: ../s}}
-- link.txt@ --
SECRET
`, `
compose.yaml:2:15: configs.c.file: "SECRET" lies outside of the repository
compose.yaml:2:34: configs.d.file: "link.txt" cannot be read: path escapes from parent
compose.yaml:3:15: secrets.s.file: "../s" lies outside of the repository`},
	{"the project file itself", "-- compose.yaml@ --\nSECRET\n", `compose.yaml: cannot be read: path escapes from parent`},
	{"the override", "-- compose.yaml --\nservices: {a: {image: x}}\n-- compose.override.yaml@ --\nSECRET\n", `compose.override.yaml: cannot be read: path escapes from parent`},
	{"what the override takes", "-- compose.yaml --\nservices: {a: {image: x}}\n-- compose.override.yaml --\ninclude: [SECRET]\n", `compose.override.yaml:1:11: include[0]: "SECRET" lies outside of the repository`},
	{".env", "-- compose.yaml --\nservices: {a: {image: x}}\n-- .env@ --\nSECRET\n", `.env: cannot be read: path escapes from parent`},
	{"a Procfile", "-- Procfile@ --\nSECRET\n", `Procfile: cannot be read: path escapes from parent`},
	{"a folder", "-- compose.yaml/x --\n", `compose.yaml: cannot be read: it is no file`},
}

func TestNothingIsTakenFromOutsideOfTheTree(t *testing.T) {
	for _, c := range outside {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			secret := filepath.Join(top, "secret.yaml")
			if err := os.WriteFile(secret, []byte("services:\n  x: {image: TOP-SECRET}\nA: TOP-SECRET\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := load(t, strings.ReplaceAll(strings.TrimPrefix(c.file, "\n"), "SECRET", secret))
			got := strings.ReplaceAll(problem(t, err), secret, "SECRET")
			// The columns behind the path of the secret depend on its length.
			if want := strings.TrimPrefix(c.want, "\n"); withoutColumns(got) != withoutColumns(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if strings.Contains(got, "TOP-SECRET") {
				t.Errorf("the message tells what is in the file: %s", got)
			}
		})
	}
}

func withoutColumns(problems string) string {
	var lines []string
	for line := range strings.SplitSeq(problems, "\n") {
		parts := strings.SplitN(line, ":", 4)
		if len(parts) == 4 {
			parts[2] = ""
		}
		lines = append(lines, strings.Join(parts, ":"))
	}
	return strings.Join(lines, "\n")
}

func TestFilesThatIncludeEachOtherAreAnErrorAndNoEndlessLoop(t *testing.T) {
	_, err := load(t, "-- compose.yaml --\ninclude: [a.yaml]\n-- a.yaml --\ninclude: [compose.yaml]\nservices: {a: {image: x}}\n")
	if got := problem(t, err); !strings.Contains(got, "include cycle detected") || strings.Contains(got, os.TempDir()) {
		t.Error(got)
	}
}
