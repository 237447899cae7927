package route_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/route"
)

var (
	rootRoute = []dayfly.PathRoute{{Path: "/"}}
	apiRoute  = []dayfly.PathRoute{{Path: "/api", Strip: true}}
	one       = []route.Target{{Deployment: "d", Version: "v1", Weight: 1}}

	local4 = netip.MustParseAddr("127.1.2.3")
	far    = netip.MustParseAddr("127.9.9.9")
)

// shopAndBlog has a shop whose feature environment has a backend of its own and
// borrows the rest from production, and a blog that also has a cache.
func shopAndBlog(t testing.TB) *route.Table {
	table := route.New(route.Options{Domain: "localhost", InternalSuffixes: []string{"service"}})
	table.SetProject(route.Project{Name: "shop", Baseline: "production"})
	table.SetProject(route.Project{Name: "blog", Baseline: "blog-main"})
	set(t, table,
		route.Environment{
			Name: "production", Project: "shop", State: "ready",
			Services: []route.Service{
				{Name: "frontend", Targets: one, Routes: rootRoute},
				{Name: "backend", Targets: one, Routes: []dayfly.PathRoute{{Path: "/api", Strip: true}, {Path: "/api/v2/"}}},
				{Name: "cache", Targets: one, Protocol: dayfly.ProtocolTCP},
				{Name: "mail", Targets: one},
				{Name: "payments", External: "https://sandbox.example.org"},
			},
			Hosts: []route.Host{
				{Name: "production.localhost"}, {Name: "backend-production.localhost", Service: "backend"},
				{Name: "cache-production.localhost", Service: "cache"},
			},
		},
		route.Environment{
			Name: "feature", Project: "shop", Base: "production", State: "starting", Message: "environment says so",
			Services: []route.Service{
				{Name: "backend", State: "building", Message: "go build", Routes: []dayfly.PathRoute{{Path: "/feature"}}},
				{Name: "mail", Targets: one},
			},
			Hosts:     []route.Host{{Name: "feature.localhost"}, {Name: "admin-feature.localhost", Service: "admin"}},
			Addresses: []route.Address{{Addr: local4, Service: "frontend"}},
		},
		route.Environment{
			Name: "open", Project: "shop", Base: "production", PublicHeader: true,
			Hosts: []route.Host{{Name: "open.localhost"}},
		},
		route.Environment{
			Name: "leaving", Project: "shop", Base: "production", Deleting: true, State: "deleting",
			Hosts: []route.Host{{Name: "leaving.localhost"}},
		},
		route.Environment{
			Name: "blog-main", Project: "blog",
			Services: []route.Service{{Name: "cache", Targets: one}, {Name: "search", Targets: one}},
		},
		route.Environment{
			Name: "lonely", Project: "wiki",
			Services: []route.Service{{Name: "pages", Targets: one}},
		},
		route.Environment{Name: "left", Project: "shop", Base: "right", Hosts: []route.Host{{Name: "left.localhost"}}},
		route.Environment{Name: "right", Project: "shop", Base: "left"},
	)
	return table
}

// brief is what of a match the tables below talk about.
func brief(m route.Match) string {
	parts := []string{m.Outcome.String(), m.Environment, m.Service, m.Provider, m.Strip, strings.Join(m.Projects, "+")}
	return strings.TrimRight(strings.Join(parts, " | "), " |")
}

