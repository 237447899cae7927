package spec

import (
	"reflect"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

func TestMayflysFilesAreReadAsTheyStand(t *testing.T) {
	long := strings.Repeat("a", 63)
	services := func(s ...dayfly.ServiceSpec) []dayfly.ServiceSpec { return s }
	for _, c := range []struct {
		name, file string
		want       []dayfly.EnvironmentSpec
	}{
		{"its own example", "---\nname       : prod\nprefix     : www\nservices   :\n  - \n      name   : frontend\n      version: 0.0.1\n      route  : /\n  - \n      name   : backend \n      version: 0.0.1\n",
			[]dayfly.EnvironmentSpec{{Name: "prod", Prefix: "www", Base: "none", Services: services(
				dayfly.ServiceSpec{Name: "frontend", Version: "0.0.1", Route: "/"}, dayfly.ServiceSpec{Name: "backend", Version: "0.0.1"})}}},
		{"a list, with defaults", "- {name: qa-2, services: [web, {name: db}]}\n- {name: b, header: B.1, services: [web]}\n", []dayfly.EnvironmentSpec{
			{Name: "qa-2", Prefix: "www-qa-2", Base: "none", Services: services(dayfly.ServiceSpec{Name: "web", Version: "latest"}, dayfly.ServiceSpec{Name: "db", Version: "latest"})},
			{Name: "b", Prefix: "www-b", Header: "B.1", Base: "none", Services: services(dayfly.ServiceSpec{Name: "web", Version: "latest"})},
		}},
		{"versions as they are written", "name: a\nservices: [{name: a, version: 1.0}, {name: b, version: 0.10}, {name: c, version: 1e3}, {name: d, version: 010}, {name: e, version: latest}]", []dayfly.EnvironmentSpec{
			{Name: "a", Prefix: "www-a", Base: "none", Services: services(dayfly.ServiceSpec{Name: "a", Version: "1.0"}, dayfly.ServiceSpec{Name: "b", Version: "0.10"},
				dayfly.ServiceSpec{Name: "c", Version: "1e3"}, dayfly.ServiceSpec{Name: "d", Version: "010"}, dayfly.ServiceSpec{Name: "e", Version: "latest"})}}},
		{"routes in all spellings", "name: a\nservices: [{name: a, route: api}, {name: b, route: /api}, {name: c, route: api/}, {name: d, route: /api/v1/}, {name: e, route: /}, {name: f, route: }, {name: g, route: 1.0}]", []dayfly.EnvironmentSpec{
			{Name: "a", Prefix: "www-a", Base: "none", Services: services(dayfly.ServiceSpec{Name: "a", Version: "latest", Route: "/api"}, dayfly.ServiceSpec{Name: "b", Version: "latest", Route: "/api"},
				dayfly.ServiceSpec{Name: "c", Version: "latest", Route: "/api"}, dayfly.ServiceSpec{Name: "d", Version: "latest", Route: "/api/v1"},
				dayfly.ServiceSpec{Name: "e", Version: "latest", Route: "/"}, dayfly.ServiceSpec{Name: "f", Version: "latest"}, dayfly.ServiceSpec{Name: "g", Version: "latest", Route: "/1.0"})}}},
		{"nothing for not given", "name: a\nprefix:\nheader: ~\nservices: [s]\n", []dayfly.EnvironmentSpec{
			{Name: "a", Prefix: "www-a", Base: "none", Services: services(dayfly.ServiceSpec{Name: "s", Version: "latest"})}}},
		{"our keys beside its own", "name: a\nproject: p\nbase: main\nkeep: 1d\nservices: [s, {name: b, branch: x, variables: {A: 1}}, {name: u, url: 'https://u'}]\n", []dayfly.EnvironmentSpec{
			{Name: "a", Project: "p", Prefix: "www-a", Base: "main", Keep: dayfly.Duration(24 * 3600e9), Services: services(dayfly.ServiceSpec{Name: "s", Version: "latest"},
				dayfly.ServiceSpec{Name: "b", Branch: "x", Variables: map[string]string{"A": "1"}}, dayfly.ServiceSpec{Name: "u", URL: "https://u"})}}},
		{"a branch that is followed has no version", "name: a\nbranch: x\nservices: [s, {name: t, version: 2}]\n", []dayfly.EnvironmentSpec{
			{Name: "a", Branch: "x", Prefix: "www-a", Base: "none", Services: services(dayfly.ServiceSpec{Name: "s"}, dayfly.ServiceSpec{Name: "t", Version: "2"})}}},
		{"no services where some can be borrowed", "name: a\nbase: main\nservices:\n", []dayfly.EnvironmentSpec{{Name: "a", Prefix: "www-a", Base: "main"}}},
		{"a long name", "name: " + long + "\nservices: [s]\n", []dayfly.EnvironmentSpec{
			{Name: long, Prefix: dayfly.WithSuffix("www-"+long, "www-"+long), Base: "none", Services: services(dayfly.ServiceSpec{Name: "s", Version: "latest"})}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseEnvironmentFiles("e.yaml", []byte(c.file), EnvironmentOptions{Mayfly: true})
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Fatalf("%v\ngot  %+v\nwant %+v", err, got, c.want)
			}
			for _, s := range got {
				if err := dayfly.ValidName(s.Prefix); err != nil {
					t.Errorf("the prefix %v", err)
				}
				again, err := parseOne("e.yaml", FormatEnvironmentFile(s))
				if err != nil || !reflect.DeepEqual(again, s) {
					t.Errorf("in our own form: %+v, %v\nwant %+v", again, err, s)
				}
			}
		})
	}
}

