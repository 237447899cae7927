//go:build linux

package enginetest

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly/internal/database"
)

// System is an engine and what the suite has to know of its language. Words in capitals stand for texts that the suite chooses.
type System struct {
	// New gives an engine whose programs can work below root. It skips the test where the engine's programs are not installed.
	New func(t *testing.T, root string) database.Engine
	// Ask gives the first value of what a query answers, as text.
	Ask func(ctx context.Context, c database.Clone, name, query string) (string, error)
	// Dump is one of a table item with a column name, that has a row for each text.
	Dump func(texts ...string) []byte
	// Insert adds a row, Update sets all of them, Wrong is no statement, and Count counts rows, as a query.
	Insert, Update func(text string) string
	Wrong, Count   string
}

type suite struct {
	System
	database.Engine
	root string
}

// Run runs the suite.
func Run(t *testing.T, s System) {
	for name, f := range map[string]func(*testing.T, *suite){
		"a template of a dump becomes clones that do not see each other":                       clones,
		"a server outlives who started it and is found again":                                  adoption,
		"a copy that was started lets nobody in, and becomes a clone while its server goes on": early,
		"a server that was killed is noticed and starts with what was committed":               killed,
		"stopping leaves nothing that runs":                                                    stopping,
		"a clone of a clone that runs has what was committed":                                  cloneOfClone,
		"what a mask replaced is in no file":                                                   mask,
		"a dump that is none fails and leaves nothing that runs":                               garbage,
		"a load that is cancelled leaves nothing that runs":                                    cancelled,
		"fixtures run once when a clone is made, and fail with their line":                     fixtures,
		"fixtures of a template are in all of its clones":                                      templateFixtures,
		"a mask that fails fails the load with its line":                                       failingMask,
		"an empty template becomes a clone that can be written to by its own user":             empty,
		"progress is told": progress,
	} {
		t.Run(name, func(t *testing.T) {
			root := Root(t)
			f(t, &suite{s, s.New(t, root), root})
		})
	}
}

// Programs gives the folders in which the environment says that an engine's programs are; nil = where they are usually.
func Programs() []string {
	if list := os.Getenv("DAYFLY_TEST_PROGRAMS"); list != "" {
		return filepath.SplitList(list)
	}
	return nil
}

// Root makes a folder that other users can come to, and takes it away in the end.
func Root(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "dayfly-db-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o711); err != nil { //nolint:gosec // the servers run as another user
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	return root
}

var ports = struct {
	sync.Mutex
	given map[int]bool
}{given: map[int]bool{}}

// Port gives a port that nobody has, and that this function never gives again.
func Port(t *testing.T) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for {
		var lc net.ListenConfig
		l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if !ports.given[port] {
			ports.given[port] = true
			return port
		}
	}
}

func (s *suite) dir(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(s.root, name)
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // as a driver makes it
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background(), dir, false); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (s *suite) template(t *testing.T, l database.Load) (string, database.Template) {
	t.Helper()
	dir := s.dir(t, "template")
	l.ID, l.Database = "template", "shop"
	tpl, err := s.Load(t.Context(), dir, l)
	if err != nil {
		t.Fatal(err)
	}
	NothingRuns(t, dir)
	return dir, tpl
}

func (s *suite) copy(t *testing.T, from, name string) string {
	t.Helper()
	to := s.dir(t, name)
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", "--", from+"/.", to).CombinedOutput(); err != nil { //nolint:forbidigo // folders of this test
		t.Fatalf("%v: %s", err, out)
	}
	return to
}

func (s *suite) prepared(t *testing.T, dir, name string) database.Clone {
	t.Helper()
	c := database.Clone{ID: name, User: "app", Password: "secret-of-" + name, Port: Port(t)}
	if err := s.Prepare(t.Context(), dir, c); err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *suite) started(t *testing.T, dir string, c database.Clone) database.Server {
	t.Helper()
	server, err := s.Start(t.Context(), dir, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server
}

func (s *suite) clone(t *testing.T, from, name string) (string, database.Clone, database.Server) {
	t.Helper()
	dir := s.copy(t, from, name)
	c := s.prepared(t, dir, name)
	return dir, c, s.started(t, dir, c)
}

func (s *suite) expect(t *testing.T, c database.Clone, query, want string) {
	t.Helper()
	got, err := s.Ask(t.Context(), c, "shop", query)
	if err != nil || got != want {
		t.Errorf("%s gives %q, %v, want %q", query, got, err, want)
	}
}

func (s *suite) do(t *testing.T, c database.Clone, statement string) {
	t.Helper()
	if _, err := s.Ask(t.Context(), c, "shop", statement); err != nil {
		t.Fatal(err)
	}
}

// NothingRuns fails the test when a process works in or below a folder.
func NothingRuns(t *testing.T, dir string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && (cwd == dir || strings.HasPrefix(cwd, dir+"/")) {
			t.Errorf("process %s still works in %s", filepath.Base(filepath.Dir(link)), cwd)
		}
	}
}

