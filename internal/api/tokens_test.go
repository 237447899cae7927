package api_test

import (
	"context"
	"encoding/base64"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api"
	"github.com/dayfly-dev/dayfly/internal/api/apitest"
)

// exposed is a rig whose API others reach, with one token: its secret is secret-of-ci.
func exposed(t *testing.T) *rig {
	t.Helper()
	c := &apitest.Control{}
	if _, _, err := c.CreateToken(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(apitest.Exposed(c))
	t.Cleanup(server.Close)
	return &rig{T: t, control: c, server: server}
}

// local is a rig whose API only users of the host reach, with the same token.
func local(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	if _, _, err := r.control.CreateToken(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	return r
}

// closed are one request of each kind.
var closed = []struct{ method, path, body string }{
	{"GET", "/v1/environments", ""},
	{"HEAD", "/v1/environments", ""},
	{"POST", "/v1/environments", `{"name":"n","project":"shop","branch":"main"}`},
	{"PUT", "/v1/environments/a", `{"project":"shop","branch":"other"}`},
	{"PATCH", "/v1/environments/a", `{"extend_by":"1h"}`},
	{"DELETE", "/v1/environments/a", ""},
	{"GET", "/v1/environments/a/events?follow=true", ""},
	{"GET", "/v1/environments/a/logs?follow=true", ""},
	{"GET", "/v1/projects", ""},
	{"GET", "/v1/tokens", ""},
	{"POST", "/v1/tokens", `{"name":"mine"}`},
	{"DELETE", "/v1/tokens/ci", ""},
	{"PUT", "/v1/services/web/instances/a", `{"version":"v1","address":":80"}`},
	{"DELETE", "/v1/services/web/instances/a", ""},
	{"PUT", "/v1/routes/a", `{"host":"a","to":"http://x"}`},
	{"DELETE", "/v1/routes/a", ""},
	{"GET", "/v1/doctor", ""},
	{"GET", "/v1/doctor/retire", ""},
	{"GET", "/v1/environments/a/propagation", ""},
	{"GET", "/v1/nowhere", ""},
	{"GET", "/%761/environments", ""},
	{"GET", "//v1/environments", ""},
	{"GET", "/healthz/../v1/environments", ""},
	{"GET", "/docs", ""},
	{"GET", "/openapi.json", ""},
	{"GET", "/schemas/TokenBody.json", ""},
	{"GET", "/", ""},
	{"OPTIONS", "/v1/environments", ""},
}

// wrong are headers that let nobody in where a token is needed; those after the first
// three are no token at all.
var wrong = []string{
	"Authorization: Bearer secret-of-nobody", "Authorization: Bearer secret-of-c", "Authorization: Bearer",
	"Authorization: ", "Authorization: Basic c2VjcmV0LW9mLWNp", "Authorization: secret-of-ci", "X-Token: secret-of-ci", "Cookie: token=secret-of-ci",
}

func TestAnExposedAPIAnswersNothingWithoutAToken(t *testing.T) {
	for _, e := range closed {
		t.Run(e.method+" "+e.path, func(t *testing.T) {
			r := exposed(t)
			r.add("a")
			for _, header := range wrong {
				got := r.call(e.method, e.path, e.body, header)
				if got.status != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") != `Bearer realm="dayfly"` {
					t.Errorf("%s: %d %v %s", header, got.status, got.header, got.body)
				}
				if e.method != "HEAD" {
					p := r.refusal(got, 401, "unauthorized")
					if !strings.Contains(p.Detail, "DAYFLY_TOKEN") || strings.Contains(got.body, "secret-of") {
						t.Errorf("%s: %s", header, got.body)
					}
				}
			}
			if names := r.control.Names(); !slices.Equal(names, []string{"a"}) || len(r.control.Patches()) != 0 {
				t.Errorf("something was done: %v", names)
			}
			if tokens, _ := r.control.Tokens(t.Context()); len(tokens) != 1 {
				t.Errorf("there are the tokens %v", tokens)
			}
		})
	}
}

func TestAnExposedAPIAnswersWhoHasAToken(t *testing.T) {
	r := exposed(t)
	r.add("a")
	for _, header := range []string{"Authorization: Bearer secret-of-ci", "Authorization: bearer  secret-of-ci"} {
		list := decode[struct{ Items []dayfly.Environment }](r, r.call("GET", "/v1/environments", "", header), 200)
		if len(list.Items) != 1 {
			t.Errorf("%s: got %+v", header, list)
		}
	}
	if got := r.call("GET", "/docs", "", "Authorization: Bearer secret-of-ci"); got.status != 200 {
		t.Errorf("the page is answered %d", got.status)
	}
}

func TestWhetherAnExposedServerIsReadyEverybodyMayAsk(t *testing.T) {
	r := exposed(t)
	for _, path := range []string{"/healthz", "/readyz"} {
		for _, header := range append([]string{"X-None: of-these"}, wrong...) {
			if got := r.call("GET", path, "", header); got.status != 200 {
				t.Errorf("%s with %q: %d %s", path, header, got.status, got.body)
			}
		}
	}
}

func TestOnLoopbackNoTokenIsNeededButAWrongOneIsRefused(t *testing.T) {
	for _, c := range []struct {
		header string
		status int
	}{
		{"Authorization: ", 200},
		{"Authorization: Basic c2VjcmV0", 200}, // of a login in front
		{"Authorization: Bearer secret-of-ci", 200},
		{"Authorization: Bearer secret-of-nobody", 401},
		{"Authorization: BEARER secret-of-nobody", 401},
		{"Authorization: Bearer", 401},
	} {
		r := local(t)
		if got := r.call("GET", "/v1/projects", "", c.header); got.status != c.status {
			t.Errorf("%s: %d %s", c.header, got.status, got.body)
		}
	}
}

func TestATokenIsShownOnceAndLetsInUntilItIsRevoked(t *testing.T) {
	r := exposed(t)
	const admin = "Authorization: Bearer secret-of-ci"
	got := r.call("POST", "/v1/tokens", `{"name":"mine"}`, admin)
	made := decode[map[string]any](r, got, 201)
	if made["token"] != "secret-of-mine" || made["name"] != "mine" || made["id"] == "" || made["created_at"] == "" {
		t.Errorf("made %v", made)
	}
	if got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the answer may be kept: %v", got.header)
	}
	mine := "Authorization: Bearer secret-of-mine"
	got = r.call("GET", "/v1/tokens", "", mine)
	list := decode[struct {
		Items []map[string]any
		Next  string
	}](r, got, 200)
	if len(list.Items) != 2 || list.Items[1]["name"] != "mine" || strings.Contains(got.body, "secret") {
		t.Errorf("listed %s", got.body)
	}
	r.refusal(r.call("POST", "/v1/tokens", `{"name":"mine"}`, admin), 409, "conflict")
	r.refusal(r.call("POST", "/v1/tokens", `{}`, admin), 422, "invalid")
	r.refusal(r.call("POST", "/v1/tokens", `{"name":""}`, admin), 422, "invalid")
	r.refusal(r.call("POST", "/v1/tokens", `{"name":"other","secret":"chosen"}`, admin), 422, "invalid")

	if got := r.call("DELETE", "/v1/tokens/mine", "", admin); got.status != 204 || got.body != "" {
		t.Errorf("revoking: %d %s", got.status, got.body)
	}
	r.refusal(r.call("GET", "/v1/tokens", "", mine), 401, "unauthorized")
	r.refusal(r.call("DELETE", "/v1/tokens/mine", "", admin), 404, "not_found")
	r.control.Fail(dayfly.Errorf(dayfly.CodeUnavailable, "not now"))
	for _, method := range []string{"GET /v1/tokens", "POST /v1/tokens", "DELETE /v1/tokens/ci"} {
		m, path, _ := strings.Cut(method, " ")
		body := ""
		if m == "POST" {
			body = `{"name":"x"}`
		}
		r.refusal(r.call(m, path, body, admin), 503, "unavailable")
	}
}

