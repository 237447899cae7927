package app

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly/internal/control"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/folder"
)

// glance is how often it is looked whether files that are the same have become something else: a
// project or a branch that one waited for may be there, or the time of one be over.
const glance = time.Second

// startFiles follows the folder of environment files, where there is one.
func (a *App) startFiles(context.Context) error {
	if a.config.Environments == "" {
		return nil
	}
	dir, err := filepath.Abs(a.config.Environments)
	if err != nil {
		return err
	}
	files := &environmentFiles{App: a, dir: dir}
	was, err := os.ReadFile(a.folder.sub(filesFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	a.background("environment files", func(ctx context.Context) {
		err := folder.Watch(ctx, folder.Config{
			Dir: dir, Logger: a.log, Changed: files.look, Was: strings.TrimSpace(string(was)), Remember: files.remember,
			Problem: func(what string) { a.filesProblem.Store(&what) },
		})
		if err != nil && ctx.Err() == nil {
			a.log.Error("the environment files are no longer followed", "folder", dir, "error", err)
		}
	})
	return nil
}

// filesFolder is the file of the data folder that says which folder the environment files were in.
const filesFolder = "environments"

// remember keeps beyond this life in which folder the files are.
func (e *environmentFiles) remember(folder string) {
	file := e.App.folder.sub(filesFolder)
	err := os.Remove(file)
	if folder != "" {
		err = writeFile(file, []byte(folder+"\n"), 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.log.Warn("after the next start an empty folder of environment files may be believed", "error", err)
	}
}

// environmentFiles makes environments of the files of a folder.
type environmentFiles struct {
	*App
	dir string

	files   []folder.File // as last followed
	around  string        // the state beside them, as of then
	due     time.Time     // when to follow them again although nothing has changed; zero = not at all
	waiting bool          // some of them could not be followed
}

// look follows the files where they, or what they wait for, have changed.
func (e *environmentFiles) look(ctx context.Context, files []folder.File) time.Duration {
	around := e.control.Surroundings(e.source(), e.waiting)
	same := e.files != nil && around == e.around && (e.due.IsZero() || time.Now().Before(e.due)) &&
		slices.EqualFunc(files, e.files, func(a, b folder.File) bool {
			return a.Name == b.Name && bytes.Equal(a.Data, b.Data) && (a.Err == nil) == (b.Err == nil)
		})
	if same {
		return glance
	}
	// As it was before: what changes in the meantime is looked at once more.
	before := map[bool]string{true: e.control.Surroundings(e.source(), true), false: e.control.Surroundings(e.source(), false)}
	read := make([]control.EnvironmentFile, len(files))
	for i, f := range files {
		read[i] = control.EnvironmentFile{Origin: e.origin(f), Err: f.Err}
		if f.Err == nil {
			read[i] = e.control.ReadFile(e.origin(f), f.Data, "")
		}
	}
	out, err := e.control.SyncFiles(ctx, e.source(), read)
	if err != nil {
		if ctx.Err() == nil {
			e.log.Warn("the environment files could not be followed; it is tried again", "folder", e.dir, "error", err)
		}
		return glance
	}
	e.files, e.waiting, e.due = append([]folder.File{}, files...), len(out.Problems) > 0, time.Time{}
	e.around = before[e.waiting]
	if out.Again > 0 {
		e.due = time.Now().Add(out.Again)
	}
	for _, f := range files {
		if slices.Contains(out.Expired, e.origin(f)) {
			e.archive(f)
		}
	}
	return glance
}

// source is what the state calls this folder.
func (e *environmentFiles) source() string { return "folder:" + e.node }

func (e *environmentFiles) origin(f folder.File) string { return filepath.Join(e.dir, f.Name) }

// archive puts a file away whose environments have had their time.
func (e *environmentFiles) archive(f folder.File) {
	crash.Point("before a file goes to the archive")
	defer crash.Point("after a file went to the archive")
	to, err := folder.Archive(e.dir, f.Name, time.Now())
	if err != nil {
		e.log.Warn("a file whose environments have expired could not be put into the archive", "file", f.Name, "error", err)
		return
	}
	e.log.Info("the environments of a file have expired: it is in the archive", "file", f.Name, "archive", to)
}
