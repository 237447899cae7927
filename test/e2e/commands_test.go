package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdUntil runs dayfly until its output and errors match a pattern:
// until PATTERN ARGUMENTS...
func cmdUntil(ts *testscript.TestScript, _ bool, args []string) {
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	var last string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		code, out := runDayfly(ts, args[1:]...)
		if last = fmt.Sprintf("%s\nexit code %d", out, code); pattern.MatchString(last) {
			fmt.Fprint(ts.Stdout(), last)
			return
		}
	}
	log, _ := os.ReadFile(theServer(ts).log)
	ts.Fatalf("dayfly %v never matched %q; last: %s\n%s", args[1:], args[0], last, log)
}

// runDayfly runs the client beside the script, so that several can run at once.
func runDayfly(ts *testscript.TestScript, args ...string) (code int, output string) {
	cmd := exec.Command(filepath.Join(programs, "dayfly"), args...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"HOME=" + ts.Getenv("HOME"), "PATH=" + ts.Getenv("PATH"), "DAYFLY_SERVER=" + ts.Getenv("DAYFLY_SERVER"), "NO_COLOR=1"}
	out, _ := cmd.CombinedOutput() // the exit code tells
	return cmd.ProcessState.ExitCode(), string(out)
}

// cmdProcesses waits until just so many instances run: processes COUNT.
func cmdProcesses(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	waitFor(ts, func() string {
		var found []string
		for _, pid := range below(ts.MkAbs("data")) {
			if line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); bytes.HasPrefix(line, []byte("testservice")) {
				found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
			}
		}
		if len(found) == want {
			return ""
		}
		return fmt.Sprintf("%d processes: %v", len(found), found)
	})
}

// cmdAppears waits until there is a file of a pattern: appears PATTERN.
func cmdAppears(ts *testscript.TestScript, _ bool, args []string) {
	waitFor(ts, func() string {
		found, err := filepath.Glob(ts.MkAbs(args[0]))
		if err != nil || len(found) == 0 {
			return "there is no " + args[0]
		}
		return ""
	})
}

// cmdGone waits until no process has one of the given ids: gone PID...
func cmdGone(ts *testscript.TestScript, _ bool, args []string) {
	waitFor(ts, func() string {
		for _, pid := range args {
			b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
			if err != nil {
				continue
			}
			// One that has ended and that nobody asks for is gone as well.
			if fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]); string(fields[0]) != "Z" {
				return "the process " + pid + " runs: " + string(b)
			}
		}
		return ""
	})
}

// cmdFree looks whether somebody else can listen on a port of 127.0.0.1 now: [!] free PORT.
func cmdFree(ts *testscript.TestScript, neg bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:"+args[0])
	if err == nil {
		l.Close()
	}
	if (err == nil) == neg {
		ts.Fatalf("port %s: %v", args[0], err)
	}
}

// cmdRuns looks whether processes run: [!] runs PID...
func cmdRuns(ts *testscript.TestScript, neg bool, args []string) {
	for _, pid := range args {
		if _, err := os.Stat(filepath.Join("/proc", pid)); (err == nil) == neg {
			ts.Fatalf("process %s runs: %t", pid, !neg)
		}
	}
}

// cmdBelow waits until no more than so many processes name the server's folder of data in
// their variables or work in it: below COUNT.
func cmdBelow(ts *testscript.TestScript, _ bool, args []string) {
	most, err := strconv.Atoi(args[0])
	ts.Check(err)
	waitFor(ts, func() string {
		var found []string
		for _, pid := range below(ts.MkAbs("data")) {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			found = append(found, fmt.Sprintf("%d %s", pid, strings.ReplaceAll(string(line), "\x00", " ")))
		}
		if len(found) <= most {
			return ""
		}
		return fmt.Sprintf("%d processes:\n%s", len(found), strings.Join(found, "\n"))
	})
}

