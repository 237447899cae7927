package route

import (
	"net/netip"

	"github.com/dayfly-dev/dayfly"
)

// Outcome is what a lookup came to.
type Outcome uint8

// The outcomes of a lookup.
const (
	// UnknownHost: nothing is called like this.
	UnknownHost Outcome = iota
	// Found: claim an instance, or go to Match.External.
	Found
	// UnknownEnvironment: Match.Environment was named and does not exist
	// (any more); where it is empty, none was named and Match.Project has no
	// baseline.
	UnknownEnvironment
	// UnknownService: no environment of the project has Match.Service.
	UnknownService
	// Ambiguous: no environment is known and all of Match.Projects have such
	// a service.
	Ambiguous
	// Missing: Match.Environment has nothing for this host or path, or has
	// Match.Service but nothing that could answer for it yet, or is being
	// deleted. See Match.Info.
	Missing
	// NotHTTP: found, but the service speaks plain TCP. It can be claimed.
	NotHTTP
)

var outcomes = [...]string{"unknown host", "found", "unknown environment", "unknown service", "ambiguous", "missing", "not http"}

// String gives the outcome in words.
func (o Outcome) String() string {
	if int(o) < len(outcomes) {
		return outcomes[o]
	}
	return "invalid outcome"
}

// By says what told whom a request is for.
type By uint8

// The ways to know the environment of a request, in the order in which they count.
const (
	ByNothing  By = iota // no environment was found
	ByOutside            // the public host, and what a request from outside may say itself
	ByHeader             // a header or baggage
	ByHost               // SERVICE.ENV.internal
	ByTrace              // where its trace began
	ByAddress            // the address that was connected to
	BySource             // whose address the caller has
	ByBaseline           // nothing but the name of the service
)

// Call is a request on the internal listener. Environments are named in any
// case; "" = none.
type Call struct {
	Host   string     // as in the request: with port, in any case
	Path   string     // without query
	Local  netip.Addr // the address that was connected to
	Header string     // environment named by header or baggage
	Trace  string     // environment remembered for the request's trace
	Source string     // environment that the caller's address belongs to
}

// Match is the answer of a lookup. It may be kept for as long as the request
// lasts.
type Match struct {
	Outcome     Outcome
	Environment string // whom the request is for
	Project     string
	Service     string
	Provider    string   // the environment that has the service: Environment or one of its bases
	Strip       string   // prefix to remove from the path, which may become ""
	Projects    []string // with Ambiguous; not to be changed
	By          By       // what told Environment

	public  bool
	table   *Table
	env     *environment
	service *service
}

// Protocol says how the service is spoken to; "" when no service was found.
func (m Match) Protocol() dayfly.Protocol {
	if m.service == nil {
		return ""
	}
	return m.service.protocol
}

// Info gives the state and the message of the service, or where it has none (or
// there is none) of the environment, for pages.
func (m Match) Info() (state, message string) {
	switch {
	case m.service != nil && m.service.status != nil:
		return m.service.status.state, m.service.status.message
	case m.env != nil && m.env.status != nil:
		return m.env.status.state, m.env.status.message
	}
	return "", ""
}

// External gives the URL of a service that is not ours, "" for all others. Such
// a match has nothing to claim.
func (m Match) External() string {
	if m.service == nil {
		return ""
	}
	return m.service.external
}

// Choose says whether the request may choose a version by name: any may inside,
// from outside where the service allows it. Claim heeds it by itself.
func (m Match) Choose() bool {
	return m.service != nil && (!m.public || m.service.choose)
}

// Pooled says that those who answer do so for several environments, without borrowing.
func (m Match) Pooled() bool { return m.service != nil && m.service.pooled }

// FromOutside says whether the request is one from outside.
func (m Match) FromOutside() bool { return m.public }

// Header is the value by which headers name the environment that the request is for: its own, or
// its name.
func (m Match) Header() string {
	if m.env == nil || m.env.header == "" {
		return m.Environment
	}
	return m.env.header
}

// EnvironmentID is the id of the environment that the request is for; another one of the same name
// has another one.
func (m Match) EnvironmentID() string {
	if m.env == nil {
		return ""
	}
	return m.env.id
}

// Plain says that the request is for no environment, but for a host with routes to elsewhere.
func (m Match) Plain() bool { return m.env != nil && m.env.plain }

// PublicHeader says whether the environment lets requests from outside name
// their environment: ask PublicFor then.
func (m Match) PublicHeader() bool { return m.env != nil && m.env.publicHeader }

// Public finds who answers a request from outside. The host may carry a port,
// any case and a trailing dot; path is without query. It does not allocate.
func (t *Table) Public(host, path string) Match { return t.PublicFor(host, path, "") }

// PublicFor is Public for a request that names an environment itself, by header
// or baggage. It counts only where the host's environment allows it
// (PublicHeader), and if it is of the same project; one that does not exist is
// UnknownEnvironment.
func (t *Table) PublicFor(host, path, header string) Match {
	s := t.state.Load()
	host = hostname(host)
	var buf [maxName]byte
	at := s.hosts.get(fold(&buf, host))
	if at == nil {
		return t.unknownHost(s, host)
	}
	env := s.environments.get([]byte(at.environment))
	if header != "" && env.publicHeader {
		other := s.called(header)
		if other == nil {
			return Match{Outcome: UnknownEnvironment, Environment: header, Project: env.project, public: true, table: t}
		}
		if other.project == env.project {
			env = other
		}
	}
	m := t.match(s, env, at.service, path)
	m.public, m.By = true, ByOutside
	if env.deleting {
		m.Outcome = Missing
	}
	return m
}

