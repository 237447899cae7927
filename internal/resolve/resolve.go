// Package resolve turns what a user asked for into commits, definitions,
// addresses and variables: EnvironmentSpec -> Resolution.
package resolve

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
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

// repoOf gives the repository of a service. It is kept in the state and shown, so none
// may have a password in it.
func (s *session) repoOf(c *choice, file *spec.Project) (string, error) {
	repo, problem := c.ask.Repo, dayfly.Problem{Field: "services." + c.name + ".repo"}
	if repo == "" {
		repo, problem = file.Repo(c.name), dayfly.Problem{File: file.File, Field: "services." + c.name + ".x-dayfly.repo"}
	}
	if repo == "" {
		return c.repo, nil
	}
	clean, token, err := s.Sources.Clean(repo)
	var said *dayfly.Error
	switch {
	case errors.As(err, &said) && len(said.Problems) > 0:
		problem.Message = said.Problems[0].Message
		return "", dayfly.Invalid(problem)
	case err != nil:
		return "", named(c.name, err)
	case !token.IsZero():
		problem.Message = "has a password in it: leave it out, and give a token (--github-token) or set up git's credentials for the server's user"
		return "", dayfly.Invalid(problem)
	}
	return clean, nil
}

// projectCommit finds the commit of the project's own repository: the branch that
// was asked for, or, where only another repository of the project may have it, the
// default branch and the error that says so.
func (s *session) projectCommit(ctx context.Context, repo string) (commit, branch string, missing, err error) {
	ref := Ref{Kind: DefaultBranch}
	if s.spec.Branch != "" {
		ref = Ref{Branch, s.spec.Branch}
	}
	commit, branch, err = s.resolve(ctx, repo, s.in.Token, ref)
	if err != nil && ref.Kind == Branch && dayfly.ErrorCode(err) == dayfly.CodeNotFound {
		missing = err
		// A tag or a commit does as well, and never moves.
		if commit, branch, err = s.resolve(ctx, repo, s.in.Token, Ref{AnyRef, s.spec.Branch}); err == nil {
			return commit, branch, nil, nil
		}
		commit, branch, err = s.resolve(ctx, repo, s.in.Token, Ref{Kind: DefaultBranch})
	}
	return commit, branch, missing, err
}

// latest is the version that is the default branch where no branch or tag is called so.
const latest = "latest"

// pinned gives the commit that a version had when it was asked for first: it does not follow, even
// where it is the name of a branch.
func (s *session) pinned(c *choice) string {
	if s.in.Previous == nil || c.ask.Version == latest {
		return ""
	}
	for _, rs := range s.in.Previous.Services {
		if rs.Name == c.name && rs.Repo == c.repo && rs.Version == c.ask.Version {
			return rs.Commit
		}
	}
	return ""
}

// resolve finds a commit: among the heads that are known already, or else by asking.
func (s *session) resolve(ctx context.Context, repo string, token dayfly.Secret, ref Ref) (commit, name string, err error) {
	if heads, ok := s.in.Heads[repo]; ok {
		name := ref.Name
		if ref.Kind == DefaultBranch {
			name = heads.Default
		}
		if commit := heads.Branches[name]; commit != "" && ref.Kind != AnyRef {
			return commit, name, nil
		}
	}
	key := refOf{repo, token, ref}
	f, err := recall(s.memory, func(m *memory) map[refOf]found { return m.commits }, key, rememberedTexts, func() (found, error) {
		commit, name, err := s.Sources.Resolve(ctx, repo, token, ref)
		return found{commit, name}, err
	})
	return f.commit, f.name, err
}

