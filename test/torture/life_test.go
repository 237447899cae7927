//go:build linux

package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api/client"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// patience is how long anything may take, on a slow machine that does much else.
const patience = 90 * time.Second

// life is a server with environments that come, change and go.
type life struct {
	*testing.T
	dir, repo, data, crashLog, log string
	api, http, internal, etcd      string
	flags                          []string // further ones of the server
	files                          string   // the folder of environment files
	client                         *client.Client
	took                           time.Duration
	peers                          []*life // other servers on the same state

	mu      sync.Mutex
	process *os.Process // nil = it is to stay away
	died    int
	ended   chan struct{} // closed when it stays away
}

func newLife(t *testing.T, _ string) *life {
	t.Helper()
	l := newLifeIn(t, t.TempDir())
	repository(t, l.repo)
	return l
}

// newLifeIn begins one in a folder, without a repository.
func newLifeIn(t *testing.T, dir string) *life {
	t.Helper()
	l := &life{
		T: t, dir: dir, repo: filepath.Join(dir, "repo"), data: filepath.Join(dir, "data"),
		crashLog: filepath.Join(dir, "points"), log: filepath.Join(dir, "log"),
	}
	for _, address := range []*string{&l.api, &l.http, &l.internal} {
		*address = freeAddress(t)
	}
	l.client = client.New("http://"+l.api, "")
	t.Cleanup(func() {
		if t.Failed() {
			text, err := os.ReadFile(l.log)
			t.Logf("the server's log (%v):\n%s", err, text)
		}
		for _, p := range l.processes() {
			_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		}
		// Read-only folders would keep the test's folder from being deleted.
		_ = filepath.WalkDir(l.data, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				err = os.Chmod(path, 0o755)
			}
			return err
		})
	})
	return l
}

// start starts the server, and again whenever it dies, as a service manager does.
func (l *life) start(f fate) {
	l.Helper()
	out, err := os.OpenFile(l.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		l.Fatal(err)
	}
	if f.away > 0 {
		l.startEtcd(f)
	}
	cmd := l.command(out, "DAYFLY_CRASH_LOG="+l.crashLog, "DAYFLY_CRASH_AT="+f.point)
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	ended := make(chan struct{})
	l.mu.Lock()
	l.process, l.ended = cmd.Process, ended
	l.mu.Unlock()
	if f.after > 0 && f.away == 0 {
		timer := time.AfterFunc(f.after, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.process != nil {
				_ = l.process.Kill()
			}
		})
		l.Cleanup(func() { timer.Stop() })
	}
	go func() {
		defer close(ended)
		defer out.Close()
		for {
			_ = cmd.Wait()
			l.mu.Lock()
			if l.process == nil {
				l.mu.Unlock()
				return
			}
			l.died++
			cmd = l.command(out)
			if err := cmd.Start(); err != nil {
				l.mu.Unlock()
				l.Errorf("the server cannot be started again: %v", err)
				return
			}
			l.process = cmd.Process
			l.mu.Unlock()
		}
	}()
	l.Cleanup(func() { l.stop(syscall.SIGKILL) })
}

// command is the server, with variables of its own.
func (l *life) command(out io.Writer, variables ...string) *exec.Cmd {
	args := []string{"server", "--verbose", "--data", l.data, "--listen", l.api, "--http", l.http, "--internal", l.internal, "--etcd", l.etcd}
	cmd := exec.Command(filepath.Join(programs, "dayfly"), append(args, l.flags...)...)
	cmd.Env = append([]string{"HOME=" + l.dir, "PATH=" + programs + ":" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}, variables...)
	cmd.Stdout, cmd.Stderr = out, out
	return cmd
}

