package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"syscall"
)

type dial = func(ctx context.Context, network, address string) (net.Conn, error)

// dialPatient makes the connections of dial patientConns.
func dialPatient(dial dial) dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &patientConn{Conn: c}, nil
	}
}

// patientConn leaves it to the reader to find out that the other side is gone, once a request has begun:
// a service may answer and close before it has read a body, and net/http's transport drops an
// answer that is there when writing fails.
type patientConn struct {
	net.Conn
	begun atomic.Bool // something of the request was written
	gone  atomic.Bool
}

// patient tells the connection that takes a request where it begins. A request that can be repeated
// needs no patience.
func patient(r *http.Request) *http.Request {
	if idempotent(r) {
		return r
	}
	return r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if c, ok := info.Conn.(*patientConn); ok {
				c.begun.Store(false)
			}
		},
	}))
}

// Write takes what nobody will read without an error, but for the beginning of a request: that
// one can be sent to somebody else.
func (c *patientConn) Write(p []byte) (int, error) {
	if c.gone.Load() {
		return len(p), nil
	}
	n, err := c.Conn.Write(p)
	if err == nil {
		c.begun.Store(true)
		return n, nil
	}
	if (n > 0 || c.begun.Load()) && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
		c.gone.Store(true)
		return len(p), nil
	}
	return n, err
}

// CloseWrite passes the end of one direction of an upgraded connection on.
func (c *patientConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
