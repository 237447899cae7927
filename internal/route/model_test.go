package route_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// model says slowly and in the order of the documentation what a Table must
// answer. It knows lower-case names only.
type model struct {
	domain   string
	suffixes []string
	projects map[string]string // baseline
	headers  map[string]string // who is named by a header's value
	envs     map[string]route.Environment
}

// answer is the part of a Match that can be compared.
type answer struct {
	Outcome                                           route.Outcome
	Environment, Project, Service, Provider, Strip    string
	Projects, Protocol, State, Message, External, Ask string
	Plain                                             bool
}

func answerOf(m route.Match) answer {
	state, message := m.Info()
	return answer{
		Outcome: m.Outcome, Environment: strings.ToLower(m.Environment), Project: m.Project,
		Service: strings.ToLower(m.Service), Provider: m.Provider, Strip: m.Strip,
		Projects: strings.Join(m.Projects, " "), Protocol: string(m.Protocol()),
		State: state, Message: message, External: m.External(),
		Ask: fmt.Sprint(m.Choose(), m.PublicHeader()), Plain: m.Plain(),
	}
}

// set gives false when a host or an address is another's.
func (m *model) set(e route.Environment) bool {
	for name, other := range m.envs {
		if name == e.Name {
			continue
		}
		for _, h := range e.Hosts {
			if slices.ContainsFunc(other.Hosts, func(o route.Host) bool { return o.Name == h.Name }) {
				return false
			}
		}
		for _, a := range e.Addresses {
			if slices.ContainsFunc(other.Addresses, func(o route.Address) bool { return o.Addr == a.Addr }) {
				return false
			}
		}
	}
	m.unset(e.Name)
	m.envs[e.Name] = e
	if _, taken := m.headers[e.Header]; e.Header != "" && !taken {
		m.headers[e.Header] = e.Name
	}
	return true
}

func (m *model) unset(name string) {
	for header, holder := range m.headers {
		if holder == name {
			delete(m.headers, header)
		}
	}
	delete(m.envs, name)
}

// called gives the environment that a header means, by name or by its own value for headers.
func (m *model) called(header string) string {
	if _, known := m.envs[header]; !known && m.headers[header] != "" {
		return m.headers[header]
	}
	return header
}

func (m *model) chain(env string) (names []string) {
	for {
		if _, known := m.envs[env]; !known || slices.Contains(names, env) {
			return names
		}
		names = append(names, env)
		env = m.envs[env].Base
	}
}

func (m *model) own(env, service string) *route.Service {
	for _, s := range m.envs[env].Services {
		if s.Name == service {
			return &s
		}
	}
	return nil
}

func (m *model) provider(env, service string) (string, *route.Service) {
	for _, name := range m.chain(env) {
		if s := m.own(name, service); s != nil {
			return name, s
		}
	}
	return "", nil
}

// byPath splits paths into segments, so it can't get boundaries wrong.
func (m *model) byPath(env, path string) (service, strip string) {
	segments := func(p string) []string { return strings.Split(p, "/") }
	if !strings.HasPrefix(path, "/") {
		path = "/"
	}
	longest := -1
	for _, name := range m.chain(env) {
		var services []string
		for _, s := range m.envs[name].Services {
			services = append(services, s.Name)
		}
		sort.Strings(services)
		for _, s := range services {
			if who, _ := m.provider(env, s); who != name {
				continue
			}
			for _, r := range m.own(name, s).Routes {
				want := segments(strings.TrimRight(r.Path, "/"))
				have := segments(path)
				if len(have) < len(want) || !slices.Equal(have[:len(want)], want) || len(want) <= longest {
					continue
				}
				longest, service, strip = len(want), s, ""
				if r.Strip {
					strip = strings.TrimRight(r.Path, "/")
				}
			}
		}
	}
	return service, strip
}

