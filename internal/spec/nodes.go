package spec

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/dayfly-dev/dayfly"
)

// maxSize is the largest file that is read, in bytes.
const maxSize = 1 << 20

const tooLarge = "is larger than 1 MiB"

// document is a YAML file with the places of everything in it.
type document struct {
	file  string
	root  *yaml.Node     // a mapping, or anything where parseAny was used; nil = empty
	value map[string]any // the same as plain values, without places
	list  problems

	manyPorts bool // too many to go on
}

const (
	maxProblems = 100  // are shown
	maxNoted    = 1000 // of one file are looked for
)

// problems collects what is wrong with a file.
type problems []dayfly.Problem

func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	slices.SortStableFunc(p, func(a, b dayfly.Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), a.Line-b.Line, a.Column-b.Column,
			cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	list := slices.Compact(p)
	if len(list) > maxProblems {
		list = append(list[:maxProblems:maxProblems], dayfly.Problem{File: list[0].File, Message: "there are more problems, which are not shown"})
	}
	return dayfly.Invalid(list...)
}

// parse reads a YAML file whose top is a mapping.
func parse(file string, data []byte) (*document, error) {
	d, err := parseAny(file, data)
	if err == nil && d.root != nil && d.root.Kind != yaml.MappingNode {
		return nil, dayfly.Invalid(dayfly.Problem{File: file, Line: d.root.Line, Message: "has to be a mapping of keys to values"})
	}
	return d, err
}

// parseAny reads a YAML file; the keys of its mappings are good.
func parseAny(file string, data []byte) (*document, error) {
	d := &document{file: file, value: map[string]any{}}
	fail := func(line int, format string, args ...any) (*document, error) {
		return nil, dayfly.Invalid(dayfly.Problem{File: file, Line: line, Message: fmt.Sprintf(format, args...)})
	}
	if len(data) > maxSize {
		return fail(0, tooLarge)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var top, next yaml.Node
	err := decoder.Decode(&top)
	if err == nil {
		if err = decoder.Decode(&next); err == nil {
			return fail(next.Line, "begins a second document: a file can have one only")
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		line, text := lineOf(strings.TrimPrefix(err.Error(), "yaml: "))
		return fail(line, "is no YAML: %s", text)
	}
	if len(top.Content) == 0 || top.Content[0].ShortTag() == "!!null" {
		return d, nil
	}
	d.root = top.Content[0]
	if size(d.root, 0, map[*yaml.Node]int{}) > maxWeight {
		return fail(0, "is too large or too deep when its aliases are followed")
	}
	d.value, _ = d.plain(d.root, "").(map[string]any)
	if err := d.list.err(); err != nil {
		return nil, err
	}
	return d, nil
}

// lineOf splits the line off a message of the YAML library, 0 where there is none.
func lineOf(text string) (line int, rest string) {
	if after, ok := strings.CutPrefix(text, "line "); ok {
		number, rest, _ := strings.Cut(after, ": ")
		if line, err := strconv.Atoi(number); err == nil {
			return line, rest
		}
	}
	return 0, text
}

const (
	// maxWeight bounds what aliases can make of a small file: bytes of all values, and
	// valueWeight for each.
	maxWeight   = 4 << 20
	valueWeight = 16
	maxDepth    = 200
)

// size is the weight of a node with its aliases followed.
func size(n *yaml.Node, depth int, known map[*yaml.Node]int) int {
	if depth > maxDepth {
		return maxWeight + 1
	}
	if n.Kind == yaml.AliasNode {
		if s, ok := known[n.Alias]; ok {
			return s
		}
		s := size(n.Alias, depth+1, known)
		known[n.Alias] = s
		return s
	}
	total := valueWeight + len(n.Value)
	for _, c := range n.Content {
		if total += size(c, depth+1, known); total > maxWeight {
			break
		}
	}
	return total
}

// plain gives the values of a node without their places, as Compose understands them:
// what is tagged !reset is not there. Keys that are no texts, or are there twice, are noted.
func (d *document) plain(n *yaml.Node, field string) any {
	n = follow(n)
	switch n.Kind {
	case yaml.MappingNode:
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			switch {
			case k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" && k.ShortTag() != "!!merge":
				d.bad(k, field, "%s is no text and cannot be a key: put it into quotes", cmp.Or(k.Value, "this"))
			case seen[k.Value]:
				d.bad(k, join(field, k.Value), "is there twice")
			}
			seen[k.Value] = true
			if k.ShortTag() == "!!merge" && !merges(n.Content[i+1]) {
				d.bad(n.Content[i+1], join(field, k.Value), "has to be a mapping or a list of mappings")
			}
		}
		m := map[string]any{}
		for _, p := range pairs(n) {
			if p.value.Tag != "!reset" {
				m[p.key.Value] = d.plain(p.value, join(field, p.key.Value))
			}
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, c := range n.Content {
			list[i] = d.plain(c, fmt.Sprintf("%s[%d]", field, i))
		}
		return list
	}
	var v any
	switch n.ShortTag() {
	case "!!bool", "!!int", "!!null":
		if n.Decode(&v) == nil {
			return v
		}
	case "!!float":
		var f float64
		if n.Decode(&f) == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f
		}
	}
	return n.Value
}

// bad notes a problem with a node.
func (d *document) bad(n *yaml.Node, field, format string, args ...any) {
	if d.full() {
		return
	}
	p := dayfly.Problem{File: d.file, Field: field, Message: fmt.Sprintf(format, args...)}
	if n != nil {
		p.Line, p.Column = n.Line, n.Column
	}
	d.list = append(d.list, p)
}

// full says whether so much is wrong that nobody wants to know more.
func (d *document) full() bool { return len(d.list) >= maxNoted }

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
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], follow(n.Content[i+1])
		switch {
		case key.ShortTag() != "!!merge":
			own = append(own, pair{key, value})
			seen[key.Value] = true
		case value.Kind == yaml.SequenceNode:
			for _, m := range value.Content {
				merged = append(merged, pairs(m)...)
			}
		default:
			merged = append(merged, pairs(value)...)
		}
	}
	for _, m := range merged {
		if !seen[m.key.Value] {
			seen[m.key.Value] = true
			own = append(own, m)
		}
	}
	return own
}

