package route

import (
	"net/netip"
	"slices"

	"github.com/dayfly-dev/dayfly"
)

// named gives an environment by its name in any case, nil when there is none.
func (s *state) named(name string) *environment {
	var buf [maxName]byte
	return s.environments.get(fold(&buf, name))
}

// called gives an environment by its name or by the value that headers have for it, in any case;
// nil when there is none.
func (s *state) called(name string) *environment {
	if env := s.named(name); env != nil {
		return env
	}
	var buf [maxName]byte
	if key := s.headers.get(fold(&buf, name)); key != "" {
		return s.environments.get([]byte(key))
	}
	return nil
}

// holding gives the projects that have a service of this name, which may be
// nil.
func (s *state) holding(service string) *holders {
	var buf [maxName]byte
	return s.holders.get(fold(&buf, service))
}

// conflict is the error of a host or an address that another environment has.
func (s *state) conflict(env *environment) error {
	for _, p := range env.hosts {
		if have := s.hosts.get([]byte(p.key)); have != nil && have.environment != env.key {
			return dayfly.Errorf(dayfly.CodeConflict,
				"host %s belongs to environment %s: choose another name for %s or delete that one first", p.key, have.environment, env.name)
		}
	}
	for _, p := range env.addresses {
		if have := s.addresses.get([]byte(p.key)); have != nil && have.environment != env.key {
			a, _ := netip.AddrFromSlice([]byte(p.key))
			return dayfly.Errorf(dayfly.CodeConflict,
				"address %s belongs to environment %s: give %s another one", a.Unmap(), have.environment, env.name)
		}
	}
	return nil
}

// replace puts env in the place of old; either may be nil.
func (s *state) replace(old, env *environment) {
	if old == nil {
		old = &environment{}
	}
	gone := env == nil
	if gone {
		env = &environment{}
		s.environments = s.environments.without(old.key)
	} else {
		s.environments = s.environments.with(env.key, env)
	}
	if header := lower(old.header); header != "" && s.headers.get([]byte(header)) == old.key {
		s.headers = s.headers.without(header)
	}
	if header := lower(env.header); header != "" && s.headers.get([]byte(header)) == "" { // the first one keeps it
		s.headers = s.headers.with(header, env.key)
	}
	env.hosts = move(&s.hosts, old.hosts, env.hosts)
	env.addresses = move(&s.addresses, old.addresses, env.addresses)

	// Counted up before down, so that a project is not taken out only to be
	// put in again.
	for i := range env.services {
		s.hold(env.services[i].key, env.project, +1)
	}
	for i := range old.services {
		s.hold(old.services[i].key, old.project, -1)
	}
}

// move takes old out of x and puts places in, and gives the list to keep: the
// old one where nothing changed, as x has pointers to it.
func move(x *index[*place], old, places []place) []place {
	if slices.Equal(old, places) {
		return old
	}
	for i := range old {
		*x = x.without(old[i].key)
	}
	for i := range places {
		*x = x.with(places[i].key, &places[i])
	}
	return places
}

// hold counts the environments of project that have a service of this name.
func (s *state) hold(service, project string, change int) {
	h := s.holders.get([]byte(service))
	if h == nil {
		h = &holders{}
	}
	at, found := slices.BinarySearch(h.projects, project)
	switch {
	case !found:
		s.holders = s.holders.with(service, &holders{
			projects: slices.Insert(slices.Clone(h.projects), at, project),
			counts:   slices.Insert(slices.Clone(h.counts), at, change),
		})
	case h.counts[at]+change > 0:
		h.counts[at] += change
	case len(h.projects) == 1:
		s.holders = s.holders.without(service)
	default:
		s.holders = s.holders.with(service, &holders{
			projects: slices.Delete(slices.Clone(h.projects), at, at+1),
			counts:   slices.Delete(slices.Clone(h.counts), at, at+1),
		})
	}
}

// chain walks from an environment along its bases and ends where it would come
// to walk in a circle. A circle may be walked more than once before it is seen.
type chain struct {
	state       *state
	at          *environment // nil = the end
	mark        *environment // an environment that was passed (Brent's algorithm)
	steps, turn int
}

func (s *state) chain(from *environment) chain {
	return chain{state: s, at: from, mark: from, turn: 1}
}

func (c *chain) next() {
	base := c.at.base
	if base == "" {
		c.at = nil
		return
	}
	c.at = c.state.environments.get([]byte(base))
	if c.at == c.mark {
		c.at = nil
		return
	}
	if c.steps++; c.steps == c.turn {
		c.mark, c.steps, c.turn = c.at, 0, 2*c.turn
	}
}

// provider gives who has the service for env and the service itself: env's own,
// else its base's, and so on; nil when nobody has it.
func (s *state) provider(env *environment, key []byte) (*environment, *service) {
	for c := s.chain(env); c.at != nil; c.next() {
		if own := c.at.find(key); own != nil {
			return c.at, own
		}
	}
	return nil, nil
}