// startEtcd starts an etcd outside of the server, which dies once and comes back.
func (l *life) startEtcd(f fate) {
	l.Helper()
	l.etcd = freeAddress(l.T)
	start := func() *exec.Cmd {
		cmd := exec.Command(filepath.Join(programs, "etcdserver"), filepath.Join(l.dir, "etcd"), l.etcd)
		if err := cmd.Start(); err != nil {
			l.Error(err)
		}
		return cmd
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	end := func(cmd *exec.Cmd) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	cmd := start()
	go func() {
		defer close(stopped)
		for _, pause := range []time.Duration{f.after, f.away} {
			select {
			case <-stop:
				end(cmd)
				return
			case <-time.After(pause):
			}
			if pause == f.after {
				end(cmd)
				continue
			}
			cmd = start()
		}
		<-stop
		end(cmd)
	}()
	l.Cleanup(func() {
		close(stop)
		<-stopped
	})
}

// stop ends the server for good.
func (l *life) stop(signal syscall.Signal) {
	l.mu.Lock()
	process, ended := l.process, l.ended
	l.process = nil
	l.mu.Unlock()
	if process != nil {
		_ = process.Signal(signal)
		<-ended
	}
}

// now gives the process that the server is now.
func (l *life) now() *os.Process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.process
}

func (l *life) deaths() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.died
}

// live makes, changes and ends environments while the server may die, and checks them.
func (l *life) live(f fate) {
	l.Helper()
	begun := time.Now()
	l.follow()
	l.start(f)

	l.create("untouched", "main", 0)
	l.answers("untouched", "1")
	untouched := l.running("untouched")

	l.create("changing", "feature", 0)
	git(l.T, l.repo, "branch", branch, "main")
	l.file("filed", "main", "")
	l.push("main", pushed)
	l.answers("changing", "1")
	l.answers("repo-auto-x", "1")
	l.answers("hosted-pushed", "1")
	l.answers("filed", "1")

	commit(l.T, l.repo, "feature", "2")
	l.file("filed", "feature", "")
	l.push("feature", pushed)
	l.file("filed-expiring", "main", "1s")
	l.answers("changing", "2")
	l.answers("hosted-pushed", "2")
	l.answers("filed", "2")

	l.create("expiring", "main", dayfly.Duration(time.Second))
	l.gone("expiring")
	l.gone("filed-expiring")
	l.archived("filed-expiring")

	l.check("changing", "filed", "hosted-pushed", "repo-auto-x", "untouched")
	git(l.T, l.repo, "branch", "-D", branch)
	l.remove("filed")
	l.push("", pushed)
	l.gone("repo-auto-x")
	l.gone("filed")
	l.gone("hosted-pushed")
	l.check("changing", "untouched")
	if diff := cmp.Diff(untouched, l.running("untouched"), cmp.AllowUnexported(process{})); diff != "" {
		l.Errorf("an environment that nobody touched was restarted:\n%s", diff)
	}
	l.delete("changing")
	l.gone("changing")
	l.check("untouched")
	l.delete("untouched")
	l.gone("untouched")
	l.check()

	l.diedOnce(f)
	l.stop(syscall.SIGTERM)
	l.took = time.Since(begun)
	// What is kept for its logs: each environment once, each deployment once.
	l.records(7, 27)
}

// diedOnce checks that the server died when it was to, and never else.
func (l *life) diedOnce(f fate) {
	l.Helper()
	if f.point != "" && l.deaths() == 0 {
		// The order of things differs from life to life; what is not reached cannot be died at.
		l.Logf("%s was not reached this time", f.point)
	}
	if f.away == 0 && l.deaths() > 1 {
		l.Errorf("the server died %d times, and was killed once at most", l.deaths())
	}
}

