package spec

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
)

func TestEveryKeyOfAnEnvironmentFileIsRead(t *testing.T) {
	got, err := parseOne("env.yaml", []byte(`
name: temp-1
project: shop
prefix: www-temp-1
header: Temp_1.a
branch: main
base: production
keep: 2d
data: snapshot
public-header: true
only: [frontend, backend]
services:
  - worker
  - {name: frontend, version: 0.10, route: /}
  - name: backend
    branch: feature/x
    repo: https://example.org/fork.git
    variables: {A: "1", N: 5, EMPTY: ""}
  - {name: payments, url: "https://sandbox.example.org"}
`))
	want := dayfly.EnvironmentSpec{
		Name: "temp-1", Project: "shop", Prefix: "www-temp-1", Header: "Temp_1.a", Branch: "main", Base: "production",
		Keep: dayfly.Duration(48 * time.Hour), Data: "snapshot", PublicHeader: true, Only: []string{"frontend", "backend"},
		Services: []dayfly.ServiceSpec{
			{Name: "worker"},
			{Name: "frontend", Version: "0.10", Route: "/"},
			{Name: "backend", Branch: "feature/x", Repo: "https://example.org/fork.git", Variables: map[string]string{"A": "1", "N": "5", "EMPTY": ""}},
			{Name: "payments", URL: "https://sandbox.example.org"},
		},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	if got, err := parseOne("env.yaml", []byte("name: a\nkeep: forever\n")); err != nil || got.Keep != dayfly.Forever {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAllThatIsWrongWithAnEnvironmentFileIsSaidAtOnceWithItsPlace(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"empty", "", `e.yaml: is empty`},
		{"nothing", "# nothing\n---\n~\n", `e.yaml: is empty`},
		{"empty list", "\n []\n", `e.yaml:2:2: is empty`},
		{"empty mapping", "{}\n", `e.yaml:1:1: name: is missing`},
		{"text", "name\n", `e.yaml:1:1: has to be an environment or a list of environments`},
		{"no YAML", "name: [\n", `e.yaml:2: is no YAML: did not find expected node content`},
		{"everything", `name: Temp_1
projct: shop
prefix: -x
keep: 0s
data: copy
public-header: maybe
only: {a: b}
branch: [x]
services:
  - {name: a, version: 1, branch: b}
  - {name: a, rute: /}
  - {version: 2, url: "http://x", route: api}
  - [x]
  - ""
  -
  - {name: c, route: {path: /, strip: true}, variables: {A=B: c, PORT: 1, DAYFLY_ENV: x, OK: {}}}
  - {name: d, variables: [A]}
`, `
e.yaml:1:7: name: "Temp_1" is no DNS label: use lower-case letters, digits and -, such as "temp-1"
e.yaml:2:1: projct: is no known key; did you mean project?
e.yaml:3:9: prefix: "-x" is no DNS label: use lower-case letters, digits and -, such as "x"
e.yaml:4:7: keep: has to be more than 0
e.yaml:5:7: data: has to be snapshot, fixtures or none
e.yaml:6:16: public-header: has to be true or false
e.yaml:7:7: only: has to be a list of texts
e.yaml:8:9: branch: has to be a text
e.yaml:10:5: services[0]: only one of version, branch and url can be given
e.yaml:11:5: services[1]: a is there twice
e.yaml:11:15: services[1].rute: is no known key; did you mean route?
e.yaml:12:5: services[2]: only one of version, branch and url can be given
e.yaml:12:5: services[2].name: is missing
e.yaml:12:42: services[2].route: has to be a path that begins with /
e.yaml:13:5: services[3]: has to be the name of a service or a mapping
e.yaml:14:5: services[4]: is empty: it has to be the name of a service
e.yaml:15:4: services[5]: has to be a text
e.yaml:16:22: services[6].route: has to be a path: strip and lists are possible in the project file
e.yaml:16:58: services[6].variables.A=B: is no name of a variable
e.yaml:16:66: services[6].variables.PORT: is set by dayfly
e.yaml:16:75: services[6].variables.DAYFLY_ENV: is set by dayfly
e.yaml:16:94: services[6].variables.OK: has to be a text
e.yaml:17:26: services[7].variables: has to be a mapping of names to values`},
		{"header and format", "name: a\nheader: a b\nformat: json\n", `
e.yaml:2:9: header: "a b" has to be 1 to 63 characters of letters, digits, ., _ and -
e.yaml:3:9: format: has to be dayfly or mayfly`},
		{"empty header", "name: a\nheader:\n", `
e.yaml:2:8: header: "" has to be 1 to 63 characters of letters, digits, ., _ and -
e.yaml:2:8: header: has to be a text`},
		{"Mayfly's spellings in our format", "name: a\nservices: [{name: b, route: api}]\n", `e.yaml:2:29: services[0].route: has to be a path that begins with /`},
		{"services as a mapping", "name: a\nservices: {web: {}}\n", `e.yaml:2:11: services: has to be a list`},
		{"reserved", "name: dayfly-x\n", `e.yaml:1:7: name: "dayfly-x" begins with dayfly, which is reserved`},
		{"twice", "name: a\nname: b\n", `e.yaml:2:1: name: is there twice`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseEnvironmentFiles("e.yaml", []byte(c.file), EnvironmentOptions{})
			if got, want := problem(t, err), strings.TrimPrefix(c.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// parseOne reads a file with one environment.
func parseOne(name string, data []byte) (dayfly.EnvironmentSpec, error) {
	all, err := ParseEnvironmentFiles(name, data, EnvironmentOptions{})
	if err != nil || len(all) != 1 {
		return dayfly.EnvironmentSpec{}, cmp.Or(err, fmt.Errorf("%d environments", len(all)))
	}
	return all[0], nil
}

func TestAnEnvironmentFileCanHoldAListOfEnvironments(t *testing.T) {
	for _, c := range []struct {
		name, file string
		want       []dayfly.EnvironmentSpec
	}{
		{"two", "- name: b\n- {name: a, services: [c]}\n", []dayfly.EnvironmentSpec{{Name: "b"}, {Name: "a", Services: []dayfly.ServiceSpec{{Name: "c"}}}}},
		{"a list of one", "[{name: a}]", []dayfly.EnvironmentSpec{{Name: "a"}}},
		{"no list", "name: a", []dayfly.EnvironmentSpec{{Name: "a"}}},
		{"what they share", "- &x {name: a, project: p, branch: b}\n- {<<: *x, name: c}\n", []dayfly.EnvironmentSpec{{Name: "a", Project: "p", Branch: "b"}, {Name: "c", Project: "p", Branch: "b"}}},
		{"two formats", "- {name: a, format: mayfly, services: [s]}\n- {name: b, services: [s]}\n", []dayfly.EnvironmentSpec{
			{Name: "a", Prefix: "www-a", Base: "none", Services: []dayfly.ServiceSpec{{Name: "s", Version: "latest"}}},
			{Name: "b", Services: []dayfly.ServiceSpec{{Name: "s"}}},
		}},
	} {
		got, err := ParseEnvironmentFiles("e.yaml", []byte(c.file), EnvironmentOptions{})
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v\nwant %+v", c.name, got, err, c.want)
		}
	}
}

func TestAProblemInAListSaysInWhichEnvironmentItIs(t *testing.T) {
	got, err := ParseEnvironmentFiles("e.yaml", []byte(`- name: a
- name: b
  services:
    - {name: web, route: api}
    - {name: db, variables: {PORT: 1}}
- a
-
- - name: c
- {name: a, name2: b}
- &x {name: x}
- *x
- {}
`), EnvironmentOptions{})
	want := strings.TrimPrefix(`
e.yaml:4:26: [1].services[0].route: has to be a path that begins with /
e.yaml:5:30: [1].services[1].variables.PORT: is set by dayfly
e.yaml:6:3: [2]: has to be a mapping
e.yaml:7:2: [3]: has to be a mapping
e.yaml:8:3: [4]: has to be a mapping
e.yaml:9:10: [5].name: a is there twice: [0] has that name in line 1, column 9
e.yaml:9:13: [5].name2: is no known key; did you mean name?
e.yaml:11:3: [7].name: x is there twice: [6] has that name in line 10, column 13
e.yaml:12:3: [8].name: is missing`, "\n")
	if got != nil || problem(t, err) != want {
		t.Errorf("%+v\ngot\n%s\nwant\n%s", got, problem(t, err), want)
	}
}

// texts draws texts that YAML could take for something else, and any others.
func texts() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.SampledFrom([]string{"null", "~", "yes", "on", "1e3", "0x10", "010", "1_000", "2020-01-01", ".5", ".inf", "<<", "=", "- a", "a: b", "#a", "'", `"`, "a\nb", "a\r\n", " a ", "\t", "%a", "@a", "`a", "!a", "&a", "*a", "{a}", "[a]", "…", "\u2028", "\u0085", "\ufeff"}),
		rapid.StringOfN(rapid.Rune().Filter(func(r rune) bool { return r != 0xFFFD }), 1, 20, -1),
	)
}

func TestAnEnvironmentFileReadsBackAsItWasWritten(t *testing.T) {
	name := rapid.StringMatching(`[a-c][a-z0-9]{0,5}(-[a-z0-9]{1,5})?`)
	maybe := func(g *rapid.Generator[string]) *rapid.Generator[string] { return rapid.OneOf(rapid.Just(""), g) }
	rapid.Check(t, func(t *rapid.T) {
		want := dayfly.EnvironmentSpec{
			Name: name.Draw(t, "name"), Project: maybe(texts()).Draw(t, "project"), Branch: maybe(texts()).Draw(t, "branch"),
			Base: maybe(texts()).Draw(t, "base"), Prefix: maybe(name).Draw(t, "prefix"),
			Keep: rapid.OneOf(rapid.Just(dayfly.Duration(0)), rapid.Just(dayfly.Forever), rapid.Map(rapid.Int64Range(1, 1e10), func(n int64) dayfly.Duration {
				return dayfly.Duration(n) * dayfly.Duration(time.Millisecond)
			})).Draw(t, "keep"),
			Data:         rapid.SampledFrom([]string{"", "snapshot", "fixtures", "none"}).Draw(t, "data"),
			PublicHeader: rapid.Bool().Draw(t, "public header"),
			Header:       maybe(rapid.OneOf(rapid.StringMatching(`[A-Za-z0-9._-]{1,63}`), rapid.SampledFrom([]string{"1.0", "0x10", "on", ".inf", "-", "1e3", "2020-01-01"}))).Draw(t, "header"),
		}
		if only := rapid.SliceOfN(texts(), 0, 3).Draw(t, "only"); len(only) > 0 {
			want.Only = only
		}
		for _, n := range rapid.SliceOfNDistinct(name, 0, 4, rapid.ID).Draw(t, "services") {
			s := dayfly.ServiceSpec{Name: n, Repo: maybe(texts()).Draw(t, "repo"), Route: maybe(rapid.SampledFrom([]string{"/", "/a", "/a/ü"})).Draw(t, "route")}
			switch value := maybe(texts()).Draw(t, "value"); rapid.IntRange(0, 2).Draw(t, "which") {
			case 0:
				s.Version = value
			case 1:
				s.Branch = value
			case 2:
				s.URL = value
			}
			variables := rapid.MapOfN(rapid.StringMatching(`V[A-Z0-9_]{0,5}`), maybe(texts()), 0, 3).Draw(t, "variables")
			if len(variables) > 0 {
				s.Variables = variables
			}
			want.Services = append(want.Services, s)
		}
		file := FormatEnvironmentFile(want)
		got, err := parseOne("e.yaml", file)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s\n%v\ngot  %+v\nwant %+v", file, err, got, want)
		}
	})
}