// commitOf finds the commit of one service, and says whether the environment's
// branch exists in a repository of the service's own.
func (s *session) commitOf(ctx context.Context, c *choice, projectRepo string) (branchFound bool, err error) {
	token := s.tokenFor(c.repo)
	resolve := func(ref Ref) error {
		commit, name, err := s.resolve(ctx, c.repo, token, ref)
		if err == nil {
			c.commit, c.version = commit, name
		}
		return err
	}
	switch {
	case c.ask.Version != "":
		if pinned := s.pinned(c); pinned != "" {
			c.commit, c.version = pinned, c.ask.Version
			return false, nil
		}
		err := resolve(Ref{AnyRef, c.ask.Version})
		if c.ask.Version == latest && dayfly.ErrorCode(err) == dayfly.CodeNotFound {
			err = resolve(Ref{Kind: DefaultBranch})
			c.version = latest
		}
		return false, named(c.name, err)
	case c.ask.Branch != "":
		return false, named(c.name, resolve(Ref{Branch, c.ask.Branch}))
	case c.repo == projectRepo:
		return false, nil // the project's own commit, as it stands
	case s.spec.Branch == "":
		return false, named(c.name, resolve(Ref{Kind: DefaultBranch}))
	}
	err = resolve(Ref{Branch, s.spec.Branch})
	if dayfly.ErrorCode(err) == dayfly.CodeNotFound {
		return false, named(c.name, resolve(Ref{Kind: DefaultBranch}))
	}
	return err == nil, named(c.name, err)
}

// named says of which service an error speaks.
func named(service string, err error) error {
	var e *dayfly.Error
	if !errors.As(err, &e) {
		return err
	}
	if len(e.Problems) > 0 { // the places of a file stay what they are
		return &dayfly.Error{Code: e.Code, Message: "service " + service + ":", Err: err, Problems: e.Problems}
	}
	return &dayfly.Error{Code: e.Code, Message: "service " + service + ": " + e.Error(), Err: err}
}

// tokenFor keeps the user's token to the host of the project: a project file must
// not be able to have it sent elsewhere.
func (s *session) tokenFor(repo string) dayfly.Secret {
	if s.Sources.SameHost(s.in.Project.Repo, repo) {
		return s.in.Token
	}
	return dayfly.Secret{}
}

// credentialFor gives the id of the credential that goes with tokenFor.
func (s *session) credentialFor(repo string) string {
	if s.Sources.SameHost(s.in.Project.Repo, repo) {
		return s.in.Credential
	}
	return ""
}

// file reads the project file of a commit.
func (s *session) file(ctx context.Context, repo, commit string) (*spec.Project, error) {
	key := repo + "\x00" + commit
	if f, ok := s.files[key]; ok {
		return f, nil
	}
	token := s.tokenFor(repo)
	f, err := recall(s.memory, func(m *memory) map[place]*spec.Project { return m.files }, place{repo, token, commit}, rememberedFiles, func() (*spec.Project, error) {
		dir, release, err := s.Sources.Tree(ctx, repo, token, commit)
		if err != nil {
			return nil, err
		}
		defer release()
		f, err := spec.LoadDir(dir, spec.Options{})
		if dayfly.ErrorCode(err) == dayfly.CodeNotFound {
			err = noFile{err}
		}
		return f, err
	})
	if err != nil {
		return nil, err
	}
	s.files[key] = f
	return f, nil
}

// noFile is the error of a commit without a project file, to tell it from a commit
// that is not there.
type noFile struct{ error }

func (e noFile) Unwrap() error { return e.error }

// fileOf reads the project file of the commit that a service is at, if it has one that
// defines the service; nil = the project's own file defines it.
func (s *session) fileOf(ctx context.Context, c *choice) (*spec.Project, error) {
	f, err := s.file(ctx, c.repo, c.commit)
	var none noFile
	switch {
	case errors.As(err, &none):
		return nil, nil
	case err != nil:
		return nil, named(c.name, err)
	case !slices.Contains(f.Services(), c.name):
		return nil, nil
	}
	return f, nil
}

// assignAddresses gives every service that takes connections its loopback
// address, the one it had before where it had one.
func (s *session) assignAddresses(chosen []*choice) error {
	before := map[string]string{}
	if s.in.Previous != nil {
		for _, rs := range s.in.Previous.Services {
			before[rs.Name] = rs.Address
		}
	}
	for _, c := range chosen {
		if c.file != nil && c.from != dayfly.FromBorrowed {
			raw, err := s.raw(c.file, c.name)
			if err != nil {
				return err
			}
			raw.Protocol = c.protocol(raw)
			c.raw = raw
		} else {
			c.raw = *c.theirs.Definition
		}
		if c.raw.Port == 0 {
			continue
		}
		if c.address = before[c.name]; c.address == "" {
			address, err := s.in.Address()
			if err != nil {
				return err
			}
			c.address = address
		}
	}
	return nil
}