// insist repeats a call until it is answered by something else than that nobody is there.
func (l *life) insist(what string, call func(context.Context) error) {
	l.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := call(l.Context())
		switch {
		case err == nil:
			return
		case dayfly.ErrorCode(err) != dayfly.CodeUnavailable && dayfly.ErrorCode(err) != dayfly.CodeConflict, time.Now().After(deadline):
			l.Fatalf("%s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (l *life) create(name, branch string, keep dayfly.Duration) {
	l.Helper()
	l.insist("create "+name, func(ctx context.Context) error {
		_, _, err := l.client.CreateEnvironment(ctx, dayfly.EnvironmentRequest{
			Repo: l.repo, Spec: dayfly.EnvironmentSpec{Name: name, Branch: branch, Keep: keep},
		})
		return err
	})
}

func (l *life) delete(name string) {
	l.Helper()
	l.insist("delete "+name, func(ctx context.Context) error {
		_, err := l.client.DeleteEnvironment(ctx, name, false)
		if dayfly.ErrorCode(err) == dayfly.CodeNotFound {
			return nil // the one who asked died before it could be told
		}
		return err
	})
}

// until looks until something is as it should be, and says what is wrong when it never is.
func (l *life) until(what string, wrong func() string) {
	l.Helper()
	deadline := time.Now().Add(patience)
	for pause := 10 * time.Millisecond; ; pause = min(pause*5/4, 100*time.Millisecond) {
		w := wrong()
		if w == "" {
			return
		}
		if time.Now().After(deadline) {
			l.Fatalf("never %s: %s", what, w)
		}
		time.Sleep(pause) // looking takes time from what is looked at
	}
}

// answers waits until an environment's services answer with a version.
func (l *life) answers(name, version string) {
	l.Helper()
	for _, host := range []string{name, "frontend-" + name, "backend-" + name} {
		l.answersAt(host, name, version)
	}
}

// answersAt waits until a host answers with a version of an environment.
func (l *life) answersAt(host, name, version string) {
	l.Helper()
	want := fmt.Sprintf("env=%s version=%s ", name, version)
	l.until(host+" answers", func() string {
		status, text := l.get(host)
		if status == http.StatusOK && strings.Contains(text, want) {
			return ""
		}
		return fmt.Sprintf("%d %s", status, text)
	})
}

func (l *life) get(name string) (int, string) {
	ctx, cancel := context.WithTimeout(l.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.http+"/", nil)
	if err != nil {
		l.Fatal(err)
	}
	req.Host = name + ".localhost"
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b) + fmt.Sprint(err)
}

// changes makes, changes and deletes environments, while another server is cut off or dead.
func (l *life) changes() {
	l.Helper()
	l.delete("leaving")
	commit(l.T, l.repo, "feature", "2")
	l.create("coming", "main", 0)
	l.create("brief", "main", 0)
	l.answers("coming", "1")
	l.delete("brief")
	l.gone("brief")
	l.answers("changing", "2")
}

// gone waits until an environment is away.
func (l *life) gone(name string) {
	l.Helper()
	l.until(name+" is gone", func() string {
		e, err := l.client.Environment(l.Context(), name)
		switch {
		case dayfly.ErrorCode(err) == dayfly.CodeNotFound:
			return ""
		case err != nil:
			return err.Error()
		}
		return string(e.Phase) + " " + e.Message
	})
	for _, host := range []string{name, "frontend-" + name, "backend-" + name} {
		l.until(host+" answers 404", func() string {
			if status, text := l.get(host); status != http.StatusNotFound {
				return fmt.Sprintf("%d %s", status, text)
			}
			return ""
		})
	}
}

// process is one that belongs to an environment.
type process struct {
	pid                           int
	started, environment, service string
}

// all gives the servers on the same state.
func (l *life) all() []*life { return append([]*life{l}, l.peers...) }

// processes gives those that run below the data folders, one for each instance.
func (l *life) processes() []process {
	found, err := l.findProcesses()
	if err != nil {
		l.Fatal(err)
	}
	return found
}

func (l *life) findProcesses() (found []process, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		env, err := os.ReadFile(file)
		ours := func(l *life) bool { return strings.Contains(string(env), "DAYFLY_DIR="+l.data+"/") }
		if err != nil || !slices.ContainsFunc(l.all(), ours) {
			continue
		}
		var p process
		for _, v := range strings.Split(string(env), "\x00") {
			name, value, _ := strings.Cut(v, "=")
			switch name {
			case "DAYFLY_ENV":
				p.environment = value
			case "DAYFLY_SERVICE":
				p.service = value
			}
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(file), "stat"))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if fields[0] == "Z" {
			continue
		}
		p.started = fields[19]
		if _, err := fmt.Sscanf(file, "/proc/%d/", &p.pid); err != nil {
			return nil, err
		}
		found = append(found, p)
	}
	return found, nil
}

