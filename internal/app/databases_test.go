package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api/client"
	"github.com/dayfly-dev/dayfly/internal/database/fake"
)

// stored is a server with databases that live in memory, and its client.
type stored struct {
	*testing.T
	*client.Client
	app    *App
	host   *fake.Host
	config Config
	stop   func()
}

// storing starts one; the folder and the databases outlive it.
func storing(t *testing.T, change ...func(*Config)) *stored {
	t.Helper()
	host := fake.NewHost()
	config := testConfig(dataFolder(t))
	config.Databases = func(context.Context, DatabaseConfig) (Databases, error) { return fake.New(host), nil }
	for _, c := range change {
		c(&config)
	}
	s := &stored{T: t, host: host, config: config}
	t.Cleanup(s.takeDown) // after the server has ended
	s.start()
	return s
}

// takeDown ends the services that outlived the last server.
func (s *stored) takeDown() {
	if running, err := os.ReadDir(filepath.Join(s.config.Data, "run")); err != nil || len(running) == 0 {
		return
	}
	s.config.TakeDown = true
	a, err := New(s.config, slog.New(slog.DiscardHandler))
	if err != nil {
		s.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := errors.Join(a.Start(ctx), a.Stop(ctx)); err != nil {
		s.Error(err)
	}
}

func (s *stored) start() {
	s.Helper()
	s.app, s.stop = serve(s.T, s.config)
	_, address, _ := s.app.Addresses()
	s.Client = client.New("http://"+address, "")
}

// template makes a template of a dump.
func (s *stored) template(name, dump string) dayfly.Template {
	s.Helper()
	t, err := s.CreateTemplate(s.Context(), dayfly.TemplateRequest{Name: name, Size: int64(len(dump))}, strings.NewReader(dump))
	if err != nil {
		s.Fatal(err)
	}
	return t
}

// database makes one and waits until it is ready.
func (s *stored) database(r dayfly.DatabaseRequest) dayfly.Database {
	s.Helper()
	d, err := s.CreateDatabase(s.Context(), r)
	if err != nil {
		s.Fatal(err)
	}
	return s.settled(d.ID, dayfly.DatabaseReady)
}

// settled waits for a status.
func (s *stored) settled(name string, want dayfly.DatabasePhase) dayfly.Database {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	d, err := s.app.control.WaitDatabase(ctx, name, func(d dayfly.Database) bool { return d.Status == want })
	if err != nil {
		s.Fatalf("%s is %s (%s): %v", name, d.Status, d.Message, err)
	}
	return d
}

// gone waits until a database is not there any more.
func (s *stored) gone(name string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	d, err := s.app.control.WaitDatabase(ctx, name, func(dayfly.Database) bool { return false })
	if dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		s.Fatalf("%s is %s: %v", name, d.Status, err)
	}
}

// eventually waits until something holds.
func (s *stored) eventually(what string, holds func() bool) {
	s.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("never: %s", what)
		}
	}
}

func (s *stored) content(id, want string) {
	s.Helper()
	if got, ok := s.host.Content(id); !ok || got != want {
		s.Errorf("%s holds %q (%t), want %q", id, got, ok, want)
	}
}

// refusedWith checks an error's code and what it mentions.
func refusedWith(t *testing.T, err error, code dayfly.Code, mentions ...string) {
	t.Helper()
	if dayfly.ErrorCode(err) != code || !contains(err, mentions...) {
		t.Errorf("%q, %v; want %s and %q", dayfly.ErrorCode(err), err, code, mentions)
	}
}

