//go:build linux

package keeper

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot/snapshottest"
)

// noRoom is the code of PostgreSQL's error about a disk without room.
const noRoom = "53100"

// isFull is what is said where nothing can be done.
const isFull = "the disk of the databases is full: delete or reset the database that fills it, or make room on the disk"

// fails says whether a statement failed as it does without room: by PostgreSQL's own error, or since its server could not even write
// down that it failed, and began anew.
func fails(err error) bool {
	var said *pgconn.PgError
	return errors.As(err, &said) && said.Code == noRoom || errors.Is(err, io.ErrUnexpectedEOF)
}

// fill writes into a clone until that fails, and gives the error.
func (w *world) fill(c database.Clone) error {
	w.t.Helper()
	if _, err := ask(w.t.Context(), c, "DROP TABLE IF EXISTS fat; CREATE TABLE fat (t text); ALTER TABLE fat ALTER t SET STORAGE external"); err != nil {
		return err
	}
	for range 2000 {
		if _, err := ask(w.t.Context(), c, "INSERT INTO fat SELECT repeat(md5(random()::text), 100) FROM generate_series(1, 2000)"); err != nil {
			return err
		}
	}
	w.t.Fatal("the disk does not become full")
	return nil
}

// small are disks that are soon full.
var small = []struct {
	name, driver string
	options      func(t *testing.T) snapshot.Options
}{
	{"xfs", "reflink", func(t *testing.T) snapshot.Options {
		return snapshot.Options{Dir: filepath.Join(snapshottest.XFS(t, 400), "data"), Pool: snapshot.PoolNone}
	}},
	{"btrfs", "btrfs", func(t *testing.T) snapshot.Options {
		return snapshot.Options{Dir: filepath.Join(snapshottest.Btrfs(t, 500), "data"), Pool: snapshot.PoolNone}
	}},
	{"pool", "btrfs", func(t *testing.T) snapshot.Options {
		return snapshot.Options{Dir: filepath.Join(snapshottest.Ext4(t, 700), "data")}
	}},
}

func TestADatabaseThatFillsTheDiskFailsAndTheOthersLiveOn(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills a disk")
	}
	for _, d := range small {
		t.Run(d.name, func(t *testing.T) {
			w := onCloner(t, d.driver, d.options(t), sharedDump)
			greedy, other, idle := w.wanted("greedy", "tpl", ""), w.wanted("other", "tpl", ""), w.wanted("idle", "tpl", "")
			w.ensure(greedy)
			w.ensure(other)
			w.ensure(idle)
			w.insert(other, "two")
			before := map[string]database.Status{"other": w.status("other"), "idle": w.status("idle")}
			for _, how := range []string{"reset", "remove"} {
				err := w.fill(greedy)
				if !fails(err) {
					t.Errorf("filling the disk gives %v", err)
				}
				for _, c := range []database.Clone{other, idle} {
					if got, err := ask(t.Context(), c, "SELECT count(*) FROM item WHERE name = 'one'"); err != nil || got != "1" {
						t.Errorf("with the disk full, %s has %q, %v", c.ID, got, err)
					}
				}
				// There may be a bit of room. On a btrfs even what is overwritten needs some.
				_, err = ask(t.Context(), other, "INSERT INTO item VALUES ('three')")
				if err != nil && !fails(err) {
					t.Errorf("with the disk full, writing to the other one gives %v", err)
				}
				for _, id := range []string{"greedy", "other", "idle"} {
					if s := w.status(id); s.Phase == database.PhaseFailed && !strings.Contains(s.Message, isFull) {
						t.Errorf("%s says %q", id, s.Message)
					}
				}
				if how == "reset" {
					if err := w.Reset(t.Context(), greedy); err != nil {
						t.Fatalf("what fills the disk cannot be reset: %v", err)
					}
					if got := w.rows(greedy); got != "one" {
						t.Errorf("after a reset it has %q", got)
					}
				} else if err := w.Remove(t.Context(), "greedy"); err != nil {
					t.Fatalf("what fills the disk cannot be removed: %v", err)
				}
				w.eventually("the other one can be written to", func() bool {
					_, err := ask(t.Context(), other, "INSERT INTO item VALUES ('four')")
					return err == nil
				})
			}
			for id, was := range before {
				if s := w.status(id); s.PID != was.PID || s.Restarts != 0 {
					t.Errorf("the server of %s ended: it is %+v, and was process %d", id, s, was.PID)
				}
			}
			next := w.wanted("next", "tpl", "")
			w.ensure(next)
			if got := w.rows(next); got != "one" {
				t.Errorf("a new one has %q", got)
			}
			if _, err := os.Stat(filepath.Join(w.records, "clones/greedy.json")); !os.IsNotExist(err) {
				t.Errorf("the record of the one that filled the disk: %v", err)
			}
		})
	}
}

