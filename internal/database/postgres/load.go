//go:build linux

package postgres

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/database"
)

// loadPort names the socket of a cluster that is being loaded; it has no TCP.
const loadPort = 5432

// temporary is what the database is called while it is loaded: a dump may make one of any other name.
const temporary = "dayfly_load"

// load is a Load under way.
type load struct {
	database.Load
	e        *Engine
	a        account
	dir      string
	work     string // goes before the freeze
	c        *cluster
	password string // of the loader
	name     string // of the database
	jobs     int
	taken    atomic.Int64
	step     atomic.Pointer[string]
}

// Load makes a folder's cluster from a source. Its server has no TCP, and it is shut down in the end.
func (e *Engine) Load(ctx context.Context, dir string, l database.Load) (_ database.Template, err error) {
	defer func() { err = explain(dir, err) }()
	if l.Database == "" || len(l.Database) > 63 || strings.ContainsAny(l.Database, "\x00/") || l.Database == temporary {
		return database.Template{}, dayfly.Invalid(dayfly.Problem{Field: "database", Message: fmt.Sprintf("%q cannot be the name of a database", l.Database)})
	}
	a, err := e.account(ctx)
	if err != nil {
		return database.Template{}, err
	}
	t := &load{Load: l, e: e, a: a, dir: dir, work: filepath.Join(dir, "work"), password: rand.Text(), jobs: min(4, runtime.NumCPU())}
	if err := errors.Join(a.own(dir), os.Chmod(dir, 0o700)); err != nil {
		return database.Template{}, err
	}
	defer t.report()()
	defer func() {
		err = errors.Join(err, os.RemoveAll(t.work))
		if err != nil {
			err = errors.Join(err, e.Stop(context.WithoutCancel(ctx), dir, false))
		}
	}()
	if err := a.mkdir(t.work); err != nil {
		return database.Template{}, err
	}
	if err := t.source(ctx); err != nil {
		return database.Template{}, err
	}
	for _, s := range []struct {
		what string
		sql  []byte
	}{{"the fixtures", l.Fixtures}, {"the mask", l.Mask}} {
		if len(s.sql) == 0 {
			continue
		}
		t.says("running " + s.what)
		if err := t.c.script(ctx, s.what, t.script(bytes.NewReader(s.sql), t.name)); err != nil {
			return database.Template{}, err
		}
	}
	if len(l.Mask) > 0 {
		t.says("masking")
		if err := t.renew(ctx); err != nil {
			return database.Template{}, fmt.Errorf("what the mask left cannot be copied: %w", err)
		}
	}
	t.says("freezing")
	if err := t.settle(ctx); err != nil {
		return database.Template{}, err
	}
	crash.Point("load.settled")
	if err := t.c.stop(ctx, true); err != nil {
		return database.Template{}, err
	}
	crash.Point("load.stopped")
	// What a server said may have values in it.
	if err := errors.Join(remove(t.c.log), e.Stop(ctx, dir, true)); err != nil {
		return database.Template{}, err
	}
	if err := a.writeNote(dir, note{Database: t.name, Owner: owner, Version: t.c.p.version()}); err != nil {
		return database.Template{}, err
	}
	bytes, err := size(t.c.data)
	return database.Template{ID: l.ID, Engine: e.Name(), Version: t.c.p.version(), Database: t.name, Bytes: bytes}, err
}

func (t *load) script(r io.Reader, name string) script {
	return script{in: r, host: t.e.socketsOf(t.c.data), user: loader, password: t.password, database: name}
}

// says notes what is done next.
func (t *load) says(step string) {
	t.step.Store(&step)
	crash.Point("load." + step)
}

// report tells how far the load is until the function that it gives is called.
func (t *load) report() func() {
	t.says("starting")
	if t.Progress == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		var last database.Progress
		for pause(ctx, 200*time.Millisecond) == nil {
			if now := (database.Progress{Step: *t.step.Load(), Bytes: t.taken.Load(), Total: t.Source.Size}); now != last {
				t.Progress(now)
				last = now
			}
		}
		t.Progress(database.Progress{Step: *t.step.Load(), Bytes: t.taken.Load(), Total: t.Source.Size})
	}()
	return func() { cancel(); <-done }
}

// counted counts what is read of a source.
type counted struct {
	r io.Reader
	n *atomic.Int64
}

