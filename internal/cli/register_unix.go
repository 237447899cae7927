//go:build unix

package cli

import (
	"os"
	"os/exec"
	"syscall"
)

// apart puts a command into a process group of its own: what a terminal sends to ours must not reach
// it before its registration is gone.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// tell sends a signal to a command and what it has started.
func tell(cmd *exec.Cmd, s syscall.Signal) {
	_ = syscall.Kill(-cmd.Process.Pid, s) // it may have ended
}

// exitCode is that of a process; 128 and the signal where one has ended it.
func exitCode(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}
