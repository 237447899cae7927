package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

type otherKey struct{}

// cmdOther runs a second server, beside that of the script: other start [FLAG...], other kill, other restart.
// Its data is in the folder "other", and its API is at $OTHER.
func cmdOther(ts *testscript.TestScript, _ bool, args []string) {
	o := ts.Value(otherKey{}).(*server)
	switch args[0] {
	case "start":
		ports := freePorts(ts, 3)
		o.api, o.log = "http://127.0.0.1:"+ports[0], ts.MkAbs("other.log")
		o.args = append([]string{
			"server", "--data", ts.MkAbs("other"), "--listen", "127.0.0.1:" + ports[0],
			"--http", "127.0.0.1:" + ports[1], "--internal", "127.0.0.1:" + ports[2],
		}, args[1:]...)
		o.env = slices.Clone(theServer(ts).env)
		ts.Setenv("OTHER", o.api)
		o.start(ts)
	case "kill":
		o.end(ts, syscall.SIGKILL)
	case "restart":
		o.start(ts)
	default:
		ts.Fatalf("other: start, kill or restart")
	}
}

// cmdLeft waits until a folder has nothing that matches a pattern any more: left DIR PATTERN.
func cmdLeft(ts *testscript.TestScript, _ bool, args []string) {
	_, err := os.Stat(ts.MkAbs(args[0])) // of a folder that is not there nothing is ever left
	ts.Check(err)
	var found []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var err error
		found, err = filepath.Glob(filepath.Join(ts.MkAbs(args[0]), args[1]))
		ts.Check(err)
		if len(found) == 0 {
			return
		}
	}
	ts.Fatalf("%q are left", found)
}