func TestOnAFullDiskNothingNewIsBegunAndWhatEndsIsBackWhenThereIsRoom(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills a disk")
	}
	top := snapshottest.XFS(t, 400)
	w := onCloner(t, "reflink", snapshot.Options{Dir: filepath.Join(top, "data"), Pool: snapshot.PoolNone}, sharedDump)
	ended, other, next := w.wanted("ended", "tpl", ""), w.wanted("other", "tpl", ""), w.wanted("next", "tpl", "")
	w.ensure(ended)
	w.ensure(other)
	w.insert(ended, "two")
	w.insert(other, "two")
	was := w.status("other")
	takeAll(t, filepath.Join(top, "others"))
	if err := w.Ensure(t.Context(), next); dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !strings.Contains(err.Error(), "make room on the disk") {
		t.Errorf("a new one says %v", err)
	}
	_, err := w.Load(t.Context(), database.Load{ID: "more", Database: "shop", Fixtures: []byte(sharedDump)})
	if dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !strings.Contains(err.Error(), isFull) {
		t.Errorf("a new template says %v", err)
	}
	if names, err := w.o.Cloner.List(t.Context()); err != nil || strings.Join(names, " ") != "cended cother ttpl" {
		t.Errorf("there are folders %q, %v", names, err)
	}
	if err := syscall.Kill(w.status("ended").PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// It may find the few blocks that it needs.
	w.eventually("it is back, or says that the disk is full", func() bool {
		s := w.status("ended")
		return s.Restarts > 0 && (s.Phase == database.PhaseReady || s.Phase == database.PhaseFailed && strings.Contains(s.Message, isFull))
	})
	if got := w.rows(other); got != "one two" {
		t.Errorf("the other one has %q", got)
	}
	if err := os.Remove(filepath.Join(top, "others")); err != nil {
		t.Fatal(err)
	}
	w.eventually("it is back", func() bool { return w.status("ended").Phase == database.PhaseReady })
	w.ensure(next)
	for c, want := range map[*database.Clone]string{&ended: "one two", &other: "one two", &next: "one"} {
		if got := w.rows(*c); got != want {
			t.Errorf("%s has %q, want %q", c.ID, got, want)
		}
	}
	if s := w.status("other"); s.PID != was.PID || s.Restarts != 0 {
		t.Errorf("the server of the other one ended: it is %+v, and was %+v", s, was)
	}
}

// takeAll lets a file take all the room that there is, without writing it.
func takeAll(t *testing.T, file string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := int64(0)
	for step := int64(64 << 20); step >= 4096; {
		switch err := unix.Fallocate(int(f.Fd()), 0, at, step); {
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		case err != nil:
			t.Fatal(err)
		default:
			at += step
		}
	}
}

// fat is a dump that takes much more room than it has.
const fat = "CREATE TABLE fat (t text);\nALTER TABLE fat ALTER t SET STORAGE external;\nINSERT INTO fat SELECT repeat(md5(random()::text), 100) FROM generate_series(1, 300000);\n"

func TestATemplateThatFindsNoRoomBelowThePoolFailsAndLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills a disk")
	}
	top := snapshottest.Ext4(t, 1500)
	w := onCloner(t, "btrfs", snapshot.Options{Dir: filepath.Join(top, "data")}, sharedDump)
	// What holds the file system of the pool together lies in front, and shall be written.
	pool, err := os.OpenFile(filepath.Join(top, "data/pool.img"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := unix.Fallocate(int(pool.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 64<<20); err != nil {
		t.Fatal(err)
	}
	old := w.wanted("old", "tpl", "")
	w.ensure(old)
	loaded := make(chan error, 1)
	before := snapshottest.Used(t, top)
	go func() {
		_, err := w.Load(t.Context(), database.Load{ID: "fat", Database: "shop", Fixtures: []byte(fat)})
		loaded <- err
	}()
	w.eventually("the template takes room", func() bool { return snapshottest.Used(t, top) > before+200<<20 })
	takeAll(t, filepath.Join(top, "others"))
	err = <-loaded
	if dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !strings.Contains(err.Error(), isFull) {
		t.Errorf("it says %v", err)
	}
	if names, err := w.o.Cloner.List(t.Context()); err != nil || strings.Join(names, " ") != "cold ttpl" {
		t.Errorf("there are folders %q, %v", names, err)
	}
	if all, err := w.Templates(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("there are templates %v, %v", all, err)
	}
	if got := w.rows(old); got != "one" {
		t.Errorf("the database has %q", got)
	}
	made := w.wanted("new", "tpl", "")
	err = w.Ensure(t.Context(), made)
	if dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !strings.Contains(err.Error(), "make room on the disk") {
		t.Errorf("a new one says %v", err)
	}
	if err := os.Remove(filepath.Join(top, "others")); err != nil {
		t.Fatal(err)
	}
	w.eventually("a new one can be made", func() bool { return w.Ensure(t.Context(), made) == nil })
	w.insert(made, "two")
	w.eventually("the old one can be written to", func() bool {
		_, err := ask(t.Context(), old, "INSERT INTO item VALUES ('two')")
		return err == nil
	})
	for _, c := range []database.Clone{made, old} {
		if got := w.rows(c); got != "one two" {
			t.Errorf("%s has %q", c.ID, got)
		}
	}
	if _, err := w.Load(t.Context(), database.Load{ID: "fat2", Database: "shop", Fixtures: []byte(sharedDump)}); err != nil {
		t.Errorf("with room, a template gives %v", err)
	}
}
