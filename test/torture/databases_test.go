//go:build linux

package torture

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database/postgres"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
)

// checkedDatabases says what a life with databases checks, for the table.
var checkedDatabases = []string{
	"every database takes connections with its password and has what belongs in it",
	"one server runs for each, and for a spare, and nothing else; the one that nobody touched is the process of before, and its connection is still there",
	"there are just the folders, records, mounts, devices and sockets of what is wanted",
	"a template whose dump went with the server has failed and says so, others were made again",
	"what a mask replaced is in no file",
	"what was deleted or expired has left nothing, and after --take-down nothing is left at all",
}

func TestTheServerMayDieAnywhereWithDatabases(t *testing.T) {
	if _, err := postgres.New(postgres.Options{}).Versions(t.Context()); err != nil {
		t.Skip(err)
	}
	random := dice(t)
	drivers := []string{""}
	if *long && os.Geteuid() == 0 {
		drivers = append(drivers, "overlay")
	}
	var fates []fate
	for _, driver := range drivers {
		if *only != "" {
			for p := range strings.SplitSeq(*only, "|") {
				p, last := strings.CutPrefix(p, takingDown)
				fates = append(fates, fate{driver: driver, point: p, takeDown: last})
			}
			continue
		}
		undisturbed := newDatabaseLife(t, driver)
		undisturbed.live(fate{})
		points, last := undisturbed.points(), undisturbed.pointsIn(undisturbed.takeDownLog)
		if len(points) < 100 || len(last) < 5 {
			t.Fatalf("only %d points were noted, and %d while everything was taken down", len(points), len(last))
		}
		t.Logf("driver %q: %d points and %d of taking down, a life takes %s", driver, len(points), len(last), undisturbed.took.Round(time.Millisecond))
		kills := 30
		switch {
		case !*long:
			points, last, kills = sample(random, points, 4), sample(random, last, 1), 1
		case driver != "": // the rest is alike
			points = slices.DeleteFunc(points, func(p string) bool { return !strings.Contains(p, "folder of data#") })
			kills = 10
		}
		for _, p := range points {
			fates = append(fates, fate{driver: driver, point: p})
		}
		for _, p := range last {
			fates = append(fates, fate{driver: driver, point: p, takeDown: true})
		}
		for range kills {
			fates = append(fates, fate{driver: driver, after: time.Duration(random.Int64N(int64(undisturbed.took)))})
		}
	}
	suffer(t, fates, checkedDatabases, func(t *testing.T, f fate) *life {
		l := newDatabaseLife(t, f.driver)
		l.live(f)
		return l.life
	})
}

// databaseLife is a server with databases that come, change and go.
type databaseLife struct {
	*life
	takeDownLog string
	spares      int               // as many as there may be
	files       string            // where the folders of databases are
	seen        map[string]bool   // folders that were there at any time
	addresses   map[string]string // of databases, by name; final from the start
}

// ranges counts the ranges of ports that were given to servers.
var ranges atomic.Int64

const (
	firstRange = 10_000
	rangeSize  = 25
	manyRanges = 200
)

