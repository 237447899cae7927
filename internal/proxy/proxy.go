// Package proxy moves bytes: it takes requests and connections, asks package route
// who answers them, and passes them on. This engine is complete rather than quick:
// net/http with httputil.ReverseProxy. What every engine must do is said by package
// proxytest.
package proxy

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly/internal/route"
)

// Problem is an answer of the proxy itself.
type Problem struct {
	Status      int
	Code        string // a word for machines
	Title       string
	Detail      string
	Environment string
	Service     string
	State       string
	RetryAfter  time.Duration // 0 = asking again will not help
}

// Pages writes the proxy's own answers.
type Pages interface {
	Write(w http.ResponseWriter, r *http.Request, p Problem)
}

// Config is what a Proxy works with.
type Config struct {
	Table          *route.Table
	Pages          Pages
	Headers        []string // further headers that name an environment, besides X-Dayfly-Env
	ReleaseHeader  string   // X-Dayfly-Release by default
	TrustedProxies []netip.Prefix
	Limits         Limits
	Roots          *x509.CertPool // whom to believe that services elsewhere are who they say; nil = the system's
	Logger         *slog.Logger
}

const envHeader = "X-Dayfly-Env"

// Proxy is an engine.
type Proxy struct {
	Config
	http1, h2c *http.Transport
	traces     *traces
	calls      *calls
	outside    outside
	debug      *log.Logger // for what net/http has to say
	public     *http.Server
	internal   *http.Server

	mu        sync.Mutex
	listeners []*limited // for Shutdown
	// heard is how long Shutdown waits for the request of a connection that was taken.
	heard time.Duration

	tcp      sync.WaitGroup // connections that are passed through
	stopTCP  context.Context
	closeTCP context.CancelFunc
}

// New makes a Proxy.
func New(config Config) *Proxy {
	if config.ReleaseHeader == "" {
		config.ReleaseHeader = "X-Dayfly-Release"
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	p := &Proxy{Config: config, traces: newTraces(time.Now), calls: newCalls(time.Now), heard: time.Second, debug: slog.NewLogLogger(config.Logger.Handler(), slog.LevelDebug)}
	p.stopTCP, p.closeTCP = context.WithCancel(context.Background())
	dialer := &net.Dialer{Timeout: 3 * time.Second, KeepAlive: 30 * time.Second}
	transport := func() *http.Transport {
		return &http.Transport{
			Proxy: nil, DialContext: dialer.DialContext, DisableCompression: true,
			MaxIdleConnsPerHost: 256, IdleConnTimeout: 30 * time.Second, ExpectContinueTimeout: time.Second,
			WriteBufferSize: 16 << 10, ReadBufferSize: 16 << 10,
		}
	}
	p.http1 = transport()
	p.http1.DialContext = dialPatient(dialer.DialContext)
	p.h2c = transport()
	p.h2c.Protocols = new(http.Protocols)
	p.h2c.Protocols.SetUnencryptedHTTP2(true)
	p.outside = outside{roots: config.Roots, lasts: resolvedFor, now: time.Now}
	p.public = p.server(p.Public())
	p.internal = p.server(p.Internal())
	p.internal.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, endsKey{}, endsOf(c))
	}
	return p
}

func (p *Proxy) server(h http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: h, Protocols: protocols, ErrorLog: p.debug,
		ReadHeaderTimeout: cmp.Or(p.Limits.HeadTimeout, defaultHeadTimeout),
		IdleTimeout:       cmp.Or(p.Limits.IdleTimeout, defaultIdleTimeout),
		MaxHeaderBytes:    cmp.Or(p.Limits.Head, defaultHead),
	}
}

// ServePublic takes requests from outside until ctx ends or Shutdown is called.
func (p *Proxy) ServePublic(ctx context.Context, l net.Listener) error {
	limited := limitConnections(l, p.Limits.Connections, p.Logger)
	p.listens(limited)
	return serve(ctx, p.public, limited)
}

// ServeInternal takes requests and connections of services until ctx ends or Shutdown
// is called.
func (p *Proxy) ServeInternal(ctx context.Context, l net.Listener) error {
	limited := limitConnections(l, p.Limits.Connections, p.Logger)
	p.listens(limited)
	return serve(ctx, p.internal, &sorter{Listener: limited, proxy: p})
}

func serve(ctx context.Context, s *http.Server, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	err := s.Serve(l)
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// listens notes a listener for Shutdown.
func (p *Proxy) listens(l *limited) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listeners = append(p.listeners, l)
}

// finish takes no more connections and lets those that are there have their answer: the
// server's own Shutdown drops requests that it has not read yet.
func (p *Proxy) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, p.heard)
	defer cancel()
	p.mu.Lock()
	listeners := p.listeners
	p.mu.Unlock()
	// Before anything that a client could notice: who asks from now on is told that this is the end.
	for _, s := range []*http.Server{p.public, p.internal} {
		s.SetKeepAlivesEnabled(false) // a connection ends with its answer, and at once where it has none to come
	}
	for _, l := range listeners {
		_ = l.Close() // Shutdown says what is wrong with it
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, l := range listeners {
		for l.open() > 0 {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}
}

// Shutdown takes no more requests, waits until those under way have ended or ctx has,
// and then cuts them.
func (p *Proxy) Shutdown(ctx context.Context) error {
	var err error
	p.finish(ctx)
	for _, s := range []*http.Server{p.public, p.internal} {
		if stop := s.Shutdown(ctx); stop != nil {
			err = errors.Join(err, s.Close())
		}
	}
	p.closeTCP()
	p.tcp.Wait()
	p.http1.CloseIdleConnections()
	p.h2c.CloseIdleConnections()
	p.outside.close()
	return err
}

type endsKey struct{}

// ends are the addresses of a connection.
type ends struct{ local, remote netip.Addr }

func endsOf(c net.Conn) ends {
	e := ends{local: localAddr(c)}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		e.remote = a.AddrPort().Addr().Unmap()
	}
	return e
}

// caller says whose address a connection comes from. Where a process of this host calls one of its
// addresses it calls from that one by itself, whoever else has it.
func (p *Proxy) caller(e ends) route.Source {
	if e.remote == e.local {
		return route.Source{}
	}
	return p.Table.Source(e.remote)
}

func localAddr(c net.Conn) netip.Addr {
	if a, ok := c.LocalAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
