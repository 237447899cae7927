package control_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/control"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// hosted gives services hosts, as a server does.
func hosted(c *control.Config) {
	c.Host = func(service, env string) string {
		return dayfly.ServiceHost("{service}-{env}", service, env) + ".localhost"
	}
}

func asRequest(change ...func(*dayfly.RegistrationRequest)) dayfly.RegistrationRequest {
	r := dayfly.RegistrationRequest{Service: "web", ID: "a", Version: "v1", Address: "10.0.0.1:80", Sender: "127.0.0.1", TTL: hour}
	for _, c := range change {
		c(&r)
	}
	return r
}

func (w *world) register(change ...func(*dayfly.RegistrationRequest)) (dayfly.InstanceInfo, bool) {
	w.Helper()
	i, created, err := w.Register(w.Context(), asRequest(change...))
	if err != nil {
		w.Fatal(err)
	}
	return i, created
}

func TestAnAddressIsTheInstancesOwn(t *testing.T) {
	w := start(t, hosted).shop()
	for _, c := range []struct{ address, sender, want, wrong string }{
		{"10.0.0.1:80", "10.0.0.2", "10.0.0.1:80", ""},
		{":8080", "10.0.0.2", "10.0.0.2:8080", ""},
		{":8080", "::ffff:10.0.0.2", "10.0.0.2:8080", ""},
		{":8080", "fd00::1", "[fd00::1]:8080", ""},
		{":8080", "127.0.0.1", "127.0.0.1:8080", ""},
		{"localhost:80", "127.0.0.1", "localhost:80", ""},
		{"127.0.0.1:80", "::1", "127.0.0.1:80", ""},
		{"[fd00:0::1]:80", "10.0.0.2", "[fd00::1]:80", ""},
		{"build-7.example.org:80", "10.0.0.2", "build-7.example.org:80", ""},
		{"127.0.0.1:80", "10.0.0.2", "", "is the server itself"},
		{"[::1]:80", "10.0.0.2", "", "is the server itself"},
		{"[::ffff:127.0.0.1]:80", "10.0.0.2", "", "is the server itself"},
		{"LOCALHOST:80", "10.0.0.2", "", "is the server itself"},
		{"a.localhost.:80", "10.0.0.2", "", "is the server itself"},
		{":8080", "", "", "is not known"},
		{"", "10.0.0.2", "", "is missing"},
		{"10.0.0.1", "10.0.0.2", "", "is not written as host:port"},
		{"http://10.0.0.1:80", "10.0.0.2", "", "is not written as host:port"},
		{"10.0.0.1:http", "10.0.0.2", "", "is no port"},
		{"10.0.0.1:0", "10.0.0.2", "", "is no port"},
		{"10.0.0.1:65536", "10.0.0.2", "", "is no port"},
		{"10.0.0.1:", "10.0.0.2", "", "is no port"},
		{"0.0.0.0:80", "10.0.0.2", "", "is no address of one instance"},
		{"[::]:80", "10.0.0.2", "", "is no address of one instance"},
		{"224.0.0.1:80", "10.0.0.2", "", "is no address of one instance"},
		{"a b:80", "10.0.0.2", "", "neither an IP address nor a host name"},
		{"a/b:80", "10.0.0.2", "", "neither an IP address nor a host name"},
		{"-:80", "10.0.0.2", "", "neither an IP address nor a host name"},
	} {
		i, _, err := w.Register(t.Context(), asRequest(func(r *dayfly.RegistrationRequest) { r.Address, r.Sender = c.address, c.sender }))
		switch {
		case c.wrong == "" && (err != nil || i.Address != c.want):
			t.Errorf("%s from %s is %q, %v, want %q", c.address, c.sender, i.Address, err, c.want)
		case c.wrong != "" && (dayfly.ErrorCode(err) != dayfly.CodeInvalid || !strings.Contains(err.Error(), "address: ") || !strings.Contains(err.Error(), c.wrong)):
			t.Errorf("%s from %s: %v, want %q", c.address, c.sender, err, c.wrong)
		}
	}
}

