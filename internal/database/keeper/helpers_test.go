//go:build linux

package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/database/enginetest"
	"github.com/dayfly-dev/dayfly/internal/database/postgres"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(&withLoaded{m})
}

type withLoaded struct{ m *testing.M }

// Run takes away what the tests share.
func (w *withLoaded) Run() int {
	code := w.m.Run()
	if shared.dir != "" {
		if err := os.RemoveAll(shared.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// copier copies folders with cp.
type copier struct {
	root     string
	name     string // of the driver that it plays
	mu       sync.Mutex
	measured map[string]int
}

func (c *copier) Name() string            { return c.name }
func (c *copier) path(name string) string { return filepath.Join(c.root, name) }
func (c *copier) Create(_ context.Context, name string) (string, error) {
	return c.path(name), os.Mkdir(c.path(name), 0o755)
}
func (c *copier) Freeze(context.Context, string) error { return nil }
func (c *copier) Clone(ctx context.Context, from, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", "-T", "--", c.path(from), c.path(name)).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return c.path(name), nil
}
func (c *copier) Attach(_ context.Context, name string) (string, error) {
	_, err := os.Stat(c.path(name))
	return c.path(name), err
}
func (c *copier) Delete(_ context.Context, name string) error { return os.RemoveAll(c.path(name)) }
func (c *copier) List(context.Context) ([]string, error) {
	entries, err := os.ReadDir(c.root)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}
func (c *copier) OwnBytes(_ context.Context, name string) (int64, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.measured[name]++
	return 4096, true, nil
}
func (c *copier) Close() error { return nil }

// sharedDir names what another process has loaded already.
const sharedDir = "DAYFLY_TEST_SHARED"

// shared is a template that is loaded once for all tests.
var shared struct {
	sync.Mutex
	dir string
	tpl database.Template
}

// quick is PostgreSQL, but that a load of what the tests share takes no time.
type quick struct{ *postgres.Engine }

const sharedDump = "CREATE TABLE item (name text);\nINSERT INTO item VALUES ('one');\n"

func (q quick) Load(ctx context.Context, dir string, l database.Load) (database.Template, error) {
	if string(l.Fixtures) != sharedDump || l.Source != (database.Source{}) || l.Mask != nil {
		return q.Engine.Load(ctx, dir, l)
	}
	shared.Lock()
	defer shared.Unlock()
	if made := os.Getenv(sharedDir); made != "" {
		b, err := os.ReadFile(filepath.Join(made, "template.json"))
		if err := errors.Join(err, json.Unmarshal(b, &shared.tpl)); err != nil {
			return database.Template{}, err
		}
		return q.copied(ctx, made, dir, l.ID)
	}
	if shared.dir == "" {
		made, err := os.MkdirTemp("/tmp", "dayfly-shared-")
		if err != nil {
			return database.Template{}, err
		}
		shared.dir = made
		if err := errors.Join(os.Chmod(made, 0o711), os.Mkdir(filepath.Join(made, "t"), 0o755)); err != nil {
			return database.Template{}, err
		}
		shared.tpl, err = q.Engine.Load(ctx, filepath.Join(made, "t"), l)
		if err := errors.Join(err, write(filepath.Join(made, "template.json"), shared.tpl)); err != nil {
			return database.Template{}, err
		}
	}
	return q.copied(ctx, shared.dir, dir, l.ID)
}

func (q quick) copied(ctx context.Context, from, dir, id string) (database.Template, error) {
	out, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", "-T", "--", filepath.Join(from, "t"), dir).CombinedOutput()
	if err != nil {
		return database.Template{}, fmt.Errorf("%w: %s", err, out)
	}
	t := shared.tpl
	t.ID = id
	return t, nil
}

// world is a keeper with a folder of its own.
type world struct {
	*Keeper
	t       *testing.T
	root    string
	records string // of a world that is not opened again
	cloner  *copier
	change  []func(*Options)
}

func newWorld(t *testing.T, change ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, root: enginetest.Root(t), change: change}
	e := w.engine()
	if _, err := e.Versions(t.Context()); err != nil {
		t.Skip(err)
	}
	if err := os.Mkdir(filepath.Join(w.root, "data"), 0o711); err != nil {
		t.Fatal(err)
	}
	w.open()
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		names, err := w.cloner.List(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, name := range names {
			if err := e.Stop(context.Background(), w.cloner.path(name), false); err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

func (w *world) engine() quick {
	return quick{postgres.New(postgres.Options{Sockets: filepath.Join(w.root, "s"), Programs: enginetest.Programs()})}
}

// open opens the folder, as a server that starts does.
func (w *world) open() {
	w.t.Helper()
	w.cloner = &copier{root: filepath.Join(w.root, "data"), name: "copy", measured: map[string]int{}}
	o := Options{Dir: filepath.Join(w.root, "records"), Engine: w.engine(), Cloner: w.cloner, FirstPort: 21000, LastPort: 28999, Backoff: time.Millisecond}
	for _, f := range w.change {
		f(&o)
	}
	k, err := Open(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Keeper = k
}

func (w *world) reopen() {
	w.t.Helper()
	if err := w.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

// template makes a version that has a table item with one row.
func (w *world) template(id string) {
	w.t.Helper()
	t, err := w.Load(w.t.Context(), database.Load{ID: id, Database: "shop", Fixtures: []byte(sharedDump)})
	if err != nil || t.ID != id || t.Driver != w.cloner.name || t.FrozenAt.IsZero() {
		w.t.Fatalf("loaded %+v, %v", t, err)
	}
}

func (w *world) wanted(id, template, from string) database.Clone {
	w.t.Helper()
	return database.Clone{ID: id, Template: template, From: from, User: "app", Password: "secret-of-" + id, Port: enginetest.Port(w.t)}
}

func (w *world) ensure(c database.Clone) {
	w.t.Helper()
	if err := w.Ensure(w.t.Context(), c); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) status(id string) database.Status {
	w.t.Helper()
	all, err := w.Observe(w.t.Context(), id)
	if err != nil || len(all) != 1 {
		w.t.Fatalf("of %s there is %v, %v", id, all, err)
	}
	return all[0]
}

func ask(ctx context.Context, c database.Clone, query string) (value string, err error) {
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/shop?sslmode=disable&connect_timeout=60", c.User, c.Password, c.Port))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	results, err := conn.PgConn().Exec(ctx, query).ReadAll()
	if err == nil && len(results) > 0 && len(results[0].Rows) > 0 {
		value = string(results[0].Rows[0][0])
	}
	return value, err
}

func (w *world) rows(c database.Clone) string {
	w.t.Helper()
	names, err := ask(w.t.Context(), c, "SELECT string_agg(name, ' ' ORDER BY name) FROM item")
	if err != nil {
		w.t.Fatal(err)
	}
	return names
}

func (w *world) insert(c database.Clone, name string) {
	w.t.Helper()
	if _, err := ask(w.t.Context(), c, "INSERT INTO item VALUES ('"+name+"')"); err != nil {
		w.t.Fatal(err)
	}
}

// there lists the folders and records.
func (w *world) there() string {
	w.t.Helper()
	names, err := w.cloner.List(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, kind := range []string{"templates", "clones", "spares"} {
		entries, err := os.ReadDir(filepath.Join(w.root, "records", kind))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, kind+"/"+e.Name())
		}
	}
	return strings.Join(names, " ")
}

func (w *world) eventually(what string, f func() bool) {
	w.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !f(); {
		if time.Now().After(end) {
			w.t.Fatalf("not within two minutes: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
