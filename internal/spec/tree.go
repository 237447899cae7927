package spec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"

	"github.com/dayfly-dev/dayfly"
)

// tree reads the files that a project file is made of. compose-go opens them by
// their paths, wherever these lead; so each is looked at here first.
type tree struct {
	root *os.Root
	docs []*document // the project file first
	seen map[visit]bool
}

// visit is a file as it was looked at: the folder that its paths start at, and its role,
// decide what it leads to.
type visit struct {
	name, base string
	as         role
}

// maxFiles is how many files a project can be made of.
const maxFiles = 100

// read reads a file of the tree; links that lead out of it are refused.
func read(root *os.Root, name string) ([]byte, error) {
	info, err := root.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no file")
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err == nil && len(data) > maxSize {
		err = errors.New("it " + tooLarge)
	}
	return data, err
}

func reason(err error) string {
	var p *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "it does not exist"
	case errors.As(err, &p):
		return p.Err.Error()
	}
	return err.Error()
}

// role is what a file is to its project.
type role int

const (
	main     role = iota // the project file, or the one that overrides it
	included             // by include
	extended             // by extends of a service
)

// add reads a file and those that it takes services from. base is the folder that its
// paths start at.
func (t *tree) add(name string, data []byte, base string, as role) error {
	d, err := parse(name, data)
	if err != nil {
		return err
	}
	t.docs = append(t.docs, d)
	type next struct {
		visit
		place []string
		field string
	}
	var more []next
	if as != extended { // compose-go does not look at the include of a file that is extended
		for i, item := range list(d.value["include"]) {
			place, field := []string{"include", fmt.Sprint(i)}, fmt.Sprintf("include[%d]", i)
			m, ok := item.(map[string]any)
			if !ok {
				m = map[string]any{"path": item}
			}
			if as == included && (m["project_directory"] != nil || m["env_file"] != nil) {
				d.bad(d.place(place...), field, "project_directory and env_file are possible in the project file only")
				continue
			}
			folder := ""
			if at, ok := m["project_directory"].(string); ok {
				folder = t.inside(d, at, base, append(place, "project_directory"), field+".project_directory")
			}
			for j, p := range list(m["path"]) {
				p, _ := p.(string)
				file := t.inside(d, p, base, place, field)
				if file == "" {
					continue
				}
				if j == 0 && folder == "" {
					folder = path.Dir(file)
				}
				more = append(more, next{visit{file, folder, included}, place, field})
			}
			// compose-go reads their variables too, though nothing is done with them.
			env := t.insideAll(d, m["env_file"], base, append(place, "env_file"), field+".env_file")
			if folder != "" {
				env = append(env, t.inside(d, ".env", folder, place, field))
			}
			for _, name := range env {
				if _, err := t.variables(name, nil); name != "" && err != nil && !errors.Is(err, fs.ErrNotExist) {
					d.bad(d.place(place...), field, "%q cannot be read: %s", name, reason(err))
				}
			}
		}
	}
	for _, kind := range []string{"services", "jobs"} {
		services := mapping(d.value[kind])
		for _, name := range slices.Sorted(maps.Keys(services)) {
			s, place, field := mapping(services[name]), []string{kind, name}, kind+"."+name
			if file, ok := mapping(s["extends"])["file"].(string); ok {
				place, field := append(place[:2:2], "extends", "file"), field+".extends.file"
				if file = t.inside(d, file, base, place, field); file != "" {
					more = append(more, next{visit{file, path.Dir(file), extended}, place, field})
				}
			}
			for _, key := range []string{"env_file", "label_file"} {
				t.insideAll(d, s[key], base, append(place[:2:2], key), field+"."+key)
			}
		}
	}
	for _, kind := range []string{"configs", "secrets"} {
		for name, c := range mapping(d.value[kind]) {
			if file, ok := mapping(c)["file"].(string); ok {
				t.inside(d, file, base, []string{kind, name, "file"}, kind+"."+name+".file")
			}
		}
	}
	for _, n := range more {
		if t.seen[n.visit] {
			continue
		}
		t.seen[n.visit] = true
		if len(t.seen) > maxFiles {
			d.bad(d.place(n.place...), n.field, "the project has more than %d files", maxFiles)
			break
		}
		data, err := read(t.root, n.name)
		if err != nil {
			d.bad(d.place(n.place...), n.field, "%q cannot be read: %s", n.name, reason(err))
			continue
		}
		if err := t.add(n.name, data, n.base, n.as); err != nil {
			var e *dayfly.Error
			if !errors.As(err, &e) {
				return err
			}
			d.list = append(d.list, e.Problems...)
		}
	}
	return nil
}

