package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/dayfly-dev/dayfly"
)

// ParseEnvironmentFile reads an environment file. All that is wrong with it comes at
// once.
func ParseEnvironmentFile(name string, data []byte) (dayfly.EnvironmentSpec, error) {
	var spec dayfly.EnvironmentSpec
	d, err := parse(name, data)
	if err != nil {
		return spec, err
	}
	n := d.root
	d.known(n, "", "name", "project", "prefix", "branch", "base", "keep", "data", "public-header", "services", "only")
	spec.Name = d.text(get(n, "name"), "name")
	if err := dayfly.ValidName(spec.Name); err != nil {
		d.bad(cmp.Or(get(n, "name"), n), "name", "%v", err)
	}
	spec.Project = d.text(get(n, "project"), "project")
	spec.Branch = d.text(get(n, "branch"), "branch")
	spec.Base = d.text(get(n, "base"), "base")
	if p := get(n, "prefix"); p != nil {
		if spec.Prefix = d.text(p, "prefix"); dayfly.ValidName(spec.Prefix) != nil {
			d.bad(p, "prefix", "%v", dayfly.ValidName(spec.Prefix))
		}
	}
	spec.Keep = d.life(get(n, "keep"), "keep")
	if p := get(n, "data"); p != nil {
		if spec.Data = d.text(p, "data"); !slices.Contains([]string{"snapshot", "fixtures", "none"}, spec.Data) {
			d.bad(p, "data", "has to be snapshot, fixtures or none")
		}
	}
	spec.PublicHeader = d.boolean(get(n, "public-header"), "public-header")
	spec.Only = d.texts(get(n, "only"), "only")
	services := get(n, "services")
	if services != nil && services.Kind != yaml.SequenceNode {
		d.bad(services, "services", "has to be a list")
	} else if services != nil {
		for i, s := range services.Content {
			spec.Services = append(spec.Services, d.serviceAsk(follow(s), fmt.Sprintf("services[%d]", i)))
		}
	}
	seen := map[string]bool{}
	for i, s := range spec.Services {
		if seen[s.Name] && s.Name != "" {
			d.bad(services.Content[i], fmt.Sprintf("services[%d]", i), "%s is there twice", s.Name)
		}
		seen[s.Name] = true
	}
	return spec, d.list.err()
}

func (d *document) serviceAsk(n *yaml.Node, f string) dayfly.ServiceSpec {
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
	if r := get(n, "route"); r != nil {
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
		Branch       string    `yaml:"branch,omitempty"`
		Base         string    `yaml:"base,omitempty"`
		Keep         string    `yaml:"keep,omitempty"`
		Data         string    `yaml:"data,omitempty"`
		PublicHeader bool      `yaml:"public-header,omitempty"`
		Only         []string  `yaml:"only,omitempty"`
		Services     []service `yaml:"services,omitempty"`
	}{Name: spec.Name, Project: spec.Project, Prefix: spec.Prefix, Branch: spec.Branch, Base: spec.Base, Data: spec.Data,
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
