package spec

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

func TestADatabaseStandsForTheComposeServiceOfItsName(t *testing.T) {
	p := mustLoad(t, `
x-dayfly: {databases: {db: {template: shop}}}
services:
  web: {image: x, depends_on: {db: {condition: service_healthy}, api: {condition: service_started}}}
  api: {image: x}
  db: {image: "postgres:15"}
`)
	if got := strings.Join(p.Services(), " "); got != "api web" {
		t.Errorf("the services are %s", got)
	}
	if def := definition(t, p, "web", nil); len(def.DependsOn) != 1 || def.DependsOn["api"] != dayfly.ConditionStarted {
		t.Errorf("web waits for %v", def.DependsOn)
	}
}

func TestAServiceUsesTheDatabasesThatItSaysItUses(t *testing.T) {
	for _, c := range []struct{ services, want string }{
		// Nobody says anything: all use all.
		{`{a: {image: x}, b: {image: x}}`, "a: db other / db other; b: db other / db other"},
		{`{a: {image: x, depends_on: [db]}, b: {image: x}}`, "a: db other / db other; b: other / db other"},
		{`{a: {image: x, environment: {PG: "${DB_URL}"}}, b: {image: x, command: echo $OTHER_URL}}`, "a: db / db other; b: other / db other"},
		{`{a: {image: x, x-dayfly: {databases: [db]}}, b: {image: x}}`, "a: db / db; b: other / db other"},
		{`{a: {image: x, x-dayfly: {databases: []}}, b: {image: x}}`, "a:  / ; b: db other / db other"},
		{`{a: {image: x, x-dayfly: {databases: []}, depends_on: [db]}, b: {image: x}}`, "a:  / ; b: db other / db other"},
		// DATABASE_URL says nothing where there are two.
		{`{a: {image: x, environment: {DATABASE_URL: y}}, b: {image: x}}`, "a: db other / db other; b: db other / db other"},
	} {
		p := mustLoad(t, "x-dayfly: {databases: {db: {}, other: {}}}\nservices: "+c.services+"\n")
		var got []string
		for _, s := range p.Services() {
			got = append(got, fmt.Sprintf("%s: %s / %s", s, strings.Join(p.DatabasesOf(s), " "), strings.Join(p.GivenDatabases(s), " ")))
		}
		if strings.Join(got, "; ") != c.want {
			t.Errorf("%s\n is  %s\nwant %s", c.services, strings.Join(got, "; "), c.want)
		}
	}
	p := mustLoad(t, "x-dayfly: {databases: {db: {}}}\nservices: {a: {image: x, environment: [DATABASE_URL]}, b: {image: x}}\n")
	if len(p.DatabasesOf("a")) != 1 || len(p.DatabasesOf("b")) != 0 {
		t.Errorf("a uses %v, b %v", p.DatabasesOf("a"), p.DatabasesOf("b"))
	}
}

func TestWhatIsWrongWithDatabasesIsToldWithItsPlace(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"fixtures that are not there", "x-dayfly:\n  databases: {db: {fixtures: gone.sql}}\nservices: {a: {image: x}}\n", `compose.yaml:2:20: x-dayfly.databases.db.fixtures: there is no file gone.sql`},
		{"fixtures elsewhere", "x-dayfly:\n  databases: {db: {fixtures: ../x.sql}}\nservices: {a: {image: x}}\n", `compose.yaml:2:30: x-dayfly.databases.db.fixtures: "../x.sql" lies outside of the repository`},
		{"fixtures that are too large", "-- compose.yaml --\nx-dayfly:\n  databases: {db: {fixtures: x.sql}}\nservices: {a: {image: x}}\n-- x.sql --\n" + strings.Repeat("x", dayfly.MaxScript) + "\n",
			`compose.yaml:2:20: x-dayfly.databases.db.fixtures: x.sql has 262145 bytes, and 262144 are allowed: make a template of it`},
		{"a name that is none", "x-dayfly:\n  databases: {My_DB: {}}\nservices: {a: {image: x}}\n", `compose.yaml:2:15: x-dayfly.databases.My_DB: the database "My_DB" cannot be part of a name: call it "my-db"`},
		{"values of other kinds", "x-dayfly:\n  databases: {db: {renew: often, template: [a], migrate: 'a | b'}}\nservices: {a: {image: x}}\n", `
compose.yaml:2:27: x-dayfly.databases.db.renew: has to be true or false
compose.yaml:2:44: x-dayfly.databases.db.template: has to be a text`},
		{"a service with a database that is not there", "x-dayfly: {databases: {db: {}}}\nservices:\n  a: {image: x, x-dayfly: {databases: [cache]}}\n", `compose.yaml:3:28: services.a.x-dayfly.databases: there is no database "cache": add it to x-dayfly.databases of the project`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.file)
			if got := problem(t, err); !strings.HasPrefix(got, strings.TrimPrefix(c.want, "\n")) {
				t.Errorf("says\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}
