package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/bench/lab"
	"github.com/dayfly-dev/dayfly/internal/feed"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// services are those of the project, the first of which has the path /.
var services = []string{"web", "api", "cart", "mail", "search"}

const (
	base = "production" // everybody borrows from it
	old  = "v1"         // what the base has
	next = "v2"         // what others override a service with
)

// world is a server with a base and environments that override one of its services each.
type world struct {
	*lab.Lab
	n           int
	repo, dns   string
	tablePerEnv float64 // bytes
}

func temp(i int) string { return fmt.Sprintf("temp-%05d", i) }

// overridden is the service that an environment overrides.
func overridden(i int) string { return services[i%len(services)] }

// body gives a spec that pins services.
func body(versions map[string]string) map[string]any {
	var list []map[string]string
	for _, name := range services {
		if v, ok := versions[name]; ok {
			list = append(list, map[string]string{"name": name, "version": v})
		}
	}
	return map[string]any{"project": "shop", "services": list}
}

func all(version string) map[string]string {
	m := map[string]string{}
	for _, name := range services {
		m[name] = version
	}
	return m
}

// newWorld makes the base and the first environments as users do, and writes copies of these into the
// state: what is shared and borrowed runs once, so all of them work.
func newWorld(binary, service string, n int) (w *world, err error) {
	w = &world{n: n, dns: lab.Free()}
	if w.Lab, err = lab.New(binary); err != nil {
		return nil, err
	}
	if err := w.BuildService(service); err != nil {
		return w, err
	}
	if err := w.makeRepo(); err != nil {
		return w, err
	}
	if err := w.start(); err != nil {
		return w, err
	}
	if err := w.call(http.MethodPost, "/v1/projects", map[string]string{"name": "shop", "repo": w.repo}); err != nil {
		return w, err
	}
	wish := body(all(old))
	wish["base"] = "none"
	if err := w.put(base, wish); err != nil {
		return w, err
	}
	// What the changes go back to runs all the time.
	if err := w.put("keep-old", body(all(old))); err != nil {
		return w, err
	}
	if err := w.put("keep-next", body(all(next))); err != nil {
		return w, err
	}
	for i := range services {
		if err := w.put(temp(i), body(map[string]string{overridden(i): next})); err != nil {
			return w, err
		}
	}
	for i := range services {
		if err := w.says(overridden(i)+"-"+temp(i), next); err != nil {
			return w, err
		}
	}
	if err := w.Stop(); err != nil {
		return w, err
	}
	if err := w.fill(); err != nil {
		return w, err
	}
	return w, w.start()
}

