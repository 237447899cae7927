package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// starting is how soon it makes sense to ask again for what is being started.
const starting = 2 * time.Second

// Public handles requests from outside: the host says for whom they are.
func (p *Proxy) Public() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := p.Table.Public(r.Host, route.PathOf(r.URL))
		trusted := p.trusted(r)
		choose := ""
		if m.Choose() {
			choose = r.Header.Get(p.ReleaseHeader)
		}
		if m.PublicHeader() {
			if named, _ := p.named(r.Header); named != "" {
				m = p.Table.PublicFor(r.Host, route.PathOf(r.URL), named)
			}
		}
		if !trusted {
			for _, h := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix", "X-Forwarded-Port", "Forwarded", "X-Real-Ip", "X-Request-Id", "Traceparent", "Tracestate"} {
				r.Header.Del(h)
			}
		}
		r.Header.Del(p.ReleaseHeader)
		p.handle(w, r, m, choose, 0, route.Source{})
	})
}

// Internal handles requests of services: header, host and the address that was called
// say for whom they are.
func (p *Proxy) Internal() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, _ := r.Context().Value(endsKey{}).(ends)
		from := p.caller(at)
		named, told := p.named(r.Header)
		m := p.Table.Internal(route.Call{
			Host: r.Host, Path: route.PathOf(r.URL), Local: at.local, Header: named,
			Trace: p.traces.environment(traceparent(r.Header)), Source: from.Environment,
		})
		choose := r.Header.Get(p.ReleaseHeader)
		r.Header.Del(p.ReleaseHeader)
		p.handle(w, r, m, choose, tells(m, told), from)
	})
}

// tells says what told the environment of a call from inside; header is how it says it itself.
func tells(m route.Match, header carried) carried {
	switch m.By {
	case route.ByHost:
		return byHost
	case route.ByTrace:
		return byTrace
	case route.ByAddress:
		return byAddress
	case route.BySource:
		return bySource
	case route.ByBaseline:
		return byBaseline
	default:
		return header
	}
}

// trusted says whether a request comes from a proxy whose headers are believed.
func (p *Proxy) trusted(r *http.Request) bool {
	if len(p.TrustedProxies) == 0 {
		return false
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	for _, prefix := range p.TrustedProxies {
		if prefix.Contains(from.Addr().Unmap()) {
			return true
		}
	}
	return false
}

// named gives the environment that a request names itself, "" = none, and how.
func (p *Proxy) named(h http.Header) (string, carried) {
	if name := h.Get(envHeader); name != "" {
		return name, byHeader
	}
	for _, header := range p.Headers {
		if name := h.Get(header); name != "" {
			return name, byHeader
		}
	}
	return baggageEnv(h.Values("Baggage")), byBaggage
}

// handle passes a request on to whoever the match names, or answers it. told and from say how one from
// inside names its environment, and whose address it comes from.
func (p *Proxy) handle(w http.ResponseWriter, r *http.Request, m route.Match, choose string, told carried, from route.Source) {
	if m.Outcome != route.Found {
		p.Pages.Write(w, r, explain(m, r))
		return
	}
	r, ok := p.limitBody(w, r)
	if !ok {
		p.Pages.Write(w, r, p.tooLarge())
		return
	}
	if !m.Plain() {
		defer p.calls.begin(m, told, from, r.Header.Get("Upgrade") != "").ended()
	}
	if m.External() != "" {
		p.external(w, r, m)
		return
	}
	f := &forward{proxy: p, match: m, choose: choose}
	claim, ok := m.Claim(choose, &f.tried)
	if !ok {
		p.Pages.Write(w, r, explain(m, r))
		return
	}
	f.claim = claim
	// The last claim is given back however this ends, also by a panic.
	defer func() { f.claim.Done(f.failed) }()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer f.watchCut(cancel)()
	p.fullDuplex(w, r)
	reverse := &httputil.ReverseProxy{
		Rewrite: f.rewrite, Transport: f, FlushInterval: -1,
		ErrorHandler: f.error, ErrorLog: p.debug, BufferPool: &buffers,
	}
	reverse.ModifyResponse = func(resp *http.Response) error {
		resp.Header.Set(p.ReleaseHeader, f.claim.Version())
		return whole(reverse, resp)
	}
	reverse.ServeHTTP(continueOnce(w, r), r.WithContext(ctx))
}

// continueOnce keeps a 100 of the service back where net/http sends one of its own as soon as the
// body is read, which the service's 100 makes the transport do: both would race to the client.
func continueOnce(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
	if r.Header.Get("Expect") == "" {
		return w
	}
	return withoutContinue{w}
}

type withoutContinue struct{ http.ResponseWriter }

func (w withoutContinue) WriteHeader(status int) {
	if status != http.StatusContinue {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Unwrap is for http.ResponseController.
func (w withoutContinue) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// fullDuplex lets a service answer before it has read the body: net/http would first wait for the
// rest of it.
func (p *Proxy) fullDuplex(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 || r.ProtoMajor != 1 {
		return
	}
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		p.Logger.Debug("an early answer will have to wait for its request", "error", err)
	}
}

// forward is one request on its way.
type forward struct {
	proxy  *Proxy
	match  route.Match
	choose string
	claim  route.Claim
	tried  route.Tried
	failed bool // the instance of claim could not be reached
}

// watchCut ends the request when its instance is cut off.
func (f *forward) watchCut(cancel context.CancelFunc) (stop func()) {
	cut, done := f.claim.Cut(), make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-cut:
			cancel()
		case <-done:
		}
	}()
	return func() { close(done); <-ended }
}

