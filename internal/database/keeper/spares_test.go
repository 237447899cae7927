//go:build linux

package keeper

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/database/enginetest"
)

// sparing lets a keeper have spares.
func sparing(n int) func(*Options) {
	return func(o *Options) {
		o.Spares = n
		o.Cloner.(*copier).name = "sharing" // where each is as large as its template there are none
	}
}

func likeAll(template string) database.Clone { return database.Clone{Template: template, User: "app"} }

// ready waits for a spare of a template that nobody has, and gives its id and its server.
func (w *world) ready(template string) (id string, pid int) {
	w.t.Helper()
	w.eventually("there is a spare of "+template, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, s := range w.spares {
			if s.Template == template && s.given.IsZero() && s.runs() {
				id, pid = s.ID, s.server.PID()
				return true
			}
		}
		return false
	})
	return id, pid
}

// placed gives a clone as someone who asks for it has it.
func (w *world) placed(template string) database.Clone {
	w.t.Helper()
	c := likeAll(template)
	id, port, err := w.Place(w.t.Context(), c, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	c.ID, c.Port, c.Password = id, port, "secret-of-"+id
	return c
}

func (w *world) without(what string, is func(*spare) bool) {
	w.t.Helper()
	w.eventually(what, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, s := range w.spares {
			if is(s) {
				return false
			}
		}
		return true
	})
}

func TestWhoAsksGetsTheSpareAndItsServerGoesOn(t *testing.T) {
	w := newWorld(t, sparing(1))
	w.template("tpl")
	w.Reserve(likeAll("tpl"))
	id, pid := w.ready("tpl")
	if all, err := w.Observe(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("nobody has asked for one, and there is %v, %v", all, err)
	}
	if left, err := w.Sweep(t.Context(), 0, func(id string) bool { return id == "tpl" }); err != nil || len(left) > 0 {
		t.Errorf("left over is %v, %v", left, err)
	}
	c := w.placed("tpl")
	if c.ID != id {
		t.Fatalf("given is %s, and the spare is %s", c.ID, id)
	}
	if _, err := ask(t.Context(), c, "SELECT 1"); err == nil {
		t.Error("a spare lets somebody in")
	}
	c.Fixtures = []byte("INSERT INTO item VALUES ('two')")
	w.ensure(c)
	if got := w.rows(c); got != "one two" {
		t.Errorf("it has %q", got)
	}
	if now := w.status(id).PID; now != pid {
		t.Errorf("its server was process %d, and is %d", pid, now)
	}
	wrong := c
	wrong.Password = "wrong"
	if _, err := ask(t.Context(), wrong, "SELECT 1"); err == nil {
		t.Error("it takes any password")
	}
	next, _ := w.ready("tpl")
	if next == id {
		t.Error("the spare that was given away is given once more")
	}
	if other := w.placed("tpl"); other.ID != next || other.Port == c.Port {
		t.Errorf("given is %+v", other)
	}
	if third := w.placed("tpl"); third.ID == next || third.ID == id {
		t.Errorf("one spare is given to two: %+v", third)
	}
	w.reopen()
	if got := w.rows(c); got != "one two" {
		t.Errorf("after the next start it has %q", got)
	}
	if now := w.status(id).PID; now != 0 && now != pid {
		t.Errorf("since the next start its server is %d", now)
	}
}