func TestAFileSaysItsFormatItself(t *testing.T) {
	ours, theirs := []byte("name: a\nformat: dayfly\nservices: [s]\n"), []byte("name: a\nformat: mayfly\nservices: [s]\n")
	for _, o := range []EnvironmentOptions{{}, {Mayfly: true}} {
		if got, err := ParseEnvironmentFiles("e.yaml", ours, o); err != nil || got[0].Prefix != "" || got[0].Base != "" || got[0].Services[0].Version != "" {
			t.Errorf("%+v: %+v, %v", o, got, err)
		}
		if got, err := ParseEnvironmentFiles("e.yaml", theirs, o); err != nil || got[0].Prefix != "www-a" || got[0].Base != "none" || got[0].Services[0].Version != "latest" {
			t.Errorf("%+v: %+v, %v", o, got, err)
		}
	}
}

func TestWhatCannotBeTakenFromMayflyIsSaidWithItsPlace(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"names that are free text", "- {name: Temp 1, services: [a]}\n- {name: qa_2, services: [a]}\n", `
e.yaml:1:10: [0].name: "Temp 1" is no DNS label: use lower-case letters, digits and -, such as "temp-1"
e.yaml:2:10: [1].name: "qa_2" is no DNS label: use lower-case letters, digits and -, such as "qa-2"`},
		{"routes", "name: a\nservices:\n  - {name: a, route: /api/*}\n  - {name: b, route: a//b}\n  - {name: c, route: \"\"}\n  - {name: d, route: //}\n  - {name: e, route: [/a]}\n", `
e.yaml:3:22: services[0].route: "/api/*" has a *: a route is the beginning of a path, and all below it belongs to it
e.yaml:4:22: services[1].route: "a//b" is no path such as /api or /api/v1
e.yaml:5:22: services[2].route: "" is no path such as /api or /api/v1
e.yaml:6:22: services[3].route: "//" is no path such as /api or /api/v1
e.yaml:7:22: services[4].route: has to be a text`},
		{"no services", "- {name: a}\n- {name: b, services: []}\n- {name: c, services: }\n", `
e.yaml:1:3: [0].services: is missing: in Mayfly's format there are only the services that are listed
e.yaml:2:3: [1].services: is missing: in Mayfly's format there are only the services that are listed
e.yaml:3:3: [2].services: is missing: in Mayfly's format there are only the services that are listed`},
		{"other keys", "name: a\nservices: [{name: s, vers: 1}]\nprefx: b\n", `
e.yaml:2:22: services[0].vers: is no known key
e.yaml:3:1: prefx: is no known key; did you mean prefix?`},
		{"no version", "name: a\nservices: [{name: s, version: }]\n", `e.yaml:2:31: services[0].version: has to be a text`},
		{"a prefix that is no label", "name: a\nprefix: WWW\nservices: [s]\n", `e.yaml:2:9: prefix: "WWW" is no DNS label: use lower-case letters, digits and -, such as "www"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseEnvironmentFiles("e.yaml", []byte(c.file), EnvironmentOptions{Mayfly: true})
			if got, want := problem(t, err), strings.TrimPrefix(c.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