// merges says whether a value can stand behind "<<".
func merges(n *yaml.Node) bool {
	n = follow(n)
	if n.Kind == yaml.SequenceNode {
		return !slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return follow(c).Kind != yaml.MappingNode })
	}
	return n.Kind == yaml.MappingNode
}

// lookup finds a key of a mapping.
func lookup(n *yaml.Node, key string) (pair, bool) {
	n = follow(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return pair{}, false
	}
	merges := false
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := n.Content[i]; k.ShortTag() == "!!merge" {
			merges = true
		} else if k.Value == key {
			return pair{k, follow(n.Content[i+1])}, true
		}
	}
	if merges {
		for _, p := range pairs(n) {
			if p.key.Value == key {
				return p, true
			}
		}
	}
	return pair{}, false
}

// get gives the value of a key, nil where there is none.
func get(n *yaml.Node, key string) *yaml.Node {
	p, _ := lookup(n, key)
	return p.value
}

// at gives the place of the deepest part of a path that there is: the node of a key, or of
// an item of a list. known says how many parts there are.
func at(root *yaml.Node, path []string) (place *yaml.Node, known int) {
	place = root
	current := follow(root)
	for _, part := range path {
		if current != nil && current.Kind == yaml.SequenceNode {
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(current.Content) {
				return place, known
			}
			place, current = current.Content[i], follow(current.Content[i])
			known++
			continue
		}
		p, ok := lookup(current, part)
		if !ok {
			return place, known
		}
		place, current = p.key, p.value
		known++
	}
	return place, known
}

// place is at without the number.
func (d *document) place(path ...string) *yaml.Node {
	n, _ := at(d.root, path)
	return n
}

// known refuses what is no mapping, and the keys of one that are not in names.
func (d *document) known(n *yaml.Node, field string, names ...string) {
	if n != nil && n.Kind != yaml.MappingNode {
		d.bad(n, field, "has to be a mapping")
	}
	for _, p := range pairs(n) {
		if k := p.key.Value; !slices.Contains(names, k) {
			d.bad(p.key, join(field, k), "%s", unknownKey(k, names))
		}
	}
}

func unknownKey(key string, names []string) string {
	if near := nearest(key, names); near != "" {
		return "is no known key; did you mean " + near + "?"
	}
	return "is no known key"
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

// nearest gives the name that differs from s in at most two letters, and in less than half.
func nearest(s string, names []string) string {
	best, distance := "", min(3, (len(s)+1)/2)
	for _, n := range names {
		if max(len(s)-len(n), len(n)-len(s)) >= distance {
			continue
		}
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
