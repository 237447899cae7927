package resolve

import (
	"context"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/spec"
)

// ProjectInfo is what the project file on the default branch says about the project.
type ProjectInfo struct {
	Name          string // "" = none is given
	DefaultBranch string
	Baseline      string
	Keep          dayfly.Duration // 0 = none is given
	Branches      dayfly.BranchPatterns
}

// Project reads the project file on the default branch of a repository.
func (r *Resolver) Project(ctx context.Context, repo string, token dayfly.Secret) (ProjectInfo, error) {
	commit, branch, err := r.Sources.Resolve(ctx, repo, token, Ref{Kind: DefaultBranch})
	if err != nil {
		return ProjectInfo{}, err
	}
	dir, release, err := r.Sources.Tree(ctx, repo, token, commit)
	if err != nil {
		return ProjectInfo{}, err
	}
	defer release()
	file, err := spec.LoadDir(dir, spec.Options{})
	if err != nil {
		return ProjectInfo{}, err
	}
	info := ProjectInfo{Name: file.Name, DefaultBranch: branch, Baseline: file.Baseline(), Keep: file.Keep(), Branches: file.Branches()}
	if info.Name == "" {
		info.Name = r.Sources.Base(repo)
	}
	return info, nil
}

// CleanRepo checks the URL of a repository and splits credentials off it.
func (r *Resolver) CleanRepo(repo string) (clean string, token dayfly.Secret, err error) {
	return r.Sources.Clean(repo)
}
