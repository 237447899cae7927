// Package e2e runs the promises to users, one script each, against the real binary.
package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/itchyny/gojq"
	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the expected output in the scripts")

// patience is how long a script waits for something that should happen.
const patience = 60 * time.Second

var programs string // folder of the binaries under test

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "dayfly-e2e-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	programs = dir
	if err := os.Chmod(dir, 0o755); err != nil { // services may run as other users
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	build := exec.Command("go", "build", "-o", dir+"/", "../../cmd/dayfly", "./testservice", "./etcdserver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "the binary does not build: %s\n", out)
		return 1
	}
	return m.Run()
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: ".",
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			if cond == "addresses" {
				return canAddress(), nil
			}
			return false, fmt.Errorf("no such condition: %s", cond)
		},
		UpdateScripts:       *update,
		RequireExplicitExec: false,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"dayfly":    dayfly,
			"server":    cmdServer,
			"end":       func(ts *testscript.TestScript, neg bool, args []string) { theServer(ts).end(ts, syscall.SIGTERM) },
			"interrupt": func(ts *testscript.TestScript, neg bool, args []string) { theServer(ts).end(ts, syscall.SIGINT) },
			"free":      cmdFree,
			"ports": func(ts *testscript.TestScript, neg bool, args []string) {
				for i, port := range freePorts(ts, len(args)) {
					ts.Setenv(args[i], port)
				}
			},
			"kill9":      func(ts *testscript.TestScript, neg bool, args []string) { theServer(ts).end(ts, syscall.SIGKILL) },
			"restart":    func(ts *testscript.TestScript, neg bool, args []string) { theServer(ts).start(ts) },
			"repo":       cmdRepo,
			"commit":     cmdCommit,
			"get":        cmdGet,
			"eventually": cmdEventually,
			"setenv":     cmdSetenv,
			"exit": func(ts *testscript.TestScript, neg bool, args []string) {
				if (ts.Getenv("EXIT") != args[0]) != neg {
					ts.Fatalf("the exit code was %s", ts.Getenv("EXIT"))
				}
			},
			"etcd":      cmdEtcd,
			"githttp":   cmdGitHTTP,
			"load":      cmdLoad,
			"unload":    cmdUnload,
			"jq":        cmdJQ,
			"absent":    cmdAbsent,
			"hook":      cmdHook,
			"other":     cmdOther,
			"left":      cmdLeft,
			"until":     cmdUntil,
			"processes": cmdProcesses,
			"appears":   cmdAppears,
			"gone":      cmdGone,
			"runs":      cmdRuns,
			"below":     cmdBelow,
			"mute":      cmdMute,
			"memory":    cmdMemory,
			"disk":      cmdDisk,
			"names":     cmdNames,
			"storm":     cmdStorm,
			"race":      cmdRace,
			"address":   cmdAddress,
		},
	})
}

type serverKey struct{}

// server is the dayfly server of a script.
type server struct {
	args []string
	env  []string
	api  string
	log  string
	cmd  *exec.Cmd
	etcd etcdServer
	load *load
	ends [][2]time.Time // from signal to death, of each time the server was killed
}

func setup(env *testscript.Env) error {
	// Services that run as users of their own have to get at their files.
	if err := os.Chmod(filepath.Dir(env.WorkDir), 0o711); err != nil {
		return err
	}
	home := filepath.Join(env.WorkDir, "home")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	config := "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n[safe]\n\tdirectory = *\n"
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(config), 0o644); err != nil {
		return err
	}
	env.Setenv("HOME", home)
	env.Setenv("PATH", programs+string(os.PathListSeparator)+os.Getenv("PATH"))
	env.Setenv("NO_COLOR", "1")
	s := &server{}
	env.Values[serverKey{}] = s
	other := &server{}
	env.Values[otherKey{}] = other
	env.Defer(func() { s.takeDown(env, "data") })
	env.Defer(func() { other.takeDown(env, "other") })
	return nil
}

func theServer(ts *testscript.TestScript) *server { return ts.Value(serverKey{}).(*server) }

