package resolve

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/dayfly-dev/dayfly"
)

// none is the base of an environment that borrows nothing.
const none = "none"

// maxBases bounds how many environments borrow from each other in a row.
const maxBases = 100

// waits is how a service is provided whose base is not there yet: not at all.
const waits dayfly.From = "waits"

// base is the environment from which another borrows.
type base struct {
	name string
	res  *dayfly.Resolution // nil = there is no such environment yet
}

// findBase says from whom the environment borrows; nil = from nobody. A baseline that nobody has
// made is nobody; a base that was asked for is waited for.
func (s *session) findBase() (*base, error) {
	name := s.spec.Base
	asked := name != ""
	if !asked {
		name = s.in.Project.Baseline
	}
	if name == "" || name == none || name == s.spec.Name && !asked || s.spec.Name == s.in.Project.Baseline {
		return nil, nil
	}
	refuse := func(format string, args ...any) error {
		return dayfly.Invalid(dayfly.Problem{Field: "base", Message: fmt.Sprintf(format, args...)})
	}
	for at, n := name, 0; ; n++ {
		if at == s.spec.Name || n == maxBases {
			return nil, refuse("%s borrows from this environment itself: choose another base", name)
		}
		rec, res, ok := s.lookup(at)
		if at == name {
			switch {
			case !ok && !asked:
				return nil, nil
			case !ok:
				return &base{name: name}, nil
			case rec.Spec.Project != s.in.Project.Name:
				return nil, refuse("%s is an environment of the project %s, not of %s", name, rec.Spec.Project, s.in.Project.Name)
			}
		}
		if !ok || res == nil || res.Base == "" {
			break
		}
		at = res.Base
	}
	_, res, _ := s.lookup(name)
	return &base{name, res}, nil
}

func (s *session) lookup(name string) (dayfly.EnvironmentRecord, *dayfly.Resolution, bool) {
	if s.in.Environment == nil {
		return dayfly.EnvironmentRecord{}, nil, false
	}
	return s.in.Environment(name)
}

// provider gives who has a service for those that borrow from an environment.
func (s *session) provider(from *base, service string) (lender string, rs *dayfly.ResolvedService) {
	name, res := from.name, from.res
	for range maxBases {
		if res == nil {
			return "", nil
		}
		for i := range res.Services {
			if found := &res.Services[i]; found.Name == service && found.From != dayfly.FromBorrowed {
				return name, found
			}
		}
		if name = res.Base; name == "" {
			return "", nil
		}
		_, res, _ = s.lookup(name)
	}
	return "", nil
}

// share decides for every service who provides it, where the environment has a base: what does not
// differ from the base is borrowed, and what many environments pin at one version they share.
func (s *session) share(ctx context.Context, chosen []*choice, from *base) error {
	for _, c := range chosen {
		if c.from != "" || c.file.IsTest(c.name) {
			continue
		}
		def, err := s.raw(c.file, c.name)
		if err != nil {
			return err
		}
		lender, theirs := "", (*dayfly.ResolvedService)(nil)
		if from != nil {
			lender, theirs = s.provider(from, c.name)
		}
		c.from, c.reason, err = s.decide(ctx, c, def, from, lender, theirs)
		if err != nil {
			return err
		}
		if c.from == dayfly.FromBorrowed {
			c.lender, c.theirs = lender, theirs
		}
	}
	return nil
}

