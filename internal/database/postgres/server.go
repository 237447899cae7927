//go:build linux

package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database"
)

// maxLog is how large what a server says may become before a start begins it anew.
const maxLog = 8 << 20

// cluster is a data folder with the programs that fit it.
type cluster struct {
	e    *Engine
	p    programs
	a    account
	dir  string // that was handed out: programs started for it are marked with it
	data string
	log  string
	port int
}

// configure writes all files that a server reads at its start. Those that are right already stay.
func (c *cluster) configure(settings map[string]string, user string) error {
	names := []string{c.a.name, "root"}
	for name, content := range map[string][]byte{
		"postgresql.conf": configuration(settings, nil), "postgresql.auto.conf": nil, "pg_hba.conf": hba(user), "pg_ident.conf": ident(names...),
	} {
		path := filepath.Join(c.data, name)
		if was, err := os.ReadFile(path); err == nil && bytes.Equal(was, content) {
			continue
		}
		if err := c.a.write(path, content); err != nil {
			return err
		}
	}
	return nil
}

// start starts the server, and returns when it says that it is ready. Nothing of an earlier one runs any more.
func (c *cluster) start(ctx context.Context) (_ *server, err error) {
	// One that ended by itself took its number along. Looking at all processes of a host is not for nothing.
	if _, err := os.Lstat(filepath.Join(c.data, "postmaster.pid")); !errors.Is(err, fs.ErrNotExist) {
		if err := killIn(ctx, c.data); err != nil { // what a killed server left
			return nil, err
		}
	}
	out, err := c.openLog()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	begin, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	if err := c.forgetServer(); err != nil {
		return nil, err
	}
	pid, err := syscall.ForkExec(c.p.path("postgres"), []string{"postgres", "-D", c.data}, &syscall.ProcAttr{
		Dir: c.data, Env: c.env(), Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: c.a.credential()},
	})
	if err != nil {
		return nil, fmt.Errorf("postgres cannot be started: %w", err)
	}
	s, err := watch(pid, "")
	if err != nil {
		return nil, errors.Join(err, killIn(context.WithoutCancel(ctx), c.data))
	}
	if err := c.awaitReady(ctx, s, begin); err != nil {
		s.Close()
		return nil, errors.Join(err, killIn(context.WithoutCancel(ctx), c.data))
	}
	return s, nil
}

func (c *cluster) openLog() (*os.File, error) {
	flags := os.O_CREATE | os.O_APPEND | os.O_WRONLY
	if info, err := os.Stat(c.log); err == nil && info.Size() > maxLog {
		flags |= os.O_TRUNC
	}
	out, err := os.OpenFile(c.log, flags|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return out, c.a.own(c.log)
}

// env is the environment of every program.
func (c *cluster) env() []string {
	return []string{"PATH=" + c.p.dir + ":/usr/local/bin:/usr/bin:/bin", "HOME=" + c.dir, "LANG=C.UTF-8", "TZ=UTC", "PGTZ=UTC", marker + c.dir}
}

// awaitReady waits until the server has written that it is ready.
func (c *cluster) awaitReady(ctx context.Context, s *server, begin int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.e.o.StartTimeout, fmt.Errorf("PostgreSQL took longer than %s", c.e.o.StartTimeout))
	defer cancel()
	for {
		b, err := os.ReadFile(filepath.Join(c.data, "postmaster.pid"))
		if lines := strings.Split(string(b), "\n"); err == nil && len(lines) > 7 && lines[0] == strconv.Itoa(s.pid) && strings.TrimSpace(lines[7]) == "ready" {
			return nil
		}
		select {
		case <-s.ended:
			return dayfly.Errorf(dayfly.CodeFailed, "PostgreSQL ended while it started: %s", c.said(begin))
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), ctx.Err()) {
				return ctx.Err()
			}
			return dayfly.Errorf(dayfly.CodeTimeout, "%w and was ended: %s", context.Cause(ctx), c.said(begin))
		case <-time.After(time.Millisecond):
		}
	}
}