func newDatabaseLife(t *testing.T, driver string) *databaseLife {
	t.Helper()
	// The servers of databases run as another user, who must be able to come there.
	dir, err := os.MkdirTemp("/tmp", "dayfly-torture-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clean(t, dir) })
	l := &databaseLife{life: newLifeIn(t, dir), takeDownLog: filepath.Join(dir, "last-points"), seen: map[string]bool{}, addresses: map[string]string{}}
	l.databases()
	l.files = filepath.Join(l.data, "databases", "files")
	first := firstRange + int(ranges.Add(1)+int64(os.Getpid()))%manyRanges*rangeSize
	// With one driver most databases were a spare before, with the other one none was.
	l.spares = map[string]int{"": 1}[driver]
	l.flags = append(l.flags, "--db-ports", fmt.Sprintf("%d-%d", first, first+rangeSize-1), "--db-driver", driver, "--db-spares", strconv.Itoa(l.spares))
	return l
}

// clean ends what a life left that has failed.
func clean(t *testing.T, dir string) {
	for _, s := range servers(dir) {
		_ = syscall.Kill(s.pid, syscall.SIGKILL) // gone already is as good
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := snapshot.Destroy(ctx, filepath.Join(dir, "data", "databases", "files"), slog.New(slog.DiscardHandler))
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		t.Error(err)
	}
}

// databases makes the repository: a service with two databases.
func (l *databaseLife) databases() {
	l.Helper()
	for name, text := range map[string]string{
		"VERSION":  "1",
		"seed.sql": "CREATE TABLE seeds (id int); INSERT INTO seeds VALUES (1), (2);",
		"compose.yaml": `
x-dayfly:
  databases:
    db:
      template: shop
      migrate: [psql, $DB_URL, -qc, "create table if not exists migrated (x int); insert into migrated values (1)"]
    cache: {fixtures: seed.sql, renew: true}
services:
  web:
    ports: ["80"]
    depends_on: [db, cache]
    x-dayfly: {route: /, health: /, process: {run: testservice http}}
`,
	} {
		if err := errors.Join(os.MkdirAll(l.repo, 0o755), os.WriteFile(filepath.Join(l.repo, name), []byte(text), 0o644)); err != nil {
			l.Fatal(err)
		}
	}
	git(l.T, l.repo, "init", "-q", "-b", "main")
	git(l.T, l.repo, "add", ".")
	git(l.T, l.repo, "commit", "-qm", "one")
}

// secret is what the mask replaces in all dumps.
const secret = "ada-lovelace-1815"

func dump(texts ...string) string {
	var b strings.Builder
	b.WriteString("CREATE TABLE item (name text, mail text);\n")
	for _, text := range texts {
		fmt.Fprintf(&b, "INSERT INTO item VALUES ('%s', '%s');\n", text, secret)
	}
	return b.String()
}

const items = "SELECT string_agg(name, ' ' ORDER BY name) || ' ' || string_agg(DISTINCT mail, ',') FROM item"

// live makes, changes and ends templates and databases while the server may die, and checks them.
func (l *databaseLife) live(f fate) {
	l.Helper()
	begun := time.Now()
	server := f
	if f.takeDown {
		server = fate{}
	}
	l.start(server)

	l.template("shop", 0, "one")
	l.template("own", 0)
	l.database("steady", dayfly.DatabaseRequest{Template: "shop"})
	l.has("steady", items, "one nobody")
	connection, err := pgx.Connect(l.Context(), l.url("steady"))
	if err != nil {
		l.Fatal(err)
	}
	defer func() { _ = connection.Close(context.Background()) }()
	steady := l.server("steady")
	l.check(wanted{templates: []string{"own", "shop"}, versions: 2, databases: []string{"steady"}})

	l.database("changing", dayfly.DatabaseRequest{Template: "shop"})
	l.do("changing", "INSERT INTO item VALUES ('two', 'x')")
	l.database("copy", dayfly.DatabaseRequest{From: "changing"})
	l.has("copy", items, "one two nobody,x")
	l.do("copy", "DELETE FROM item")
	l.template("shop", 1, "three")
	l.database("newer", dayfly.DatabaseRequest{Template: "shop"})
	l.has("newer", items, "three nobody")
	l.has("copy", "SELECT count(*)::text FROM item", "0")
	l.reset("copy")
	l.has("copy", items, "one two nobody,x")
	l.has("changing", items, "one two nobody,x")
	l.reset("changing")
	l.has("changing", items, "one nobody")
	l.database("brief", dayfly.DatabaseRequest{Template: "own", Keep: dayfly.Duration(time.Second)})
	l.check(wanted{templates: []string{"own", "shop"}, versions: 3, databases: []string{"changing", "copy", "newer", "steady"}, copies: 1})

	l.create("env", "main", 0)
	l.answersAt("env", "env", "1")
	l.has("env.db", items, "three nobody")
	l.has("env.db", "SELECT count(*)::text FROM migrated", "1")
	l.has("env.cache", "SELECT count(*)::text FROM seeds", "2")
	l.do("env.db", "INSERT INTO item VALUES ('four', 'x')")
	l.do("env.cache", "DELETE FROM seeds")
	commit(l.T, l.repo, "main", "2")
	l.answersAt("env", "env", "2")
	l.has("env.db", items, "four three nobody,x")
	l.has("env.db", "SELECT count(*)::text FROM migrated", "2")
	l.has("env.cache", "SELECT count(*)::text FROM seeds", "2")
	l.check(wanted{
		templates: []string{"own", "shop"}, versions: 4, copies: 1, environments: []string{"env"},
		databases: []string{"changing", "copy", "env.cache", "env.db", "newer", "steady"},
	})

	l.delete("env")
	for _, name := range []string{"changing", "copy", "newer"} {
		l.deleteDatabase(name)
	}
	l.check(wanted{templates: []string{"own", "shop"}, versions: 4, databases: []string{"steady"}})
	l.insistOn("delete a template that is in use", dayfly.CodeConflict, func(ctx context.Context) error { return l.client.DeleteTemplate(ctx, "shop") })
	l.has("steady", items, "one nobody")
	if now := l.server("steady"); now != steady {
		l.Errorf("a database that nobody touched was process %v, and is %v", steady, now)
	}
	var one int
	if err := connection.QueryRow(l.Context(), "SELECT 1").Scan(&one); err != nil {
		l.Errorf("a connection to a database that nobody touched: %v", err)
	}
	l.deleteDatabase("steady")
	l.check(wanted{templates: []string{"own", "shop"}, versions: 3})
	l.insist("delete a template", func(ctx context.Context) error {
		if err := l.client.DeleteTemplate(ctx, "shop"); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			return err
		}
		return nil // the one who asked died before it could be told
	})
	l.database("last", dayfly.DatabaseRequest{Template: "own"})
	l.check(wanted{templates: []string{"own"}, versions: 2, databases: []string{"last"}})

	l.stop(syscall.SIGTERM)
	l.takeDown(f)
	l.diedOnce(f)
	l.records(1, 4)
	l.nothing()
	l.took = time.Since(begun)
}

