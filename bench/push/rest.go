package main

import (
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly/bench/lab"
)

// atRest measures a server whose only work is to ask many repositories for news. They are
// served by git's own program behind a server in this process, whose time is not counted.
func atRest(o options) error {
	l, err := lab.New(o.binary)
	if err != nil {
		return err
	}
	defer l.Close()
	git, err := exec.LookPath("git")
	if err != nil {
		return err
	}
	remotes := filepath.Join(l.Dir, "remotes")
	if _, err := l.Repo("remotes/first", map[string]string{"compose.yaml": compose, "VERSION": "1\n"}); err != nil {
		return err
	}
	for i := range o.repositories {
		if err := lab.Git(remotes, "clone", "-q", "--bare", "--shared", "first", fmt.Sprintf("app%d.git", i)); err != nil {
			return err
		}
	}
	var requests counter
	backend := &cgi.Handler{Path: git, Args: []string{"http-backend"}, Dir: remotes, Env: []string{
		"GIT_PROJECT_ROOT=" + remotes, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.add()
		backend.ServeHTTP(w, r)
	}))
	defer elsewhere.Close()
	if _, err := l.Start("--max-environments", "0", "--max-per-project", "0", "--poll", "1m"); err != nil {
		return err
	}
	for i := range o.repositories {
		status, text, err := l.Call(http.MethodPost, "/v1/projects", map[string]string{
			"name": fmt.Sprintf("app%d", i), "repo": fmt.Sprintf("%s/app%d.git", elsewhere.URL, i),
		})
		if err != nil || status >= 300 {
			return fmt.Errorf("a project was answered by %d %s, %w", status, text, err)
		}
	}
	// From the second look on each repository has its own place in the minute.
	time.Sleep(75 * time.Second)
	own, children := lab.CPU(l.PID()), lab.ChildrenCPU(l.PID())
	asked, begun := requests.get(), time.Now()
	time.Sleep(o.rest)
	minutes := time.Since(begun).Minutes()
	own, children = lab.CPU(l.PID())-own, lab.ChildrenCPU(l.PID())-children
	asked = requests.get() - asked
	started, err := processes(l, git, o.rest)
	if err != nil {
		return err
	}
	fmt.Printf("%d repositories elsewhere, one look a minute, each minute at rest: %.2f s of CPU in the server, %.2f s in its git (%.1f ms a request), %.0f requests, %.0f processes\n",
		o.repositories, own.Seconds()/minutes, children.Seconds()/minutes, children.Seconds()*1000/float64(max(1, asked)), float64(asked)/minutes, float64(started)/minutes)
	return nil
}

// processes counts those that the server's git is, for a while of its own: what counts
// them, a program before git that lets it write down each start, takes time itself.
func processes(l *lab.Lab, git string, wait time.Duration) (int, error) {
	trace := filepath.Join(l.Dir, "trace")
	script := fmt.Sprintf("#!/bin/sh\nGIT_TRACE2_EVENT='%s' exec '%s' \"$@\"\n", trace, git)
	bin := filepath.Join(l.Dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil { //nolint:gosec // on the PATH of the server
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte(script), 0o755); err != nil { //nolint:gosec // a program
		return 0, err
	}
	time.Sleep(wait)
	b, err := os.ReadFile(trace)
	if err != nil {
		return 0, fmt.Errorf("no git was started: %w", err)
	}
	return strings.Count(string(b), `"event":"start"`), nil
}