func TestADatabaseIsACopyThatIsResetAndGoesWhileOthersStay(t *testing.T) {
	s := storing(t)
	_, err := s.CreateDatabase(t.Context(), dayfly.DatabaseRequest{})
	refusedWith(t, err, dayfly.CodeNotFound, "template create")
	made := s.template("shop", "orders;")
	if made.Status != dayfly.TemplateReady || made.Version != 1 || made.Source != "dump" || made.Engine != "postgres" || *made.SizeBytes != 7 || made.Database != "shop" {
		t.Errorf("the template is %+v", made)
	}

	held := s.host.Hold("Ensure")
	asked, err := s.CreateDatabase(t.Context(), dayfly.DatabaseRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if asked.Status != dayfly.DatabaseStarting || asked.URL == "" || asked.Template != "shop" || asked.ExpiresAt == nil {
		t.Errorf("as asked for it is %+v", asked)
	}
	held()
	a := s.settled(asked.ID, dayfly.DatabaseReady)
	if a.URL != asked.URL || a.Password != asked.Password || len(a.Password) < 20 {
		t.Errorf("its address %s became %s", asked.URL, a.URL)
	}
	if want := fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/shop", a.User, a.Password, a.Port); a.URL != want {
		t.Errorf("is at %s, want %s", a.URL, want)
	}
	if a.SizeBytes == nil || *a.SizeBytes != 7 || a.OwnBytes == nil || *a.OwnBytes != 8192 {
		t.Errorf("has the sizes %v and %v", a.SizeBytes, a.OwnBytes)
	}
	if clone, _ := s.host.Clone(a.ID); clone.Password != a.Password || clone.Port != a.Port || clone.User != a.User || clone.Listen != "127.0.0.1" {
		t.Errorf("the keeper was told %+v", clone)
	}
	b := s.database(dayfly.DatabaseRequest{Name: "second", Keep: dayfly.Duration(time.Hour)})
	if b.Name != "second" || b.Port == a.Port || b.Password == a.Password || !b.ExpiresAt.Equal(b.CreatedAt.Add(time.Hour)) {
		t.Errorf("the second one is %+v, the first %+v", b, a)
	}

	s.host.Write(a.ID, "mine;")
	copied := s.database(dayfly.DatabaseRequest{From: a.Name})
	s.content(copied.ID, "orders;mine;")
	if copied.From != a.Name || copied.Template != "shop" {
		t.Errorf("the copy is %+v", copied)
	}
	if _, err := s.ResetDatabase(t.Context(), a.Name); err != nil {
		t.Fatal(err)
	}
	if back := s.settled(a.ID, dayfly.DatabaseReady); back.URL != a.URL {
		t.Errorf("after the reset it is at %s, was at %s", back.URL, a.URL)
	}
	s.content(a.ID, "orders;")
	s.host.Write(copied.ID, "more;")
	if _, err := s.ResetDatabase(t.Context(), copied.Name); err != nil {
		t.Fatal(err)
	}
	s.settled(copied.ID, dayfly.DatabaseReady)
	s.content(copied.ID, "orders;mine;") // as the other one was then

	list, err := s.Databases(t.Context(), dayfly.DatabaseFilter{})
	if err != nil || len(list) != 3 {
		t.Errorf("there are %+v, %v", list, err)
	}
	refusedWith(t, s.DeleteTemplate(t.Context(), "shop"), dayfly.CodeConflict, a.Name, "second", copied.Name)
	for _, d := range list {
		going, err := s.DeleteDatabase(t.Context(), d.Name, false)
		if err != nil || going.Status != dayfly.DatabaseDeleting {
			t.Errorf("%s is %s, %v", d.Name, going.Status, err)
		}
		s.gone(d.ID)
	}
	if err := s.DeleteTemplate(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	s.eventually("nothing is left", func() bool { templates, clones := s.host.IDs(); return len(templates)+len(clones) == 0 })
}

func TestWhatCannotBeIsRefusedAndSaysWhy(t *testing.T) {
	s := storing(t)
	s.template("shop", "x")
	s.database(dayfly.DatabaseRequest{Name: "mine"})
	ctx := t.Context()
	create := func(r dayfly.DatabaseRequest) error { _, err := s.CreateDatabase(ctx, r); return err }
	refusedWith(t, create(dayfly.DatabaseRequest{Name: "mine"}), dayfly.CodeConflict, "mine")
	refusedWith(t, create(dayfly.DatabaseRequest{Name: "No!"}), dayfly.CodeInvalid, "name")
	refusedWith(t, create(dayfly.DatabaseRequest{Template: "gone"}), dayfly.CodeNotFound, "gone", "template create")
	refusedWith(t, create(dayfly.DatabaseRequest{From: "gone"}), dayfly.CodeNotFound, "gone", "db list")
	refusedWith(t, create(dayfly.DatabaseRequest{From: "mine", Template: "shop"}), dayfly.CodeInvalid, "from")
	refusedWith(t, create(dayfly.DatabaseRequest{Keep: dayfly.Duration(49 * time.Hour)}), dayfly.CodeInvalid, "keep", "2d")
	refusedWith(t, create(dayfly.DatabaseRequest{Keep: dayfly.Forever}), dayfly.CodeForbidden, "allow-forever")
	template := func(name, dump string) error {
		_, err := s.CreateTemplate(ctx, dayfly.TemplateRequest{Name: name}, strings.NewReader(dump))
		return err
	}
	refusedWith(t, template("shop", "y"), dayfly.CodeConflict, "shop", "refresh")
	refusedWith(t, template("No!", "y"), dayfly.CodeInvalid, "name")
	refusedWith(t, template("dayfly-x", "y"), dayfly.CodeInvalid, "reserved")
	_, err := s.CreateTemplate(ctx, dayfly.TemplateRequest{Name: "big", Mask: make([]byte, dayfly.MaxScript+1)}, strings.NewReader("x"))
	refusedWith(t, err, dayfly.CodeInvalid, "mask")
	_, err = s.CreateTemplate(ctx, dayfly.TemplateRequest{Name: "folder", Dir: "relative"}, nil)
	refusedWith(t, err, dayfly.CodeInvalid, "dir", "absolute")
	_, err = s.CreateTemplate(ctx, dayfly.TemplateRequest{Name: "elsewhere", URL: dayfly.NewSecret("nowhere")}, nil)
	refusedWith(t, err, dayfly.CodeInvalid, "url")
	_, err = s.RefreshTemplate(ctx, "shop", nil, 0)
	refusedWith(t, err, dayfly.CodeInvalid, "dump")
	if err := template("other", "y"); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, create(dayfly.DatabaseRequest{}), dayfly.CodeInvalid, "other, shop")
	for _, name := range []string{"gone", ""} {
		_, err := s.ResetDatabase(ctx, name)
		if dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			t.Errorf("reset %q: %v", name, err)
		}
	}
}

