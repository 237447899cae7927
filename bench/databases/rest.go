//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/bench/lab"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot/loop"
)

// device makes a file system on a sparse file.
func (h *host) device(mkfs []string, bytes int64) error {
	file, mount := filepath.Join(h.folder, "device"), filepath.Join(h.folder, "mnt")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(file, bytes); err != nil {
		return err
	}
	if err := os.Mkdir(mount, 0o711); err != nil { //nolint:gosec // PostgreSQL's user passes through
		return err
	}
	if out, err := exec.Command(mkfs[0], append(mkfs[1:], file)...).CombinedOutput(); err != nil { //nolint:gosec // programs of ours
		return fmt.Errorf("%s: %w: %s", mkfs[0], err, out)
	}
	dev, err := loop.Attach(file)
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := unix.Mount(dev.Name(), mount, map[string]string{"mkfs.btrfs": "btrfs", "mkfs.xfs": "xfs"}[mkfs[0]], unix.MS_NOATIME, ""); err != nil {
		return err
	}
	h.mount = mount
	return os.Chmod(mount, 0o711) //nolint:gosec // PostgreSQL's user passes through
}

// close takes everything away.
func (h *host) close() (err error) {
	ctx := context.Background()
	if h.cloner != nil {
		names, listed := h.cloner.List(ctx)
		err = listed
		for _, name := range names {
			if path, attached := h.cloner.Attach(ctx, name); attached == nil {
				err = errors.Join(err, h.engine.Stop(ctx, path, false))
			}
		}
		if h.keeper != nil {
			err = errors.Join(err, h.keeper.Close())
		}
		data := filepath.Join(h.folder, "data")
		if h.mount != "" {
			data = filepath.Join(h.mount, "data")
		}
		err = errors.Join(err, snapshot.Destroy(ctx, data, nil))
	}
	if h.mount != "" {
		_, unmounted := loop.Unmount(h.mount)
		err = errors.Join(err, unmounted)
	}
	return err
}

// baseline is a clone that databases are made in as one does without dayfly, with the same settings: without fsync.
type baseline struct {
	h    *host
	c    database.Clone
	dump string
	n    int
}

func newBaseline(ctx context.Context, h *host, top string) (*baseline, error) {
	c, err := h.want(ctx)
	if err != nil {
		return nil, err
	}
	b := &baseline{h: h, c: c, dump: filepath.Join(top, "dump")}
	if err := h.keeper.Ensure(ctx, c); err != nil {
		return nil, err
	}
	return b, b.program(ctx, "pg_dump", "-Fc", "-Z", "1", "-f", b.dump, "-d", url(c, "shop"))
}

func (b *baseline) program(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, filepath.Join(b.h.programs, name), args...).CombinedOutput() //nolint:gosec // programs of PostgreSQL
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

func (b *baseline) createdb(ctx context.Context, strategy string) (time.Duration, error) {
	return b.made(ctx, func(name string) error {
		return execute(ctx, url(b.c, "postgres"), "CREATE DATABASE "+name+" TEMPLATE shop STRATEGY "+strategy)
	})
}

func (b *baseline) restore(ctx context.Context) (time.Duration, error) {
	return b.made(ctx, func(name string) error {
		if err := execute(ctx, url(b.c, "postgres"), "CREATE DATABASE "+name); err != nil {
			return err
		}
		return b.program(ctx, "pg_restore", "-j", "2", "--no-owner", "-d", url(b.c, name), b.dump)
	})
}

func (b *baseline) made(ctx context.Context, f func(name string) error) (time.Duration, error) {
	b.n++
	name := "made" + strconv.Itoa(b.n)
	begun := time.Now()
	err := f(name)
	if err == nil {
		err = execute(ctx, url(b.c, name), "SELECT 1")
	}
	took := time.Since(begun)
	if err != nil {
		return 0, err
	}
	return took, execute(ctx, url(b.c, "postgres"), "DROP DATABASE "+name)
}

func (b *baseline) close(ctx context.Context) error { return b.h.keeper.Remove(ctx, b.c.ID) }

// server measures what users do: dayfly db create, and the API, on a server with what it takes by itself, and with
// so many spares.
func server(ctx context.Context, o options, spares int) error {
	l, err := lab.New(o.binary)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := os.Chmod(l.Dir, 0o755); err != nil { //nolint:gosec // it is meant to be entered
		return err
	}
	if _, err := l.Start("--take-down", "--db-ports", "21000-28999", "--db-spares", strconv.Itoa(spares)); err != nil {
		return err
	}
	defer func() { _ = l.Stop() }() // takes down what it made; that it ends, l.Close sees to
	binary, err := filepath.Abs(o.binary)
	if err != nil {
		return err
	}
	file := filepath.Join(l.Dir, "fixtures.sql")
	if err := os.WriteFile(file, fixtures(o.sizes[0]), 0o600); err != nil {
		return err
	}
	command := func(args ...string) ([]byte, error) {
		out, err := exec.CommandContext(ctx, binary, append([]string{"--server", l.API}, args...)...).CombinedOutput() //nolint:gosec // our own binary
		if err != nil {
			return nil, fmt.Errorf("%v: %w: %s", args, err, out)
		}
		return out, nil
	}
	if _, err := command("template", "create", "shop", "--fixtures", file); err != nil {
		return err
	}
	ready := func() error {
		if spares == 0 {
			return nil
		}
		return spareIn(filepath.Join(l.Data, "databases", "records"))
	}
	times := map[string][]time.Duration{}
	for n := range o.rounds + 1 {
		if err := ready(); err != nil {
			return err
		}
		begun := time.Now()
		out, err := command("db", "create")
		if err == nil {
			err = execute(ctx, string(bytes.TrimSpace(out)), "SELECT 1")
		}
		cli := time.Since(begun)
		if err != nil {
			return err
		}
		if err := ready(); err != nil {
			return err
		}
		begun = time.Now()
		status, text, err := l.Call(http.MethodPost, "/v1/databases", map[string]string{"name": "of-api-" + strconv.Itoa(n)})
		var d dayfly.Database
		if err == nil {
			err = json.Unmarshal(text, &d)
		}
		if err != nil || status >= 300 {
			return fmt.Errorf("the API answered %d: %s: %w", status, text, err)
		}
		// The address is final at once: whoever connects too early tries again.
		if err := lab.Until(time.Minute, func() bool { return execute(ctx, d.URL, "SELECT 1") == nil }); err != nil {
			return err
		}
		if api := time.Since(begun); n > 0 { // the first one warms
			times["cli"], times["api"] = append(times["cli"], cli), append(times["api"], api)
		}
	}
	fmt.Printf("\nThrough the server with %d spares, template of %d MB, to SELECT 1: dayfly db create %s, POST /v1/databases %s\n", spares, o.sizes[0], round(lab.At(times["cli"], 50)), round(lab.At(times["api"], 50)))
	return nil
}
