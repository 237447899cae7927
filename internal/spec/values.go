package spec

import (
	"fmt"

	"go.yaml.in/yaml/v4"

	"github.com/dayfly-dev/dayfly"
)

// The readers of values note a problem and give the zero value where the node is of
// another kind.

func (d *document) text(n *yaml.Node, field string) string {
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		d.bad(n, field, "has to be a text")
		return ""
	}
	return n.Value
}

func (d *document) texts(n *yaml.Node, field string) []string {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
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
	known := len(d.list)
	v, err := dayfly.ParseDuration(d.text(n, field))
	if err != nil && len(d.list) == known {
		d.bad(n, field, "%v", err)
	}
	return v
}

// life reads a duration that is more than nothing.
func (d *document) life(n *yaml.Node, field string) dayfly.Duration {
	known := len(d.list)
	v := d.duration(n, field)
	if n != nil && v == 0 && len(d.list) == known {
		d.bad(n, field, "has to be more than 0")
	}
	return v
}

// command reads a command: a text, split as a shell would, or a list of arguments.
func (d *document) command(n *yaml.Node, field string) dayfly.Command {
	if n == nil {
		return nil
	}
	known := len(d.list)
	var c dayfly.Command
	var err error
	if n.Kind == yaml.SequenceNode {
		c = d.texts(n, field)
	} else if c, err = SplitCommand(d.text(n, field)); err != nil {
		d.bad(n, field, "%v", err)
	}
	if len(d.list) == known && (len(c) == 0 || c[0] == "") {
		d.bad(n, field, "is empty")
	}
	return c
}
