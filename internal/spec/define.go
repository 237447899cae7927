package spec

import (
	"cmp"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/dayfly-dev/dayfly"
)

// define puts together what Compose and x-dayfly say about a service.
func (p *Project) define(s types.ServiceConfig) dayfly.Definition {
	x := p.extend[s.Name]
	def := dayfly.Definition{
		Service: s.Name, Dir: path.Dir(p.File), Build: x.build, BuildEnv: x.buildEnv, Run: x.run, Writable: x.writable,
		Image: s.Image, Entrypoint: dayfly.Command(s.Entrypoint), Args: dayfly.Command(s.Command),
		Routes: x.routes, Own: x.own, Test: x.test, Repo: x.repo, Restart: s.Restart, Release: x.release,
		Paths: x.paths, Scale: dayfly.Scale{Min: 1}, Variables: map[string]string{},
	}
	if s.Build != nil {
		def.ImageBuild = &dayfly.ImageBuild{Context: p.relative(s.Build.Context), Dockerfile: s.Build.Dockerfile, Target: s.Build.Target, Args: map[string]string{}}
		for k, v := range s.Build.Args {
			if v != nil {
				def.ImageBuild.Args[k] = *v
			}
		}
	}
	if len(def.Paths) == 0 {
		def.Paths = []string{"."}
		if def.ImageBuild != nil && !strings.Contains(def.ImageBuild.Context, "://") {
			def.Paths = []string{def.ImageBuild.Context}
		}
	}
	for k, v := range s.Environment {
		if v != nil {
			def.Variables[k] = *v
		}
	}
	if needs := p.needs(s.Name); len(needs) > 0 {
		def.DependsOn = needs
	}
	if len(s.Ports) > 0 {
		def.Port = int(s.Ports[0].Target)
	} else if len(s.Expose) > 0 {
		port := s.Expose[0] // 8080, 8080/tcp or 8080-8090
		if i := strings.IndexAny(port, "/-"); i >= 0 {
			port = port[:i]
		}
		def.Port, _ = strconv.Atoi(port)
	}
	def.Health = health(s.HealthCheck, x.health)
	if len(def.Routes) == 0 && def.Port != 0 && p.onlyRoute(s.Name) {
		def.Routes = []dayfly.PathRoute{{Path: "/"}}
	}
	def.Protocol = protocol(s, x, def)
	if s.Deploy != nil && s.Deploy.Replicas != nil {
		def.Scale.Min = *s.Deploy.Replicas
	}
	if x.scale != nil {
		def.Scale = *x.scale
	}
	def.Stop.Signal = s.StopSignal
	if s.StopGracePeriod != nil {
		def.Stop.Grace = dayfly.Duration(*s.StopGracePeriod)
	}
	def.Memory, def.CPUs = int64(s.MemLimit), float64(s.CPUS)
	if s.Deploy != nil && s.Deploy.Resources.Limits != nil {
		def.Memory = cmp.Or(int64(s.Deploy.Resources.Limits.MemoryBytes), def.Memory)
		def.CPUs = cmp.Or(float64(s.Deploy.Resources.Limits.NanoCPUs), def.CPUs)
	}
	def.Job = def.Test || s.Restart == "no" || p.awaited(s.Name)
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeVolume && v.Source != "" {
			def.Volumes = append(def.Volumes, v.Source)
		}
	}
	return def
}

// relative gives a folder as seen from the top of the tree.
func (p *Project) relative(dir string) string {
	if strings.Contains(dir, "://") {
		return dir
	}
	if filepath.IsAbs(dir) {
		if r, err := filepath.Rel(p.dir, dir); err == nil {
			return filepath.ToSlash(r)
		}
	}
	return path.Join(path.Dir(p.File), dir)
}

func health(h *types.HealthCheckConfig, route string) dayfly.Health {
	var out dayfly.Health
	out.Path = route
	if h == nil || h.Disable {
		return out
	}
	duration := func(d *types.Duration) dayfly.Duration {
		if d == nil {
			return 0
		}
		return dayfly.Duration(time.Duration(*d))
	}
	out.Interval, out.Timeout, out.StartPeriod = duration(h.Interval), duration(h.Timeout), duration(h.StartPeriod)
	if h.Retries != nil {
		out.Retries = int(min(*h.Retries, 1000))
	}
	if route != "" || len(h.Test) == 0 {
		return out
	}
	switch h.Test[0] {
	case "NONE":
	case "CMD":
		out.Test = dayfly.Command(h.Test[1:])
	case "CMD-SHELL":
		out.Test = append(dayfly.Command{"sh", "-c"}, h.Test[1:]...)
	default:
		out.Test = append(dayfly.Command{"sh", "-c"}, strings.Join(h.Test, " "))
	}
	return out
}

