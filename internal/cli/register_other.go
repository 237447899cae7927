//go:build !unix

package cli

import (
	"os"
	"os/exec"
	"syscall"
)

func apart(*exec.Cmd) {}

// tell ends a command: there are no signals here.
func tell(cmd *exec.Cmd, _ syscall.Signal) {
	_ = cmd.Process.Kill() // it may have ended
}

func exitCode(state *os.ProcessState) int { return state.ExitCode() }
