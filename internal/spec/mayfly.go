package spec

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/dayfly-dev/dayfly"
)

// mayfly fills in what Mayfly's format leaves out.
func (d *document) mayfly(n *yaml.Node, f string, spec *dayfly.EnvironmentSpec) {
	if spec.Prefix == "" && spec.Name != "" {
		if spec.Prefix = "www-" + spec.Name; dayfly.ValidName(spec.Prefix) != nil { // too long
			spec.Prefix = dayfly.WithSuffix(spec.Prefix, spec.Prefix)
		}
	}
	if spec.Base == "" {
		spec.Base = "none"
	}
	if s := get(n, "services"); spec.Base == "none" && (s == nil || s.ShortTag() == "!!null" || s.Kind == yaml.SequenceNode && len(s.Content) == 0) {
		d.bad(n, join(f, "services"), "is missing: in Mayfly's format there are only the services that are listed")
	}
	if spec.Branch != "" {
		return // what is followed has no version
	}
	for i := range spec.Services {
		if s := &spec.Services[i]; s.Version == "" && s.Branch == "" && s.URL == "" {
			s.Version = "latest"
		}
	}
}

// mayflyRoute reads a route of which Mayfly understands several spellings.
func (d *document) mayflyRoute(n *yaml.Node, f string) string {
	if n.ShortTag() == "!!null" {
		return ""
	}
	known := len(d.list)
	text := d.text(n, f)
	if len(d.list) > known {
		return ""
	}
	route := strings.TrimSuffix(strings.TrimPrefix(text, "/"), "/")
	switch {
	case text == "/":
		return "/"
	case strings.Contains(route, "*"):
		d.bad(n, f, "%q has a *: a route is the beginning of a path, and all below it belongs to it", text)
	case slices.Contains(strings.Split(route, "/"), ""):
		d.bad(n, f, "%q is no path such as /api or /api/v1", text)
	}
	return "/" + route
}
