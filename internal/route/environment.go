package route

import (
	"cmp"
	"slices"
	"strings"

	"github.com/dayfly-dev/dayfly"
)

// environment is an Environment in the form that lookups read. It is never
// changed once it is published.
type environment struct {
	id                     string
	key                    string // lower case of name
	name, project, base    string // base is a key
	header                 string // by which headers name it besides its name; "" = none
	status                 *status
	publicHeader, deleting bool
	plain                  bool
	services               []service   // by key
	routes                 []pathRoute // longest first
	hosts, addresses       []place
}

type service struct {
	key, name string
	protocol  dayfly.Protocol
	external  string
	status    *status // nil = nothing to say
	choose    bool
	pooled    bool
	weight    uint64 // of all targets
	targets   []target
}

type target struct {
	deployment *deployment
	version    string
	weight     uint64
}

type status struct{ state, message string }

// place is where a host or an address leads.
type place struct {
	key         string // folded host, or the 16 bytes of the address
	environment string // key
	service     string // key; "" = by path
}

// holders are the projects in which some environment has a service of one name.
type holders struct {
	projects []string // sorted
	counts   []int    // how many environments of each; read and changed by writers only
}

func (h *holders) has(project string) bool {
	if h == nil {
		return false
	}
	_, found := slices.BinarySearch(h.projects, project)
	return found
}

// find gives the environment's own service, nil when it has none.
func (e *environment) find(key []byte) *service {
	i, j := 0, len(e.services)
	for i < j {
		h := int(uint(i+j) >> 1)
		if e.services[h].key < string(key) {
			i = h + 1
		} else {
			j = h
		}
	}
	if i < len(e.services) && e.services[i].key == string(key) {
		return &e.services[i]
	}
	return nil
}

// compile checks e and gives all of its lookup form but the targets.
func compile(e Environment) (*environment, error) {
	env := &environment{
		id:           e.ID,
		key:          lower(e.Name),
		name:         e.Name,
		project:      e.Project,
		base:         lower(e.Base),
		header:       e.Header,
		publicHeader: e.PublicHeader,
		deleting:     e.Deleting,
		plain:        e.Plain,
		status:       newStatus(e.State, e.Message),
	}
	if env.key == "" || len(env.key) > maxName {
		return nil, invalid(e, "its name must have 1 to %d bytes", maxName)
	}
	for _, s := range e.Services {
		if s.Name == "" || len(s.Name) > maxName {
			return nil, invalid(e, "the name of a service must have 1 to %d bytes", maxName)
		}
		env.services = append(env.services, service{
			key:      lower(s.Name),
			name:     s.Name,
			protocol: cmp.Or(s.Protocol, dayfly.ProtocolHTTP),
			external: s.External,
			choose:   s.Choose,
			pooled:   s.Pooled,
			status:   newStatus(s.State, s.Message),
		})
		for _, r := range s.Routes {
			if !strings.HasPrefix(r.Path, "/") {
				return nil, invalid(e, "the route %q of service %s must begin with /", r.Path, s.Name)
			}
			env.routes = append(env.routes, pathRoute{strings.TrimRight(r.Path, "/"), lower(s.Name), r.Strip})
		}
		for _, target := range s.Targets {
			if target.Weight < 0 {
				return nil, invalid(e, "the weight %d of service %s must not be below 0", target.Weight, s.Name)
			}
		}
	}
	env.services = slices.Clip(env.services)
	env.routes = slices.Clip(env.routes)
	slices.SortFunc(env.services, func(a, b service) int { return strings.Compare(a.key, b.key) })
	for i := 1; i < len(env.services); i++ {
		if env.services[i].key == env.services[i-1].key {
			return nil, invalid(e, "it has two services called %s", env.services[i].name)
		}
	}
	slices.SortFunc(env.routes, pathRoute.compare)
	if err := env.setPlaces(e); err != nil {
		return nil, err
	}
	return env, nil
}

func (e *environment) setPlaces(asked Environment) error {
	for _, h := range asked.Hosts {
		name := lower(strings.TrimSuffix(h.Name, "."))
		if name == "" || len(name) > maxName || strings.Contains(name, ":") {
			return invalid(asked, "%q is no host name", h.Name)
		}
		e.hosts = append(e.hosts, place{name, e.key, lower(h.Service)})
	}
	for _, a := range asked.Addresses {
		if !a.Addr.IsValid() {
			return invalid(asked, "the address of service %s is not set", a.Service)
		}
		b := a.Addr.As16()
		e.addresses = append(e.addresses, place{string(b[:]), e.key, lower(a.Service)})
	}
	for _, list := range []*[]place{&e.hosts, &e.addresses} {
		places := slices.Clip(*list)
		slices.SortFunc(places, func(a, b place) int { return strings.Compare(a.key, b.key) })
		for i := 1; i < len(places); i++ {
			if places[i].key == places[i-1].key {
				return invalid(asked, "a host or address is in it twice, for %q and %q", places[i-1].service, places[i].service)
			}
		}
		*list = places
	}
	return nil
}

func newStatus(state, message string) *status {
	if state == "" && message == "" {
		return nil
	}
	return &status{state, message}
}

func invalid(e Environment, format string, args ...any) error {
	return dayfly.Errorf(dayfly.CodeInvalid, "environment "+strings.ReplaceAll(e.Name, "%", "%%")+" cannot be routed: "+format, args...)
}
