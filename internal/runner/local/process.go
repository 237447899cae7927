//go:build linux

package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// process is the identity of a process: an id is used again, an id with its start time
// and boot is not.
type process struct {
	PID    int    `json:"pid"`
	Start  uint64 `json:"start"` // field 22 of /proc/PID/stat, in clock ticks since boot
	Boot   string `json:"boot"`
	leader bool   // of its group
	gone   bool
}

// identify reads the identity of a running process.
func identify(pid int, boot string) (process, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	// The name stands in parentheses and may have any character.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return process{}, fmt.Errorf("/proc/%d/stat cannot be understood", pid)
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return process{}, err
	}
	group, _ := strconv.Atoi(string(fields[2]))
	return process{PID: pid, Start: start, Boot: boot, leader: group == pid, gone: fields[0][0] == 'Z'}, nil
}

// alive says whether this very process runs.
func (p process) alive(boot string) bool {
	found, err := identify(p.PID, boot)
	return err == nil && p.Boot == boot && found.Start == p.Start && !found.gone
}

// command is what is to be started.
type command struct {
	path string
	args []string
	env  []string
	dir  string
	out  *os.File
	exit *os.File // where its exit code is noted; nil = nowhere
	user int      // 0 = the server's own
}

// noteExit runs a command and writes its exit code to descriptor 3, which the command does not get.
const noteExit = `"$@" 3>&-; code=$?; echo "$code" >&3; exit "$code"`

// noting gives a command that notes its exit code by itself: nobody else could while the server is away.
func (c command) noting(to *os.File) command {
	c.args = append([]string{"sh", "-c", noteExit, "sh", c.path}, c.args[1:]...)
	c.path, c.exit = "/bin/sh", to
	return c
}

// notedExit gives the exit code that was noted in a file, if one was.
func notedExit(file string) (code int, ok bool) {
	b, err := os.ReadFile(file)
	if text, whole := strings.CutSuffix(string(b), "\n"); err == nil && whole {
		code, err = strconv.Atoi(text)
		return code, err == nil
	}
	return 0, false
}

// start starts a process with a session and a group of its own, that outlives the
// server, and writes to its log by itself. into, unless it is nil, says what else it starts in.
func (c command) start(boot string, into func(*syscall.SysProcAttr)) (process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return process{}, err
	}
	defer null.Close()
	sys := &syscall.SysProcAttr{Setsid: true, Credential: credential(c.user)}
	if into != nil {
		into(sys)
	}
	files := []uintptr{null.Fd(), c.out.Fd(), c.out.Fd()}
	if c.exit != nil {
		files = append(files, c.exit.Fd())
	}
	pid, err := syscall.ForkExec(c.path, c.args, &syscall.ProcAttr{Dir: c.dir, Env: c.env, Files: files, Sys: sys})
	if err != nil {
		return process{}, fmt.Errorf("%s: %w", c.args[0], err)
	}
	p, err := identify(pid, boot)
	if err != nil {
		killGroup(pid)
		return p, err
	}
	p.gone = false // also one that has ended already is still to be waited for
	return p, nil
}

// wait returns when the process has ended, or ctx has. It reaps the process if it is a
// child of ours; of others the kernel tells the exit code since Linux 6.15.
func (p process) wait(ctx context.Context) (exit, error) {
	if p.gone {
		return exit{}, nil
	}
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return exit{}, nil
	}
	if err != nil {
		return exit{}, err
	}
	// A descriptor that does not block is watched by the runtime's poller: no thread
	// waits here.
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	if again, err := identify(p.PID, p.Boot); err != nil || again.Start != p.Start {
		return exit{}, nil // the id had been used again
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := f.SyscallConn()
	if err != nil {
		return exit{}, err
	}
	var e exit
	err = conn.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 0); err != nil || n == 0 {
			return false
		}
		e = reap(p.PID, int(fd))
		return true
	})
	if ctx.Err() != nil && err != nil {
		return exit{}, ctx.Err()
	}
	return e, err
}

// reap collects the exit code of a process that has ended.
func reap(pid, pidfd int) exit {
	var status unix.WaitStatus
	for {
		got, err := unix.Wait4(pid, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && got == pid {
			return exitOf(status)
		}
		break
	}
	// Not our child: the kernel knows the code once its parent has reaped it.
	for range 50 {
		if status, ok := pidfdExit(pidfd); ok {
			return exitOf(status)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return exit{}
}

func exitOf(s unix.WaitStatus) exit {
	if s.Signaled() {
		return exit{code: 128 + int(s.Signal()), known: true}
	}
	return exit{code: s.ExitStatus(), known: true}
}

// pidfdInfo is struct pidfd_info of linux/pidfd.h, in its first version.
type pidfdInfo struct {
	mask, cgroup                                                      uint64
	pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid uint32
	exitCode                                                          int32
}

const (
	pidfdInfoExit = 1 << 3
	pidfdGetInfo  = 3<<30 | 64<<16 | 0xff<<8 | 11 // _IOWR(0xFF, 11, struct pidfd_info)
)

func pidfdExit(fd int) (unix.WaitStatus, bool) {
	info := pidfdInfo{mask: pidfdInfoExit}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	return unix.WaitStatus(info.exitCode), errno == 0 && info.mask&pidfdInfoExit != 0
}

// signal sends a signal to the process's whole group.
func (p process) signal(s syscall.Signal) {
	if p.PID > 1 && !p.gone {
		_ = syscall.Kill(-p.PID, s) // gone already is as good
	}
}

// killGroup kills what is left of a process's group.
func killGroup(pid int) {
	if pid > 1 {
		_ = syscall.Kill(-pid, syscall.SIGKILL) // gone already is as good
	}
}

// awaitGroup returns when a group that was killed is empty, or after a second: what has
// ended stays in it until its parent has noticed.
func awaitGroup(pid int) {
	pause := 200 * time.Microsecond
	for deadline := time.Now().Add(time.Second); pid > 1 && time.Now().Before(deadline); pause = min(2*pause, 20*time.Millisecond) {
		if errors.Is(syscall.Kill(-pid, 0), syscall.ESRCH) {
			return
		}
		time.Sleep(pause)
	}
}

func stopSignal(name string) syscall.Signal {
	if name == "" {
		return syscall.SIGTERM
	}
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n)
	}
	if s := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG")); s != 0 {
		return s
	}
	return syscall.SIGTERM
}

func signalName(n int) string {
	if name := unix.SignalName(syscall.Signal(n)); name != "" {
		return name
	}
	return strconv.Itoa(n)
}

// marked finds the processes that carry this cluster's id and lie below this folder, by
// instance.
func (r *Runner) marked() map[string][]int {
	found := map[string][]int{}
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return found
	}
	cluster := "DAYFLY_CLUSTER=" + r.ClusterID
	below := "DAYFLY_DIR=" + r.path("private") + "/"
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(b, []byte(cluster)) {
			continue
		}
		instance, ours, mine := "", false, false
		for v := range bytes.SplitSeq(b, []byte{0}) {
			s := string(v)
			if name, ok := strings.CutPrefix(s, "DAYFLY_INSTANCE="); ok {
				instance = name
			}
			ours = ours || s == cluster
			mine = mine || strings.HasPrefix(s, below)
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil && ours && mine && instance != "" {
			found[instance] = append(found[instance], pid)
		}
	}
	return found
}

// freePort finds a port of 127.0.0.1 that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
