package resolve

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

// town is a shelf with environments that borrow from each other.
type town struct {
	*shelf
	baseline    string
	recs        map[string]dayfly.EnvironmentRecord
	resolutions map[string]*dayfly.Resolution
	registered  []string // service version
	given       int
}

const lendable = `x-dayfly: {baseline: production}
services:
  web: {ports: ["80"], environment: {HELLO: "${DAYFLY_ENV}"}, x-dayfly: {route: /, paths: [web], process: {run: web}}}
  api: {ports: ["80"], x-dayfly: {route: /api, paths: [api], process: {run: api}}}
  db: {ports: ["5432"], volumes: ["data:/data"], x-dayfly: {paths: [db], process: {run: db}}}
  mine: {x-dayfly: {own: true, paths: [mine], process: {run: mine}}}
  smoke: {x-dayfly: {test: true, process: {run: smoke}}}
volumes: {data: {}}
`

func newTown(t *testing.T) *town {
	files := func(web, api, compose string) map[string]string {
		return map[string]string{"web": web, "api": api, "db": "", "mine": "", "compose.yaml": compose}
	}
	s := newShelf(t).put(shop, "c1", files("1", "1", lendable), "main", "v1").put(shop, "c2", files("2", "1", lendable), "feature", "v2").
		put(shop, "c3", files("1", "1", strings.Replace(lendable, "route: /api", "route: /v2", 1)), "defined")
	return &town{shelf: s, baseline: "production", recs: map[string]dayfly.EnvironmentRecord{}, resolutions: map[string]*dayfly.Resolution{}}
}

// make resolves an environment and lets others see it.
func (w *town) make(spec dayfly.EnvironmentSpec) (*dayfly.Resolution, error) {
	w.t.Helper()
	spec.Project = "shop"
	rec := dayfly.EnvironmentRecord{ID: "id-" + spec.Name, Spec: spec}
	res, err := w.resolver().Resolve(context.Background(), Input{
		Project: dayfly.Project{Name: "shop", Repo: shop, Baseline: w.baseline}, Record: rec, Previous: w.resolutions[spec.Name],
		Address: func() (string, error) { w.given++; return fmt.Sprintf("127.9.1.%d", w.given), nil },
		Environment: func(name string) (dayfly.EnvironmentRecord, *dayfly.Resolution, bool) {
			rec, ok := w.recs[name]
			return rec, w.resolutions[name], ok
		},
		Registered: func(service, version string) bool { return slices.Contains(w.registered, service+" "+version) },
	})
	if err == nil {
		w.recs[spec.Name], w.resolutions[spec.Name] = rec, res
	}
	return res, err
}

