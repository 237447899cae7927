//go:build !linux

package proxy

import "net"

// ListenInternal opens the internal listener on the address alone.
func ListenInternal(address string) (l net.Listener, warnings []string, err error) {
	l, err = net.Listen("tcp", address)
	return l, nil, err
}

// OnlyLoopback gives the listener as it is.
func OnlyLoopback(_ string, l net.Listener) net.Listener { return l }
