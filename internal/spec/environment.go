package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/dayfly-dev/dayfly"
)

// EnvironmentOptions say how environment files are read.
type EnvironmentOptions struct {
	// Mayfly reads files in Mayfly's format; a file can say so itself, too, with "format".
	Mayfly bool
}

// The values of format.
const (
	formatDayfly = "dayfly"
	formatMayfly = "mayfly"
)

// ParseEnvironmentFiles reads an environment file: one environment or a list of them. All
// that is wrong with it comes at once.
func ParseEnvironmentFiles(name string, data []byte, o EnvironmentOptions) ([]dayfly.EnvironmentSpec, error) {
	d, err := parseAny(name, data)
	if err != nil {
		return nil, err
	}
	var items []*yaml.Node
	switch {
	case d.root == nil:
		d.bad(nil, "", "is empty")
	case d.root.Kind == yaml.MappingNode:
		return d.environments([]*yaml.Node{d.root}, false, o)
	case d.root.Kind != yaml.SequenceNode:
		d.bad(d.root, "", "has to be an environment or a list of environments")
	case len(d.root.Content) == 0:
		d.bad(d.root, "", "is empty")
	default:
		items = d.root.Content
	}
	return d.environments(items, true, o)
}

// environments reads the environments of a file; isList says that their fields have numbers.
func (d *document) environments(items []*yaml.Node, isList bool, o EnvironmentOptions) ([]dayfly.EnvironmentSpec, error) {
	type place struct {
		field string
		node  *yaml.Node
	}
	var specs []dayfly.EnvironmentSpec
	seen := map[string]place{}
	for i, item := range items {
		if d.full() {
			break
		}
		n, field := follow(item), ""
		if isList {
			field = fmt.Sprintf("[%d]", i)
		}
		if n.Kind != yaml.MappingNode {
			d.bad(item, field, "has to be a mapping")
			continue
		}
		spec := d.environment(n, field, o)
		at := cmp.Or(get(n, "name"), n)
		if item.Kind == yaml.AliasNode {
			at = item // one text can be several environments
		}
		if first, ok := seen[spec.Name]; ok && spec.Name != "" {
			d.bad(at, join(field, "name"), "%s is there twice: %s has that name in line %d, column %d", spec.Name, first.field, first.node.Line, first.node.Column)
		} else {
			seen[spec.Name] = place{field, at}
		}
		specs = append(specs, spec)
	}
	if err := d.list.err(); err != nil {
		return nil, err
	}
	return specs, nil
}

// environment reads one environment. Of one in Mayfly's format it fills in what is left out,
// so that nobody else has to know that format.
func (d *document) environment(n *yaml.Node, f string, o EnvironmentOptions) dayfly.EnvironmentSpec {
	var spec dayfly.EnvironmentSpec
	d.known(n, f, "name", "project", "prefix", "header", "branch", "base", "keep", "data", "public-header", "services", "only", "format")
	mayfly := o.Mayfly
	if p := get(n, "format"); p != nil {
		format := d.text(p, join(f, "format"))
		if format != formatDayfly && format != formatMayfly {
			d.bad(p, join(f, "format"), "has to be %s or %s", formatDayfly, formatMayfly)
		}
		mayfly = format == formatMayfly
	}
	given := func(key string) *yaml.Node { // Mayfly takes nothing for not given
		p := get(n, key)
		if mayfly && p != nil && p.ShortTag() == "!!null" {
			return nil
		}
		return p
	}
	spec.Name = d.text(get(n, "name"), join(f, "name"))
	if err := dayfly.ValidName(spec.Name); err != nil {
		d.bad(cmp.Or(get(n, "name"), n), join(f, "name"), "%v", err)
	}
	spec.Project = d.text(get(n, "project"), join(f, "project"))
	spec.Branch = d.text(get(n, "branch"), join(f, "branch"))
	spec.Base = d.text(get(n, "base"), join(f, "base"))
	if p := given("prefix"); p != nil {
		if spec.Prefix = d.text(p, join(f, "prefix")); dayfly.ValidName(spec.Prefix) != nil {
			d.bad(p, join(f, "prefix"), "%v", dayfly.ValidName(spec.Prefix))
		}
	}
	if p := given("header"); p != nil {
		spec.Header = d.text(p, join(f, "header"))
		if err := dayfly.ValidHeader(spec.Header); err != nil {
			d.bad(p, join(f, "header"), "%v", err)
		}
	}
	spec.Keep = d.life(get(n, "keep"), join(f, "keep"))
	if p := get(n, "data"); p != nil {
		if spec.Data = d.text(p, join(f, "data")); !slices.Contains([]string{"snapshot", "fixtures", "none"}, spec.Data) {
			d.bad(p, join(f, "data"), "has to be snapshot, fixtures or none")
		}
	}
	spec.PublicHeader = d.boolean(get(n, "public-header"), join(f, "public-header"))
	spec.Only = d.texts(get(n, "only"), join(f, "only"))
	d.services(given("services"), join(f, "services"), mayfly, &spec)
	if mayfly {
		d.mayfly(n, f, &spec)
	}
	return spec
}