func (m *model) match(env, service, path string, public bool) answer {
	e := m.envs[env]
	a := answer{
		Outcome: route.Missing, Environment: env, Project: e.Project, Service: service,
		State: e.State, Message: e.Message, Plain: e.Plain,
	}
	if service == "" {
		a.Service, a.Strip = m.byPath(env, path)
	}
	choose := false
	if who, s := m.provider(env, a.Service); s != nil {
		a.Provider, a.Protocol, a.External = who, string(s.Protocol), s.External
		choose = !public || s.Choose
		if s.State != "" || s.Message != "" {
			a.State, a.Message = s.State, s.Message
		}
		switch {
		case len(s.Targets) == 0 && s.External == "":
		case s.Protocol == dayfly.ProtocolTCP:
			a.Outcome = route.NotHTTP
		default:
			a.Outcome = route.Found
		}
	}
	if public && e.Deleting {
		a.Outcome = route.Missing
	}
	a.Ask = fmt.Sprint(choose, e.PublicHeader)
	return a
}

func (m *model) public(host, path, header string) answer {
	for name, e := range m.envs {
		for _, h := range e.Hosts {
			if h.Name != host {
				continue
			}
			if e.PublicHeader && header != "" {
				header = m.called(header)
				other, known := m.envs[header]
				if !known {
					return answer{Outcome: route.UnknownEnvironment, Environment: header, Project: e.Project, Ask: "false false"}
				}
				if other.Project == e.Project {
					name = header
				}
			}
			return m.match(name, h.Service, path, true)
		}
	}
	if label, found := strings.CutSuffix(host, "."+m.domain); found && !strings.Contains(label, ".") {
		if e, known := m.envs[label]; known && len(e.Hosts) == 0 {
			return answer{Outcome: route.Missing, Environment: label, Project: e.Project, State: e.State, Message: e.Message, Ask: fmt.Sprint(false, e.PublicHeader)}
		}
		return answer{Outcome: route.UnknownEnvironment, Environment: label, Ask: "false false"}
	}
	return answer{Outcome: route.UnknownHost, Ask: "false false"}
}

// having gives the projects with a service of this name.
func (m *model) having(service string) (projects []string) {
	for name, e := range m.envs {
		if m.own(name, service) != nil && !slices.Contains(projects, e.Project) {
			projects = append(projects, e.Project)
		}
	}
	sort.Strings(projects)
	return projects
}

func (m *model) internal(host, path string, local netip.Addr, header, trace, source string) answer {
	none := answer{Ask: "false false"}
	addressed, service, byAddress := "", "", false
	for name, e := range m.envs {
		for _, a := range e.Addresses {
			if a.Addr == local {
				addressed, service, byAddress = name, a.Service, true
			}
		}
	}
	label, byName := "", false
	for _, suffix := range m.suffixes {
		if rest, found := strings.CutSuffix(host, "."+suffix); found {
			parts := strings.Split(rest, ".")
			byName, service = true, parts[0]
			if len(parts) == 2 {
				label = parts[1]
			}
		}
	}
	if !byName && !byAddress {
		none.Outcome = route.UnknownHost
		return none
	}

	// The projects whose environments may be meant.
	projects := m.having(service)
	if !byName {
		projects = []string{m.envs[addressed].Project}
	} else if e, known := m.envs[label]; known {
		projects = []string{e.Project}
	}
	fits := func(env string) bool {
		e, known := m.envs[env]
		return known && slices.Contains(projects, e.Project)
	}
	for n, env := range []string{m.called(header), label, trace, addressed, source} {
		if env == "" {
			continue
		}
		if _, known := m.envs[env]; !known && n < 2 {
			none.Outcome, none.Environment, none.Service = route.UnknownEnvironment, env, service
			if _, inHost := m.envs[label]; len(projects) == 1 && (!byName || inHost) {
				none.Project = projects[0]
			}
			return none
		}
		if fits(env) {
			return m.named(env, service, path)
		}
	}
	none.Service = service
	switch len(projects) {
	case 0:
		none.Outcome = route.UnknownService
		return none
	case 1:
		baseline := m.projects[projects[0]]
		if _, known := m.envs[baseline]; known {
			return m.named(baseline, service, path)
		}
		none.Outcome, none.Project, none.Environment = route.UnknownEnvironment, projects[0], baseline
		return none
	}
	none.Outcome, none.Projects = route.Ambiguous, strings.Join(projects, " ")
	return none
}

func (m *model) named(env, service, path string) answer {
	a := m.match(env, service, path, false)
	if service != "" && a.Provider == "" && !slices.Contains(m.having(service), m.envs[env].Project) {
		a.Outcome = route.UnknownService
	}
	return a
}
