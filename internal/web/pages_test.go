package web_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/web"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"
	"pgregory.net/rapid"
)

// browser is what Chromium sends for a page.
const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"

func get(m meeting, method, accept string) *http.Response {
	r := httptest.NewRequest(method, "/", nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	web.NewPages().Write(w, r, m.problem)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	var text strings.Builder
	if err := resp.Write(&text); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(text.String(), "\r\n\r\n")
	return rest
}

func TestEveryAnswerSaysThatItIsNotTheService(t *testing.T) {
	for name, m := range meetings {
		for _, accept := range []string{browser, "", "*/*"} {
			t.Run(name+" "+accept, func(t *testing.T) {
				resp := get(m, http.MethodGet, accept)
				if resp.StatusCode != m.problem.Status {
					t.Errorf("the status is %d", resp.StatusCode)
				}
				want := map[string]string{"X-Robots-Tag": "noindex", "Cache-Control": "no-store", "Vary": "Accept", "X-Content-Type-Options": "nosniff", "Retry-After": ""}
				if m.reloads {
					want["Retry-After"] = strconv.Itoa(int(m.problem.RetryAfter.Seconds() + .99))
				}
				for name, value := range want {
					if got := resp.Header.Get(name); got != value {
						t.Errorf("%s: %q", name, got)
					}
				}
				if got := body(t, resp); resp.Header.Get("Content-Length") != strconv.Itoa(len(got)) {
					t.Errorf("%s bytes are promised, %d came", resp.Header.Get("Content-Length"), len(got))
				}
			})
		}
	}
}

func TestPagesAreForThoseWhoPreferThem(t *testing.T) {
	for accept, page := range map[string]bool{
		browser: true,
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": true, // Firefox, Safari
		"text/html":                                 true,
		"TEXT/HTML; charset=utf-8":                  true,
		"application/json;q=0.5, text/html":         true,
		"text/*":                                    true,
		"application/xhtml+xml, */*;q=0.1":          false,
		"":                                          false,
		"*/*":                                       false, // curl and most libraries
		"application/json":                          false,
		"application/json, text/html;q=0.9":         false,
		"application/problem+json, text/html":       true,
		"application/json, text/plain, */*":         false, // axios
		"text/html;q=0":                             false,
		"text/html;q=0, */*":                        false,
		"text/html;q=nonsense":                      false,
		"text/event-stream":                         false,
		"image/avif,image/webp,image/*,*/*;q=0.8":   false,
		"text/htmlx":                                false,
		",;,q=1,text/html;level=1;q=0.4,/":          true,
		"application/grpc":                          false,
		"text/html;q=0.2,application/*;q=0.3":       false,
		"text/css,*/*;q=0.1":                        false,
		strings.Repeat("a/b,", 9999) + "text/html,": true,
	} {
		resp := get(meetings["failed"], http.MethodGet, accept)
		want := "application/problem+json"
		if page {
			want = "text/html; charset=utf-8"
		}
		if got := resp.Header.Get("Content-Type"); got != want {
			t.Errorf("%.80q gets %s", accept, got)
		}
	}
}

func TestSeveralAcceptHeadersAreOneList(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header["Accept"] = []string{"image/png", "text/html"}
	w := httptest.NewRecorder()
	web.NewPages().Write(w, r, meetings["failed"].problem)
	if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, "text/html") {
		t.Error(got)
	}
}