func TestEverythingThatIsWrongWithARegistrationIsNamed(t *testing.T) {
	w := start(t, hosted).shop()
	_, _, err := w.Register(t.Context(), dayfly.RegistrationRequest{Service: "Web", ID: "a/b", Version: "a b", Environment: "E!", Project: "dayfly", TTL: 2 * hour})
	var e *dayfly.Error
	if !errors.As(err, &e) || e.Code != dayfly.CodeInvalid {
		t.Fatal(err)
	}
	var fields []string
	for _, p := range e.Problems {
		fields = append(fields, p.Field)
	}
	if want := []string{"address", "env", "id", "project", "service", "ttl", "version"}; !slices.Equal(fields, want) {
		t.Errorf("%q are wrong, want %q", fields, want)
	}
	for ttl, good := range map[dayfly.Duration]bool{
		0: true, -1: false, dayfly.Duration(time.Millisecond): false, dayfly.Duration(time.Second) - 1: false, dayfly.Duration(time.Second): true, hour: true, hour + 1: false, dayfly.Forever: false,
	} {
		_, _, err := w.Register(t.Context(), asRequest(func(r *dayfly.RegistrationRequest) { r.TTL = ttl }))
		if (err == nil) != good {
			t.Errorf("a ttl of %v: %v", time.Duration(ttl), err)
		}
	}
	if n := registry.Len(w.cache, registry.Registrations); n != 1 {
		t.Errorf("%d registrations", n)
	}
}

func TestRenewingWritesNothingAndAChangeIsOne(t *testing.T) {
	w := start(t, hosted).shop()
	first, created := w.register()
	if !created || first.Deployment != "registered:shop//web/v1" || first.Project != "shop" || first.Phase != dayfly.InstanceHealthy || first.LastSeen == nil {
		t.Errorf("made: %t, %+v", created, first)
	}
	before, _ := registry.Lookup(w.cache, registry.Registrations, "web/a")
	w.clock.forward(dayfly.Duration(time.Minute))
	for range 3 {
		if i, created := w.register(); created || i.StartedAt != first.StartedAt || !i.LastSeen.After(*first.LastSeen) {
			t.Errorf("renewed: made %t, %+v", created, i)
		}
	}
	now, _ := registry.Lookup(w.cache, registry.Registrations, "web/a")
	if now.Revision != before.Revision {
		t.Error("renewing has written the record")
	}
	changed, created := w.register(func(r *dayfly.RegistrationRequest) { r.Version = "v2" })
	if created || changed.Version != "v2" || changed.StartedAt != first.StartedAt {
		t.Errorf("changed: made %t, %+v", created, changed)
	}
	if got, err := w.Instance(t.Context(), "web", "a"); err != nil || got.Version != "v2" {
		t.Errorf("%+v, %v", got, err)
	}
}