func TestASpareIsGivenToNobodyForWhomItIsNotRight(t *testing.T) {
	w := newWorld(t, sparing(1))
	w.template("tpl")
	w.Reserve(likeAll("tpl"))
	id, pid := w.ready("tpl")
	place := func(c database.Clone, taken func(int) bool) string {
		t.Helper()
		got, _, err := w.Place(t.Context(), c, taken)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for what, c := range map[string]database.Clone{
		"another template": {Template: "other", User: "app"},
		"another user":     {Template: "tpl", User: "me"},
		"another address":  {Template: "tpl", User: "app", Listen: "0.0.0.0"},
		"other settings":   {Template: "tpl", User: "app", Settings: map[string]string{"work_mem": "7MB"}},
		"a copy of one":    {From: "tpl", User: "app"},
	} {
		if place(c, nil) == id {
			t.Errorf("it is given to one who wants %s", what)
		}
	}
	if place(likeAll("tpl"), func(int) bool { return false }) != id {
		t.Error("it is given to nobody at all")
	}
	w.mu.Lock()
	w.spares[id].given = time.Time{}
	port := w.spares[id].Port
	w.mu.Unlock()
	if place(likeAll("tpl"), func(p int) bool { return p == port }) == id {
		t.Error("it is given though its port is taken")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.without("a spare whose server ended is given to nobody", func(s *spare) bool { return s.ID == id && s.runs() })
	c := w.placed("tpl")
	if c.ID == id {
		t.Error("it is given though its server does not run")
	}
	w.ensure(c)
	w.without("a spare whose server ended goes", func(s *spare) bool { return s.ID == id })
}

func TestASpareWhoseServerEndsOnceItIsGivenIsMadeAgain(t *testing.T) {
	w := newWorld(t, sparing(1))
	w.template("tpl")
	w.Reserve(likeAll("tpl"))
	id, pid := w.ready("tpl")
	c := w.placed("tpl")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.without("its server has ended", func(s *spare) bool { return s.ID == id && s.runs() })
	w.ensure(c)
	if got := w.rows(c); c.ID != id || got != "one" {
		t.Errorf("%s has %q", c.ID, got)
	}
}

func TestSparesGoWithWhatTheyAreFor(t *testing.T) {
	w := newWorld(t, sparing(2))
	for _, tpl := range []string{"a", "b", "c"} {
		w.template(tpl)
		w.Reserve(likeAll(tpl))
		w.ready(tpl)
	}
	w.without("the template asked for longest ago has none", func(s *spare) bool { return s.Template == "a" })
	if err := w.Forget(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	w.without("that of a template that is gone is gone", func(s *spare) bool { return s.Template == "b" })

	given := w.placed("c")
	w.mu.Lock()
	w.spares[given.ID].given = time.Now().Add(-unclaimed)
	w.mu.Unlock()
	w.Reserve(likeAll("c"))
	w.without("one that nobody came for goes", func(s *spare) bool { return s.ID == given.ID })
	w.ensure(given) // and if they come yet, they have one
	if got := w.rows(given); got != "one" {
		t.Errorf("it has %q", got)
	}
	id, pid := w.ready("c")
	w.reopen()
	if again, now := w.ready("c"); again != id || now != pid {
		t.Errorf("spare %s with process %d is %s with process %d at the next start", id, pid, again, now)
	}
	w.change = nil
	w.reopen()
	w.without("a keeper that is to have none takes them away", func(*spare) bool { return true })
	if there, want := w.there(), "c"+given.ID+" ta tc templates/a.json templates/c.json clones/"+given.ID+".json"; there != want {
		t.Errorf("there is %s, want %s", there, want)
	}
	w.Reserve(likeAll("c"))
	w.ensure(w.placed("c"))
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.likes) > 0 {
		t.Errorf("it would keep %v", w.likes)
	}
}

func TestAVersionThatIsRetiredHasNoSpareAnyMore(t *testing.T) {
	w := newWorld(t, sparing(2))
	w.template("old")
	first := w.placed("old")
	w.ensure(first)
	w.ready("old")
	w.Retire("unknown")
	w.Retire("old")
	w.without("its spare goes", func(s *spare) bool { return s.Template == "old" })
	again := w.placed("old") // such as one that is reset
	w.ensure(again)
	w.template("new")
	w.Reserve(likeAll("new"))
	w.ready("new")
	w.without("no other one is made", func(s *spare) bool { return s.Template == "old" })
	if got := w.rows(again); got != "one" {
		t.Errorf("it has %q", got)
	}
	for _, c := range []database.Clone{first, again} {
		if err := w.Remove(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Forget(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	w.template("old") // whatever is called so now is another one
	w.Reserve(likeAll("old"))
	w.ready("old")
}

func TestSparesTakeNothingFromThoseWhoAsk(t *testing.T) {
	port := enginetest.Port(t)
	w := newWorld(t, sparing(1), func(o *Options) { o.FirstPort, o.LastPort = port, port })
	w.template("tpl")
	w.Reserve(likeAll("tpl"))
	id, _ := w.ready("tpl")
	other := database.Clone{Template: "tpl", User: "me", Password: "secret"}
	var err error
	if other.ID, other.Port, err = w.Place(t.Context(), other, nil); err != nil || other.Port != port {
		t.Fatalf("with one port, which a spare has, there is none for who asks: %d, %v", other.Port, err)
	}
	w.ensure(other)
	w.without("it has made room", func(s *spare) bool { return s.ID == id })
	if _, _, err := w.Place(t.Context(), likeAll("tpl"), nil); dayfly.ErrorCode(err) != dayfly.CodeUnavailable {
		t.Errorf("two have one port: %v", err)
	}

	w.o.LastPort++
	w.Reserve(likeAll("tpl"))
	id, _ = w.ready("tpl")
	w.mu.Lock()
	late := database.Clone{ID: "late", Template: "tpl", User: "me", Password: "secret", Port: w.spares[id].Port}
	w.mu.Unlock()
	w.ensure(late)
	if got := w.rows(late); got != "one" {
		t.Errorf("it has %q", got)
	}
}

func TestASpareThatIsHalfMadeGoesAtTheNextStart(t *testing.T) {
	w := newWorld(t, sparing(1))
	w.template("tpl")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	half := database.Clone{ID: "half", Template: "tpl", User: "app", Port: 21001}
	record := filepath.Join(w.root, "records", "spares", "half.json")
	if err := write(record, spareRecord{half, false}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(w.cloner.path("chalf"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.without("it goes", func(*spare) bool { return true })
	if there, want := w.there(), "ttpl templates/tpl.json"; there != want {
		t.Errorf("there is %s, want %s", there, want)
	}
}