// problems gives what is wrong with all files.
func (t *tree) problems() problems {
	var all problems
	for _, d := range t.docs {
		all = append(all, d.list...)
	}
	return all
}

// inside gives the path of a file from the top of the tree, and "" with a problem noted for
// one that lies outside of it. One that does not exist is none of its business.
func (t *tree) inside(d *document, name, base string, place []string, field string) string {
	full := path.Join(base, name)
	switch {
	case name == "" || d.full():
		return ""
	case strings.Contains(name, "://") || strings.HasPrefix(name, "git@") || strings.HasPrefix(name, "oci:"):
		d.bad(d.place(place...), field, "%q is not in this repository", name)
		return ""
	case path.IsAbs(name) || strings.HasPrefix(name, "~") || full == ".." || strings.HasPrefix(full, "../"):
		d.bad(d.place(place...), field, "%q lies outside of the repository", name)
		return ""
	}
	if _, err := t.root.Stat(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.bad(d.place(place...), field, "%q cannot be read: %s", name, reason(err))
		return ""
	}
	return full
}

// insideAll gives the paths in a path, a mapping with a path, or a list of these.
func (t *tree) insideAll(d *document, v any, base string, place []string, field string) []string {
	var names []string
	for i, item := range list(v) {
		name, ok := item.(string)
		if !ok {
			name, _ = mapping(item)["path"].(string)
		}
		if strings.Contains(name, "$") {
			continue // read, and looked at, when its variables are known
		}
		place, field := place, field
		if _, many := v.([]any); many {
			place, field = append(place[:len(place):len(place)], fmt.Sprint(i)), fmt.Sprintf("%s[%d]", field, i)
		}
		names = append(names, t.inside(d, name, base, place, field))
	}
	return names
}

// variables reads a file of variables.
func (t *tree) variables(name string, lookup dotenv.LookupFn) (map[string]string, error) {
	data, err := read(t.root, name)
	if err != nil {
		return nil, err
	}
	vars := map[string]string{}
	return vars, parseVariables(envFile{name, "", string(data)}, vars, lookup)
}

// parseVariables adds the variables of a file to vars. What they can make of each other is
// bounded: each may be twice the one before.
func parseVariables(f envFile, vars map[string]string, lookup dotenv.LookupFn) error {
	if strings.Count(f.content, "$") > maxVariables {
		return fmt.Errorf("it uses more than %d variables", maxVariables)
	}
	room := maxSize
	err := dotenv.ParseWithFormat(strings.NewReader(f.content), f.name, vars, func(name string) (string, bool) {
		if lookup != nil {
			if v, ok := lookup(name); ok {
				return v, true
			}
		}
		if room -= len(vars[name]); room < 0 {
			return "", true
		}
		return "", false
	}, f.format)
	for _, v := range vars {
		room -= len(v)
	}
	if room < 0 && err == nil {
		return errors.New("its variables make it larger than 1 MiB")
	}
	if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "failed to read "+f.name+": "))
	}
	return nil
}

const (
	maxVariables = 1000 // of a file of variables can stand in others
	maxInText    = 100  // can stand in one text; nested ones cost their square
)

// find gives the place of a field in the file that knows most of it.
func (t *tree) find(path []string) (d *document, place []string, known int) {
	d = t.docs[0]
	for _, other := range t.docs {
		if _, n := at(other.root, path); n > known {
			d, known = other, n
		}
	}
	return d, path, known
}

// bad notes a problem with the value at a path of the merged files.
func (t *tree) bad(path []string, field, format string, args ...any) {
	d, path, _ := t.find(path)
	d.bad(d.place(path...), field, format, args...)
}

// mapping gives a mapping, empty where v is none.
func mapping(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// list gives a list, of one item where v is none.
func list(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{v}
}