// The server may believe in a registration whose lease has run out at this very moment.
func TestARegistrationThatHasRunOutIsMadeAgain(t *testing.T) {
	w := start(t, hosted).shop()
	w.register()
	rec, _ := registry.Lookup(w.cache, registry.Registrations, "web/a")
	if _, err := w.store.Deregister(t.Context(), rec.Value); err != nil {
		t.Fatal(err)
	}
	i, _ := w.register()
	if got, err := registry.Get(t.Context(), w.store, registry.Registrations, "web/a"); err != nil || got.Value.Lease == rec.Value.Lease || i.ID != "a" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestManyWhoRegisterTheSameAtOnceAllSucceed(t *testing.T) {
	w := start(t, hosted).shop()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, _, err := w.Register(t.Context(), asRequest()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if list, err := w.Instances(t.Context(), "web"); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestTheProjectIsTheEnvironmentsOrTheOnlyOne(t *testing.T) {
	w := start(t, hosted)
	if _, _, err := w.Register(t.Context(), asRequest()); dayfly.ErrorCode(err) != dayfly.CodeInvalid || !strings.Contains(err.Error(), "project: is missing, and there is no project yet") {
		t.Errorf("without any project: %v", err)
	}
	w.shop()
	w.create("main")
	if i, _ := w.register(); i.Project != "shop" {
		t.Errorf("the only project is not meant: %+v", i)
	}
	in := func(env, project string) func(*dayfly.RegistrationRequest) {
		return func(r *dayfly.RegistrationRequest) {
			r.ID, r.Environment, r.Project = "i"+env+"."+project, env, project
		}
	}
	if i, created := w.register(in("new", "not-there")); i.Project != "not-there" || !created {
		t.Errorf("a project that is not there: %+v", i)
	}
	if i, _ := w.register(in("new", "")); i.Project != "not-there" {
		t.Errorf("in an environment that is there by registrations: %+v", i)
	}
	if _, _, err := w.CreateProject(t.Context(), dayfly.ProjectRequest{Name: "other", Repo: "https://git.example/acme/other"}); err != nil {
		t.Fatal(err)
	}
	if i, _ := w.register(in("shop-main", "")); i.Project != "shop" {
		t.Errorf("the environment's project is not meant: %+v", i)
	}
	for req, want := range map[string]string{
		"/":                   "project: is missing, and there are several: name one of other, shop",
		"later/":              "project: is missing, and there are several",
		"shop-main/other":     "environment shop-main belongs to project shop, not to other",
		"new/shop":            "environment new is there by what is registered with it for project not-there, not for shop",
		"new/not-there/again": "",
	} {
		env, project, _ := strings.Cut(req, "/")
		project, _, _ = strings.Cut(project, "/")
		_, _, err := w.Register(t.Context(), asRequest(in(env, project)))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", req, err, want)
		}
	}
	// An id belongs to a project.
	_, _, err := w.Register(t.Context(), asRequest(func(r *dayfly.RegistrationRequest) { r.Project = "other" }))
	if dayfly.ErrorCode(err) != dayfly.CodeConflict || !strings.Contains(err.Error(), "instance a of web is registered for project shop") {
		t.Errorf("an id of another project: %v", err)
	}
}

func TestAHostThatSomebodyHasIsRefusedAndTheHolderNamed(t *testing.T) {
	w := start(t, hosted).shop()
	w.create("main")
	if _, _, err := w.PutRoute(t.Context(), dayfly.Route{Name: "docs", Host: "web-docs.localhost", To: "http://docs"}); err != nil {
		t.Fatal(err)
	}
	in := func(id, service, env string) func(*dayfly.RegistrationRequest) {
		return func(r *dayfly.RegistrationRequest) { r.ID, r.Service, r.Environment = id, service, env }
	}
	w.register(in("1", "a", "b-c"))
	w.register(in("own", "web", "shop-main")) // a service that it has
	for what, c := range map[string]struct {
		change func(*dayfly.RegistrationRequest)
		want   string
	}{
		"an environment":  {in("2", "web-shop", "main"), "web-shop-main.localhost belongs to environment shop-main"},
		"a route":         {in("3", "web", "docs"), "web-docs.localhost belongs to route docs"},
		"a registration":  {in("4", "a-b", "c"), "a-b-c.localhost belongs to what is registered with environment b-c"},
		"the same as who": {in("5", "a", "b-c"), ""},
	} {
		_, _, err := w.Register(t.Context(), asRequest(c.change))
		if c.want == "" && err != nil || c.want != "" && (dayfly.ErrorCode(err) != dayfly.CodeConflict || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	// Who was there before goes on.
	w.commit(registry.Create(registry.Hosts, "a-b-c.localhost", registry.HostClaim{Environment: "e", Name: "strong"}))
	if _, created := w.register(in("1", "a", "b-c")); created {
		t.Error("it was made again")
	}
}

func TestAnEnvironmentThatNobodyCreatedIsShownUntilTheLastRegistrationEnds(t *testing.T) {
	w := start(t, hosted).shop()
	w.create("main")
	for _, env := range []string{"aaa", "temp", "zzz"} {
		w.register(func(r *dayfly.RegistrationRequest) { r.ID, r.Environment, r.Project = env, env, "shop" })
	}
	w.clock.forward(dayfly.Duration(time.Minute))
	w.register(func(r *dayfly.RegistrationRequest) {
		r.ID, r.Environment, r.Service, r.Project = "second", "temp", "api", "shop"
	})
	env, err := w.Environment(t.Context(), "temp")
	if err != nil || env.Phase != dayfly.PhaseReady || env.Project != "shop" || env.LastSeen == nil || env.CreatedAt.After(*env.LastSeen) || env.ExpiresAt != nil {
		t.Fatalf("%+v, %v", env, err)
	}
	if len(env.Services) != 2 || env.Services[1].Name != "web" || env.Services[1].From != dayfly.FromRegistered || env.Services[1].URL != "http://web-temp.localhost" || env.Services[1].Env != "temp" || env.URLs["api"] != "http://api-temp.localhost" {
		t.Errorf("services %+v, urls %v", env.Services, env.URLs)
	}
	if byID, err := w.Environment(t.Context(), env.ID); err != nil || byID.Name != "temp" {
		t.Errorf("by its id: %+v, %v", byID, err)
	}
	names := func(f dayfly.EnvironmentFilter) (all []string) {
		for {
			list, next, err := w.Environments(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				all = append(all, e.Name)
			}
			if next == "" {
				return all
			}
			f.After = next
		}
	}
	for limit := range 6 {
		if got := names(dayfly.EnvironmentFilter{Limit: limit}); fmt.Sprint(got) != "[aaa shop-main temp zzz]" {
			t.Errorf("%d at a time: %v", limit, got)
		}
	}
	if got := names(dayfly.EnvironmentFilter{Project: "other"}); len(got) != 0 {
		t.Errorf("of another project: %v", got)
	}
	_, err = w.DeleteEnvironment(t.Context(), "temp", dayfly.DeleteOptions{Force: true})
	if dayfly.ErrorCode(err) != dayfly.CodeConflict || !strings.Contains(err.Error(), "nobody created environment temp") {
		t.Errorf("deleted: %v", err)
	}

	gone := make(chan error, 1)
	go func() {
		_, err := w.WaitEnvironment(t.Context(), "temp", func(dayfly.Environment) bool { return false })
		gone <- err
	}()
	for service, id := range map[string]string{"web": "temp", "api": "second"} {
		if err := w.Deregister(t.Context(), service, id, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-gone; dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Errorf("who waited was told %v", err)
	}
	if got := names(dayfly.EnvironmentFilter{}); fmt.Sprint(got) != "[aaa shop-main zzz]" {
		t.Errorf("after the end: %v", got)
	}
	if err := w.Deregister(t.Context(), "web", "temp", 0); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Errorf("ended twice: %v", err)
	}
}

func TestDetailsSayWhatIsRegistered(t *testing.T) {
	w := start(t, hosted).shop()
	w.create("main")
	before, _ := w.Environment(t.Context(), "shop-main")
	w.register(func(r *dayfly.RegistrationRequest) { r.Environment = "shop-main" })
	w.register(func(r *dayfly.RegistrationRequest) { r.Environment, r.Service = "shop-main", "extra" })
	w.register(func(r *dayfly.RegistrationRequest) { r.Service, r.ID = "pooled", "b" })
	env, err := w.Environment(t.Context(), "shop-main")
	if err != nil || len(env.Services) != len(before.Services)+1 {
		t.Fatalf("%+v, %v", env, err)
	}
	for _, s := range env.Services {
		if s.Name != "web" && s.Name != "extra" {
			continue
		}
		if s.From != dayfly.FromRegistered || s.Version != "v1" || s.Instances != 1 || s.Phase != dayfly.PhaseReady || s.Env != "shop-main" || s.URL != "http://"+s.Name+"-shop-main.localhost" {
			t.Errorf("%+v", s)
		}
	}
	services, err := w.Services(t.Context())
	if err != nil || !slices.ContainsFunc(services, func(s dayfly.ServiceInfo) bool {
		return s.Name == "pooled" && s.Project == "shop" && s.Environments != nil && len(s.Environments) == 0
	}) {
		t.Errorf("%+v, %v", services, err)
	}
}

func TestTheAnswerToAnEndWaitsForThoseOnTheInstanceButNotForEver(t *testing.T) {
	asked := make(chan dayfly.Registration, 1)
	w := start(t, hosted, func(c *control.Config) {
		c.Left = func(ctx context.Context, r dayfly.Registration) error {
			asked <- r
			<-ctx.Done()
			return ctx.Err()
		}
	}).shop()
	w.register()
	if err := w.Deregister(t.Context(), "web", "a", time.Millisecond); err != nil {
		t.Errorf("an instance that is busy for longer: %v", err)
	}
	if r := <-asked; r.ID != "a" || r.Lease == 0 {
		t.Errorf("asked about %+v", r)
	}
	if _, err := w.Instance(t.Context(), "web", "a"); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Errorf("it is there: %v", err)
	}
}

func TestRoutesShareAHostAndHoldIt(t *testing.T) {
	w := start(t, hosted).shop()
	w.create("main")
	put := func(name, host, path, to string) error {
		_, _, err := w.PutRoute(t.Context(), dayfly.Route{Name: name, Host: host, Path: path, To: to})
		return err
	}
	claims := func() string {
		claim, ok := registry.Lookup(w.cache, registry.Hosts, "docs.localhost")
		return fmt.Sprint(ok, claim.Value.Routes)
	}
	for i, c := range []struct {
		do     error
		want   string
		claims string
	}{
		{put("one", "Docs.localhost.", "", "https://one.example.org/base"), "", "true 1"},
		{put("two", "docs.localhost", "/two/", "http://two:81"), "", "true 2"},
	} {
		if c.do != nil || i == 1 && claims() != c.claims {
			t.Errorf("%d: %v, the host is held %s, want %s", i, c.do, claims(), c.claims)
		}
	}
	if r, err := w.Route(t.Context(), "two"); err != nil || r.Path != "/two" || r.Host != "docs.localhost" || r.Revision == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	for what, c := range map[string]struct {
		err  error
		want string
	}{
		"a path of another":     {put("three", "docs.localhost", "/two", "http://x"), "docs.localhost/two belongs to route two"},
		"a host's other form":   {put("three", "DOCS.localhost", "/", "http://x"), "docs.localhost belongs to route one"},
		"of an environment":     {put("three", "shop-main.localhost", "/x", "http://x"), "belongs to environment shop-main"},
		"moving to one's":       {put("two", "shop-main.localhost", "/x", "http://x"), "belongs to environment shop-main"},
		"moving onto a path":    {put("two", "docs.localhost", "/", "http://x"), "belongs to route one"},
		"an environment's wish": {func() error { _, _, err := w.CreateEnvironment(t.Context(), named("docs")); return err }(), "docs.localhost belongs to route one, two"},
	} {
		if dayfly.ErrorCode(c.err) != dayfly.CodeConflict || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, c.err, c.want)
		}
	}
	if err := put("one", "more.localhost", "/", "http://x"); err != nil || claims() != "true 1" {
		t.Errorf("moved: %v, the host is held %s", err, claims())
	}
	if err := put("two", "docs.localhost", "/", "http://x"); err != nil || claims() != "true 1" {
		t.Errorf("changed: %v, the host is held %s", err, claims())
	}
	if err := w.DeleteRoute(t.Context(), "two"); err != nil || claims() != "false 0" {
		t.Errorf("removed: %v, the host is held %s", err, claims())
	}
	if err := w.DeleteRoute(t.Context(), "two"); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Errorf("removed twice: %v", err)
	}
	if list, err := w.Routes(t.Context()); err != nil || len(list) != 1 || list[0].Name != "one" {
		t.Errorf("%+v, %v", list, err)
	}
}