// dayfly runs the client; its exit code is in the variable EXIT.
func dayfly(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(filepath.Join(programs, "dayfly"), args...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	ts.Setenv("EXIT", fmt.Sprint(code))
	if (err != nil) != neg {
		ts.Fatalf("dayfly %s: exit code %d", strings.Join(args, " "), code)
	}
}

// cmdServer starts a server on free ports with the given flags and waits until it is
// ready, which is asked on loopback also where --listen is all addresses. $API, $HTTP and $INTERNAL are its addresses, $LOG is its log;
// "--dns PORT" answers names on the port $DNS.
func cmdServer(ts *testscript.TestScript, neg bool, args []string) {
	s := theServer(ts)
	ports := freePorts(ts, 4)
	if i := slices.Index(args, "--listen"); i >= 0 {
		_, port, err := net.SplitHostPort(args[i+1])
		ts.Check(err)
		ports[0] = port
	}
	if i := slices.Index(args, "--dns"); i >= 0 && args[i+1] == "PORT" {
		args[i+1] = "127.0.0.1:" + ports[3]
	}
	s.api = "http://127.0.0.1:" + ports[0]
	s.log = ts.MkAbs("server.log")
	s.args = append([]string{"server", "--data", ts.MkAbs("data"), "--listen", "127.0.0.1:" + ports[0],
		"--http", "127.0.0.1:" + ports[1], "--internal", "127.0.0.1:" + ports[2]}, args...)
	s.env = []string{"HOME=" + ts.Getenv("HOME"), "PATH=" + ts.Getenv("PATH"), "NOT_FOR_SERVICES=leaked", "TMPDIR=" + os.TempDir()}
	ts.Setenv("API", s.api)
	ts.Setenv("API_PORT", ports[0])
	ts.Setenv("DAYFLY_SERVER", s.api)
	ts.Setenv("HTTP", ports[1])
	ts.Setenv("INTERNAL", ports[2])
	ts.Setenv("DNS", ports[3])
	ts.Setenv("LOG", s.log)
	s.start(ts)
}

func (s *server) start(ts *testscript.TestScript) {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	ts.Check(err)
	defer log.Close()
	s.cmd = exec.Command(filepath.Join(programs, "dayfly"), s.args...)
	s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = s.env, log, log
	ts.Check(s.cmd.Start())
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		if resp, err := http.Get(s.api + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if s.cmd.ProcessState != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	text, _ := os.ReadFile(s.log)
	ts.Fatalf("the server is not ready:\n%s", text)
}

// end sends a signal and waits for the server's end.
func (s *server) end(ts *testscript.TestScript, signal syscall.Signal) {
	sent := time.Now()
	ts.Check(s.cmd.Process.Signal(signal))
	err := s.cmd.Wait()
	if signal == syscall.SIGKILL {
		s.ends = append(s.ends, [2]time.Time{sent, time.Now()})
	}
	s.cmd = nil
	if signal != syscall.SIGKILL && err != nil {
		text, _ := os.ReadFile(s.log)
		ts.Fatalf("the server ended with %v:\n%s", err, text)
	}
}

// takeDown ends the server and everything that its services left running.
func (s *server) takeDown(env *testscript.Env, data string) {
	if s.args == nil {
		return
	}
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
	}
	groups := map[string]bool{}
	for _, pid := range below(filepath.Join(env.WorkDir, data)) {
		if group := groupsOf(pid); group != "" {
			groups[group] = true
		}
		syscall.Kill(pid, syscall.SIGKILL)
	}
	for group := range groups {
		removeGroups(group)
	}
}

// groupsOf is the control group of the server that started a process: "" = it has none.
func groupsOf(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	for line := range strings.Lines(string(text)) {
		if _, path, ok := strings.Cut(strings.TrimSpace(line), ":/dayfly-"); ok {
			return "dayfly-" + filepath.Dir(path)
		}
	}
	return ""
}

// removeGroups removes what a server that was killed for good left of its control groups, once
// the last processes have left them.
func removeGroups(name string) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		left := false
		for _, pattern := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name} {
			for _, below := range []string{"/*/", ""} {
				found, _ := filepath.Glob(pattern + below)
				for _, dir := range found {
					left = syscall.Rmdir(strings.TrimSuffix(dir, "/")) != nil || left
				}
			}
		}
		if !left {
			return
		}
	}
}

// freePorts gives ports that nobody listens on, below those that the kernel gives to
// whoever connects: one of these could be gone before the server has it.
func freePorts(ts *testscript.TestScript, n int) (ports []string) {
	for len(ports) < n {
		port := fmt.Sprint(10000 + rand.IntN(22000))
		if l, err := net.Listen("tcp", "0.0.0.0:"+port); err == nil {
			defer l.Close()
			ports = append(ports, port)
		}
	}
	return ports
}

