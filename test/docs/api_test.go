package docs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api"
)

// control answers one question with an error; no other is asked.
type control struct {
	api.Control
	err error
}

func (c control) Projects(context.Context) ([]dayfly.Project, error) { return nil, c.err }

// newAPI is the API of a server that answers err to who asks for its projects.
func newAPI(err error) http.Handler {
	return api.New(api.Config{Control: control{err: err}, Version: "test", Logger: slog.New(slog.DiscardHandler)})
}

func get(t *testing.T, h http.Handler, path string, change func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+path, nil)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

type schema struct {
	Ref        string            `json:"$ref"`
	Properties map[string]schema `json:"properties"`
}

type operation struct {
	Parameters []struct {
		Name, In string
	}
	RequestBody *struct {
		Content map[string]struct{ Schema schema }
	}
}

// document is what the server says about itself, as far as it is looked at here.
type document struct {
	Paths      map[string]map[string]operation
	Components struct{ Schemas map[string]schema }
}

func openAPI(t *testing.T) document {
	t.Helper()
	w := get(t, newAPI(nil), "/openapi.json", nil)
	var doc document
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatalf("%d: %v", w.Code, err)
	}
	if len(doc.Paths) == 0 || len(doc.Components.Schemas) == 0 {
		t.Fatal("the OpenAPI document is not read as it should be")
	}
	return doc
}

func (d document) resolve(s schema) schema {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return d.Components.Schemas[name]
	}
	return s
}

func TestEveryOperationIsDescribedWithAllThatItTakes(t *testing.T) {
	p := readPage(t, "docs/api.md")
	doc := openAPI(t)
	spec, _ := p.section("Spec")
	for path, methods := range doc.Paths {
		for method, op := range methods {
			title := strings.ToUpper(method) + " " + path
			text, ok := p.section(title)
			if !ok {
				t.Errorf("docs/api.md has no section %q", title)
				continue
			}
			if !strings.Contains(p.text, "[`"+title+"`](#"+slug(title)+")") {
				t.Errorf("the list of docs/api.md does not have %s", title)
			}
			if !strings.Contains(text, "\ncurl ") {
				t.Errorf("docs/api.md has no example of %s", title)
			}
			for _, parameter := range op.Parameters {
				if parameter.In != "path" && !mentions(text, parameter.Name) {
					t.Errorf("docs/api.md does not describe %s of %s", parameter.Name, title)
				}
			}
			if op.RequestBody == nil {
				continue
			}
			if strings.Contains(text, "](#spec)") {
				text += spec
			}
			for name := range doc.resolve(op.RequestBody.Content["application/json"].Schema).Properties {
				if !mentions(text, name) {
					t.Errorf("docs/api.md does not describe %s in the body of %s", name, title)
				}
			}
		}
	}
}

func TestNoOperationIsDescribedThatDoesNotExist(t *testing.T) {
	doc := openAPI(t)
	title := regexp.MustCompile(`^(GET|POST|PUT|PATCH|DELETE) (/\S*)$`)
	for _, s := range readPage(t, "docs/api.md").sections {
		m := title.FindStringSubmatch(s.title)
		if m == nil {
			continue
		}
		if _, ok := doc.Paths[m[2]][strings.ToLower(m[1])]; !ok {
			t.Errorf("docs/api.md describes %s, which does not exist", s.title)
		}
	}
}

func TestEndpointsOutsideOfTheOpenAPIDocumentAnswer(t *testing.T) {
	text, _ := readPage(t, "docs/api.md").section("The server itself")
	paths := regexp.MustCompile("`(?:GET )?(/[a-z0-9./-]*)`").FindAllStringSubmatch(text, -1)
	if len(paths) == 0 {
		t.Fatal("docs/api.md names none")
	}
	for _, m := range paths {
		if m[1] == "/readyz" || m[1] == "/schemas/" {
			continue // needs the state; needs a name
		}
		if w := get(t, newAPI(nil), m[1], nil); w.Code >= http.StatusBadRequest {
			t.Errorf("docs/api.md describes %s, which answers %d", m[1], w.Code)
		}
	}
}