func protocol(s types.ServiceConfig, x extend, def dayfly.Definition) dayfly.Protocol {
	switch {
	case def.Port == 0:
		return ""
	case x.protocol != "":
		return x.protocol
	}
	app := ""
	if len(s.Ports) > 0 {
		app = s.Ports[0].AppProtocol
	}
	switch app {
	case "h2c", "grpc", "http2":
		return dayfly.ProtocolH2C
	}
	if len(def.Routes) > 0 || def.Health.Path != "" || strings.HasPrefix(app, "http") {
		return dayfly.ProtocolHTTP
	}
	return dayfly.ProtocolTCP
}

// hasPort says whether a service takes connections, as far as the file tells.
func (p *Project) hasPort(name string) bool {
	s := p.service(name)
	return len(list(s["ports"])) > 0 || len(list(s["expose"])) > 0
}

// onlyRoute says whether a service is the only one with ports (or, where none has any, with
// expose), in a project in which none has a route.
func (p *Project) onlyRoute(name string) bool {
	var published, exposed []string
	for _, other := range p.order {
		switch {
		case len(p.extend[other].routes) > 0:
			return false
		case p.extend[other].test:
		case len(list(p.service(other)["ports"])) > 0:
			published = append(published, other)
		case p.hasPort(other):
			exposed = append(exposed, other)
		}
	}
	if len(published) == 0 {
		published = exposed
	}
	return len(published) == 1 && published[0] == name
}

// awaited says whether another service waits for this one to complete.
func (p *Project) awaited(name string) bool {
	return slices.ContainsFunc(p.order, func(other string) bool {
		return p.needs(other)[name] == dayfly.ConditionCompleted
	})
}

// needs gives what a service waits for.
func (p *Project) needs(name string) map[string]dayfly.Condition {
	needs := map[string]dayfly.Condition{}
	for other, dep := range mapping(p.service(name)["depends_on"]) {
		if p.isDatabase(other) {
			continue // it is there before any service is started
		}
		if required, ok := mapping(dep)["required"].(bool); ok && !required && !slices.Contains(p.order, other) {
			continue
		}
		condition, _ := mapping(dep)["condition"].(string)
		needs[other] = dayfly.Condition(condition)
	}
	return needs
}

// check finds what is wrong between services.
func (p *Project) check() {
	if len(p.order) == 0 {
		p.tree.bad([]string{"services"}, "services", "there are none")
	}
	holder := map[string]string{}
	for _, name := range p.order {
		field := "services." + name
		bad := func(way []string, format string, args ...any) {
			p.tree.bad(append([]string{"services", name}, way...), strings.Join(append([]string{field}, way...), "."), format, args...)
		}
		if err := validService(name); err != nil {
			bad(nil, "%v", err)
		}
		s, x := p.service(name), p.extend[name]
		if !x.process && s["image"] == nil && s["build"] == nil && x.repo == "" {
			bad(nil, "has nothing to run: add x-dayfly.process, build or image")
		}
		for _, db := range x.databases {
			if !p.isDatabase(db) {
				bad([]string{"x-dayfly", "databases"}, "there is no database %q: add it to x-dayfly.databases of the project", db)
			}
		}
		for _, dep := range slices.Sorted(maps.Keys(p.needs(name))) {
			switch {
			case dep == name, slices.Contains(p.order, dep):
			case p.service(dep) != nil:
				bad([]string{"depends_on", dep}, "%s is in a profile, and none is ever chosen", dep)
			default:
				bad([]string{"depends_on", dep}, "there is no service %q", dep)
			}
		}
		for _, r := range x.routes {
			if other, taken := holder[r.Path]; taken {
				bad([]string{"x-dayfly", "route"}, "%s has the route %s already", other, r.Path)
			}
			holder[r.Path] = name
		}
		if len(x.routes) > 0 && !p.hasPort(name) {
			bad([]string{"x-dayfly", "route"}, "needs a port: add ports")
		}
		if len(x.routes) > 0 && x.protocol == dayfly.ProtocolTCP {
			bad([]string{"x-dayfly", "route"}, "is for HTTP, and the protocol is tcp")
		}
		if x.health != "" && !p.hasPort(name) {
			bad([]string{"x-dayfly", "health"}, "needs a port: add ports")
		}
	}
	if cycle := p.cycle(); len(cycle) > 0 {
		field := "services." + cycle[0] + ".depends_on"
		p.tree.bad([]string{"services", cycle[0], "depends_on", cycle[1]}, field, "is a cycle: %s", strings.Join(cycle, " -> "))
	}
}

// cycle gives services that depend on each other in a circle.
func (p *Project) cycle() []string {
	const (
		under = 1
		done  = 2
	)
	state := map[string]int{}
	var way []string
	var visit func(string) []string
	visit = func(name string) []string {
		switch state[name] {
		case done:
			return nil
		case under:
			return append(slices.Clone(way[slices.Index(way, name):]), name)
		}
		state[name] = under
		way = append(way, name)
		for _, dep := range slices.Sorted(maps.Keys(p.needs(name))) {
			if c := visit(dep); c != nil {
				return c
			}
		}
		way = way[:len(way)-1]
		state[name] = done
		return nil
	}
	for _, name := range p.order {
		if c := visit(name); c != nil {
			return c
		}
	}
	return nil
}