// label stands for the environment in public hosts.
func (s *session) label() string { return cmp.Or(s.spec.Prefix, s.spec.Name) }

// assignHosts gives public services their hosts: the environment's own first, the
// service's second.
func (s *session) assignHosts(chosen []*choice) {
	label := s.label()
	for _, c := range chosen {
		if len(c.routes()) > 0 {
			c.hosts = append(c.hosts, label+"."+s.Config.Domain)
		}
		if c.raw.Port != 0 && c.raw.Protocol != dayfly.ProtocolTCP {
			c.hosts = append(c.hosts, dayfly.ServiceHost(s.Config.HostPattern, c.name, label)+"."+s.Config.Domain)
		}
	}
}

// routes gives the service's path routes: the environment's wish beats the file.
func (c *choice) routes() []dayfly.PathRoute {
	if c.ask.Route != "" {
		return []dayfly.PathRoute{{Path: c.ask.Route}}
	}
	return c.raw.Routes
}

// protocol gives the service's protocol: one that gets a route by the environment is for
// HTTP, as one that has it by the file is.
func (c *choice) protocol(def dayfly.Definition) dayfly.Protocol {
	if c.ask.Route != "" && def.Protocol == dayfly.ProtocolTCP {
		return dayfly.ProtocolHTTP
	}
	return def.Protocol
}

// checkRoutes looks at the routes that the environment wishes for; those of a project file
// were looked at when it was read.
func checkRoutes(chosen []*choice) error {
	var problems []dayfly.Problem
	for _, c := range chosen {
		bad := func(format string, args ...any) {
			problems = append(problems, dayfly.Problem{Field: "services." + c.name + ".route", Message: fmt.Sprintf(format, args...)})
		}
		switch {
		case c.ask.Route == "":
			continue
		case !strings.HasPrefix(c.ask.Route, "/"):
			bad("has to be a path that begins with /")
		case c.raw.Port == 0:
			bad("needs a port: add ports to the service in the project file")
		}
		for _, other := range chosen {
			if other != c && other.from != dayfly.FromBorrowed && slices.ContainsFunc(other.routes(), func(r dayfly.PathRoute) bool { return r.Path == c.ask.Route }) {
				bad("%s leads to %s already", c.ask.Route, other.name)
			}
		}
	}
	if len(problems) > 0 {
		return dayfly.Invalid(problems...)
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

// address gives the variables that tell a service where it and the others are.
func (s *session) address(c *choice, chosen []*choice) map[string]string {
	vars := map[string]string{
		"DAYFLY_ENV": s.spec.Name, "DAYFLY_PROJECT": s.in.Project.Name,
		"DAYFLY_SERVICE": c.name, "DAYFLY_VERSION": c.commit,
	}
	if url := s.publicURL(c, chosen); url != "" {
		vars["DAYFLY_URL"] = url
	}
	port := s.Config.InternalPort()
	for _, other := range chosen {
		if other == c || other.address == "" {
			continue
		}
		name := strings.ToUpper(strings.ReplaceAll(other.name, "-", "_"))
		switch other.raw.Protocol {
		case dayfly.ProtocolTCP:
			vars[name+"_URL"] = fmt.Sprintf("tcp://%s:%d", other.address, port)
			vars[name+"_HOST"] = other.address
			vars[name+"_PORT"] = fmt.Sprint(port)
		default:
			vars[name+"_URL"] = fmt.Sprintf("http://%s:%d", other.address, port)
		}
	}
	s.databaseVariables(c, vars)
	return vars
}

// publicURL is the address of the service itself, or, for one without, of the environment.
func (s *session) publicURL(c *choice, chosen []*choice) string {
	if len(c.hosts) > 0 {
		return s.Config.PublicURL(c.hosts[0])
	}
	for _, other := range chosen {
		if len(other.routes()) > 0 {
			return s.Config.PublicURL(other.hosts[0])
		}
	}
	return ""
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