func (w *town) must(spec dayfly.EnvironmentSpec) *dayfly.Resolution {
	w.t.Helper()
	res, err := w.make(spec)
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

// told gives "service from" of each service, and what is missing.
func told(res *dayfly.Resolution) string {
	var all []string
	for _, rs := range res.Services {
		if rs.Name == "smoke" {
			continue
		}
		text := rs.Name + " " + string(rs.From)
		if rs.Environment != "" {
			text += " of " + rs.Environment
		}
		all = append(all, text)
	}
	slices.Sort(all)
	for _, m := range res.Missing {
		all = append(all, strings.TrimSpace(m.Service+" "+m.Version)+" missing")
	}
	return strings.Join(all, ", ")
}

func TestAnEnvironmentHasWhatDiffersAndBorrowsTheRest(t *testing.T) {
	for _, c := range []struct {
		name string
		spec dayfly.EnvironmentSpec
		want string
	}{
		{"the same commit", dayfly.EnvironmentSpec{Branch: "main"}, "api borrowed of production, db own, mine own, web borrowed of production"},
		{"other files", dayfly.EnvironmentSpec{Branch: "feature"}, "api borrowed of production, db own, mine own, web own"},
		{"another definition", dayfly.EnvironmentSpec{Branch: "defined"}, "api own, db own, mine own, web borrowed of production"},
		{"a branch that was asked for", dayfly.EnvironmentSpec{Branch: "main", Services: []dayfly.ServiceSpec{{Name: "api", Branch: "main"}}}, "api own, db own, mine own, web borrowed of production"},
		{"a version that was asked for", dayfly.EnvironmentSpec{Only: []string{"api"}, Services: []dayfly.ServiceSpec{{Name: "api", Version: "v2"}}}, "api shared, db borrowed of production, mine borrowed of production, web borrowed of production"},
		{"a version with variables", dayfly.EnvironmentSpec{Only: []string{"api"}, Services: []dayfly.ServiceSpec{{Name: "api", Version: "v2", Variables: map[string]string{"A": "b"}}}}, "api own, db borrowed of production, mine borrowed of production, web borrowed of production"},
		{"what is listed alone", dayfly.EnvironmentSpec{Only: []string{"web"}, Services: []dayfly.ServiceSpec{{Name: "web"}}}, "api borrowed of production, db borrowed of production, mine borrowed of production, web own"},
		{"no base", dayfly.EnvironmentSpec{Branch: "main", Base: "none"}, "api own, db own, mine own, web own"},
		{"an external service", dayfly.EnvironmentSpec{Branch: "main", Services: []dayfly.ServiceSpec{{Name: "api", URL: "https://api.example/v1"}, {Name: "payments", URL: "http://pay.example"}}}, "api external, db own, mine own, payments external, web borrowed of production"},
		{"a registered version", dayfly.EnvironmentSpec{Branch: "main", Services: []dayfly.ServiceSpec{{Name: "api", Version: "0.9"}}}, "api registered, db own, mine own, web borrowed of production"},
		{"a version of nobody", dayfly.EnvironmentSpec{Branch: "main", Services: []dayfly.ServiceSpec{{Name: "api", Version: "9.9"}}}, "db own, mine own, web borrowed of production, api 9.9 missing"},
		{"a base that is not there", dayfly.EnvironmentSpec{Branch: "feature", Base: "later"}, "db own, mine own,  missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTown(t)
			w.registered = []string{"api 0.9"}
			w.must(dayfly.EnvironmentSpec{Name: "production", Branch: "main"})
			c.spec.Name = "env"
			if got := told(w.must(c.spec)); got != c.want {
				t.Errorf("it has\n  %s, want\n  %s", got, c.want)
			}
		})
	}
}

func TestWithoutItsBaselineAProjectHasNoBase(t *testing.T) {
	w := newTown(t)
	res := w.must(dayfly.EnvironmentSpec{Name: "first", Branch: "main"})
	if res.Base != "" || told(res) != "api own, db own, mine own, web own" || len(res.Missing) != 0 {
		t.Errorf("it has %s and the base %q", told(res), res.Base)
	}
	if res := w.must(dayfly.EnvironmentSpec{Name: "production", Branch: "main"}); res.Base != "" {
		t.Errorf("the baseline has the base %s", res.Base)
	}
}

func TestWhatIsBorrowedIsReachedUnderTheNamesOfTheBorrower(t *testing.T) {
	w := newTown(t)
	w.must(dayfly.EnvironmentSpec{Name: "production", Branch: "main"})
	res := w.must(dayfly.EnvironmentSpec{Name: "env", Branch: "feature"})
	api, web := service(t, res, "api"), service(t, res, "web")
	if want := []string{"env.dev.example", "api--env.dev.example"}; !slices.Equal(api.Hosts, want) || api.Address == "" || api.Address == service(t, w.resolutions["production"], "api").Address {
		t.Errorf("api is at %v and %s", api.Hosts, api.Address)
	}
	if got := web.Variables["API_URL"]; got != "http://"+api.Address+":7080" {
		t.Errorf("web is told that api is at %s", got)
	}
	if api.Commit != "" || len(api.Variables) != 0 || len(api.Definition.Run) != 0 {
		t.Errorf("something of what runs elsewhere was copied: %+v", api)
	}
}