func TestPublicHostsAndPaths(t *testing.T) {
	table := shopAndBlog(t)
	for _, c := range []struct{ host, path, header, want string }{
		{"production.localhost", "/", "", "found | production | frontend | production"},
		{"PRODUCTION.localhost.:8080", "/x", "", "found | production | frontend | production"},
		{"production.localhost", "/api", "", "found | production | backend | production | /api"},
		{"production.localhost", "/api/", "", "found | production | backend | production | /api"},
		{"production.localhost", "/apix", "", "found | production | frontend | production"},
		{"production.localhost", "/api/v1", "", "found | production | backend | production | /api"},
		{"production.localhost", "/api/v2", "", "found | production | backend | production"},
		{"production.localhost", "/api/v2/x", "", "found | production | backend | production"},
		{"production.localhost", "//api", "", "found | production | frontend | production"},
		{"production.localhost", "*", "", "found | production | frontend | production"},
		{"backend-production.localhost", "/api", "", "found | production | backend | production"},
		{"cache-production.localhost", "/", "", "not http | production | cache | production"},
		{"admin-feature.localhost", "/", "", "missing | feature | admin"},

		// A borrowed route; one that is overridden by a service without it.
		{"feature.localhost", "/", "", "found | feature | frontend | production"},
		{"feature.localhost", "/api", "", "found | feature | frontend | production"},
		{"feature.localhost", "/feature/1", "", "missing | feature | backend | feature"},

		{"left.localhost", "/", "", "missing | left"},
		{"leaving.localhost", "/", "", "missing | leaving | frontend | production"},

		// Only the environment "open" listens to headers from outside.
		{"feature.localhost", "/", "open", "found | feature | frontend | production"},
		{"open.localhost", "/feature", "feature", "missing | feature | backend | feature"},
		{"open.localhost", "/", "Production", "found | production | frontend | production"},
		{"open.localhost", "/", "blog-main", "found | open | frontend | production"},
		{"open.localhost", "/", "gone", "unknown environment | gone"},
		{"open.localhost", "/", "leaving", "missing | leaving | frontend | production"},

		{"gone.localhost", "/", "", "unknown environment | gone"},
		{"a.gone.localhost", "/", "", "unknown host"},
		{"localhost", "/", "", "unknown host"},
		{"example.org", "/", "", "unknown host"},
		{"", "/", "", "unknown host"},
		{"production.localhost..", "/", "", "unknown host"},
		{"production.localhost:8080x", "/", "", "unknown host"},
		{"production.localhost:80:80", "/", "", "unknown host"},
		{"[production.localhost]x", "/", "", "unknown host"},
		{"[::1", "/", "", "unknown host"},
		{"[::1]:8080", "/", "", "unknown host"},
		{strings.Repeat("x", 300), "/", "", "unknown host"},
	} {
		t.Run(c.host+c.path+" "+c.header, func(t *testing.T) {
			if got := brief(table.PublicFor(c.host, c.path, c.header)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestInternalNamesAndAddresses(t *testing.T) {
	table := shopAndBlog(t)
	for _, c := range []struct {
		name string
		call route.Call
		want string
	}{
		{"a header decides", route.Call{Host: "mail.internal:7071", Header: "Feature", Trace: "production"}, "found | feature | mail | feature"},
		{"a header beats the host", route.Call{Host: "mail.production.internal", Header: "feature"}, "found | feature | mail | feature"},
		{"a header beats the address", route.Call{Host: "127.1.2.3:7071", Local: local4, Header: "production"}, "found | production | frontend | production"},
		{"a header of another project is passed over", route.Call{Host: "mail.internal", Header: "blog-main", Trace: "feature"}, "found | feature | mail | feature"},
		{"a header of another project yields to the host", route.Call{Host: "mail.feature.internal", Header: "blog-main"}, "found | feature | mail | feature"},
		{"a header of another project yields to the address", route.Call{Local: local4, Header: "blog-main"}, "found | feature | frontend | production"},
		{"a header of another project yields to the baseline", route.Call{Host: "search.internal", Header: "feature"}, "found | blog-main | search | blog-main"},
		{"a header of nobody is never the baseline", route.Call{Host: "mail.internal", Header: "gone"}, "unknown environment | gone | mail"},
		{"a header of nobody is never the host's", route.Call{Host: "mail.feature.internal", Header: "gone", Trace: "feature"}, "unknown environment | gone | mail"},
		{"a header of nobody is never the address's", route.Call{Local: local4, Header: "gone"}, "unknown environment | gone | frontend"},
		{"a header finds one of two projects", route.Call{Host: "cache.internal", Header: "blog-main"}, "found | blog-main | cache | blog-main"},
		{"tcp is found, but is not http", route.Call{Host: "cache.internal", Header: "feature"}, "not http | feature | cache | production"},

		{"a host names the environment", route.Call{Host: "Mail.Feature.INTERNAL.", Trace: "production"}, "found | feature | mail | feature"},
		{"another suffix", route.Call{Host: "mail.feature.service"}, "found | feature | mail | feature"},
		{"a host names nobody", route.Call{Host: "mail.gone.internal", Trace: "feature"}, "unknown environment | gone | mail"},
		{"what is on the way out still talks", route.Call{Host: "mail.leaving.internal"}, "found | leaving | mail | production"},

		{"a trace", route.Call{Host: "mail.internal", Trace: "feature", Source: "production"}, "found | feature | mail | feature"},
		{"a trace of nobody", route.Call{Host: "mail.internal", Trace: "gone", Source: "feature"}, "found | feature | mail | feature"},
		{"a trace beats the address", route.Call{Local: local4, Trace: "production"}, "found | production | frontend | production"},
		{"a trace of another project", route.Call{Host: "mail.internal", Trace: "blog-main"}, "found | production | mail | production"},

		{"an address", route.Call{Host: "127.1.2.3:7071", Local: local4}, "found | feature | frontend | production"},
		{"an address with a foreign host", route.Call{Host: "shop.example.org", Local: local4}, "found | feature | frontend | production"},
		{"an address written as IPv6", route.Call{Local: netip.AddrFrom16(local4.As16())}, "found | feature | frontend | production"},
		{"an address gives the environment of a name", route.Call{Host: "mail.internal", Local: local4}, "found | feature | mail | feature"},
		{"an address beats the source", route.Call{Host: "mail.internal", Local: local4, Source: "production"}, "found | feature | mail | feature"},
		{"an address of nobody", route.Call{Host: "127.9.9.9", Local: far}, "unknown host"},
		{"a source", route.Call{Host: "mail.internal", Local: far, Source: "feature"}, "found | feature | mail | feature"},
		{"a source of another project", route.Call{Host: "search.internal", Source: "feature"}, "found | blog-main | search | blog-main"},

		{"the baseline", route.Call{Host: "mail.internal"}, "found | production | mail | production"},
		{"two projects", route.Call{Host: "cache.internal"}, "ambiguous |  | cache |  |  | blog+shop"},
		{"no baseline", route.Call{Host: "pages.internal"}, "unknown environment |  | pages"},
		{"no such service", route.Call{Host: "none.internal"}, "unknown service |  | none"},
		{"no such service in the project", route.Call{Host: "search.feature.internal"}, "unknown service | feature | search"},
		{"a service of the project that is not here", route.Call{Host: "mail.left.internal"}, "missing | left | mail"},
		{"not started", route.Call{Host: "backend.feature.internal"}, "missing | feature | backend | feature"},
		{"external", route.Call{Host: "payments.feature.internal"}, "found | feature | payments | production"},
		{"too many labels", route.Call{Host: "x.mail.feature.internal"}, "unknown host"},
		{"no labels", route.Call{Host: ".internal"}, "unknown host"},
		{"an empty label", route.Call{Host: "mail..internal"}, "unknown host"},
		{"the suffix alone", route.Call{Host: "internal"}, "unknown host"},
		{"a public host", route.Call{Host: "feature.localhost"}, "unknown host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := brief(table.Internal(c.call)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestPagesLearnTheStateOfTheServiceElseOfTheEnvironment(t *testing.T) {
	table := shopAndBlog(t)
	for host, want := range map[string]string{
		"backend.feature.internal":  "building: go build",
		"mail.feature.internal":     "starting: environment says so",
		"none.feature.internal":     "starting: environment says so",
		"frontend.feature.internal": "starting: environment says so",
		"mail.gone.internal":        ": ",
	} {
		state, message := table.Internal(route.Call{Host: host}).Info()
		if got := state + ": " + message; got != want {
			t.Errorf("%s: got %q, want %q", host, got, want)
		}
	}
}

func TestEnvironmentsThatContradictThemselvesAreRefused(t *testing.T) {
	for name, e := range map[string]route.Environment{
		"no name":             {},
		"long name":           {Name: strings.Repeat("x", 254)},
		"service no name":     {Services: []route.Service{{}}},
		"service twice":       {Services: []route.Service{{Name: "web"}, {Name: "WEB"}}},
		"relative route":      {Services: []route.Service{{Name: "web", Routes: []dayfly.PathRoute{{Path: "api"}}}}},
		"weight below 0":      {Services: []route.Service{{Name: "web", Targets: []route.Target{{Weight: -1}}}}},
		"host twice":          {Hosts: []route.Host{{Name: "a.b"}, {Name: "A.b."}}},
		"host with port":      {Hosts: []route.Host{{Name: "a.b:80"}}},
		"host without name":   {Hosts: []route.Host{{Name: "."}}},
		"address twice":       {Addresses: []route.Address{{Addr: local4}, {Addr: local4}}},
		"address without any": {Addresses: []route.Address{{Service: "web"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.HasSuffix(name, "name") || e.Services != nil || e.Hosts != nil {
				e.Name = "100%"
			}
			table := route.New(route.Options{})
			err := table.SetEnvironment(e)
			if dayfly.ErrorCode(err) != dayfly.CodeInvalid {
				t.Fatalf("got %v", err)
			}
			if strings.Contains(err.Error(), "%!") {
				t.Errorf("badly formatted: %v", err)
			}
		})
	}
}

func TestAHostOrAddressOfAnotherEnvironmentIsRefusedAndTheHolderNamed(t *testing.T) {
	table := shopAndBlog(t)
	table.SetDeployment("d", endpoints("i", 1))
	for _, e := range []route.Environment{
		{Name: "new", Project: "shop", Hosts: []route.Host{{Name: "new.localhost"}, {Name: "Feature.localhost"}}},
		{Name: "new", Project: "shop", Hosts: []route.Host{{Name: "new.localhost"}}, Addresses: []route.Address{{Addr: local4}}},
	} {
		err := table.SetEnvironment(e)
		if dayfly.ErrorCode(err) != dayfly.CodeConflict || !strings.Contains(err.Error(), "feature") {
			t.Errorf("got %v", err)
		}
		if got := brief(table.Public("new.localhost", "/")); got != "unknown environment | new" {
			t.Errorf("something has changed: %s", got)
		}
	}
}

func TestHostsAndAddressesAreFreeOnceTheirEnvironmentIsGone(t *testing.T) {
	table := shopAndBlog(t)
	table.DeleteEnvironment("Feature")
	if got := brief(table.Internal(route.Call{Local: local4})); got != "unknown host" {
		t.Errorf("the address: %s", got)
	}
	set(t, table, route.Environment{
		Name: "new", Project: "shop", Base: "production",
		Hosts: []route.Host{{Name: "feature.localhost"}}, Addresses: []route.Address{{Addr: local4, Service: "mail"}},
	})
	if got := brief(table.Public("feature.localhost", "/")); got != "found | new | frontend | production" {
		t.Errorf("the host: %s", got)
	}
	if got := brief(table.Internal(route.Call{Local: local4})); got != "found | new | mail | production" {
		t.Errorf("the address: %s", got)
	}
}

func TestABaseThatChangesChangesForAllWhoBorrow(t *testing.T) {
	table := shopAndBlog(t)
	set(t, table, route.Environment{
		Name: "production", Project: "shop",
		Services: []route.Service{{Name: "site", Targets: one, Routes: rootRoute}},
	})
	if got := brief(table.Public("feature.localhost", "/")); got != "found | feature | site | production" {
		t.Errorf("got %s", got)
	}
	table.DeleteEnvironment("production")
	if got := brief(table.Public("feature.localhost", "/")); got != "missing | feature" {
		t.Errorf("got %s", got)
	}
}
