//go:build linux

package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dayfly-dev/dayfly/internal/crash"
)

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
