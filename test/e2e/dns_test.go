package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdNames asks the server's DNS with Go's resolver, over UDP and over TCP, until both give
// what is wanted: names NAME ADDRESS..., names srv NAME PORT...; "! names NAME" wants that the
// name is not there.
func cmdNames(ts *testscript.TestScript, neg bool, args []string) {
	port := ts.Getenv("DNS")
	var last string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		last = ""
		for _, network := range []string{"udp", "tcp"} {
			r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+port)
			}}
			got, err := lookup(r, args)
			var missing *net.DNSError
			switch {
			case neg && errors.As(err, &missing) && missing.IsNotFound:
			case neg || err != nil || !got:
				last += fmt.Sprintf("%s: %v, %v\n", network, got, err)
			}
		}
		if last == "" {
			return
		}
	}
	ts.Fatalf("%s: %s", strings.Join(args, " "), last)
}

// lookup says whether a name has what the arguments say.
func lookup(r *net.Resolver, args []string) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if args[0] != "srv" {
		got, err := r.LookupHost(ctx, args[0]+".")
		return slices.Equal(got, args[1:]), err
	}
	_, records, err := r.LookupSRV(ctx, "", "", args[1]+".")
	var ports []string
	for _, record := range records {
		ports = append(ports, fmt.Sprint(record.Port))
	}
	return slices.Equal(ports, args[2:]), err
}
