//go:build linux

package postgres

import (
	"bufio"
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestRolesThatAStatementRefersTo(t *testing.T) {
	for line, want := range map[string]string{
		"ALTER TABLE public.item OWNER TO app;":                                "app",
		`ALTER TABLE public.item OWNER TO "Odd ""Name";`:                       `Odd "Name`,
		"GRANT SELECT,INSERT ON TABLE public.item TO reader, Writer;":          "reader writer",
		"REVOKE ALL ON SCHEMA public FROM PUBLIC;":                             "",
		"REVOKE ALL ON SCHEMA public FROM old_one;":                            "old_one",
		"GRANT admins TO alice WITH ADMIN OPTION GRANTED BY postgres;":         "admins alice",
		"ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT ALL ON TABLES TO reader;": "app reader",
		"SET SESSION AUTHORIZATION 'app';":                                     "app",
		"CREATE SCHEMA mine AUTHORIZATION app;":                                "app",
		"CREATE POLICY p ON public.item FOR SELECT TO a, b USING (true);":      "a b",
		"GRANT pg_read_all_data TO CURRENT_USER;":                              "",
		"SELECT 1;": "",
		"COMMENT ON TABLE item IS 'to whom it may concern';": "",
		"ALTER TABLE item OWNER TO überall;":                 "überall",
		"CREATE TABLE owner_to (grant_to text);":             "",
	} {
		roles := rolesIn([]byte(line))
		slices.Sort(roles)
		if got := strings.Join(slices.Compact(roles), " "); got != want {
			t.Errorf("%s refers to %q, want %q", line, got, want)
		}
	}
}

func TestADumpIsPassedOnAsItIs(t *testing.T) {
	dump := "CREATE ROLE made;\nALTER TABLE a OWNER TO made;\nALTER TABLE a OWNER TO app;\nCOPY a (b) FROM stdin;\nALTER TABLE a OWNER TO row;\n" + strings.Repeat("long ", 50) + "\n\\restrict x\n\\.\nALTER TABLE a OWNER TO app;\nlast line without an end"
	var roles []string
	s := &statements{r: bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(dump)), 64), made: map[string]bool{}, role: func(name string) error { roles = append(roles, name); return nil }}
	got, err := io.ReadAll(s)
	if err != nil || string(got) != dump || !s.eof {
		t.Errorf("%q was passed on, %v", got, err)
	}
	if len(roles) > 1 || (len(roles) == 1 && roles[0] != "app") {
		t.Errorf("the roles are %q: rows were taken for statements, or roles that the dump makes for missing ones", roles)
	}
	s = &statements{r: bufio.NewReader(strings.NewReader("\\restrict abc\nSELECT 1;\n\\unrestrict abc\n")), made: map[string]bool{}}
	if got, err := io.ReadAll(s); err != nil || string(got) != "\nSELECT 1;\n\n" {
		t.Errorf("%q was passed on, %v: lines keep their numbers, and an older psql must not see what it does not know", got, err)
	}
}

func FuzzDump(f *testing.F) {
	f.Add([]byte("COPY a FROM stdin;\n1\n\\.\nGRANT a TO b;\n"))
	f.Add(gzipped([]byte("SELECT 1;\n")))
	f.Add(zstded([]byte("PGDMP")))
	f.Add([]byte("\x1f\x8b\x1f\x8b"))
	f.Fuzz(func(t *testing.T, dump []byte) {
		b, k, err := open(bytes.NewReader(dump))
		if err != nil || k != plain {
			return
		}
		s := &statements{r: b, made: map[string]bool{}, role: func(string) error { return nil }}
		got, err := io.ReadAll(s)
		if s.eof != (err == nil) {
			t.Errorf("whole: %v, and the error is %v", s.eof, err)
		}
		if err == nil && bytes.Count(got, []byte("\n")) != bytes.Count(dump, []byte("\n")) && !bytes.HasPrefix(dump, []byte{0x1f}) && !bytes.HasPrefix(dump, []byte{0x28}) {
			t.Error("lines were lost")
		}
	})
}

func TestSettingsOfOthersAreCheckedAndQuoted(t *testing.T) {
	for name, value := range map[string]string{
		"port": "1", "PORT": "1", "listen_addresses": "*", "archive_command": "rm", "hba_file": "/x", "a b": "1", "work_mem\n": "1", "": "1", "work_mem": "1\nport = 2",
		"shared_preload_libraries": "/tmp/x.so", "include": "x", "log_directory": "/", "'": "x",
	} {
		if CheckSettings(map[string]string{name: value}) == nil {
			t.Errorf("%q = %q is let through", name, value)
		}
	}
	good := map[string]string{"work_mem": "64MB", "Jit": "on", "pg_stat_statements.track": "all", "search_path": `"$user", 'it''s \ here'`, "shared_preload_libraries": "pg_stat_statements"}
	if err := CheckSettings(good); err != nil {
		t.Error(err)
	}
	conf := string(configuration(throwaway(), good))
	for _, line := range []string{"jit = 'on'\n", `search_path = '"$user", ''it''''s \\ here'''` + "\n", "fsync = 'off'\n"} {
		if !strings.Contains(conf, line) {
			t.Errorf("the configuration lacks %s:\n%s", line, conf)
		}
	}
	if strings.Count(conf, "jit = ") != 1 {
		t.Error("a setting stands there twice")
	}
}

func TestVersionsAreRead(t *testing.T) {
	for out, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": 15, "postgres (PostgreSQL) 18beta1\n": 18, "postgres (PostgreSQL) 9.6.24": 9, "postgres (PostgreSQL) 17": 17, "mysqld 8": 0, "": 0,
	} {
		if got := majorOf(out); got != want {
			t.Errorf("%q is version %d, want %d", out, got, want)
		}
	}
	e := New(Options{Programs: []string{t.TempDir()}})
	if _, err := e.Versions(t.Context()); err == nil || !strings.Contains(err.Error(), "apt install postgresql") {
		t.Errorf("without programs the error is %v", err)
	}
	if _, err := e.major(t.Context(), "13"); err == nil {
		t.Error("a version that is not installed was found")
	}
}

func TestUsersThatADatabaseCannotHave(t *testing.T) {
	for _, name := range []string{"", "pg_monitor", admin, owner, `a"b`, "A", strings.Repeat("a", 64), "a b", "-x", "1a"} {
		if checkUser(name) == nil {
			t.Errorf("%q is let through", name)
		}
	}
	for _, name := range []string{"app", "_x1", strings.Repeat("a", 63), "postgres"} {
		if err := checkUser(name); err != nil {
			t.Error(err)
		}
	}
}
