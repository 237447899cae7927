package api_test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

// endpoints are those that were promised.
var endpoints = []string{
	"POST /v1/projects", "POST /v1/projects/{project}/hook", "POST /v1/hooks/generic", "GET /v1/projects/{project}/events", "GET /v1/projects", "GET /v1/projects/{project}", "DELETE /v1/projects/{project}",
	"POST /v1/environments", "GET /v1/environments", "GET /v1/environments/{env}", "PUT /v1/environments/{env}", "PATCH /v1/databases/{id}", "PATCH /v1/environments/{env}", "DELETE /v1/environments/{env}",
	"GET /v1/environments/{env}/spec", "GET /v1/environments/{env}/logs", "GET /v1/environments/{env}/events", "POST /v1/environments/{env}/tests", "GET /v1/environments/{env}/propagation",
	"GET /v1/services", "GET /v1/services/{service}/instances", "GET /v1/doctor", "GET /v1/doctor/retire",
	"POST /v1/tokens", "GET /v1/tokens", "DELETE /v1/tokens/{token}",
	"GET /v1/services/{service}/instances/{id}", "PUT /v1/services/{service}/instances/{id}", "DELETE /v1/services/{service}/instances/{id}",
	"GET /v1/routes", "GET /v1/routes/{name}", "PUT /v1/routes/{name}", "DELETE /v1/routes/{name}",
	"POST /v1/databases", "GET /v1/databases", "GET /v1/databases/{id}", "DELETE /v1/databases/{id}", "POST /v1/databases/{id}/reset",
	"POST /v1/templates", "GET /v1/templates", "GET /v1/templates/{name}", "DELETE /v1/templates/{name}", "POST /v1/templates/{name}/refresh",
}

func TestTheOpenAPIDocumentDescribesEveryEndpoint(t *testing.T) {
	r := newRig(t)
	got := r.call("GET", "/openapi.json", "")
	var doc struct {
		OpenAPI string `json:"openapi"`
		Info    struct{ Title, Version string }
		Paths   map[string]map[string]struct {
			Summary   string
			Responses map[string]any
		}
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal([]byte(got.body), &doc); err != nil || got.status != http.StatusOK {
		t.Fatalf("%d, %v", got.status, err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.") || doc.Info.Title != "dayfly" || doc.Info.Version != "v1.2.3" {
		t.Errorf("it is OpenAPI %q of %+v", doc.OpenAPI, doc.Info)
	}
	for _, e := range endpoints {
		method, path, _ := strings.Cut(e, " ")
		op, ok := doc.Paths[path][strings.ToLower(method)]
		if !ok || op.Summary == "" || len(op.Responses) == 0 {
			t.Errorf("%s is described as %+v", e, op)
		}
	}
	for _, ref := range regexp.MustCompile(`"\$ref":\s*"([^"]*)"`).FindAllStringSubmatch(got.body, -1) {
		name, ok := strings.CutPrefix(ref[1], "#/components/schemas/")
		if _, there := doc.Components.Schemas[name]; !ok || !there {
			t.Errorf("%s leads nowhere", ref[1])
		}
	}
}

func TestTheDocumentationShowsEveryEndpointAndLoadsNothing(t *testing.T) {
	r := newRig(t)
	got := r.call("GET", "/docs", "")
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %v", got.status, got.header)
	}
	page := xml.NewDecoder(strings.NewReader(got.body))
	page.Strict, page.AutoClose, page.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	ids := map[string]bool{}
	var links, calls []string
	call := false // within a line that shows a method and a path
	for {
		token, err := page.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var n xml.StartElement
		switch token := token.(type) {
		case xml.StartElement:
			n = token
		case xml.CharData:
			if call {
				calls[len(calls)-1] += strings.TrimSpace(string(token)) + " "
			}
			continue
		case xml.EndElement:
			if token.Name.Local == "div" {
				call = false
			}
			continue
		default:
			continue
		}
		if slices.Contains([]string{"script", "link", "img", "iframe", "object", "embed", "base", "form", "video", "audio", "source"}, n.Name.Local) {
			t.Errorf("the page has a <%s>", n.Name.Local)
		}
		for _, a := range n.Attr {
			switch a.Name.Local {
			case "id":
				if ids[a.Value] {
					t.Errorf("the id %s is there twice", a.Value)
				}
				ids[a.Value] = true
			case "href":
				links = append(links, a.Value)
			case "class":
				if a.Value == "call" {
					call = true
					calls = append(calls, "")
				}
			case "src", "srcset", "style", "background", "ping":
				t.Errorf("<%s> has %s=%q", n.Name.Local, a.Name.Local, a.Value)
			}
			if strings.HasPrefix(a.Name.Local, "on") {
				t.Errorf("<%s> has %s", n.Name.Local, a.Name.Local)
			}
		}
	}
	for i := range calls {
		calls[i] = strings.TrimSpace(calls[i])
	}
	if strings.Contains(got.body, "url(") || strings.Contains(got.body, "@import") || strings.Contains(got.body, "://") {
		t.Error("the page loads or names something from elsewhere")
	}
	slices.Sort(calls)
	want := slices.Sorted(slices.Values(endpoints))
	if !slices.Equal(calls, want) {
		t.Errorf("the page shows\n%s\nwant\n%s", strings.Join(calls, "\n"), strings.Join(want, "\n"))
	}
	for _, l := range links {
		if l == "/openapi.json" {
			continue
		}
		if id, ok := strings.CutPrefix(l, "#"); !ok || !ids[id] {
			t.Errorf("the link %s leads nowhere", l)
		}
	}
	for _, code := range []dayfly.Code{dayfly.CodeInvalid, dayfly.CodeUnauthorized, dayfly.CodeForbidden, dayfly.CodeNotFound, dayfly.CodeConflict, dayfly.CodeTimeout, dayfly.CodeUnavailable, dayfly.CodeFailed, dayfly.CodeInternal} {
		if !strings.Contains(got.body, "<code>"+string(code)+"</code>") {
			t.Errorf("the code %s is not explained", code)
		}
	}
	if again := r.call("GET", "/docs", ""); again.body != got.body {
		t.Error("the page differs from one time to the next")
	}
}

func TestTheRootLeadsToTheDocumentation(t *testing.T) {
	r := newRig(t)
	if got := r.call("GET", "/", ""); got.status != http.StatusFound || got.header.Get("Location") != "/docs" {
		t.Errorf("%d to %q", got.status, got.header.Get("Location"))
	}
}

func TestHealthAndReadinessAreAnsweredInText(t *testing.T) {
	r := newRig(t)
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
		if got := r.call("GET", path, ""); got.status != http.StatusOK || got.body != want {
			t.Errorf("%s: %d %q", path, got.status, got.body)
		}
	}
	r.control.Fail(dayfly.Errorf(dayfly.CodeUnavailable, "the state cannot be reached"))
	r.refusal(r.call("GET", "/readyz", ""), http.StatusServiceUnavailable, "unavailable")
	if got := r.call("GET", "/healthz", ""); got.status != http.StatusOK {
		t.Errorf("a server without state is not alive: %d", got.status)
	}
}

