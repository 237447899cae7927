//go:build linux

package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// stranger is who reads what users send: neither root nor the owner of any database's files.
func (a account) stranger() account {
	if !a.switched {
		return a
	}
	return account{name: "nobody", uid: 65534, gid: 65534, switched: true}
}

// tail keeps the last of what a program prints.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// Write keeps the end of what was written so far.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > 16<<10 {
		t.b = append([]byte(nil), t.b[len(t.b)-8<<10:]...)
	}
	return len(p), nil
}

// lines gives the last lines, without what only says that all is well.
func (t *tail) lines(n int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var kept []string
	for line := range strings.Lines(string(bytes.ToValidUTF8(t.b, []byte("?")))) {
		line = strings.TrimRight(line, "\r\n")
		if line != "" && !strings.Contains(line, "NOTICE:") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept[max(0, len(kept)-n):], "\n")
}

// program is a run of one of PostgreSQL's programs.
type program struct {
	name string
	args []string
	env  []string // besides that of all
	dir  string   // default: that of the cluster
	as   *account // default: the owner of the cluster
	in   io.Reader
	out  io.Writer
}

// exec runs a program to its end. What it started ends with it.
func (c *cluster) exec(ctx context.Context, p program) (said *tail, err error) {
	said = &tail{}
	as := c.a
	if p.as != nil {
		as = *p.as
	}
	cmd := exec.CommandContext(ctx, c.p.path(p.name), p.args...) //nolint:forbidigo // a program of PostgreSQL; whatever users gave is a value of an option in --name=value, or standard input
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = append(c.env(), p.env...), p.dir, p.in, p.out, said
	if cmd.Dir == "" {
		cmd.Dir = c.dir
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: as.credential()}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind; there may be nothing
	}
	if ctx.Err() != nil {
		return said, context.Cause(ctx)
	}
	if err != nil {
		return said, fmt.Errorf("%s failed: %w", p.name, err)
	}
	return said, nil
}

// script is SQL that psql runs.
type script struct {
	in                             io.Reader
	host, user, password, database string
}

var atLine = regexp.MustCompile(`(?m)^psql:<stdin>:(\d+): (ERROR|FATAL|PANIC|error):\s*(.*)$`)

// script runs SQL and stops at the first mistake. Commands of psql in it run as a stranger, in an empty folder.
func (c *cluster) script(ctx context.Context, what string, s script) (err error) {
	stranger := c.a.stranger()
	work := filepath.Join(c.e.socketsOf(c.data), "w")
	if err := errors.Join(os.RemoveAll(work), stranger.mkdir(work)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	said, err := c.exec(ctx, program{
		name: "psql",
		args: []string{"--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--output=/dev/null", "--file=-",
			"--host=" + s.host, "--port=" + strconv.Itoa(c.port), "--username=" + s.user},
		env: []string{"PGPASSWORD=" + s.password, "PGDATABASE=" + s.database, "HOME=" + work, "PGCLIENTENCODING=UTF8", "PGOPTIONS=-c client_min_messages=warning", "PSQL_HISTORY=/dev/null"},
		dir: work, as: &stranger, in: s.in,
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	text := said.lines(10)
	if at := atLine.FindStringSubmatchIndex(text); at != nil {
		return dayfly.Errorf(dayfly.CodeFailed, "%s failed at line %s: %s", what, text[at[2]:at[3]], text[at[4]:])
	}
	return dayfly.Errorf(dayfly.CodeFailed, "%s failed: %s", what, orElse(text, err.Error()))
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}
