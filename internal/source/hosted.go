package source

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/files"
)

// pushed is the folder of the repositories that take pushes.
const pushed = "pushed"

// Hosted gives the repository that dayfly.Project.Hosted names.
func (s *Source) Hosted(name string) (Repo, bool) {
	id, project, ok := dayfly.ParseHosted(name)
	if !ok {
		return Repo{}, false
	}
	return Repo{URL: name, Local: filepath.Join(s.Dir, pushed, id+".git"), Hosted: true, name: project}, true
}

// Host makes the repository of a project, if it is not there yet, and keeps it until release
// is called.
func (s *Source) Host(ctx context.Context, repo Repo) (release func(), err error) {
	release = s.use(repo.Local)
	err = s.flights.do(ctx, "host "+repo.Local, func(ctx context.Context) error {
		if _, err := os.Stat(repo.Local); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return s.initMirror(ctx, repo.Local)
	})
	if err != nil {
		release()
		return func() {}, err
	}
	return release, nil
}

// HasPushes says whether anything was ever pushed to a hosted repository.
func (s *Source) HasPushes(repo Repo) bool {
	_, err := os.Stat(repo.Local)
	return err == nil
}

// SweepHosted removes the repositories of projects that are gone, unless somebody pushes to one.
// Known says whether there is a project of this id. Those younger than grace are left: their
// project may be on its way.
func (s *Source) SweepHosted(grace time.Duration, known func(projectID string) bool) error {
	found, err := os.ReadDir(filepath.Join(s.Dir, pushed))
	if err != nil {
		return err
	}
	for _, d := range found {
		id, ok := strings.CutSuffix(d.Name(), ".git")
		info, statErr := d.Info()
		if !ok || known(id) || statErr != nil || time.Since(info.ModTime()) < grace {
			continue
		}
		gone, setErr := s.setAside(filepath.Join(s.Dir, pushed, d.Name()))
		if setErr == nil && gone != "" {
			setErr = files.RemoveAll(gone)
		}
		err = errors.Join(err, setErr)
	}
	return err
}

// use keeps a folder until release is called.
func (s *Source) use(dir string) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses[dir]++
	var done bool
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if done {
			return
		}
		done = true
		if s.uses[dir]--; s.uses[dir] == 0 {
			delete(s.uses, dir)
		}
	}
}

// settleHead makes a branch that is there the default one, where the default one is not: that
// of the first push.
func (s *Source) settleHead(ctx context.Context, repo Repo, landed []Update) error {
	list, err := s.list(ctx, repo, dayfly.Secret{})
	if err != nil || list.Default != "" && list.Branches[list.Default] != "" && s.headIs(repo, list.Default) {
		return err
	}
	var names []string
	for _, u := range landed {
		if branch, ok := u.Branch(); ok && !u.Deleted() {
			names = append(names, branch)
		}
	}
	if len(names) == 0 {
		return nil
	}
	head := names[0]
	for _, usual := range []string{"master", "main"} {
		if slices.Contains(names, usual) {
			head = usual
		}
	}
	crash.Point("before the default branch is set")
	return s.git(ctx, access{}, repo.Local, nil, "symbolic-ref", "HEAD", "refs/heads/"+head)
}

func (s *Source) headIs(repo Repo, branch string) bool {
	b, err := os.ReadFile(filepath.Join(repo.Local, "HEAD"))
	return err == nil && strings.TrimSpace(string(b)) == "ref: refs/heads/"+branch
}

// receiving is the configuration of the git that takes a push.
func (s *Source) receiving() []string {
	settings := [][2]string{
		{"http.receivepack", "true"}, {"http.getanyfile", "false"},
		{"core.hooksPath", filepath.Join(s.Dir, "hooks")}, {"core.fsmonitor", "false"}, {"core.attributesFile", "/dev/null"},
		{"receive.advertisePushOptions", "true"}, {"receive.denyDeleteCurrent", "ignore"}, {"receive.denyNonFastForwards", "false"},
		{"receive.maxInputSize", strconv.FormatInt(s.MaxPush, 10)}, {"receive.autogc", "false"}, {"gc.auto", "0"}, {"maintenance.auto", "false"},
		{"uploadpack.allowAnySHA1InWant", "true"}, {"safe.directory", "*"},
		// What git would refuse to check out is not taken at all. Old histories have mistakes that
		// harm nobody.
		{"receive.fsckObjects", "true"}, {"receive.fsck.zeroPaddedFilemode", "ignore"}, {"receive.fsck.missingSpaceBeforeDate", "ignore"},
		{"receive.fsck.badTimezone", "ignore"}, {"receive.fsck.missingEmail", "ignore"}, {"receive.fsck.badDate", "ignore"},
	}
	env := []string{"GIT_CONFIG_COUNT=" + strconv.Itoa(len(settings))}
	for i, kv := range settings {
		n := strconv.Itoa(i)
		env = append(env, "GIT_CONFIG_KEY_"+n+"="+kv[0], "GIT_CONFIG_VALUE_"+n+"="+kv[1])
	}
	return env
}
