package spec

import (
	"fmt"
	"path"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/dayfly-dev/dayfly"
)

// extension is x-dayfly at the top of a project file.
type extension struct {
	Keep      dayfly.Duration
	Baseline  string
	Branches  dayfly.BranchPatterns
	Databases []dayfly.DatabaseDefinition
}

// extend is x-dayfly of one service, laid over what Compose says.
type extend struct {
	routes    []dayfly.PathRoute
	build     []dayfly.Command
	buildEnv  []string
	process   bool // there is such a section,
	hasRun    bool // and it says what to run
	run       dayfly.Command
	writable  bool
	health    string
	paths     []string
	repo      string
	own, test bool
	databases []string // that it uses; nil = it does not say
	protocol  dayfly.Protocol
	scale     *dayfly.Scale
	release   dayfly.ReleaseDefinition
}

// top reads the x-dayfly of the project.
func (d *document) top(n *yaml.Node) extension {
	var x extension
	if n == nil {
		return x
	}
	const f = "x-dayfly"
	d.known(n, f, "keep", "baseline", "branches", "databases")
	x.Keep = d.life(get(n, "keep"), f+".keep")
	x.Baseline = d.text(get(n, "baseline"), f+".baseline")
	x.Branches = d.branches(get(n, "branches"), f+".branches")
	x.Databases = d.databases(get(n, "databases"), f+".databases")
	return x
}

// branches reads patterns of branches.
func (d *document) branches(n *yaml.Node, f string) dayfly.BranchPatterns {
	known := len(d.list)
	patterns := d.texts(n, f)
	if len(d.list) > known {
		return nil // one of another kind must not be called empty, too
	}
	for i, p := range patterns {
		place, field := n, f
		if n.Kind == yaml.SequenceNode {
			place, field = n.Content[i], fmt.Sprintf("%s[%d]", f, i)
		}
		if err := dayfly.ValidBranchPattern(p); err != nil {
			d.bad(place, field, "%v", err)
		}
	}
	return patterns
}

// service reads the x-dayfly of a service.
func (d *document) service(n *yaml.Node, f string) extend {
	var x extend
	if n == nil {
		return x
	}
	d.known(n, f, "route", "process", "health", "paths", "repo", "own", "test", "protocol", "scale", "release", "databases")
	if p := get(n, "process"); p != nil {
		d.process(p, f+".process", &x)
	}
	x.routes = d.routes(get(n, "route"), f+".route")
	if h := get(n, "health"); h != nil {
		if x.health = d.text(h, f+".health"); !strings.HasPrefix(x.health, "/") {
			d.bad(h, f+".health", "has to be a path that begins with /")
		}
	}
	x.paths = d.texts(get(n, "paths"), f+".paths")
	for _, p := range x.paths {
		if path.IsAbs(p) || p == ".." || strings.HasPrefix(path.Clean(p), "../") {
			d.bad(get(n, "paths"), f+".paths", "%q lies outside of the repository", p)
		}
	}
	x.repo = d.text(get(n, "repo"), f+".repo")
	x.own = d.boolean(get(n, "own"), f+".own")
	if n := get(n, "databases"); n != nil {
		x.databases = append([]string{}, d.texts(n, f+".databases")...)
	}
	x.test = d.boolean(get(n, "test"), f+".test")
	if p := get(n, "protocol"); p != nil {
		switch x.protocol = dayfly.Protocol(d.text(p, f+".protocol")); x.protocol {
		case dayfly.ProtocolHTTP, dayfly.ProtocolH2C, dayfly.ProtocolTCP:
		default:
			d.bad(p, f+".protocol", "has to be http, h2c or tcp")
		}
	}
	if s := get(n, "scale"); s != nil {
		sf := f + ".scale"
		d.known(s, sf, "min", "max", "target", "idle")
		x.scale = &dayfly.Scale{
			Min: d.number(get(s, "min"), sf+".min", 0), Max: d.number(get(s, "max"), sf+".max", 1),
			Target: d.number(get(s, "target"), sf+".target", 1), Idle: d.duration(get(s, "idle"), sf+".idle"),
		}
		if get(s, "min") == nil {
			x.scale.Min = 1
		}
		if x.scale.Max != 0 && x.scale.Max < x.scale.Min {
			d.bad(get(s, "max"), sf+".max", "is less than min")
		}
	}
	if r := get(n, "release"); r != nil {
		d.release(r, f+".release", &x.release)
	}
	return x
}

// noRun notes a process without a command. It is looked for when all files are merged.
func (d *document) noRun(service, field string) {
	d.bad(d.place("services", service, "x-dayfly", "process"), field+".process.run", "is missing: the command that starts the service")
}

func (d *document) process(p *yaml.Node, f string, x *extend) {
	x.process = true
	if p.Kind != yaml.MappingNode {
		x.hasRun = true
		d.bad(p, f, "has to be a mapping with run, and build where something is to be built")
		return
	}
	d.known(p, f, "build", "run", "build_env", "writable")
	run := get(p, "run")
	x.hasRun = run != nil
	x.run = d.command(run, f+".run")
	x.buildEnv = d.texts(get(p, "build_env"), f+".build_env")
	x.writable = d.boolean(get(p, "writable"), f+".writable")
	b := get(p, "build")
	switch {
	case b == nil:
	case b.Kind == yaml.SequenceNode: // a list of commands
		for i, c := range b.Content {
			x.build = append(x.build, d.command(follow(c), fmt.Sprintf("%s.build[%d]", f, i)))
		}
	default:
		x.build = []dayfly.Command{d.command(b, f+".build")}
	}
}

func (d *document) release(r *yaml.Node, f string, into *dayfly.ReleaseDefinition) {
	d.known(r, f, "strategy", "steps", "pause", "errors", "latency", "test", "choose")
	*into = dayfly.ReleaseDefinition{
		Strategy: d.text(get(r, "strategy"), f+".strategy"), Steps: d.texts(get(r, "steps"), f+".steps"),
		Pause: d.duration(get(r, "pause"), f+".pause"), Errors: d.text(get(r, "errors"), f+".errors"),
		Latency: d.duration(get(r, "latency"), f+".latency"), Test: d.text(get(r, "test"), f+".test"),
		Choose: d.boolean(get(r, "choose"), f+".choose"),
	}
	switch into.Strategy {
	case "", "direct":
	default:
		d.bad(get(r, "strategy"), f+".strategy", "this version has the strategy direct only")
	}
}

// routes reads a path, a mapping {path, strip}, or a list of these.
func (d *document) routes(n *yaml.Node, f string) []dayfly.PathRoute {
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.SequenceNode:
		var all []dayfly.PathRoute
		for i, c := range n.Content {
			all = append(all, d.routes(follow(c), fmt.Sprintf("%s[%d]", f, i))...)
		}
		return all
	}
	r := dayfly.PathRoute{}
	if n.Kind == yaml.MappingNode {
		d.known(n, f, "path", "strip")
		r.Strip = d.boolean(get(n, "strip"), f+".strip")
		r.Path = d.text(get(n, "path"), f+".path")
	} else {
		r.Path = d.text(n, f)
	}
	if !strings.HasPrefix(r.Path, "/") {
		d.bad(n, f, "has to be a path that begins with /")
	}
	if len(r.Path) > 1 {
		r.Path = strings.TrimRight(r.Path, "/")
	}
	return []dayfly.PathRoute{r}
}

// validService says what is wrong with the name of a service: it becomes a part of a host.
func validService(name string) error {
	if slug := dayfly.Slug(name); slug != name {
		return fmt.Errorf("the service %q cannot be part of a host name: call it %q", name, slug)
	}
	return nil
}
