package app

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/holder"
	"github.com/dayfly-dev/dayfly/internal/proxy"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/runner"
)

func (a *App) startListeners(context.Context) (err error) {
	tcp := func(address string) (net.Listener, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if host == "" && a.config.local() {
			host = "127.0.0.1"
		}
		return net.Listen("tcp", net.JoinHostPort(host, port))
	}
	// Requests wait for the next server; who speaks to the API is told that there is none.
	held := func(name string, open func(string) (net.Listener, error)) func(string) (net.Listener, error) {
		return func(address string) (net.Listener, error) { return a.holder.Listen(name, address, open) }
	}
	for _, l := range []struct {
		flag, address string
		open          func(string) (net.Listener, error)
		into          *net.Listener
	}{
		{"http", a.config.HTTP, held("http", tcp), &a.public},
		{"internal", a.config.Internal, held("internal", a.listenInternal), &a.internal},
		{"listen", a.config.Listen, tcp, &a.listen},
	} {
		if l.address == "" {
			continue
		}
		opened, err := a.ports.listen(l.flag, l.address, a.config.Given[l.flag], l.open, a.log)
		if err != nil {
			return err
		}
		*l.into = opened
		a.onStop("listener "+l.flag, func(context.Context) error {
			if err := opened.Close(); !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
	}
	if a.internal != nil {
		a.internal = proxy.OnlyLoopback(a.config.Internal, a.internal)
	}
	return nil
}

// startHolder has the sockets of the data plane kept open should this process be killed.
func (a *App) startHolder(context.Context) error {
	if len(a.config.Holder) == 0 {
		return nil
	}
	if err := a.holder.Hold(a.config.Holder); err != nil {
		a.log.Warn("should this server be killed, connections will be refused until the next start", "error", err)
		return nil
	}
	a.onStop("holder of the listening sockets", func(ctx context.Context) error {
		if a.next && a.serves(ctx) {
			a.log.Info("connections wait for the next server", "at most", holder.Patience)
			return nil
		}
		return a.holder.Release()
	})
	return nil
}

// serves says whether something runs that connections may be for.
func (a *App) serves(ctx context.Context) bool {
	if a.config.TakeDown {
		return false
	}
	if registry.Len(a.cache, registry.Registrations)+registry.Len(a.cache, registry.Routes) > 0 {
		return true
	}
	all, err := a.runner.Observe(ctx)
	return err == nil && slices.ContainsFunc(all, func(o runner.Observation) bool { return len(o.Instances) > 0 })
}

// StopForNext is Stop of a server that is to be followed by another one soon: for as long as
// something runs, connections are not refused until it is there, or does not come.
func (a *App) StopForNext(ctx context.Context) error {
	a.next = true
	return a.Stop(ctx)
}

func (a *App) listenInternal(address string) (net.Listener, error) {
	l, warnings, err := proxy.ListenInternal(address)
	for _, w := range warnings {
		a.log.Warn(w)
	}
	return l, err
}

// serviceHost is the public host of a service of an environment.
func (a *App) serviceHost(service, env string) string {
	return dayfly.ServiceHost(a.config.HostPattern, service, env) + "." + a.config.Domain
}

// publicURL is the address of a host at this server's public listener.
func (a *App) publicURL(host string) string {
	if p := port(a.public); p != 80 && p != 0 {
		host = net.JoinHostPort(host, strconv.Itoa(p))
	}
	return "http://" + host
}

// internalURL is the address of a loopback address at the internal listener.
func (a *App) internalURL(address string) string {
	return "http://" + net.JoinHostPort(address, strconv.Itoa(port(a.internal)))
}

// listenAddress is where this host reaches the API.
func (a *App) listenAddress() string {
	address := *a.listen.Addr().(*net.TCPAddr)
	switch {
	case !address.IP.IsUnspecified():
	case a.config.Advertise != "":
		return net.JoinHostPort(a.config.Advertise, strconv.Itoa(address.Port))
	default:
		address.IP = net.IPv4(127, 0, 0, 1)
	}
	return address.String()
}

// port is that of a listener, 0 = there is none.
func port(l net.Listener) int {
	if l == nil {
		return 0
	}
	return l.Addr().(*net.TCPAddr).Port
}

// connections is how many clients there is room for: each may need a file of its own and one
// for the service, on two listeners, beside those that the server needs itself.
func connections() int {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return 0
	}
	return int(min(max(files.Cur/5, 100), 1<<20)) //nolint:gosec // bounded
}