func TestASharedServiceIsTheSameForAllThatPinIt(t *testing.T) {
	w := newTown(t)
	pinned := []dayfly.ServiceSpec{{Name: "web", Version: "v2"}}
	w.must(dayfly.EnvironmentSpec{Name: "production", Branch: "main", Base: "none"})
	one := w.must(dayfly.EnvironmentSpec{Name: "one", Services: pinned, Only: []string{"web"}})
	two := w.must(dayfly.EnvironmentSpec{Name: "two", Services: pinned, Only: []string{"web"}, Prefix: "other"})
	keys := map[dayfly.DeploymentKey]bool{}
	for name, res := range map[string]*dayfly.Resolution{"one": one, "two": two} {
		rs := service(t, res, "web")
		keys[dayfly.KeyOf(w.recs[name], rs)] = true
		if rs.Variables["HELLO"] != "production" || rs.Variables["DAYFLY_ENV"] != "production" {
			t.Errorf("%s has variables of its own: %v", name, rs.Variables)
		}
	}
	// The baseline that pins the same has the same, too.
	res := w.must(dayfly.EnvironmentSpec{Name: "production", Branch: "main", Base: "none", Services: pinned})
	keys[dayfly.KeyOf(w.recs["production"], service(t, res, "web"))] = true
	if len(keys) != 1 {
		t.Errorf("they are %d deployments: %v", len(keys), keys)
	}
}

func TestBorrowingGoesOnUntilWhatReplacesItIsReady(t *testing.T) {
	w := newTown(t)
	w.must(dayfly.EnvironmentSpec{Name: "production", Branch: "main"})
	w.must(dayfly.EnvironmentSpec{Name: "env", Branch: "main"})
	res := w.must(dayfly.EnvironmentSpec{Name: "env", Branch: "feature"})
	if web := service(t, res, "web"); web.From != dayfly.FromOwn || web.Replaces != dayfly.FromBorrowed {
		t.Errorf("web is %s and replaces %q", web.From, web.Replaces)
	}
	if db := service(t, res, "db"); db.Replaces != "" {
		t.Errorf("db replaces %q", db.Replaces)
	}
}

func TestBasesMayHaveBasesButNoCircle(t *testing.T) {
	w := newTown(t)
	w.must(dayfly.EnvironmentSpec{Name: "production", Branch: "main"})
	w.must(dayfly.EnvironmentSpec{Name: "a", Branch: "feature"})
	res := w.must(dayfly.EnvironmentSpec{Name: "b", Branch: "feature", Base: "a"})
	if got := told(res); got != "api borrowed of production, db own, mine own, web borrowed of a" {
		t.Errorf("b has %s", got)
	}
	for _, base := range []string{"a", "b"} {
		if _, err := w.make(dayfly.EnvironmentSpec{Name: "a", Branch: "feature", Base: base}); dayfly.ErrorCode(err) != dayfly.CodeInvalid || !strings.Contains(err.Error(), "base") {
			t.Errorf("a may borrow from %s: %v", base, err)
		}
	}
	w.recs["foreign"] = dayfly.EnvironmentRecord{ID: "f", Spec: dayfly.EnvironmentSpec{Name: "foreign", Project: "other"}}
	if _, err := w.make(dayfly.EnvironmentSpec{Name: "c", Base: "foreign"}); dayfly.ErrorCode(err) != dayfly.CodeInvalid {
		t.Errorf("one of another project can be a base: %v", err)
	}
}

func TestWhatIsMissingKeepsTheTimeFromWhichItWas(t *testing.T) {
	w := newTown(t)
	w.must(dayfly.EnvironmentSpec{Name: "production", Branch: "main"})
	spec := dayfly.EnvironmentSpec{Name: "env", Services: []dayfly.ServiceSpec{{Name: "web", Version: "9.9"}}, Only: []string{"web"}, Prefix: "shown"}
	first := w.must(spec)
	if m := first.Missing[0]; m.Have != "production has main" || m.Routes[0].Path != "/" || !strings.Contains(m.Doing, "9.9") {
		t.Errorf("it misses %+v", m)
	}
	first.Missing[0].Since = first.Missing[0].Since.Add(-1e9)
	if again := w.must(spec); !again.Missing[0].Since.Equal(first.Missing[0].Since) {
		t.Errorf("it is missing since %s", again.Missing[0].Since)
	}
	if bare := w.must(dayfly.EnvironmentSpec{Name: "bare", Base: "none", Services: spec.Services, Only: spec.Only, Prefix: "shown"}); !slices.Equal(bare.Hosts, []string{"shown.dev.example"}) {
		t.Errorf("its page is at %v", bare.Hosts)
	}
}