// decide says who provides a service and why. Theirs is what the base has; nil = nothing.
func (s *session) decide(ctx context.Context, c *choice, def dayfly.Definition, from *base, lender string, theirs *dayfly.ResolvedService) (dayfly.From, string, error) {
	private := ""
	switch {
	case def.Own:
		private = "it says own: true"
	case len(def.Volumes) > 0:
		private = "it has a volume of its own"
	case len(s.project.DatabasesOf(c.name)) > 0:
		private = "it has a database of its own"
	case len(c.ask.Variables) > 0:
		private = "it has variables of its own"
	}
	listed := s.spec.Only != nil && slices.Contains(s.spec.Only, c.name)
	switch {
	case from == nil && c.ask.Version == "":
		return dayfly.FromOwn, "", nil
	case private != "":
		return dayfly.FromOwn, private, nil
	case c.ask.Version != "":
		if _, res, ok := s.lookup(s.in.Project.Baseline); ok && res != nil || s.spec.Name == s.in.Project.Baseline && s.in.Project.Baseline != "" {
			return dayfly.FromShared, "the version " + c.ask.Version + " was asked for", nil
		}
		return dayfly.FromOwn, "the version " + c.ask.Version + " was asked for", nil
	case c.ask.Branch != "":
		return dayfly.FromOwn, "the branch " + c.ask.Branch + " was asked for", nil
	case listed:
		return dayfly.FromOwn, "it was asked for", nil
	case from.res == nil:
		return waits, "", nil
	case theirs == nil:
		return dayfly.FromOwn, from.name + " has no such service", nil
	}
	reason, err := s.differs(ctx, c, def, lender, theirs)
	if err != nil || reason != "" {
		return dayfly.FromOwn, reason, err
	}
	return dayfly.FromBorrowed, "it is the same as that of " + lender, nil
}

// differs says in what a service differs from that of another environment; "" = in nothing.
func (s *session) differs(ctx context.Context, c *choice, def dayfly.Definition, lender string, theirs *dayfly.ResolvedService) (string, error) {
	if theirs.Commit == "" || theirs.From == dayfly.FromRegistered || theirs.From == dayfly.FromExternal {
		return "", nil // there is nothing that could be compared: the base has decided
	}
	if c.repo == theirs.Repo && c.commit == theirs.Commit {
		return "", nil
	}
	other, err := s.file(ctx, theirs.Repo, theirs.Commit)
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "that of " + lender + " cannot be compared", nil //nolint:nilerr // having it oneself is always right
	}
	if !slices.Contains(other.Services(), c.name) || other.Hash(c.name) != c.file.Hash(c.name) {
		return "its definition differs from that of " + lender, nil
	}
	mine, err := s.objects(ctx, c.repo, c.commit, def.Paths)
	if err != nil {
		return "", err
	}
	yours, err := s.objects(ctx, theirs.Repo, theirs.Commit, def.Paths)
	if err != nil {
		return "", err
	}
	for _, p := range def.Paths {
		if mine[path.Clean(p)] != yours[path.Clean(p)] {
			if path.Clean(p) == "." {
				return "its files differ from those of " + lender, nil
			}
			return p + " differs from that of " + lender, nil
		}
	}
	return "", nil
}

// objects gives what identifies the content of paths at a commit; all that this file's services need
// are asked for at once.
func (s *session) objects(ctx context.Context, repo, commit string, paths []string) (map[string]string, error) {
	key := repo + "\x00" + commit
	known := s.known[key]
	if known != nil && !slices.ContainsFunc(paths, func(p string) bool { _, ok := known[path.Clean(p)]; return !ok }) {
		return known, nil
	}
	wanted := map[string]bool{}
	for _, p := range append(s.allPaths(), paths...) {
		wanted[path.Clean(p)] = true
	}
	list, token := slices.Sorted(maps.Keys(wanted)), s.tokenFor(repo)
	of := objectsOf{place{repo, token, commit}, strings.Join(list, "\x00")}
	found, err := recall(s.memory, func(m *memory) map[objectsOf]map[string]string { return m.objects }, of, rememberedTexts, func() (map[string]string, error) {
		found, err := s.Sources.Objects(ctx, repo, token, commit, list)
		for _, p := range list {
			if _, ok := found[p]; !ok && err == nil {
				found[p] = "" // there is nothing
			}
		}
		return found, err
	})
	if err != nil {
		return nil, err
	}
	s.known[key] = found
	return found, nil
}

// allPaths are those of all services of the files that were read.
func (s *session) allPaths() (all []string) {
	for _, f := range s.files {
		for _, name := range f.Services() {
			if def, err := s.raw(f, name); err == nil {
				all = append(all, def.Paths...)
			}
		}
	}
	return all
}