// What a page of somebody else could send is refused whether it has a token or not, and a
// server that wants tokens does not tell such a page so.
func TestATokenDoesNotLetPagesIn(t *testing.T) {
	r := exposed(t)
	const token = "Authorization: Bearer secret-of-ci"
	for _, c := range []struct {
		headers []string
		status  int
		code    string
	}{
		{[]string{"Host: evil.example"}, 421, "unknown_host"},
		{[]string{"Host: shop-x.dayfly.example.org"}, 421, "unknown_host"},
		{[]string{"Host: 192.0.2.1:7070"}, 421, "unknown_host"}, // an address, but not the one that was reached
		{[]string{"Origin: http://evil.example"}, 403, "foreign_origin"},
		{[]string{"Sec-Fetch-Site: cross-site"}, 403, "foreign_origin"},
	} {
		r.refusal(r.call("GET", "/v1/environments", "", append(c.headers, token)...), c.status, c.code)
		r.refusal(r.call("GET", "/v1/environments", "", c.headers...), c.status, c.code)
	}
	if got := r.call("GET", "/v1/environments", "", "Host: dayfly.example.org:7070", token); got.status != 200 {
		t.Errorf("its own name: %d %s", got.status, got.body)
	}
}

func TestAnExposedAPIIsCalledByTheAddressThatWasReached(t *testing.T) {
	for _, c := range []struct {
		name    string
		api     func(*apitest.Control) http.Handler
		reached string
		host    string
		status  int
	}{
		{"the address that was reached", apitest.Exposed, "192.0.2.1", "192.0.2.1:7070", 200},
		{"the same without a port", apitest.Exposed, "192.0.2.1", "192.0.2.1", 200},
		{"IPv6", apitest.Exposed, "2001:db8::1", "[2001:db8:0::1]:7070", 200},
		{"IPv4 on a socket of IPv6", apitest.Exposed, "::ffff:192.0.2.1", "192.0.2.1:7070", 200},
		{"another address", apitest.Exposed, "192.0.2.1", "192.0.2.2:7070", 421},
		{"a name", apitest.Exposed, "192.0.2.1", "evil.example", 421},
		{"on loopback no other address is one of ours", apitest.Handler, "192.0.2.1", "192.0.2.1:7070", 421},
	} {
		t.Run(c.name, func(t *testing.T) {
			control := &apitest.Control{}
			if _, _, err := control.CreateToken(t.Context(), "ci"); err != nil {
				t.Fatal(err)
			}
			ctx := context.WithValue(t.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP(c.reached), Port: 7070})
			r := httptest.NewRequestWithContext(ctx, "GET", "/v1/environments", nil)
			r.Host = c.host
			r.Header.Set("Authorization", "Bearer secret-of-ci")
			w := httptest.NewRecorder()
			c.api(control).ServeHTTP(w, r)
			if w.Code != c.status {
				t.Errorf("answered %d %s, want %d", w.Code, w.Body, c.status)
			}
		})
	}
}

