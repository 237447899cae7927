package resolve

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

const stored = `x-dayfly: {baseline: production, databases: {db: {template: shop, fixtures: f.sql, migrate: [migrate, up]}}}
services:
  web: {ports: ["80"], x-dayfly: {route: /, paths: [web], process: {run: web}}}
  api: {ports: ["80"], depends_on: [db], environment: {PG: "${DB_URL}?sslmode=disable"}, x-dayfly: {paths: [api], process: {run: api}}}
  smoke: {x-dayfly: {test: true, process: {run: smoke}}}
  db: {image: postgres}
`

// cellar gives databases whose addresses tell how they were asked for; those of templates in missing are not there.
type cellar struct {
	asked   []string
	missing string
}

func (c *cellar) database(_ context.Context, def dayfly.DatabaseDefinition, empty bool, fixtures []byte, commit string) (id, address, waiting string, err error) {
	c.asked = append(c.asked, fmt.Sprintf("%s from %s, empty %t, %q at %s", def.Name, def.Template, empty, fixtures, commit))
	if def.Template == c.missing && !empty {
		return "", "", "there is no template " + def.Template, nil
	}
	return "id-" + def.Name, "postgres://" + def.Name, "", nil
}

func (s *shelf) store(c *cellar, w dayfly.EnvironmentSpec) (*dayfly.Resolution, error) {
	w.Name = "env"
	given := 0
	return s.resolver().Resolve(context.Background(), Input{
		Project: dayfly.Project{Name: "shop", Repo: shop}, Record: dayfly.EnvironmentRecord{ID: "id", Spec: w}, Database: c.database,
		Address: func() (string, error) { given++; return fmt.Sprintf("127.9.0.%d", given), nil },
	})
}

func storedShelf(t *testing.T) *shelf {
	return newShelf(t).put(shop, "c1", map[string]string{"compose.yaml": stored, "f.sql": "INSERT", "web": "1", "api": "1"}, "main").
		put(shop, "c2", map[string]string{"compose.yaml": stored, "f.sql": "INSERT", "web": "2", "api": "1"}, "feature")
}

