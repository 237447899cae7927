package status

import (
	"slices"
	"strings"

	"github.com/dayfly-dev/dayfly"
)

// registered computes a service that registered instances answer for; false = there are none.
func registered(all []dayfly.Registration, service string) (s dayfly.EnvironmentService, ok bool) {
	var versions []string
	for _, r := range all {
		if r.Service != service {
			continue
		}
		s.Instances++
		if !slices.Contains(versions, r.Version) {
			versions = append(versions, r.Version)
		}
	}
	slices.Sort(versions)
	s.Name, s.Version, s.From, s.Phase = service, strings.Join(versions, ", "), dayfly.FromRegistered, dayfly.PhaseReady
	return s, s.Instances > 0
}

// additional computes the services that are registered with an environment and that it has not, and
// puts down their addresses.
func additional(in Input, env dayfly.Environment) (services []dayfly.EnvironmentService) {
	has := func(name string) func(dayfly.EnvironmentService) bool {
		return func(s dayfly.EnvironmentService) bool { return s.Name == name }
	}
	for _, r := range in.Registered {
		if slices.ContainsFunc(env.Services, has(r.Service)) || slices.ContainsFunc(services, has(r.Service)) {
			continue
		}
		s, _ := registered(in.Registered, r.Service)
		s.Env = env.Name
		if r.Host != "" {
			s.URL = in.URL(r.Host)
			env.URLs[s.Name] = s.URL
		}
		services = append(services, s)
	}
	slices.SortFunc(services, func(a, b dayfly.EnvironmentService) int { return strings.Compare(a.Name, b.Name) })
	return services
}

// Unmanaged computes what the API answers about an environment that nobody created: it is there for as
// long as something is registered with it.
func Unmanaged(name, project string, in Input) dayfly.Environment {
	env := dayfly.Environment{
		ID: "registered:" + name, Name: name, Project: project, Phase: dayfly.PhaseReady,
		Message: "nobody created it: it is there for as long as something is registered with it",
		URLs:    map[string]string{}, Services: []dayfly.EnvironmentService{}, Databases: []string{}, Missing: []dayfly.Missing{},
	}
	env.Services = append(env.Services, additional(in, env)...)
	for i, r := range in.Registered {
		if i == 0 || r.CreatedAt.Before(env.CreatedAt) {
			env.CreatedAt = r.CreatedAt
		}
	}
	if len(env.Services) == 1 {
		env.URL = env.Services[0].URL
	}
	return env
}
