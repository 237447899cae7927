// Package lab is what the benchmarks share: a server on free ports with its data in a
// temporary folder, a git repository to make environments from, and the figures that the
// kernel keeps of a process.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is how long anything may take before a benchmark gives up.
const patience = 2 * time.Minute

// Lab is the temporary folder of one benchmark and the server in it.
type Lab struct {
	Dir    string // removed by Close
	Data   string // data folder of the server
	API    string // http://host:port
	Public string // host:port where applications are shown

	internal, binary string
	server           *exec.Cmd
	exited           chan struct{}
	once             sync.Once // ended
}

// open counts the labs that are not closed: an interrupted benchmark closes all before it ends.
var open sync.WaitGroup

// New makes the folder; binary is the dayfly to measure.
func New(binary string) (*Lab, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "dayfly-bench-*")
	if err != nil {
		return nil, err
	}
	// Services may run as somebody else, who has to get at the program and the checkout.
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // it is meant to be entered
		return nil, err
	}
	l := &Lab{Dir: dir, Data: filepath.Join(dir, "data"), binary: binary}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	open.Add(1)
	go func() {
		<-interrupted
		l.Close()
		open.Wait() // the others are interrupted, too
		os.Exit(1)
	}()
	return l, nil
}

// Close ends the server and removes the folder. What the server left running is killed.
func (l *Lab) Close() {
	l.once.Do(l.end)
}

func (l *Lab) end() {
	defer open.Done()
	_ = l.Stop()
	for _, pid := range l.Processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = os.RemoveAll(l.Dir)
}

// BuildService compiles bench/service into the folder bin, which is on the PATH of the
// server, unless it is given ready made.
func (l *Lab) BuildService(ready string) error {
	bin := filepath.Join(l.Dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil { //nolint:gosec // services have to get at it
		return err
	}
	target := filepath.Join(bin, "benchservice")
	if ready != "" {
		b, err := os.ReadFile(ready)
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o755) //nolint:gosec // a program
	}
	build := exec.Command("go", "build", "-o", target, "github.com/dayfly-dev/dayfly/bench/service")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("the service does not build: %w: %s", err, out)
	}
	return nil
}

