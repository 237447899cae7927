// Package resolve turns what a user asked for into commits, definitions,
// addresses and variables: EnvironmentSpec -> Resolution.
package resolve

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/spec"
)

// RefKind says how a Ref is to be read.
type RefKind int

// The kinds of refs.
const (
	DefaultBranch RefKind = iota
	Branch
	AnyRef // branch, tag or commit
)

// Ref names a commit.
type Ref struct {
	Kind RefKind
	Name string
}

// Sources is where commits and their trees come from.
type Sources interface {
	// Resolve gives the commit that ref names, and the name of the branch when ref is
	// the default one. A ref that does not exist is dayfly.CodeNotFound.
	Resolve(ctx context.Context, repo string, token dayfly.Secret, ref Ref) (commit, name string, err error)
	// Heads gives the branches of a repository.
	Heads(ctx context.Context, repo string, token dayfly.Secret) (dayfly.Heads, error)
	// Objects gives what identifies the content of paths at a commit; those that are not there are left out.
	Objects(ctx context.Context, repo string, token dayfly.Secret, commit string, paths []string) (map[string]string, error)
	// Tree gives a folder with the files of a commit; release lets go of it.
	Tree(ctx context.Context, repo string, token dayfly.Secret, commit string) (dir string, release func(), err error)
	// SameHost says whether a token for repository a may be shown to b.
	SameHost(a, b string) bool
	// Clean checks the URL of a repository and splits credentials off it.
	Clean(repo string) (clean string, token dayfly.Secret, err error)
	// Base is the last part of a repository's URL, as a name for people.
	Base(repo string) string
}

// Config is what the server's flags say about names and addresses.
type Config struct {
	Domain       string
	HostPattern  string                   // --hosts
	PublicURL    func(host string) string // with scheme and port
	InternalPort func() int
}

// Resolver resolves environments. It keeps nothing.
type Resolver struct {
	Config  Config
	Sources Sources
	Now     func() time.Time
}

// Input is an environment that is to be resolved.
type Input struct {
	Project    dayfly.Project
	Record     dayfly.EnvironmentRecord
	Token      dayfly.Secret
	Credential string // id under which Token is stored
	// Repo is where the project's own commit comes from; "" = the project's home.
	Repo string
	// Heads are branches, by repository, that need not be asked for.
	Heads    map[string]dayfly.Heads
	Previous *dayfly.Resolution
	// Environment gives another environment by its name; res is nil while it is not resolved.
	Environment func(name string) (rec dayfly.EnvironmentRecord, res *dayfly.Resolution, ok bool)
	// Registered says whether instances of a version have registered themselves.
	Registered func(service, version string) bool
	// Address gives a free loopback address for SERVICE_URL.
	Address func() (string, error)
	// Database gives the environment's databases; nil = there are none.
	Database Databases
}

// Resolve looks up the commits of every service, reads their definitions there
// and gives them names, addresses and variables. All that is wrong with the files
// comes at once, as dayfly.CodeInvalid.
func (r *Resolver) Resolve(ctx context.Context, in Input) (*dayfly.Resolution, error) {
	s := &session{Resolver: r, memory: memoryOf(ctx), in: in, spec: in.Record.Spec, files: map[string]*spec.Project{}, known: map[string]map[string]string{}, databases: map[string]string{}}
	from, err := s.findBase()
	if err != nil {
		return nil, err
	}
	chosen, err := s.choose(ctx, from)
	if err != nil {
		return nil, err
	}
	res := &dayfly.Resolution{Format: dayfly.Format, Environment: in.Record.ID, ResolvedAt: r.Now(), Missing: s.missing, Databases: s.resolved}
	if from != nil {
		res.Base = from.name
	}
	if err := s.assignAddresses(chosen); err != nil {
		return nil, err
	}
	if in.Previous != nil {
		res.Address = in.Previous.Address
	}
	if res.Address == "" {
		if res.Address, err = in.Address(); err != nil {
			return nil, err
		}
	}
	if err := checkRoutes(chosen); err != nil {
		return nil, err
	}
	s.assignHosts(chosen)
	if own := s.label() + "." + r.Config.Domain; len(s.missing) > 0 && !slices.ContainsFunc(chosen, func(c *choice) bool { return slices.Contains(c.hosts, own) }) {
		res.Hosts = []string{own}
	}
	for _, c := range chosen {
		switch c.from {
		case dayfly.FromBorrowed:
			res.Services = append(res.Services, borrowed(c))
			continue
		case dayfly.FromExternal:
			rs := borrowed(c)
			rs.From, rs.URL, rs.Version = c.from, c.ask.URL, c.ask.URL
			res.Services = append(res.Services, rs)
			continue
		case dayfly.FromRegistered:
			rs := borrowed(c)
			rs.From, rs.Version = c.from, c.ask.Version
			res.Services = append(res.Services, rs)
			continue
		}
		var def dayfly.Definition
		var vars map[string]string
		if c.from == dayfly.FromShared && s.spec.Name != s.in.Project.Baseline {
			def, vars, err = s.defineShared(c)
		} else if def, err = s.define(c, chosen); err == nil {
			vars = s.variables(c, def, chosen)
		}
		if err != nil {
			return nil, err
		}
		res.Services = append(res.Services, dayfly.ResolvedService{
			Name: c.name, From: c.from, Reason: c.reason, Replaces: s.replaces(c), Version: c.version, Repo: c.repo, Commit: c.commit,
			Credential: s.credentialFor(c.repo), Definition: &def, Variables: vars, Hash: hash(def, vars), Address: c.address, Hosts: c.hosts, Databases: s.startsAfter(c),
		})
	}
	if err := s.migrations(res, chosen); err != nil {
		return nil, err
	}
	if err := runnable(res); err != nil {
		return nil, err
	}
	return res, nil
}

