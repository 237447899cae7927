package cli_test

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api/client"
	"github.com/dayfly-dev/dayfly/internal/app"
	"github.com/dayfly-dev/dayfly/internal/cli"
	"github.com/dayfly-dev/dayfly/internal/database/fake"
)

// withDatabases makes a shell whose server keeps databases in memory.
func withDatabases(t *testing.T) (*shell, *fake.Host) {
	t.Helper()
	host := fake.NewHost()
	a, err := app.New(app.Config{
		Data: filepath.Join(t.TempDir(), "data"), Listen: "127.0.0.1:0", Domain: "localhost", NamePattern: "{project}-{branch}", HostPattern: "{service}-{env}",
		Runner: "local", Advertise: "127.0.0.1", Poll: time.Minute, KeepLogs: time.Hour, Keep: dayfly.Duration(time.Hour), MaxKeep: dayfly.Duration(2 * time.Hour), Version: "test",
		Databases: func(context.Context, app.DatabaseConfig) (app.Databases, error) { return fake.New(host), nil },
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	_, address, _ := a.Addresses()
	return &shell{T: t, url: "http://" + address, vars: map[string]string{"DAYFLY_SERVER": "http://" + address}}, host
}

// file writes one and gives its name.
func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// piped runs a command with something on its standard input.
func (s *shell) piped(in string, args ...string) result {
	var out, err buffer
	code := cli.Main(s.Context(), args, cli.Streams{In: strings.NewReader(in), Out: &out, Err: &err, Getenv: func(name string) string { return s.vars[name] }}, "v1")
	return result{code, out.String(), err.String()}
}

func TestADatabaseIsMadeShownResetAndDeletedByCommands(t *testing.T) {
	s, host := withDatabases(t)
	if out := s.ok("template", "create", "shop", "--from-dump", file(t, "shop.sql", "orders;")); !strings.Contains(out, "postgres 15") || !strings.Contains(out, "7 B") {
		t.Errorf("the template is shown as\n%s", out)
	}
	url := s.ok("db", "create", "mine", "--keep", "1h")
	if !regexp.MustCompile(`^postgres://dayfly:[A-Z2-7]{26}@127\.0\.0\.1:15432/shop\n$`).MatchString(url) {
		t.Errorf("prints %q", url)
	}
	if again := s.ok("db", "url", "mine"); again != url {
		t.Errorf("its address is %q, was %q", again, url)
	}
	d := onlyJSON[dayfly.Database](t, s.ok("db", "show", "mine", "-o", "json"))
	if d.URL != strings.TrimSpace(url) || d.Status != dayfly.DatabaseReady || d.Template != "shop" {
		t.Errorf("is %+v", d)
	}
	for _, want := range []string{"mine", "ready", "shop, version 1", "7 B, 8.2 KB its own", "in 1h"} {
		if out := s.ok("db", "show", d.ID); !strings.Contains(out, want) && !strings.Contains(out, "in 59m") {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if out := s.ok("db", "extend", "mine", "2h"); !regexp.MustCompile(`^mine expires at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n$`).MatchString(out) {
		t.Errorf("extending prints %q", out)
	}
	extended := onlyJSON[dayfly.Database](t, s.ok("db", "extend", d.ID, "1h", "-o", "json"))
	if extended.ID != d.ID || extended.ExpiresAt == nil || !extended.ExpiresAt.After(d.CreatedAt.Add(90*time.Minute)) {
		t.Errorf("extended it is %+v", extended)
	}
	for line, want := range map[string]string{"db extend ": "mine\n:4\n", "db extend mine ": ":4\n", "db url ": "mine\n:4\n", "db reset mine ": ":4\n", "db delete mine ": "mine\n:4\n"} {
		if out := s.ok(append([]string{"__complete"}, strings.Split(line, " ")...)...); out != want {
			t.Errorf("%q is completed to %q, want %q", line, out, want)
		}
	}
	host.Write(d.ID, "mine;")
	copied := onlyJSON[dayfly.Database](t, s.ok("db", "create", "--from", "mine", "-o", "json"))
	if got, _ := host.Content(copied.ID); got != "orders;mine;" || copied.From != "mine" {
		t.Errorf("the copy holds %q: %+v", got, copied)
	}
	if out := s.ok("db", "reset", "mine"); out != url {
		t.Errorf("reset prints %q", out)
	}
	if got, _ := host.Content(d.ID); got != "orders;" {
		t.Errorf("after the reset it holds %q", got)
	}
	list := onlyJSON[struct{ Items []dayfly.Database }](t, s.ok("db", "list", "-o", "json"))
	if len(list.Items) != 2 {
		t.Errorf("there are %+v", list)
	}
	if out := s.ok("db", "list"); !strings.Contains(out, "127.0.0.1:15432") || !strings.Contains(out, copied.Name) || strings.Contains(out, d.Password) {
		t.Errorf("the list is\n%s", out)
	}
	s.ok("db", "delete", "mine", copied.Name)
	if _, left := host.IDs(); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	s.ok("template", "delete", "shop")
	if out := s.ok("template", "list", "-o", "json"); len(onlyJSON[struct{ Items []dayfly.Template }](t, out).Items) != 0 {
		t.Errorf("there is %s", out)
	}
}

func TestADumpComesFromStandardInputWithMaskAndFixtures(t *testing.T) {
	s, host := withDatabases(t)
	mask, more := file(t, "mask.sql", "secret"), file(t, "more.sql", "+rows")
	if r := s.piped("a secret", "template", "create", "shop", "--from-dump", "-", "--mask", mask, "--fixtures", more); r.code != 0 {
		t.Fatalf("%d: %s", r.code, r.err)
	}
	d := onlyJSON[dayfly.Database](t, s.ok("db", "create", "-o", "json"))
	if got, _ := host.Content(d.ID); got != "a ***+rows" {
		t.Errorf("holds %q", got)
	}
	if r := s.piped("the next secret", "template", "refresh", "shop", "--from-dump", "-"); r.code != 0 || !strings.Contains(r.out, "ready    2") {
		t.Errorf("%d: %s%s", r.code, r.out, r.err)
	}
	s.ok("template", "create", "small", "--fixtures", more)
	s.vars["DAYFLY_FROM_URL"] = "postgres://u:hunter2@db.example.org/x"
	s.ok("template", "create", "far")
	s.ok("template", "refresh", "far")
	list := onlyJSON[struct{ Items []dayfly.Template }](t, s.ok("template", "list", "-o", "json"))
	sources := []string{}
	for _, t := range list.Items {
		sources = append(sources, t.Name+" "+t.Source)
	}
	if !slices.Equal(sources, []string{"far url", "shop dump", "small empty"}) {
		t.Errorf("there are %q", sources)
	}
}

func TestADumpWhoseSenderPausesKeepsNobodyFromEndingTheCommand(t *testing.T) {
	s, _ := withDatabases(t)
	for name, c := range map[string]struct {
		args []string
		code int
		stop bool // by the user
	}{
		"its time is over": {[]string{"template", "create", "slow", "--from-dump", "-", "--timeout", "300ms"}, 6, false},
		"ctrl-c":           {[]string{"template", "create", "stopped", "--from-dump", "-"}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			in, sender := io.Pipe()
			defer sender.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			code := make(chan int, 1)
			var out, err buffer
			go func() {
				code <- cli.Main(ctx, c.args, cli.Streams{In: in, Out: &out, Err: &err, Getenv: func(name string) string { return s.vars[name] }}, "v1")
			}()
			if _, err := sender.Write([]byte("the first half")); err != nil { // is read, so it is under way
				t.Fatal(err)
			}
			if c.stop {
				cancel()
			}
			select {
			case got := <-code:
				if got != c.code {
					t.Errorf("it ended with %d, want %d: %s", got, c.code, err.String())
				}
			case <-time.After(time.Minute):
				t.Error("it has not ended")
			}
		})
	}
}

func TestCommandsOfDatabasesEndWithTheCodeOfWhatIsWrong(t *testing.T) {
	s, host := withDatabases(t)
	if r := s.run("db", "create"); r.code != 3 || !strings.Contains(r.err, "template create") {
		t.Errorf("without a template: %d %s", r.code, r.err)
	}
	s.ok("template", "create", "shop", "--from-dump", file(t, "shop.sql", "x"))
	s.ok("db", "create", "mine")
	empty := file(t, "empty.sql", "")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"db"}, 2, "say create"},
		{[]string{"template"}, 2, "say create"},
		{[]string{"db", "show", "gone"}, 3, "db list"},
		{[]string{"db", "url", "gone"}, 3, "gone"},
		{[]string{"db", "delete", "gone"}, 3, "gone"},
		{[]string{"db", "reset", "gone"}, 3, "gone"},
		{[]string{"db", "list", "--env", "gone"}, 3, "gone"},
		{[]string{"db", "extend", "gone", "1h"}, 3, "db list"},
		{[]string{"db", "extend", "mine"}, 2, "accepts 2 arg"},
		{[]string{"db", "extend", "mine", "soon"}, 2, "no duration"},
		{[]string{"db", "extend", "mine", "0s"}, 2, "longer than nothing"},
		{[]string{"db", "extend", "mine", "3h"}, 2, "--max-keep"},
		{[]string{"db", "extend", "mine", "forever"}, 4, "--allow-forever"},
		{[]string{"db", "create", "mine"}, 7, "mine"},
		{[]string{"db", "create", "--keep", "soon"}, 2, "--keep"},
		{[]string{"db", "create", "--keep", "3h"}, 2, "--max-keep"},
		{[]string{"db", "create", "--keep", "0s"}, 2, "keep"},
		{[]string{"db", "create", "--template", "gone"}, 3, "gone"},
		{[]string{"template", "create", "new"}, 2, "--from-dump"},
		{[]string{"template", "create", "new", "--from-dump", "/gone"}, 2, "/gone"},
		{[]string{"template", "create", "new", "--from-dump", t.TempDir()}, 2, "tar"},
		{[]string{"template", "create", "new", "--from-dump", "a", "--from-url", "b"}, 2, "one of"},
		{[]string{"template", "create", "new", "--fixtures", empty}, 2, "is empty"},
		{[]string{"template", "create", "new", "--from-url", "nowhere"}, 2, "url"},
		{[]string{"template", "create", "shop", "--from-dump", file(t, "a.sql", "x")}, 7, "refresh"},
		{[]string{"template", "create", "bad", "--from-dump", file(t, "b.sql", "garbage")}, 1, "this is no dump"},
		{[]string{"template", "refresh", "shop"}, 2, "--from-dump"},
		{[]string{"template", "refresh", "gone"}, 3, "gone"},
		{[]string{"template", "delete", "gone"}, 3, "gone"},
		{[]string{"template", "delete", "shop"}, 7, "mine"},
	} {
		if r := s.run(c.args...); r.code != c.code || !strings.Contains(r.err, c.says) || r.out != "" {
			t.Errorf("dayfly %s ended with %d, want %d and %q: %s%s", strings.Join(c.args, " "), r.code, c.code, c.says, r.out, r.err)
		}
	}
	defer host.Hold("Ensure")()
	if r := s.run("db", "create", "slow", "--timeout", "50ms"); r.code != 6 || !strings.Contains(r.err, "slow") {
		t.Errorf("%d %s", r.code, r.err)
	}
	if out := s.ok("db", "create", "later", "--no-wait"); !strings.HasPrefix(out, "postgres://") {
		t.Errorf("prints %q", out)
	}
	host.Fail("Ensure", dayfly.Errorf(dayfly.CodeFailed, "the disk is full"))
}

