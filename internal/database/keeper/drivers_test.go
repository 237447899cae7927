//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/database/enginetest"
	"github.com/dayfly-dev/dayfly/internal/database/postgres"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot/snapshottest"
)

// onDriver gives a keeper whose folders one driver copies, with a template that is loaded.
func onDriver(t *testing.T, driver, dir, dump string) *world {
	t.Helper()
	root := enginetest.Root(t)
	engine := postgres.New(postgres.Options{Sockets: filepath.Join(root, "s")})
	if _, err := engine.Versions(t.Context()); err != nil {
		t.Skip(err)
	}
	data := filepath.Join(dir, "data")
	cloner, err := snapshot.Open(t.Context(), snapshot.Options{Dir: data, Driver: driver, Pool: snapshot.PoolNone})
	if err != nil {
		t.Fatal(err)
	}
	if cloner.Name() != driver {
		t.Fatalf("it is copied by %s", cloner.Name())
	}
	k, err := Open(t.Context(), Options{Dir: filepath.Join(root, "records"), Engine: engine, Cloner: cloner, FirstPort: 21000, LastPort: 28999, Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		names, err := cloner.List(ctx)
		if err := errors.Join(err, k.Close()); err != nil {
			t.Error(err)
		}
		for _, name := range names {
			if path, err := cloner.Attach(ctx, name); err == nil {
				if err := engine.Stop(ctx, path, false); err != nil {
					t.Error(err)
				}
			}
		}
		if err := snapshot.Destroy(ctx, data, nil); err != nil {
			t.Error(err)
		}
	})
	if _, err := k.Load(t.Context(), database.Load{ID: "tpl", Database: "shop", Fixtures: []byte(dump)}); err != nil {
		t.Fatal(err)
	}
	return &world{Keeper: k, t: t, root: root}
}

// drivers are all that share something, each on what it is for.
var drivers = []struct {
	name string
	dir  func(t *testing.T) string
}{
	{"btrfs", func(t *testing.T) string { return snapshottest.Btrfs(t, 900) }},
	{"reflink", func(t *testing.T) string { return snapshottest.XFS(t, 900) }},
	{"overlay", func(t *testing.T) string { return snapshottest.Ext4(t, 900) }},
}

func TestOnEachDriverACloneTakesLittleAndThoseMadeAtOnceAreEachTheirOwn(t *testing.T) {
	if testing.Short() {
		t.Skip("many servers take a while")
	}
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			n := 3
			if d.name == "btrfs" {
				n = 20
			}
			dir := d.dir(t)
			w := onDriver(t, d.name, dir, sharedDump+"CREATE TABLE large AS SELECT md5(n::text) AS name FROM generate_series(1, 300000) n;\n")
			before := snapshottest.Used(t, dir)
			alone := w.wanted("alone", "tpl", "")
			w.ensure(alone)
			if got := w.rows(alone); got != "one" {
				t.Errorf("it has %q", got)
			}
			if _, err := ask(t.Context(), alone, "VACUUM item"); err != nil {
				t.Error(err)
			}
			// The large table alone has more. On overlay it would be copied as soon as it is read.
			used := snapshottest.Used(t, dir) - before
			t.Logf("a clone has %d bytes of its own", used)
			if limit := int64(8 << 20); used > limit {
				t.Errorf("a clone has taken %d bytes of the device, want at most %d", used, limit)
			}
			if err := w.Remove(t.Context(), "alone"); err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			var clones []database.Clone
			for i := range n {
				clones = append(clones, w.wanted(fmt.Sprintf("c%d", i), "tpl", ""))
			}
			for _, c := range clones {
				all.Go(func() {
					if err := w.Ensure(t.Context(), c); err != nil {
						t.Errorf("%s: %v", c.ID, err)
						return
					}
					if _, err := ask(t.Context(), c, "INSERT INTO item VALUES ('of "+c.ID+"')"); err != nil {
						t.Errorf("%s: %v", c.ID, err)
					}
				})
			}
			all.Wait()
			if t.Failed() {
				return
			}
			// Only now: each was written to while others were being made.
			for _, c := range clones {
				if got, want := w.rows(c), "of "+c.ID+" one"; got != want {
					t.Errorf("%s has %q, want %q", c.ID, got, want)
				}
			}
			first := clones[0]
			if err := w.Reset(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			if got := w.rows(first); got != "one" {
				t.Errorf("after a reset it has %q", got)
			}
			copied := w.wanted("copied", "", "c1")
			w.ensure(copied)
			if got, want := w.rows(copied), w.rows(clones[1]); got != want {
				t.Errorf("the clone of a clone has %q, want %q", got, want)
			}
			for _, c := range append(clones, copied) {
				all.Go(func() {
					if err := w.Remove(t.Context(), c.ID); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			enginetest.NothingRuns(t, w.root)
			if names, err := w.o.Cloner.List(t.Context()); err != nil || strings.Join(names, " ") != "ttpl" {
				t.Errorf("folders %q are left, %v", names, err)
			}
		})
	}
}

func TestADiskThatIsFullFailsWhoWritesAndLeavesTheOthersAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills a disk")
	}
	w := onDriver(t, "reflink", snapshottest.XFS(t, 400), sharedDump)
	greedy, other := w.wanted("greedy", "tpl", ""), w.wanted("other", "tpl", "")
	w.ensure(greedy)
	w.ensure(other)
	pid := w.status("other").PID
	_, err := ask(t.Context(), greedy, "CREATE TABLE fat AS SELECT repeat(md5(n::text), 50) || random() AS t FROM generate_series(1, 2000000) n")
	if err == nil || !strings.Contains(strings.ToLower(err.Error()), "no space left") && !errors.Is(err, io.ErrUnexpectedEOF) && !strings.Contains(err.Error(), "EOF") {
		t.Fatalf("filling the disk gives %v", err)
	}
	if got, err := ask(t.Context(), other, "SELECT string_agg(name, ' ') FROM item"); err != nil || got != "one" {
		t.Errorf("the other one has %q, %v", got, err)
	}
	// Whoever fills the disk may go, and then there is room again, for a new one, too.
	if err := w.Remove(t.Context(), "greedy"); err != nil {
		t.Fatalf("what fills the disk cannot be removed: %v", err)
	}
	w.eventually("the other one can be written to", func() bool {
		_, err := ask(t.Context(), other, "INSERT INTO item VALUES ('two')")
		return err == nil
	})
	if got := w.rows(other); got != "one two" {
		t.Errorf("the other one has %q", got)
	}
	if s := w.status("other"); s.PID != pid || s.Restarts != 0 {
		t.Errorf("the server of the other one ended: it is %+v, and was process %d", s, pid)
	}
	next := w.wanted("next", "tpl", "")
	w.ensure(next)
	if got := w.rows(next); got != "one" {
		t.Errorf("a new one has %q", got)
	}
	if _, err := os.Stat(filepath.Join(w.root, "records/clones/greedy.json")); !os.IsNotExist(err) {
		t.Errorf("the record of the one that filled the disk: %v", err)
	}
}
