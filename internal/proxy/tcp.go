package proxy

import (
	"io"
	"net"
	"time"

	"github.com/dayfly-dev/dayfly/internal/route"
)

// sorter takes the connections to services that speak plain TCP out of a listener,
// by the address that was called, and gives the rest to the HTTP server.
type sorter struct {
	net.Listener
	proxy *Proxy
}

// Accept gives the next connection that speaks HTTP.
func (s *sorter) Accept() (net.Conn, error) {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		m := s.proxy.Table.Internal(route.Call{Local: localAddr(c), Path: "/"})
		if m.Outcome != route.NotHTTP {
			return c, nil
		}
		s.proxy.tcp.Go(func() { s.proxy.pass(c, m) })
	}
}

// pass moves bytes between a client and an instance until both sides have ended, or the
// instance is cut off.
func (p *Proxy) pass(client net.Conn, m route.Match) {
	defer client.Close()
	var tried route.Tried
	for {
		claim, ok := m.Claim("", &tried)
		if !ok {
			return
		}
		server, err := net.DialTimeout("tcp", claim.Address(), 3*time.Second)
		if err != nil {
			claim.Done(true)
			continue
		}
		claim.Alive()
		p.join(client, server, claim.Cut())
		claim.Done(false)
		return
	}
}

// join copies both ways. A side that ends its sending is passed on as that.
func (p *Proxy) join(a, b net.Conn, cut <-chan struct{}) {
	defer b.Close()
	done := make(chan struct{}, 2)
	one := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(*net.TCPConn); ok && err == nil {
			_ = half.CloseWrite() // the other side may be gone already
		} else {
			_, _ = to.Close(), from.Close()
		}
		done <- struct{}{}
	}
	go one(a, b)
	go one(b, a)
	left := 2
	for left > 0 {
		select {
		case <-done:
			left--
		case <-cut:
			_, _ = a.Close(), b.Close()
			cut = nil
		case <-p.stopTCP.Done():
			_, _ = a.Close(), b.Close()
			for ; left > 0; left-- {
				<-done
			}
		}
	}
}
