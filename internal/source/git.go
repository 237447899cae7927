package source

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
)

// askpass hands the credential to git. It is read from a file that exists in memory
// only, passed on as descriptor 3: so it is in no argument, no variable and on no
// disk.
const askpass = `#!/bin/sh
case "$1" in
Username*) sed -n 1p /proc/self/fd/3 ;;
*) sed -n 2p /proc/self/fd/3 ;;
esac
`

// patience is how long a git command may take.
const patience = 10 * time.Minute

// git runs git with our configuration and nobody else's, so that nothing in a
// repository or on the host makes it run anything.
func (s *Source) git(ctx context.Context, token dayfly.Secret, dir string, stdout io.Writer, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", append([]string{ //nolint:forbidigo // refs and URLs stand behind --end-of-options or are checked
		"-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never",
		"-c", "protocol.file.allow=always", "-c", "submodule.recurse=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
		"-c", "safe.directory=*", "-c", "core.attributesFile=/dev/null", "-c", "advice.detachedHead=false",
		"-c", "filter.lfs.smudge=", "-c", "filter.lfs.process=", "-c", "filter.lfs.required=false", "-c", "core.symlinks=true",
	}, args...)...)
	cmd.Dir = dir
	cmd.Env = s.env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &limited{w: &stderr, left: 64 << 10}
	if !token.IsZero() {
		f, err := memory(token)
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
		cmd.Env = append(cmd.Env, "GIT_ASKPASS="+s.askpass)
	}
	err := cmd.Run()
	if err == nil {
		return nil
	}
	text := scrub(strings.TrimSpace(stderr.String()), token)
	if ctx.Err() != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return dayfly.Errorf(dayfly.CodeTimeout, "git did not end within %s", patience)
		}
		return ctx.Err()
	}
	if errors.Is(err, exec.ErrNotFound) {
		return dayfly.Errorf(dayfly.CodeFailed, "the program git was not found: install it")
	}
	return &gitError{text: text, err: err}
}

// gitError is what git said when it failed.
type gitError struct {
	text string
	err  error
}

func (e *gitError) Error() string { return "git: " + lastLines(e.text, 4) }
func (e *gitError) Unwrap() error { return e.err }

func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}

// env is all that git sees of the server's variables.
func (s *Source) env() []string {
	env := []string{
		"GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_LFS_SKIP_SMUDGE=1", "LC_ALL=C",
		"GIT_SSH_COMMAND=ssh -o BatchMode=yes", "GIT_CONFIG_GLOBAL=" + s.config, "GIT_ASKPASS=true",
	}
	for _, name := range []string{"PATH", "HOME", "SSH_AUTH_SOCK", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "XDG_CONFIG_HOME"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// memory makes a file without a name that holds the user's name and password.
func memory(token dayfly.Secret) (*os.File, error) {
	fd, err := unix.MemfdCreate("credential", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "credential")
	user, password, ok := strings.Cut(token.Reveal(), ":")
	if !ok {
		// The hosts that take a token alone take it as the password of anybody.
		user, password = "x-access-token", token.Reveal()
	}
	if _, err := f.WriteString(user + "\n" + password + "\n"); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// scrub removes a secret from what git said.
func scrub(text string, token dayfly.Secret) string {
	if token.IsZero() {
		return text
	}
	_, password, ok := strings.Cut(token.Reveal(), ":")
	if ok && password != "" {
		text = strings.ReplaceAll(text, password, "[secret]")
	}
	return strings.ReplaceAll(text, token.Reveal(), "[secret]")
}

// limited writes the first bytes and forgets the rest.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if _, err := l.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// credentialConfig writes a configuration that holds nothing of the user's but how
// he gets at credentials.
func credentialConfig(dir string) (string, error) {
	file := filepath.Join(dir, "gitconfig")
	out, err := exec.Command("git", "config", "--global", "--get-regexp", `^credential\.`).Output() //nolint:forbidigo // fixed arguments
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrNotFound) {
		return "", err
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		if err := exec.Command("git", "config", "--file", file, "--add", key, value).Run(); err != nil { //nolint:forbidigo // the user's own configuration
			return "", err
		}
	}
	return file, nil
}
