//go:build linux

package postgres

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/database/enginetest"
)

// origin is a server as others have it: made by initdb and nothing of ours.
type origin struct {
	w    *world
	p    programs
	a    account
	data string
	port int
}

// newOrigin starts a server with a superuser postgres and a database shop that has a bit of everything.
func newOrigin(w *world) *origin {
	w.t.Helper()
	return newOriginOf(w, "origin")
}

// newOriginOf does so with the newest version that the engine finds, in a folder of that name.
func newOriginOf(w *world, name string) *origin {
	w.t.Helper()
	p, err := w.newest(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	a, err := w.account(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	home := w.dir(name)
	if err := a.own(home); err != nil {
		w.t.Fatal(err)
	}
	o := &origin{w, p, a, filepath.Join(home, "data"), freePort(w.t)}
	o.run("initdb", "--pgdata="+o.data, "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
	o.start()
	w.t.Cleanup(func() { o.stop("immediate") })
	o.sql("postgres", "CREATE ROLE app LOGIN PASSWORD 'production'; CREATE ROLE reader; CREATE ROLE \"Odd Name\"")
	o.sql("postgres", "CREATE DATABASE shop OWNER app")
	o.sql("shop", everything)
	return o
}

const everything = `
SET ROLE app;
CREATE TABLE item (id serial PRIMARY KEY, name text);
INSERT INTO item (name) SELECT 'name ' || n FROM generate_series(1, 3) n;
CREATE VIEW names AS SELECT name FROM item;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN short AS varchar(10);
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1';
ALTER TABLE item ENABLE ROW LEVEL SECURITY;
RESET ROLE;
CREATE SCHEMA "Odd Schema";
CREATE TABLE "Odd Schema".secret (a mood, b short);
ALTER TABLE "Odd Schema".secret OWNER TO "Odd Name";
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM item;
CREATE SEQUENCE free;
CREATE PROCEDURE nothing() LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE EXTENSION pgcrypto;
GRANT SELECT ON item TO reader;
ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT ON TABLES TO reader;
CREATE POLICY all_rows ON item TO reader USING (true);
CREATE FUNCTION watched() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION watched();
CREATE PUBLICATION everything FOR ALL TABLES;
SELECT lo_from_bytea(0, 'large');
`

func (o *origin) run(name string, args ...string) []byte {
	o.w.t.Helper()
	cmd := exec.CommandContext(o.w.t.Context(), o.p.path(name), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: o.a.credential()}
	cmd.Dir = filepath.Dir(o.data)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		o.w.t.Fatalf("%s: %v: %s", name, err, said.String())
	}
	return out
}

func (o *origin) start() {
	o.w.t.Helper()
	cmd := exec.CommandContext(context.Background(), o.p.path("pg_ctl"), "start", "--wait", "--pgdata="+o.data, "--log="+o.data+".log",
		"--options=-c unix_socket_directories="+filepath.Dir(o.data)+" -c listen_addresses=127.0.0.1 -c fsync=off -c port="+strconv.Itoa(o.port))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: o.a.credential()}
	cmd.Dir = filepath.Dir(o.data)
	if err := cmd.Run(); err != nil {
		o.w.t.Fatal(err)
	}
}

func (o *origin) stop(mode string) {
	cmd := exec.CommandContext(context.Background(), o.p.path("pg_ctl"), "stop", "--wait", "--mode="+mode, "--pgdata="+o.data)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: o.a.credential()}
	cmd.Dir = filepath.Dir(o.data)
	_ = cmd.Run() // it may be stopped already
}