func named(name string) dayfly.EnvironmentRequest {
	r := branchOf("shop", "main")
	r.Spec.Name = name
	return r
}

func TestWhatIsWrongWithARouteIsNamed(t *testing.T) {
	w := start(t, hosted)
	for _, c := range []struct{ field, host, path, to string }{
		{"host", "", "/", "http://x"}, {"host", "a b", "/", "http://x"}, {"host", "a:80", "/", "http://x"}, {"host", "a..b", "/", "http://x"}, {"host", "-a", "/", "http://x"},
		{"host", strings.Repeat("a.", 120) + "aa", "/", "http://x"}, {"host", "ü", "/", "http://x"}, {"host", "*.a", "/", "http://x"},
		{"path", "a", "x", "http://x"}, {"path", "a", "/x?y", "http://x"}, {"path", "a", "/%41", "http://x"}, {"path", "a", "/x#y", "http://x"},
		{"to", "a", "/", ""}, {"to", "a", "/", "x"}, {"to", "a", "/", "ftp://x"}, {"to", "a", "/", "http://"}, {"to", "a", "/", "http://:80"}, {"to", "a", "/", "http:x"},
		{"to", "a", "/", "http://u:p@x"}, {"to", "a", "/", "http://x?y"}, {"to", "a", "/", "http://x#y"}, {"to", "a", "/", "http://x:0"}, {"to", "a", "/", "http://x:99999"}, {"to", "a", "/", "http://a b"},
		{"to", "a", "/", "javascript:alert(1)"}, {"to", "a", "/", "http://x?"},
	} {
		_, _, err := w.PutRoute(t.Context(), dayfly.Route{Name: "r", Host: c.host, Path: c.path, To: c.to})
		var e *dayfly.Error
		if !errors.As(err, &e) || e.Code != dayfly.CodeInvalid || len(e.Problems) != 1 || e.Problems[0].Field != c.field {
			t.Errorf("%q %q %q: %v, want that %s is wrong", c.host, c.path, c.to, err, c.field)
		}
		if err != nil && strings.Contains(err.Error(), "u:p@") {
			t.Errorf("a password is shown: %v", err)
		}
	}
	if _, _, err := w.PutRoute(t.Context(), dayfly.Route{Name: "R", Host: "a", To: "http://x"}); dayfly.ErrorCode(err) != dayfly.CodeInvalid {
		t.Errorf("a name that is none: %v", err)
	}
}