func TestWhatIsNotThereIsAProblem(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/nowhere", "/v1", "/v1/", "/v1/nothing", "/v1/environments/a/nothing", "/v1/environments/nobody", "/v1/environments/nobody/events", "/v1/projects/nobody", "/v1/services/nobody/instances"} {
		r.refusal(r.call("GET", path, ""), http.StatusNotFound, "not_found")
	}
}

func TestAWrongMethodIsToldTheRightOnes(t *testing.T) {
	r := newRig(t)
	for call, allow := range map[string]string{
		"DELETE /v1/environments": "GET, POST", "POST /v1/environments/a": "GET, PUT, PATCH, DELETE", "PUT /v1/projects": "GET, POST",
		"POST /v1/environments/a/events": "GET", "POST /docs": "GET", "DELETE /healthz": "GET", "OPTIONS /v1/services": "GET", "POST /": "GET",
	} {
		method, path, _ := strings.Cut(call, " ")
		got := r.call(method, path, "")
		r.refusal(got, http.StatusMethodNotAllowed, "not_found")
		if got.header.Get("Allow") != allow {
			t.Errorf("%s: allowed are %q, want %q", call, got.header.Get("Allow"), allow)
		}
	}
}

func TestHeadIsAnsweredAsGetWithoutABody(t *testing.T) {
	r := newRig(t)
	r.add("a")
	for _, path := range []string{"/v1/environments/a", "/v1/environments", "/docs", "/openapi.json", "/healthz", "/v1/environments/a/events", "/v1/environments/a/events?follow=true", "/nowhere", "/v1/environments/nobody"} {
		get := reply{}
		if !strings.Contains(path, "follow") {
			get = r.call("GET", path, "")
		} else {
			get = reply{status: http.StatusOK, header: http.Header{"Content-Type": {"text/event-stream"}}}
		}
		head := r.call("HEAD", path, "")
		if head.status != get.status || head.body != "" || head.header.Get("Content-Type") != get.header.Get("Content-Type") || head.header.Get("ETag") != get.header.Get("ETag") {
			t.Errorf("%s: HEAD %d %v %q, GET %d %v", path, head.status, head.header, head.body, get.status, get.header)
		}
	}
}
