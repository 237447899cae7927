package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api/apitest"
	"github.com/dayfly-dev/dayfly/internal/cli"
)

func TestMain(m *testing.M) {
	if os.Getenv(serviceAddress) != "" {
		os.Exit(service())
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(int) { http.DefaultClient.CloseIdleConnections() }))
}

// shell runs commands against an API, and the control plane behind it.
type shell struct {
	*testing.T
	control  *apitest.Control
	url      string
	vars     map[string]string
	terminal bool // of standard error
	colour   bool // on standard output

	before func(*http.Request) // a call of the API is answered

	mu    sync.Mutex
	calls []string // "METHOD path" of all calls of the API
}

func newShell(t *testing.T) *shell {
	t.Helper()
	s := &shell{T: t, control: &apitest.Control{}, vars: map[string]string{}}
	api := apitest.Handler(s.control)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.calls = append(s.calls, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
		if s.before != nil {
			s.before(r)
		}
		api.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	s.vars["DAYFLY_SERVER"] = server.URL
	return s
}

func (s *shell) called() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.calls...)
}

// result is what a command left.
type result struct {
	code     int
	out, err string
}

// run runs a command to its end.
func (s *shell) run(args ...string) result {
	s.Helper()
	return s.runContext(s.Context(), args...)
}

func (s *shell) runContext(ctx context.Context, args ...string) result {
	var out, err buffer
	streams := cli.Streams{In: strings.NewReader(""), Out: &out, Err: &err, Getenv: func(name string) string { return s.vars[name] }, Terminal: s.terminal, Colour: s.colour}
	code := cli.Main(ctx, args, streams, "v1.2.3")
	return result{code, out.String(), err.String()}
}

// buffer is written by several.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// ok runs a command that has to work, and gives what it printed.
func (s *shell) ok(args ...string) string {
	s.Helper()
	r := s.run(args...)
	if r.code != 0 {
		s.Fatalf("dayfly %s ended with %d: %s", strings.Join(args, " "), r.code, r.err)
	}
	return r.out
}

// onlyJSON reads standard output, which has to be one JSON document and nothing else.
func onlyJSON[T any](t *testing.T, out string) (v T) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(out))
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q is no JSON: %v", out, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		t.Errorf("after the JSON comes more: %q", out)
	}
	return v
}

// ready lets every environment be ready as soon as it is made.
func ready(e *dayfly.Environment) {
	e.Phase, e.URL = dayfly.PhaseReady, "http://"+e.Name+".localhost:8080"
}

// add puts environments there that have nothing but a name.
func (s *shell) add(names ...string) {
	for _, name := range names {
		s.control.Add(dayfly.Environment{
			ID: "id-" + name, Name: name, Project: "shop", Branch: "main", Phase: dayfly.PhaseReady, Revision: 1, CreatedAt: time.Now(),
			URL: "http://" + name + ".localhost", URLs: map[string]string{}, Services: []dayfly.EnvironmentService{}, Databases: []string{}, Missing: []dayfly.Missing{},
		}, dayfly.EnvironmentSpec{Name: name, Project: "shop", Branch: "main"})
	}
}