// insistOn repeats a call until it is refused with a code.
func (l *databaseLife) insistOn(what string, code dayfly.Code, call func(context.Context) error) {
	l.Helper()
	l.until(what+" is refused", func() string {
		switch err := call(l.Context()); dayfly.ErrorCode(err) {
		case code:
			return ""
		case dayfly.CodeUnavailable:
			return err.Error()
		default:
			l.Fatalf("%s: %v", what, err)
			return ""
		}
	})
}

// template makes a template from a dump, or its next version, as people do who are told that it has failed; without texts it is one
// that needs no dump.
func (l *databaseLife) template(name string, version int, texts ...string) {
	l.Helper()
	var now dayfly.Template
	l.until(fmt.Sprintf("template %s has another version than %d", name, version), func() (wrong string) {
		var err error
		now, err = l.client.Template(l.Context(), name)
		l.look()
		switch {
		case dayfly.ErrorCode(err) == dayfly.CodeUnavailable:
			return err.Error()
		case err != nil && dayfly.ErrorCode(err) != dayfly.CodeNotFound:
			l.Fatalf("template %s: %v", name, err)
		case err == nil && !now.Settled():
			return "it is being loaded"
		case now.Version > version:
			return ""
		}
		switch {
		case now.Message == "", len(texts) > 0 && now.Message == "the server ended while the dump was being loaded: send it again":
		default:
			l.Fatalf("template %s could not be loaded: %s", name, now.Message)
		}
		source := func() io.Reader {
			if len(texts) == 0 {
				return nil
			}
			return strings.NewReader(dump(texts...))
		}
		if version > 0 {
			_, err = l.client.RefreshTemplate(l.Context(), name, source(), 0)
		} else {
			r := dayfly.TemplateRequest{Name: name, Fixtures: []byte("CREATE TABLE own (x int)")}
			if len(texts) > 0 {
				r.Fixtures, r.Mask = nil, []byte("UPDATE item SET mail = 'nobody'")
			}
			_, err = l.client.CreateTemplate(l.Context(), r, source())
		}
		l.look()
		if err != nil {
			return err.Error()
		}
		return "it was just asked for"
	})
	if now.Status != dayfly.TemplateReady || now.Message != "" {
		l.Errorf("template %s is %s: %s", name, now.Status, now.Message)
	}
	if len(texts) > 0 {
		for _, folder := range l.folders("t") {
			l.masked(folder)
		}
	}
}