// objects are what the API answers, by the titles of docs/api.md.
var objects = map[string]any{
	"Project": dayfly.Project{}, "Environment": dayfly.Environment{}, "Spec": dayfly.EnvironmentSpec{}, "Event": dayfly.Event{}, "Line": dayfly.LogLine{},
	"Test run": dayfly.TestRun{}, "Service": dayfly.ServiceInfo{}, "Instance": dayfly.InstanceInfo{}, "Token": dayfly.Token{}, "Database": dayfly.Database{}, "Template": dayfly.Template{}, "Errors": api.Problem{},
}

// fields gives the names in JSON of all fields of a type and of the types within.
func fields(typ reflect.Type) []string {
	for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Map {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || !strings.Contains(typ.PkgPath(), "dayfly") {
		return nil
	}
	var names []string
	for _, f := range reflect.VisibleFields(typ) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "-" {
			continue
		}
		names = append(append(names, name), fields(f.Type)...)
	}
	return names
}

func TestEveryFieldOfAnAnswerIsDescribed(t *testing.T) {
	p := readPage(t, "docs/api.md")
	for title, object := range objects {
		text, ok := p.section(title)
		names := fields(reflect.TypeOf(object))
		if !ok || len(names) == 0 {
			t.Errorf("%s is not described, or has no fields", title)
		}
		for _, name := range names {
			if !mentions(text, name) && !strings.Contains(text, `"`+name+`":`) {
				t.Errorf("docs/api.md does not describe the field %s of %s", name, title)
			}
		}
	}
}

func TestExamplesOfObjectsAreObjectsOfTheAPI(t *testing.T) {
	p := readPage(t, "docs/api.md")
	checked := 0
	for title, object := range objects {
		text, _ := p.section(title)
		for _, block := range blocks(text)["json"] {
			checked++
			d := json.NewDecoder(strings.NewReader(block))
			d.DisallowUnknownFields()
			if err := d.Decode(reflect.New(reflect.TypeOf(object)).Interface()); err != nil {
				t.Errorf("the example of %s is none: %v", title, err)
			}
		}
	}
	if checked == 0 {
		t.Error("no example was found")
	}
}

func TestEveryPhaseAndKindIsDescribed(t *testing.T) {
	text := readPage(t, "docs/api.md").text
	for _, prefix := range []string{"Phase", "Instance", "Event", "From", "Database", "Template", "Source"} {
		values := constants(t, prefix)
		if len(values) == 0 {
			t.Errorf("there are no constants %s…", prefix)
		}
		for _, value := range values {
			if !mentions(text, value) {
				t.Errorf("docs/api.md does not describe %s (%s…)", value, prefix)
			}
		}
	}
}

func TestSafetyIsAsDescribed(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*http.Request)
		code   string
	}{
		"another host":   {func(r *http.Request) { r.Host = "example.org" }, "unknown_host"},
		"another origin": {func(r *http.Request) { r.Header.Set("Origin", "http://example.org") }, "foreign_origin"},
		"another site":   {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, "foreign_origin"},
		"a form":         {func(r *http.Request) { r.ContentLength = 1; r.Header.Set("Content-Type", "text/plain") }, "content_type"},
	} {
		t.Run(name, func(t *testing.T) {
			w := get(t, newAPI(nil), "/v1/projects", tc.change)
			var p api.Problem
			if err := json.NewDecoder(bytes.NewReader(w.Body.Bytes())).Decode(&p); err != nil {
				t.Fatal(err)
			}
			if want := documented(t)[tc.code]; p.Code != tc.code || w.Code != want.status {
				t.Errorf("%d %s was answered, and docs/errors.md says %d for %s", w.Code, p.Code, want.status, tc.code)
			}
		})
	}
}

func TestEventReasonsAreDescribed(t *testing.T) {
	text, _ := readPage(t, "docs/api.md").section("Event")
	reasons := append(constants(t, "Reason"), literals(t, "internal/reconcile", "Reason")...)
	reasons = slices.DeleteFunc(reasons, func(s string) bool { return strings.Contains(s, " ") }) // why something goes, which is told in words
	if !slices.Contains(reasons, "shift") || !slices.Contains(reasons, dayfly.ReasonDeleted) {
		t.Fatalf("the reasons are not read as they should be: %q", reasons)
	}
	for _, reason := range reasons {
		if !mentions(text, reason) {
			t.Errorf("docs/api.md does not describe the reason %s", reason)
		}
	}
}
