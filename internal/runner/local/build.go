//go:build linux

package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/files"
	"github.com/dayfly-dev/dayfly/internal/logfile"
	"github.com/dayfly-dev/dayfly/internal/spec"
)

// commandWidth is how many bytes of a command a message has.
const commandWidth = 300

func defaultBuilds() int { return max(1, runtime.NumCPU()) }

// build is a build under way, with those who wait for it.
type build struct {
	done    chan struct{}
	err     error
	waiting int
	cancel  context.CancelFunc
}

// buildKey names a build by everything that decides what comes out of it.
func buildKey(d dayfly.Deployment) string {
	env := map[string]string{}
	for _, name := range d.Definition.BuildEnv {
		env[name] = d.Variables[name]
	}
	b, err := json.Marshal(struct {
		Repo, Commit, Dir string
		Build             []dayfly.Command
		Env               map[string]string
	}{d.Repo, d.Commit, d.Definition.Dir, d.Definition.Build, env})
	if err != nil {
		panic(err) // plain data
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// build makes the tree of a deployment, or waits for somebody who makes the same one.
func (r *Runner) build(ctx context.Context, d dayfly.Deployment) (string, error) {
	key := buildKey(d)
	for {
		if err := os.Chtimes(r.path("builds", key), time.Time{}, now()); err == nil { // used now: see limit
			return key, nil
		}
		r.mu.Lock()
		b := r.building[key]
		if b == nil {
			// The build lives for as long as anybody waits for it.
			buildCtx, cancel := context.WithCancel(r.ctx)
			b = &build{done: make(chan struct{}), cancel: cancel}
			r.building[key] = b
			r.all.Go(func() {
				b.err = r.makeBuild(buildCtx, d, key)
				r.mu.Lock()
				delete(r.building, key)
				r.mu.Unlock()
				cancel()
				close(b.done)
			})
		}
		b.waiting++
		r.mu.Unlock()
		select {
		case <-b.done:
		case <-ctx.Done():
		}
		r.mu.Lock()
		b.waiting--
		if b.waiting == 0 {
			b.cancel()
		}
		r.mu.Unlock()
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if !errors.Is(b.err, context.Canceled) {
			return key, b.err
		}
		if r.ctx.Err() != nil {
			return "", r.ctx.Err()
		}
		// Everybody else had given up just then: begin again.
	}
}

// makeBuild checks out, builds and makes read-only under another name first, so that a
// crash leaves nothing that looks whole.
func (r *Runner) makeBuild(ctx context.Context, d dayfly.Deployment, key string) error {
	select {
	case r.builds <- struct{}{}:
		defer func() { <-r.builds }()
	case <-ctx.Done():
		return ctx.Err()
	}
	fresh, err := os.MkdirTemp(r.path("builds"), key+".new-")
	if err != nil {
		return err
	}
	defer func() { _ = files.RemoveAll(fresh) }()
	defer killBelow(fresh)
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	if err := r.Trees.Worktree(ctx, d, fresh); err != nil {
		return err
	}
	user, err := r.buildUser(d.Key.Project)
	if err != nil {
		return err
	}
	if err := chown(fresh, user); err != nil {
		return err
	}
	crash.Point("after writing a tree")
	release, err := r.firstBuild(ctx, d)
	if err != nil {
		return err
	}
	built := false
	defer func() { release(built) }()
	out, err := logfile.Open(r.path("logs", d.ID, "build.log"))
	if err != nil {
		return err
	}
	defer out.Close()
	dir, err := inside(fresh, d.Definition.Dir)
	if err != nil {
		return err
	}
	env, err := r.buildEnv(d, fresh)
	if err != nil {
		return err
	}
	building := ctx
	if r.BuildTimeout > 0 {
		var cancel context.CancelFunc
		building, cancel = context.WithTimeout(ctx, r.BuildTimeout)
		defer cancel()
	}
	for _, c := range d.Definition.Build {
		err := r.step(building, c, dir, env, out, user)
		if err != nil && ctx.Err() == nil && errors.Is(building.Err(), context.DeadlineExceeded) {
			return dayfly.Errorf(dayfly.CodeFailed, "the build failed: it took longer than %s (--build-timeout of the server); `%s` was running", r.BuildTimeout, shorten(strings.Join(c, " "), commandWidth))
		}
		if err != nil {
			return err
		}
	}
	built = true
	killBelow(fresh) // nothing may change what is whole
	if err := readOnly(fresh); err != nil {
		return err
	}
	crash.Point("before a build is whole")
	defer crash.Point("after a build is whole")
	return os.Rename(fresh, r.path("builds", key))
}

// firstBuild lets the first build of a project fill the project's caches alone: several at
// once would all do the same work, as compiling a standard library.
func (r *Runner) firstBuild(ctx context.Context, d dayfly.Deployment) (release func(built bool), err error) {
	nothing := func(bool) {}
	warm := r.path("cache", folderName(d.Key.Project), "warm")
	if _, err := os.Stat(warm); err == nil || len(d.Definition.Build) == 0 {
		return nothing, nil
	}
	r.mu.Lock()
	alone := r.first[d.Key.Project]
	if alone == nil {
		alone = make(chan struct{}, 1)
		r.first[d.Key.Project] = alone
	}
	r.mu.Unlock()
	select {
	case alone <- struct{}{}:
	case <-ctx.Done():
		return nothing, ctx.Err()
	}
	if _, err := os.Stat(warm); err == nil {
		<-alone
		return nothing, nil
	}
	return func(built bool) {
		if built {
			if err := os.WriteFile(warm, nil, 0o644); err != nil {
				r.Logger.Warn("the first build of a project cannot be noted", "error", err)
			}
		}
		<-alone
	}, nil
}

// step runs one command of a build; whatever it leaves running is ended.
func (r *Runner) step(ctx context.Context, c dayfly.Command, dir string, env map[string]string, out *os.File, user int) error {
	args := spec.Expand(c, env)
	shown := strings.Join(args, " ")
	fmt.Fprintf(out, "$ %s\n", shown)
	shown = shorten(shown, commandWidth)
	path, err := lookPath(args[0], dir, env["PATH"], user)
	if err != nil {
		return dayfly.Errorf(dayfly.CodeFailed, "the build failed: %s: %v", args[0], err)
	}
	cmd := exec.CommandContext(ctx, path, args[1:]...) //nolint:forbidigo // an argument vector; expansion stays within each argument
	cmd.Args[0] = args[0]
	cmd.Dir, cmd.Env = dir, list(env)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: credential(user)}
	cmd.Cancel = func() error { killGroup(cmd.Process.Pid); return nil }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if cmd.Process != nil {
		killGroup(cmd.Process.Pid)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return dayfly.Errorf(dayfly.CodeFailed, "the build failed: `%s`: %v", shown, err)
	}
	return nil
}

// killBelow kills the processes of a build that have left its group: those that name its
// folder in their variables or work there.
func killBelow(tree string) {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return // the pattern is a good one
	}
	for _, process := range processes {
		variables, _ := os.ReadFile(filepath.Join(process, "environ")) // what cannot be read is not ours
		folder, _ := os.Readlink(filepath.Join(process, "cwd"))
		if bytes.Contains(variables, []byte("="+tree+"\x00")) || folder == tree || strings.HasPrefix(folder, tree+"/") {
			if pid, err := strconv.Atoi(filepath.Base(process)); err == nil && pid != os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is as good
			}
		}
	}
}

// inside gives a folder within a tree and refuses links that lead out of it.
func inside(tree, dir string) (string, error) {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if dir == "" {
		dir = "."
	}
	if info, err := root.Stat(dir); err != nil || !info.IsDir() {
		return "", dayfly.Errorf(dayfly.CodeFailed, "the folder %s is not in the tree", dir)
	}
	return filepath.Join(tree, dir), nil
}

// readOnly takes the right to write from every file and folder of a tree.
func readOnly(tree string) error {
	return filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == tree || d.Type()&fs.ModeSymlink != 0 {
			return err // the top has to be renamed first; nobody adds to it all the same
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.Chmod(path, info.Mode().Perm()&^0o222|0o444|info.Mode().Perm()>>2&0o111)
	})
}
