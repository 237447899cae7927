package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"

	"github.com/rogpeppe/go-internal/testscript"
)

// canAddress says whether an address can be given to this host.
func canAddress() bool {
	_, err := exec.LookPath("ip")
	return err == nil && os.Geteuid() == 0
}

// cmdAddress gives this host one more address for the time of the script, and puts it into a variable.
func cmdAddress(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: address VARIABLE")
	}
	address := fmt.Sprintf("10.209.%d.%d", rand.IntN(256), 1+rand.IntN(254))
	if out, err := exec.Command("ip", "address", "add", address+"/32", "dev", "lo").CombinedOutput(); err != nil {
		ts.Fatalf("%s: %v: %s", address, err, out)
	}
	ts.Defer(func() { _ = exec.Command("ip", "address", "del", address+"/32", "dev", "lo").Run() }) // at worst it stays until the next boot
	ts.Setenv(args[0], address)
}
