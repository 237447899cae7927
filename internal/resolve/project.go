package resolve

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/spec"
)

// ProjectInfo is what the project file on the default branch says about the project.
type ProjectInfo struct {
	Name          string // "" = none is given
	DefaultBranch string
	Commit        string // of the default branch
	Baseline      string
	Keep          dayfly.Duration // 0 = none is given
	Branches      dayfly.BranchPatterns
	Repos         []string // of services that live elsewhere
}

// Project reads the project file on the default branch of a repository.
func (r *Resolver) Project(ctx context.Context, repo string, token dayfly.Secret) (ProjectInfo, error) {
	commit, branch, err := r.Sources.Resolve(ctx, repo, token, Ref{Kind: DefaultBranch})
	if err != nil {
		return ProjectInfo{}, err
	}
	return r.ProjectAt(ctx, repo, token, branch, commit)
}

// ProjectAt reads the project file at the commit that the default branch leads to.
func (r *Resolver) ProjectAt(ctx context.Context, repo string, token dayfly.Secret, branch, commit string) (ProjectInfo, error) {
	dir, release, err := r.Sources.Tree(ctx, repo, token, commit)
	if err != nil {
		return ProjectInfo{}, err
	}
	defer release()
	file, err := spec.LoadDir(dir, spec.Options{})
	if err != nil {
		return ProjectInfo{}, err
	}
	info := ProjectInfo{
		Name: file.Name, DefaultBranch: branch, Commit: commit, Baseline: file.Baseline(), Keep: file.Keep(), Branches: file.Branches(),
	}
	if info.Name == "" {
		info.Name = r.Sources.Base(repo)
	}
	for _, name := range file.Services() {
		if file.Repo(name) == "" {
			continue
		}
		// One that is not allowed is told to who wants an environment of it.
		if clean, _, err := r.Sources.Clean(file.Repo(name)); err == nil && clean != repo && !slices.Contains(info.Repos, clean) {
			info.Repos = append(info.Repos, clean)
		}
	}
	return info, nil
}

// maxFile is the largest environment file that is read, in bytes.
const maxFile = 1 << 20

// File is a file of a repository.
type File struct {
	Name string // relative to the repository, with slashes
	Data []byte
	Err  error // why it cannot be read
}

// EnvironmentFiles gives the files of environments/ at a commit, in the order of their names.
func (r *Resolver) EnvironmentFiles(ctx context.Context, repo string, token dayfly.Secret, commit string) ([]File, error) {
	dir, release, err := r.Sources.Tree(ctx, repo, token, commit)
	if err != nil {
		return nil, err
	}
	defer release()
	// Nothing in a repository leads out of it.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), "environments")
	if info, statErr := root.Lstat("environments"); statErr != nil || !info.IsDir() {
		if statErr == nil || errors.Is(statErr, fs.ErrNotExist) {
			return nil, nil // there is no such folder
		}
		return nil, statErr
	}
	if err != nil {
		return nil, err
	}
	var files []File
	for _, e := range entries {
		name := "environments/" + e.Name()
		if ext := path.Ext(name); e.IsDir() || ext != ".yaml" && ext != ".yml" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		f := File{Name: name}
		info, err := root.Lstat(name)
		switch {
		case err != nil:
			f.Err = err
		case !info.Mode().IsRegular():
			f.Err = dayfly.Invalid(dayfly.Problem{File: name, Message: "is no regular file"})
		case info.Size() > maxFile:
			f.Err = dayfly.Invalid(dayfly.Problem{File: name, Message: "is larger than 1 MiB"})
		default:
			f.Data, f.Err = root.ReadFile(name)
		}
		files = append(files, f)
	}
	return files, nil
}

// Heads gives the branches of a repository.
func (r *Resolver) Heads(ctx context.Context, repo string, token dayfly.Secret) (dayfly.Heads, error) {
	return r.Sources.Heads(ctx, repo, token)
}

// CleanRepo checks the URL of a repository and splits credentials off it.
func (r *Resolver) CleanRepo(repo string) (clean string, token dayfly.Secret, err error) {
	return r.Sources.Clean(repo)
}
