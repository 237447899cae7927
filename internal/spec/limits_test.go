package spec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

// hostile are files that would take all memory or time if they were followed.
func hostile() map[string]string {
	laughs := func(top string, of string, levels, width int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "x-0: &a0 %s\n", of)
		for i := 1; i <= levels; i++ {
			fmt.Fprintf(&b, "x-%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), width), ","))
		}
		return b.String() + top
	}
	merges := "x-0: &a0 {a: b}\n"
	for i := 1; i <= 30; i++ {
		merges += fmt.Sprintf("x-%d: &a%d {<<: [%s*a%d]}\n", i, i, strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), i-1)
	}
	const service = "services: {a: {image: x}}\n"
	return map[string]string{
		"a billion laughs":          laughs(service, "lol", 12, 10),
		"a long text, often":        laughs(service, strings.Repeat("x", 100_000), 3, 20),
		"laughs in a service":       laughs("services: {a: {image: x, environment: {A: *a12}}}\n", "lol", 12, 10),
		"merge keys":                merges + service,
		"an alias of itself":        "x-a: &a [*a]\n" + service,
		"aliases in a circle":       "x-a: &a {b: &b [*a]}\nx-c: *b\n" + service,
		"a deep list":               "x-a: " + strings.Repeat("[", 50_000) + strings.Repeat("]", 50_000) + "\n" + service,
		"a deep mapping":            "x-a: " + strings.Repeat("{a: ", 5_000) + "b" + strings.Repeat("}", 5_000) + "\n" + service,
		"deep indentation":          deep(900) + service,
		"more than a mebibyte":      "# " + strings.Repeat("x", maxSize) + "\n" + service,
		"many values":               "x-a: [" + strings.Repeat("a,", 260_000) + "a]\n" + service,
		"many services":             "services:\n" + many(maxServices+1, "  a%d: {image: x}\n"),
		"many unknown keys":         many(5_000, "k%d: v\n") + service,
		"many keys that are none":   many(5_000, "? [%d]\n: v\n") + service,
		"ports":                     "services: {a: {image: x, ports: [" + many(60_000, "'1-65535:%d-65535',") + "]}}\n",
		"ports in a variable":       "services: {a: {image: x, ports: ['${A:-1-65535}:1-65535']}}\n",
		"nested variables":          "services: {a: {image: x, environment: {A: '" + strings.Repeat("${A:-", 20_000) + strings.Repeat("}", 20_000) + "'}}}\n",
		"variables that double":     "-- .env --\nA0=xxxxxxxxxx\n" + doubled(60) + "-- compose.yaml --\n" + service,
		"variables of an include":   "-- x/.env --\nA0=xxxxxxxxxx\n" + doubled(60) + "-- compose.yaml --\ninclude: [x/c.yaml]\n-- x/c.yaml --\n" + service,
		"variables of a service":    "-- x.env --\nA0=xxxxxxxxxx\n" + doubled(60) + "-- compose.yaml --\nservices: {a: {image: x, env_file: x.env}}\n",
		"large variables, often":    "-- .env --\nA=" + strings.Repeat("x", 900_000) + "\n-- compose.yaml --\nservices: {a: {image: x, command: [" + strings.Repeat("'${A}',", 500) + "]}}\n",
		"nested variables of .env":  "-- .env --\nA=" + strings.Repeat("${A:-", 100_000) + "\n-- compose.yaml --\n" + service,
		"a variable without an end": "services: {a: {image: '" + strings.Repeat("${A:-", 20_000) + "'}}\n",
	}
}

// doubled gives variables each of which is twice the one before.
func doubled(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "A%d=$A%d$A%d\n", i+1, i, i)
	}
	return b.String()
}

func deep(levels int) string {
	var b strings.Builder
	for i := range levels {
		fmt.Fprintf(&b, "%s- \n", strings.Repeat(" ", i))
	}
	return "x-a:\n" + b.String()
}

func many(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// A time limit would say more about the machine than about the code: what is followed
// takes hours, or all memory, and ends the test.
func TestHostileFilesAreRefusedAndNotFollowed(t *testing.T) {
	for name, file := range hostile() {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, file)
			got := problem(t, err)
			if got == "" {
				t.Fatal("it is taken")
			}
			if len(got) > 200_000 || strings.Count(got, "\n") > maxProblems {
				t.Errorf("%d bytes of message in %d lines", len(got), strings.Count(got, "\n"))
			}
			if _, err := ParseEnvironmentFiles("e.yaml", []byte(file), EnvironmentOptions{}); problem(t, err) == "" {
				t.Error("it is taken as an environment file")
			}
		})
	}
}

