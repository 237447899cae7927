// Command etcdserver is an etcd alone, for the scripts in which the state is elsewhere:
//
//	etcdserver FOLDER ADDRESS
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/dayfly-dev/dayfly/internal/registry/embedded"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server, err := embedded.Start(ctx, os.Args[1], os.Args[2], slog.Default())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-ctx.Done()
	server.Close()
}