func TestADumpThatIsNoneIsATemplateThatFailedAndMayBeSentAgain(t *testing.T) {
	s := storing(t)
	_, err := s.CreateTemplate(t.Context(), dayfly.TemplateRequest{Name: "shop"}, strings.NewReader("garbage in"))
	refusedWith(t, err, dayfly.CodeFailed, "this is no dump")
	if now, err := s.Template(t.Context(), "shop"); err != nil || now.Status != dayfly.TemplateFailed || now.Message != "this is no dump" || now.Version != 0 {
		t.Errorf("is %+v, %v", now, err)
	}
	_, err = s.CreateDatabase(t.Context(), dayfly.DatabaseRequest{})
	refusedWith(t, err, dayfly.CodeConflict, "this is no dump")
	if now := s.template("shop", "good"); now.Status != dayfly.TemplateReady || now.Message != "" {
		t.Errorf("is %+v", now)
	}
	// One whose sender goes away in the middle has failed, too.
	reader, writer := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := s.CreateTemplate(ctx, dayfly.TemplateRequest{Name: "half"}, reader)
		done <- err
	}()
	if _, err := writer.Write([]byte("the first half")); err != nil {
		t.Fatal(err)
	}
	s.eventually("it is being loaded", func() bool {
		now, err := s.Template(t.Context(), "half")
		return err == nil && now.Status == dayfly.TemplateLoading
	})
	refusedWith(t, func() error { _, err := s.RefreshTemplate(t.Context(), "half", strings.NewReader("x"), 1); return err }(), dayfly.CodeConflict, "being loaded")
	cancel()
	writer.CloseWithError(errors.New("the disk is gone"))
	if err := <-done; err == nil {
		t.Error("half a dump was loaded")
	}
	s.eventually("it has failed", func() bool {
		now, err := s.Template(t.Context(), "half")
		return err == nil && now.Status == dayfly.TemplateFailed
	})
}

func TestAMaskAndFixturesComeWithTheDumpAndAreUsedAgain(t *testing.T) {
	s := storing(t)
	_, err := s.CreateTemplate(t.Context(), dayfly.TemplateRequest{Name: "shop", Mask: []byte("secret"), Fixtures: []byte("+fixtures")}, strings.NewReader("a secret"))
	if err != nil {
		t.Fatal(err)
	}
	first := s.database(dayfly.DatabaseRequest{Name: "first"})
	s.content(first.ID, "a ***+fixtures")
	old, _ := s.host.IDs()
	if _, err := s.RefreshTemplate(t.Context(), "shop", strings.NewReader("another secret"), 0); err != nil {
		t.Fatal(err)
	}
	second := s.database(dayfly.DatabaseRequest{Name: "second"})
	s.content(second.ID, "another ***+fixtures")
	s.content(first.ID, "a ***+fixtures")
	if first.Version != 1 || second.Version != 2 {
		t.Errorf("are of the versions %d and %d", first.Version, second.Version)
	}
	if templates, _ := s.host.IDs(); len(templates) != 2 {
		t.Errorf("the old version is not kept for its database: %v", templates)
	}
	s.eventually("nothing is held ready for it any more", func() bool { return slices.Contains(s.host.Done(), "Retire "+old[0]) })
	for _, done := range s.host.Done() {
		if strings.HasPrefix(done, "Retire") && done != "Retire "+old[0] {
			t.Errorf("a version that is in use is retired: %s", done)
		}
	}
	if _, err := s.DeleteDatabase(t.Context(), "first", false); err != nil {
		t.Fatal(err)
	}
	s.eventually("the old version is collected", func() bool { templates, _ := s.host.IDs(); return len(templates) == 1 })
}

