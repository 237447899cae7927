package spec

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// compose-go validates too, but tells the first mistake only, and no place. So its schema is
// used here, and the answer kept whole.

// composeSchema is the schema of the Compose Specification, and the keys that its parts know.
type composeSchema struct {
	schema  *jsonschema.Schema
	known   map[string][]string // by the path in the schema: /$defs/build
	service []string
}

var compiled = sync.OnceValue(func() composeSchema {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema.Schema))
	if err != nil {
		panic(err) // it is part of a library
	}
	const url = "compose-spec.json"
	c := jsonschema.NewCompiler()
	if err := c.AddResource(url, doc); err != nil {
		panic(err)
	}
	out := composeSchema{schema: c.MustCompile(url), known: map[string][]string{}}
	collect(doc, "", out.known)
	for _, part := range []string{"service", "container_spec", "workload_spec"} {
		out.service = append(out.service, out.known["/$defs/"+part]...)
	}
	return out
})

// collect notes the names of properties in each part of a schema.
func collect(v any, path string, known map[string][]string) {
	m := mapping(v)
	if p := mapping(m["properties"]); len(p) > 0 {
		known[path] = slices.Sorted(maps.Keys(p))
	}
	for k, v := range m {
		collect(v, path+"/"+k, known)
	}
	for i, v := range list(m["oneOf"]) {
		collect(v, fmt.Sprintf("%s/oneOf/%d", path, i), known)
	}
}

// validate notes what Compose's schema refuses.
func (d *document) validate() {
	err := compiled().schema.Validate(any(d.value))
	if invalid, ok := err.(*jsonschema.ValidationError); ok { //nolint:errorlint // it is never wrapped
		for _, leaf := range leaves(invalid) {
			d.violation(leaf)
		}
	}
	for name, v := range mapping(d.value["services"]) { // the schema takes any text for these
		s := mapping(v)
		ports := 0
		for _, port := range list(s["ports"]) {
			if ports += portRange(port); ports > maxPorts {
				d.manyPorts = true
				d.bad(d.place("services", name, "ports"), d.field([]string{"services", name, "ports"}), "are more than %d", maxPorts)
				break
			}
		}
		d.composeDuration(s["stop_grace_period"], "services", name, "stop_grace_period")
		for _, key := range []string{"interval", "timeout", "start_period", "start_interval"} {
			d.composeDuration(mapping(s["healthcheck"])[key], "services", name, "healthcheck", key)
		}
	}
}

// maxPorts is how many ports a service can have. compose-go makes a value of each port in a range.
const maxPorts = 1000

var portRangePattern = regexp.MustCompile(`(\d+)-(\d+)`)

// portRange says how many ports one value stands for.
func portRange(v any) int {
	text, _ := v.(string)
	most := 1
	for _, m := range portRangePattern.FindAllStringSubmatch(text, -1) {
		from, errFrom := strconv.Atoi(m[1])
		to, errTo := strconv.Atoi(m[2])
		if errFrom == nil && errTo == nil {
			most = max(most, min(to-from+1, maxPorts+1))
		}
	}
	return most
}

func (d *document) composeDuration(v any, way ...string) {
	text, ok := v.(string)
	if !ok || strings.Contains(text, "$") {
		return
	}
	if _, err := time.ParseDuration(text); err != nil {
		d.bad(d.place(way...), d.field(way), "%q is no duration of Compose: write a number and s, m or h, such as 1m30s", text)
	}
}

