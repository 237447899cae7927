//go:build linux

package postgres

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// marker is the variable by which whatever was started for a folder is found again, also what a dump started.
const marker = "DAYFLY_DATABASE_FOLDER="

// postmaster gives the process that serves a cluster; 0 = none. The number in postmaster.pid may
// belong to another process by now: a server is in its data folder.
func postmaster(data string) int {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil || pid <= 1 || !inside(pid, data) {
		return 0
	}
	return pid
}

// inside says whether a process's working folder is this one. It is not for one that has ended.
func inside(pid int, dir string) bool {
	a, err1 := os.Stat("/proc/" + strconv.Itoa(pid) + "/cwd")
	b, err2 := os.Stat(dir)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// processes lists what runs for a folder: what works in or below it, and where marked is set, what was started for it.
func processes(dir string, marked bool) []int {
	entries, _ := os.ReadDir("/proc") // it is there
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		real = dir
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cwd, err := os.Readlink("/proc/" + entry.Name() + "/cwd")
		if err != nil {
			continue
		}
		if cwd == real || strings.HasPrefix(cwd, real+"/") || cwd == real+" (deleted)" {
			pids = append(pids, pid)
			continue
		}
		if !marked {
			continue
		}
		environ, err := os.ReadFile("/proc/" + entry.Name() + "/environ")
		if err == nil && (bytes.HasPrefix(environ, []byte(marker+dir+"\x00")) || bytes.Contains(environ, []byte("\x00"+marker+dir+"\x00"))) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killAll ends whatever runs for a folder, until nothing does.
func killAll(ctx context.Context, dir string) error { return killEach(ctx, dir, true) }

// killIn ends what works in a cluster's folder.
func killIn(ctx context.Context, data string) error { return killEach(ctx, data, false) }

func killEach(ctx context.Context, dir string, marked bool) error {
	for {
		pids := processes(dir, marked)
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is as good
			reap(pid)
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

// halt stops all processes of a cluster without ending them, and returns when none of them writes any more.
// The one that starts the others comes first, so that no new ones come.
func halt(ctx context.Context, server int, data string) error {
	if err := syscall.Kill(server, syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		running := false
		for _, pid := range processes(data, false) {
			_ = syscall.Kill(pid, syscall.SIGSTOP) // gone already is as good
			running = running || !strings.ContainsRune("TtZX", rune(state(pid)))
		}
		if !running {
			return nil
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// resume lets go on what halt stopped, the one that starts the others last: as long as it is halted something may be.
func resume(server int, data string) {
	for _, pid := range processes(data, false) {
		if pid != server {
			_ = syscall.Kill(pid, syscall.SIGCONT) // gone already is as good
		}
	}
	_ = syscall.Kill(server, syscall.SIGCONT)
}

// state is the letter that the kernel gives for what a process does (see proc_pid_stat(5)); 'X' = it is gone.
func state(pid int) byte {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	at := bytes.LastIndexByte(b, ')') + 2
	if err != nil || at >= len(b) {
		return 'X'
	}
	return b[at]
}

// pause waits between two looks at something that tells nobody when it changes.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// reap collects a child of ours that has ended.
func reap(pid int) {
	_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // of others the kernel takes care
}

// server is a running server that is watched.
type server struct {
	pid   int
	file  *os.File
	ended chan struct{}
	done  chan struct{}
}

// watch follows a process until it ends or the server is closed.
func watch(pid int, data string) (*server, error) {
	s := &server{pid: pid, ended: make(chan struct{}), done: make(chan struct{})}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		close(s.ended)
		close(s.done)
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	s.file = os.NewFile(uintptr(fd), "pidfd") // watched by the runtime's poller: no thread waits
	if data != "" && !inside(pid, data) {
		close(s.ended) // ended, and the number may have been used again
		close(s.done)
		return s, s.file.Close()
	}
	conn, err := s.file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	go func() {
		defer close(s.done)
		err := conn.Read(func(fd uintptr) bool {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) //nolint:gosec // a file descriptor is small
			return err == nil && n > 0
		})
		if err == nil {
			reap(pid)
			close(s.ended)
		}
	}()
	return s, nil
}

// PID is the number of the process.
func (s *server) PID() int { return s.pid }

// Ended is closed when the server does not run any more.
func (s *server) Ended() <-chan struct{} { return s.ended }

// Close lets go of the server. It goes on.
func (s *server) Close() {
	if s.file != nil {
		_ = s.file.SetReadDeadline(time.Unix(1, 0)) // ends the watching
		<-s.done
		_ = s.file.Close() // nothing was written
	}
}
