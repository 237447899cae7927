package api_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api/apitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// rig is an API over HTTP, and the control plane behind it.
type rig struct {
	*testing.T
	control *apitest.Control
	server  *httptest.Server
}

func newRig(t *testing.T) *rig {
	t.Helper()
	c := &apitest.Control{}
	server := httptest.NewServer(apitest.Handler(c))
	t.Cleanup(server.Close)
	return &rig{T: t, control: c, server: server}
}

// add puts environments there that are ready and have nothing but a name.
func (r *rig) add(names ...string) {
	for _, name := range names {
		r.control.Add(dayfly.Environment{
			ID: "id-" + name, Name: name, Project: "shop", Branch: "main", Phase: dayfly.PhaseReady, Revision: 7,
			URLs: map[string]string{}, Services: []dayfly.EnvironmentService{}, Databases: []string{}, Missing: []dayfly.Missing{},
		}, dayfly.EnvironmentSpec{Name: name, Project: "shop", Branch: "main"})
	}
}

// reply is an answer that was read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

// call sends a request; headers are "Name: value", and Host is one of them.
func (r *rig) call(method, path, body string, headers ...string) reply {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, r.server.URL+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		switch {
		case name == "Host":
			req.Host = value
		case value == "":
			req.Header.Del(name)
		default:
			req.Header.Set(name, value)
		}
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(content)}
}

// problem is an error as the API says it.
type problem struct {
	Type     string
	Title    string
	Status   int
	Detail   string
	Code     string
	Problems []dayfly.Problem
}

// refusal checks that a reply is an error in its one shape, and gives it.
func (r *rig) refusal(got reply, status int, code string) problem {
	r.Helper()
	var p problem
	if err := json.Unmarshal([]byte(got.body), &p); err != nil {
		r.Fatalf("%d %s is no JSON: %v", got.status, got.body, err)
	}
	if got.status != status || p.Code != code {
		r.Errorf("answered %d %q (%s), want %d %q", got.status, p.Code, p.Detail, status, code)
	}
	if p.Status != got.status || p.Title != http.StatusText(status) || p.Type != "about:blank" {
		r.Errorf("the status is %d, and the problem says %+v", got.status, p)
	}
	if kind := got.header.Get("Content-Type"); kind != "application/problem+json" {
		r.Errorf("an error is of type %q", kind)
	}
	if again := got.header.Get("Retry-After"); (again != "") != (status == http.StatusServiceUnavailable) {
		r.Errorf("a %d says to try again after %q", status, again)
	}
	if p.Detail == "" && len(p.Problems) == 0 {
		r.Error("the error does not say what is wrong")
	}
	return p
}

// decode reads a good answer.
func decode[T any](r *rig, got reply, status int) (v T) {
	r.Helper()
	if got.status != status {
		r.Fatalf("answered %d %s, want %d", got.status, got.body, status)
	}
	if kind := got.header.Get("Content-Type"); kind != "application/json" {
		r.Errorf("an answer is of type %q", kind)
	}
	if err := json.Unmarshal([]byte(got.body), &v); err != nil {
		r.Fatalf("%s: %v", got.body, err)
	}
	return v
}

// sseEvent is one server-sent event.
type sseEvent struct{ name, id, data string }

// sseStream reads server-sent events one by one.
type sseStream struct {
	r    *rig
	resp *http.Response
	read chan sseEvent // closed at the end of the stream
}

// follow begins a stream.
func (r *rig) follow(path string, headers ...string) *sseStream {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.server.URL+path, nil)
	if err != nil {
		r.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		r.Errorf("a stream is answered with %d and %v", resp.StatusCode, resp.Header)
	}
	s := &sseStream{r: r, resp: resp, read: make(chan sseEvent, 100)}
	r.Cleanup(func() {
		resp.Body.Close()
		for range s.read { // until the reader has ended
		}
	})
	go s.run()
	return s
}

func (s *sseStream) run() {
	defer close(s.read)
	var e sseEvent
	lines := bufio.NewScanner(s.resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			e.data = value
		case "":
			if lines.Text() == "" {
				s.read <- e
				e = sseEvent{}
			}
		}
	}
}

// next gives the next event; ok is false at the end.
func (s *sseStream) next() (e sseEvent, ok bool) {
	s.r.Helper()
	select {
	case e, ok = <-s.read:
		return e, ok
	case <-time.After(patience):
		s.r.Fatal("nothing comes")
		return e, false
	}
}

// want checks the next event, and that its data have a text in them.
func (s *sseStream) want(name, id, text string) {
	s.r.Helper()
	e, ok := s.next()
	if !ok {
		s.r.Fatalf("the stream ended before the %s with %q", name, text)
	}
	if e.name != name || e.id != id || !strings.Contains(e.data, text) {
		s.r.Fatalf("got %+v, want %s %s with %q", e, name, id, text)
	}
}

// ends checks that the stream says that it is over, and is.
func (s *sseStream) ends() {
	s.r.Helper()
	s.want("end", "", "{}")
	if e, ok := s.next(); ok {
		s.r.Fatalf("after the end comes %+v", e)
	}
}
