// Package keeper keeps the templates and clones of one node: an Engine's folders, copied by a Cloner.
//
// What is there is written down below one folder: a template's record once it is frozen, a clone's before its first
// step. So a crash leaves a template's folder without a record, which goes when the next Keeper opens, or a
// clone's record that says it was being made, which the next Ensure takes away and makes again. A folder
// of a template is called t and its id, one of a clone c and its id, and what a clone of a clone was made
// from, so that it can be reset to it, o and the id of the clone. A spare is called as the clone that it may become.
package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
)

// Options are what a Keeper is made of.
type Options struct {
	Dir       string // for records; made where it is missing
	Engine    database.Engine
	Cloner    snapshot.Cloner // the Keeper's alone; closed by it
	FirstPort int
	LastPort  int
	// Measure is how often sizes are measured. Default: every minute.
	Measure time.Duration
	// Backoff is how long a server that ended by itself waits before it is started again, at first; it doubles up to a minute
	// each time. Default: a quarter of a second.
	Backoff time.Duration
	// Spares is of how many templates, those asked for last, a clone is kept ready for the next one who asks: it runs
	// already. 0 = of none. There are none where each would be as large as its template.
	Spares int
	Logger *slog.Logger
}

// Keeper is a database.Keeper.
type Keeper struct {
	o       Options
	ctx     context.Context // ends with the Keeper
	cancel  context.CancelFunc
	tasks   sync.WaitGroup // what goes on in the background, and calls under way
	slots   chan struct{}  // how many servers are started at once
	locks   locks
	changed hub
	kick    chan struct{} // something new is to be measured
	restock chan struct{} // spares may be missing

	mu        sync.Mutex
	closed    bool
	templates map[string]database.Template
	clones    map[string]*clone
	noticed   map[string]time.Time // leftovers
	nextPort  int
	spares    map[string]*spare
	likes     []database.Clone // what spares are like, of one template each, the one asked for last first
	retired   map[string]bool  // versions of which there are to be none
	making    int              // clones that somebody waits for
	made      time.Time        // when the last one was made
	loading   int              // templates that are being loaded
}

var _ database.Keeper = (*Keeper)(nil)

// record is what is written down of a clone. Its password is not: the database knows it.
type record struct {
	Clone    database.Clone `json:"clone"`
	Made     bool           `json:"made"`
	Origin   bool           `json:"origin,omitempty"` // what a clone of a clone was made from is kept
	Database string         `json:"database"`
	Bytes    int64          `json:"bytes"`
}

// clone is one that there is a record of. Its fields are guarded by Keeper.mu.
type clone struct {
	rec      record
	path     string // of its folder, once it was started
	phase    database.Phase
	message  string
	server   database.Server
	restarts int
	own      *int64
	measured time.Time
	stop     context.CancelFunc // ends the watching of the server
	done     chan struct{}      // closed when it has ended; nil = nobody watches
}

var idPattern = regexp.MustCompile(`^[a-z0-9]{1,31}$`)

func checkID(id string) error {
	if !idPattern.MatchString(id) {
		return dayfly.Errorf(dayfly.CodeInvalid, "%q is no id of a database or template: it has to be 1 to 31 lower-case letters and digits", id)
	}
	return nil
}

// Open gives a Keeper of what is in the folder: servers that run are adopted, the others are started, and what was left
// half made goes.
func Open(ctx context.Context, o Options) (*Keeper, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Measure == 0 {
		o.Measure = time.Minute
	}
	if o.Backoff == 0 {
		o.Backoff = 250 * time.Millisecond
	}
	k := &Keeper{o: o, slots: make(chan struct{}, 4*runtime.NumCPU()), templates: map[string]database.Template{}, clones: map[string]*clone{},
		noticed: map[string]time.Time{}, kick: make(chan struct{}, 1), restock: make(chan struct{}, 1), spares: map[string]*spare{}, retired: map[string]bool{}, nextPort: o.FirstPort}
	for _, dir := range []string{"templates", "clones", "spares"} {
		if err := os.MkdirAll(filepath.Join(o.Dir, dir), 0o700); err != nil {
			return nil, err
		}
	}
	templates, err := readAll[database.Template](filepath.Join(o.Dir, "templates"))
	if err != nil {
		return nil, err
	}
	records, err := readAll[record](filepath.Join(o.Dir, "clones"))
	if err != nil {
		return nil, err
	}
	spares, err := readAll[spareRecord](filepath.Join(o.Dir, "spares"))
	if err != nil {
		return nil, err
	}
	if o.Cloner.Name() == "copy" {
		k.o.Spares = 0
	}
	k.templates = templates
	for id, rec := range records {
		k.clones[id] = &clone{rec: rec, phase: database.PhaseStarting}
		if !rec.Made {
			k.clones[id].phase, k.clones[id].message = database.PhaseFailed, "it was not finished when the server ended, and is made again when it is asked for"
		}
	}
	for id, rec := range spares {
		if k.clones[id] != nil { // it was just becoming one
			if err := removeRecord(k.recordOf("spares", id)); err != nil {
				return nil, err
			}
			continue
		}
		k.spares[id] = &spare{Clone: rec.Clone, made: rec.Made}
	}
	names, err := o.Cloner.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if id, ok := strings.CutPrefix(name, "t"); ok {
			if _, frozen := templates[id]; !frozen {
				o.Logger.Info("taking away a template that was not finished", "id", id)
				if err := k.wipe(ctx, name); err != nil {
					return nil, fmt.Errorf("what is left of a template that was not finished cannot be taken away: %w", err)
				}
			}
		}
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	for id, c := range k.clones {
		if c.rec.Made {
			k.watch(id, c)
		}
	}
	k.tasks.Go(k.measure)
	k.tasks.Go(k.grow)
	k.tasks.Go(k.stock)
	return k, nil
}

