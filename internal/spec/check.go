package spec

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/dayfly-dev/dayfly"
)

// Check reads a project file, a Procfile or an environment file and gives everything that
// is wrong with it. What a project file refers to is read from its folder.
func Check(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return dayfly.Invalid(dayfly.Problem{File: file, Message: "cannot be read: " + reason(err)})
	}
	if len(data) > maxSize {
		return dayfly.Invalid(dayfly.Problem{File: file, Message: "is larger than 1 MiB"})
	}
	if isEnvironmentFile(file, data) {
		_, err := ParseEnvironmentFile(file, data)
		return err
	}
	_, err = LoadDir(filepath.Dir(file), Options{File: filepath.Base(file)})
	var e *dayfly.Error
	if errors.As(err, &e) { // as the user named it
		for i := range e.Problems {
			if e.Problems[i].File != "" {
				e.Problems[i].File = filepath.Join(filepath.Dir(file), e.Problems[i].File)
			}
		}
	}
	return err
}

// isEnvironmentFile tells the two kinds of YAML files apart: in an environment file services
// are a list, and a project file has neither project nor base.
func isEnvironmentFile(file string, data []byte) bool {
	if path.Base(filepath.ToSlash(file)) == "Procfile" {
		return false
	}
	d, err := parse(file, data)
	if err != nil || d.root == nil {
		return false
	}
	services := get(d.root, "services")
	if services != nil {
		return services.Kind == yaml.SequenceNode
	}
	for _, key := range []string{"project", "base", "keep", "branch", "prefix"} {
		if get(d.root, key) != nil {
			return true
		}
	}
	return false
}

// contained refuses what a Compose file takes from outside of the tree, and follows what
// it takes from inside.
func contained(root *os.Root, d *document, seen map[string]bool) error {
	seen[d.file] = true
	dir := path.Dir(d.file)
	var more []string
	inside := func(n *yaml.Node, field string, compose bool) {
		n = follow(n)
		if n == nil || n.Kind != yaml.ScalarNode || n.Value == "" {
			return
		}
		name := n.Value
		switch {
		case strings.Contains(name, "://") || strings.HasPrefix(name, "git@") || strings.HasPrefix(name, "oci:"):
			d.bad(n, field, "%q is not in this repository", name)
			return
		case path.IsAbs(name) || path.Join(dir, name) == ".." || strings.HasPrefix(path.Join(dir, name), "../"):
			d.bad(n, field, "%q lies outside of the repository", name)
			return
		}
		name = path.Join(dir, name)
		if _, err := root.Stat(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			d.bad(n, field, "%q cannot be read: %s", n.Value, reason(err))
			return
		}
		if compose {
			more = append(more, name)
		}
	}
	list := func(n *yaml.Node, field string, keys []string, compose bool) {
		n = follow(n)
		if n == nil {
			return
		}
		items := []*yaml.Node{n}
		if n.Kind == yaml.SequenceNode {
			items = n.Content
		}
		for _, item := range items {
			item = follow(item)
			inside(item, field, compose)
			for _, key := range keys {
				v := get(item, key)
				inside(v, field+"."+key, compose)
				if v != nil && v.Kind == yaml.SequenceNode {
					for _, c := range v.Content {
						inside(c, field+"."+key, compose)
					}
				}
			}
		}
	}
	list(get(d.root, "include"), "include", []string{"path"}, true)
	for _, i := range sequence(get(d.root, "include")) {
		list(get(i, "env_file"), "include.env_file", nil, false)
	}
	for _, kind := range []string{"configs", "secrets"} {
		for _, p := range pairs(get(d.root, kind)) {
			inside(get(p.value, "file"), kind+"."+p.key.Value+".file", false)
		}
	}
	for _, s := range pairs(get(d.root, "services")) {
		field := "services." + s.key.Value
		if e := get(s.value, "extends"); e != nil && e.Kind == yaml.MappingNode {
			inside(get(e, "file"), field+".extends.file", true)
		}
		list(get(s.value, "env_file"), field+".env_file", []string{"path"}, false)
		list(get(s.value, "label_file"), field+".label_file", nil, false)
	}
	if err := d.list.err(); err != nil {
		return err
	}
	for _, name := range more {
		if seen[name] {
			continue
		}
		data, err := read(root, name)
		if err != nil {
			return dayfly.Invalid(dayfly.Problem{File: d.file, Message: fmt.Sprintf("%s cannot be read: %s", name, reason(err))})
		}
		next, err := parse(name, data)
		if err != nil {
			return err
		}
		if err := contained(root, next, seen); err != nil {
			return err
		}
	}
	return nil
}

func sequence(n *yaml.Node) []*yaml.Node {
	n = follow(n)
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	return n.Content
}

// where finds the path of a field in a message of compose-go.
var where = regexp.MustCompile(`((?:services|networks|volumes|configs|secrets)(?:\.[A-Za-z0-9_-]+)+)`)

// quoted finds the name of a key or service in such a message.
var quoted = regexp.MustCompile(`['"]([A-Za-z0-9._-]+)['"]`)

// translate gives the places of what compose-go found.
func (d *document) translate(err error) []dayfly.Problem {
	var known *dayfly.Error
	if errors.As(err, &known) && len(known.Problems) > 0 {
		return known.Problems
	}
	var list []dayfly.Problem
	for text := range strings.SplitSeq(err.Error(), "\n") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		text = strings.TrimPrefix(text, "validating "+d.file+": ")
		if _, rest, ok := strings.Cut(text, d.file+": "); ok {
			text = rest
		}
		p := dayfly.Problem{File: d.file, Message: text}
		if m := where.FindString(text); m != "" {
			p.Field = m
			p.Message = strings.TrimSpace(strings.TrimPrefix(text, m))
			way := strings.Split(m, ".")
			for _, q := range quoted.FindAllStringSubmatch(p.Message, -1) {
				way = append(way, q[1])
			}
			if n := at(d.root, way); n != nil {
				p.Line, p.Column = n.Line, n.Column
			}
		}
		list = append(list, p)
	}
	return list
}