// choice is one service of the environment on its way to a ResolvedService.
type choice struct {
	name, repo, commit, version string
	file                        *spec.Project // that defines it
	raw                         dayfly.Definition
	ask                         dayfly.ServiceSpec
	address                     string
	hosts                       []string

	from   dayfly.From
	reason string
	lender string                  // of a borrowed one
	theirs *dayfly.ResolvedService // what the lender has

	databases []string // whose addresses it is told; nil = as the project file says
}

type session struct {
	*Resolver
	memory *memory // of many that are resolved one after the other; nil = there is none
	in     Input
	spec   dayfly.EnvironmentSpec
	files  map[string]*spec.Project // by repository and commit

	known   map[string]map[string]string // objects by path, by repository and commit
	missing []dayfly.Need

	project   *spec.Project     // of the environment's own commit
	home      choice            // that commit
	databases map[string]string // addresses by name
	resolved  []dayfly.ResolvedDatabase
}

// choose decides which services the environment has and at which commits.
func (s *session) choose(ctx context.Context, from *base) ([]*choice, error) {
	repo := cmp.Or(s.in.Repo, s.in.Project.Home())
	commit, branch, branchMissing, err := s.projectCommit(ctx, repo)
	if err != nil {
		return nil, err
	}
	file, err := s.file(ctx, repo, commit)
	if err != nil {
		return nil, err
	}
	s.project, s.home = file, choice{repo: repo, commit: commit, version: branch}
	asks := map[string]dayfly.ServiceSpec{}
	var problems []dayfly.Problem
	var chosen []*choice
	elsewhere := map[string]bool{} // services that need no definition
	for _, a := range s.spec.Services {
		switch registered := a.Version != "" && s.in.Registered != nil && s.in.Registered(a.Name, a.Version); {
		case a.URL != "":
			if err := validURL(a.URL); err != nil {
				problems = append(problems, dayfly.Problem{Field: "services." + a.Name + ".url", Message: err.Error()})
			}
			c := external(a)
			if slices.Contains(file.Services(), a.Name) {
				if def, err := s.raw(file, a.Name); err == nil && a.Route == "" {
					c.theirs.Definition.Routes = def.Routes
				}
			}
			chosen, elsewhere[a.Name] = append(chosen, c), true
		case registered:
			c := external(a)
			c.from, c.reason, c.version = dayfly.FromRegistered, "instances of this version have registered themselves", a.Version
			if slices.Contains(file.Services(), a.Name) {
				if def, err := s.raw(file, a.Name); err == nil {
					c.theirs.Definition.Protocol = def.Protocol
					if a.Route == "" {
						c.theirs.Definition.Routes = def.Routes
					}
				}
			}
			chosen, elsewhere[a.Name] = append(chosen, c), true
		case !slices.Contains(file.Services(), a.Name) && a.Version != "":
			s.miss(from, a, nil, "no project file defines it: register instances of it (dayfly register), or add it to the project file")
			elsewhere[a.Name] = true
		case !slices.Contains(file.Services(), a.Name):
			problems = append(problems, unknownService("services", a.Name, file))
		}
		asks[a.Name] = a
	}
	for _, name := range s.spec.Only {
		if slices.ContainsFunc(file.Databases(), func(d dayfly.DatabaseDefinition) bool { return d.Name == name }) {
			continue // it comes with whoever uses it
		}
		if !slices.Contains(file.Services(), name) && !elsewhere[name] {
			problems = append(problems, unknownService("only", name, file))
		}
	}
	if len(problems) > 0 {
		return nil, dayfly.Invalid(problems...)
	}
	branchFound := branchMissing == nil
	for _, name := range file.Services() {
		if elsewhere[name] {
			continue
		}
		if s.spec.Only != nil && !slices.Contains(s.spec.Only, name) && !file.IsTest(name) {
			continue
		}
		c := &choice{name: name, repo: repo, commit: commit, version: branch, file: file, ask: asks[name]}
		if c.repo, err = s.repoOf(c, file); err != nil {
			return nil, err
		}
		found, err := s.commitOf(ctx, c, repo)
		if c.ask.Version != "" && dayfly.ErrorCode(err) == dayfly.CodeNotFound {
			raw, rawErr := s.raw(c.file, name)
			if rawErr != nil {
				return nil, rawErr
			}
			s.miss(from, c.ask, raw.Routes, err.Error()+", and no instances of it have registered themselves")
			continue
		}
		if err != nil {
			return nil, err
		}
		branchFound = branchFound || found
		if c.repo != repo || c.commit != commit {
			own, err := s.fileOf(ctx, c)
			if err != nil {
				return nil, err
			}
			if own != nil {
				c.file = own
			}
		}
		chosen = append(chosen, c)
	}
	if !branchFound {
		return nil, branchMissing
	}
	if err := s.share(ctx, chosen, from); err != nil {
		return nil, err
	}
	// What would be compared with a base that is not there yet waits for it.
	chosen = slices.DeleteFunc(chosen, func(c *choice) bool { return c.from == waits })
	for _, c := range chosen {
		if c.from == "" {
			c.from = dayfly.FromOwn // a test
		}
	}
	if err := s.resolveDatabases(ctx, file, chosen); err != nil {
		return nil, err
	}
	if from != nil && from.res == nil {
		s.miss(from, dayfly.ServiceSpec{}, nil, "there is no environment "+from.name+" yet, from which the others would be borrowed: create it")
	}
	return append(chosen, s.lent(from, chosen)...), nil
}