func TestTemplatesAreMadeByTheServerFromFoldersAddressesAndNothing(t *testing.T) {
	s := storing(t)
	for name, c := range map[string]struct {
		r    dayfly.TemplateRequest
		want string
	}{
		"folder": {dayfly.TemplateRequest{Dir: "/srv/data"}, "dir /srv/data"},
		"server": {dayfly.TemplateRequest{URL: dayfly.NewSecret("postgres://u:hunter2@db/x")}, "url postgres://u:hunter2@db/x"},
		"empty":  {dayfly.TemplateRequest{Fixtures: []byte("rows")}, "rows"},
	} {
		c.r.Name = name
		if _, err := s.CreateTemplate(t.Context(), c.r, nil); err != nil {
			t.Fatal(err)
		}
		s.eventually(name+" is ready", func() bool {
			now, err := s.Template(t.Context(), name)
			return err == nil && now.Status == dayfly.TemplateReady
		})
		s.content(s.database(dayfly.DatabaseRequest{Template: name}).ID, c.want)
	}
	held := s.host.Hold("Load")
	if now, err := s.RefreshTemplate(t.Context(), "server", nil, 0); err != nil || !now.Refreshing || now.Status != dayfly.TemplateReady || now.Version != 1 {
		t.Errorf("is %+v, %v", now, err)
	}
	_, err := s.RefreshTemplate(t.Context(), "server", nil, 0)
	refusedWith(t, err, dayfly.CodeConflict, "being loaded already")
	s.eventually("progress is told", func() bool {
		now, err := s.Template(t.Context(), "server")
		return err == nil && now.Progress != nil && now.Progress.Step == "loading"
	})
	s.host.Fail("Load", dayfly.Errorf(dayfly.CodeFailed, "the server is down"))
	held()
	s.eventually("the failure is told and the old version stays", func() bool {
		now, err := s.Template(t.Context(), "server")
		return err == nil && !now.Refreshing && now.Message == "the server is down" && now.Version == 1 && now.Status == dayfly.TemplateReady
	})
}

func TestDatabasesThatCannotBeOpenedAtOnceAreTriedAgain(t *testing.T) {
	s := storing(t)
	open, tries := s.config.Databases, 0
	fail := func(times int) {
		tries = 0
		s.config.Databases = func(ctx context.Context, c DatabaseConfig) (Databases, error) {
			if tries++; tries <= times {
				return nil, errors.New("the device is busy")
			}
			return open(ctx, c)
		}
		s.stop()
		s.start()
	}
	fail(1)
	if tries != 1 {
		t.Errorf("a server that keeps nothing tried %d times", tries)
	}
	_, err := s.CreateTemplate(t.Context(), dayfly.TemplateRequest{Name: "shop"}, strings.NewReader("x"))
	refusedWith(t, err, dayfly.CodeUnavailable, "the device is busy")
	fail(0)
	s.template("shop", "x")
	d := s.database(dayfly.DatabaseRequest{})
	fail(2)
	s.settled(d.ID, dayfly.DatabaseReady)
	s.content(d.ID, "x")
	fail(100)
	_, err = s.CreateDatabase(t.Context(), dayfly.DatabaseRequest{})
	refusedWith(t, err, dayfly.CodeUnavailable, "the device is busy")
	if now, err := s.Database(t.Context(), d.ID); err != nil || !strings.Contains(now.Message, "the device is busy") {
		t.Errorf("of one that nobody looks after it says %q, %v", now.Message, err)
	}
	fail(0)
	s.content(s.database(dayfly.DatabaseRequest{}).ID, "x")
}