// masked checks that no file of a folder has what the mask replaces. What is on its way out may vanish meanwhile.
func (l *databaseLife) masked(folder string) {
	l.Helper()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var b []byte
			if b, err = os.ReadFile(path); bytes.Contains(b, []byte(secret)) {
				l.Errorf("%s has what was masked", path)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		l.Error(err)
	}
}

// database makes a database and waits until it is ready.
func (l *databaseLife) database(name string, r dayfly.DatabaseRequest) {
	l.Helper()
	r.Name = name
	lost := false
	l.insist("create database "+name, func(ctx context.Context) error {
		_, err := l.client.CreateDatabase(ctx, r)
		if lost && dayfly.ErrorCode(err) == dayfly.CodeConflict {
			if _, there := l.client.Database(ctx, name); there == nil {
				return nil // the one who asked died before it could be told
			}
		}
		lost = lost || dayfly.ErrorCode(err) == dayfly.CodeUnavailable
		return err
	})
	if r.Keep == 0 {
		d := l.ready(name)
		l.addresses[name] = d.URL
	}
}

// ready waits until a database takes connections.
func (l *databaseLife) ready(name string) (d dayfly.Database) {
	l.Helper()
	l.until("database "+name+" is ready", func() string {
		var err error
		d, err = l.client.Database(l.Context(), name)
		l.look()
		switch {
		case err != nil:
			return err.Error()
		case d.Status != dayfly.DatabaseReady:
			return string(d.Status) + " " + d.Message
		}
		return ""
	})
	return d
}

func (l *databaseLife) reset(name string) {
	l.Helper()
	l.insist("reset "+name, func(ctx context.Context) error {
		_, err := l.client.ResetDatabase(ctx, name)
		return err
	})
	if d := l.ready(name); d.URL != l.addresses[name] {
		l.Errorf("database %s was at %s, and is at %s since it was reset", name, l.addresses[name], d.URL)
	}
}

func (l *databaseLife) deleteDatabase(name string) {
	l.Helper()
	l.insist("delete database "+name, func(ctx context.Context) error {
		_, err := l.client.DeleteDatabase(ctx, name, false)
		if dayfly.ErrorCode(err) == dayfly.CodeNotFound {
			return nil // the one who asked died before it could be told
		}
		return err
	})
}

func (l *databaseLife) url(name string) string { return l.ready(name).URL }

// has waits until a database is ready, and then it must have what belongs in it.
func (l *databaseLife) has(name, query, want string) {
	l.Helper()
	address := l.url(name)
	l.until(name+" answers", func() string {
		got, err := ask(l.Context(), address, query)
		switch {
		case err != nil && l.url(name) != address:
			address = l.url(name) // another one has taken its place
			return err.Error()
		case err != nil:
			return err.Error()
		case got != want && strings.HasPrefix(name, "env."):
			address = l.url(name)
			return got // it was the one that is on its way out
		case got != want:
			l.Fatalf("database %s answers %s with %q, want %q", name, query, got, want)
		}
		return ""
	})
	wrong, err := url.Parse(address)
	if err != nil {
		l.Fatal(err)
	}
	wrong.User = url.UserPassword(wrong.User.Username(), "wrong")
	if _, err := ask(l.Context(), wrong.String(), query); err == nil {
		l.Errorf("database %s takes any password", name)
	}
}

func ask(ctx context.Context, address, query string) (got string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := pgx.Connect(ctx, address)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	err = c.QueryRow(ctx, query).Scan(&got)
	return got, err
}

