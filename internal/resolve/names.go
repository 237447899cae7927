package resolve

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/dayfly-dev/dayfly"
)

// assignAddresses gives every service that takes connections its loopback
// address, the one it had before where it had one.
func (s *session) assignAddresses(chosen []*choice) error {
	before := map[string]string{}
	if s.in.Previous != nil {
		for _, rs := range s.in.Previous.Services {
			before[rs.Name] = rs.Address
		}
	}
	for _, c := range chosen {
		if c.file != nil && c.from != dayfly.FromBorrowed {
			raw, err := s.raw(c.file, c.name)
			if err != nil {
				return err
			}
			raw.Protocol = c.protocol(raw)
			c.raw = raw
		} else {
			c.raw = *c.theirs.Definition
		}
		if c.raw.Port == 0 {
			continue
		}
		if c.address = before[c.name]; c.address == "" {
			address, err := s.in.Address()
			if err != nil {
				return err
			}
			c.address = address
		}
	}
	return nil
}

// label stands for the environment in public hosts.
func (s *session) label() string { return cmp.Or(s.spec.Prefix, s.spec.Name) }

// assignHosts gives public services their hosts: the environment's own first, the
// service's second.
func (s *session) assignHosts(chosen []*choice) {
	label := s.label()
	for _, c := range chosen {
		if len(c.routes()) > 0 {
			c.hosts = append(c.hosts, label+"."+s.Config.Domain)
		}
		if c.raw.Port != 0 && c.raw.Protocol != dayfly.ProtocolTCP {
			c.hosts = append(c.hosts, dayfly.ServiceHost(s.Config.HostPattern, c.name, label)+"."+s.Config.Domain)
		}
	}
}

// routes gives the service's path routes: the environment's wish beats the file.
func (c *choice) routes() []dayfly.PathRoute {
	if c.ask.Route != "" {
		return []dayfly.PathRoute{{Path: c.ask.Route}}
	}
	return c.raw.Routes
}

// protocol gives the service's protocol: one that gets a route by the environment is for
// HTTP, as one that has it by the file is.
func (c *choice) protocol(def dayfly.Definition) dayfly.Protocol {
	if c.ask.Route != "" && def.Protocol == dayfly.ProtocolTCP {
		return dayfly.ProtocolHTTP
	}
	return def.Protocol
}

// checkRoutes looks at the routes that the environment wishes for; those of a project file
// were looked at when it was read.
func checkRoutes(chosen []*choice) error {
	var problems []dayfly.Problem
	for _, c := range chosen {
		bad := func(format string, args ...any) {
			problems = append(problems, dayfly.Problem{Field: "services." + c.name + ".route", Message: fmt.Sprintf(format, args...)})
		}
		switch {
		case c.ask.Route == "":
			continue
		case !strings.HasPrefix(c.ask.Route, "/"):
			bad("has to be a path that begins with /")
		case c.raw.Port == 0:
			bad("needs a port: add ports to the service in the project file")
		}
		for _, other := range chosen {
			if other != c && other.from != dayfly.FromBorrowed && slices.ContainsFunc(other.routes(), func(r dayfly.PathRoute) bool { return r.Path == c.ask.Route }) {
				bad("%s leads to %s already", c.ask.Route, other.name)
			}
		}
	}
	if len(problems) > 0 {
		return dayfly.Invalid(problems...)
	}
	return nil
}

// address gives the variables that tell a service where it and the others are.
func (s *session) address(c *choice, chosen []*choice) map[string]string {
	vars := map[string]string{
		"DAYFLY_ENV": s.spec.Name, "DAYFLY_PROJECT": s.in.Project.Name,
		"DAYFLY_SERVICE": c.name, "DAYFLY_VERSION": c.commit,
	}
	if url := s.publicURL(c, chosen); url != "" {
		vars["DAYFLY_URL"] = url
	}
	port := s.Config.InternalPort()
	for _, other := range chosen {
		if other == c || other.address == "" {
			continue
		}
		name := strings.ToUpper(strings.ReplaceAll(other.name, "-", "_"))
		switch other.raw.Protocol {
		case dayfly.ProtocolTCP:
			vars[name+"_URL"] = fmt.Sprintf("tcp://%s:%d", other.address, port)
			vars[name+"_HOST"] = other.address
			vars[name+"_PORT"] = fmt.Sprint(port)
		default:
			vars[name+"_URL"] = fmt.Sprintf("http://%s:%d", other.address, port)
		}
	}
	s.databaseVariables(c, vars)
	return vars
}

// publicURL is the address of the service itself, or, for one without, of the environment.
func (s *session) publicURL(c *choice, chosen []*choice) string {
	if len(c.hosts) > 0 {
		return s.Config.PublicURL(c.hosts[0])
	}
	for _, other := range chosen {
		if len(other.routes()) > 0 {
			return s.Config.PublicURL(other.hosts[0])
		}
	}
	return ""
}