// rewrite makes the request that the service sees.
func (f *forward) rewrite(pr *httputil.ProxyRequest) {
	pr.Out.URL.Scheme = "http"
	pr.Out.URL.Host = f.claim.Address()
	f.proxy.carry(pr, f.match)
	pr.Out.Host = pr.In.Host
	pr.Out.Header.Set(f.proxy.ReleaseHeader, f.claim.Version())
}

// carry makes of a request what everybody sees that it is passed on to.
func (p *Proxy) carry(pr *httputil.ProxyRequest, m route.Match) {
	in, out := pr.In, pr.Out
	// As it was sent, with whatever was escaped in it and with semicolons in the query.
	out.URL.Path, out.URL.RawPath, out.URL.RawQuery = in.URL.Path, in.URL.RawPath, in.URL.RawQuery
	// The very same map: what stands at the end of the body is not known yet.
	out.Trailer = in.Trailer
	h := out.Header
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix", "Forwarded"} {
		if v, ok := in.Header[name]; ok {
			h[name] = v
		}
	}
	if m.Strip != "" {
		strip(out, m.Strip)
		h.Set("X-Forwarded-Prefix", m.Strip)
	}
	if from, _, err := net.SplitHostPort(in.RemoteAddr); err == nil {
		if prior := h.Values("X-Forwarded-For"); len(prior) > 0 {
			from = strings.Join(prior, ", ") + ", " + from
		}
		h.Set("X-Forwarded-For", from)
	}
	if h.Get("X-Forwarded-Host") == "" {
		h.Set("X-Forwarded-Host", in.Host)
	}
	if h.Get("X-Forwarded-Proto") == "" {
		h.Set("X-Forwarded-Proto", "http")
	}
	if !m.Plain() {
		h.Set(envHeader, m.Environment)
		for _, name := range p.Headers {
			h.Set(name, m.Header())
		}
		setBaggage(h, m.Environment)
	}
	if h.Get("X-Request-Id") == "" {
		h.Set("X-Request-Id", newRequestID())
	}
	if traceparent(h) == "" {
		h.Set("Traceparent", newTraceparent())
		h.Del("Tracestate")
	}
	if m.FromOutside() && !m.Plain() {
		p.traces.remember(h.Get("Traceparent"), m.Environment)
	}
	if _, ok := in.Header["User-Agent"]; !ok {
		h.Set("User-Agent", "") // none is invented
	}
	if in.Header.Get("Te") == "trailers" {
		h.Set("Te", "trailers")
	}
}

// strip takes a prefix off the path, in its plain and in its escaped form.
func strip(r *http.Request, prefix string) {
	r.URL.Path = orRoot(strings.TrimPrefix(r.URL.Path, prefix))
	if r.URL.RawPath != "" {
		r.URL.RawPath = route.StripRaw(r.URL.RawPath, prefix)
	}
}

func orRoot(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

// RoundTrip sends the request, and what could not be sent to another instance.
func (f *forward) RoundTrip(r *http.Request) (*http.Response, error) {
	transport := f.proxy.http1
	if f.match.Protocol() == dayfly.ProtocolH2C {
		transport = f.proxy.h2c
	}
	for {
		body := &touched{ReadCloser: r.Body}
		attempt := r
		if r.Body != nil && r.Body != http.NoBody {
			sent := *r
			attempt = &sent
			attempt.Body = body
		}
		resp, err := transport.RoundTrip(patient(attempt))
		if err == nil {
			f.claim.Alive()
			return resp, nil
		}
		if r.Context().Err() != nil {
			return nil, err
		}
		dial := isDial(err)
		f.failed = dial
		again := dial && !body.read || !dial && idempotent(r)
		if !again {
			return nil, err
		}
		next, ok := f.match.Claim(f.choose, &f.tried)
		if !ok {
			return nil, err
		}
		f.claim.Done(f.failed)
		f.claim, f.failed = next, false
		r.URL.Host = next.Address()
		r.Header.Set(f.proxy.ReleaseHeader, next.Version())
	}
}

// touched notes whether a body was read: then it cannot be sent again. Closing is left
// to the server, since another attempt may need it.
type touched struct {
	io.ReadCloser
	read bool
}

func (t *touched) Read(p []byte) (int, error) {
	t.read = true
	return t.ReadCloser.Read(p)
}

func (t *touched) Close() error { return nil }

// isDial says whether nothing can have been sent.
func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// idempotent says whether a request may be sent twice.
func idempotent(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return r.Body == nil || r.Body == http.NoBody
	}
	return false
}

