// Package web holds the pages that people meet: the answers of the proxy where no
// service answers.
package web

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/proxy"
)

//go:embed page.html
var source string

// Pages writes the proxy's own answers: a page for a browser, problem+json for
// everyone else.
type Pages struct {
	page *template.Template
}

// NewPages makes Pages.
func NewPages() *Pages {
	return &Pages{page: template.Must(template.New("page").Parse(source))}
}

// view is what the template shows.
type view struct {
	proxy.Problem
	Kind    string // waiting, failed or missing
	Label   string
	Icon    template.URL
	Reload  int    // seconds until the page asks again; 0 = it does not
	Next    string // what to do
	Command string
}

// Write answers a request with a problem. Nothing that it writes may be cached
// or indexed.
func (p *Pages) Write(w http.ResponseWriter, r *http.Request, problem proxy.Problem) {
	h := w.Header()
	h.Set("X-Robots-Tag", "noindex")
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept")
	h.Set("X-Content-Type-Options", "nosniff")
	if problem.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(seconds(problem.RetryAfter)))
	}
	var body bytes.Buffer
	if prefersPage(r.Header.Values("Accept")) {
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		if err := p.page.Execute(&body, look(problem)); err != nil {
			http.Error(w, problem.Title, problem.Status)
			return
		}
	} else {
		h.Set("Content-Type", "application/problem+json")
		if err := json.NewEncoder(&body).Encode(machine(problem)); err != nil {
			http.Error(w, problem.Title, problem.Status)
			return
		}
	}
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(problem.Status)
	if r.Method != http.MethodHead {
		// An error here is the client's: it is gone.
		_, _ = w.Write(body.Bytes())
	}
}

// seconds rounds up, so that nobody is asked to come back too early.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// prefersPage says whether a client names text/html and likes it no less than JSON. One
// that takes anything is a program.
func prefersPage(accept []string) bool {
	var page, data float64
	for _, header := range accept {
		for part := range strings.SplitSeq(header, ",") {
			kind, parameters, _ := strings.Cut(strings.TrimSpace(part), ";")
			switch kind = strings.ToLower(strings.TrimSpace(kind)); kind {
			case "text/html", "text/*":
				page = max(page, quality(parameters))
			case "application/json", "application/problem+json", "application/*":
				data = max(data, quality(parameters))
			}
		}
	}
	return page > 0 && page >= data
}

// quality is the q of a part of an Accept header; 0 if it makes no sense.
func quality(parameters string) float64 {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		if strings.EqualFold(strings.TrimSpace(name), "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil || !(q >= 0 && q <= 1) {
				return 0
			}
			return q
		}
	}
	return 1
}

// icons are dots in the colours of the page. Without one of its own, a browser would ask
// the service that does not answer for /favicon.ico.
var icons = map[string]template.URL{
	"waiting": icon("c98a12"), "failed": icon("c4432f"), "missing": icon("7d838a"),
}

func icon(colour string) template.URL {
	return template.URL(`data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='6' fill='%23` + colour + `'/></svg>`) //nolint:gosec // nothing in it is from outside
}

// look decides colour, reloading and advice.
func look(problem proxy.Problem) view {
	v := view{Problem: problem, Kind: "missing", Label: "Not here"}
	switch {
	case problem.State == string(dayfly.PhaseFailed):
		v.Kind, v.Label = "failed", "Failed"
	case problem.RetryAfter > 0:
		v.Kind, v.Label = "waiting", "One moment"
		v.Reload = seconds(problem.RetryAfter)
	case problem.Status >= http.StatusInternalServerError:
		v.Kind, v.Label = "failed", "No answer"
	}
	v.Icon = icons[v.Kind]
	switch {
	case problem.Environment == "" || problem.State == string(dayfly.PhaseDeleting):
		v.Next, v.Command = "All environments", "dayfly list"
	case v.Kind == "failed" && problem.Service != "":
		v.Next, v.Command = "What it printed", "dayfly logs "+problem.Environment+" "+problem.Service
	default:
		v.Next, v.Command = "More about it", "dayfly details "+problem.Environment
	}
	return v
}

// machine is the answer for programs, as RFC 9457 has it.
func machine(p proxy.Problem) any {
	return struct {
		Type        string `json:"type"`
		Title       string `json:"title"`
		Status      int    `json:"status"`
		Detail      string `json:"detail,omitempty"`
		Code        string `json:"code"`
		Environment string `json:"environment,omitempty"`
		Service     string `json:"service,omitempty"`
		State       string `json:"state,omitempty"`
	}{"about:blank", p.Title, p.Status, p.Detail, p.Code, p.Environment, p.Service, p.State}
}