func (d *document) services(services *yaml.Node, f string, mayfly bool, spec *dayfly.EnvironmentSpec) {
	if services == nil {
		return
	}
	if services.Kind != yaml.SequenceNode {
		d.bad(services, f, "has to be a list")
		return
	}
	seen := map[string]bool{}
	for i, s := range services.Content {
		field := fmt.Sprintf("%s[%d]", f, i)
		ask := d.serviceAsk(follow(s), field, mayfly)
		if seen[ask.Name] && ask.Name != "" {
			d.bad(s, field, "%s is there twice", ask.Name)
		}
		seen[ask.Name] = true
		spec.Services = append(spec.Services, ask)
	}
}

func (d *document) serviceAsk(n *yaml.Node, f string, mayfly bool) dayfly.ServiceSpec {
	if n.Kind == yaml.ScalarNode {
		name := d.text(n, f)
		if name == "" && n.ShortTag() != "!!null" {
			d.bad(n, f, "is empty: it has to be the name of a service")
		}
		return dayfly.ServiceSpec{Name: name}
	}
	if n.Kind != yaml.MappingNode {
		d.bad(n, f, "has to be the name of a service or a mapping")
		return dayfly.ServiceSpec{}
	}
	d.known(n, f, "name", "version", "branch", "repo", "url", "route", "variables")
	s := dayfly.ServiceSpec{
		Name: d.text(get(n, "name"), f+".name"), Version: d.text(get(n, "version"), f+".version"), Branch: d.text(get(n, "branch"), f+".branch"),
		Repo: d.text(get(n, "repo"), f+".repo"), URL: d.text(get(n, "url"), f+".url"),
	}
	if s.Name == "" {
		d.bad(n, f+".name", "is missing")
	}
	given := 0
	for _, v := range []string{s.Version, s.Branch, s.URL} {
		if v != "" {
			given++
		}
	}
	if given > 1 {
		d.bad(n, f, "only one of version, branch and url can be given")
	}
	if r := get(n, "route"); r != nil && mayfly {
		s.Route = d.mayflyRoute(r, f+".route")
	} else if r != nil {
		if r.Kind != yaml.ScalarNode {
			d.bad(r, f+".route", "has to be a path: strip and lists are possible in the project file")
		} else {
			s.Route = d.routes(r, f+".route")[0].Path
		}
	}
	variables := get(n, "variables")
	if variables != nil && variables.Kind != yaml.MappingNode {
		d.bad(variables, f+".variables", "has to be a mapping of names to values")
	}
	for _, p := range pairs(variables) {
		if s.Variables == nil {
			s.Variables = map[string]string{}
		}
		name := p.key.Value
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00"):
			d.bad(p.key, f+".variables."+name, "is no name of a variable")
		case name == "PORT" || strings.HasPrefix(name, "DAYFLY_"):
			d.bad(p.key, f+".variables."+name, "is set by dayfly")
		}
		s.Variables[name] = d.text(p.value, f+".variables."+name)
	}
	return s
}

// FormatEnvironmentFile writes an environment file that reads back as the same wish.
func FormatEnvironmentFile(spec dayfly.EnvironmentSpec) []byte {
	type service struct {
		Name      string            `yaml:"name"`
		Version   string            `yaml:"version,omitempty"`
		Branch    string            `yaml:"branch,omitempty"`
		Repo      string            `yaml:"repo,omitempty"`
		URL       string            `yaml:"url,omitempty"`
		Route     string            `yaml:"route,omitempty"`
		Variables map[string]string `yaml:"variables,omitempty"`
	}
	file := struct {
		Name         string    `yaml:"name"`
		Project      string    `yaml:"project,omitempty"`
		Prefix       string    `yaml:"prefix,omitempty"`
		Header       string    `yaml:"header,omitempty"`
		Branch       string    `yaml:"branch,omitempty"`
		Base         string    `yaml:"base,omitempty"`
		Keep         string    `yaml:"keep,omitempty"`
		Data         string    `yaml:"data,omitempty"`
		PublicHeader bool      `yaml:"public-header,omitempty"`
		Only         []string  `yaml:"only,omitempty"`
		Services     []service `yaml:"services,omitempty"`
	}{Name: spec.Name, Project: spec.Project, Prefix: spec.Prefix, Header: spec.Header, Branch: spec.Branch, Base: spec.Base, Data: spec.Data,
		PublicHeader: spec.PublicHeader, Only: spec.Only}
	if spec.Keep != 0 {
		file.Keep = spec.Keep.String()
	}
	for _, s := range spec.Services {
		file.Services = append(file.Services, service(s))
	}
	b, err := yaml.Marshal(file)
	if err != nil {
		panic(err) // plain data
	}
	return b
}