func TestADatabaseThatCannotStartIsAFailureThatSaysWhy(t *testing.T) {
	s, host := withDatabases(t)
	s.ok("template", "create", "shop", "--from-dump", file(t, "shop.sql", "x"))
	host.Fail("Ensure", dayfly.Errorf(dayfly.CodeFailed, "the disk is full"))
	r := s.run("db", "create", "-o", "json")
	if d := onlyJSON[dayfly.Database](t, r.out); r.code != 1 || d.Status != dayfly.DatabaseFailed || !strings.Contains(r.err, "the disk is full") {
		t.Errorf("%d: %+v %s", r.code, d, r.err)
	}
	host.Fail("Load", dayfly.Errorf(dayfly.CodeFailed, "no room"))
	r = s.run("template", "create", "small", "--fixtures", file(t, "f.sql", "x"), "-o", "json")
	if now := onlyJSON[dayfly.Template](t, r.out); r.code != 1 || now.Status != dayfly.TemplateFailed || !strings.Contains(r.err, "no room") {
		t.Errorf("%d: %+v %s", r.code, now, r.err)
	}
}

func TestNamesOfDatabasesAndTemplatesAreCompleted(t *testing.T) {
	s, _ := withDatabases(t)
	s.ok("template", "create", "shop", "--from-dump", file(t, "shop.sql", "x"))
	s.ok("db", "create", "mine")
	for line, want := range map[string]string{
		"db show ": "mine", "db delete ": "mine", "db create --from ": "mine", "db create --template ": "shop", "template refresh ": "shop", "template delete ": "shop",
	} {
		args := append([]string{"__complete"}, strings.Fields(line)...)
		if out := s.ok(append(args, "")...); !strings.HasPrefix(out, want+"\n") {
			t.Errorf("dayfly %s is completed with %q, want %s", line, out, want)
		}
	}
}

// A dump of any size is sent while it is read: nothing of it is kept in memory or in a file.
func TestADumpThatIsLargerThanAnyBodyIsTaken(t *testing.T) {
	s, host := withDatabases(t)
	size := 5 << 20
	if _, err := client.New(s.url, "").CreateTemplate(t.Context(), dayfly.TemplateRequest{Name: "big"}, strings.NewReader(strings.Repeat("x", size))); err != nil {
		t.Fatal(err)
	}
	d := onlyJSON[dayfly.Database](t, s.ok("db", "create", "-o", "json"))
	if got, _ := host.Content(d.ID); len(got) != size {
		t.Errorf("%d bytes came of %d", len(got), size)
	}
}
