package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly/internal/route"
)

const (
	// resolvedFor is how long connections go where a name led when they were made.
	resolvedFor = 30 * time.Second
	// externalIdle is how long a connection to a service elsewhere is kept between requests.
	externalIdle = 5 * time.Second
)

// external passes a request on to a service that is not ours.
func (p *Proxy) external(w http.ResponseWriter, r *http.Request, m route.Match) {
	to, err := url.Parse(m.External())
	if err != nil || to.Scheme != "http" && to.Scheme != "https" || to.Host == "" {
		p.Pages.Write(w, r, Problem{Status: http.StatusBadGateway, Code: "external", Title: "This service has no address that requests can be passed on to", Environment: m.Environment, Service: m.Service})
		return
	}
	p.fullDuplex(w, r)
	reverse := &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			p.carry(pr, m)
			query := pr.Out.URL.RawQuery
			pr.SetURL(to) // with the Host that it has
			pr.Out.URL.RawQuery = query
		},
		Transport: p.outside.transport(r.Header.Get("Upgrade") != ""), FlushInterval: -1, ErrorLog: p.debug, BufferPool: &buffers,
		// Of the request as it came: who reads of it knows nothing of the one that is sent.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { p.failed(w, r, err, m, nil) },
	}
	reverse.ModifyResponse = func(resp *http.Response) error { return whole(reverse, resp) }
	reverse.ServeHTTP(continueOnce(w, r), r)
}

// outside has the connections to services that are not ours. Their names may lead elsewhere after a
// while, so connections are made anew from time to time, also under load.
type outside struct {
	roots *x509.CertPool
	lasts time.Duration
	now   func() time.Time

	mu             sync.Mutex
	since          time.Time
	usual, upgrade *http.Transport // an upgrade needs HTTP/1.1
}

// transport gives the one for a request that comes now.
func (o *outside) transport(upgrade bool) *http.Transport {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := o.now(); o.usual == nil || now.Sub(o.since) >= o.lasts {
		o.forget()
		o.since, o.usual, o.upgrade = now, o.make(true), o.make(false)
	}
	if upgrade {
		return o.upgrade
	}
	return o.usual
}

// forget leaves the connections alone: those in use end after their requests, for want of others.
func (o *outside) forget() {
	if o.usual != nil {
		o.usual.CloseIdleConnections()
		o.upgrade.CloseIdleConnections()
	}
}

func (o *outside) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forget()
}

func (o *outside) make(http2 bool) *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		Proxy: nil, DialContext: dialer.DialContext, DisableCompression: true, TLSHandshakeTimeout: 10 * time.Second,
		TLSClientConfig:     &tls.Config{RootCAs: o.roots, MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: 64, IdleConnTimeout: externalIdle, ExpectContinueTimeout: time.Second,
	}
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.Protocols.SetHTTP2(http2)
	return t
}
