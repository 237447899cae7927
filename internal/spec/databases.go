package spec

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/dayfly-dev/dayfly"
)

// databases reads the databases of a project.
func (d *document) databases(n *yaml.Node, f string) (all []dayfly.DatabaseDefinition) {
	if n != nil && n.Kind != yaml.MappingNode {
		d.bad(n, f, "has to be a mapping of names to their settings")
		return nil
	}
	for _, p := range pairs(n) {
		name, field := p.key.Value, f+"."+p.key.Value
		if dayfly.Slug(name) != name {
			d.bad(p.key, field, "the database %q cannot be part of a name: call it %q", name, dayfly.Slug(name))
		}
		def := dayfly.DatabaseDefinition{Name: name}
		if p.value.ShortTag() != "!!null" {
			d.known(p.value, field, "template", "fixtures", "renew", "migrate")
			def.Template = d.text(get(p.value, "template"), field+".template")
			def.Fixtures = d.text(get(p.value, "fixtures"), field+".fixtures")
			def.Renew = d.boolean(get(p.value, "renew"), field+".renew")
			if m := get(p.value, "migrate"); m != nil {
				if def.Migrate = d.command(m, field+".migrate"); len(def.Migrate) == 0 && len(d.list) == 0 {
					d.bad(m, field+".migrate", "has no command")
				}
			}
			if leadsOut(def.Fixtures) {
				d.bad(get(p.value, "fixtures"), field+".fixtures", "%q lies outside of the repository", def.Fixtures)
			}
		}
		all = append(all, def)
	}
	return all
}

// leadsOut says whether a path leads out of the folder that it is relative to.
func leadsOut(file string) bool {
	return path.IsAbs(file) || path.Clean(file) == ".." || strings.HasPrefix(path.Clean(file), "../")
}

// readFixtures reads the fixtures of all databases: they are wanted when the folder is there no more.
func (p *Project) readFixtures(root *os.Root) {
	p.fixtures = map[string][]byte{}
	for _, db := range p.extension.Databases {
		if db.Fixtures == "" || leadsOut(db.Fixtures) {
			continue
		}
		bad := func(format string, args ...any) {
			way := []string{"x-dayfly", "databases", db.Name, "fixtures"}
			p.tree.bad(way, strings.Join(way, "."), format, args...)
		}
		data, err := read(root, path.Join(path.Dir(p.File), db.Fixtures))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			bad("there is no file %s", db.Fixtures)
		case err != nil:
			bad("%s cannot be read: %s", db.Fixtures, reason(err))
		case len(data) > dayfly.MaxScript:
			bad("%s has %d bytes, and %d are allowed: make a template of it", db.Fixtures, len(data), dayfly.MaxScript)
		default:
			p.fixtures[db.Name] = data
		}
	}
}

// Databases gives the databases of the project's environments.
func (p *Project) Databases() []dayfly.DatabaseDefinition { return p.extension.Databases }

// Fixtures gives what is in the file with the fixtures of a database; nil = it has none.
func (p *Project) Fixtures(database string) []byte { return p.fixtures[database] }

// isDatabase says whether a name is that of a database, which stands for a service of that name.
func (p *Project) isDatabase(name string) bool {
	return slices.ContainsFunc(p.extension.Databases, func(db dayfly.DatabaseDefinition) bool { return db.Name == name })
}

// DatabasesOf gives the databases that a service uses, in the order of the file: those that it lists; else
// those that it depends on, or whose variable it mentions; and those of which no service says anything, which
// are for all that list none.
func (p *Project) DatabasesOf(service string) (names []string) {
	for _, db := range p.extension.Databases {
		switch {
		case p.extend[service].databases != nil:
			if slices.Contains(p.extend[service].databases, db.Name) {
				names = append(names, db.Name)
			}
		case p.says(service, db.Name), !slices.ContainsFunc(p.order, func(other string) bool { return p.says(other, db.Name) }):
			names = append(names, db.Name)
		}
	}
	return names
}

// GivenDatabases gives the databases whose addresses a service is told: all of them, unless it lists those that it uses.
func (p *Project) GivenDatabases(service string) (names []string) {
	for _, db := range p.extension.Databases {
		if listed := p.extend[service].databases; listed == nil || slices.Contains(listed, db.Name) {
			names = append(names, db.Name)
		}
	}
	return names
}

// says tells whether a service says that it uses a database.
func (p *Project) says(service, database string) bool {
	if listed := p.extend[service].databases; listed != nil {
		return slices.Contains(listed, database)
	}
	s := p.service(service)
	if mapping(s["depends_on"])[database] != nil {
		return true
	}
	text, err := json.Marshal(s)
	if err != nil {
		return false
	}
	mentions := func(name string) bool { return strings.Contains(string(text), name) }
	return mentions(dayfly.VariableOf(database)) || len(p.extension.Databases) == 1 && mentions("DATABASE_URL")
}
