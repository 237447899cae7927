package app

import (
	"context"
	"path"
	"strings"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/resolve"
	"github.com/dayfly-dev/dayfly/internal/source"
	"github.com/dayfly-dev/dayfly/internal/vault"
)

// sources lets the packages that need repositories speak of them by URL: it checks
// the URL and finds the credential.
type sources struct {
	git   *source.Source
	vault *vault.Vault
	cache *registry.Cache
	local bool // paths on this host are allowed
}

func (s *sources) repo(url string) (source.Repo, error) {
	if repo, ok := s.git.Hosted(url); ok {
		return repo, nil
	}
	repo, _, err := source.ParseRepo(url, s.local)
	return repo, err
}

// Clean implements resolve.Sources.
func (s *sources) Clean(url string) (string, dayfly.Secret, error) {
	repo, token, err := source.ParseRepo(url, s.local)
	return repo.URL, token, err
}

// Base implements resolve.Sources.
func (s *sources) Base(url string) string {
	return strings.TrimSuffix(path.Base(strings.TrimSuffix(url, "/.git")), ".git")
}

// SameHost implements resolve.Sources.
func (s *sources) SameHost(a, b string) bool {
	x, errX := s.repo(a)
	y, errY := s.repo(b)
	return errX == nil && errY == nil && x.Host == y.Host
}

// Resolve implements resolve.Sources.
func (s *sources) Resolve(ctx context.Context, url string, token dayfly.Secret, ref resolve.Ref) (commit, name string, err error) {
	repo, err := s.repo(url)
	if err != nil {
		return "", "", err
	}
	kinds := map[resolve.RefKind]source.Kind{resolve.Branch: source.Branch, resolve.AnyRef: source.Any}
	return s.git.Resolve(ctx, repo, token, source.Ref{Kind: kinds[ref.Kind], Name: ref.Name})
}

// Tree implements resolve.Sources.
func (s *sources) Tree(ctx context.Context, url string, token dayfly.Secret, commit string) (string, func(), error) {
	repo, err := s.repo(url)
	if err != nil {
		return "", nil, err
	}
	return s.git.Tree(ctx, repo, token, commit)
}

// Objects implements resolve.Sources.
func (s *sources) Objects(ctx context.Context, url string, token dayfly.Secret, commit string, paths []string) (map[string]string, error) {
	repo, err := s.repo(url)
	if err != nil {
		return nil, err
	}
	return s.git.Objects(ctx, repo, token, commit, paths)
}

// Worktree implements local.Trees.
func (s *sources) Worktree(ctx context.Context, d dayfly.Deployment, dst string) error {
	repo, err := s.repo(d.Repo)
	if err != nil {
		return err
	}
	token, err := s.token(d.Credential)
	if err != nil {
		return err
	}
	return s.git.Worktree(ctx, repo, token, d.Commit, dst)
}

// Fingerprint implements reconcile.News.
func (s *sources) Fingerprint(url string) (string, bool) {
	repo, err := s.repo(url)
	if err != nil {
		return "", false
	}
	return s.git.Fingerprint(repo)
}

// Heads implements resolve.Sources.
func (s *sources) Heads(ctx context.Context, url string, token dayfly.Secret) (dayfly.Heads, error) {
	repo, err := s.repo(url)
	switch {
	case err != nil:
		return dayfly.Heads{}, err
	case repo.Hosted && !s.git.HasPushes(repo):
		return dayfly.Heads{}, nil
	}
	return s.git.Heads(ctx, repo, token)
}

// news is what the reconciler asks of sources.
type news struct{ *sources }

// Heads implements reconcile.News.
func (n news) Heads(ctx context.Context, url, credential string) (dayfly.Heads, error) {
	token, err := n.token(credential)
	if err != nil {
		return dayfly.Heads{}, err
	}
	return n.sources.Heads(ctx, url, token)
}

// token opens a stored credential; "" has none.
func (s *sources) token(id string) (dayfly.Secret, error) {
	if id == "" {
		return dayfly.Secret{}, nil
	}
	rec, ok := registry.Lookup(s.cache, registry.Credentials, id)
	if !ok {
		return dayfly.Secret{}, nil
	}
	return s.vault.Unseal(rec.Value.Ciphertext)
}