// Whatever is put and removed, each host is held by exactly the routes that have it.
func TestClaimsOfHostsCountTheirRoutes(t *testing.T) {
	w := start(t, hosted)
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			name := rapid.SampledFrom([]string{"r1", "r2", "r3"}).Draw(rt, "name")
			if rapid.IntRange(0, 3).Draw(rt, "what") == 0 {
				_ = w.DeleteRoute(t.Context(), name) // it may not be there
				continue
			}
			_, _, err := w.PutRoute(t.Context(), dayfly.Route{Name: name, Host: rapid.SampledFrom([]string{"a.localhost", "b.localhost"}).Draw(rt, "host"),
				Path: rapid.SampledFrom([]string{"/", "/x"}).Draw(rt, "path"), To: "http://x"})
			if err != nil && dayfly.ErrorCode(err) != dayfly.CodeConflict {
				rt.Fatal(err)
			}
		}
		counts := map[string]int{}
		for r := range registry.All(w.cache, registry.Routes) {
			counts[r.Value.Host]++
		}
		for _, host := range []string{"a.localhost", "b.localhost"} {
			claim, ok := registry.Lookup(w.cache, registry.Hosts, host)
			if claim.Value.Routes != counts[host] || ok != (counts[host] > 0) {
				rt.Fatalf("%s is held %d times by %d routes", host, claim.Value.Routes, counts[host])
			}
		}
	})
}

func TestOfManyWhoWantOnePathOnlyOneGetsIt(t *testing.T) {
	w := start(t, hosted)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			_, _, err := w.PutRoute(t.Context(), dayfly.Route{Name: fmt.Sprint("r", i), Host: "a.localhost", To: "http://x"})
			if err != nil && dayfly.ErrorCode(err) != dayfly.CodeConflict {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := registry.Len(w.cache, registry.Routes); n != 1 {
		t.Errorf("%d routes have one path", n)
	}
}
