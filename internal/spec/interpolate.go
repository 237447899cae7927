package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/loader"
	interpolated "github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/transform"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/dayfly-dev/dayfly"
)

// Raw gives the definition of a service while only .env is known: its ports, routes and
// commands, but not its final variables. Required variables are not missed yet.
func (p *Project) Raw(service string) (dayfly.Definition, error) {
	return p.definition(service, nil, func(template string, vars map[string]string) (string, error) {
		for known := vars; ; {
			text, err := substitute(template, known)
			var missing *interpolated.MissingRequiredError
			if !errors.As(err, &missing) || known[missing.Variable] != "" {
				return text, err
			}
			known = maps.Clone(known)
			known[missing.Variable] = "1" // is a text, a number and true
		}
	})
}

// Definition gives the definition of a service, interpolated with vars over .env, and with
// nothing of the server's environment. x-dayfly is left as it is written.
func (p *Project) Definition(service string, vars map[string]string) (dayfly.Definition, error) {
	return p.definition(service, vars, substitute)
}

// substitution puts variables into a text.
type substitution func(template string, vars map[string]string) (string, error)

func substitute(template string, vars map[string]string) (string, error) {
	if strings.Count(template, "$") > maxInText {
		return "", fmt.Errorf("has more than %d variables in one text", maxInText)
	}
	text, err := interpolated.SubstituteWithOptions(template, func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}, interpolated.WithoutLogging)
	var bad *interpolated.InvalidTemplateError
	if errors.As(err, &bad) {
		err = fmt.Errorf("%q uses a variable in a way that Compose does not know: write $$ for a dollar sign", template)
	}
	return text, err
}

func (p *Project) definition(service string, vars map[string]string, s substitution) (def dayfly.Definition, err error) {
	if !slices.Contains(p.order, service) {
		return def, dayfly.Errorf(dayfly.CodeNotFound, "%s has no service %q", p.File, service)
	}
	if p.definitions != nil {
		return p.definitions[service], nil
	}
	defer survive(&err)
	env := maps.Clone(p.dotenv)
	maps.Copy(env, vars)
	c, err := p.interpolate(service, env, s)
	if err != nil {
		return def, problems(p.translate(err)).err()
	}
	return p.define(c), nil
}

// interpolate puts variables into the definition of a service.
func (p *Project) interpolate(service string, env map[string]string, s substitution) (types.ServiceConfig, error) {
	none := types.ServiceConfig{}
	of := clone(p.service(service)).(map[string]any)
	for _, key := range []string{"x-dayfly", "env_file", "label_file", "profiles", "pre_start"} {
		delete(of, key)
	}
	details := p.details(nil, env)
	o := loader.ToOptions(&details, []func(*loader.Options){options})
	room := maxWeight
	o.Interpolate.Substitute = func(template string, _ interpolated.Mapping) (string, error) {
		if room < 0 {
			return "", errTooLarge
		}
		text, err := s(template, env)
		if room -= len(text); room < 0 {
			return "", errTooLarge
		}
		return text, err
	}
	model, err := interpolation.Interpolate(map[string]any{"services": map[string]any{service: of}}, *o.Interpolate)
	if err != nil {
		return none, err
	}
	if err := p.ports(service, model); err != nil {
		return none, err
	}
	// What could not be understood for its variables can be now.
	if model, err = transform.Canonical(model, false); err != nil {
		return none, err
	}
	whole, err := loader.ModelToProject(model, o, details)
	if err != nil {
		return none, err
	}
	c := whole.Services[service]
	lookup := func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}
	c.Environment = c.Environment.Resolve(lookup)
	vars := map[string]string{}
	for _, f := range p.env[service] {
		err := parseVariables(f, vars, func(name string) (string, bool) {
			if v, ok := lookup(name); ok {
				return v, true
			}
			if v := c.Environment[name]; v != nil {
				return *v, true
			}
			return "", false
		})
		if err != nil {
			line, text := lineOf(err.Error())
			return none, dayfly.Invalid(dayfly.Problem{File: f.name, Line: line, Message: "cannot be read: " + text})
		}
	}
	for name, value := range vars {
		if c.Environment[name] == nil {
			if c.Environment == nil {
				c.Environment = types.MappingWithEquals{}
			}
			c.Environment[name] = &value
		}
	}
	return c, nil
}

// ports says which ports of a service, after interpolation, are none.
func (p *Project) ports(service string, model map[string]any) error {
	var bad problems
	for _, key := range []string{"ports", "expose"} {
		for i, item := range list(mapping(mapping(model["services"])[service])[key]) {
			text := fmt.Sprint(item)
			if _, long := item.(map[string]any); long {
				continue
			}
			if portRange(text) > maxPorts {
				return fmt.Errorf("services.%s.%s: are more than %d", service, key, maxPorts)
			}
			if _, err := types.ParsePortConfig(text); err == nil && (key == "ports" || !strings.Contains(text, ":")) {
				continue
			}
			way := []string{"services", service, key, fmt.Sprint(i)}
			d, _, _ := p.tree.find(way)
			n := d.place(way...)
			bad = append(bad, dayfly.Problem{
				File: d.file, Line: n.Line, Column: n.Column, Field: fmt.Sprintf("services.%s.%s[%d]", service, key, i),
				Message: fmt.Sprintf("%q is no port: write its number, such as 8080", text),
			})
		}
	}
	return bad.err()
}

var errTooLarge = errors.New("is too large with its variables")

// readEnvFiles reads what env_file of a service names. Only .env is known by then: which file is
// read does not depend on the environment.
func (p *Project) readEnvFiles(service string) {
	base := path.Dir(p.File)
	for i, item := range list(p.service(service)["env_file"]) {
		m := mapping(item)
		written, _ := m["path"].(string)
		format, _ := m["format"].(string)
		way := []string{"services", service, "env_file", fmt.Sprint(i)}
		field := fmt.Sprintf("services.%s.env_file[%d]", service, i)
		name, err := substitute(written, p.dotenv)
		if err != nil {
			p.tree.bad(way, field, "%v", err)
			continue
		}
		d, _, _ := p.tree.find(way)
		name = p.tree.inside(d, name, base, way, field)
		if name == "" {
			continue
		}
		data, err := read(p.tree.root, name)
		required, ok := m["required"].(bool)
		switch {
		case err == nil:
			p.env[service] = append(p.env[service], envFile{name, format, string(data)})
		case errors.Is(err, fs.ErrNotExist) && ok && !required:
		default:
			p.tree.bad(way, field, "%q cannot be read: %s", name, reason(err))
		}
	}
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for k, e := range v {
			c[k] = clone(e)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = clone(e)
		}
		return c
	default:
		return v
	}
}
