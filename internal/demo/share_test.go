package demo

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly/internal/api/client"

	shop "github.com/dayfly-dev/dayfly/examples/shop"
)

// The tour reads the page of the real shop.
func TestThePageSaysForWhomItIsAndWhichProcessesHaveMadeIt(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	if err := shop.Write(dir, 2); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin+"/", "./frontend", "./backend")
	build.Dir, build.Env = dir, append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	start := func(program string, variables ...string) (url string, pid int) {
		t.Helper()
		reserved := httptest.NewServer(nil)
		url = reserved.URL
		reserved.Close()
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, program))
		cmd.Env = append(variables, "PORT="+url[strings.LastIndex(url, ":")+1:], "DAYFLY_VERSION=0123456789abcdef")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return url, cmd.Process.Pid
	}
	backend, backendPID := start("backend", "DAYFLY_ENV=theirs")
	frontend, frontendPID := start("frontend", "DAYFLY_ENV=lender", "BACKEND_URL="+backend)
	made := &tour{public: strings.TrimPrefix(frontend, "http://")}
	ask := func(env string) (page string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+made.public+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if env != "" {
				req.Header.Set("X-Dayfly-Env", env)
			}
			resp, err := http.DefaultClient.Do(req)
			if err == nil {
				var body bytes.Buffer
				_, err = body.ReadFrom(resp.Body)
				resp.Body.Close()
				if err == nil && resp.StatusCode == http.StatusOK {
					return body.String()
				}
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	for asked, want := range map[string]string{"": "lender", "theirs": "theirs", "lender": "lender", "third": "third"} {
		page := ask(asked)
		from, err := madeBy(page)
		if err != nil {
			t.Fatal(err)
		}
		if from != (whence{env: want, frontend: fmt.Sprint(frontendPID), backend: fmt.Sprint(backendPID), version: "2"}) {
			t.Errorf("asked for %q it says %+v", asked, from)
		}
		borrowed := map[string]int{"lender": 1, "theirs": 1, "third": 2}[want]
		if n := strings.Count(page, "borrowed · "); n != borrowed {
			t.Errorf("for %s it calls %d borrowed, want %d", want, n, borrowed)
		}
	}
	if _, err := madeBy("<li>Environment<b>a</b>"); err == nil {
		t.Error("half a page is read")
	}
}

func TestTheCensusCountsEachHealthyProcessOnce(t *testing.T) {
	instance := func(pid int, phase string) string {
		return fmt.Sprintf(`{"id":"i%d","pid":%d,"phase":%q,"project":"shop"}`, pid, pid, phase)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		items := map[string]string{
			"/v1/environments":                `{"id":"1","name":"a"},{"id":"2","name":"b"}`,
			"/v1/services/frontend/instances": instance(1, "healthy"),
			"/v1/services/backend/instances":  instance(2, "healthy") + "," + instance(3, "healthy") + "," + instance(4, "stopping"),
			"/v1/services/worker/instances":   instance(5, "starting") + "," + instance(1, "healthy"),
		}[r.URL.Path]
		fmt.Fprintf(w, `{"items":[%s],"next":""}`, items)
	}))
	defer server.Close()
	made := &tour{api: client.New(server.URL, "")}
	environments, processes, err := made.census(t.Context())
	if err != nil || environments != 2 || processes != 3 {
		t.Errorf("it counts %d environments and %d processes, %v", environments, processes, err)
	}
}
