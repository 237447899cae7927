//go:build linux

package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/database/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an engine with folders of its own.
type world struct {
	*Engine
	t    testing.TB
	root string
}

// newWorld gives an engine, or skips where PostgreSQL is not installed. Whatever it started is gone in the end.
func newWorld(t testing.TB) *world {
	t.Helper()
	// The servers run as another user, who must be able to come here.
	root, err := os.MkdirTemp(cmp.Or(os.Getenv("MEASURE"), "/tmp"), "dayfly-pg-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o711); err != nil {
		t.Fatal(err)
	}
	e := New(Options{Sockets: filepath.Join(root, "s"), Programs: enginetest.Programs(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	w := &world{e, t, root}
	if _, err := e.Versions(t.Context()); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := killAll(context.Background(), root); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) dir(name string) string {
	w.t.Helper()
	dir := filepath.Join(w.root, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// load loads a template, which must work.
func (w *world) load(name string, l database.Load) (string, database.Template) {
	w.t.Helper()
	dir := w.dir(name)
	l.ID = name
	if l.Database == "" {
		l.Database = "shop"
	}
	tpl, err := w.Load(w.t.Context(), dir, l)
	if err != nil {
		w.t.Fatal(err)
	}
	w.nothingRuns(dir)
	return dir, tpl
}

func (w *world) nothingRuns(dir string) {
	w.t.Helper()
	if left := processes(dir, true); len(left) > 0 {
		w.t.Errorf("processes %v are left", left)
	}
	if entries, _ := os.ReadDir(filepath.Join(w.root, "s")); len(entries) > 0 && slices.ContainsFunc(entries, func(e os.DirEntry) bool { return w.socketsOf(dataOf(dir)) == filepath.Join(w.root, "s", e.Name()) }) {
		w.t.Errorf("sockets of %s are left", dir)
	}
}

// copied copies a folder as a driver would.
func (w *world) copied(from, name string) string {
	w.t.Helper()
	to := filepath.Join(w.root, name)
	if out, err := exec.CommandContext(w.t.Context(), "cp", "-a", "--reflink=auto", "--", from, to).CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	return to
}

func (w *world) clone(from, name string, change ...func(*database.Clone)) (string, database.Clone) {
	w.t.Helper()
	c := database.Clone{ID: name, User: "app", Password: "secret-of-" + strings.ReplaceAll(name, " ", "-"), Port: freePort(w.t)}
	for _, f := range change {
		f(&c)
	}
	dir := w.copied(from, name)
	if err := w.Prepare(w.t.Context(), dir, c); err != nil {
		w.t.Fatal(err)
	}
	w.started(dir, c)
	return dir, c
}

// started starts a clone's server, or finds it.
func (w *world) started(dir string, c database.Clone) database.Server {
	w.t.Helper()
	s, err := w.Start(w.t.Context(), dir, c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Close)
	return s
}

var ports struct {
	sync.Mutex
	given map[int]bool
}

// freePort gives a port that no other test here has.
func freePort(t testing.TB) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if !ports.given[port] {
			if ports.given == nil {
				ports.given = map[int]bool{}
			}
			ports.given[port] = true
			return port
		}
	}
}

func connect(ctx context.Context, c database.Clone, name string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s?sslmode=disable&connect_timeout=30", c.User, c.Password, c.Port, name))
}

// ask gives the first value of a query as text, as the clone's user sees it.
func ask(t *testing.T, c database.Clone, query string) string {
	t.Helper()
	s, err := try(t.Context(), c, "shop", query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return s
}

func try(ctx context.Context, c database.Clone, name, query string) (value string, err error) {
	conn, err := connect(ctx, c, name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	results, err := conn.PgConn().Exec(ctx, query).ReadAll()
	if err != nil {
		return "", err
	}
	for _, r := range results {
		if len(r.Rows) > 0 && len(r.Rows[0]) > 0 {
			value = string(r.Rows[0][0])
		}
	}
	return value, nil
}
