package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/database/postgres"

	shop "github.com/dayfly-dev/dayfly/examples/shop"
)

// few is how many orders these tests have.
const few = 1000

// withOrders starts a PostgreSQL server with a small database of the shop. restart ends it and starts it again.
func withOrders(t *testing.T) (address string, restart func()) {
	t.Helper()
	// The server runs as another user, who has to get here, and a path to a socket must not be long.
	root, err := os.MkdirTemp("/tmp", "dayfly-shop-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(root, "db")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o711); err != nil {
		t.Fatal(err)
	}
	engine := postgres.New(postgres.Options{Sockets: filepath.Join(root, "s")})
	if _, err := engine.Versions(t.Context()); err != nil {
		t.Skip(err)
	}
	sql, err := shop.Orders()
	if err != nil {
		t.Fatal(err)
	}
	sql = []byte(strings.ReplaceAll(string(sql), strconv.Itoa(orders), strconv.Itoa(few)))
	if _, err := engine.Load(t.Context(), dir, database.Load{ID: "t", Database: "shop", Fixtures: sql}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// What is secret has in it what an address has to escape.
	c := database.Clone{ID: "c", User: "app", Password: "hidden/@word", Listen: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}
	l.Close()
	t.Cleanup(func() {
		if err := engine.Stop(context.WithoutCancel(t.Context()), dir, false); err != nil {
			t.Error(err)
		}
	})
	if err := engine.Prepare(t.Context(), dir, c); err != nil {
		t.Fatal(err)
	}
	start := func() {
		t.Helper()
		s, err := engine.Start(t.Context(), dir, c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
	}
	start()
	u := url.URL{Scheme: "postgres", User: url.UserPassword(c.User, c.Password), Host: fmt.Sprintf("127.0.0.1:%d", c.Port), Path: "/shop"}
	return u.String(), func() {
		t.Helper()
		if err := engine.Stop(t.Context(), dir, true); err != nil {
			t.Fatal(err)
		}
		start()
	}
}

// builtBackend builds the shop's backend and gives its program.
func builtBackend(t *testing.T) string {
	t.Helper()
	dir, bin := t.TempDir(), filepath.Join(t.TempDir(), "backend")
	if err := shop.Write(dir, 1); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./backend")
	build.Dir, build.Env = dir, append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

// backend is one that runs.
type backend struct {
	*testing.T
	url string
	log *os.File
}

func runBackend(t *testing.T, program, database string) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	b := &backend{T: t, url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	if b.log, err = os.Create(filepath.Join(t.TempDir(), "log")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env, cmd.Stdout, cmd.Stderr = []string{fmt.Sprintf("PORT=%d", port), "DATABASE_URL=" + database}, b.log, b.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		b.log.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if resp, err := http.Get(b.url + "/healthz"); err == nil {
			resp.Body.Close()
			return b
		}
		if time.Now().After(deadline) {
			t.Fatal("the backend does not answer")
		}
	}
}

// call asks for something and gives the answer's numbers.
func (b *backend) call(method, path string, want int) map[string]any {
	req, err := http.NewRequestWithContext(b.Context(), method, b.url+path, nil)
	if err != nil {
		b.Error(err)
		return nil
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Error(err)
		return nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		b.Errorf("%s %s: %s %s, %v", method, path, resp.Status, text, err)
		return nil
	}
	answer := map[string]any{}
	if want < 300 {
		if err := json.Unmarshal(text, &answer); err != nil {
			b.Error(err)
		}
	}
	return answer
}

// has checks how many orders there are.
func (b *backend) has(orders, packed int) {
	b.Helper()
	got := b.call(http.MethodGet, "/api/shop", http.StatusOK)
	if got["orders"] != float64(orders) || got["packed"] != float64(packed) {
		b.Errorf("it has %v orders, %v packed; want %d and %d", got["orders"], got["packed"], orders, packed)
	}
}

const dew = "/api/orders?product=Morning+dew"

func TestTheShopKeepsItsOrdersInTheDatabaseThatItIsGiven(t *testing.T) {
	address, restart := withOrders(t)
	program := builtBackend(t)
	b := runBackend(t, program, address)
	b.has(few, few)

	if o := b.call(http.MethodPost, dew, http.StatusCreated); o["id"] != float64(few+1) || o["product"] != "Morning dew" {
		t.Errorf("the next order is %v", o)
	}
	b.call(http.MethodPost, "/api/orders?product=%27%3B+DROP+TABLE+orders", http.StatusUnprocessableEntity)
	b.has(few+1, few)

	// More at once than it has connections.
	const many = 40
	var at sync.WaitGroup
	for range many {
		at.Go(func() { b.call(http.MethodPost, dew, http.StatusCreated) })
	}
	at.Wait()
	b.has(few+1+many, few)
	if got := b.call(http.MethodPost, "/api/pack", http.StatusOK); got["packed"] != float64(1+many) {
		t.Errorf("it packed %v", got)
	}
	b.has(few+1+many, few+1+many)

	// What others do to the database is seen, and the totals are those of the table.
	c, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "DELETE FROM orders WHERE id <= 10; UPDATE orders SET packed = false WHERE id BETWEEN 11 AND 13"); err != nil {
		t.Error(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	b.has(few+1+many-10, few+1+many-13)

	restart()
	for range 2 * many { // each of its connections was closed
		b.has(few+1+many-10, few+1+many-13)
	}
	runBackend(t, program, address).has(few+1+many-10, few+1+many-13)
}

func TestAShopWhoseDatabaseIsAwayOrStrangeSaysSoWithoutThePassword(t *testing.T) {
	address, _ := withOrders(t)
	program := builtBackend(t)
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	wrong, nowhere, empty := *u, *u, *u
	wrong.User = url.UserPassword("app", "hidden-wrong")
	nowhere.Host = "127.0.0.1:1"
	empty.Path = "/postgres"
	for name, c := range map[string]struct {
		address url.URL
		mention string
	}{
		"a wrong password": {wrong, "authentication failed"}, "nobody listens": {nowhere, "refused"}, "a database without orders": {empty, "totals"},
	} {
		t.Run(name, func(t *testing.T) {
			b := runBackend(t, program, c.address.String())
			b.call(http.MethodGet, "/api/shop", http.StatusServiceUnavailable)
			b.call(http.MethodPost, dew, http.StatusServiceUnavailable)
			text, err := os.ReadFile(b.log.Name())
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), c.mention) || strings.Contains(string(text), "hidden") {
				t.Errorf("its log is %s", text)
			}
		})
	}
}

func TestAShopWithoutADatabaseKeepsItsOrdersInMemory(t *testing.T) {
	b := runBackend(t, builtBackend(t), "")
	b.has(0, 0)
	b.call(http.MethodPost, dew, http.StatusCreated)
	b.has(1, 0)
	b.call(http.MethodPost, "/api/pack", http.StatusOK)
	b.has(1, 1)
}