// do executes a statement in a database that is ready, once.
func (l *databaseLife) do(name, statement string) {
	l.Helper()
	c, err := pgx.Connect(l.Context(), l.url(name))
	if err != nil {
		l.Fatalf("a database that is ready takes no connections: %s: %v", name, err)
	}
	_, err = c.Exec(l.Context(), statement)
	if err := errors.Join(err, c.Close(l.Context())); err != nil {
		l.Fatal(err)
	}
}

// folders gives the folders of databases that are there whose names begin so.
func (l *databaseLife) folders(kind string) []string {
	found, err := filepath.Glob(filepath.Join(l.files, "*", kind+"*"))
	if err != nil {
		l.Fatal(err)
	}
	return found
}

// look remembers the folders that are there.
func (l *databaseLife) look() {
	for _, kind := range []string{"c", "o", "t"} {
		for _, folder := range l.folders(kind) {
			l.seen[folder] = true
		}
	}
}

// serving is a process that serves a database.
type serving struct {
	pid     int
	started string
}

// found is a process that runs for a folder.
type found struct {
	serving
	parent int
	folder string // its working folder, or that it was started for
	what   string
}

// servers gives all processes that run for databases below a folder.
func servers(dir string) (all []found) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd") // the pattern is right
	for _, link := range links {
		proc := filepath.Dir(link)
		cwd, err := os.Readlink(link)
		if err != nil {
			continue
		}
		folder := ""
		environ, _ := os.ReadFile(filepath.Join(proc, "environ")) // one that ended has none
		for v := range strings.SplitSeq(string(environ), "\x00") {
			if f, ok := strings.CutPrefix(v, "DAYFLY_DATABASE_FOLDER="); ok {
				folder = f
			}
		}
		if strings.HasPrefix(cwd, dir+"/") && strings.Contains(cwd, "/databases/") {
			folder = cwd
		}
		if !strings.HasPrefix(folder, dir+"/") {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(proc, "stat"))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 20 || fields[0] == "Z" {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		f := found{folder: folder, what: strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))}
		f.pid, _ = strconv.Atoi(filepath.Base(proc))
		f.parent, _ = strconv.Atoi(fields[1])
		f.started = fields[19]
		all = append(all, f)
	}
	return all
}

// roots gives those that no other one has started, by the name of their folder.
func (l *databaseLife) roots() map[string][]found {
	all := servers(l.dir)
	roots := map[string][]found{}
	for _, f := range all {
		if slices.ContainsFunc(all, func(p found) bool { return p.pid == f.parent }) {
			continue
		}
		name := "?" + f.folder
		if parts := strings.Split(strings.TrimPrefix(f.folder, l.files+"/"), "/"); len(parts) > 1 {
			name = parts[1]
		}
		roots[name] = append(roots[name], f)
	}
	return roots
}

// server gives the process of a database.
func (l *databaseLife) server(name string) serving {
	l.Helper()
	d := l.ready(name)
	found := l.roots()["c"+d.ID]
	if len(found) != 1 {
		l.Fatalf("database %s is served by %v", name, found)
	}
	return found[0].serving
}

// wanted is what is to be there, each kind in the order of its names.
type wanted struct {
	templates, databases, environments []string
	versions                           int // of all templates, ours as well
	copies                             int // databases that were copied from others
}

// check waits until just what is wanted is there, and nothing else is left.
func (l *databaseLife) check(w wanted) {
	l.Helper()
	l.until("just what is wanted is there", func() string { l.look(); return l.wrong(w) })
}

