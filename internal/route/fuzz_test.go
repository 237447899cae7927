package route_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/route"
)

func FuzzPublicHostsMeanTheSameInAnyDress(f *testing.F) {
	for _, host := range []string{"feature.localhost", "FEATURE.localhost.:8080", "gone.localhost", "[::1]:80", "a:b", "..", ":", "\u212Ashop.localhost"} {
		f.Add(host)
	}
	table := shopAndBlog(f)
	f.Fuzz(func(t *testing.T, host string) {
		m := table.Public(host, "/")
		for _, dressed := range []string{upper(host), lower(host)} {
			if got := table.Public(dressed, "/"); answerOf(got) != answerOf(m) {
				t.Errorf("%q: %+v, %q: %+v", host, answerOf(m), dressed, answerOf(got))
			}
		}
		if m.Outcome == route.UnknownHost || m.Outcome == route.UnknownEnvironment {
			return
		}
		name, _, _ := strings.Cut(lower(host), ":")
		name = strings.TrimSuffix(strings.Trim(name, "[]"), ".")
		if got := table.Public(name, "/"); answerOf(got) != answerOf(m) {
			t.Errorf("%q is %+v, but %q is %+v", host, answerOf(m), name, answerOf(got))
		}
	})
}

// upper and lower change ASCII letters only, as DNS does.
func upper(s string) string { return ascii(s, 'a', 'A') }
func lower(s string) string { return ascii(s, 'A', 'a') }

func ascii(s string, from, to byte) string {
	b := []byte(s)
	for i, c := range b {
		if from <= c && c < from+26 {
			b[i] = c - from + to
		}
	}
	return string(b)
}

func FuzzTheLongestRouteOnASlashWins(f *testing.F) {
	for _, path := range paths {
		f.Add("/", "/api/", path)
	}
	f.Fuzz(func(t *testing.T, first, second, path string) {
		m := model{envs: map[string]route.Environment{}, projects: map[string]string{}}
		e := route.Environment{
			Name: "main", Project: "shop", Hosts: []route.Host{{Name: "main.localhost"}},
			Services: []route.Service{
				{Name: "first", Protocol: "http", Targets: one, Routes: []dayfly.PathRoute{{Path: first}}},
				{Name: "second", Protocol: "http", Targets: one, Routes: []dayfly.PathRoute{{Path: second, Strip: true}}},
			},
		}
		table := route.New(route.Options{})
		if err := table.SetEnvironment(e); err != nil {
			if strings.HasPrefix(first, "/") && strings.HasPrefix(second, "/") {
				t.Fatal(err)
			}
			return
		}
		m.set(e)
		got := table.Public("main.localhost", path)
		if want := m.public("main.localhost", path, ""); answerOf(got) != want {
			t.Errorf("\n got %+v\nwant %+v", answerOf(got), want)
		}
		if !strings.HasPrefix(path, got.Strip) {
			t.Errorf("%q can't be stripped of %q", path, got.Strip)
		}
	})
}

func FuzzInternalNames(f *testing.F) {
	for _, host := range []string{"mail.internal", "mail.feature.internal:7071", "mail.feature.service.", "..internal", ".internal", "internal"} {
		f.Add(host)
	}
	table := shopAndBlog(f)
	f.Fuzz(func(t *testing.T, host string) {
		m := table.Internal(route.Call{Host: host})
		if m.Outcome == route.UnknownHost {
			return
		}
		if !strings.HasPrefix(strings.TrimPrefix(host, "["), m.Service) && !strings.HasPrefix(lower(strings.TrimPrefix(host, "[")), m.Service) {
			t.Errorf("%q calls %q?", host, m.Service)
		}
		if got := table.Internal(route.Call{Host: upper(host)}); utf8.ValidString(host) && answerOf(got) != answerOf(m) {
			t.Errorf("%q: %+v, in upper case %+v", host, answerOf(m), answerOf(got))
		}
	})
}
