package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// etcdServer is an etcd in a process of its own.
type etcdServer struct {
	address string
	cmd     *exec.Cmd
}

// cmdEtcd starts an etcd at $ETCD, or kills it: etcd start|kill.
func cmdEtcd(ts *testscript.TestScript, _ bool, args []string) {
	e := &theServer(ts).etcd
	if args[0] == "kill" {
		ts.Check(e.cmd.Process.Kill())
		_ = e.cmd.Wait()
		return
	}
	if e.address == "" {
		e.address = "127.0.0.1:" + freePorts(ts, 1)[0]
		ts.Setenv("ETCD", e.address)
		ts.Defer(func() {
			_ = e.cmd.Process.Kill()
			_ = e.cmd.Wait()
		})
	}
	log, err := os.OpenFile(ts.MkAbs("etcd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	ts.Check(err)
	defer log.Close()
	e.cmd = exec.Command(filepath.Join(programs, "etcdserver"), ts.MkAbs("etcd-data"), e.address)
	e.cmd.Stdout, e.cmd.Stderr = log, log
	ts.Check(e.cmd.Start())
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", e.address); err == nil {
			c.Close()
			return
		}
	}
	ts.Fatalf("etcd takes no connections")
}