func TestTheAddressOfADatabaseIsAVariableAndWhoUsesItStartsAfterIt(t *testing.T) {
	c := &cellar{}
	res, err := storedShelf(t).store(c, dayfly.EnvironmentSpec{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(res), "api smoke web migrate-db"; got != want {
		t.Errorf("the services are %s, want %s", got, want)
	}
	if want := []string{`db from shop, empty false, "" at c1`}; !slices.Equal(c.asked, want) {
		t.Errorf("asked for %q, want %q", c.asked, want)
	}
	if want := []dayfly.ResolvedDatabase{{Name: "db", ID: "id-db"}}; !slices.Equal(res.Databases, want) {
		t.Errorf("has %+v, want %+v", res.Databases, want)
	}
	for name, after := range map[string][]string{"api": {"db"}, "web": nil, "smoke": nil, "migrate-db": {"db"}} {
		rs := service(t, res, name)
		if rs.Variables["DB_URL"] != "postgres://db" || rs.Variables["DATABASE_URL"] != "postgres://db" || !slices.Equal(rs.Databases, after) {
			t.Errorf("%s has %v and starts after %v, want %v", name, lookup(rs.Variables, "D"), rs.Databases, after)
		}
	}
	if got := service(t, res, "api").Variables["PG"]; got != "postgres://db?sslmode=disable" {
		t.Errorf("the project file makes %q of it", got)
	}
	job := service(t, res, "migrate-db").Definition
	if !job.Job || !job.Own || !slices.Equal(job.Run, dayfly.Command{"migrate", "up"}) {
		t.Errorf("the job is %+v", job)
	}
	if got := service(t, res, "api").Definition.DependsOn; got["migrate-db"] != dayfly.ConditionCompleted || len(got) != 1 {
		t.Errorf("api waits for %v", got)
	}
	if got := service(t, res, "web").Definition.DependsOn; len(got) != 0 {
		t.Errorf("web waits for %v", got)
	}
}

func TestTheDataOfAnEnvironmentSaysWhatItsDatabasesBeginWith(t *testing.T) {
	for data, want := range map[string]string{
		"": `db from shop, empty false, "" at c1`, "snapshot": `db from shop, empty false, "" at c1`,
		"fixtures": `db from shop, empty true, "INSERT" at c1`, "none": `db from shop, empty true, "" at c1`,
	} {
		c := &cellar{}
		if _, err := storedShelf(t).store(c, dayfly.EnvironmentSpec{Data: data}); err != nil || !slices.Equal(c.asked, []string{want}) {
			t.Errorf("%q asks for %q, %v; want %s", data, c.asked, err, want)
		}
	}
	without := newShelf(t).put(shop, "c1", map[string]string{"compose.yaml": strings.Replace(stored, "fixtures: f.sql, ", "", 1)}, "main")
	_, err := without.store(&cellar{}, dayfly.EnvironmentSpec{Data: "fixtures"})
	if dayfly.ErrorCode(err) != dayfly.CodeInvalid || !strings.Contains(err.Error(), "x-dayfly.databases.db.fixtures") {
		t.Errorf("fixtures that there are none of: %v", err)
	}
	alone := newShelf(t).put(shop, "c1", map[string]string{"compose.yaml": strings.Replace(stored, "template: shop, ", "", 1), "f.sql": "INSERT"}, "main")
	c := &cellar{missing: "x"}
	if _, err := alone.store(c, dayfly.EnvironmentSpec{}); err != nil || !slices.Equal(c.asked, []string{`db from , empty true, "INSERT" at c1`}) {
		t.Errorf("fixtures without a template ask for %q, %v", c.asked, err)
	}
}

func TestATemplateThatIsNotThereIsANeedThatIsMissing(t *testing.T) {
	res, err := storedShelf(t).store(&cellar{missing: "shop"}, dayfly.EnvironmentSpec{})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Missing) != 1 || res.Missing[0].Service != "db" || res.Missing[0].Version != "shop" || res.Missing[0].Doing != "there is no template shop" {
		t.Errorf("misses %+v", res.Missing)
	}
	if got := names(res); got != "api smoke web" {
		t.Errorf("the services are %s: nothing can be migrated", got)
	}
	api := service(t, res, "api")
	if !slices.Equal(api.Databases, []string{"db"}) || api.Variables["DB_URL"] != "" {
		t.Errorf("api starts after %v with %v", api.Databases, api.Variables)
	}
}

func TestAMigrationWaitsForTheAddressesThatItIsToldAndForNoOthers(t *testing.T) {
	const file = `x-dayfly: {databases: {db: {template: shop, migrate: [migrate]}, cache: {template: late}, other: {template: late}}}
services:
  web: {depends_on: [db, cache], x-dayfly: {process: {run: web}}}
  rest: {x-dayfly: {databases: [other], process: {run: rest}}}
`
	s := newShelf(t).put(shop, "c1", map[string]string{"compose.yaml": file}, "main")
	for missing, want := range map[string]string{"late": "[db cache]", "nothing": "[db]"} {
		res, err := s.store(&cellar{missing: missing}, dayfly.EnvironmentSpec{})
		if err != nil {
			t.Fatal(err)
		}
		job := service(t, res, "migrate-db")
		if got := fmt.Sprint(job.Databases); got != want {
			t.Errorf("while %s is missing it starts after %s, want %s", missing, got, want)
		}
		if job.Variables["OTHER_URL"] != "" || job.Variables["DB_URL"] == "" || (job.Variables["CACHE_URL"] == "") != (missing == "late") {
			t.Errorf("while %s is missing it is told %v", missing, job.Variables)
		}
	}
}

func TestWhoUsesADatabaseIsNeitherBorrowedNorShared(t *testing.T) {
	w := &town{shelf: storedShelf(t), baseline: "production", recs: map[string]dayfly.EnvironmentRecord{}, resolutions: map[string]*dayfly.Resolution{}}
	if _, err := w.make(dayfly.EnvironmentSpec{Name: "production"}); err != nil {
		t.Fatal(err)
	}
	for name, spec := range map[string]dayfly.EnvironmentSpec{
		"same":   {Name: "same"},
		"pinned": {Name: "pinned", Services: []dayfly.ServiceSpec{{Name: "api", Version: "main"}}},
	} {
		res, err := w.make(spec)
		if err != nil {
			t.Fatal(err)
		}
		if api := service(t, res, "api"); api.From != dayfly.FromOwn || !strings.Contains(api.Reason, "database") {
			t.Errorf("%s: api is %s, since %s", name, api.From, api.Reason)
		}
		if web := service(t, res, "web"); web.From != dayfly.FromBorrowed || web.Variables["DB_URL"] != "" {
			t.Errorf("%s: web is %s with %v", name, web.From, web.Variables)
		}
	}
}

func TestADatabaseIsMadeOnlyWhereSomebodyUsesIt(t *testing.T) {
	c := &cellar{}
	s := newShelf(t).put(shop, "c1", map[string]string{"compose.yaml": "x-dayfly: {databases: {db: {}}}\nservices: {web: {x-dayfly: {databases: [], process: {run: web}}}}\n"}, "main")
	if res, err := s.store(c, dayfly.EnvironmentSpec{}); err != nil || len(c.asked) > 0 || len(res.Databases) > 0 {
		t.Errorf("asked for %q, %v", c.asked, err)
	}
}