// Read reads on.
func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// source makes the cluster with what the source has, and leaves its server running.
func (t *load) source(ctx context.Context) error {
	switch s := t.Source; {
	case s.Dir != "":
		return t.fromDir(ctx, s.Dir)
	case s.URL != "":
		return t.fromURL(ctx, s.URL)
	case s.Dump != nil:
		// Looked at first: what is no dump need not wait for a cluster.
		t.says("loading")
		b, k, err := open(counted{s.Dump, &t.taken})
		if err != nil {
			return err
		}
		p, err := t.e.newest(ctx)
		if err != nil {
			return err
		}
		if err := t.fresh(ctx, p, dataOf(t.dir)); err != nil {
			return err
		}
		if err := t.c.run(ctx, "postgres", "CREATE DATABASE "+temporary); err != nil {
			return err
		}
		if k == plain {
			return t.plainDump(ctx, b)
		}
		return t.archived(ctx, b, k)
	default:
		p, err := t.e.newest(ctx)
		if err != nil {
			return err
		}
		t.name = t.Database
		if err := t.fresh(ctx, p, dataOf(t.dir)); err != nil || t.name == "postgres" {
			return err
		}
		return t.c.run(ctx, "postgres", "CREATE DATABASE "+quoteName(t.name))
	}
}

// cluster gives the cluster in data with the settings for loading.
func (t *load) cluster(p programs, data string) (*cluster, error) {
	sockets, err := t.e.sockets(t.a, data)
	if err != nil {
		return nil, err
	}
	c := &cluster{e: t.e, p: p, a: t.a, dir: t.dir, data: data, log: logOf(t.dir), port: loadPort}
	if err := c.configure(t.settings(sockets), ""); err != nil {
		return nil, err
	}
	return c, t.a.write(filepath.Join(data, "pg_hba.conf"), []byte("local all "+admin+","+renamer+" peer map=dayfly\nlocal all "+loader+" scram-sha-256\n"))
}

func (t *load) settings(sockets string) map[string]string {
	s := loading(t.jobs)
	s["listen_addresses"], s["port"], s["unix_socket_directories"] = "", strconv.Itoa(loadPort), sockets
	return s
}

// fresh makes an empty cluster and starts its server.
func (t *load) fresh(ctx context.Context, p programs, data string) error {
	c := &cluster{e: t.e, p: p, a: t.a, dir: t.dir, data: data, port: loadPort}
	// Small segments of the log: a clone begins with one of its own.
	said, err := c.exec(ctx, program{name: "initdb", dir: t.work, args: []string{"--pgdata=" + data, "--username=" + admin, "--auth=reject", "--encoding=UTF8", "--locale=C.UTF-8", "--wal-segsize=1", "--no-sync"}})
	if errors.Is(err, fs.ErrPermission) {
		return dayfly.Errorf(dayfly.CodeFailed, "a database cluster cannot be made: the database server's user cannot enter a folder above %s: let everybody enter them (chmod o+x; `dayfly doctor` names them): %w", data, err)
	}
	if err != nil {
		return dayfly.Errorf(dayfly.CodeFailed, "a database cluster cannot be made: %w: %s", err, said.lines(10))
	}
	if t.c, err = t.cluster(p, data); err != nil {
		return err
	}
	return t.up(ctx, t.c)
}

// up starts a server that nobody but us gets at, and makes the loader.
func (t *load) up(ctx context.Context, c *cluster) error {
	s, err := c.start(ctx)
	if err != nil {
		return err
	}
	s.Close()
	return t.makeLoader(ctx, c)
}

// makeLoader makes the role that scripts and pg_restore run as.
func (t *load) makeLoader(ctx context.Context, c *cluster) error {
	secret, err := verifier(t.password)
	if err != nil {
		return err
	}
	return c.run(ctx, "template1", "CREATE ROLE "+loader+" LOGIN SUPERUSER PASSWORD '"+secret+"'")
}

// plainDump loads SQL. Roles that it refers to are made on the way.
func (t *load) plainDump(ctx context.Context, b *bufio.Reader) error {
	if err := t.runDump(ctx, b); err != nil {
		return err
	}
	return t.choose(ctx, "")
}

func (t *load) runDump(ctx context.Context, b *bufio.Reader) (err error) {
	conn, err := t.c.connect(ctx, admin, "postgres")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	s := &statements{r: b, made: map[string]bool{}, role: func(name string) error { return makeRole(ctx, conn, name) }}
	err = t.c.script(ctx, "the dump", t.script(s, temporary))
	if ctx.Err() != nil {
		return err
	}
	if s.err != nil && !errors.Is(s.err, io.EOF) {
		return s.err // why psql saw what it saw
	}
	if err == nil && !s.eof {
		err = dayfly.Errorf(dayfly.CodeFailed, "the dump ended psql at line %d, before its end", s.lines)
	}
	return err
}

