// Command dayfly makes short-lived environments for every branch.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/dayfly-dev/dayfly/internal/cli"
)

var version = "" // set by the linker; otherwise the build information tells

func main() {
	// compose-go logs a line whenever a file of variables uses one that is not set.
	logrus.SetOutput(io.Discard)
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		got := <-signals
		// After the first signal the default is back: a second one ends the process at once.
		signal.Stop(signals)
		if got == syscall.SIGTERM {
			cancel(cli.ErrTerminated)
		}
		cancel(context.Canceled)
	}()
	os.Exit(cli.Main(ctx, os.Args[1:], cli.SystemStreams(), version))
}
