// Command etcdserver is an etcd alone, for the tests in which the state is elsewhere:
//
//	etcdserver FOLDER ADDRESS
//	etcdserver -plain [-name NAME -members NAME=URL,...] [-quota BYTES] FOLDER ADDRESS,...
//
// The first is dayfly's own etcd without the rest. The second is etcd as everybody else
// runs it, such as one member of several: a full disk ends it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"github.com/dayfly-dev/dayfly/internal/registry/embedded"
)

func main() {
	plain := flag.Bool("plain", false, "run etcd as others do")
	name := flag.String("name", "alone", "of this member")
	members := flag.String("members", "alone=http://127.0.0.1:0", "where members reach each other")
	quota := flag.Int64("quota", 0, "bytes of the database; 0 = as etcd does by default")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	run := func() error { return runPlain(ctx, flag.Arg(0), flag.Arg(1), *name, *members, *quota) }
	if !*plain {
		run = func() error { return runOurs(ctx, flag.Arg(0), flag.Arg(1)) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runOurs(ctx context.Context, dir, address string) error {
	server, err := embedded.Start(ctx, dir, address, slog.Default())
	if err != nil {
		return err
	}
	<-ctx.Done()
	return server.Close()
}

func runPlain(ctx context.Context, dir, addresses, name, members string, quota int64) error {
	wal.SegmentSizeBytes = 4 << 20 // two of these must not fill a small disk by themselves
	config := embed.NewConfig()
	config.Dir, config.Name, config.InitialCluster, config.LogLevel, config.QuotaBackendBytes = dir, name, members, "warn", quota
	all, err := types.NewURLsMap(members)
	if err != nil {
		return err
	}
	config.ListenPeerUrls, config.AdvertisePeerUrls = all[name], all[name]
	config.ListenClientUrls = nil
	for address := range strings.SplitSeq(addresses, ",") {
		config.ListenClientUrls = append(config.ListenClientUrls, url.URL{Scheme: "http", Host: address})
	}
	config.AdvertiseClientUrls = config.ListenClientUrls
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer etcd.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-etcd.Err():
		return errors.Join(errors.New("etcd has ended"), err)
	}
}