// Close lets go of everything without stopping a server.
func (k *Keeper) Close() error {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil
	}
	k.closed = true
	k.mu.Unlock()
	k.cancel()
	k.tasks.Wait()
	k.changed.close()
	for _, c := range k.clones {
		if c.server != nil {
			c.server.Close()
		}
	}
	for _, s := range k.spares {
		if s.server != nil {
			s.server.Close()
		}
	}
	return k.o.Cloner.Close()
}

// begin counts a call in; ctx ends with the Keeper, too.
func (k *Keeper) begin(ctx context.Context) (context.Context, func(), error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, nil, dayfly.Errorf(dayfly.CodeUnavailable, "the server is ending: try again later")
	}
	k.tasks.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(k.ctx, cancel)
	return ctx, func() { stop(); cancel(); k.tasks.Done() }, nil
}

// wipe ends what runs in a folder and takes the folder away. One that is not there is no error.
func (k *Keeper) wipe(ctx context.Context, name string) error {
	ctx = context.WithoutCancel(ctx)
	names, err := k.o.Cloner.List(ctx)
	if err != nil {
		return err
	}
	if slices.Contains(names, name) {
		// A folder that is half made need not have a path.
		if path, err := k.o.Cloner.Attach(ctx, name); err == nil {
			crash.Point("database.stop")
			if err := k.o.Engine.Stop(ctx, path, false); err != nil {
				return err
			}
			crash.Point("database.stopped")
		}
	}
	crash.Point("database.delete")
	err = k.o.Cloner.Delete(ctx, name)
	crash.Point("database.deleted")
	return err
}

// Load makes a version of a template.
func (k *Keeper) Load(ctx context.Context, l database.Load) (_ database.Template, err error) {
	if err := checkID(l.ID); err != nil {
		return database.Template{}, err
	}
	ctx, end, err := k.begin(ctx)
	if err != nil {
		return database.Template{}, err
	}
	defer end()
	name := "t" + l.ID
	unlock, err := k.locks.lock(ctx, name)
	if err != nil {
		return database.Template{}, err
	}
	defer unlock()
	if t, ok := k.template(l.ID); ok {
		return t, nil
	}
	if err := k.wipe(ctx, name); err != nil {
		return database.Template{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.wipe(ctx, name))
		}
	}()
	crash.Point("template.create")
	path, err := k.o.Cloner.Create(ctx, name)
	if err != nil {
		return database.Template{}, err
	}
	crash.Point("template.created")
	k.mu.Lock()
	k.loading++
	k.mu.Unlock()
	t, err := k.o.Engine.Load(ctx, path, l)
	k.mu.Lock()
	k.loading--
	k.mu.Unlock()
	if err != nil {
		return database.Template{}, err
	}
	crash.Point("template.loaded")
	if err := k.o.Cloner.Freeze(ctx, name); err != nil {
		return database.Template{}, fmt.Errorf("the template cannot be frozen: %w", err)
	}
	crash.Point("template.frozen")
	t.ID, t.Driver, t.FrozenAt = l.ID, k.o.Cloner.Name(), time.Now().UTC().Truncate(time.Second)
	if err := write(k.recordOf("templates", l.ID), t); err != nil {
		return database.Template{}, err
	}
	crash.Point("template.written")
	k.mu.Lock()
	k.templates[t.ID] = t
	k.mu.Unlock()
	return t, nil
}