func TestMachinesGetAProblem(t *testing.T) {
	for name, m := range meetings {
		t.Run(name, func(t *testing.T) {
			var got map[string]any
			if err := json.Unmarshal([]byte(body(t, get(m, http.MethodGet, "application/json"))), &got); err != nil {
				t.Fatal(err)
			}
			want := map[string]any{"type": "about:blank", "title": m.problem.Title, "status": float64(m.problem.Status), "code": m.problem.Code}
			for key, value := range map[string]string{"detail": m.problem.Detail, "environment": m.problem.Environment, "service": m.problem.Service, "state": m.problem.State} {
				if value != "" {
					want[key] = value
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHeadGetsTheHeadOnly(t *testing.T) {
	for _, accept := range []string{browser, "*/*"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			web.NewPages().Write(w, r, meetings["starting"].problem)
		}))
		defer server.Close()
		length := func(method string) int64 {
			r, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Accept", accept)
			resp, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got := resp.Header.Get("Retry-After"); got != "1" {
				t.Errorf("%s: Retry-After is %q", method, got)
			}
			return resp.ContentLength
		}
		if head, whole := length(http.MethodHead), length(http.MethodGet); head != whole || whole <= 0 {
			t.Errorf("HEAD says %d bytes, GET %d", head, whole)
		}
	}
}

func TestPagesSayWhatIsWrongAndWhatToDo(t *testing.T) {
	for name, m := range meetings {
		t.Run(name, func(t *testing.T) {
			source := body(t, get(m, http.MethodGet, browser))
			shown := text(parse(t, source))
			for _, want := range append(m.shows, m.problem.Title, m.problem.Detail, m.problem.Environment, m.problem.Service, m.problem.State) {
				if !strings.Contains(shown, want) {
					t.Errorf("the page does not say %q but\n%s", want, shown)
				}
			}
			if got := strings.Contains(source, `http-equiv="refresh"`); got != m.reloads {
				t.Errorf("reloads by itself: %v", got)
			}
		})
	}
}

func TestPagesReloadWhenTheySayThatOneMayAskAgain(t *testing.T) {
	m := meetings["no-instance"]
	resp := get(m, http.MethodGet, browser)
	found := regexp.MustCompile(`http-equiv="refresh" content="(\d+)"`).FindStringSubmatch(body(t, resp))
	if found == nil || found[1] != "2" || resp.Header.Get("Retry-After") != "2" {
		t.Errorf("the page reloads after %v, Retry-After is %q", found, resp.Header.Get("Retry-After"))
	}
}

func TestPagesAreSmallAndNeedNothingElse(t *testing.T) {
	for name, m := range meetings {
		t.Run(name, func(t *testing.T) {
			resp := get(m, http.MethodGet, browser)
			source := body(t, resp)
			if n := len(source); n > 6<<10 {
				t.Errorf("the page has %d bytes", n)
			}
			if !strings.Contains(source, `<link rel="icon" href="data:`) {
				t.Error("without an icon of its own the browser asks for one")
			}
			onlyOurs(t, parse(t, source))
			for node := range parse(t, source).Descendants() {
				if node.Type == html.ElementNode && node.Data == "style" && regexp.MustCompile(`(?i)url\(|@import|expression`).MatchString(node.FirstChild.Data) {
					t.Error("a style sheet loads something")
				}
			}
			policy := resp.Header.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} {
				if !strings.Contains(policy, want) {
					t.Errorf("the policy %q is without %s", policy, want)
				}
			}
			if strings.Contains(policy, "http") || strings.Contains(policy, "script") || strings.Contains(policy, "*") {
				t.Errorf("the policy %q allows too much", policy)
			}
		})
	}
}

func parse(t fatal, source string) *html.Node {
	doc, err := html.Parse(strings.NewReader(source))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

type fatal interface {
	Errorf(format string, args ...any)
	Fatal(args ...any)
}

// onlyOurs looks for elements and attributes that can run or load something.
func onlyOurs(t fatal, doc *html.Node) {
	allowed := map[string]string{
		"html": "lang", "head": "", "title": "", "style": "", "body": "", "main": "class", "h1": "", "p": "class", "dl": "", "dt": "", "dd": "", "code": "",
		"footer": "", "span": "class", "meta": "charset name content http-equiv", "link": "rel href", "pre": "", "header": "", "b": "", "strong": "",
	}
	for node := range doc.Descendants() {
		if node.Type != html.ElementNode {
			continue
		}
		attributes, ok := allowed[node.Data]
		if !ok {
			t.Errorf("there is a <%s>", node.Data)
		}
		for _, a := range node.Attr {
			if !strings.Contains(" "+attributes+" ", " "+a.Key+" ") {
				t.Errorf("there is a <%s %s=%q>", node.Data, a.Key, a.Val)
			}
			if a.Key == "href" && !strings.HasPrefix(a.Val, "data:image/svg+xml,") {
				t.Errorf("there is a link to %q", a.Val)
			}
			if a.Key == "http-equiv" && a.Val != "refresh" {
				t.Errorf("there is an http-equiv %q", a.Val)
			}
		}
	}
}

// text is what a reader sees.
func text(doc *html.Node) string {
	var shown strings.Builder
	for node := range doc.Descendants() {
		if node.Type == html.TextNode && node.Parent.Data != "style" {
			shown.WriteString(node.Data)
		}
	}
	return shown.String()
}

func TestNoNameBecomesMarkup(t *testing.T) {
	words := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
		hostile, "</title><script>", "</style>", "-->", "<!--", "javascript:alert(1)", "'onload='x", "{{.}}", "\x00<b\x00>", "&lt;b&gt;", "\u2028", "0;url=//evil.example",
	}))
	rapid.Check(t, func(t *rapid.T) {
		m := meetings[rapid.SampledFrom([]string{"starting", "failed", "unknown-host", "bad-gateway"}).Draw(t, "meeting")]
		for _, part := range []*string{&m.problem.Title, &m.problem.Detail, &m.problem.Environment, &m.problem.Service, &m.problem.State, &m.problem.Code} {
			*part = words.Draw(t, "name")
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Accept", browser)
		w := httptest.NewRecorder()
		web.NewPages().Write(w, r, m.problem)
		if w.Code != m.problem.Status {
			t.Fatal(fmt.Sprint("the page could not be made: ", w.Code))
		}
		onlyOurs(t, parse(t, w.Body.String()))
	})
}