// running gives the processes of an environment by service.
func (l *life) running(name string) map[string][]process {
	found := map[string][]process{}
	for _, p := range l.processes() {
		if p.environment == name {
			found[p.service] = append(found[p.service], p)
		}
	}
	return found
}

// check waits until just these environments are there, each once, and nothing else is left.
func (l *life) check(names ...string) {
	l.Helper()
	l.until("just what is wanted is there", func() string { return l.wrong(names) })
}

func (l *life) wrong(names []string) string {
	list, err := l.client.Environments(l.Context(), "")
	if err != nil {
		return err.Error()
	}
	var there []string
	for _, e := range list {
		there = append(there, e.Name)
		if e.Phase != dayfly.PhaseReady {
			return fmt.Sprintf("%s is %s: %s", e.Name, e.Phase, e.Message)
		}
	}
	if !slices.Equal(there, names) {
		return fmt.Sprintf("environments %q", there)
	}
	var running, want []string
	for _, p := range l.processes() {
		running = append(running, p.environment+" "+p.service)
	}
	for _, name := range names {
		want = append(want, name+" backend", name+" frontend")
	}
	slices.Sort(running)
	if !slices.Equal(running, want) {
		return fmt.Sprintf("processes %q", running)
	}
	// A deployment that has a folder has an environment; a job's stays with it.
	for _, dir := range []string{"run", "private"} {
		found := 0
		for _, server := range l.all() {
			folders, err := os.ReadDir(filepath.Join(server.data, dir))
			if err != nil {
				return err.Error()
			}
			found += len(folders)
		}
		most := 3 * len(names)
		if found > most || dir == "run" && found != most {
			return fmt.Sprintf("%d folders in %s for %d environments", found, dir, len(names))
		}
	}
	for _, server := range l.all() {
		for _, pattern := range []string{"*/*.new-*", "*/*/*.new-*", "run/*/.new-*", ".new-*"} {
			if half, err := filepath.Glob(filepath.Join(server.data, pattern)); err != nil || len(half) > 0 {
				return fmt.Sprintf("half done: %q, %v", half, err)
			}
		}
	}
	return ""
}

// records looks into the state of the server that has ended: so many environments and
// at least so many deployments are remembered, and nothing else is there.
func (l *life) records(environments, deployments int) {
	l.Helper()
	config := registry.Config{Dir: filepath.Join(l.data, "etcd"), Logger: slog.New(slog.DiscardHandler)}
	if l.etcd != "" {
		config.Dir, config.Endpoints = "", strings.Split(l.etcd, ",")
	}
	store, err := registry.Open(l.Context(), config)
	if err != nil {
		l.Fatal(err)
	}
	cache := registry.NewCache(store)
	if err := cache.Start(context.WithoutCancel(l.Context())); err != nil {
		l.Fatal(err)
	}
	left := map[string]int{
		"environments": registry.Len(cache, registry.Environments), "resolutions": registry.Len(cache, registry.Resolutions),
		"releases": registry.Len(cache, registry.Releases), "deployments": registry.Len(cache, registry.Deployments),
		"observed": registry.Len(cache, registry.Observed), "hosts": registry.Len(cache, registry.Hosts),
		"addresses": registry.Len(cache, registry.Addresses), "credentials": registry.Len(cache, registry.Credentials),
		"templates": registry.Len(cache, registry.Templates), "versions of templates": registry.Len(cache, registry.TemplateVersions),
		"databases": registry.Len(cache, registry.Databases), "statuses of databases": registry.Len(cache, registry.DatabaseStatuses),
	}
	for kind, n := range left {
		if n > 0 {
			l.Errorf("%d %s are left in the state", n, kind)
		}
	}
	ended, retired := registry.Len(cache, registry.Ended), registry.Len(cache, registry.Retired)
	if ended != environments || retired < deployments {
		l.Errorf("%d environments and %d deployments are remembered, want %d and %d", ended, retired, environments, deployments)
	}
	cache.Close()
	if err := errors.Join(store.Close()); err != nil {
		l.Error(err)
	}
}
