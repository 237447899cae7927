package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// ListenInternal opens the internal listener. On a loopback address it is one socket on
// all addresses of the device lo, so that every address of 127/8 leads to it; where the
// device cannot be chosen, a warning says so and OnlyLoopback has to do. Any other address
// is opened as it is.
func ListenInternal(address string) (l net.Listener, warnings []string, err error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, err
	}
	if !loopback(address) {
		l, err := net.Listen("tcp", address)
		return l, nil, err
	}
	var bindErr error
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { bindErr = unix.BindToDevice(int(fd), "lo") })
	}}
	l, err = config.Listen(context.Background(), "tcp4", net.JoinHostPort("0.0.0.0", port))
	if err != nil {
		return nil, nil, err
	}
	if bindErr != nil && !errors.Is(bindErr, unix.ENOPROTOOPT) {
		warnings = append(warnings, fmt.Sprintf("the internal listener cannot be bound to the device lo (%v): connections from elsewhere are closed when they arrive", bindErr))
	}
	return l, warnings, nil
}

// OnlyLoopback makes what ListenInternal opened at a loopback address close connections to
// addresses that others could reach.
func OnlyLoopback(address string, l net.Listener) net.Listener {
	if !loopback(address) {
		return l
	}
	return &loopbackOnly{l}
}

// loopback says whether an address is on this machine alone; one without a host is.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip, ipErr := netip.ParseAddr(host)
	return err == nil && (host == "" || host == "localhost" || ipErr == nil && ip.IsLoopback())
}

// loopbackOnly closes connections to addresses that others could reach.
type loopbackOnly struct{ net.Listener }

func (l *loopbackOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if localAddr(c).IsLoopback() {
			return c, nil
		}
		c.Close()
	}
}