func TestWhoIsToLoadWhatIsBeingLoadedWaitsForItsEnd(t *testing.T) {
	s := storing(t)
	held := s.host.Hold("Load")
	sent := make(chan error, 1)
	go func() {
		_, err := s.CreateTemplate(t.Context(), dayfly.TemplateRequest{Name: "shop"}, strings.NewReader("x"))
		sent <- err
	}()
	version := ""
	s.eventually("it is being loaded", func() bool {
		done := s.host.Done()
		if len(done) > 0 {
			_, version, _ = strings.Cut(done[0], " ")
		}
		return version != ""
	})
	time.AfterFunc(100*time.Millisecond, held)
	if err := s.app.control.LoadTemplate(t.Context(), version); err != nil {
		t.Error(err)
	}
	// Whoever comes back earlier asks again and again.
	if now, err := s.Template(t.Context(), "shop"); err != nil || now.Status != dayfly.TemplateReady {
		t.Errorf("it came back, and the template is %s: %v", now.Status, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestAfterARestartDatabasesAreAdoptedAndWhatWasBegunIsDoneOrCleared(t *testing.T) {
	s := storing(t)
	s.template("shop", "x")
	kept := s.database(dayfly.DatabaseRequest{Name: "kept"})
	s.host.Write(kept.ID, "mine")
	held := s.host.Hold("Ensure")
	begun, err := s.CreateDatabase(t.Context(), dayfly.DatabaseRequest{Name: "begun"})
	if err != nil {
		t.Fatal(err)
	}
	loading := s.host.Hold("Load")
	if _, err := s.CreateTemplate(t.Context(), dayfly.TemplateRequest{Name: "empty", Fixtures: []byte("rows")}, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sent := make(chan error, 1)
	go func() {
		_, err := s.CreateTemplate(ctx, dayfly.TemplateRequest{Name: "sent"}, strings.NewReader("x"))
		sent <- err
	}()
	s.eventually("both are being loaded", func() bool {
		list, err := s.Templates(t.Context())
		return err == nil && len(list) == 3 && len(slices.DeleteFunc(s.host.Done(), func(d string) bool { return !strings.HasPrefix(d, "Load") })) == 3
	})
	s.stop()
	<-sent
	s.host.Plant("orphan")
	held()
	loading()
	s.start()

	if now := s.settled("kept", dayfly.DatabaseReady); now.URL != kept.URL {
		t.Errorf("is at %s, was at %s", now.URL, kept.URL)
	}
	s.content(kept.ID, "xmine")
	if now := s.settled("begun", dayfly.DatabaseReady); now.URL != begun.URL {
		t.Errorf("is at %s, was promised at %s", now.URL, begun.URL)
	}
	s.eventually("what nobody knows is gone", func() bool { _, ok := s.host.Content("orphan"); return !ok })
	s.eventually("what the server can load again is loaded", func() bool {
		now, err := s.Template(t.Context(), "empty")
		return err == nil && now.Status == dayfly.TemplateReady
	})
	s.eventually("the dump that was cut off has failed", func() bool {
		now, err := s.Template(t.Context(), "sent")
		return err == nil && now.Status == dayfly.TemplateFailed && strings.Contains(now.Message, "send it again")
	})
}

func TestADatabaseThatCannotStartSaysWhyAndIsTriedAgain(t *testing.T) {
	s := storing(t)
	s.template("shop", "x")
	s.host.Fail("Ensure", dayfly.Errorf(dayfly.CodeFailed, "the disk is full"))
	d, err := s.CreateDatabase(t.Context(), dayfly.DatabaseRequest{Name: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	if now := s.settled(d.ID, dayfly.DatabaseFailed); now.Message != "the disk is full" {
		t.Errorf("says %q", now.Message)
	}
	s.host.Fail("Ensure", nil)
	s.settled(d.ID, dayfly.DatabaseReady)
	s.host.Crash(d.ID, "its server ended")
	if now := s.settled(d.ID, dayfly.DatabaseFailed); now.Message != "its server ended" {
		t.Errorf("says %q", now.Message)
	}
	s.host.Fail("Reset", dayfly.Errorf(dayfly.CodeFailed, "no room"))
	if now, err := s.ResetDatabase(t.Context(), "mine"); err != nil || now.Status != dayfly.DatabaseStarting {
		t.Errorf("while it is reset it is %s, %v", now.Status, err)
	}
	s.eventually("the failure of the reset is told", func() bool {
		now, err := s.Database(t.Context(), "mine")
		return err == nil && now.Message == "no room"
	})
	s.host.Fail("Reset", nil)
	s.settled(d.ID, dayfly.DatabaseReady)
}

func TestADatabaseGoesWhenItsTimeIsOver(t *testing.T) {
	s := storing(t)
	s.template("shop", "x")
	d := s.database(dayfly.DatabaseRequest{Keep: dayfly.Duration(2 * time.Second)})
	s.gone(d.ID)
	if _, ok := s.host.Content(d.ID); ok {
		t.Error("its data is left")
	}
}

func TestFiftyDatabasesAtOnceHaveAddressesAndPasswordsOfTheirOwn(t *testing.T) {
	s := storing(t)
	s.template("shop", "x")
	var all sync.WaitGroup
	var mu sync.Mutex
	ports, passwords := map[int]bool{}, map[string]bool{}
	for range 50 {
		all.Go(func() {
			d, err := s.CreateDatabase(t.Context(), dayfly.DatabaseRequest{})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ports[d.Port], passwords[d.Password] = true, true
		})
	}
	all.Wait()
	if len(ports) != 50 || len(passwords) != 50 {
		t.Errorf("%d ports and %d passwords", len(ports), len(passwords))
	}
	list, err := s.Databases(t.Context(), dayfly.DatabaseFilter{Template: "shop"})
	if err != nil || len(list) != 50 {
		t.Fatalf("%d, %v", len(list), err)
	}
	for _, d := range list {
		s.settled(d.ID, dayfly.DatabaseReady)
	}
}

func TestAServerWithoutAKeeperSaysSo(t *testing.T) {
	s := storing(t, func(c *Config) {
		c.Databases = func(context.Context, DatabaseConfig) (Databases, error) {
			return nil, dayfly.Errorf(dayfly.CodeFailed, "no PostgreSQL was found: install postgresql")
		}
	})
	_, err := s.CreateDatabase(t.Context(), dayfly.DatabaseRequest{})
	refusedWith(t, err, dayfly.CodeUnavailable, "install postgresql")
	_, err = s.CreateTemplate(t.Context(), dayfly.TemplateRequest{Name: "shop"}, strings.NewReader("x"))
	refusedWith(t, err, dayfly.CodeUnavailable, "install postgresql")
	if list, err := s.Databases(t.Context(), dayfly.DatabaseFilter{}); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestTakingAServerDownTakesItsDatabasesAndTemplates(t *testing.T) {
	s := storing(t, func(c *Config) { c.TakeDown = true })
	s.template("shop", "x")
	s.database(dayfly.DatabaseRequest{})
	s.stop()
	if templates, clones := s.host.IDs(); len(templates)+len(clones) > 0 {
		t.Errorf("%v and %v are left", templates, clones)
	}
}

// project makes a repository whose service tells its variables, with more of a Compose file.
func (s *stored) project(compose string, files map[string]string) (dir string) {
	s.Helper()
	dir = filepath.Join(s.TempDir(), "shop")
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.Fatal(err)
	}
	s.git(dir, "init", "--quiet", "--initial-branch=main")
	s.write(dir, compose, files)
	if _, _, err := s.CreateProject(s.Context(), dayfly.ProjectRequest{Name: "shop", Repo: dir}); err != nil {
		s.Fatal(err)
	}
	return dir
}

// write commits files; SELF in the Compose file is this program.
func (s *stored) write(dir, compose string, files map[string]string) {
	s.Helper()
	self, err := os.Executable()
	if err != nil {
		s.Fatal(err)
	}
	all := map[string]string{"compose.yaml": strings.ReplaceAll(compose, "SELF", self)}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			s.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			s.Fatal(err)
		}
	}
	s.git(dir, "add", "--all")
	s.git(dir, "commit", "--quiet", "--allow-empty", "--message", "Change")
}

func (s *stored) git(dir string, args ...string) {
	s.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@localhost", "GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@localhost")
	if out, err := cmd.CombinedOutput(); err != nil {
		s.Fatalf("git %s: %v: %s", args[0], err, out)
	}
}

// create makes an environment of the default branch.
func (s *stored) create(name string, change ...func(*dayfly.EnvironmentRequest)) dayfly.Environment {
	s.Helper()
	r := dayfly.EnvironmentRequest{Spec: dayfly.EnvironmentSpec{Name: name, Project: "shop"}}
	for _, c := range change {
		c(&r)
	}
	env, _, err := s.CreateEnvironment(s.Context(), r)
	if err != nil {
		s.Fatal(err)
	}
	return env
}

// ready waits for an environment.
func (s *stored) ready(name string) dayfly.Environment {
	s.Helper()
	return ready(s.T, s.app, name)
}

// ask gives what the service of an environment says at a path.
func (s *stored) ask(environment, path string) string {
	s.Helper()
	public, _, _ := s.app.Addresses()
	req, err := http.NewRequestWithContext(s.Context(), http.MethodGet, "http://"+public+path, nil)
	if err != nil {
		s.Fatal(err)
	}
	req.Host = environment + ".localhost"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.Fatalf("%s: %d %s, %v", environment, resp.StatusCode, body, err)
	}
	return string(body)
}

// of gives the only database of an environment.
func (s *stored) of(environment string) dayfly.Database {
	s.Helper()
	list, err := s.Databases(s.Context(), dayfly.DatabaseFilter{Environment: environment})
	if err != nil || len(list) != 1 {
		s.Fatalf("%s has %+v, %v", environment, list, err)
	}
	return list[0]
}

const withDatabase = `
x-dayfly: {databases: {db: {template: shop, fixtures: db/fixtures.sql}}}
services:
  web:
    ports: ["8080"]
    depends_on: [db]
    environment: {GREETING: "at ${DB_URL}"}
    x-dayfly: {route: /, process: {run: SELF as-teller}}
  db: {image: "postgres:15"}
`

var fixtures = map[string]string{"db/fixtures.sql": "fixtures;"}

func TestAnEnvironmentHasItsOwnDatabaseBeforeItsServicesStart(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	s := storing(t, func(c *Config) { c.EtcdListen = free.Addr().String() })
	s.template("shop", "orders;")
	dir := s.project(withDatabase, fixtures)
	held := s.host.Hold("Ensure")
	s.create("one")
	s.eventually("the service waits for the database", func() bool {
		env, err := s.Environment(t.Context(), "one")
		return err == nil && len(env.Services) == 1 && env.Services[0].WaitsFor == "db" && strings.Contains(env.Message, "database db")
	})
	held()
	env := s.ready("one")
	if !slices.Equal(env.Databases, []string{"db"}) || len(env.Services) != 1 {
		t.Errorf("has the databases %v and the services %+v", env.Databases, env.Services)
	}
	told := 0
	for e, err := range s.Events(t.Context(), "one", dayfly.EventOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Reason == "database-ready" {
			told++
		}
	}
	if told != 1 {
		t.Errorf("it is told %d times that the database takes connections", told)
	}
	d := s.of("one")
	if d.Name != "one.db" || d.Environment != "one" || d.ExpiresAt != nil || d.Status != dayfly.DatabaseReady {
		t.Errorf("the database is %+v", d)
	}
	s.content(d.ID, "orders;")
	want := "DATABASE_URL=" + d.URL + "\nDB_URL=" + d.URL + "\nGREETING=at " + d.URL + "\n"
	if got := s.ask("one", "/"); got != want {
		t.Errorf("the service is told %q, want %q", got, want)
	}

	// Another one has another copy, and nobody may take it away from it.
	s.create("two")
	s.ready("two")
	if other := s.of("two"); other.URL == d.URL || other.Password == d.Password {
		t.Errorf("the second environment is at %s, too", other.URL)
	}
	_, err = s.DeleteDatabase(t.Context(), d.ID, false)
	refusedWith(t, err, dayfly.CodeConflict, "one")
	refusedWith(t, s.DeleteTemplate(t.Context(), "shop"), dayfly.CodeConflict, "one.db", "two.db")

	// It stays over a new commit.
	s.host.Write(d.ID, "mine;")
	s.write(dir, strings.Replace(withDatabase, "at $", "now at $", 1), nil)
	if err := s.app.control.Refresh(t.Context(), "one", nil); err != nil {
		t.Fatal(err)
	}
	s.eventually("the new version serves", func() bool { return strings.Contains(s.ask("one", "/"), "GREETING=now at "+d.URL) })
	s.content(d.ID, "orders;mine;")

	// And it goes with its environment, and with nothing else.
	if _, err := s.DeleteEnvironment(t.Context(), "one", false); err != nil {
		t.Fatal(err)
	}
	s.gone(d.ID)
	s.eventually("the environment is gone", func() bool {
		_, err := s.Environment(t.Context(), "one")
		return dayfly.ErrorCode(err) == dayfly.CodeNotFound
	})
	if _, clones := s.host.IDs(); len(clones) != 1 {
		t.Errorf("%v are left", clones)
	}
	s.passwordsAreSealed()
}

// passwordsAreSealed looks for the passwords of all databases in the state.
func (s *stored) passwordsAreSealed() {
	s.Helper()
	list, err := s.Databases(s.Context(), dayfly.DatabaseFilter{})
	if err != nil || len(list) == 0 {
		s.Fatal(list, err)
	}
	state, err := clientv3.New(clientv3.Config{Endpoints: []string{s.config.EtcdListen}, Logger: zap.NewNop()})
	if err != nil {
		s.Fatal(err)
	}
	defer state.Close()
	all, err := state.Get(s.Context(), "", clientv3.WithPrefix())
	if err != nil {
		s.Fatal(err)
	}
	mentioned := 0
	for _, kv := range all.Kvs {
		for _, d := range list {
			if strings.Contains(string(kv.Value), d.Password) {
				s.Errorf("%s holds a password", kv.Key)
			}
			if strings.Contains(string(kv.Value), d.ID) {
				mentioned++
			}
		}
	}
	if mentioned == 0 {
		s.Error("the state was not looked at")
	}
}

func TestAnEnvironmentWaitsForATemplateThatIsNotThere(t *testing.T) {
	s := storing(t)
	s.project(withDatabase, fixtures)
	s.create("one")
	s.eventually("it says what is missing, and waits for nothing else", func() bool {
		env, err := s.Environment(t.Context(), "one")
		return err == nil && env.Settled() && len(env.Missing) == 1 && env.Missing[0].Service == "db" && env.Missing[0].Version == "shop" &&
			strings.Contains(env.Message, "dayfly template create shop")
	})
	s.template("shop", "orders;")
	env := s.ready("one")
	if len(env.Missing) > 0 {
		t.Errorf("still misses %+v", env.Missing)
	}
	s.content(s.of("one").ID, "orders;")
}

func TestTheDataOfAnEnvironmentIsACopyTheFixturesOrNothing(t *testing.T) {
	s := storing(t)
	s.template("shop", "orders;")
	s.project(withDatabase, fixtures)
	// What is only asked about makes nothing, not even what is ours.
	s.create("would", func(r *dayfly.EnvironmentRequest) { r.WithFixtures, r.DryRun = true, true })
	if templates, clones := s.host.IDs(); len(templates) != 1 || len(clones) != 0 {
		t.Errorf("a dry run made %v and %v", templates, clones)
	}
	for name, c := range map[string]struct {
		change func(*dayfly.EnvironmentRequest)
		want   string
	}{
		"copy":  {func(r *dayfly.EnvironmentRequest) { r.Spec.Data = dayfly.DataSnapshot }, "orders;"},
		"fixed": {func(r *dayfly.EnvironmentRequest) { r.WithFixtures = true }, "fixtures;"},
		"empty": {func(r *dayfly.EnvironmentRequest) { r.Spec.Data = dayfly.DataNone }, ""},
	} {
		s.create(name, c.change)
		s.ready(name)
		s.content(s.of(name).ID, c.want)
	}
	if list, err := s.Templates(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("templates of ours are listed: %+v, %v", list, err)
	}
}

func TestARenewedDatabaseIsFreshForEveryCommitAndTheOldOneGoesLast(t *testing.T) {
	s := storing(t)
	s.template("shop", "orders;")
	compose := strings.Replace(withDatabase, "template: shop,", "template: shop, renew: true,", 1)
	dir := s.project(compose, fixtures)
	s.create("one")
	s.ready("one")
	old := s.of("one")
	s.host.Write(old.ID, "mine;")
	held := s.host.Hold("Ensure")
	s.write(dir, compose+"# changed\n", nil)
	if err := s.app.control.Refresh(t.Context(), "one", nil); err != nil {
		t.Fatal(err)
	}
	if got := s.ask("one", "/"); !strings.Contains(got, old.URL) {
		t.Errorf("before the new one is there the service is told %s", got)
	}
	if _, ok := s.host.Content(old.ID); !ok {
		t.Error("the old one went before the new one was there")
	}
	held()
	s.gone(old.ID)
	s.ready("one")
	now := s.of("one")
	if now.ID == old.ID || now.Name != "one.db" {
		t.Errorf("is %+v, was %+v", now, old)
	}
	s.content(now.ID, "orders;")
	if got := s.ask("one", "/"); !strings.Contains(got, now.URL) {
		t.Errorf("the service is told %s", got)
	}
}

func TestAMigrationRunsOnceForACommitBeforeTheServicesStart(t *testing.T) {
	s := storing(t)
	s.template("shop", "orders;")
	log := filepath.Join(t.TempDir(), "log")
	compose := strings.Replace(withDatabase, "template: shop,", `template: shop, migrate: [SELF, as-migration, "`+log+`"],`, 1)
	dir := s.project(compose, fixtures)
	s.create("one")
	env := s.ready("one")
	d := s.of("one")
	migrated := func() string { b, _ := os.ReadFile(log); return string(b) }
	if migrated() != d.URL+"\n" {
		t.Errorf("%q has been migrated, want %s", migrated(), d.URL)
	}
	if !slices.ContainsFunc(env.Services, func(s dayfly.EnvironmentService) bool { return s.Name == "migrate-db" && s.Phase == dayfly.PhaseReady }) {
		t.Errorf("the services are %+v", env.Services)
	}
	if err := s.app.control.Refresh(t.Context(), "one", nil); err != nil {
		t.Fatal(err)
	}
	s.write(dir, strings.Replace(compose, "at $", "now at $", 1), nil)
	if err := s.app.control.Refresh(t.Context(), "one", nil); err != nil {
		t.Fatal(err)
	}
	s.eventually("the new version serves", func() bool { return strings.Contains(s.ask("one", "/"), "now at") })
	if want := strings.Repeat(d.URL+"\n", 2); migrated() != want {
		t.Errorf("was run with %q, want %q", migrated(), want)
	}
}

func TestTheDatabaseOfAnEnvironmentThatIsGoneGoesToo(t *testing.T) {
	s := storing(t)
	s.template("shop", "orders;")
	s.project(withDatabase, fixtures)
	s.create("one")
	s.ready("one")
	d := s.of("one")
	held := s.host.Hold("Remove")
	if _, err := s.DeleteEnvironment(t.Context(), "one", false); err != nil {
		t.Fatal(err)
	}
	s.settled(d.ID, dayfly.DatabaseDeleting)
	if env, err := s.Environment(t.Context(), "one"); err != nil || env.Phase != dayfly.PhaseDeleting {
		t.Errorf("the environment is %s while its database is there, %v", env.Phase, err)
	}
	s.stop() // in the middle
	held()
	s.start()
	s.gone(d.ID)
	s.eventually("the environment is gone", func() bool {
		_, err := s.Environment(t.Context(), "one")
		return dayfly.ErrorCode(err) == dayfly.CodeNotFound
	})
}