// unknownHost takes LABEL.DOMAIN for the name of an environment. One that has no host yet has
// something to say for itself.
func (t *Table) unknownHost(s *state, host string) Match {
	m := Match{Outcome: UnknownHost, public: true, table: t}
	at := len(host) - len(t.domain) - 1
	if t.domain == "" || at <= 0 || host[at] != '.' || !equalFold(t.domain, host[at+1:]) {
		return m
	}
	for i := range at {
		if host[i] == '.' {
			return m
		}
	}
	m.Outcome, m.Environment = UnknownEnvironment, host[:at]
	if env := s.named(host[:at]); env != nil && len(env.hosts) == 0 {
		m.Outcome, m.Environment, m.Project, m.env = Missing, env.name, env.project, env
	}
	return m
}

// Internal finds who answers a request on the internal listener. The service is
// named by the host (SERVICE.internal, SERVICE.ENV.internal), otherwise by the
// address that was connected to. The environment is the first of these that is
// of the service's project: the one in the header, in the host, of the trace, of
// the address that was connected to, of the caller, the project's baseline. One
// that is named in header or host and does not exist is UnknownEnvironment.
//
// The service's project is that of the environment in the host or of the
// address; for a plain SERVICE.internal it may be any that has such a service.
// Internal does not allocate.
func (t *Table) Internal(c Call) Match {
	s := t.state.Load()
	name, label, byName := t.internalName(hostname(c.Host))
	var address, inHost *environment
	var at *place
	if c.Local.IsValid() {
		b := c.Local.As16()
		if at = s.addresses.get(b[:]); at != nil {
			address = s.environments.get([]byte(at.environment))
		}
	}
	var project string // "" = any of holders
	var held *holders
	switch {
	case byName:
		held = s.holding(name)
		if label != "" {
			if inHost = s.named(label); inHost != nil {
				project = inHost.project
			}
		}
	case at != nil:
		name, project = at.service, address.project
		held = s.holding(name)
	default:
		return Match{Outcome: UnknownHost, table: t}
	}
	fits := func(e *environment) bool {
		return e != nil && (e.project == project || project == "" && held.has(e.project))
	}

	var env *environment
	by := ByHeader
	if c.Header != "" {
		if env = s.called(c.Header); env == nil {
			return Match{Outcome: UnknownEnvironment, Environment: c.Header, Project: project, Service: name, table: t}
		}
	}
	if !fits(env) {
		env, by = inHost, ByHost
		if label != "" && env == nil {
			return Match{Outcome: UnknownEnvironment, Environment: label, Service: name, table: t}
		}
	}
	if !fits(env) && c.Trace != "" {
		env, by = s.named(c.Trace), ByTrace
	}
	if !fits(env) {
		env, by = address, ByAddress
	}
	if !fits(env) && c.Source != "" {
		env, by = s.named(c.Source), BySource
	}
	if !fits(env) { // only a plain name comes here: the others have an environment that fits
		m := t.baseline(s, held)
		m.Service = name
		if m.env == nil {
			return m
		}
		env, by = m.env, ByBaseline
	}
	m := t.match(s, env, name, c.Path)
	m.By = by
	if m.service == nil && m.Service != "" && !held.has(env.project) {
		m.Outcome = UnknownService
	}
	return m
}

// baseline gives a match whose env is the baseline of the only holder, or one
// that says why there is none.
func (t *Table) baseline(s *state, held *holders) Match {
	m := Match{table: t}
	switch {
	case held == nil:
		m.Outcome = UnknownService
		return m
	case len(held.projects) > 1:
		m.Outcome, m.Projects = Ambiguous, held.projects
		return m
	}
	m.Outcome, m.Project = UnknownEnvironment, held.projects[0]
	if p := s.projects.get([]byte(m.Project)); p != nil && p.Baseline != "" {
		m.Environment = p.Baseline
		m.env = s.named(p.Baseline)
	}
	return m
}

// match finds a service, or by path where name is "", of an environment.
func (t *Table) match(s *state, env *environment, name, path string) Match {
	m := Match{Outcome: Missing, Environment: env.name, Project: env.project, Service: name, table: t, env: env}
	var who *environment
	if name == "" {
		var r *pathRoute
		if who, r = s.byPath(env, path); r == nil {
			return m
		}
		m.service = who.find([]byte(r.service))
		if r.strip {
			m.Strip = r.prefix
		}
	} else {
		var buf [maxName]byte
		if who, m.service = s.provider(env, fold(&buf, name)); m.service == nil {
			return m
		}
	}
	m.Service, m.Provider = m.service.name, who.name
	switch {
	case m.service.external == "" && len(m.service.targets) == 0:
	case m.service.protocol == dayfly.ProtocolTCP:
		m.Outcome = NotHTTP
	default:
		m.Outcome = Found
	}
	return m
}
