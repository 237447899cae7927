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
	"net/url"
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

// fromDir copies the data folder of a server that does not run.
func (t *load) fromDir(ctx context.Context, from string) error {
	t.says("copying")
	p, err := t.e.ofDir(ctx, from)
	if err != nil {
		return err
	}
	if from, err = filepath.EvalSymlinks(from); err != nil {
		return err
	}
	if b, err := os.ReadFile(filepath.Join(from, "postmaster.pid")); err == nil {
		pid, _, _ := strings.Cut(string(b), "\n")
		if n, err := strconv.Atoi(pid); err == nil && inside(n, from) {
			return dayfly.Errorf(dayfly.CodeConflict, "a server runs on %s (pid %s): stop it, or load from its address with --from-url", from, pid)
		}
	}
	spaces, err := os.ReadDir(filepath.Join(from, "pg_tblspc"))
	if err != nil {
		return dayfly.Errorf(dayfly.CodeInvalid, "%s is no data folder of PostgreSQL: %w", from, err)
	}
	if len(spaces) > 0 {
		return dayfly.Errorf(dayfly.CodeInvalid, "%s has tablespaces outside of the folder: load from a dump or, with the server running, from its address", from)
	}
	if err := t.copyTree(ctx, from, dataOf(t.dir)); err != nil {
		return err
	}
	return t.adopt(ctx, p, t.Database)
}

// copyTree copies files and folders; of links only those of pg_wal are followed.
func (t *load) copyTree(ctx context.Context, from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return t.a.mkdir(target)
		case rel == "pg_wal" && d.Type()&fs.ModeSymlink != 0:
			real, err := filepath.EvalSymlinks(path)
			if err != nil {
				return err
			}
			return t.copyTree(ctx, real, target)
		case !d.Type().IsRegular():
			return nil
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		return t.a.spool(counted{in, &t.taken}, target)
	})
}

// adopt makes a copied cluster one of ours: our settings, our superuser, nobody else's right to log in.
func (t *load) adopt(ctx context.Context, p programs, name string) error {
	data := dataOf(t.dir)
	for _, file := range []string{"postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal"} {
		if err := remove(filepath.Join(data, file)); err != nil {
			return err
		}
	}
	var err error
	if t.c, err = t.cluster(p, data); err != nil {
		return err
	}
	// Before the first start the names of its roles are unknown: its single-user mode asks for none.
	makes := "DROP ROLE IF EXISTS " + renamer + ";\nDROP ROLE IF EXISTS " + loader + ";\nCREATE ROLE " + renamer + " LOGIN SUPERUSER;\n"
	t.says("recovering")
	said, err := t.c.exec(ctx, program{name: "postgres", args: []string{"--single", "-D", data, "template1"}, in: strings.NewReader(makes), out: io.Discard})
	if err != nil {
		return dayfly.Errorf(dayfly.CodeFailed, "the copied data folder cannot be started: %s", orElse(said.lines(10), err.Error()))
	}
	s, err := t.c.start(ctx)
	if err != nil {
		return err
	}
	s.Close()
	if err := t.rename(ctx); err != nil {
		return err
	}
	if err := errors.Join(t.c.run(ctx, "template1", "DROP ROLE "+renamer), t.makeLoader(ctx, t.c)); err != nil {
		return err
	}
	// A copy of a server must not take part in what the original does.
	names, err := t.databases(ctx)
	for _, n := range names {
		err = errors.Join(err, t.c.run(ctx, n, dropReplication))
	}
	if err != nil {
		return err
	}
	if slices.Contains(names, name) {
		t.name = name
		return nil
	}
	if mine := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "postgres" }); len(mine) == 1 {
		t.name = mine[0]
		return nil
	} else if len(mine) > 1 {
		return dayfly.Errorf(dayfly.CodeInvalid, "the source has the databases %s: call the template as the one that is wanted", strings.Join(mine, ", "))
	}
	if len(names) == 1 {
		t.name = names[0]
		return nil
	}
	return dayfly.Errorf(dayfly.CodeInvalid, "the source has no database")
}

// rename gives the superuser of a copied cluster the name of ours. The one who is connected cannot be renamed, so another
// one does it and goes.
func (t *load) rename(ctx context.Context) (err error) {
	conn, err := t.c.connect(ctx, renamer, "template1")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	var name string
	if err := conn.QueryRow(ctx, "SELECT rolname FROM pg_authid WHERE oid = 10").Scan(&name); err != nil {
		return err
	}
	if name != admin {
		if _, err := conn.Exec(ctx, "ALTER ROLE "+quoteName(name)+" RENAME TO "+admin); err != nil {
			return err
		}
		// Policies and privileges may go by its name.
		if _, err := conn.Exec(ctx, "CREATE ROLE "+quoteName(name)); err != nil {
			return err
		}
	}
	_, err = conn.Exec(ctx, "ALTER ROLE "+admin+" LOGIN SUPERUSER PASSWORD NULL")
	return err
}

