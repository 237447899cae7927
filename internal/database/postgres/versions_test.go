//go:build linux

package postgres

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database"
)

// with gives an engine in the same folders that finds these versions only.
func (w *world) with(versions ...programs) *world {
	o := w.o
	o.Programs = nil
	for _, p := range versions {
		o.Programs = append(o.Programs, p.dir)
	}
	return &world{New(o), w.t, w.root}
}

// versionOf gives the major version of a clone's server.
func versionOf(t *testing.T, c database.Clone) string {
	t.Helper()
	major, _, _ := strings.Cut(ask(t, c, "SHOW server_version"), ".")
	return major
}

func TestSeveralVersionsLiveSideBySide(t *testing.T) {
	both := newWorld(t)
	found, err := both.find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 2 {
		t.Skip("only one version of PostgreSQL is installed: DAYFLY_TEST_PROGRAMS names the folders of others")
	}
	newest, oldest := found[0], found[len(found)-1]
	was, now := both.with(oldest), both.with(newest)
	missing := func(t *testing.T, err error, of programs) {
		t.Helper()
		if dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !strings.Contains(err.Error(), "postgresql-"+of.version()) {
			t.Errorf("without version %s: %v", of.version(), err)
		}
	}
	item := []byte("CREATE TABLE item (name text);\nINSERT INTO item VALUES ('one');\n")

	old, tpl := was.load("old", database.Load{Fixtures: item})
	if tpl.Version != oldest.version() {
		t.Fatalf("the template is of version %s", tpl.Version)
	}
	dir, running := was.clone(old, "running")
	t.Run("what was made with the old version stays with it when a newer one is installed", func(t *testing.T) {
		w := &world{both.Engine, t, both.root}
		pid := was.started(dir, running).PID()
		if s := w.started(dir, running); s.PID() != pid {
			t.Errorf("the server was %d and is %d", pid, s.PID())
		}
		if err := w.Stop(t.Context(), dir, true); err != nil {
			t.Fatal(err)
		}
		w.started(dir, running)
		_, made := w.clone(old, "made")
		for _, c := range []database.Clone{running, made} {
			if got := versionOf(t, c); got != oldest.version() {
				t.Errorf("%s is of version %s", c.ID, got)
			}
			if got := ask(t, c, "SELECT name FROM item"); got != "one" {
				t.Errorf("%s has %q", c.ID, got)
			}
		}
	})
	t.Run("new templates are of the newest version", func(t *testing.T) {
		w := &world{both.Engine, t, both.root}
		from, tpl := w.load("new", database.Load{Fixtures: item})
		_, c := w.clone(from, "of new")
		if got := versionOf(t, c); tpl.Version != newest.version() || got != newest.version() {
			t.Errorf("the template is of version %s, its clone of %s", tpl.Version, got)
		}
	})
	t.Run("a version that is not installed any more is named", func(t *testing.T) {
		if err := both.Stop(t.Context(), dir, true); err != nil {
			t.Fatal(err)
		}
		_, err := now.Start(t.Context(), dir, running)
		missing(t, err, oldest)
		missing(t, now.Prepare(t.Context(), both.copied(old, "refused"), running), oldest)
		(&world{both.Engine, t, both.root}).started(dir, running)
	})

	o := newOriginOf(&world{was.Engine, t, both.root}, "former")
	t.Run("a dump of the old version is loaded into the new one", func(t *testing.T) {
		w := &world{both.Engine, t, both.root}
		for format, dump := range map[string][]byte{"plain": o.dump("shop"), "custom": o.dump("--format=custom", "shop")} {
			from, tpl := w.load("from "+format, database.Load{Source: database.Source{Dump: bytes.NewReader(dump)}})
			if tpl.Version != newest.version() {
				t.Errorf("the template of a %s dump is of version %s", format, tpl.Version)
			}
			everythingIsThere(w, from, "shop", "c "+format, "developer")
		}
	})
	address := func(o *origin) database.Load {
		return database.Load{ID: "x", Database: "shop", Source: database.Source{URL: fmt.Sprintf("postgres://postgres@127.0.0.1:%d/shop?sslmode=disable", o.port)}}
	}
	t.Run("a running server of the old version is copied as it is where that is installed, else dumped", func(t *testing.T) {
		for name, w := range map[string]*world{oldest.version(): both, newest.version(): now} {
			w := &world{w.Engine, t, w.root}
			from, tpl := w.load("server as "+name, address(o))
			if tpl.Version != name {
				t.Errorf("the template is of version %s, want %s", tpl.Version, name)
			}
			everythingIsThere(w, from, "shop", "c as "+name, "developer")
		}
	})
	t.Run("a running server that is too new is refused and named", func(t *testing.T) {
		o := newOriginOf(&world{now.Engine, t, both.root}, "latter")
		_, err := was.Load(t.Context(), both.dir("too new"), address(o))
		missing(t, err, newest)
	})
	t.Run("a data folder of a version that is not installed is refused and named", func(t *testing.T) {
		o.stop("fast")
		_, err := now.Load(t.Context(), both.dir("no folder"), database.Load{ID: "x", Database: "shop", Source: database.Source{Dir: o.data}})
		missing(t, err, oldest)
		w := &world{both.Engine, t, both.root}
		from, tpl := w.load("folder", database.Load{Source: database.Source{Dir: o.data}})
		if tpl.Version != oldest.version() {
			t.Errorf("the template is of version %s", tpl.Version)
		}
		everythingIsThere(w, from, "shop", "c of folder", "developer")
	})
	if err := both.Stop(context.Background(), dir, false); err != nil {
		t.Error(err)
	}
}