// borrowed is what an environment keeps of a service that another one has: how it is reached, and
// nothing of what runs. Borrowing itself is followed when a request is looked up.
func borrowed(c *choice) dayfly.ResolvedService {
	def := &dayfly.Definition{Service: c.name, Port: c.raw.Port, Protocol: c.raw.Protocol, Routes: c.raw.Routes}
	return dayfly.ResolvedService{
		Name: c.name, From: dayfly.FromBorrowed, Environment: c.lender, Reason: c.reason, Version: c.version,
		Definition: def, Address: c.address, Hosts: c.hosts,
	}
}

// lent makes the choices for what only the base has.
func (s *session) lent(from *base, chosen []*choice) (more []*choice) {
	if from == nil {
		return nil
	}
	have := map[string]bool{}
	for _, c := range chosen {
		have[c.name] = true
	}
	for _, m := range s.missing {
		have[m.Service] = true // nobody else answers for it
	}
	name, res := from.name, from.res
	for range maxBases {
		if res == nil {
			return more
		}
		for i := range res.Services {
			theirs := &res.Services[i]
			if have[theirs.Name] || theirs.From == dayfly.FromBorrowed || theirs.Definition.Test {
				continue
			}
			have[theirs.Name] = true
			more = append(more, &choice{
				name: theirs.Name, version: theirs.Version, from: dayfly.FromBorrowed, lender: name, theirs: theirs,
				reason: "it is not among those asked for",
			})
		}
		if name = res.Base; name == "" {
			return more
		}
		_, res, _ = s.lookup(name)
	}
	return more
}

// external makes the choice for something that is no service of ours.
func external(ask dayfly.ServiceSpec) *choice {
	routes := []dayfly.PathRoute{}
	if ask.Route != "" {
		routes = append(routes, dayfly.PathRoute{Path: ask.Route})
	}
	return &choice{
		name: ask.Name, ask: ask, from: dayfly.FromExternal, reason: "it is no service of ours",
		theirs: &dayfly.ResolvedService{Definition: &dayfly.Definition{Service: ask.Name, Port: 80, Protocol: dayfly.ProtocolHTTP, Routes: routes}},
	}
}

// defineShared gives the definition and the variables of a service that environments share: those
// that it has in the project's baseline. It belongs to nobody alone; whom a request is for it learns
// from the headers.
func (s *session) defineShared(c *choice) (def dayfly.Definition, vars map[string]string, err error) {
	name := s.in.Project.Baseline
	other, self := *s, &choice{name: c.name, commit: c.commit, raw: c.raw}
	other.spec.Name, other.databases = name, nil
	var all []*choice
	if _, res, ok := s.lookup(name); ok && res != nil {
		for _, rs := range res.Services {
			it := &choice{name: rs.Name, commit: rs.Commit, raw: *rs.Definition, address: rs.Address, hosts: rs.Hosts}
			if rs.Name == c.name {
				it.commit, self = c.commit, it
			}
			all = append(all, it)
		}
	}
	ours := other.address(self, all)
	def, err = s.definition(c.file, c.name, ours)
	if err != nil {
		return def, nil, err
	}
	def.Routes, def.Protocol = c.routes(), c.protocol(def)
	return def, together(ours, def.Variables, nil), nil
}

// together puts variables together, weakest first; what is ours cannot be set.
func together(ours map[string]string, weaker, stronger map[string]string) map[string]string {
	vars := maps.Clone(ours)
	maps.Copy(vars, weaker)
	maps.Copy(vars, stronger)
	for name, value := range ours {
		if strings.HasPrefix(name, "DAYFLY_") {
			vars[name] = value
		}
	}
	for name := range vars {
		if _, is := ours[name]; !is && (name == "PORT" || strings.HasPrefix(name, "DAYFLY_")) {
			delete(vars, name)
		}
	}
	return vars
}
