package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Limits keep single clients from using up what all share. 0 is what each says.
type Limits struct {
	Head        int           // bytes of a request's head; 64 KiB
	Body        int64         // bytes of a request's body; any
	HeadTimeout time.Duration // how long a head may take; 15 s
	BodyTimeout time.Duration // how long the next part of a body whose length is known may take; any
	IdleTimeout time.Duration // how long a connection is kept between requests; 2 min
	Connections int           // at a time, on each listener; any. Further ones wait
}

const (
	defaultHead        = 64 << 10
	defaultHeadTimeout = 15 * time.Second
	defaultIdleTimeout = 2 * time.Minute
)

// limitBody bounds the body of a request, and says whether it is within the bounds so far.
func (p *Proxy) limitBody(w http.ResponseWriter, r *http.Request) (bounded *http.Request, ok bool) {
	if p.Limits.Body > 0 && r.ContentLength > p.Limits.Body {
		return r, false
	}
	if r.ContentLength == 0 {
		return r, true
	}
	if p.Limits.Body > 0 {
		r.Body = http.MaxBytesReader(w, r.Body, p.Limits.Body)
	}
	if p.Limits.BodyTimeout > 0 && r.ContentLength > 0 {
		// Not where the length is unknown: a stream may be silent for as long as it likes.
		body := &prompt{ReadCloser: r.Body, limit: p.Limits.BodyTimeout, deadline: http.NewResponseController(w).SetReadDeadline}
		r.Body = body
		r = r.WithContext(context.WithValue(r.Context(), bodyKey{}, body))
	}
	return r, true
}

// prompt is a body whose parts have to follow one another within a limit.
type prompt struct {
	io.ReadCloser
	limit    time.Duration
	deadline func(time.Time) error
	late     atomic.Bool
}

type bodyKey struct{} // of a request's *prompt

func (b *prompt) Read(p []byte) (int, error) {
	if err := b.deadline(time.Now().Add(b.limit)); err != nil {
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		b.late.Store(true)
	}
	if err != nil {
		_ = b.deadline(time.Time{}) // what comes next on the connection has a limit of its own
	}
	return n, err
}

// tooLarge is the answer to a body beyond the limit.
func (p *Proxy) tooLarge() Problem {
	return Problem{Status: http.StatusRequestEntityTooLarge, Code: "body_too_large", Title: "The request is too large",
		Detail: fmt.Sprintf("at most %d bytes are taken (--max-body of the server)", p.Limits.Body)}
}

// clientsFault gives the answer to a request that could not be passed on because of what the
// client sent, or did not send; Status 0 = because of something else.
func (p *Proxy) clientsFault(r *http.Request, err error) Problem {
	var large *http.MaxBytesError
	// The request is cancelled with its connection's first failure to read, so the
	// error is not always the body's.
	slow, _ := r.Context().Value(bodyKey{}).(*prompt)
	switch {
	case errors.As(err, &large):
		return p.tooLarge()
	case slow != nil && slow.late.Load():
		return Problem{Status: http.StatusRequestTimeout, Code: "body_timeout", Title: "The request took too long",
			Detail: fmt.Sprintf("%s passed without a part of its body (--body-timeout of the server)", p.Limits.BodyTimeout)}
	}
	return Problem{}
}

// limitConnections takes no more connections than most at a time; 0 = any number.
func limitConnections(l net.Listener, most int, log *slog.Logger) *limited {
	if most <= 0 {
		most = 1 << 30 // there are not that many files
	}
	return &limited{Listener: l, places: make(chan struct{}, most), closed: make(chan struct{}), log: log}
}

type limited struct {
	net.Listener
	places chan struct{}
	close  sync.Once
	closed chan struct{}
	log    *slog.Logger
	warned time.Time // Accept is called by one goroutine
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	default:
		if now := time.Now(); now.Sub(l.warned) > time.Minute {
			l.warned = now
			l.log.Warn("as many connections are open as --max-connections allows: further ones wait", "listener", l.Addr(), "connections", cap(l.places))
		}
		select {
		case l.places <- struct{}{}:
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &counted{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

// open is how many connections there are, and one that is waited for.
func (l *limited) open() int { return len(l.places) }

func (l *limited) Close() error {
	var err error
	l.close.Do(func() {
		close(l.closed)
		err = l.Listener.Close()
	})
	return err
}

// counted gives its place back when it is closed.
type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// CloseWrite ends what is sent, as a TCP connection can.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}
