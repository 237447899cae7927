// Package spec reads project files (Compose, Procfile) and environment files. Errors
// have file, line, column and field, and all of a file's come at once.
package spec

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/interpolation"
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

	definitions map[string]dayfly.Definition // of a Procfile

	// Of a Compose file: the model before interpolation, and what turns it into definitions.
	dir    string
	model  map[string]any
	doc    *document
	extend map[string]extend
	dotenv map[string]string
}

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

func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// read reads a file of the tree; links that lead out of it are refused.
func read(root *os.Root, name string) ([]byte, error) {
	info, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSize {
		return nil, errors.New("it is larger than 1 MiB")
	}
	return root.ReadFile(name)
}

// compose reads a Compose file.
func compose(root *os.Root, dir, name string, data []byte) (*Project, error) {
	doc, err := parse(name, data)
	if err != nil {
		return nil, err
	}
	p := &Project{File: name, dir: dir, doc: doc, extend: map[string]extend{}, dotenv: map[string]string{}}
	if err := contained(root, doc, map[string]bool{}); err != nil {
		return nil, err
	}
	p.extension = doc.top(get(doc.root, "x-dayfly"))
	for _, s := range pairs(get(doc.root, "services")) {
		doc.service(get(s.value, "x-dayfly"), "services."+s.key.Value+".x-dayfly") // for the places of its problems
	}
	// What is wrong with x-dayfly does not keep the rest from being looked at.
	model, err := p.load(name, data)
	if err != nil {
		doc.list = append(doc.list, doc.translate(err)...)
		return nil, doc.list.err()
	}
	p.model = model
	p.Name = doc.text(get(doc.root, "name"), "name")
	if env, err := read(root, path.Join(path.Dir(name), ".env")); err == nil {
		if p.dotenv, err = dotenv.UnmarshalBytesWithLookup(env, nil); err != nil {
			doc.list = append(doc.list, dayfly.Problem{File: ".env", Message: err.Error()})
		}
	}
	services, _ := model["services"].(map[string]any)
	for s := range services {
		p.order = append(p.order, s)
	}
	slices.Sort(p.order)
	if len(p.order) == 0 {
		doc.bad(doc.root, "services", "there are none")
	}
	for _, s := range p.order {
		if p.extend[s], err = p.extendOf(s); err != nil {
			return nil, err
		}
	}
	p.check()
	if err := doc.list.err(); err != nil {
		return nil, err
	}
	return p, nil
}

// extendOf reads the x-dayfly of a service as it is after extends and include.
func (p *Project) extendOf(name string) (extend, error) {
	services, _ := p.model["services"].(map[string]any)
	service, _ := services[name].(map[string]any)
	raw, ok := service["x-dayfly"]
	if !ok {
		return extend{}, nil
	}
	var n yaml.Node
	if err := n.Encode(raw); err != nil {
		return extend{}, err
	}
	own := &document{file: p.File}
	x := own.service(&n, "services."+name+".x-dayfly")
	if get(get(get(p.doc.root, "services"), name), "x-dayfly") == nil {
		p.doc.list = append(p.doc.list, own.list...) // it came from another file, whose places are lost
	}
	return x, nil
}

// details is what compose-go is given: the file's content, and no variable of the server.
func (p *Project) details(name string, data []byte, env map[string]string) types.ConfigDetails {
	return types.ConfigDetails{
		WorkingDir:  path.Join(p.dir, path.Dir(name)),
		ConfigFiles: []types.ConfigFile{{Filename: path.Join(p.dir, name), Content: data}},
		Environment: env,
	}
}

func options(o *loader.Options) {
	o.SkipInterpolation = true
	o.SkipConsistencyCheck = true
	o.SkipResolveEnvironment = true
	o.ResolvePaths = false
	o.SetProjectName("project", true)
}

// load merges the file with what it includes and extends, and interpolates nothing.
func (p *Project) load(name string, data []byte) (model map[string]any, err error) {
	defer func() {
		if r := recover(); r != nil { // hostile files must not end the server
			err = dayfly.Errorf(dayfly.CodeInvalid, "the file cannot be read: %v", r)
		}
	}()
	override := strings.TrimSuffix(name, path.Ext(name)) + ".override" + path.Ext(name)
	details := p.details(name, data, map[string]string{})
	if more, err := os.ReadFile(path.Join(p.dir, override)); err == nil {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: path.Join(p.dir, override), Content: more})
	}
	return loader.LoadModelWithContext(context.Background(), details, options)
}

// Services gives the names of the services in order.
func (p *Project) Services() []string { return p.order }

// Databases gives the names of the databases on demand.
func (p *Project) Databases() []string { return p.extension.Databases }

// Keep is the default life of the project's environments; 0 = none is given.
func (p *Project) Keep() dayfly.Duration { return p.extension.Keep }

// Baseline is the environment from which others borrow; "" = none.
func (p *Project) Baseline() string { return p.extension.Baseline }

// Branches are the patterns of branches that become environments by themselves.
func (p *Project) Branches() []string { return p.extension.Branches }

// Repo is the repository that a service lives in; "" = the project's own.
func (p *Project) Repo(service string) string { return p.extend[service].repo }

// IsTest says whether a service is a test, which never starts with an environment.
func (p *Project) IsTest(service string) bool { return p.extend[service].test }

// Hash identifies the definition of a service as it stands in the file, before
// interpolation: two that differ in nothing else have the same hash.
func (p *Project) Hash(service string) string {
	var of any = p.definitions[service]
	if p.model != nil {
		services, _ := p.model["services"].(map[string]any)
		of = services[service]
	}
	b, err := json.Marshal(of)
	if err != nil {
		panic(err) // it came from YAML
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}

// Raw gives the definition of a service with all variables empty: its ports, routes
// and commands, but not its final variables.
func (p *Project) Raw(service string) (dayfly.Definition, error) {
	return p.Definition(service, nil)
}

// Definition gives the definition of a service, interpolated with vars over .env, and with
// nothing of the server's environment. x-dayfly is left as it is written.
func (p *Project) Definition(service string, vars map[string]string) (dayfly.Definition, error) {
	if p.definitions != nil {
		return p.definitions[service], nil
	}
	env := map[string]string{}
	for k, v := range p.dotenv {
		env[k] = v
	}
	for k, v := range vars {
		env[k] = v
	}
	compose, err := p.interpolate(env)
	if err != nil {
		return dayfly.Definition{}, problems(p.doc.translate(err)).err()
	}
	s, ok := compose.Services[service]
	if !ok {
		return dayfly.Definition{}, dayfly.Errorf(dayfly.CodeNotFound, "%s has no service %q", p.File, service)
	}
	return p.define(s), nil
}

func (p *Project) interpolate(env map[string]string) (*types.Project, error) {
	model := clone(p.model).(map[string]any)
	services, _ := model["services"].(map[string]any)
	for _, s := range services {
		if s, ok := s.(map[string]any); ok {
			delete(s, "x-dayfly")
		}
	}
	details := p.details(p.File, nil, env)
	o := loader.ToOptions(&details, []func(*loader.Options){options})
	o.SkipResolveEnvironment = false // env_file
	for section, v := range model {
		m, ok := v.(map[string]any)
		if !ok || strings.HasPrefix(section, "x-") {
			continue
		}
		interpolated, err := interpolation.Interpolate(map[string]any{section: m}, *o.Interpolate)
		if err != nil {
			return nil, err
		}
		model[section] = interpolated[section]
	}
	return loader.ModelToProject(model, o, details)
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