// cmdRepo makes a git repository of a folder, with everything in one commit on main.
func cmdRepo(ts *testscript.TestScript, neg bool, args []string) {
	for _, dir := range args {
		git(ts, dir, "init", "-q", "-b", "main")
		git(ts, dir, "add", "-A")
		git(ts, dir, "commit", "-q", "-m", "begin")
	}
}

// cmdCommit writes a file of a repository and commits it: commit DIR FILE CONTENT.
func cmdCommit(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(filepath.Join(args[0], args[1])), []byte(strings.Join(args[2:], " ")+"\n"), 0o644))
	git(ts, args[0], "add", "-A")
	git(ts, args[0], "commit", "-q", "-m", "change "+args[1])
}

func git(ts *testscript.TestScript, dir string, args ...string) {
	ts.Check(ts.Exec("git", append([]string{"-C", ts.MkAbs(dir)}, args...)...))
}

// cmdGet asks URL with optional headers and prints status and body:
// get [-H 'Name: value']... URL. "! get" wants a status of 400 or more.
func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	status, text, err := fetch(args)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%d\n%s", status, text)
	if (status >= 400) != neg {
		ts.Fatalf("%v answered %d: %s", args, status, text)
	}
}

// cmdEventually asks URL until status and body match a pattern:
// eventually PATTERN [-H 'Name: value']... URL.
func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	var last string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		status, text, err := fetch(args[1:])
		if last = fmt.Sprintf("%d\n%s", status, text); err == nil && pattern.MatchString(last) {
			fmt.Fprint(ts.Stdout(), last)
			return
		}
		if err != nil {
			last = err.Error()
		}
	}
	log, _ := os.ReadFile(theServer(ts).log)
	ts.Fatalf("%v never matched %q; last: %s\n%s", args[1:], args[0], last, log)
}

// fetch asks once. Names below localhost are 127.0.0.1.
func fetch(args []string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	url := args[len(args)-1]
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	for i := 0; i+1 < len(args)-1; i += 2 {
		name, value, _ := strings.Cut(args[i+1], ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	dialer := net.Dialer{}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			host, port, _ := net.SplitHostPort(address)
			if strings.HasSuffix(host, "localhost") {
				host = "127.0.0.1"
			}
			return dialer.DialContext(ctx, network, net.JoinHostPort(host, port))
		}}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// cmdSetenv sets a variable to what a pattern's first group finds in a file (or in
// stdout): setenv NAME FILE PATTERN.
func cmdSetenv(ts *testscript.TestScript, neg bool, args []string) {
	found := regexp.MustCompile(args[2]).FindStringSubmatch(ts.ReadFile(args[1]))
	if len(found) < 2 {
		ts.Fatalf("%q is not in %s:\n%s", args[2], args[1], ts.ReadFile(args[1]))
	}
	ts.Setenv(args[0], found[1])
}

// cmdAbsent looks for a text in every file below the given folders, and in the
// variables and arguments of every process, and fails where it is found: absent TEXT DIR...
func cmdAbsent(ts *testscript.TestScript, neg bool, args []string) {
	for _, root := range args[1:] {
		ts.Check(filepath.WalkDir(ts.MkAbs(root), func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), args[0]) {
				ts.Fatalf("%s contains it", path)
			}
			return nil
		}))
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	variables, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range append(processes, variables...) {
		if b, err := os.ReadFile(file); err == nil && strings.Contains(string(b), args[0]) {
			ts.Fatalf("%s contains it: %q", file, b)
		}
	}
}

// cmdJQ runs a jq program on a file or on stdout: jq PROGRAM [FILE]. A last result of false
// or null fails; texts are printed as lines.
func cmdJQ(ts *testscript.TestScript, neg bool, args []string) {
	file := "stdout"
	if len(args) > 1 {
		file = args[1]
	}
	var input any
	text := ts.ReadFile(file)
	ts.Check(json.Unmarshal([]byte(text), &input))
	query, err := gojq.Parse(args[0])
	ts.Check(err)
	var last any
	var out strings.Builder
	for results := query.Run(input); ; {
		v, ok := results.Next()
		if !ok {
			break
		}
		if err, failed := v.(error); failed {
			ts.Check(err)
		}
		last = v
		fmt.Fprintln(&out, v)
	}
	fmt.Fprint(ts.Stdout(), out.String())
	if good := last != nil && last != false; good == neg {
		ts.Fatalf("jq %s gives %v for:\n%s", args[0], last, text)
	}
}