// Holding gives the first file below a folder that holds a text; "" = none.
func Holding(t *testing.T, dir, text string) string {
	t.Helper()
	found := ""
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || found != "" {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(text)) {
			found = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (s *suite) source(texts ...string) database.Load {
	return database.Load{Source: database.Source{Dump: bytes.NewReader(s.Dump(texts...))}}
}

func clones(t *testing.T, s *suite) {
	versions, err := s.Versions(t.Context())
	if err != nil || len(versions) == 0 {
		t.Fatalf("the versions are %q, %v", versions, err)
	}
	template, tpl := s.template(t, s.source("one", "two"))
	if tpl.Engine != s.Name() || tpl.Database != "shop" || tpl.Version != versions[0] || tpl.Bytes <= 0 {
		t.Errorf("the template is %+v", tpl)
	}
	_, a, _ := s.clone(t, template, "a")
	_, b, _ := s.clone(t, template, "b")
	s.do(t, a, s.Insert("three"))
	s.expect(t, a, s.Count, "3")
	s.expect(t, b, s.Count, "2")
	stolen := b
	stolen.Password = a.Password
	if _, err := s.Ask(t.Context(), stolen, "shop", s.Count); err == nil {
		t.Error("the password of one clone opens another one")
	}
}

func adoption(t *testing.T, s *suite) {
	template, _ := s.template(t, s.source("one"))
	dir, c, first := s.clone(t, template, "a")
	first.Close()
	s.expect(t, c, s.Count, "1")
	root, again := s.root, s.New(t, s.root)
	other := &suite{s.System, again, root}
	second := other.started(t, dir, c)
	if second.PID() != first.PID() || second.PID() <= 0 {
		t.Errorf("process %d was started where %d ran", second.PID(), first.PID())
	}
	select {
	case <-second.Ended():
		t.Error("a server that runs is said to have ended")
	default:
	}
}

func early(t *testing.T, s *suite) {
	template, _ := s.template(t, s.source("one"))
	dir := s.copy(t, template, "a")
	c := database.Clone{ID: "a", User: "app", Port: Port(t)}
	server := s.started(t, dir, c)
	c.Password = "secret"
	for _, password := range []string{"", c.Password} {
		stranger := c
		stranger.Password = password
		if got, err := s.Ask(t.Context(), stranger, "shop", s.Count); err == nil {
			t.Errorf("nobody is its user yet, and one who says %q gets %q", password, got)
		}
	}
	c.Fixtures = []byte(s.Insert("two"))
	if err := s.Prepare(t.Context(), dir, c); err != nil {
		t.Fatal(err)
	}
	if again := s.started(t, dir, c); again.PID() != server.PID() {
		t.Errorf("process %d was started where %d ran", again.PID(), server.PID())
	}
	s.expect(t, c, s.Count, "2")
	wrong := c
	wrong.Password = "wrong"
	if _, err := s.Ask(t.Context(), wrong, "shop", s.Count); err == nil {
		t.Error("it takes any password")
	}
}

func killed(t *testing.T, s *suite) {
	template, _ := s.template(t, s.source("one"))
	dir, c, server := s.clone(t, template, "a")
	s.do(t, c, s.Insert("two"))
	if err := syscall.Kill(server.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-server.Ended():
	case <-time.After(time.Minute):
		t.Fatal("nobody noticed that the server was killed")
	}
	again := s.started(t, dir, c)
	if again.PID() == server.PID() {
		t.Error("the server that was killed is said to run")
	}
	s.expect(t, c, s.Count, "2")
}

func stopping(t *testing.T, s *suite) {
	template, _ := s.template(t, s.source("one"))
	if err := s.Stop(t.Context(), template, true); err != nil {
		t.Errorf("no server runs, and stopping it gives %v", err)
	}
	dir, c, _ := s.clone(t, template, "a")
	s.do(t, c, s.Insert("two"))
	for _, clean := range []bool{true, false} {
		server := s.started(t, dir, c)
		if err := s.Stop(t.Context(), dir, clean); err != nil {
			t.Fatal(err)
		}
		select {
		case <-server.Ended():
		case <-time.After(time.Minute):
			t.Fatal("the server is not said to have ended")
		}
		NothingRuns(t, dir)
	}
	s.started(t, dir, c)
	s.expect(t, c, s.Count, "2")
}

func cloneOfClone(t *testing.T, s *suite) {
	template, _ := s.template(t, s.source("one"))
	dir, a, _ := s.clone(t, template, "a")
	s.do(t, a, s.Insert("two"))
	release, err := s.Quiesce(t.Context(), dir, a)
	if err != nil {
		t.Fatal(err)
	}
	to := s.copy(t, dir, "b")
	release()
	b := database.Clone{ID: "b", User: "other", Password: "secret-of-b", Port: Port(t)}
	if err := s.Prepare(t.Context(), to, b); err != nil {
		t.Fatal(err)
	}
	s.started(t, to, b)
	s.do(t, a, s.Insert("three"))
	s.expect(t, a, s.Count, "3")
	s.expect(t, b, s.Count, "2")
	if _, err := s.Ask(t.Context(), database.Clone{User: a.User, Password: a.Password, Port: b.Port}, "shop", s.Count); err == nil {
		t.Error("the user of the original gets into the copy")
	}
	// Halted, and whoever halted it died.
	if _, err := s.Quiesce(t.Context(), dir, a); err != nil {
		t.Fatal(err)
	}
	s.started(t, dir, a)
	s.expect(t, a, s.Count, "3")
}

func mask(t *testing.T, s *suite) {
	const secret = "SECRETcustomerNAME"
	texts := make([]string, 2000)
	for i := range texts {
		texts[i] = secret
	}
	l := s.source(texts...)
	unmasked := s.dir(t, "unmasked")
	if _, err := s.Load(t.Context(), unmasked, database.Load{ID: "unmasked", Database: "shop", Source: s.source(texts...).Source}); err != nil {
		t.Fatal(err)
	}
	if Holding(t, unmasked, secret) == "" {
		t.Fatal("without a mask no file holds the text: this test would see nothing")
	}
	l.Mask = []byte(s.Update("masked") + ";\n")
	template, _ := s.template(t, l)
	if file := Holding(t, template, secret); file != "" {
		t.Errorf("%s holds what was masked", file)
	}
	_, c, _ := s.clone(t, template, "a")
	s.expect(t, c, s.Count, "2000")
}

func garbage(t *testing.T, s *suite) {
	for name, dump := range map[string]string{"nothing": "", "text": "this is no dump\n", "bytes": "\x00\x01\x02\x03 no dump"} {
		dir := s.dir(t, name)
		if _, err := s.Load(t.Context(), dir, database.Load{ID: name, Database: "shop", Source: database.Source{Dump: strings.NewReader(dump)}}); err == nil {
			t.Errorf("%s was taken for a dump", name)
		}
		NothingRuns(t, dir)
	}
}

// endless is a dump that goes on until its context ends.
type endless struct {
	ctx  context.Context
	head *bytes.Reader
	read func()
}

func (e endless) Read(p []byte) (int, error) {
	if n, err := e.head.Read(p); err == nil {
		return n, nil
	}
	e.read()
	<-e.ctx.Done()
	return 0, e.ctx.Err()
}

func cancelled(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir := s.dir(t, "template")
	l := database.Load{ID: "template", Database: "shop", Source: database.Source{Dump: endless{ctx, bytes.NewReader(s.Dump("one")), cancel}}}
	if _, err := s.Load(ctx, dir, l); err == nil {
		t.Error("a load that was cancelled worked")
	}
	NothingRuns(t, dir)
}

func fixtures(t *testing.T, s *suite) {
	template, _ := s.template(t, s.source("one"))
	dir := s.copy(t, template, "a")
	c := database.Clone{ID: "a", User: "app", Password: "secret", Port: Port(t), Fixtures: []byte(s.Insert("two") + ";\n")}
	if err := s.Prepare(t.Context(), dir, c); err != nil {
		t.Fatal(err)
	}
	s.started(t, dir, c)
	if err := s.Stop(t.Context(), dir, true); err != nil {
		t.Fatal(err)
	}
	s.started(t, dir, c)
	s.expect(t, c, s.Count, "2")

	dir = s.copy(t, template, "b")
	c = database.Clone{ID: "b", User: "app", Password: "secret", Port: Port(t), Fixtures: fmt.Appendf(nil, "\n%s;\n%s;\n", s.Insert("two"), s.Wrong)}
	if err := s.Prepare(t.Context(), dir, c); err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("fixtures with a mistake in line 3 give %v", err)
	}
	NothingRuns(t, dir)
}

func templateFixtures(t *testing.T, s *suite) {
	l := s.source("one")
	l.Fixtures = []byte(s.Insert("two") + ";\n")
	template, _ := s.template(t, l)
	_, c, _ := s.clone(t, template, "a")
	s.expect(t, c, s.Count, "2")
}

func failingMask(t *testing.T, s *suite) {
	dir := s.dir(t, "template")
	l := s.source("one")
	l.ID, l.Database, l.Mask = "template", "shop", fmt.Appendf(nil, "%s;\n\n%s;\n", s.Update("masked"), s.Wrong)
	if _, err := s.Load(t.Context(), dir, l); err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("a mask with a mistake in line 3 gives %v", err)
	}
	NothingRuns(t, dir)
}

func empty(t *testing.T, s *suite) {
	template, _ := s.template(t, database.Load{})
	_, c, _ := s.clone(t, template, "a")
	s.do(t, c, "CREATE TABLE item (name varchar(100))")
	s.do(t, c, s.Insert("one"))
	s.expect(t, c, s.Count, "1")
}

func progress(t *testing.T, s *suite) {
	dump := s.Dump("one")
	l := s.source("one")
	l.Source.Size = int64(len(dump))
	var last database.Progress
	l.Progress = func(p database.Progress) { last = p }
	s.template(t, l)
	if last.Bytes != int64(len(dump)) || last.Total != int64(len(dump)) || last.Step == "" {
		t.Errorf("the last progress is %+v of %d bytes", last, len(dump))
	}
}
