package route_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/route"
)

func TestAnEscapedSlashIsPartOfASegment(t *testing.T) {
	table := route.New(route.Options{})
	set(t, table, route.Environment{
		Name: "main", Project: "shop", Hosts: []route.Host{{Name: "main.localhost"}},
		Services: []route.Service{
			{Name: "web", Targets: one, Routes: []dayfly.PathRoute{{Path: "/"}}},
			{Name: "api", Targets: one, Routes: []dayfly.PathRoute{{Path: "/api", Strip: true}}},
			{Name: "files", Targets: one, Routes: []dayfly.PathRoute{{Path: "/api/a b", Strip: true}}},
		},
	})
	for _, test := range []struct{ path, service, left string }{
		{"/api", "api", "/"},
		{"/api/", "api", "/"},
		{"/api/v1", "api", "/v1"},
		{"/api%2Fv1", "web", ""},
		{"/api%2fv1", "web", ""},
		{"/api/v1%2Fx", "api", "/v1%2Fx"},
		{"/%61pi/v1%2Fx/y", "api", "/v1%2Fx/y"},
		{"/api/%2F", "api", "/%2F"},
		{"/api/a%20b/c%2Fd", "files", "/c%2Fd"},
		{"/api/a%20b", "files", "/"},
		{"/api%252Fv1", "web", ""},
		{"/api%252Fv1%2F", "web", ""},
	} {
		u, err := url.ParseRequestURI(test.path)
		if err != nil {
			t.Fatal(err)
		}
		m := table.Public("main.localhost", route.PathOf(u))
		if m.Service != test.service {
			t.Errorf("%s leads to %s, want %s", test.path, m.Service, test.service)
		}
		if m.Strip != "" {
			if left := route.StripRaw(u.EscapedPath(), m.Strip); left != test.left {
				t.Errorf("%s without %s is %s, want %s", test.path, m.Strip, left, test.left)
			}
		}
	}
}

// Whatever is escaped: a request has as many segments when it is looked up as it has on the wire, and what is
// left of one whose route is stripped says the same escaped and not.
func FuzzPathsAreLookedUpBySegments(f *testing.F) {
	for _, path := range []string{"/api/v1", "/api%2Fv1", "/api/%2f%2F", "/%61pi/x%2Fy", "/api%252F", "/api//x", "/api%"} {
		f.Add(path)
	}
	table := route.New(route.Options{})
	set(f, table, route.Environment{
		Name: "main", Project: "shop", Hosts: []route.Host{{Name: "main.localhost"}},
		Services: []route.Service{{Name: "api", Targets: one, Routes: []dayfly.PathRoute{{Path: "/api", Strip: true}}}},
	})
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || !strings.HasPrefix(u.Path, "/") {
			return
		}
		got := route.PathOf(u)
		if strings.Count(got, "/") != strings.Count(u.EscapedPath(), "/") {
			t.Errorf("%q is looked up as %q", u.EscapedPath(), got)
		}
		m := table.Public("main.localhost", got)
		if m.Strip == "" {
			return
		}
		raw := route.StripRaw(u.EscapedPath(), m.Strip)
		left, err := url.PathUnescape(raw)
		if want := strings.TrimPrefix(u.Path, m.Strip); err != nil || !strings.HasPrefix(raw, "/") || left != want && want != "" {
			t.Errorf("of %q %q is left, and %q of %q: %v", u.EscapedPath(), raw, want, u.Path, err)
		}
	})
}
