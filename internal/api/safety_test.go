package api_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api/apitest"
)

func TestWhatAPageCouldSendIsRefused(t *testing.T) {
	const create = `{"name":"n"}`
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		code                     string
	}{
		{"unknown host", "GET", "/v1/environments", "", []string{"Host: evil.example"}, 421, "unknown_host"},
		{"host of a preview", "POST", "/v1/environments", create, []string{"Host: shop-x.localhost"}, 421, "unknown_host"},
		{"host that ends like ours", "GET", "/healthz", "", []string{"Host: notdayfly.example.org"}, 421, "unknown_host"},
		{"address that is not loopback", "GET", "/v1/environments", "", []string{"Host: 192.0.2.1:7070"}, 421, "unknown_host"},
		{"foreign origin", "GET", "/v1/environments", "", []string{"Origin: http://evil.example"}, 403, "foreign_origin"},
		{"foreign origin that posts", "POST", "/v1/environments", create, []string{"Origin: http://evil.example"}, 403, "foreign_origin"},
		{"origin of a preview", "POST", "/v1/environments", create, []string{"Host: localhost:7070", "Origin: http://shop.localhost:7070"}, 403, "foreign_origin"},
		{"origin on another port", "POST", "/v1/environments", create, []string{"Host: localhost:7070", "Origin: http://localhost:8080"}, 403, "foreign_origin"},
		{"origin null", "POST", "/v1/environments", create, []string{"Origin: null"}, 403, "foreign_origin"},
		{"origin null that reads", "GET", "/v1/environments", "", []string{"Origin: null"}, 403, "foreign_origin"},
		{"origin that is no URL", "GET", "/v1/environments", "", []string{"Origin: ://"}, 403, "foreign_origin"},
		{"cross-site read", "GET", "/v1/environments", "", []string{"Sec-Fetch-Site: cross-site"}, 403, "foreign_origin"},
		{"same-site read, as from a preview", "GET", "/v1/environments", "", []string{"Sec-Fetch-Site: same-site"}, 403, "foreign_origin"},
		{"cross-site write", "DELETE", "/v1/environments/a", "", []string{"Sec-Fetch-Site: cross-site"}, 403, "foreign_origin"},
		{"cross-site write elsewhere", "POST", "/docs", "", []string{"Sec-Fetch-Site: cross-site"}, 403, "foreign_origin"},
		{"Sec-Fetch-Site that nobody knows", "GET", "/v1/environments", "", []string{"Sec-Fetch-Site: nearby"}, 403, "foreign_origin"},
		{"preflight", "OPTIONS", "/v1/environments", "", []string{"Origin: http://evil.example", "Access-Control-Request-Method: POST"}, 403, "foreign_origin"},
		{"form", "POST", "/v1/environments", create, []string{"Content-Type: application/x-www-form-urlencoded"}, 415, "content_type"},
		{"form with files", "POST", "/v1/environments", create, []string{"Content-Type: multipart/form-data; boundary=x"}, 415, "content_type"},
		{"form of text", "POST", "/v1/environments", create, []string{"Content-Type: text/plain"}, 415, "content_type"},
		{"form without anything in it", "POST", "/v1/environments/a/tests", "", []string{"Content-Type: text/plain"}, 415, "content_type"},
		{"body without a type", "POST", "/v1/environments", create, []string{"Content-Type: "}, 415, "content_type"},
		{"type that only begins like ours", "POST", "/v1/environments", create, []string{"Content-Type: application/jsonp"}, 415, "content_type"},
		{"type that is none", "PUT", "/v1/environments/n", create, []string{"Content-Type: ;"}, 415, "content_type"},
		{"type of a patch", "PATCH", "/v1/environments/a", create, []string{"Content-Type: application/merge-patch+json"}, 415, "content_type"},
		{"body of a deletion", "DELETE", "/v1/environments/a", "x=y", []string{"Content-Type: text/plain"}, 415, "content_type"},
		{"encoded path", "POST", "/%761/environments", create, []string{"Content-Type: text/plain"}, 415, "content_type"},
		{"body too big", "POST", "/v1/environments", `{"name":"` + strings.Repeat("n", 1<<20) + `"}`, nil, 413, "invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.add("a")
			got := r.call(c.method, c.path, c.body, c.headers...)
			r.refusal(got, c.status, c.code)
			if names := r.control.Names(); !slices.Equal(names, []string{"a"}) {
				t.Errorf("there are %v", names)
			}
			if got.header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("a page of another origin may read the answer")
			}
			if env := decode[dayfly.Environment](r, r.call("GET", "/v1/environments/a", ""), 200); env.Phase != dayfly.PhaseReady || env.Revision != 7 {
				t.Errorf("it was changed: %+v", env)
			}
		})
	}
}