func (w *world) makeRepo() (err error) {
	var text strings.Builder
	text.WriteString("name: shop\nx-dayfly: {baseline: production}\nservices:\n")
	for _, name := range services {
		path := "/" + name
		if name == services[0] {
			path = "/"
		}
		fmt.Fprintf(&text, "  %s: {ports: [\"80\"], x-dayfly: {route: %s, paths: [%s.txt], process: {run: benchservice %s.txt}}}\n", name, path, name, name)
	}
	files := map[string]string{"compose.yaml": text.String()}
	for _, version := range []string{old, next} {
		for _, name := range services {
			files[name+".txt"] = name + "-" + version + "\n"
		}
		if w.repo == "" {
			w.repo, err = w.Repo("shop", files)
		} else {
			err = lab.Commit(w.repo, files)
		}
		if err == nil {
			err = lab.Git(w.repo, "tag", version)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *world) start() error {
	_, err := w.Start("--max-environments", "0", "--max-per-project", "0", "--dns", w.dns)
	return err
}

func (w *world) put(name string, spec map[string]any) error {
	return w.call(http.MethodPut, "/v1/environments/"+name, spec)
}

func (w *world) call(method, path string, body any) error {
	status, text, err := w.Call(method, path, body)
	if err == nil && status >= 300 {
		err = fmt.Errorf("%s %s answered %d: %s", method, path, status, text)
	}
	return err
}

// says waits until a host answers with a version.
func (w *world) says(host, version string) error {
	var last string
	err := lab.Until(2*time.Minute, func() bool {
		status, text, err := w.Ask(host)
		last = fmt.Sprint(status, " ", text, " ", err)
		return err == nil && status == http.StatusOK && strings.Contains(text, "-"+version+" ")
	})
	if err != nil {
		return fmt.Errorf("%s does not answer with %s: %w; last it was %s\n%s", host, version, err, last, w.Log())
	}
	return nil
}

// model is what the state holds about an environment that owns no deployment.
type model struct {
	Environment dayfly.EnvironmentRecord
	Resolution  dayfly.Resolution
	Release     release.State
}

func (w *world) fill() error {
	ctx := context.Background()
	store, err := registry.Open(ctx, registry.Config{Dir: filepath.Join(w.Data, "etcd"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer store.Close()
	var models []model
	for i := range services {
		m, err := read(ctx, store, temp(i))
		if err != nil {
			return err
		}
		models = append(models, m)
	}
	taken := map[string]bool{}
	there, err := registry.List(ctx, store, registry.Addresses)
	if err != nil {
		return err
	}
	for _, a := range there {
		taken[a.Key] = true
	}
	at := 0
	free := func() (address string) {
		for address == "" || taken[address] {
			address = fmt.Sprintf("127.%d.%d.%d", 101+at/62500, at/250%250, at%250+1)
			at++
		}
		return address
	}
	for i := len(services); i < w.n; i++ {
		m, err := models[i%len(models)].copy(temp(i%len(models)), i, free)
		if err != nil {
			return err
		}
		if _, err := registry.Commit(ctx, store, m.create()...); err != nil {
			return err
		}
	}
	return w.weigh(ctx, store)
}

func read(ctx context.Context, store *registry.Store, name string) (m model, err error) {
	e, err := registry.Get(ctx, store, registry.Environments, name)
	if err != nil {
		return m, err
	}
	res, err := registry.Get(ctx, store, registry.Resolutions, name)
	if err != nil {
		return m, err
	}
	rel, err := registry.Get(ctx, store, registry.Releases, name)
	return model{e.Value, res.Value, rel.Value}, err
}

// copy gives the records of another environment like this one.
func (m model) copy(name string, i int, address func() string) (c model, err error) {
	text, err := json.Marshal(m)
	if err != nil {
		return c, err
	}
	text = []byte(strings.NewReplacer(name, temp(i), m.Environment.ID, dayfly.NewID()).Replace(string(text)))
	if err := json.Unmarshal(text, &c); err != nil {
		return c, err
	}
	c.Resolution.Address = address()
	for k := range c.Resolution.Services {
		c.Resolution.Services[k].Address = address()
	}
	for _, at := range []*time.Time{&c.Environment.CreatedAt, &c.Environment.RenewedAt} {
		*at = at.Add(-time.Hour) // of new ones a server that starts would tell that they are ready
	}
	return c, nil
}

// create gives what writes the records.
func (m model) create() []registry.Op {
	name, id := m.Environment.Spec.Name, m.Environment.ID
	ops := []registry.Op{
		registry.Create(registry.Environments, name, m.Environment),
		registry.Create(registry.Resolutions, name, m.Resolution),
		registry.Create(registry.Releases, name, m.Release),
		registry.Create(registry.Addresses, m.Resolution.Address, registry.AddressClaim{Environment: id}),
	}
	hosts := map[string]bool{}
	for _, rs := range m.Resolution.Services {
		ops = append(ops, registry.Create(registry.Addresses, rs.Address, registry.AddressClaim{Environment: id, Service: rs.Name}))
		for _, host := range rs.Hosts {
			if !hosts[host] {
				hosts[host] = true
				ops = append(ops, registry.Create(registry.Hosts, host, registry.HostClaim{Environment: id, Name: name}))
			}
		}
	}
	return ops
}

// weigh measures what the table takes in memory.
func (w *world) weigh(ctx context.Context, store *registry.Store) error {
	quiet := slog.New(slog.DiscardHandler)
	cache := registry.NewCache(store)
	if err := cache.Start(ctx); err != nil {
		return err
	}
	defer cache.Close()
	// Several tables, so that what else is in memory makes no difference.
	tables := make([]*route.Table, max(3, 10_000/w.n))
	before := heap()
	for i := range tables {
		tables[i] = route.New(route.Options{Domain: "localhost"})
		feed.New(cache, tables[i], quiet).Load()
	}
	w.tablePerEnv = (heap() - before) / float64(w.n) / float64(len(tables))
	table := tables[0]
	if m := table.Public(temp(w.n-1)+".localhost", "/"); m.Outcome != route.Found || m.Provider == "" {
		return fmt.Errorf("%s is not in the table: %v", temp(w.n-1), m.Outcome)
	}
	return nil
}

// heap is what is in use, in bytes.
func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// commitOf gives the commit of a version.
func (w *world) commitOf(version string) (string, error) {
	show := exec.Command("git", "rev-parse", version+"^{commit}")
	show.Dir = w.repo
	out, err := show.Output()
	return strings.TrimSpace(string(out)), err
}
