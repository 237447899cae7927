// Package spec reads project files (Compose, Procfile) and environment files. Errors
// have file, line, column and field, and all of a file's come at once.
package spec

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"github.com/dayfly-dev/dayfly"
)

// Options say how a project is read.
type Options struct {
	// File is the project file relative to the folder; "" = the first of the usual names.
	File string
}

// Project is a project file that was read.
type Project struct {
	File      string
	Name      string
	extension extension
	order     []string

	fixtures map[string][]byte // by database

	definitions map[string]dayfly.Definition // of a Procfile

	// Of a Compose file: the model before interpolation, and what turns it into definitions.
	dir    string
	model  map[string]any
	tree   *tree
	extend map[string]extend
	dotenv map[string]string
	env    map[string][]envFile // what env_file names, weakest first
}

// envFile is a file of variables as it was read.
type envFile struct{ name, format, content string }

var composeFiles = []string{"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}

// LoadDir reads the project in a folder. One without a project file is
// dayfly.CodeNotFound.
func LoadDir(dir string, o Options) (*Project, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	names := append(slices.Clone(composeFiles), "Procfile")
	if o.File != "" {
		names = []string{o.File}
	}
	for _, name := range names {
		data, err := read(root, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, dayfly.Invalid(dayfly.Problem{File: name, Message: "cannot be read: " + reason(err)})
		case path.Base(name) == "Procfile":
			return procfile(name, data)
		}
		return compose(root, dir, name, data)
	}
	return nil, dayfly.Errorf(dayfly.CodeNotFound,
		"there is no project file: add a compose.yaml with x-dayfly, or a Procfile with a line such as web: ./server")
}

// maxServices is how many services a project can have.
const maxServices = 200

// compose reads a Compose file. What is wrong in one part does not keep the others from
// being looked at.
func compose(root *os.Root, dir, name string, data []byte) (*Project, error) {
	t := &tree{root: root, seen: map[visit]bool{}}
	p := &Project{File: name, dir: dir, tree: t, extend: map[string]extend{}, dotenv: map[string]string{}, env: map[string][]envFile{}}
	base := path.Dir(name)
	files := []types.ConfigFile{{Filename: path.Join(dir, name), Content: data}}
	if err := t.add(name, data, base, main); err != nil {
		return nil, err
	}
	override := strings.TrimSuffix(name, path.Ext(name)) + ".override" + path.Ext(name)
	switch more, err := read(root, override); {
	case err == nil:
		files = append(files, types.ConfigFile{Filename: path.Join(dir, override), Content: more})
		if err := t.add(override, more, base, main); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, dayfly.Invalid(dayfly.Problem{File: override, Message: "cannot be read: " + reason(err)})
	}
	doc := t.docs[0]
	p.variables(path.Join(base, ".env"))
	unsafe := len(t.problems()) > 0
	for _, d := range t.docs {
		d.validate()
		unsafe = unsafe || d.full() || d.manyPorts
		for _, s := range pairs(get(d.root, "services")) {
			field := "services." + s.key.Value + ".x-dayfly"
			x := d.service(get(s.value, "x-dayfly"), field)
			if len(t.docs) == 1 && get(s.value, "extends") == nil && x.process && !x.hasRun {
				d.noRun(s.key.Value, field)
			}
		}
	}
	p.extension = doc.top(get(doc.root, "x-dayfly"))
	p.Name, _ = doc.value["name"].(string)
	if doc.value["services"] == nil && doc.value["include"] == nil {
		if _, empty := doc.value["services"]; !empty { // the schema speaks of one that is
			doc.bad(doc.root, "services", "there are none")
		}
		unsafe = true
	}
	if unsafe {
		return nil, t.problems().err()
	}
	model, err := p.load(files)
	if err != nil {
		all := t.problems()
		if len(all) == 0 {
			all = p.translate(err)
		}
		return nil, all.err()
	}
	p.model = model
	if n := len(mapping(model["services"])); n > maxServices {
		doc.bad(doc.place("services"), "services", "are %d: a project can have %d", n, maxServices)
		return nil, t.problems().err()
	}
	for _, s := range slices.Sorted(maps.Keys(mapping(model["services"]))) {
		if p.extend[s], err = p.extendOf(s); err != nil {
			return nil, err
		}
		if p.isDatabase(s) {
			continue
		}
		// A service of a profile is one that people start by hand.
		if len(list(p.service(s)["profiles"])) == 0 || p.extend[s].test {
			p.order = append(p.order, s)
			p.readEnvFiles(s)
		}
	}
	p.readFixtures(root)
	p.check()
	if err := t.problems().err(); err != nil {
		return nil, err
	}
	// What is wrong whatever the variables are is wrong now.
	var all problems
	for _, s := range p.order {
		if _, err := p.Raw(s); err != nil {
			all = append(all, p.translate(err)...)
		}
	}
	if err := all.err(); err != nil {
		return nil, err
	}
	return p, nil
}

// variables reads .env.
func (p *Project) variables(name string) {
	d := p.tree.docs[0]
	vars, err := p.tree.variables(name, nil)
	switch {
	case err == nil:
		p.dotenv = vars
	case !errors.Is(err, fs.ErrNotExist):
		line, text := lineOf(reason(err))
		d.list = append(d.list, dayfly.Problem{File: name, Line: line, Message: "cannot be read: " + text})
	}
}

// service gives the model of a service.
func (p *Project) service(name string) map[string]any {
	return mapping(mapping(p.model["services"])[name])
}

// extendOf reads the x-dayfly of a service as it is after extends and include.
func (p *Project) extendOf(name string) (extend, error) {
	raw, ok := p.service(name)["x-dayfly"]
	if !ok {
		return extend{}, nil
	}
	var n yaml.Node
	if err := n.Encode(raw); err != nil {
		return extend{}, err
	}
	var merged document
	field := "services." + name + ".x-dayfly"
	x := merged.service(&n, field)
	if x.process && !x.hasRun {
		merged.noRun(name, field)
	}
	for _, m := range merged.list { // each file may be right, and the whole wrong
		_, key, _ := strings.Cut(m.Field, ".x-dayfly")
		if !slices.ContainsFunc(p.tree.problems(), func(o dayfly.Problem) bool {
			return strings.HasSuffix(o.Field, ".x-dayfly"+key) && o.Message == m.Message
		}) {
			p.tree.bad(strings.Split(m.Field, "."), m.Field, "%s", m.Message)
		}
	}
	return x, nil
}

// details is what compose-go is given: files, and no variable of the server.
func (p *Project) details(files []types.ConfigFile, env map[string]string) types.ConfigDetails {
	return types.ConfigDetails{WorkingDir: path.Join(p.dir, path.Dir(p.File)), ConfigFiles: files, Environment: env}
}

func options(o *loader.Options) {
	o.SkipInterpolation = true
	o.SkipValidation = true // done before, see composeSchema
	o.SkipConsistencyCheck = true
	o.SkipResolveEnvironment = true // opens files wherever they are
	o.SkipResolveLabels = true
	o.ResolvePaths = false
	o.Profiles = []string{"*"}
	o.SetProjectName("project", true)
}

// load merges the file with what it includes and extends, and interpolates nothing.
func (p *Project) load(files []types.ConfigFile) (model map[string]any, err error) {
	defer survive(&err)
	model, err = loader.LoadModelWithContext(context.Background(), p.details(files, map[string]string{}), options)
	delete(model, "version")
	return model, err
}

// survive makes an error of a panic: hostile files must not end the server.
func survive(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("the file cannot be understood: %v", r)
	}
}

// Services gives the names of the services in order.
func (p *Project) Services() []string { return p.order }

// Keep is the default life of the project's environments; 0 = none is given.
func (p *Project) Keep() dayfly.Duration { return p.extension.Keep }

// Baseline is the environment from which others borrow; "" = none.
func (p *Project) Baseline() string { return p.extension.Baseline }

// Branches are the patterns of branches that become environments by themselves.
func (p *Project) Branches() dayfly.BranchPatterns { return p.extension.Branches }

// Repo is the repository that a service lives in; "" = the project's own.
func (p *Project) Repo(service string) string { return p.extend[service].repo }

// IsTest says whether a service is a test, which never starts with an environment.
func (p *Project) IsTest(service string) bool { return p.extend[service].test }

// Hash identifies the definition of a service as it stands in the file, before
// interpolation: two that differ in nothing else have the same hash.
func (p *Project) Hash(service string) string {
	var of any = p.definitions[service]
	if p.model != nil {
		files := make([]string, 0, len(p.env[service]))
		for _, f := range p.env[service] {
			files = append(files, f.content)
		}
		of = []any{p.service(service), files}
	}
	b, err := json.Marshal(of)
	if err != nil {
		panic(err) // it came from YAML
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}