func (o *origin) sql(name, text string) {
	o.w.t.Helper()
	o.run("psql", "--host=127.0.0.1", "--port="+strconv.Itoa(o.port), "--username=postgres", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null", "--command="+text, name)
}

func (o *origin) dump(args ...string) []byte {
	o.w.t.Helper()
	return o.run("pg_dump", append([]string{"--host=127.0.0.1", "--port=" + strconv.Itoa(o.port), "--username=postgres"}, args...)...)
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b)
	if err := errors.Join(err, z.Close()); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func zstded(b []byte) []byte {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	defer z.Close()
	return z.EncodeAll(b, nil)
}

// tarOf packs a folder, its contents last, as it may happen.
func tarOf(t *testing.T, dir string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := tar.NewWriter(&out)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := z.WriteHeader(&tar.Header{Name: "./folder/" + e.Name(), Size: int64(len(b)), Mode: 0o600, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := z.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestEveryKindOfDumpIsLoaded(t *testing.T) {
	w := newWorld(t)
	o := newOrigin(w)
	folder := filepath.Join(filepath.Dir(o.data), "folder")
	o.dump("--format=directory", "--file="+folder, "shop")
	plain := o.dump("shop")
	dumps := []struct {
		name string
		dump []byte
		as   string // what the template is called
		want string // what the database is called
	}{
		{"plain", plain, "mine", "mine"},
		{"plain gzip", gzipped(plain), "mine", "mine"},
		{"plain zstd", zstded(plain), "mine", "mine"},
		{"plain with its database", o.dump("--create", "shop"), "mine", "shop"},
		{"plain with its database of the same name", o.dump("--create", "shop"), "shop", "shop"},
		{"plain with inserts", o.dump("--inserts", "shop"), "mine", "mine"},
		{"custom", o.dump("--format=custom", "shop"), "mine", "shop"},
		{"custom zstd", zstded(o.dump("--format=custom", "--compress=0", "shop")), "mine", "shop"},
		{"tar", o.dump("--format=tar", "shop"), "mine", "shop"},
		{"directory as tar", gzipped(tarOf(t, folder)), "mine", "shop"},
		{"a whole cluster", o.run("pg_dumpall", "--host=127.0.0.1", "--port="+strconv.Itoa(o.port), "--username=postgres"), "mine", "shop"},
		{"a database called postgres", o.dump("shop"), "postgres", "postgres"},
	}
	for i, d := range dumps {
		t.Run(d.name, func(t *testing.T) {
			w := &world{w.Engine, t, w.root}
			dir, tpl := w.load(fmt.Sprintf("t%d", i), database.Load{Database: d.as, Source: database.Source{Dump: bytes.NewReader(d.dump), Size: int64(len(d.dump))}})
			if tpl.Database != d.want {
				t.Errorf("the database is called %s, want %s", tpl.Database, d.want)
			}
			everythingIsThere(w, dir, d.want, fmt.Sprintf("c%d", i), "developer")
		})
	}
}

// everythingIsThere makes a clone and checks that its user owns all there is.
func everythingIsThere(w *world, template, name, clone, user string) {
	t := w.t
	t.Helper()
	dir, c := w.clone(template, clone, func(c *database.Clone) { c.User = user })
	defer func() {
		if err := w.Stop(context.Background(), dir, false); err != nil {
			t.Error(err)
		}
	}()
	for query, want := range map[string]string{
		"SELECT string_agg(name, ',' ORDER BY id) FROM item WHERE id < 4":                                               "name 1,name 2,name 3",
		"SELECT current_user || ' ' || session_user":                                                                    user + " " + user,
		"SELECT rolsuper OR rolcreaterole OR rolbypassrls OR rolreplication FROM pg_roles WHERE rolname = current_user": "f",
		"SELECT count(*) FROM pg_largeobject_metadata":                                                                  "1",
		"SELECT policyname FROM pg_policies":                                                                            "all_rows",
		"SELECT count(*) FROM pg_publication":                                                                           "0",
		"SELECT length(gen_random_uuid()::text) FROM pg_extension WHERE extname = 'pgcrypto'":                           "36",
		"INSERT INTO item (name) VALUES ('mine') RETURNING id > 3":                                                      "t",
		"ALTER TABLE item ADD COLUMN more int":                                                                          "",
		"ALTER TABLE \"Odd Schema\".secret ADD COLUMN more int":                                                         "",
		"CREATE TABLE \"Odd Schema\".mine ()":                                                                           "",
		"REFRESH MATERIALIZED VIEW counted":                                                                             "",
		"ALTER SEQUENCE free RESTART":                                                                                   "",
		"ALTER TYPE mood ADD VALUE 'fair'":                                                                              "",
		"ALTER DOMAIN short SET NOT NULL":                                                                               "",
		"ALTER FUNCTION twice(int) RENAME TO thrice":                                                                    "",
		"DROP PROCEDURE nothing()":                                                                                      "",
		"CREATE SCHEMA mine CREATE TABLE more ()":                                                                       "",
		"CREATE EXTENSION IF NOT EXISTS pg_trgm":                                                                        "",
		"SET ROLE reader":                                                                                               "",
	} {
		got, err := try(t.Context(), c, name, query)
		if err != nil || got != want {
			t.Errorf("%s gives %q, %v, want %q", query, got, err, want)
		}
	}
	for _, query := range []string{
		"COPY item FROM PROGRAM 'id'", "COPY item TO PROGRAM 'cat'", "SELECT pg_read_file('/etc/passwd')", "SELECT lo_import('/etc/passwd')",
		"ALTER SYSTEM SET work_mem = '1MB'", "SELECT rolpassword FROM pg_authid", "SET ROLE dayfly_admin", "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'libc', 'abs'",
		"SET ROLE postgres; SELECT pg_read_file('/etc/passwd')",
	} {
		if got, err := try(t.Context(), c, name, query); err == nil {
			t.Errorf("%s gives %q: the user of a clone gets out of it", query, got)
		}
	}
}

func TestADumpThatCannotBeLoadedSaysWhyAndLeavesNothing(t *testing.T) {
	w := newWorld(t)
	whole := "--\n-- PostgreSQL database dump\n--\nCREATE TABLE a (b text);\nCOPY a (b) FROM stdin;\none\n\\.\n--\n-- PostgreSQL database dump complete\n--\n"
	for name, c := range map[string]struct {
		dump string
		code dayfly.Code
		want string
	}{
		"empty":                     {"", dayfly.CodeInvalid, "empty"},
		"bytes":                     {"\x7fELF\x00\x00", dayfly.CodeInvalid, "no dump"},
		"text":                      {"hello\nworld\n", dayfly.CodeFailed, "syntax error"},
		"in the middle of the rows": {whole[:strings.Index(whole, "\\.")], dayfly.CodeInvalid, "truncated"},
		"before its end":            {whole[:strings.Index(whole, "--\n-- PostgreSQL database dump complete")], dayfly.CodeInvalid, "truncated"},
		"in the middle of gzip":     {string(gzipped([]byte(whole))[:60]), dayfly.CodeInvalid, "truncated"},
		"in the middle of zstd":     {string(zstded([]byte(whole))[:60]), dayfly.CodeInvalid, "truncated"},
		"half an archive":           {"PGDMP\x01\x0e\x00\x04\x08\x01", dayfly.CodeInvalid, "truncated"},
		"a tar of something else":   {string(strangeTar(t, "etc/passwd")), dayfly.CodeInvalid, "no part of a dump"},
		"an empty folder as tar":    {string(strangeTar(t, "")), dayfly.CodeInvalid, "toc.dat"},
		"psql is sent away":         {"CREATE TABLE a (b int);\n\\q\n" + strings.Repeat("SELECT 1;\n", 200000), dayfly.CodeFailed, "before its end"},
		"a mistake":                 {"SELECT 1;\nSELECT 2;\nSELECT nonsense;\n", dayfly.CodeFailed, "line 3"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{w.Engine, t, w.root}
			dir := w.dir("t " + name)
			_, err := w.Load(t.Context(), dir, database.Load{ID: "x", Database: "shop", Source: database.Source{Dump: strings.NewReader(c.dump)}})
			if dayfly.ErrorCode(err) != c.code || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %s: %v, want %s and %q", dayfly.ErrorCode(err), err, c.code, c.want)
			}
			w.nothingRuns(dir)
		})
	}
	dir := w.dir("whole")
	if _, err := w.Load(t.Context(), dir, database.Load{ID: "x", Database: "shop", Source: database.Source{Dump: strings.NewReader(whole)}}); err != nil {
		t.Errorf("the whole of what was cut gives %v", err)
	}
}

func strangeTar(t *testing.T, name string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := tar.NewWriter(&out)
	h := &tar.Header{Name: "folder/", Typeflag: tar.TypeDir, Mode: 0o700}
	if name != "" {
		h = &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600}
	}
	if err := errors.Join(z.WriteHeader(h), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestCodeInADumpRunsAsAStrangerAndEndsWithIt(t *testing.T) {
	w := newWorld(t)
	a, err := w.account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !a.switched {
		t.Skip("only root can run programs as somebody else")
	}
	victim := filepath.Join(w.root, "victim")
	if err := os.WriteFile(victim, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := filepath.Join(w.root, "seen")
	if err := errors.Join(os.Mkdir(seen, 0o777), os.Chmod(seen, 0o777)); err != nil {
		t.Fatal(err)
	}
	dump := "\\! id -u > " + seen + "/uid\n\\! rm -f " + victim + "\n\\! ls -a > " + seen + "/folder\n" +
		"\\! setsid sleep 1000 > /dev/null 2>&1 &\nCREATE TABLE a (b text);\nCOPY a FROM PROGRAM 'id -u; setsid sleep 1001 > /dev/null 2>&1 &';\n"
	dir, _ := w.load("t", database.Load{Source: database.Source{Dump: strings.NewReader(dump)}})
	if b, err := os.ReadFile(filepath.Join(seen, "uid")); err != nil || strings.TrimSpace(string(b)) != "65534" {
		t.Errorf("commands of psql run as user %s, %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(seen, "folder")); err != nil || strings.Join(strings.Fields(string(b)), " ") != ". .." {
		t.Errorf("commands of psql run in a folder with %q, %v", b, err)
	}
	if _, err := os.Stat(victim); err != nil {
		t.Error("a dump took a file of root away")
	}
	_, c := w.clone(dir, "c")
	if got := ask(t, c, "SELECT b FROM a"); got != strconv.Itoa(a.uid) {
		t.Errorf("programs of the database run as user %s, want %d", got, a.uid)
	}
	w = &world{w.Engine, t, w.root}
	for name, dump := range map[string]string{"shadow": "\\i /etc/shadow\n", "import": "SELECT lo_import('/etc/shadow');\n", "copy": "CREATE TABLE a (b text);\n\\copy a from '/etc/shadow'\n"} {
		dir := w.dir(name)
		_, err := w.Load(t.Context(), dir, database.Load{ID: "x", Database: "shop", Source: database.Source{Dump: strings.NewReader(dump)}})
		if err == nil || !strings.Contains(err.Error(), "ermission denied") {
			t.Errorf("%s gives %v", name, err)
		}
		w.nothingRuns(dir)
	}
}

func TestARunningServerIsCopied(t *testing.T) {
	w := newWorld(t)
	o := newOrigin(w)
	o.sql("postgres", "CREATE ROLE plain LOGIN PASSWORD 'word'; ALTER DATABASE shop SET default_transaction_read_only = off")
	for name, address := range map[string]string{
		"whole":   fmt.Sprintf("postgres://postgres@127.0.0.1:%d/shop?sslmode=disable", o.port),
		"by dump": fmt.Sprintf("postgresql://plain:word@127.0.0.1:%d/shop?sslmode=disable", o.port),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "by dump" {
				o.sql("shop", "ALTER TABLE item DISABLE ROW LEVEL SECURITY; GRANT USAGE ON SCHEMA \"Odd Schema\" TO plain; GRANT SELECT ON ALL TABLES IN SCHEMA public, \"Odd Schema\" TO plain; GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO plain; DO $$ DECLARE r record; BEGIN FOR r IN SELECT oid FROM pg_largeobject_metadata LOOP EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO plain', r.oid); END LOOP; END $$")
			}
			w := &world{w.Engine, t, w.root}
			dir, tpl := w.load("t "+name, database.Load{Database: "other", Source: database.Source{URL: address}})
			if tpl.Database != "shop" {
				t.Errorf("the database is called %s", tpl.Database)
			}
			for i, user := range []string{"developer", "app"} {
				everythingIsThere(w, dir, "shop", fmt.Sprintf("c%d %s", i, name), user)
			}
		})
	}
	for address, want := range map[string]string{
		"http://127.0.0.1/shop":                        "postgres://",
		"postgres://u:hidden@127.0.0.1:1/shop":         "cannot be reached",
		"postgres://u@h/shop?sslkey=/etc/secret":       "sslkey",
		"postgres:///shop":                             "no host",
		"postgres://%2Fvar%2Frun%2Fpostgresql/shop":    "postgres://",
		"postgres://u@h/shop?host=/var/run/postgresql": "host",
	} {
		dir := w.dir(strconv.Itoa(len(address)))
		_, err := w.Load(t.Context(), dir, database.Load{ID: "x", Database: "shop", Source: database.Source{URL: address}})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s gives %v", address, err)
		}
	}
}

func TestADataFolderIsCopied(t *testing.T) {
	w := newWorld(t)
	o := newOrigin(w)
	from := func(dir string) database.Load {
		return database.Load{ID: "x", Database: "shop", Source: database.Source{Dir: dir}}
	}
	if _, err := w.Load(t.Context(), w.dir("running"), from(o.data)); dayfly.ErrorCode(err) != dayfly.CodeConflict {
		t.Errorf("the folder of a server that runs gives %v", err)
	}
	o.stop("immediate") // as after a crash
	before, err := os.ReadFile(filepath.Join(o.data, "global/pg_control"))
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := w.load("t", database.Load{Source: database.Source{Dir: o.data}})
	everythingIsThere(w, dir, "shop", "c", "developer")
	if after, err := os.ReadFile(filepath.Join(o.data, "global/pg_control")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the original was changed, %v", err)
	}
	if file := enginetest.Holding(t, dir, "production"); file != "" {
		t.Errorf("%s holds a password of the original", file)
	}

	if err := os.WriteFile(filepath.Join(o.data, "PG_VERSION"), []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Load(t.Context(), w.dir("newer"), from(o.data)); err == nil || !strings.Contains(err.Error(), "postgresql-99") {
		t.Errorf("a version that is not installed gives %v", err)
	}
	if _, err := w.Load(t.Context(), w.dir("none"), from(w.root)); dayfly.ErrorCode(err) != dayfly.CodeInvalid {
		t.Errorf("another folder gives %v", err)
	}
}

func TestAMaskLeavesNothingOfWhatItReplaced(t *testing.T) {
	w := newWorld(t)
	const secret = "VERYsecretVALUE"
	dump := "CREATE ROLE shop_owner;\nCREATE TABLE customer (id int PRIMARY KEY, name text, note text);\n" +
		"INSERT INTO customer SELECT n, '" + secret + "', (SELECT string_agg('" + secret + "' || md5(m::text || n), '') FROM generate_series(1, 200) m) FROM generate_series(1, 300) n;\n" +
		"CREATE INDEX ON customer (name);\nALTER TABLE customer OWNER TO shop_owner;\nANALYZE;\n" +
		"CREATE TABLE dropped AS SELECT '" + secret + "' AS a;\nDROP TABLE dropped;\nSELECT lo_from_bytea(0, '" + secret + "');\n"
	clear, _ := w.load("clear", database.Load{Source: database.Source{Dump: strings.NewReader(dump)}})
	if enginetest.Holding(t, clear, secret) == "" {
		t.Fatal("without a mask no file holds the value: this test would see nothing")
	}
	mask := "UPDATE customer SET name = 'masked', note = 'masked';\nSELECT lo_unlink(oid) FROM pg_largeobject_metadata;\nDO $$ BEGIN RAISE WARNING '" + secret + "'; END $$;\n"
	dir, tpl := w.load("t", database.Load{Source: database.Source{Dump: strings.NewReader(dump)}, Mask: []byte(mask)})
	if file := enginetest.Holding(t, dir, secret); file != "" {
		t.Errorf("%s holds what was masked", file)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("the folder has %v, %v, want data and dayfly.json", entries, err)
	}
	_, c := w.clone(dir, "c")
	if got := ask(t, c, "SELECT count(*) || ' ' || min(name) || ' ' || max(note) FROM customer"); got != "300 masked masked" || tpl.Database != "shop" {
		t.Errorf("%s has %q", tpl.Database, got)
	}
	ask(t, c, "ALTER TABLE customer ADD COLUMN more int")
}

func TestStoppingEndsTheSecondServerThatALoadLeft(t *testing.T) {
	w := newWorld(t)
	dir, _ := w.load("t", database.Load{})
	aside := asideOf(dir)
	if err := os.Rename(dataOf(dir), aside); err != nil {
		t.Fatal(err)
	}
	a, err := w.account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.newest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// As it is where the server is killed while it masks.
	c, err := (&load{e: w.Engine, a: a, dir: dir, jobs: 1}).cluster(p, aside)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := w.Stop(t.Context(), dir, false); err != nil {
		t.Fatal(err)
	}
	w.nothingRuns(dir)
	for _, path := range []string{w.socketsOf(aside), filepath.Join(aside, "postmaster.pid")} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}