func (k *Keeper) template(id string) (database.Template, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t, ok := k.templates[id]
	return t, ok
}

// Templates gives what is there and frozen.
func (k *Keeper) Templates(context.Context) ([]database.Template, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.SortedFunc(maps.Values(k.templates), func(a, b database.Template) int { return strings.Compare(a.ID, b.ID) }), nil
}

// Forget deletes a version of a template that no clone was made from.
func (k *Keeper) Forget(ctx context.Context, id string) error {
	for {
		k.dislike(id)
		if err := k.discardAll(ctx, func(s *spare) bool { return s.Template == id }); err != nil {
			return err
		}
		err := k.withFolder(ctx, "t", id, func(ctx context.Context) error { return k.forget(ctx, id) })
		if !errors.Is(err, errSpare) {
			return err
		}
	}
}

// errSpare says that a spare was made of a template that is to go, before that was known.
var errSpare = errors.New("there is a spare")

func (k *Keeper) forget(ctx context.Context, id string) error {
	k.mu.Lock()
	var users []string
	for user, c := range k.clones {
		if c.rec.Clone.Template == id {
			users = append(users, user)
		}
	}
	spared := false
	for _, s := range k.spares {
		spared = spared || s.Template == id
	}
	k.mu.Unlock()
	if spared {
		return errSpare
	}
	if len(users) > 0 {
		slices.Sort(users)
		return dayfly.Errorf(dayfly.CodeConflict, "the template is in use by %s: delete those first", strings.Join(users, ", "))
	}
	// Without its record it is one that was not finished.
	crash.Point("template.forget")
	if err := removeRecord(k.recordOf("templates", id)); err != nil {
		return err
	}
	crash.Point("template.forgotten")
	k.mu.Lock()
	delete(k.templates, id)
	delete(k.retired, id)
	k.mu.Unlock()
	return k.wipe(ctx, "t"+id)
}

// Observe gives what is known of clones.
func (k *Keeper) Observe(_ context.Context, ids ...string) ([]database.Status, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(ids) == 0 {
		ids = slices.Sorted(maps.Keys(k.clones))
	}
	var all []database.Status
	for _, id := range ids {
		c, ok := k.clones[id]
		if !ok {
			continue
		}
		s := database.Status{ID: id, Phase: c.phase, Message: c.message, Database: c.rec.Database, Restarts: c.restarts, Bytes: c.rec.Bytes}
		if c.server != nil && c.phase == database.PhaseReady {
			s.PID = c.server.PID()
		}
		if c.own != nil {
			own := *c.own
			s.OwnBytes = &own
		}
		all = append(all, s)
	}
	return all, nil
}

// Changes gives the id of a clone whenever its status may have changed.
func (k *Keeper) Changes(ctx context.Context) iter.Seq[string] { return k.changed.follow(ctx) }

func (k *Keeper) recordOf(kind, id string) string { return filepath.Join(k.o.Dir, kind, id+".json") }

// readAll reads the records of a folder, and takes away what a crash left half written.
func readAll[T any](dir string) (map[string]T, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	all := map[string]T{}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		id, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok || !idPattern.MatchString(id) {
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var v T
		if err := json.Unmarshal(b, &v); err != nil {
			return nil, fmt.Errorf("%s cannot be understood: %w", path, err)
		}
		all[id] = v
	}
	return all, nil
}

// write writes a record in place of the one that is there, and to the device.
func write(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.Write(b)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if errors.Is(err, syscall.ENOSPC) {
		return errors.Join(overwrite(path, b), removeRecord(next))
	}
	if err != nil {
		return err
	}
	crash.Point("clone.record")
	return os.Rename(next, path)
}

// overwrite writes a record into the blocks that it has: on a disk that is full nothing could be deleted otherwise. A record
// that is not there needs room.
func overwrite(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return diskFull(path)
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		// Spaces behind it say nothing, and the file need not become shorter.
		b = append(b, bytes.Repeat([]byte(" "), max(0, int(info.Size())-len(b)))...)
		_, err = f.WriteAt(b, 0)
	}
	err = errors.Join(err, f.Sync(), f.Close())
	if errors.Is(err, syscall.ENOSPC) {
		return diskFull(path)
	}
	return err
}

func diskFull(path string) error {
	return dayfly.Errorf(dayfly.CodeUnavailable, "the disk of %s is full: delete databases or templates, or make room on the disk: %w", filepath.Dir(path), syscall.ENOSPC)
}

func removeRecord(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
