//go:build crashpoints

// Package crash marks the points at which `make torture` kills the server: before and after
// everything that leaves a trace outside of the process. In a normal build it is empty.
package crash

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// Enabled says whether this build can be killed at its points.
const Enabled = true

var (
	mu      sync.Mutex
	reached = map[string]int{}
)

// Point is a place to die at. Each is noted in the file that DAYFLY_CRASH_LOG names, as
// "name#n" when it is reached for the n-th time, and the one that DAYFLY_CRASH_AT names kills
// the process.
func Point(name string) {
	mu.Lock()
	defer mu.Unlock()
	reached[name]++
	point := fmt.Sprintf("%s#%d", name, reached[name])
	if file := os.Getenv("DAYFLY_CRASH_LOG"); file != "" {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = fmt.Fprintln(f, point)
		}
		if err != nil || f.Close() != nil {
			panic("crash points cannot be noted in " + file)
		}
	}
	if os.Getenv("DAYFLY_CRASH_AT") == point {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}