func TestAFormOfAnotherSiteIsRefusedAsBrowsersSendIt(t *testing.T) {
	r := newRig(t)
	form := url.Values{`{"name":"n","x":"`: {`"}`}}
	for _, headers := range [][]string{
		{"Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"},
		{"Origin: null", "Sec-Fetch-Site: cross-site"},
		{"Sec-Fetch-Site: cross-site"},
		{}, // a browser that says neither
	} {
		for _, kind := range []string{"application/x-www-form-urlencoded", "text/plain"} {
			got := r.call("POST", "/v1/environments", form.Encode(), append(headers, "Content-Type: "+kind)...)
			if got.status != http.StatusForbidden && got.status != http.StatusUnsupportedMediaType {
				t.Errorf("%v %s: %d %s", headers, kind, got.status, got.body)
			}
		}
	}
	if len(r.control.Requests()) != 0 {
		t.Error("a form has created something")
	}
}

func TestABodyOfUnknownLengthIsLimitedAndTyped(t *testing.T) {
	r := newRig(t)
	for kind, status := range map[string]int{"text/plain": 415, "": 415, "application/json": 413} {
		body := io.MultiReader(strings.NewReader(`{"name":"n`), strings.NewReader(strings.Repeat("n", 3<<20)))
		req, err := http.NewRequestWithContext(t.Context(), "POST", r.server.URL+"/v1/environments", body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = -1 // as the server has it of a body in chunks
		if kind != "" {
			req.Header.Set("Content-Type", kind)
		}
		recorder := httptest.NewRecorder()
		apitest.Handler(r.control).ServeHTTP(recorder, req)
		if recorder.Code != status {
			t.Errorf("type %q: %d %s", kind, recorder.Code, recorder.Body)
		}
	}
	if len(r.control.Requests()) != 0 {
		t.Error("it has created something")
	}
}

func TestWhatComesFromHereIsServed(t *testing.T) {
	r := newRig(t)
	address := r.server.Listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	for _, headers := range [][]string{
		nil, {"Host: localhost"}, {"Host: LOCALHOST:" + port}, {"Host: 127.0.0.1"}, {"Host: 127.8.9.10:1"}, {"Host: [::1]:7070"}, {"Host: [::1]"},
		{"Host: dayfly.example.org"}, {"Host: Dayfly.Example.org:443"},
		{"Origin: http://" + address}, {"Host: localhost:7070", "Origin: http://localhost:7070"},
		{"Sec-Fetch-Site: same-origin"}, {"Sec-Fetch-Site: none"},
	} {
		if got := r.call("GET", "/v1/environments", "", headers...); got.status != http.StatusOK {
			t.Errorf("%v: %d %s", headers, got.status, got.body)
		}
	}
	for _, kind := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON"} {
		if got := r.call("POST", "/v1/environments", `{"name":"n"}`, "Content-Type: "+kind); got.status >= 300 {
			t.Errorf("%s: %d %s", kind, got.status, got.body)
		}
	}
	// A link on another page may lead to the documentation.
	for _, path := range []string{"/docs", "/openapi.json", "/healthz"} {
		if got := r.call("GET", path, "", "Sec-Fetch-Site: cross-site"); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
}

func TestEveryAnswerTellsBrowsersToTrustNothing(t *testing.T) {
	r := newRig(t)
	for _, got := range []reply{r.call("GET", "/v1/environments", ""), r.call("GET", "/docs", ""), r.call("GET", "/nowhere", ""), r.call("GET", "/", "", "Host: evil.example")} {
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"} {
			if v := got.header.Get(name); v != want {
				t.Errorf("%d has %s %q", got.status, name, v)
			}
		}
		if policy := got.header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "script-src") {
			t.Errorf("%d has the policy %q", got.status, policy)
		}
	}
}