const dropReplication = `DO $do$ DECLARE r record; BEGIN
	FOR r IN SELECT subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) LOOP
		EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', r.subname);
		EXECUTE format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', r.subname);
		EXECUTE format('DROP SUBSCRIPTION %I', r.subname);
	END LOOP;
	FOR r IN SELECT slot_name FROM pg_replication_slots WHERE NOT active LOOP
		PERFORM pg_drop_replication_slot(r.slot_name);
	END LOOP;
END $do$`

// fromURL copies a running server: all of it where it is of a version that is installed and lets us, else one database by a dump.
func (t *load) fromURL(ctx context.Context, address string) error {
	t.says("connecting")
	source, err := parseURL(address)
	if err != nil {
		return err
	}
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return dayfly.Errorf(dayfly.CodeInvalid, "the address of the server cannot be understood: give postgres://user:password@host:port/database")
	}
	config.ConnectTimeout = 30 * time.Second
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return dayfly.Errorf(dayfly.CodeFailed, "the server at %s cannot be reached: %w", source.Host, err)
	}
	var number int
	var replicates, spaces bool
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user),
		EXISTS (SELECT FROM pg_tablespace WHERE spcname NOT LIKE 'pg\_%')`).Scan(&number, &replicates, &spaces)
	name := config.Database
	if name == "" {
		name = config.User
	}
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return dayfly.Errorf(dayfly.CodeFailed, "the server at %s cannot be asked what it is: %w", source.Host, err)
	}
	major := number / 10000
	env := []string{"PGPASSWORD=" + config.Password, "PGCONNECT_TIMEOUT=30"}
	if p, err := t.e.major(ctx, strconv.Itoa(major)); err == nil && replicates && !spaces {
		err := t.baseBackup(ctx, p, source, env)
		if err == nil {
			return t.adopt(ctx, p, name)
		}
		if ctx.Err() != nil {
			return err
		}
		// Its pg_hba.conf may have no line for replication, or it has no room for another one.
		t.e.o.Logger.Info("the server is copied by a dump", "because", err)
		if err := os.RemoveAll(dataOf(t.dir)); err != nil {
			return err
		}
	}
	p, err := t.e.newest(ctx)
	if err != nil {
		return err
	}
	if p.major < major {
		return dayfly.Errorf(dayfly.CodeUnavailable, "the server at %s is PostgreSQL %d, newer than what is installed here: install it, on Debian and Ubuntu with `apt install postgresql-%d`, and restart dayfly", source.Host, major, major)
	}
	if err := t.fresh(ctx, p, dataOf(t.dir)); err != nil {
		return err
	}
	if err := t.c.run(ctx, "postgres", "CREATE DATABASE "+temporary); err != nil {
		return err
	}
	t.says("loading")
	to := archive{filepath.Join(t.work, "dump"), "directory"}
	said, err := t.c.exec(ctx, program{name: "pg_dump", dir: t.work, env: env,
		args: []string{"--dbname=" + source.String(), "--no-password", "--format=directory", "--compress=1", "--jobs=" + strconv.Itoa(t.jobs), "--file=" + to.path}})
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return dayfly.Errorf(dayfly.CodeFailed, "the server at %s cannot be dumped: %s", source.Host, orElse(said.lines(10), err.Error()))
	}
	if _, err := t.restore(ctx, to); err != nil {
		return err
	}
	if err := os.RemoveAll(to.path); err != nil {
		return err
	}
	return t.choose(ctx, name)
}

// parseURL checks an address, and takes the password out of it: others could read it among a program's arguments.
func parseURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return nil, dayfly.Errorf(dayfly.CodeInvalid, "the address of the server cannot be understood: give postgres://user:password@host:port/database")
	}
	// Through a socket of this host it would come as the user that our programs run as.
	if host := u.Hostname(); host == "" || strings.ContainsAny(host, "/@") {
		return nil, dayfly.Errorf(dayfly.CodeInvalid, "the address of the server has no host: give postgres://user:password@host:port/database")
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	q := u.Query()
	// What libpq would take from files of this host is not the business of whoever asks for a template.
	for key := range q {
		if !slices.Contains([]string{"sslmode", "connect_timeout", "target_session_attrs"}, key) {
			return nil, dayfly.Errorf(dayfly.CodeInvalid, "the address of the server has the parameter %q, which is not supported", key)
		}
	}
	return u, nil
}

// baseBackup copies the files of a running server.
func (t *load) baseBackup(ctx context.Context, p programs, source *url.URL, env []string) error {
	t.says("copying")
	c := &cluster{e: t.e, p: p, a: t.a, dir: t.dir, data: dataOf(t.dir)}
	said, err := c.exec(ctx, program{name: "pg_basebackup", dir: t.work, env: env,
		args: []string{"--dbname=" + source.String(), "--no-password", "--pgdata=" + c.data, "--format=plain", "--wal-method=stream", "--checkpoint=fast", "--no-sync"}})
	if err != nil {
		return fmt.Errorf("%w: %s", err, said.lines(5))
	}
	return nil
}

// renew moves the template's database to a cluster that was never written to, so that what the mask replaced is nowhere: not in rows that
// are dead, in free pages, statistics or the log.
func (t *load) renew(ctx context.Context) error {
	old := t.c
	aside := asideOf(t.dir)
	roles, err := column(ctx, old, t.name, "SELECT rolname FROM pg_roles WHERE rolname !~ '^(pg_|dayfly_)'")
	if err != nil {
		return err
	}
	encoding, err := column(ctx, old, t.name, `SELECT format('ENCODING %L LC_COLLATE %L LC_CTYPE %L', pg_encoding_to_char(encoding), datcollate, datctype) FROM pg_database WHERE datname = current_database()`)
	if err != nil {
		return err
	}
	if err := old.stop(ctx, true); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(old.data, aside), os.RemoveAll(t.e.socketsOf(old.data))); err != nil {
		return err
	}
	crash.Point("load.aside")
	if old, err = t.cluster(old.p, aside); err != nil {
		return err
	}
	s, err := old.start(ctx)
	if err != nil {
		return err
	}
	crash.Point("load.both")
	defer s.Close()
	if err := t.fresh(ctx, old.p, dataOf(t.dir)); err != nil {
		return err
	}
	var statements []string
	for _, role := range roles {
		statements = append(statements, "CREATE ROLE "+quoteName(role)+" SUPERUSER")
	}
	if t.name == "postgres" {
		statements = append(statements, "DROP DATABASE postgres")
	}
	statements = append(statements, "CREATE DATABASE "+quoteName(t.name)+" TEMPLATE template0 "+encoding[0])
	if err := t.c.run(ctx, "template1", statements...); err != nil {
		return err
	}
	// Two programs and a pipe: what is between them is on no disk.
	r, w := io.Pipe()
	dumped := make(chan error, 1)
	go func() {
		said, err := old.exec(ctx, program{name: "pg_dump", out: w, env: []string{"PGDATABASE=" + t.name, "PGPASSWORD=" + t.password},
			args: []string{"--host=" + t.e.socketsOf(old.data), "--port=" + strconv.Itoa(old.port), "--username=" + loader, "--no-password", "--format=custom", "--compress=0"}})
		if err != nil {
			err = fmt.Errorf("%w: %s", err, said.lines(5))
		}
		dumped <- err
		_ = w.CloseWithError(err) // always nil
	}()
	said, err := t.c.exec(ctx, program{name: "pg_restore", in: r, env: []string{"PGPASSWORD=" + t.password},
		args: []string{"--dbname=" + conninfo(t.name), "--host=" + t.e.socketsOf(t.c.data), "--port=" + strconv.Itoa(t.c.port), "--username=" + loader, "--no-password", "--exit-on-error", "--no-tablespaces"}})
	if err != nil {
		err = fmt.Errorf("%w: %s", err, said.lines(5))
	}
	_ = r.Close() // always nil
	if err := errors.Join(err, <-dumped); err != nil {
		return err
	}
	crash.Point("load.renewed")
	if err := old.stop(ctx, false); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(aside), os.RemoveAll(t.e.socketsOf(aside)))
}

// conninfo names a database where an = in its name would mean something.
func conninfo(name string) string {
	return "dbname='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(name) + "'"
}

// settle gives everything to one owner who is no superuser, takes all rights of the others to log in, and writes what clones would write
// otherwise, each for itself.
func (t *load) settle(ctx context.Context) error {
	names, err := t.databases(ctx)
	if err != nil {
		return err
	}
	if err := t.c.run(ctx, "template1", "DO $do$ BEGIN CREATE ROLE "+owner+" CREATEDB; EXCEPTION WHEN duplicate_object THEN NULL; END $do$"); err != nil {
		return err
	}
	for _, n := range names {
		if err := t.c.run(ctx, n, giveAll); err != nil {
			return fmt.Errorf("the objects of %s cannot be given to one owner: %w", n, err)
		}
	}
	if err := t.c.run(ctx, "template1", tame, "DROP ROLE "+loader); err != nil {
		return err
	}
	for _, n := range names {
		if err := t.c.run(ctx, n, "VACUUM (FREEZE, ANALYZE)"); err != nil {
			return err
		}
	}
	return t.c.run(ctx, "template1", "CHECKPOINT")
}

// size adds up the files of a folder.
func size(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}
