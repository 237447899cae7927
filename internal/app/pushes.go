package app

import (
	"context"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/control"
	"github.com/dayfly-dev/dayfly/internal/reconcile"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/source"
)

// gitPrefix is where git finds the repositories that take pushes.
const gitPrefix = "/git/"

// startPushes makes what takes pushes; nil where no hook can be run.
func (a *App) startPushes(context.Context) (err error) {
	if a.config.Hook == "" {
		return nil
	}
	// The program as it runs, also when its file has been replaced.
	if a.pushes, err = a.sources.git.NewServer("/proc/"+strconv.Itoa(os.Getpid())+"/exe", a.config.Hook); err != nil {
		return err
	}
	a.onStop("pushes", func(context.Context) error { return a.pushes.Close() })
	return nil
}

// pushURL is where git pushes the branches of a project to.
func (a *App) pushURL(project string) string {
	if a.listen == nil {
		return ""
	}
	return "http://" + a.listenAddress() + gitPrefix + project + ".git"
}

// serveGit answers git: /git/PROJECT.git and what follows.
func (a *App) serveGit(w http.ResponseWriter, r *http.Request) {
	name, path, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, gitPrefix), ".git")
	if !ok || a.pushes == nil {
		http.Error(w, "there is no such repository: its address is /git/PROJECT.git", http.StatusNotFound)
		return
	}
	ctx := r.Context()
	project, err := a.control.PushProject(ctx, name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	repo, _ := a.sources.git.Hosted(project.Hosted())
	if service := r.URL.Query().Get("service"); project.Revision == 0 && path == "/info/refs" && service != "git-receive-pack" {
		http.Error(w, "there is no project "+name+": push to it, or add it with `dayfly project add "+name+"`", http.StatusNotFound)
		return
	}
	release, err := a.sources.git.Host(ctx, repo)
	if err != nil {
		a.log.Error("a repository cannot be made", "project", name, "error", err)
		http.Error(w, "the repository cannot be made: see the server's log", http.StatusInternalServerError)
		return
	}
	defer release()
	a.pushes.Serve(w, r, repo, path, receiver{a.control, project})
}

// receiver lets control decide about a push.
type receiver struct {
	control *control.Control
	project dayfly.Project
}

// Admit implements source.Receiver.
func (p receiver) Admit(ctx context.Context, u source.Update) error {
	branch, ok := u.Branch()
	if !ok {
		return nil // nothing follows a tag
	}
	return p.control.AdmitPush(ctx, p.project, pushedBranch(branch, u))
}

// Landed implements source.Receiver.
func (p receiver) Landed(ctx context.Context, all []source.Update, options []string, say func(line string)) {
	var branches []control.PushedBranch
	for _, u := range all {
		if branch, ok := u.Branch(); ok {
			branches = append(branches, pushedBranch(branch, u))
		}
	}
	if len(branches) > 0 {
		p.control.PushLanded(ctx, p.project, branches, !slices.Contains(options, "no-wait"), say)
	}
}

func pushedBranch(name string, u source.Update) control.PushedBranch {
	if u.Deleted() {
		return control.PushedBranch{Name: name}
	}
	return control.PushedBranch{Name: name, Commit: u.New}
}

// hosted sweeps the repositories of projects that are gone.
type hosted struct {
	git   *source.Source
	cache *registry.Cache
}

var _ reconcile.Sweeper = hosted{}

// Sweep implements reconcile.Sweeper.
func (h hosted) Sweep(_ context.Context, grace time.Duration, _ func(string) bool) ([]dayfly.Leftover, error) {
	return nil, h.git.SweepHosted(grace, func(id string) bool {
		_, ok := registry.ProjectByID(h.cache, id)
		return ok
	})
}