// miss notes a need that nobody can meet yet. It goes on from when it was noticed first.
func (s *session) miss(from *base, ask dayfly.ServiceSpec, routes []dayfly.PathRoute, doing string) {
	m := dayfly.Need{Missing: dayfly.Missing{Service: ask.Name, Version: ask.Version, Doing: doing, Since: s.Now()}, Routes: routes}
	if ask.Route != "" {
		m.Routes = []dayfly.PathRoute{{Path: ask.Route}}
	}
	if from != nil && ask.Name != "" {
		if lender, theirs := s.provider(from, ask.Name); theirs != nil {
			m.Have = lender + " has " + theirs.Version
		}
	}
	if s.in.Previous != nil {
		for _, before := range s.in.Previous.Missing {
			if before.Service == m.Service && before.Version == m.Version {
				m.Since = before.Since
			}
		}
	}
	s.missing = append(s.missing, m)
}

// replaces says what provided a service before and goes on until the new one is ready.
func (s *session) replaces(c *choice) dayfly.From {
	if s.in.Previous == nil {
		return ""
	}
	for _, rs := range s.in.Previous.Services {
		if rs.Name == c.name && (rs.From == dayfly.FromBorrowed || rs.Replaces == dayfly.FromBorrowed) {
			return dayfly.FromBorrowed
		}
	}
	return ""
}

// validURL says what is wrong with the address of something that is no service of ours.
func validURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return fmt.Errorf("%q is no address: write it as https://host/path, without a login", address)
	}
	return nil
}

// define interpolates the definition of a service.
func (s *session) define(c *choice, chosen []*choice) (dayfly.Definition, error) {
	vars := s.address(c, chosen)
	def, err := s.definition(c.file, c.name, vars)
	if err != nil {
		return dayfly.Definition{}, err
	}
	def.Routes, def.Protocol = c.routes(), c.protocol(def)
	return def, nil
}

// variables puts together what an instance is given, weakest first: where the others
// are, the project file, the environment file, and what is ours.
func (s *session) variables(c *choice, def dayfly.Definition, chosen []*choice) map[string]string {
	ours := s.address(c, chosen)
	return together(ours, def.Variables, c.ask.Variables)
}

// runnable refuses services that the local runner has no command for.
func runnable(res *dayfly.Resolution) error {
	var problems []dayfly.Problem
	for _, rs := range res.Services {
		if len(rs.Definition.Run) > 0 || rs.From != dayfly.FromOwn && rs.From != dayfly.FromShared {
			continue
		}
		message := "has no command for the local runner: add x-dayfly.process.run"
		if !rs.Definition.Test { // every environment has the tests
			message += ", or leave the service out with --only"
		}
		problems = append(problems, dayfly.Problem{Field: "services." + rs.Name, Message: message})
	}
	if len(problems) > 0 {
		return dayfly.Invalid(problems...)
	}
	return nil
}

func unknownService(field, name string, file *spec.Project) dayfly.Problem {
	return dayfly.Problem{Field: field, Message: fmt.Sprintf("the project has no service %q; it has %s", name, strings.Join(file.Services(), ", "))}
}

// hash identifies what a deployment is besides its commit.
func hash(def dayfly.Definition, vars map[string]string) string {
	b, err := json.Marshal(struct {
		Definition dayfly.Definition
		Variables  map[string]string
	}{def, vars})
	if err != nil {
		panic(err) // both are plain data
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}