func TestATokenSaysWhenItWasMade(t *testing.T) {
	r := local(t)
	before := time.Now()
	made := decode[dayfly.Token](r, r.call("POST", "/v1/tokens", `{"name":"x"}`), 201)
	if made.CreatedAt.Before(before.Add(-time.Second)) || made.ID == "" {
		t.Errorf("made %+v", made)
	}
}

func TestARevokedTokenEndsWhatIsFollowedWithIt(t *testing.T) {
	r := exposed(t)
	r.add("a")
	if _, _, err := r.control.CreateToken(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	r.control.Happen("a", dayfly.Event{Reason: "ready"})
	events := r.follow("/v1/environments/a/events?follow=true", "Authorization: Bearer secret-of-ci")
	events.want("event", "1", "ready")
	others := r.follow("/v1/environments/a/events?follow=true", "Authorization: Bearer secret-of-other")
	others.want("event", "1", "ready")
	if err := r.control.DeleteToken(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	r.control.Happen("a", dayfly.Event{Reason: "expired"})
	events.want("error", "", `"code":"unauthorized"`)
	if e, ok := events.next(); ok {
		t.Errorf("after the error comes %+v", e)
	}
	others.want("event", "2", "expired")
	r.control.Remove("a")
	others.ends()
}

func TestARevokedTokenEndsAQuietStreamWithTheNextHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &apitest.Control{}
		c.Add(dayfly.Environment{ID: "id-a", Name: "a"}, dayfly.EnvironmentSpec{Name: "a"})
		if _, _, err := c.CreateToken(t.Context(), "ci"); err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequestWithContext(t.Context(), "GET", "http://localhost/v1/environments/a/events?follow=true", nil)
		r.Header.Set("Authorization", "Bearer secret-of-ci")
		out := httptest.NewRecorder()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			apitest.Exposed(c).ServeHTTP(out, r)
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case <-ended:
			t.Fatalf("it ended with a good token: %s", out.Body)
		default:
		}
		if err := c.DeleteToken(t.Context(), "ci"); err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		<-ended
		if took := time.Since(before); took > time.Minute || !strings.Contains(out.Body.String(), `"code":"unauthorized"`) || strings.Contains(out.Body.String(), "event: end") {
			t.Errorf("after %s: %s", took, out.Body)
		}
	})
}

