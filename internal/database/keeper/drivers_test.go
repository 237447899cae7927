//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
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
	return onCloner(t, driver, snapshot.Options{Dir: filepath.Join(dir, "data"), Driver: driver, Pool: snapshot.PoolNone}, dump)
}

// onCloner gives a keeper whose folders are copied as the options say, with a template that is loaded.
func onCloner(t *testing.T, driver string, o snapshot.Options, dump string) *world {
	t.Helper()
	root := enginetest.Root(t)
	engine := postgres.New(postgres.Options{Sockets: filepath.Join(root, "s"), Programs: enginetest.Programs()})
	if _, err := engine.Versions(t.Context()); err != nil {
		t.Skip(err)
	}
	cloner, err := snapshot.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if cloner.Name() != driver {
		t.Fatalf("it is copied by %s", cloner.Name())
	}
	// On the same disk, as with a server.
	records := filepath.Join(filepath.Dir(o.Dir), "records")
	k, err := Open(t.Context(), Options{Dir: records, Engine: engine, Cloner: cloner, FirstPort: 21000, LastPort: 28999, Backoff: time.Millisecond})
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
		if err := snapshot.Destroy(ctx, o.Dir, nil); err != nil {
			t.Error(err)
		}
	})
	if _, err := k.Load(t.Context(), database.Load{ID: "tpl", Database: "shop", Fixtures: []byte(dump)}); err != nil {
		t.Fatal(err)
	}
	return &world{Keeper: k, t: t, root: root, records: records}
}

// drivers are all, each on what it is for.
var drivers = []struct {
	name   string
	dir    func(t *testing.T, sizeMB int64) string
	copies bool // a clone takes all that its template has, by design
}{
	{"btrfs", func(t *testing.T, sizeMB int64) string { return snapshottest.Btrfs(t, sizeMB) }, false},
	{"reflink", func(t *testing.T, sizeMB int64) string { return snapshottest.XFS(t, sizeMB) }, false},
	{"overlay", func(t *testing.T, sizeMB int64) string { return snapshottest.Ext4(t, sizeMB) }, false},
	{"copy", func(t *testing.T, sizeMB int64) string { return snapshottest.Ext4(t, sizeMB) }, true},
}

// templateMB is how large the template is of which clones are measured. The promise is about one of 1024 MB, which
// DAYFLY_TEST_TEMPLATE_MB=1024 tries; it takes some minutes for each driver.
func templateMB(t *testing.T) int64 {
	t.Helper()
	size := os.Getenv("DAYFLY_TEST_TEMPLATE_MB")
	if size == "" {
		return 64
	}
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 16 {
		t.Fatalf("DAYFLY_TEST_TEMPLATE_MB is %q, and should be a number of at least 16", size)
	}
	return n
}

// most is what a clone may take of the device until somebody works with it, whatever its template's size.
const most = 8 << 20

func TestOnEachDriverACloneTakesLittleOfTheDevice(t *testing.T) {
	if testing.Short() {
		t.Skip("a large template takes a while")
	}
	size := templateMB(t)
	// A row has some 1000 bytes: eight go on a page.
	large := fmt.Sprintf("CREATE TABLE large AS SELECT n, repeat(md5(n::text), 30) AS text FROM generate_series(1, %d) n;\n", size*128*8)
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			dir := d.dir(t, 3*size+600)
			w := onDriver(t, d.name, dir, sharedDump+large)
			tpl, ok := w.Keeper.template("tpl")
			if !ok || tpl.Bytes < size<<20 {
				t.Fatalf("the template has %d bytes, want %d MB", tpl.Bytes, size)
			}
			before := snapshottest.Used(t, dir)
			c := w.wanted("alone", "tpl", "")
			w.ensure(c)
			started := snapshottest.Used(t, dir) - before
			if got := w.rows(c); got != "one" {
				t.Errorf("it has %q", got)
			}
			asked := snapshottest.Used(t, dir) - before
			// Of one table: not the large one, which overlay would copy as soon as it is opened for writing.
			if _, err := ask(t.Context(), c, "VACUUM item"); err != nil {
				t.Error(err)
			}
			vacuumed := snapshottest.Used(t, dir) - before
			t.Logf("template of %d MB: a clone takes %.2f MB of the device after its start, %.2f after the first query, %.2f after a VACUUM",
				tpl.Bytes>>20, float64(started)/(1<<20), float64(asked)/(1<<20), float64(vacuumed)/(1<<20))
			switch {
			case d.copies && vacuumed < tpl.Bytes/2:
				t.Errorf("it took %d bytes of the device: it is no copy of %d, and has to be held to what others may take", vacuumed, tpl.Bytes)
			case !d.copies && vacuumed > most:
				t.Errorf("it took %d bytes of the device, want at most %d", vacuumed, most)
			}
			if got, err := ask(t.Context(), c, "SELECT count(*) FROM large"); err != nil || got != fmt.Sprint(size*128*8) {
				t.Errorf("the large table has %q rows, %v", got, err)
			}
			read := snapshottest.Used(t, dir) - before
			t.Logf("after reading all of the large table: %.2f MB", float64(read)/(1<<20))
		})
	}
}

func TestOnEachDriverThoseMadeAtOnceAreEachTheirOwn(t *testing.T) {
	if testing.Short() {
		t.Skip("many servers take a while")
	}
	for _, d := range drivers {
		if d.copies { // as in all other tests here
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			n := 3
			if d.name == "btrfs" {
				n = 20
			}
			w := onDriver(t, d.name, d.dir(t, 900), sharedDump)
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
