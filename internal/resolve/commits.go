package resolve

import (
	"context"
	"errors"
	"slices"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/spec"
)

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