func (l *databaseLife) wrong(w wanted) string {
	databases, err := l.client.Databases(l.Context(), dayfly.DatabaseFilter{})
	if err != nil {
		return err.Error()
	}
	names, folders := []string(nil), []string(nil)
	running := map[string]bool{}
	for _, d := range databases {
		names = append(names, d.Name)
		if d.Status != dayfly.DatabaseReady || d.Message != "" {
			return fmt.Sprintf("database %s is %s: %s", d.Name, d.Status, d.Message)
		}
		folders = append(folders, "c"+d.ID)
		running["c"+d.ID] = true
		if d.From != "" {
			folders = append(folders, "o"+d.ID)
		}
	}
	if !slices.Equal(names, w.databases) {
		return fmt.Sprintf("databases %q", names)
	}
	records, half := l.recordsOf("spares")
	if half != "" || len(records) > l.spares {
		return fmt.Sprintf("spares %q, half made %q", records, half)
	}
	for _, id := range records {
		running["c"+id] = true
		folders = append(folders, "c"+id)
	}
	templates, err := l.client.Templates(l.Context())
	if err != nil {
		return err.Error()
	}
	names = nil
	for _, t := range templates {
		names = append(names, t.Name)
		if t.Status != dayfly.TemplateReady || t.Message != "" || !t.Settled() {
			return fmt.Sprintf("template %s is %s: %s", t.Name, t.Status, t.Message)
		}
	}
	if !slices.Equal(names, w.templates) {
		return fmt.Sprintf("templates %q", names)
	}
	environments, err := l.client.Environments(l.Context(), "")
	if err != nil {
		return err.Error()
	}
	names = nil
	for _, e := range environments {
		names = append(names, e.Name)
		if e.Phase != dayfly.PhaseReady {
			return fmt.Sprintf("%s is %s: %s", e.Name, e.Phase, e.Message)
		}
	}
	if !slices.Equal(names, w.environments) {
		return fmt.Sprintf("environments %q", names)
	}
	if p := l.processes(); len(p) != len(w.environments) {
		return fmt.Sprintf("processes of environments: %v", p)
	}

	for folder, processes := range l.roots() {
		if !running[folder] || len(processes) != 1 || !strings.HasPrefix(processes[0].what, "postgres") {
			return fmt.Sprintf("processes in %s: %+v", folder, processes)
		}
		delete(running, folder)
	}
	if len(running) > 0 {
		return fmt.Sprintf("without a process: %v", running)
	}
	return l.wrongFolders(w, folders)
}

// wrongFolders compares what is kept with these folders, and those of so many versions of templates.
func (l *databaseLife) wrongFolders(w wanted, folders []string) string {
	keeper := filepath.Join(l.data, "databases", "records")
	versions, err := os.ReadDir(filepath.Join(keeper, "templates"))
	if err != nil {
		return err.Error()
	}
	clones, half := l.recordsOf("clones")
	if half != "" {
		return "the record of a database is " + half
	}
	if len(versions) != w.versions || len(clones) != len(w.databases) {
		return fmt.Sprintf("records of versions %v and of databases %v", versions, clones)
	}
	for _, v := range versions {
		folders = append(folders, "t"+strings.TrimSuffix(v.Name(), ".json"))
	}
	there, err := filepath.Glob(filepath.Join(l.files, "*", "*"))
	if err != nil {
		return err.Error()
	}
	mounts := map[string]bool{}
	var names []string
	copies := 0
	for _, path := range there {
		name := filepath.Base(path)
		names = append(names, name)
		switch driver := filepath.Base(filepath.Dir(path)); {
		case driver == "overlay" && name[0] == 'c':
			mounts[filepath.Join(path, "merged")] = true
		case driver == "pool":
			mounts[filepath.Dir(path)] = true
		}
		if name[0] == 'o' {
			copies++
		}
	}
	slices.Sort(names)
	slices.Sort(folders)
	if !slices.Equal(names, folders) || copies != w.copies {
		return fmt.Sprintf("there are the folders %q, wanted are %q", names, folders)
	}
	if half, err := filepath.Glob(filepath.Join(l.files, "*.new")); err != nil || len(half) > 0 {
		return fmt.Sprintf("half done: %q, %v", half, err)
	}
	devices := 0
	if mounts[filepath.Join(l.files, "pool")] {
		devices = 1
	}
	return l.wrongMounts(mounts, devices)
}

// recordsOf gives the ids of the records of clones or spares, and one that is not made; "" = none.
func (l *databaseLife) recordsOf(kind string) (ids []string, half string) {
	paths, err := filepath.Glob(filepath.Join(l.data, "databases", "records", kind, "*"))
	if err != nil {
		return nil, err.Error()
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		var rec struct{ Made bool }
		if err := errors.Join(err, json.Unmarshal(b, &rec)); err != nil || !rec.Made {
			return nil, fmt.Sprintf("%s: %s: %v", path, b, err)
		}
		ids = append(ids, strings.TrimSuffix(filepath.Base(path), ".json"))
	}
	return ids, ""
}