// below gives the processes that name something below a folder in their variables, or
// work there.
func below(dir string) (pids []int) {
	found, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range found {
		variables, _ := os.ReadFile(filepath.Join(process, "environ"))
		folder, _ := os.Readlink(filepath.Join(process, "cwd"))
		pid, err := strconv.Atoi(filepath.Base(process))
		if err == nil && (bytes.Contains(variables, []byte("="+dir+"/")) || strings.HasPrefix(folder, dir+"/")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// waitFor waits until a check finds nothing wrong.
func waitFor(ts *testscript.TestScript, wrong func() string) {
	last := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if last = wrong(); last == "" {
			return
		}
	}
	ts.Fatalf("%s", last)
}

// cmdMute listens at an address and never says anything to those who connect. $MUTE is
// where.
func cmdMute(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	var mu sync.Mutex
	var taken []net.Conn
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			taken = append(taken, c)
			mu.Unlock()
		}
	})
	ts.Defer(func() {
		l.Close()
		all.Wait()
		for _, c := range taken {
			c.Close()
		}
	})
	ts.Setenv("MUTE", l.Addr().String())
}

// cmdMemory fails where the server has ever had more memory than this: memory MIB.
func cmdMemory(ts *testscript.TestScript, _ bool, args []string) {
	most, err := strconv.Atoi(args[0])
	ts.Check(err)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", theServer(ts).cmd.Process.Pid))
	ts.Check(err)
	found := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(status)
	if len(found) < 2 {
		ts.Fatalf("the kernel does not tell: %s", status)
	}
	kib, err := strconv.Atoi(string(found[1]))
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%d MiB at most\n", kib>>10)
	if kib>>10 > most {
		ts.Fatalf("the server had %d MiB", kib>>10)
	}
}

// cmdDisk waits until the files below a folder take no more than this of the disk:
// disk DIR MIB.
func cmdDisk(ts *testscript.TestScript, _ bool, args []string) {
	most, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	waitFor(ts, func() string {
		out, err := exec.Command("du", "-sm", ts.MkAbs(args[0])).Output()
		ts.Check(err)
		mib, err := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
		ts.Check(err)
		if mib <= most {
			return ""
		}
		return fmt.Sprintf("%s has %d MiB", args[0], mib)
	})
}

// cmdStorm makes environments all at once, each by a client of its own, looks whether each
// answers, and deletes every second one as soon as it does: storm PROJECT COUNT.
func cmdStorm(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	problems := make(chan string, n)
	var clients sync.WaitGroup
	for i := range n {
		clients.Go(func() {
			name := fmt.Sprintf("storm-%d", i)
			if code, out := runDayfly(ts, "create", name, "--project", args[0]); code != 0 {
				problems <- fmt.Sprintf("create %s: %d: %s", name, code, out)
				return
			}
			status, text, err := fetch([]string{"http://" + name + ".localhost:" + ts.Getenv("HTTP") + "/"})
			if err != nil || status != http.StatusOK || !strings.Contains(text, "env="+name+" ") {
				problems <- fmt.Sprintf("%s answers %d: %s %v", name, status, text, err)
			}
			if i%2 == 0 {
				return
			}
			if code, out := runDayfly(ts, "delete", name); code != 0 {
				problems <- fmt.Sprintf("delete %s: %d: %s", name, code, out)
			}
		})
	}
	clients.Wait()
	close(problems)
	var all []string
	for p := range problems {
		all = append(all, p)
	}
	if len(all) > 0 {
		ts.Fatalf("%s", strings.Join(all, "\n"))
	}
}

// cmdRace has clients change one environment at once, each to something else, all of them
// from the same revision, and prints the codes of the answers in order:
// race ENV PROJECT REVISION COUNT.
func cmdRace(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[3])
	ts.Check(err)
	answers := make([]string, n)
	var clients sync.WaitGroup
	for i := range n {
		clients.Go(func() {
			body := fmt.Sprintf(`{"project": %q, "only": ["web"], "keep": "%dh"}`, args[1], 10*n+i)
			req, err := http.NewRequest(http.MethodPut, ts.Getenv("API")+"/v1/environments/"+args[0], strings.NewReader(body))
			if err != nil {
				answers[i] = err.Error()
				return
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("If-Match", `"`+args[2]+`"`)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				answers[i] = err.Error()
				return
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			answers[i] = fmt.Sprint(resp.StatusCode)
			if err != nil || resp.StatusCode >= 400 && !bytes.Contains(text, []byte("was changed meanwhile")) {
				answers[i] += " " + string(text)
			}
		})
	}
	clients.Wait()
	slices.Sort(answers)
	fmt.Fprintln(ts.Stdout(), strings.Join(answers, " "))
}
