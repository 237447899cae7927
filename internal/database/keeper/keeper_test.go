//go:build linux

package keeper

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/database/enginetest"
)

func TestACloneRunsUntilItIsRemovedAndLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.template("tpl")
	c := w.wanted("one", "tpl", "")
	w.ensure(c)
	if got := w.rows(c); got != "one" {
		t.Errorf("the clone has %q", got)
	}
	s := w.status("one")
	if s.Phase != database.PhaseReady || s.PID <= 0 || s.Database != "shop" || s.Bytes <= 0 || s.Restarts != 0 {
		t.Errorf("the status is %+v", s)
	}
	w.ensure(c)
	if again := w.status("one"); again.PID != s.PID {
		t.Errorf("process %d was started where %d ran", again.PID, s.PID)
	}
	if err := w.Forget(t.Context(), "tpl"); dayfly.ErrorCode(err) != dayfly.CodeConflict || !strings.Contains(err.Error(), "one") {
		t.Errorf("forgetting a version in use gives %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(w.root, "records/clones/one.json")); err != nil || strings.Contains(string(b), c.Password) {
		t.Errorf("the record is %s, %v: a password is in it", b, err)
	}
	for range 2 {
		if err := w.Remove(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
	}
	enginetest.NothingRuns(t, w.root)
	for range 2 {
		if err := w.Forget(t.Context(), "tpl"); err != nil {
			t.Fatal(err)
		}
	}
	if left := w.there(); left != "" {
		t.Errorf("%s is left", left)
	}
	if sockets, err := os.ReadDir(filepath.Join(w.root, "s")); err != nil || len(sockets) > 0 {
		t.Errorf("sockets %v are left, %v", sockets, err)
	}
}

func TestARestartOfTheServerKeepsClonesRunning(t *testing.T) {
	w := newWorld(t)
	w.template("tpl")
	c := w.wanted("one", "tpl", "")
	w.ensure(c)
	w.insert(c, "two")
	pid := w.status("one").PID
	w.reopen()
	w.eventually("the clone is adopted", func() bool { return w.status("one").Phase == database.PhaseReady })
	if s := w.status("one"); s.PID != pid || s.Database != "shop" {
		t.Errorf("the clone of process %d is %+v", pid, s)
	}
	w.ensure(c)
	if got := w.rows(c); got != "one two" {
		t.Errorf("the clone has %q", got)
	}
	if ts, err := w.Templates(t.Context()); err != nil || len(ts) != 1 || ts[0].ID != "tpl" || ts[0].Bytes <= 0 {
		t.Errorf("the templates are %+v, %v", ts, err)
	}
}

func TestAServerThatEndsByItselfIsStartedAgain(t *testing.T) {
	w := newWorld(t)
	w.template("tpl")
	c := w.wanted("one", "tpl", "")
	w.ensure(c)
	w.insert(c, "two")
	for n := 1; n <= 2; n++ {
		changes := w.Changes(t.Context())
		pid := w.status("one").PID
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for id := range changes {
			if s := w.status("one"); id == "one" && s.Phase == database.PhaseReady && s.PID != pid {
				break
			}
		}
		if s := w.status("one"); s.Restarts != n {
			t.Errorf("it was started again %d times, want %d", s.Restarts, n)
		}
		if got := w.rows(c); got != "one two" {
			t.Errorf("the clone has %q", got)
		}
	}
	if err := w.Remove(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	enginetest.NothingRuns(t, w.root)
}

func TestResetBringsBackWhatACloneWasMadeFrom(t *testing.T) {
	w := newWorld(t)
	w.template("tpl")
	a := w.wanted("a", "tpl", "")
	w.ensure(a)
	w.insert(a, "two")
	b := w.wanted("b", "", "a")
	w.ensure(b)
	w.insert(a, "three")
	w.insert(b, "four")
	if ra, rb := w.rows(a), w.rows(b); ra != "one three two" || rb != "four one two" {
		t.Errorf("the original has %q, and its clone %q", ra, rb)
	}
	if err := w.Reset(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := w.rows(b); got != "one two" {
		t.Errorf("the clone of a clone was reset to %q", got)
	}
	if err := w.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	w.insert(b, "five")
	w.reopen()
	if err := w.Reset(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := w.rows(b); got != "one two" {
		t.Errorf("without the original it was reset to %q", got)
	}
	if err := w.Remove(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if left := w.there(); left != "tpl templates/tpl.json" && left != "ttpl templates/tpl.json" {
		t.Errorf("%s is left", left)
	}
}

func TestAResetThatFailsIsSeenAndCanBeTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.template("tpl")
	c := w.wanted("one", "tpl", "")
	w.ensure(c)
	w.insert(c, "two")
	wrong := c
	wrong.Template = "unknown"
	if err := w.Reset(t.Context(), wrong); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Errorf("a reset to an unknown template gives %v", err)
	}
	if s, got := w.status("one"), w.rows(c); s.Phase != database.PhaseReady || s.PID == 0 || got != "one two" {
		t.Errorf("then it is %+v and has %q", s, got)
	}
	wrong = c
	wrong.Settings = map[string]string{"work_mem": "nonsense"}
	if err := w.Reset(t.Context(), wrong); err == nil || !strings.Contains(err.Error(), "work_mem") {
		t.Errorf("a reset with a wrong setting gives %v", err)
	}
	if s := w.status("one"); s.Phase != database.PhaseFailed || !strings.Contains(s.Message, "work_mem") {
		t.Errorf("its status is %+v", s)
	}
	enginetest.NothingRuns(t, w.root)
	w.ensure(c)
	if got := w.rows(c); got != "one" {
		t.Errorf("then it has %q", got)
	}
}

func TestWhatCannotBeMadeLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.template("tpl")
	before := w.there()
	for name, c := range map[string]database.Clone{
		"an unknown template": w.wanted("x", "unknown", ""),
		"an unknown clone":    w.wanted("x", "", "unknown"),
		"itself":              w.wanted("x", "", "x"),
		"both":                w.wanted("x", "tpl", "tpl"),
		"nothing":             w.wanted("x", "", ""),
		"a name of a path":    w.wanted("../x", "tpl", ""),
		"a user that is none": {ID: "x", Template: "tpl", User: "pg_read_all_data", Password: "p", Port: 1},
		"fixtures that fail":  {ID: "x", Template: "tpl", User: "app", Password: "p", Port: enginetest.Port(t), Fixtures: []byte("SELECT wrong;")},
	} {
		if err := w.Ensure(t.Context(), c); err == nil || dayfly.ErrorCode(err) == dayfly.CodeInternal {
			t.Errorf("a clone of %s gives %v", name, err)
		}
		if after := w.there(); after != before {
			t.Errorf("after a clone of %s there is %s", name, after)
		}
	}
	if _, err := w.Load(t.Context(), database.Load{ID: "bad", Database: "shop", Source: database.Source{Dump: strings.NewReader("\x00garbage")}}); err == nil {
		t.Error("garbage was taken for a dump")
	}
	if after := w.there(); after != before {
		t.Errorf("after garbage there is %s", after)
	}
	enginetest.NothingRuns(t, w.root)
}

func TestAnotherPortOrSettingIsTakenOver(t *testing.T) {
	w := newWorld(t)
	w.template("tpl")
	c := w.wanted("one", "tpl", "")
	w.ensure(c)
	w.insert(c, "two")
	c.Port, c.Settings = enginetest.Port(t), map[string]string{"work_mem": "7MB"}
	w.ensure(c)
	if got := w.rows(c); got != "one two" {
		t.Errorf("the clone has %q", got)
	}
	if got, err := ask(t.Context(), c, "SHOW work_mem"); err != nil || got != "7MB" {
		t.Errorf("work_mem is %s, %v", got, err)
	}
}

func TestFiftyClonesAtOnceAreEachTheirOwn(t *testing.T) {
	if testing.Short() {
		t.Skip("fifty servers take a while")
	}
	w := newWorld(t)
	w.template("tpl")
	var all sync.WaitGroup
	for i := range 50 {
		c := w.wanted(fmt.Sprintf("c%d", i), "tpl", "")
		all.Go(func() {
			if err := w.Ensure(t.Context(), c); err != nil {
				t.Errorf("%s: %v", c.ID, err)
				return
			}
			if _, err := ask(t.Context(), c, "INSERT INTO item VALUES ('of "+c.ID+"')"); err != nil {
				t.Errorf("%s: %v", c.ID, err)
			}
			got, err := ask(t.Context(), c, "SELECT string_agg(name, ',' ORDER BY name) FROM item")
			if want := "of " + c.ID + ",one"; err != nil || got != want {
				t.Errorf("%s has %q, %v, want %q", c.ID, got, err, want)
			}
		})
	}
	all.Wait()
	statuses, err := w.Observe(t.Context())
	if err != nil || len(statuses) != 50 || slices.ContainsFunc(statuses, func(s database.Status) bool { return s.Phase != database.PhaseReady }) {
		t.Errorf("there are %+v, %v", statuses, err)
	}
	for i := range 50 {
		all.Go(func() {
			if err := w.Remove(t.Context(), fmt.Sprintf("c%d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	enginetest.NothingRuns(t, w.root)
}

func TestManyWhoWantTheSameGetOne(t *testing.T) {
	w := newWorld(t)
	w.template("tpl")
	c := w.wanted("one", "tpl", "")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := w.Ensure(t.Context(), c); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := w.rows(c); got != "one" {
		t.Errorf("the clone has %q", got)
	}
}

func TestSweepTakesAwayWhatNobodyKnowsOnceTheGraceIsOver(t *testing.T) {
	w := newWorld(t)
	w.template("tpl")
	w.template("old")
	c, stray := w.wanted("one", "tpl", ""), w.wanted("stray", "old", "")
	w.ensure(c)
	w.ensure(stray)
	if err := os.MkdirAll(filepath.Join(w.root, "data/clost/data"), 0o755); err != nil { // a folder without a record
		t.Fatal(err)
	}
	known := func(id string) bool { return id == "one" || id == "tpl" }
	left, err := w.Sweep(t.Context(), time.Hour, known)
	var names []string
	for _, l := range left {
		names = append(names, l.Kind+" "+l.Name)
		if l.Since.IsZero() {
			t.Errorf("%s was noticed at no time", l.Name)
		}
	}
	if want := []string{"database clost", "database cstray", "template told"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("noticed %q, %v, want %q", names, err, want)
	}
	if w.rows(stray) != "one" {
		t.Error("it went before its grace was over")
	}
	if left, err := w.Sweep(t.Context(), 0, known); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if there, want := w.there(), "cone ttpl templates/tpl.json clones/one.json"; there != want {
		t.Errorf("there is %s, want %s", there, want)
	}
	if w.rows(c) != "one" {
		t.Error("what is known went")
	}
}

func TestPortsAreFreeAndNotGivenTwice(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	busy := l.Addr().(*net.TCPAddr).Port
	w := newWorld(t, func(o *Options) { o.FirstPort, o.LastPort = busy, busy })
	if _, port, err := w.Place(t.Context(), database.Clone{}, nil); dayfly.ErrorCode(err) != dayfly.CodeUnavailable {
		t.Errorf("a port that somebody listens on is given: %d, %v", port, err)
	}
	w.o.FirstPort, w.o.LastPort, w.nextPort = 23400, 23600, 23400
	seen := map[int]bool{}
	for range 20 {
		_, port, err := w.Place(t.Context(), database.Clone{}, func(p int) bool { return p < 23410 })
		if err != nil || seen[port] || port < 23410 || port > 23600 {
			t.Fatalf("port %d, %v", port, err)
		}
		seen[port] = true
	}
}

func TestSizesAreMeasuredInTheBackground(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Measure = time.Hour })
	w.template("tpl")
	c := w.wanted("one", "tpl", "")
	w.ensure(c)
	w.eventually("a new clone is measured", func() bool { own := w.status("one").OwnBytes; return own != nil && *own == 4096 })
	for range 100 {
		w.status("one")
	}
	w.ensure(w.wanted("two", "tpl", ""))
	w.eventually("the other one is measured", func() bool { return w.status("two").OwnBytes != nil })
	w.cloner.mu.Lock()
	defer w.cloner.mu.Unlock()
	if n := w.cloner.measured["cone"]; n != 1 {
		t.Errorf("it was measured %d times within the hour", n)
	}
}

func TestClosingEndsWhatIsUnderWayAndNothingElse(t *testing.T) {
	w := newWorld(t)
	w.template("tpl")
	c := w.wanted("one", "tpl", "")
	w.ensure(c)
	ended := make(chan error, 1)
	changes := w.Changes(t.Context())
	go func() { ended <- w.Ensure(t.Context(), w.wanted("two", "tpl", "")) }()
	for id := range changes {
		if id == "two" {
			break
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	err := <-ended
	if err == nil != strings.Contains(w.there(), "ctwo") {
		t.Errorf("it was told %v, and there is %s", err, w.there())
	}
	if got := w.rows(c); got != "one" {
		t.Errorf("the other clone has %q", got)
	}
	if err := w.Ensure(t.Context(), c); dayfly.ErrorCode(err) != dayfly.CodeUnavailable {
		t.Errorf("a keeper that is closed says %v", err)
	}
	for range w.Changes(t.Context()) {
		t.Error("a keeper that is closed tells of changes")
	}
	w.open()
}

func TestWhatWasLeftHalfMadeIsTakenAwayOrMadeAgain(t *testing.T) {
	w := newWorld(t)
	w.template("tpl")
	c := w.wanted("one", "tpl", "")
	w.ensure(c)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(w.root, "data/thalf/data"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"clones/two.json":         `{"clone":{"ID":"two","Template":"tpl"},"made":false}`,
		"clones/one.json.new":     `{"clo`,
		"templates/half.json.new": `{`,
	} {
		if err := os.WriteFile(filepath.Join(w.root, "records", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.open()
	if there, want := w.there(), "cone ttpl templates/tpl.json clones/one.json clones/two.json"; there != want {
		t.Errorf("there is %s, want %s", there, want)
	}
	if s := w.status("two"); s.Phase != database.PhaseFailed || s.Message == "" {
		t.Errorf("what was half made is %+v", s)
	}
	two := w.wanted("two", "tpl", "")
	w.ensure(two)
	if got := w.rows(two); got != "one" {
		t.Errorf("made again it has %q", got)
	}
}