// makeRole makes a role that a dump refers to where there is none.
func makeRole(ctx context.Context, conn *pgx.Conn, name string) error {
	if name == admin || name == loader || name == owner {
		return nil
	}
	_, err := conn.Exec(ctx, "CREATE ROLE "+quoteName(name)+" SUPERUSER") // so that it may own anything; until settle
	if isCode(err, "42710") || isCode(err, "42939") {                     // there, or a name that none can have
		return nil
	}
	return err
}

// choose finds out which database is the template's: the one that the source made, else our own one, which is called name, or as
// the template.
func (t *load) choose(ctx context.Context, name string) error {
	names, err := t.databases(ctx)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == temporary || n == "postgres" })
	switch {
	case len(names) == 0:
		t.name = orElse(name, t.Database)
		if t.name == "postgres" {
			// The cluster's own database of that name has nothing in it.
			if err := t.c.run(ctx, "template1", "DROP DATABASE postgres"); err != nil {
				return err
			}
		}
		return t.c.run(ctx, "template1", "ALTER DATABASE "+temporary+" RENAME TO "+quoteName(t.name))
	case len(names) == 1:
		t.name = names[0]
	case slices.Contains(names, t.Database):
		t.name = t.Database
	default:
		return dayfly.Errorf(dayfly.CodeInvalid, "the source has the databases %s: call the template as the one that is wanted", strings.Join(names, ", "))
	}
	if names, err := t.databases(ctx); err != nil || !slices.Contains(names, temporary) {
		return err
	}
	return t.c.run(ctx, t.name, "DROP DATABASE "+temporary)
}

// databases lists those that can be connected to, but for the templates of PostgreSQL itself.
func (t *load) databases(ctx context.Context) (names []string, err error) {
	return column(ctx, t.c, "template1", "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1")
}

// column gives the first column of a query.
func column(ctx context.Context, c *cluster, name, query string) (values []string, err error) {
	conn, err := c.connect(ctx, admin, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// archived loads what pg_restore reads.
func (t *load) archived(ctx context.Context, b *bufio.Reader, k kind) error {
	t.says("receiving")
	from, err := t.a.unpack(b, k, t.work)
	if err != nil {
		return err
	}
	t.says("loading")
	name, err := t.restore(ctx, from)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(from.path); err != nil {
		return err
	}
	return t.choose(ctx, name)
}

// restore runs pg_restore, and gives what the database was called.
func (t *load) restore(ctx context.Context, from archive) (string, error) {
	fail := func(said *tail, err error) error {
		if ctx.Err() != nil {
			return err
		}
		why := orElse(said.lines(10), err.Error())
		if strings.Contains(why, "end of file") {
			return dayfly.Errorf(dayfly.CodeInvalid, "the dump is truncated: it ends in the middle (%s)", why)
		}
		return dayfly.Errorf(dayfly.CodeFailed, "the dump cannot be restored: %s", why)
	}
	var list, schema bytes.Buffer
	if said, err := t.c.exec(ctx, program{name: "pg_restore", args: []string{"--list", "--format=" + from.format, from.path}, out: &list}); err != nil {
		return "", fail(said, err)
	}
	// The roles that policies and privileges refer to.
	if said, err := t.c.exec(ctx, program{name: "pg_restore", args: []string{"--schema-only", "--file=-", "--format=" + from.format, from.path}, out: &schema}); err != nil {
		return "", fail(said, err)
	}
	conn, err := t.c.connect(ctx, admin, "postgres")
	if err != nil {
		return "", err
	}
	made := map[string]bool{}
	for line := range bytes.Lines(schema.Bytes()) {
		for _, role := range rolesIn(line) {
			if !made[role] {
				made[role] = true
				err = errors.Join(err, makeRole(ctx, conn, role))
			}
		}
	}
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return "", err
	}
	args := []string{"--dbname=" + temporary, "--host=" + t.e.socketsOf(t.c.data), "--port=" + strconv.Itoa(t.c.port), "--username=" + loader, "--no-password",
		"--exit-on-error", "--no-owner", "--no-tablespaces", "--no-publications", "--no-subscriptions", "--format=" + from.format}
	if from.format != "tar" {
		args = append(args, "--jobs="+strconv.Itoa(t.jobs))
	}
	said, err := t.c.exec(ctx, program{name: "pg_restore", args: append(args, from.path), env: []string{"PGPASSWORD=" + t.password}})
	if err != nil {
		return "", fail(said, err)
	}
	for line := range strings.Lines(list.String()) {
		if name, ok := strings.CutPrefix(line, ";     dbname: "); ok {
			return strings.TrimSpace(name), nil
		}
	}
	return "", nil
}