// Start starts the server and gives the time until it was ready.
func (l *Lab) Start(flags ...string) (time.Duration, error) {
	if l.API == "" { // a later server is at the same place, which services are told
		l.API, l.Public, l.internal = "http://"+Free(), Free(), Free()
	}
	args := append([]string{"server", "--data", l.Data, "--listen", strings.TrimPrefix(l.API, "http://"), "--http", l.Public, "--internal", l.internal}, flags...)
	l.server = exec.Command(l.binary, args...)
	l.server.Env = append(os.Environ(), "PATH="+filepath.Join(l.Dir, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	log, err := os.OpenFile(filepath.Join(l.Dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	l.server.Stdout, l.server.Stderr = log, log
	begun := time.Now()
	if err := l.server.Start(); err != nil {
		l.server = nil
		return 0, err
	}
	exited, server := make(chan struct{}), l.server
	l.exited = exited
	go func() {
		_ = server.Wait()
		close(exited)
	}()
	err = Until(patience, func() bool {
		select {
		case <-exited:
			return true
		default:
		}
		status, _, err := l.Call(http.MethodGet, "/readyz", nil)
		return err == nil && status == http.StatusOK
	})
	if err == nil {
		select {
		case <-exited:
			err = fmt.Errorf("the server ended")
		default:
			return time.Since(begun), nil
		}
	}
	return 0, fmt.Errorf("%w:\n%s", err, l.Log())
}

// Stop ends the server with SIGTERM and waits for it.
func (l *Lab) Stop() error {
	if l.server == nil {
		return nil
	}
	_ = l.server.Process.Signal(syscall.SIGTERM)
	defer func() { l.server = nil }()
	select {
	case <-l.exited:
		return nil
	case <-time.After(patience):
		_ = l.server.Process.Kill()
		<-l.exited
		return fmt.Errorf("the server did not end after SIGTERM")
	}
}

// PID is the server's.
func (l *Lab) PID() int { return l.server.Process.Pid }

// Log gives the last of what the server logged.
func (l *Lab) Log() string {
	b, _ := os.ReadFile(filepath.Join(l.Dir, "server.log"))
	return string(b[max(0, len(b)-4000):])
}

// Call asks the API and gives status and body of its answer.
func (l *Lab) Call(method, path string, body any) (int, []byte, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, l.API+path, in)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

// Create asks for an environment of a branch.
func (l *Lab) Create(name, repo, branch string) error {
	return l.do(http.MethodPost, "/v1/environments", map[string]string{"name": name, "repo": repo, "branch": branch})
}

// Delete deletes an environment and waits until it is gone.
func (l *Lab) Delete(name string) error {
	return l.do(http.MethodDelete, "/v1/environments/"+name+"?wait=120s", nil)
}

func (l *Lab) do(method, path string, body any) error {
	status, text, err := l.Call(method, path, body)
	if err != nil {
		return err
	}
	if status >= 300 {
		return fmt.Errorf("%s %s answered %d: %s", method, path, status, text)
	}
	return nil
}

// Ask asks the proxy for an environment's root and gives the answer.
func (l *Lab) Ask(environment string) (int, string, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+l.Public+"/", nil)
	if err != nil {
		return 0, "", err
	}
	req.Host = environment + ".localhost"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// Answers waits until an environment answers with 200.
func (l *Lab) Answers(environment string) error {
	var status int
	var text string
	err := Until(patience, func() bool {
		var err error
		status, text, err = l.Ask(environment)
		return err == nil && status == http.StatusOK
	})
	if err != nil {
		return fmt.Errorf("%s does not answer: %w; last it was %d %s", environment, err, status, text)
	}
	return nil
}

// Processes are those whose variables name a folder of the server's data: its services.
func (l *Lab) Processes() (pids []int) {
	found, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range found {
		env, err := os.ReadFile(file)
		pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
		if err == nil && bytes.Contains(env, []byte("DAYFLY_DIR="+l.Data+"/")) && !gone(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// gone says whether a process is a zombie, which runs no more and waits for its parent.
func gone(pid int) bool {
	fields := stat(pid)
	return len(fields) == 0 || fields[0] == "Z"
}

// Repo makes a git repository in the folder from files, with one commit on main.
func (l *Lab) Repo(name string, files map[string]string) (string, error) {
	dir := filepath.Join(l.Dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a repository for everyone
		return "", err
	}
	if err := Git(dir, "init", "-q", "-b", "main"); err != nil {
		return "", err
	}
	return dir, Commit(dir, files)
}

// Commit writes files of a repository and commits them.
func Commit(dir string, files map[string]string) error {
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil { //nolint:gosec // a repository for everyone
			return err
		}
	}
	if err := Git(dir, "add", "-A"); err != nil {
		return err
	}
	return Git(dir, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m", "change")
}

// Git runs git in a folder.
func Git(dir string, args ...string) error {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Until asks again and again until done, and gives up after the limit.
func Until(limit time.Duration, done func() bool) error {
	for deadline := time.Now().Add(limit); !done(); time.Sleep(500 * time.Microsecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("nothing came within %s", limit)
		}
	}
	return nil
}

// Free gives an address of this host that nobody listens on. It is not one of those that
// the kernel gives to connections, of which some benchmarks open very many.
func Free() string {
	for {
		port := 10_000 + rand.IntN(20_000) //nolint:gosec // not a secret
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		if err == nil {
			l.Close()
			return fmt.Sprintf("127.0.0.1:%d", port)
		}
	}
}

// At gives a percentile.
func At(d []time.Duration, percentile int) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[min(len(d)-1, len(d)*percentile/100)]
}

// CPU is what a process has used so far.
func CPU(pid int) time.Duration {
	fields := stat(pid)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// ChildrenCPU is what those have used that a process has started and waited for, with theirs.
func ChildrenCPU(pid int) time.Duration {
	fields := stat(pid)
	if len(fields) < 15 {
		return 0
	}
	user, _ := strconv.Atoi(fields[13])
	system, _ := strconv.Atoi(fields[14])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// stat gives the fields of /proc/PID/stat from the state on.
func stat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// Resident gives the bytes of memory that a process holds for itself.
func Resident(pid int) int {
	own, _ := Memory(pid)
	return own
}

// Memory gives the bytes of memory that a process holds for itself, and those of files that
// it has mapped, of which the kernel takes back what it needs.
func Memory(pid int) (own, files int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		key, rest, _ := strings.Cut(line, ":")
		kb := func() int {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n << 10
		}
		switch key {
		case "RssAnon":
			own = kb()
		case "RssFile":
			files = kb()
		}
	}
	return own, files
}

// MiB is a number of bytes for people.
func MiB(bytes int) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
