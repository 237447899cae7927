//go:build linux

package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dayfly-dev/dayfly"
)

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
