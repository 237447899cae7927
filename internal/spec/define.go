package spec

import (
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
		if def.ImageBuild != nil {
			def.Paths = []string{def.ImageBuild.Context}
		}
	}
	for k, v := range s.Environment {
		if v != nil {
			def.Variables[k] = *v
		}
	}
	for name, d := range s.DependsOn {
		if def.DependsOn == nil {
			def.DependsOn = map[string]dayfly.Condition{}
		}
		def.DependsOn[name] = dayfly.Condition(d.Condition)
	}
	if len(s.Ports) > 0 {
		def.Port = int(s.Ports[0].Target)
	} else if len(s.Expose) > 0 {
		def.Port, _ = strconv.Atoi(strings.SplitN(s.Expose[0], "/", 2)[0])
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

// onlyRoute says whether a service is the only one with a port, in a project in which
// none has a route.
func (p *Project) onlyRoute(name string) bool {
	services, _ := p.model["services"].(map[string]any)
	for other, s := range services {
		if len(p.extend[other].routes) > 0 {
			return false
		}
		s, _ := s.(map[string]any)
		if other != name && s["ports"] != nil {
			return false
		}
	}
	return true
}

// awaited says whether another service waits for this one to complete.
func (p *Project) awaited(name string) bool {
	services, _ := p.model["services"].(map[string]any)
	for _, s := range services {
		s, _ := s.(map[string]any)
		deps, _ := s["depends_on"].(map[string]any)
		dep, _ := deps[name].(map[string]any)
		if dep["condition"] == string(dayfly.ConditionCompleted) {
			return true
		}
	}
	return false
}

// check finds what is wrong between services.
func (p *Project) check() {
	services, _ := p.model["services"].(map[string]any)
	root := ""
	for _, name := range p.order {
		place := at(p.doc.root, []string{"services", name})
		field := "services." + name
		if err := validService(name); err != nil {
			p.doc.bad(place, field, "%v", err)
		}
		s, _ := services[name].(map[string]any)
		x := p.extend[name]
		if x.run == nil && s["image"] == nil && s["build"] == nil && x.repo == "" && !slices.Contains(p.extension.Databases, name) &&
			get(get(get(p.doc.root, "services"), name), "x-dayfly") == nil {
			p.doc.bad(place, field, "has nothing to run: add x-dayfly.process, build or image")
		}
		deps, _ := s["depends_on"].(map[string]any)
		for dep := range deps {
			if services[dep] == nil {
				p.doc.bad(at(p.doc.root, []string{"services", name, "depends_on", dep}), field+".depends_on", "there is no service %q", dep)
			}
		}
		for _, r := range x.routes {
			if r.Path != "/" {
				continue
			}
			if root != "" {
				p.doc.bad(at(p.doc.root, []string{"services", name, "x-dayfly", "route"}), field+".x-dayfly.route", "%s has the route / already", root)
			}
			root = name
		}
		if len(x.routes) > 0 && s["ports"] == nil && s["expose"] == nil {
			p.doc.bad(at(p.doc.root, []string{"services", name, "x-dayfly", "route"}), field+".x-dayfly.route", "needs a port: add ports")
		}
	}
	if cycle := findCycle(p.order, services); len(cycle) > 0 {
		p.doc.bad(at(p.doc.root, []string{"services", cycle[0], "depends_on"}), "services."+cycle[0]+".depends_on",
			"is a cycle: %s", strings.Join(cycle, " -> "))
	}
}

// findCycle gives services that depend on each other in a circle.
func findCycle(order []string, services map[string]any) []string {
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
		s, _ := services[name].(map[string]any)
		deps, _ := s["depends_on"].(map[string]any)
		names := make([]string, 0, len(deps))
		for dep := range deps {
			names = append(names, dep)
		}
		slices.Sort(names)
		for _, dep := range names {
			if c := visit(dep); c != nil {
				return c
			}
		}
		way = way[:len(way)-1]
		state[name] = done
		return nil
	}
	for _, name := range order {
		if c := visit(name); c != nil {
			return c
		}
	}
	return nil
}
