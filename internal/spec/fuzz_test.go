package spec

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

// fits fails for errors that users cannot read.
func fits(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	switch dayfly.ErrorCode(err) {
	case dayfly.CodeInvalid, dayfly.CodeNotFound:
	default:
		t.Fatalf("%v is no error for users", err)
	}
	if strings.Contains(err.Error(), os.TempDir()) {
		t.Fatalf("the message tells where the server keeps files: %v", err)
	}
}

func FuzzProjectFile(f *testing.F) {
	for _, c := range mistakes {
		if !strings.Contains(c.file, "-- ") {
			f.Add([]byte(c.file), "A=1\nB=$A\n")
		}
	}
	f.Add([]byte(strings.TrimPrefix(everyKey, "\n-- compose.yaml --\n")), "HTTP_PORT=1\n")
	f.Add([]byte("include: [compose.yaml]\nservices: {a: {extends: {file: .env, service: A}}}\n"), "services: {A: {image: x}}")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, file []byte, env string) {
		for name, data := range map[string][]byte{"compose.yaml": file, ".env": []byte(env)} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p, err := LoadDir(dir, Options{})
		fits(t, err)
		if err != nil {
			return
		}
		if len(p.Services()) == 0 {
			t.Fatal("a project without services")
		}
		for _, s := range p.Services() {
			if dayfly.Slug(s) != s {
				t.Fatalf("the service %q", s)
			}
			raw, err := p.Raw(s)
			if err != nil {
				t.Fatalf("%s was loaded, and then: %v", s, err)
			}
			def, err := p.Definition(s, map[string]string{"DAYFLY_ENV": "x"})
			fits(t, err)
			if err == nil && (def.Service != s || !reflect.DeepEqual(def.Run, raw.Run)) {
				t.Fatalf("%+v\n%+v", raw, def)
			}
			p.Hash(s)
		}
	})
}

func FuzzProcfile(f *testing.F) {
	for _, s := range []string{"", "web: a\n", "web: a $PORT\nrelease: b\n# c\n\nd: 'e f'", "web", "web:", ":", "a: b\na: c", "web: a | b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := procfile("Procfile", data)
		fits(t, err)
		if err != nil {
			return
		}
		for _, s := range p.Services() {
			def, err := p.Definition(s, nil)
			if err != nil || len(def.Run) == 0 || dayfly.Slug(s) != s {
				t.Fatalf("%q: %+v, %v", s, def, err)
			}
		}
	})
}

func FuzzEnvironmentFile(f *testing.F) {
	for _, s := range []string{
		"", "name: a", "name: a\nservices: [b, {name: c, version: 1}]", "name: a\nkeep: forever\nonly: [b]",
		"name: a\nservices: [{name: b, variables: {A: !!binary eA==, B: |\n  x\n}}]", "<<: {name: a}", "a: &a [*a]",
		"- name: a\n- {name: b, header: B}", "&a [*a]", "- &a {name: a}\n- *a", "name: a\nformat: mayfly\nservices: [b, {name: c, route: api/}]",
		"name: prod\nprefix: www\nservices: [{name: f, version: 0.0.1, route: /}]",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, o := range []EnvironmentOptions{{}, {Mayfly: true}} {
			all, err := ParseEnvironmentFiles("e.yaml", data, o)
			fits(t, err)
			if err != nil {
				continue
			}
			names := map[string]bool{}
			for _, want := range all {
				if err := dayfly.ValidName(want.Name); err != nil {
					t.Fatal(err)
				}
				if names[want.Name] {
					t.Fatalf("%s is there twice", want.Name)
				}
				names[want.Name] = true
				if want.Keep%1e6 != 0 {
					continue // less than a millisecond is not written
				}
				if len(want.Only) == 0 {
					want.Only = nil
				}
				got, err := parseOne("e.yaml", FormatEnvironmentFile(want))
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Fatalf("%s\n%v\ngot  %+v\nwant %+v", FormatEnvironmentFile(want), err, got, want)
				}
			}
			if len(names) == 0 {
				t.Fatal("nothing is in it, and nothing is wrong with it")
			}
		}
	})
}