func TestAFileOverTheLimitIsNotReadAtAll(t *testing.T) {
	for _, name := range []string{"compose.yaml", "Procfile", "compose.override.yaml", ".env", "more.yaml", "a.env"} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, "-- compose.yaml --\ninclude: [more.yaml]\nservices: {a: {image: x, env_file: a.env}}\n-- more.yaml --\nservices: {b: {image: x}}\n-- a.env --\nA=1\n")
			if name == "Procfile" {
				if err := os.Remove(filepath.Join(dir, "compose.yaml")); err != nil {
					t.Fatal(err)
				}
			}
			huge := filepath.Join(dir, name)
			f, err := os.Create(huge)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Truncate(50 << 20); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			_, err = LoadDir(dir, Options{})
			if got := problem(t, err); !strings.Contains(got, "it is larger than 1 MiB") || !strings.Contains(got, name) {
				t.Error(got)
			}
			if err := Check(huge); !strings.Contains(problem(t, err), "larger than 1 MiB") {
				t.Error(err)
			}
		})
	}
}

func TestAFileUpToTheLimitIsRead(t *testing.T) {
	const file = "services: {a: {image: x}}\n"
	pad := "#" + strings.Repeat("x", maxSize-len(file)-2) + "\n"
	if p := mustLoad(t, "-- compose.yaml --\n"+pad+file); len(p.Services()) != 1 {
		t.Error(p.Services())
	}
	_, err := load(t, "-- compose.yaml --\n"+pad+"#\n"+file)
	if got := problem(t, err); got != "compose.yaml: cannot be read: it is larger than 1 MiB" {
		t.Error(got)
	}
}

func TestAProjectCannotHaveEndlesslyManyFiles(t *testing.T) {
	archive := "-- compose.yaml --\nservices: {a: {image: x}}\ninclude:\n" + many(maxFiles+1, "  - f%d.yaml\n")
	for i := range maxFiles + 1 {
		archive += fmt.Sprintf("-- f%d.yaml --\nservices: {}\n", i)
	}
	_, err := load(t, archive)
	if got := problem(t, err); !strings.Contains(got, "the project has more than 100 files") {
		t.Error(got)
	}
}

func TestManyProblemsAreCutToWhatPeopleRead(t *testing.T) {
	_, err := load(t, many(150, "k%d: v\n")+"services: {a: {image: x}}\n")
	lines := strings.Split(problem(t, err), "\n")
	if len(lines) != maxProblems+1 || lines[maxProblems] != "compose.yaml: there are more problems, which are not shown" {
		t.Errorf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
}

func TestCheckTellsTheKindsOfFilesApart(t *testing.T) {
	dir := folder(t, `
-- compose.yaml --
services: {a: {image: x}}
-- other.yaml --
services: {a: {imag: x}}
-- sub/compose.yaml --
include: [x.yaml, ../compose.yaml]
-- sub/x.yaml --
servces: {}
-- Procfile --
web: a | b
-- env.yaml --
name: a
services: [{nam: b}]
-- bare.yaml --
name: a
-- mapping.yaml --
name: a
base: none
services: {b: {version: c}}
-- only.yaml --
name: a
kep: 5d
-- included.yaml --
name: a
include: [compose.yaml]
-- empty.yaml --
-- list.yaml --
- {name: a}
- {name: b, format: mayfly, services: [c]}
- {name: a}
-- mayfly.yaml --
name: a
format: mayfly
services: {b: {}}
-- header.yaml --
name: a
header: "*"
services: {}
`[1:])
	t.Chdir(dir)
	for file, want := range map[string]string{
		"compose.yaml": "",
		"bare.yaml":    "",
		"other.yaml": `other.yaml:1:12: services.a: has nothing to run: add x-dayfly.process, build or image
other.yaml:1:16: services.a.imag: is no known key; did you mean image?`,
		"sub/compose.yaml": `sub/compose.yaml:1:19: include[1]: "../compose.yaml" lies outside of the repository
sub/x.yaml:1:1: servces: is no known key; did you mean services?`,
		"Procfile": `Procfile:1:1: web: an unquoted | needs a shell, and none is run: write ["sh", "-c", "a | b"] if you want one`,
		"env.yaml": `env.yaml:2:12: services[0].name: is missing
env.yaml:2:13: services[0].nam: is no known key; did you mean name?`,
		"mapping.yaml": `mapping.yaml:3:11: services: has to be a list`,
		"list.yaml":    `list.yaml:3:10: [2].name: a is there twice: [0] has that name in line 1, column 10`,
		"mayfly.yaml":  `mayfly.yaml:3:11: services: has to be a list`,
		"header.yaml": `header.yaml:2:9: header: "*" has to be 1 to 63 characters of letters, digits, ., _ and -
header.yaml:3:11: services: has to be a list`,
		"only.yaml":     `only.yaml:2:1: kep: is no known key; did you mean keep?`,
		"included.yaml": "",
		"empty.yaml":    `empty.yaml: services: there are none`,
		"none.yaml":     `none.yaml: cannot be read: it does not exist`,
	} {
		if got := problem(t, Check(file)); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
		}
	}
}

func TestEveryErrorOfAFileIsAnErrorForUsers(t *testing.T) {
	for _, c := range mistakes {
		if _, err := load(t, strings.TrimPrefix(c.file, "\n")); dayfly.ErrorCode(err) != dayfly.CodeInvalid && c.name != "no file" {
			t.Errorf("%s: %v", c.name, dayfly.ErrorCode(err))
		}
	}
}