// whole keeps the head of an answer without a body together with its end: gRPC tells an error by a
// head that is the end as well, and one that was flushed on its own is not.
func whole(reverse *httputil.ReverseProxy, resp *http.Response) error {
	if resp.ContentLength == 0 {
		reverse.FlushInterval = 0
	}
	return nil
}

// error answers a request that could not be passed on.
func (f *forward) error(w http.ResponseWriter, r *http.Request, err error) {
	f.proxy.failed(w, r, err, f.match, f.claim.Cut())
}

// failed answers a request that could not be passed on; cut is closed when it was ended from here.
func (p *Proxy) failed(w http.ResponseWriter, r *http.Request, err error, m route.Match, cut <-chan struct{}) {
	if own := p.clientsFault(r, err); own.Status != 0 {
		p.Pages.Write(w, r, own)
		return
	}
	if r.Context().Err() != nil {
		select {
		case <-cut: // the instance was cut off: say so if there is still somebody
		default:
			panic(http.ErrAbortHandler) // the client is gone
		}
	}
	var timeout interface{ Timeout() bool }
	problem := Problem{
		Status: http.StatusBadGateway, Code: "bad_gateway", Title: "The service did not answer",
		Detail:      fmt.Sprintf("%s of %s: %s", m.Service, m.Environment, plain(err)),
		Environment: m.Environment, Service: m.Service,
	}
	if m.Plain() {
		problem.Title, problem.Environment, problem.Service = r.Host+" did not answer", "", ""
		problem.Detail = plain(err)
	}
	if errors.As(err, &timeout) && timeout.Timeout() {
		problem.Status, problem.Code = http.StatusGatewayTimeout, "gateway_timeout"
	}
	p.Logger.Debug("a request could not be passed on", "environment", m.Environment, "service", m.Service, "error", err)
	p.Pages.Write(w, r, problem)
}

// plain says what went wrong without addresses that mean nothing to the reader.
func plain(err error) string {
	switch text := err.Error(); {
	case strings.Contains(text, "connection refused"):
		return "it refuses connections"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(text, "connection reset"), strings.Contains(text, "server closed"):
		return "it closed the connection without an answer"
	default:
		return text
	}
}

// explain makes the answer for a request that nobody can take.
func explain(m route.Match, r *http.Request) Problem {
	state, message := m.Info()
	p := Problem{Environment: m.Environment, Service: m.Service, State: state, Detail: message}
	if m.Plain() && m.Outcome == route.Missing {
		return Problem{Status: http.StatusNotFound, Code: "no_route", Title: "Nothing is at this path of " + r.Host}
	}
	switch m.Outcome {
	case route.UnknownHost:
		p.Status, p.Code, p.Title = http.StatusNotFound, "unknown_host", "Nothing is called "+r.Host
	case route.UnknownEnvironment:
		p.Status, p.Code, p.Title = http.StatusNotFound, "unknown_environment", fmt.Sprintf("There is no environment %q (any more)", m.Environment)
		if m.Environment == "" {
			p.Title = "No environment is named, and the project has no baseline"
		}
		p.Environment = ""
	case route.UnknownService:
		p.Status, p.Code, p.Title = http.StatusNotFound, "unknown_service", fmt.Sprintf("No environment has a service %q", m.Service)
	case route.Ambiguous:
		p.Status, p.Code, p.Title = http.StatusNotFound, "ambiguous", fmt.Sprintf("Several projects have a service %q", m.Service)
		p.Detail = "Say which environment is meant, by X-Dayfly-Env or SERVICE.ENV.internal. The projects are " + strings.Join(m.Projects, ", ")
	case route.NotHTTP:
		p.Status, p.Code, p.Title = http.StatusBadGateway, "not_http", m.Service+" does not speak HTTP"
	default:
		p = waiting(p, m)
	}
	return p
}

// missing is the state of a service that nobody has in the version that is wanted.
const missing = "missing"

// waiting explains why an environment or a service cannot answer now.
func waiting(p Problem, m route.Match) Problem {
	name := m.Environment
	if m.Service != "" {
		name = m.Service + " of " + m.Environment
	}
	p.Status = http.StatusServiceUnavailable
	switch p.State {
	case string(dayfly.PhaseFailed):
		p.Code, p.Title = "failed", name+" has failed"
	case missing:
		p.Code, p.Title, p.RetryAfter = "missing", name+" is missing", starting
	case string(dayfly.PhaseDeleting):
		p.Status, p.Code, p.Title = http.StatusNotFound, "deleting", m.Environment+" is being deleted"
	case string(dayfly.PhaseReady), string(dayfly.PhaseDegraded):
		if m.Service == "" {
			p.Status, p.Code, p.Title = http.StatusNotFound, "no_route", m.Environment+" has nothing at this path"
			break
		}
		p.Code, p.Title, p.RetryAfter = "no_instance", "No instance of "+name+" is healthy", starting
	default:
		p.Code, p.Title, p.RetryAfter = "starting", name+" is starting", starting
	}
	return p
}