// usual is what a server says that starts as it should, and stamp the time in front of a line.
var (
	usual = regexp.MustCompile(`LOG:  (starting PostgreSQL|listening on|database system|received|redo|shutting down|all server processes|checkpoint|invalid record length)`)
	stamp = regexp.MustCompile(`^\d{4}-\d\d-\d\d [\d:.]+ [A-Z]+ `)
)

// said gives the last lines of the server's log from begin on.
func (c *cluster) said(begin int64) string {
	f, err := os.Open(c.log)
	if err != nil {
		return "it said nothing"
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size()-begin > 4096 {
		begin = info.Size() - 4096
	}
	b, _ := io.ReadAll(io.NewSectionReader(f, begin, 4096)) // what can be read
	lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(b)), "\n"), usual.MatchString)
	for i, line := range lines {
		lines[i] = stamp.ReplaceAllString(line, "")
	}
	if len(lines) > 10 {
		lines = lines[len(lines)-10:]
	}
	if text := strings.TrimSpace(strings.Join(lines, "\n")); text != "" {
		return text
	}
	return "it said nothing"
}

// connect connects to a database as a superuser of ours.
func (c *cluster) connect(ctx context.Context, role, name string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig("")
	if err != nil {
		return nil, err
	}
	config.Host, config.Port = c.e.socketsOf(c.data), uint16(c.port) //nolint:gosec // a port
	config.User, config.Database, config.Password, config.TLSConfig, config.Fallbacks = role, name, "", nil, nil
	// What the owner of a database set for everybody is not for us.
	config.RuntimeParams = map[string]string{"application_name": "dayfly", "search_path": "pg_catalog", "default_transaction_read_only": "off", "statement_timeout": "0", "lock_timeout": "0"}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	config.ConnectTimeout = time.Minute
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL takes no connections: %w", err)
	}
	return conn, nil
}

