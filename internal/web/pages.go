// Package web holds the pages that people meet: the answers of the proxy where no
// service answers.
package web

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

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
	Colour  template.CSS
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
	if problem.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((problem.RetryAfter+time.Second-1)/time.Second)))
	}
	var body bytes.Buffer
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
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

// look decides colour, reloading and advice.
func look(problem proxy.Problem) view {
	v := view{Problem: problem, Colour: "#8a8f96"}
	logs := fmt.Sprintf("dayfly logs %s %s", problem.Environment, problem.Service)
	switch {
	case problem.State == "failed":
		v.Colour, v.Next, v.Command = "#c4432f", "What it printed:", logs
	case problem.RetryAfter > 0:
		v.Colour = "#d59a1f"
		v.Reload = max(1, int(problem.RetryAfter/time.Second))
	case problem.Status == http.StatusBadGateway || problem.Status == http.StatusGatewayTimeout:
		v.Colour, v.Next, v.Command = "#c4432f", "What it printed:", logs
	case problem.Status == http.StatusNotFound:
		v.Next, v.Command = "The environments that there are:", "dayfly list"
	}
	if strings.HasPrefix(v.Command, "dayfly logs") && problem.Environment == "" {
		v.Next, v.Command = "", ""
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