// leaves gives the errors that an error consists of. Of alternatives those count that came
// furthest.
func leaves(e *jsonschema.ValidationError) []*jsonschema.ValidationError {
	if len(e.Causes) == 0 {
		return []*jsonschema.ValidationError{e}
	}
	var all []*jsonschema.ValidationError
	switch e.ErrorKind.(type) {
	case *kind.OneOf, *kind.AnyOf:
	default:
		for _, c := range e.Causes {
			all = append(all, leaves(c)...)
		}
		return all
	}
	deepest := -1
	var wanted []string
	for _, c := range e.Causes {
		group := leaves(c)
		depth := 0
		for _, l := range group {
			depth = max(depth, specific(l))
		}
		if t, ok := group[0].ErrorKind.(*kind.Type); ok && len(group) == 1 && len(group[0].InstanceLocation) == len(e.InstanceLocation) {
			wanted = append(wanted, t.Want...)
		}
		if depth > deepest {
			deepest, all = depth, group
		}
	}
	if t, ok := all[0].ErrorKind.(*kind.Type); ok && deepest == len(e.InstanceLocation) {
		all[0].ErrorKind = &kind.Type{Got: t.Got, Want: wanted}
		return all[:1]
	}
	return all
}

// specific says how far a value came before it was refused.
func specific(e *jsonschema.ValidationError) int {
	n := len(e.InstanceLocation)
	switch e.ErrorKind.(type) {
	case *kind.Type:
		return n
	case *kind.AdditionalProperties:
		return n + 2
	}
	return n + 1
}

// violation notes an error of the schema.
func (d *document) violation(e *jsonschema.ValidationError) {
	way := e.InstanceLocation
	if d.full() {
		return
	}
	note := func(way []string, format string, args ...any) {
		d.bad(d.place(way...), d.field(way), format, args...)
	}
	switch k := e.ErrorKind.(type) {
	case *kind.Type:
		note(way, "has to be %s", oneOf(k.Want))
	case *kind.Enum:
		names := make([]string, len(k.Want))
		for i, w := range k.Want {
			names[i] = fmt.Sprint(w)
		}
		note(way, "has to be %s", strings.Join(names, " or "))
	case *kind.Required:
		for _, name := range k.Missing {
			note(append(slices.Clone(way), name), "is missing")
		}
	case *kind.AdditionalProperties:
		_, part, _ := strings.Cut(e.SchemaURL, "#")
		for _, name := range k.Properties[:min(len(k.Properties), maxNoted)] {
			d.unknown(append(slices.Clone(way), name), compiled().known[part])
		}
	case *kind.FalseSchema: // a key of a service; known ones come along when one of them is wrong
		if name := way[len(way)-1]; !strings.HasPrefix(name, "x-") && !slices.Contains(compiled().service, name) {
			d.unknown(way, compiled().service)
		}
	case *kind.UniqueItems:
		note(way, "has the same value twice, in [%d] and [%d]", k.Duplicates[0], k.Duplicates[1])
	case *kind.OneOf:
		note(way, "can be understood in more than one way")
	default:
		note(way, "%s", k.LocalizedString(message.NewPrinter(language.English)))
	}
}

func (d *document) unknown(way, names []string) {
	if len(way) == 2 && way[0] == "services" {
		if err := validService(way[1]); err != nil {
			d.bad(d.place(way...), d.field(way), "%v", err)
			return
		}
	}
	d.bad(d.place(way...), d.field(way), "%s", unknownKey(way[len(way)-1], names))
}

// oneOf names types for people.
func oneOf(types []string) string {
	var names []string
	for _, t := range types {
		switch t {
		case "object":
			t = "a mapping"
		case "array":
			t = "a list"
		case "string":
			t = "a text"
		case "boolean":
			t = "true or false"
		case "integer":
			t = "a whole number"
		case "null":
			continue // to leave it empty is never the answer
		default:
			t = "a " + t
		}
		if !slices.Contains(names, t) {
			names = append(names, t)
		}
	}
	return strings.Join(names, " or ")
}

// field writes a path as people read it: services.web.ports[0].
func (d *document) field(way []string) string {
	var b strings.Builder
	current := any(d.value)
	for _, part := range way {
		if items, ok := current.([]any); ok {
			fmt.Fprintf(&b, "[%s]", part)
			if i, err := strconv.Atoi(part); err == nil && i >= 0 && i < len(items) {
				current = items[i]
			}
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(part)
		current = mapping(current)[part]
	}
	return b.String()
}