// run executes statements as our superuser, each by itself.
func (c *cluster) run(ctx context.Context, name string, statements ...string) (err error) {
	conn, err := c.connect(ctx, admin, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// stop ends the server, if one runs: cleanly, or at once.
func (c *cluster) stop(ctx context.Context, clean bool) error {
	if pid := postmaster(c.data); pid != 0 {
		s, err := watch(pid, c.data)
		if err != nil {
			return err
		}
		defer s.Close()
		resume(pid, c.data)
		signal, patience := syscall.SIGQUIT, time.NewTimer(5*time.Second) // "immediate": it takes its shared memory away
		if clean {
			signal, patience = syscall.SIGINT, time.NewTimer(10*time.Minute) // "fast": connections are ended
		}
		defer patience.Stop()
		_ = syscall.Kill(pid, signal) // gone already is as good
		select {
		case <-s.ended:
		case <-patience.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := killIn(ctx, c.data); err != nil {
		return err // and the number says that something may run
	}
	return c.forgetServer()
}

// forgetServer takes away what a server that was killed left: its number, which another process may have by now and
// which would keep the next one from starting, and its shared memory, of which a host has only so many.
func (c *cluster) forgetServer() error {
	path := filepath.Join(c.data, "postmaster.pid")
	b, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if lines := strings.Split(string(b), "\n"); len(lines) > 6 {
		if fields := strings.Fields(lines[6]); len(fields) == 2 {
			var found unix.SysvShmDesc
			id, err := strconv.Atoi(fields[1])
			// In a copy of a folder it is the memory of the server of the original.
			if err == nil {
				if _, err = unix.SysvShmCtl(id, unix.IPC_STAT, &found); err == nil && found.Nattch == 0 && int(found.Perm.Uid) == c.a.uid {
					_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) // as good as gone
				}
			}
		}
	}
	return remove(path)
}

// remove takes a file away that may not be there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// of gives the cluster of a folder.
func (e *Engine) of(ctx context.Context, dir string, port int) (*cluster, note, error) {
	n, err := readNote(dir)
	if err != nil {
		return nil, n, err
	}
	p, err := e.major(ctx, n.Version)
	if err != nil {
		return nil, n, err
	}
	a, err := e.account(ctx)
	if err != nil {
		return nil, n, err
	}
	return &cluster{e: e, p: p, a: a, dir: dir, data: dataOf(dir), log: logOf(dir), port: port}, n, nil
}

// settings are those of a clone.
func (c *cluster) settings(clone database.Clone) map[string]string {
	s := throwaway()
	for name, value := range clone.Settings {
		s[strings.ToLower(name)] = value
	}
	listen := "127.0.0.1"
	switch clone.Listen {
	case "", "127.0.0.1", "localhost":
	case "0.0.0.0", "::", "*":
		listen = clone.Listen
	default:
		listen += "," + clone.Listen
	}
	s["listen_addresses"] = listen
	s["port"] = strconv.Itoa(clone.Port)
	s["unix_socket_directories"] = c.e.socketsOf(c.data)
	return s
}

// Start starts the server of a folder, or finds the one that runs, and returns when it takes connections.
func (e *Engine) Start(ctx context.Context, dir string, clone database.Clone) (_ database.Server, err error) {
	defer func() { err = explain(dir, err) }()
	c, n, err := e.of(ctx, dir, clone.Port)
	if err != nil {
		return nil, err
	}
	s, err := c.running(ctx)
	if err != nil {
		return nil, err
	}
	if s != nil {
		return s, nil
	}
	s, err = e.startClone(ctx, c, clone)
	if err != nil {
		return nil, err
	}
	conn, err := c.connect(ctx, admin, n.Database)
	if err == nil {
		err = conn.Close(ctx)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// running gives the server that runs, once it takes connections; nil = none.
func (c *cluster) running(ctx context.Context) (*server, error) {
	pid := postmaster(c.data)
	if pid == 0 {
		return nil, nil
	}
	if state(pid) == 'T' { // we ended while it was halted: halt begins with this one, and resume ends with it
		resume(pid, c.data)
	}
	s, err := watch(pid, c.data)
	if err != nil {
		return nil, err
	}
	select {
	case <-s.ended:
		s.Close()
		return nil, nil
	default:
	}
	if err := c.awaitReady(ctx, s, 0); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// startClone starts the server of a clone that has none.
func (e *Engine) startClone(ctx context.Context, c *cluster, clone database.Clone) (*server, error) {
	if err := errors.Join(checkUser(clone.User), CheckSettings(clone.Settings)); err != nil {
		return nil, err
	}
	if _, err := e.sockets(c.a, c.data); err != nil {
		return nil, err
	}
	if err := c.configure(c.settings(clone), clone.User); err != nil {
		return nil, err
	}
	return c.start(ctx)
}

// Stop ends the server of a folder and whatever runs for it, and returns when nothing does. A folder without one is no error.
func (e *Engine) Stop(ctx context.Context, dir string, clean bool) error {
	a, err := e.account(ctx)
	if err != nil {
		return err
	}
	c := &cluster{e: e, a: a, dir: dir, data: dataOf(dir)}
	if err := c.stop(ctx, clean); err != nil {
		return err
	}
	// A load that was ended may have left a second server.
	aside := &cluster{e: e, a: a, dir: dir, data: asideOf(dir)}
	if _, err := os.Lstat(aside.data); err == nil {
		if err := aside.stop(ctx, false); err != nil {
			return err
		}
	}
	return errors.Join(killAll(ctx, dir), os.RemoveAll(e.socketsOf(c.data)), os.RemoveAll(e.socketsOf(aside.data)))
}

// Quiesce makes a clone's files stand still: what it has in memory is written, and its processes are halted until
// release is called. A copy starts as after a crash of the server at that moment.
func (e *Engine) Quiesce(ctx context.Context, dir string, clone database.Clone) (func(), error) {
	c, n, err := e.of(ctx, dir, clone.Port)
	if err != nil {
		return nil, err
	}
	pid := postmaster(c.data)
	if pid == 0 {
		return func() {}, nil
	}
	// Keeps the recovery of the copy short.
	if err := c.run(ctx, n.Database, "CHECKPOINT"); err != nil {
		return nil, err
	}
	if err := halt(ctx, pid, c.data); err != nil {
		resume(pid, c.data)
		return nil, err
	}
	return func() { resume(pid, c.data) }, nil
}
