package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
)

// askpass hands the credential to git. It is read from a file that exists in memory
// only, passed on as descriptor 3: so it is in no argument, no variable and on no
// disk. git asks for the host that it speaks to at the time; one that a repository's
// host has sent it to gets nothing.
const askpass = `#!/bin/sh
line() { sed -n "$1p" /proc/self/fd/3; }
origin=$(line 3)
scheme=${origin%%://*}
host=${origin#*://}
case "$1" in
"Username for '$origin'"*) line 1 ;;
"Password for '$scheme://"*"@$host'"*) line 2 ;;
esac
`

// patience is how long a git command may take.
const patience = 10 * time.Minute

// grace is how long a git that was told to end may take to remove its lock files.
const grace = 2 * time.Second

// git runs git with our configuration and nobody else's, so that nothing in a
// repository or on the host makes it run anything.
func (s *Source) git(outer context.Context, with access, dir string, stdout io.Writer, args ...string) error {
	ctx, cancel := context.WithTimeout(outer, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", append([]string{ //nolint:forbidigo // refs and URLs stand behind --end-of-options or are checked
		"-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never",
		"-c", "protocol.file.allow=always", "-c", "submodule.recurse=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
		"-c", "safe.directory=*", "-c", "core.attributesFile=/dev/null", "-c", "advice.detachedHead=false",
		"-c", "filter.lfs.smudge=", "-c", "filter.lfs.process=", "-c", "filter.lfs.required=false", "-c", "core.symlinks=true",
		"-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60", // a server that works on it says so every few seconds
	}, args...)...)
	cmd.Dir = dir
	cmd.Env = s.env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &limited{w: &stderr, left: 64 << 10}
	if !with.token.IsZero() {
		f, err := memory(with)
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
		// The user's helpers are left out: they would be asked first, and be given
		// the token to keep.
		cmd.Env = append(cmd.Env, "GIT_ASKPASS="+s.askpass, "GIT_CONFIG_GLOBAL="+s.plain)
	}
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		if cmd.Process != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what would not end; there may be nothing
		}
		if outer.Err() == nil {
			return dayfly.Errorf(dayfly.CodeTimeout, "git did not end within %s", patience)
		}
		return outer.Err()
	}
	text := readable(scrub(strings.TrimSpace(stderr.String()), with.token))
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
		"GIT_CONFIG_NOSYSTEM=1", "GIT_ALLOW_PROTOCOL=file:git:http:https:ssh", "GIT_TERMINAL_PROMPT=0", "GIT_LFS_SKIP_SMUDGE=1", "LC_ALL=C",
		"GIT_SSH_COMMAND=ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=20 -o ServerAliveCountMax=3", "GIT_CONFIG_GLOBAL=" + s.config, "GIT_ASKPASS=true",
	}
	for _, name := range []string{"PATH", "HOME", "SSH_AUTH_SOCK", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "XDG_CONFIG_HOME"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// access is a token and the host that may see it.
type access struct {
	token  dayfly.Secret
	origin string // scheme://host:port
}

// memory makes a file without a name that holds the user's name and password, and
// whom they are for.
func memory(with access) (*os.File, error) {
	fd, err := unix.MemfdCreate("credential", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "credential")
	user, password, ok := strings.Cut(with.token.Reveal(), ":")
	if !ok {
		// The hosts that take a token alone take it as the password of anybody.
		user, password = "x-access-token", with.token.Reveal()
	}
	if _, err := f.WriteString(user + "\n" + password + "\n" + with.origin + "\n"); err != nil {
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

// readable takes what could steer a terminal out of what a remote has said.
func readable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
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

// writeConfigs writes git's global configuration twice: with nothing in it, and with
// how the server's user gets at credentials, for when there is no token. The rest of what
// he has configured could run something, and is left out.
func (s *Source) writeConfigs() error {
	s.plain, s.config = filepath.Join(s.Dir, "gitconfig"), filepath.Join(s.Dir, "gitconfig-credentials")
	for _, file := range []string{s.plain, s.config} {
		// A file, for upload-pack of a local repository is told nothing by arguments.
		if err := os.WriteFile(file, []byte("[safe]\n\tdirectory = *\n"), 0o600); err != nil {
			return err
		}
	}
	out, err := exec.Command("git", "config", "--global", "--includes", "--null", "--get-regexp", `^credential\.`).Output() //nolint:forbidigo // fixed arguments
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrNotFound) {
		return err
	}
	for entry := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		key, value, ok := strings.Cut(entry, "\n")
		switch {
		case key == "":
			continue
		case !ok:
			value = "true"
		}
		if err := exec.Command("git", "config", "--file", s.config, "--add", key, value).Run(); err != nil { //nolint:forbidigo // the user's own configuration
			return fmt.Errorf("taking over %s of the user's git configuration: %w", key, err)
		}
	}
	return nil
}
