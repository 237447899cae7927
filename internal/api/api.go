package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/dayfly-dev/dayfly"
)

// Config is what the API works with.
type Config struct {
	Control Control
	Version string
	Hosts   []string // names under which the API may be called, besides loopback ones
	// NeedToken refuses requests without a token: others than this host's users can send them.
	NeedToken bool
	Doctor    func(context.Context) []dayfly.Finding            // examines the host
	Retire    func(context.Context) ([]dayfly.Departure, error) // lists what goes by itself
	Git       http.Handler                                      // takes pushes; nil = none
	Logger    *slog.Logger
}

type server struct {
	Config
	api huma.API
}

// New makes the handler of the API.
func New(config Config) http.Handler {
	s := &server{Config: config}
	mux := http.NewServeMux()
	hc := huma.DefaultConfig("dayfly", config.Version)
	hc.Info.Description = "Short-lived environments for every branch. Errors are application/problem+json with a code, see the end of this page."
	hc.DocsPath = "" // ours needs nothing from elsewhere
	hc.CreateHooks = nil
	hc.Formats = map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat}
	hc.Transformers = []huma.Transformer{s.transform}
	s.api = humago.New(mux, hc)
	s.api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) { next(exact{ctx}) })
	s.projects()
	s.environments()
	s.propagation()
	s.streams()
	s.services()
	s.registrations()
	s.routes()
	s.databases()
	s.templates()
	s.hooks()
	s.tokens()
	s.doctor()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Control.Ready(r.Context()); err != nil {
			writeProblem(w, problemOf(err))
			return
		}
		fmt.Fprintln(w, "ready")
	})
	if s.Git != nil {
		mux.Handle("/git/", s.Git)
	}
	mux.HandleFunc("GET /docs", s.docs)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/docs", http.StatusFound) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { missing(mux, w, r) })
	return s.safe(s.authenticated(mux))
}

// missing answers where there is no endpoint, or only one with other methods.
func missing(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := mux.Handler(other); pattern != "/" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		writeProblem(w, Problem{Type: "about:blank", Title: "Not Found", Status: http.StatusNotFound, Code: "not_found", Detail: "there is no such endpoint: see /docs"})
		return
	}
	methods := strings.Join(allowed, ", ")
	w.Header().Set("Allow", methods)
	writeProblem(w, Problem{Type: "about:blank", Title: "Method Not Allowed", Status: http.StatusMethodNotAllowed, Code: "not_found", Detail: "this endpoint has other methods: " + methods})
}

var jsonFormat = huma.Format{
	Marshal:   func(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) },
	Unmarshal: json.Unmarshal,
}
