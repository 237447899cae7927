package spec

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/dayfly-dev/dayfly"
)

// maxSize is the largest file that is read, in bytes.
const maxSize = 1 << 20

// document is a YAML file with the places of everything in it.
type document struct {
	file string
	root *yaml.Node // a mapping; nil = empty
	list problems
}

// problems collects what is wrong with a file.
type problems []dayfly.Problem

func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	slices.SortStableFunc(p, func(a, b dayfly.Problem) int {
		if a.File != b.File {
			return strings.Compare(a.File, b.File)
		}
		return a.Line - b.Line
	})
	return dayfly.Invalid(p...)
}

// parse reads a YAML file whose top is a mapping.
func parse(file string, data []byte) (*document, error) {
	d := &document{file: file}
	fail := func(format string, args ...any) (*document, error) {
		return nil, dayfly.Invalid(dayfly.Problem{File: file, Message: fmt.Sprintf(format, args...)})
	}
	if len(data) > maxSize {
		return fail("is larger than 1 MiB")
	}
	var top yaml.Node
	if err := yaml.Unmarshal(data, &top); err != nil {
		line := 0
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		if _, scanErr := fmt.Sscanf(text, "line %d:", &line); scanErr == nil {
			_, text, _ = strings.Cut(text, ": ")
		}
		return nil, dayfly.Invalid(dayfly.Problem{File: file, Line: line, Message: "is no YAML: " + text})
	}
	if len(top.Content) == 0 {
		return d, nil
	}
	d.root = top.Content[0]
	if d.root.Kind != yaml.MappingNode {
		return fail("has to be a mapping of keys to values")
	}
	if n := size(d.root, 0, map[*yaml.Node]int{}); n > maxNodes {
		return fail("has more than %d values when its aliases are followed", maxNodes)
	}
	return d, nil
}

// maxNodes bounds what aliases can make of a small file.
const maxNodes = 200_000

// size counts the values of a node with its aliases followed.
func size(n *yaml.Node, depth int, known map[*yaml.Node]int) int {
	if depth > 200 {
		return maxNodes + 1
	}
	if n.Kind == yaml.AliasNode {
		if s, ok := known[n.Alias]; ok {
			return s
		}
		s := size(n.Alias, depth+1, known)
		known[n.Alias] = s
		return s
	}
	total := 1
	for _, c := range n.Content {
		if total += size(c, depth+1, known); total > maxNodes {
			break
		}
	}
	return total
}

// bad notes a problem with a node.
func (d *document) bad(n *yaml.Node, field, format string, args ...any) {
	p := dayfly.Problem{File: d.file, Field: field, Message: fmt.Sprintf(format, args...)}
	if n != nil {
		p.Line, p.Column = n.Line, n.Column
	}
	d.list = append(d.list, p)
}

// follow gives what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// pair is a key of a mapping with its value.
type pair struct{ key, value *yaml.Node }

// pairs gives the keys of a mapping, with those of "<<" behind its own.
func pairs(n *yaml.Node) []pair {
	n = follow(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	var own, merged []pair
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != "<<" {
			own = append(own, pair{n.Content[i], follow(n.Content[i+1])})
			continue
		}
		from := follow(n.Content[i+1])
		if from.Kind == yaml.SequenceNode {
			for _, m := range from.Content {
				merged = append(merged, pairs(m)...)
			}
			continue
		}
		merged = append(merged, pairs(from)...)
	}
	for _, m := range merged {
		if !slices.ContainsFunc(own, func(p pair) bool { return p.key.Value == m.key.Value }) {
			own = append(own, m)
		}
	}
	return own
}

// get gives the value of a key, nil where there is none.
func get(n *yaml.Node, key string) *yaml.Node {
	for _, p := range pairs(n) {
		if p.key.Value == key {
			return p.value
		}
	}
	return nil
}

// at gives the key's node at the deepest part of a path that there is, for the place
// of a problem.
func at(root *yaml.Node, path []string) *yaml.Node {
	place := root
	current := root
	for _, part := range path {
		found := false
		for _, p := range pairs(current) {
			if p.key.Value == part {
				place, current, found = p.key, p.value, true
				break
			}
		}
		if !found {
			break
		}
	}
	return place
}

// known refuses the keys of a mapping that are not in names.
func (d *document) known(n *yaml.Node, field string, names ...string) {
	seen := map[string]bool{}
	for _, p := range pairs(n) {
		k := p.key.Value
		if seen[k] {
			d.bad(p.key, join(field, k), "is there twice")
		}
		seen[k] = true
		if slices.Contains(names, k) {
			continue
		}
		hint := ""
		if near := nearest(k, names); near != "" {
			hint = fmt.Sprintf("; did you mean %s?", near)
		}
		d.bad(p.key, join(field, k), "is no known key%s", hint)
	}
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

// nearest gives the name that differs from s in at most two letters.
func nearest(s string, names []string) string {
	best, distance := "", 3
	for _, n := range names {
		if d := levenshtein(s, n); d < distance {
			best, distance = n, d
		}
	}
	return best
}

func levenshtein(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		previous := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := previous
			if a[i-1] != b[j-1] {
				cost = 1 + min(previous, row[j], row[j-1])
			}
			previous, row[j] = row[j], cost
		}
	}
	return row[len(b)]
}

// The readers of values note a problem and give the zero value where the node is of
// another kind.

func (d *document) text(n *yaml.Node, field string) string {
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.bad(n, field, "has to be a text")
		return ""
	}
	return n.Value
}

func (d *document) texts(n *yaml.Node, field string) []string {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		return []string{n.Value}
	}
	if n.Kind != yaml.SequenceNode {
		d.bad(n, field, "has to be a list of texts")
		return nil
	}
	var list []string
	for i, c := range n.Content {
		list = append(list, d.text(follow(c), fmt.Sprintf("%s[%d]", field, i)))
	}
	return list
}

func (d *document) boolean(n *yaml.Node, field string) bool {
	if n == nil {
		return false
	}
	var b bool
	if n.Decode(&b) != nil {
		d.bad(n, field, "has to be true or false")
	}
	return b
}

func (d *document) number(n *yaml.Node, field string, least int) int {
	if n == nil {
		return 0
	}
	var i int
	if n.Decode(&i) != nil || i < least {
		d.bad(n, field, "has to be a whole number of at least %d", least)
		return 0
	}
	return i
}

func (d *document) duration(n *yaml.Node, field string) dayfly.Duration {
	if n == nil {
		return 0
	}
	v, err := dayfly.ParseDuration(d.text(n, field))
	if err != nil {
		d.bad(n, field, "%v", err)
	}
	return v
}

// command reads a command: a text, split as a shell would, or a list of arguments.
func (d *document) command(n *yaml.Node, field string) dayfly.Command {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.SequenceNode {
		return d.texts(n, field)
	}
	c, err := SplitCommand(d.text(n, field))
	if err != nil {
		d.bad(n, field, "%v", err)
		return nil
	}
	if len(c) == 0 {
		d.bad(n, field, "is empty")
	}
	return c
}
