// Command dayfly makes short-lived environments for every branch.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/dayfly-dev/dayfly/internal/cli"
)

var version = "" // set by the linker; otherwise the build information tells

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the default is back: a second one ends the
	// process at once.
	context.AfterFunc(ctx, stop)
	code := cli.Main(ctx, os.Args[1:], cli.SystemStreams(), version)
	stop()
	os.Exit(code)
}