// gitRig is a rig that takes pushes, and says what reached them.
func gitRig(t *testing.T, needToken bool) (r *rig, reached *atomic.Int32) {
	t.Helper()
	c, reached := &apitest.Control{}, &atomic.Int32{}
	if _, _, err := c.CreateToken(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(api.New(api.Config{
		Control: c, Version: "test", NeedToken: needToken, Logger: slog.New(slog.DiscardHandler),
		Git: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { reached.Add(1); w.WriteHeader(http.StatusNoContent) }),
	}))
	t.Cleanup(server.Close)
	return &rig{T: t, control: c, server: server}, reached
}

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestGitShowsATokenAsThePassword(t *testing.T) {
	const refs, none = "/git/shop.git/info/refs?service=git-receive-pack", "X-None: of-these"
	for _, c := range []struct {
		header       string
		needed, free int // the answers where a token is needed, and where not
	}{
		{none, 401, 204},
		{basic("anybody", "secret-of-ci"), 204, 204},
		{basic("", "secret-of-ci"), 204, 204},
		{"Authorization: Bearer secret-of-ci", 204, 204},
		{basic("secret-of-ci", ""), 401, 401},
		{basic("anybody", "secret-of-nobody"), 401, 401},
		{"Authorization: Basic %%%", 401, 204},
	} {
		for need, want := range map[bool]int{true: c.needed, false: c.free} {
			r, reached := gitRig(t, need)
			got := r.call("GET", refs, "", c.header)
			if got.status != want || (reached.Load() == 1) != (want == 204) {
				t.Errorf("%s, needed %t: %d, reached %d times", c.header, need, got.status, reached.Load())
			}
			if asks := got.header.Get("WWW-Authenticate"); want == 401 && (!strings.HasPrefix(asks, "Basic realm=") || strings.Contains(got.body, "secret-of")) {
				t.Errorf("%s: %q, %s", c.header, asks, got.body)
			}
		}
	}
	r, _ := gitRig(t, true)
	if err := r.control.DeleteToken(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	if got := r.call("GET", refs, "", basic("git", "secret-of-ci")); got.status != 401 {
		t.Errorf("a token that was revoked: %d", got.status)
	}
	if got := r.call("GET", "/v1/projects", "", basic("git", "secret-of-ci")); got.status != 401 {
		t.Errorf("elsewhere than for git a password is no token: %d", got.status)
	}
}

func TestAPageOfAnotherOriginCannotPush(t *testing.T) {
	r, reached := gitRig(t, false)
	for _, header := range []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Host: evil.example"} {
		if got := r.call("POST", "/git/shop.git/git-receive-pack", "", header); got.status < 400 || reached.Load() != 0 {
			t.Errorf("%s: %d, reached %d times", header, got.status, reached.Load())
		}
	}
}