// wrongMounts compares what is mounted, and how many devices there are for it.
func (l *databaseLife) wrongMounts(mounts map[string]bool, devices int) string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err.Error()
	}
	there := map[string]int{}
	for line := range strings.Lines(string(b)) {
		point := strings.Fields(line)[4]
		// What a copy was made from is mounted when it is made, and not after a restart: nothing runs in it.
		origin := strings.HasPrefix(point, filepath.Join(l.files, "overlay", "o"))
		if strings.HasPrefix(point, l.dir+"/") && (!origin || !exists(point)) {
			there[point]++
			if !mounts[point] || there[point] > 1 {
				return point + " is mounted"
			}
		}
	}
	if len(there) != len(mounts) {
		return fmt.Sprintf("mounted is %v, wanted %v", there, mounts)
	}
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err.Error()
	}
	n := 0
	for _, file := range files {
		if of, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(of), l.dir+"/") {
			n++
		}
	}
	if n != devices {
		return fmt.Sprintf("%d devices, wanted %d", n, devices)
	}
	return ""
}

// takeDown starts the server that leaves nothing when it ends, and ends it, again if it dies meanwhile.
func (l *databaseLife) takeDown(f fate) {
	l.Helper()
	out, err := os.OpenFile(l.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		l.Fatal(err)
	}
	defer out.Close()
	l.flags = append(l.flags, "--take-down")
	variables := []string{"DAYFLY_CRASH_LOG=" + l.takeDownLog, "DAYFLY_CRASH_AT="}
	if f.takeDown {
		variables[1] += f.point
	}
	for killed := true; killed; variables = nil {
		cmd := l.command(out, variables...)
		if err := cmd.Start(); err != nil {
			l.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		var err error
		over := false
		l.until("a server that takes everything down is there", func() string {
			select {
			case err = <-ended:
				over = true
				return ""
			default:
			}
			if _, err := l.client.Databases(l.Context(), dayfly.DatabaseFilter{}); err != nil {
				return err.Error()
			}
			return ""
		})
		if !over {
			_ = cmd.Process.Signal(syscall.SIGTERM) // dead already is seen below
			select {
			case err = <-ended:
			case <-time.After(patience):
				_ = cmd.Process.Kill()
				<-ended
				l.Fatal("taking everything down does not end")
			}
		}
		killed = cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled()
		if killed {
			l.mu.Lock()
			l.died++
			l.mu.Unlock()
		} else if err != nil {
			l.Errorf("a server that takes everything down ends with %v", err)
		}
	}
}

// nothing checks that nothing of databases is left anywhere.
func (l *databaseLife) nothing() {
	l.Helper()
	if left := servers(l.dir); len(left) > 0 {
		l.Errorf("still running: %+v", left)
	}
	if wrong := l.wrongMounts(nil, 0); wrong != "" {
		l.Error(wrong)
	}
	if _, err := os.Lstat(l.files); !errors.Is(err, os.ErrNotExist) {
		l.Errorf("%s is still there: %v", l.files, err)
	}
	for _, kind := range []string{"templates", "clones", "spares"} {
		if left, err := os.ReadDir(filepath.Join(l.data, "databases", "records", kind)); err != nil || len(left) > 0 {
			l.Errorf("records are left: %v, %v", left, err)
		}
	}
	for folder := range l.seen {
		for _, data := range []string{"data", "merged/data", "base/data", "unmasked", "base/unmasked"} {
			sum := sha256.Sum256([]byte(filepath.Join(folder, data)))
			for _, sockets := range []string{"/run/dayfly-postgres", filepath.Join(os.TempDir(), "dayfly-postgres-"+strconv.Itoa(os.Geteuid()))} {
				if path := filepath.Join(sockets, hex.EncodeToString(sum[:8])); exists(path) {
					l.Errorf("the sockets of %s are left: %s", folder, path)
				}
			}
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
