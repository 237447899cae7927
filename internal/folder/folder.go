//go:build linux

// Package folder watches a folder of environment files and hands over what is in it. It
// knows names and bytes, not what they mean.
//
// The kernel tells of most changes at once, and a look at the folder twice a second finds
// what it cannot tell of: changes on network file systems, at the targets of symbolic links,
// of the folder itself, and those that got lost in a storm. Both lead to the same look, so
// no event is ever believed, or needed.
package folder

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 1 << 20

const (
	poll    = 500 * time.Millisecond // between two looks that nothing has asked for
	settled = 50 * time.Millisecond  // what has not changed for so long is not being written any more
	patient = 300 * time.Millisecond // and no change waits longer than this
	// doubt is how long a file may be changed without any trace in its times: some file
	// systems count in seconds.
	doubt = 1100 * time.Millisecond
	// refill is how long a folder that was made again is not believed that a file is missing:
	// whoever made it may not have put all of them back yet.
	refill = 2 * time.Second
	gap    = 20 * time.Millisecond // between two looks, whatever happens
)

// File is a file of the folder.
type File struct {
	Name string // relative to the folder
	Data []byte // not to be changed
	Err  error  // why it cannot be read: no permission, too large, no regular file
}

// Config says what is watched.
type Config struct {
	Dir string
	// Changed gets all files of the folder, sorted by name. It is called again after retry,
	// if that is more than 0, even if nothing changes.
	Changed func(ctx context.Context, files []File) (retry time.Duration)
	Logger  *slog.Logger // nil = nobody is told of a folder that is missing

	// Was is what Remember was told last, maybe in an earlier life. A folder that is another one
	// than that, and empty, is not believed.
	Was string
	// Remember is told before Changed where the files are from, when that is somewhere else; "" =
	// there are none. nil = nobody wants to know.
	Remember func(folder string)
	// Problem is told why the folder is not believed, and "" when it is again. nil = nobody wants
	// to know.
	Problem func(what string)
}

// Watch calls Changed once at the start and whenever a file was added, changed or removed,
// one call at a time. A folder that is missing or cannot be read is waited for, and is not
// taken for an empty one; nor is one that is empty and another one than that which the files
// were in, such as where nothing is mounted any more. Watch returns nil when ctx ends, and an
// error for a Config that it cannot work with.
func Watch(ctx context.Context, c Config) error {
	if c.Dir == "" || c.Changed == nil {
		return errors.New("folder: Dir and Changed are needed")
	}
	w := newWatcher(c)
	defer w.unwatch()
	for {
		next := w.at(ctx, time.Now())
		if !w.wait(ctx, next) {
			return nil
		}
	}
}

// entry is what is known of one name.
type entry struct {
	state state     // as it was seen last
	since time.Time // when it was first seen so

	has   bool      // there is file, of the state read
	read  state     //
	at    time.Time // when it was read
	file  File      //
	later bool      // it could not be read for a reason that may pass
}

// sure says whether a change of the file would show in its state.
func (e *entry) sure() bool { return !e.later && e.at.Sub(e.since) >= doubt }

// gone says whether there is no such file.
func (e *entry) gone() bool { return e.state == state{} }

type watcher struct {
	Config
	entries map[string]*entry
	dirty   time.Time // since when there is something to hand over; zero = there is not
	begun   bool      // Changed was called
	news    bool      // there is something that it was not called for
	retry   time.Time // when it is to be called again; zero = when something changes
	missing bool      // the folder is, and that was said
	deaf    bool      // the kernel tells nothing, and that was said
	problem string    // what Problem was told last

	folder   identity  // the one that was looked at,
	replaced time.Time // and since when it is another one than before; zero = it never was

	home       identity  // the one that the files are from; zero = it is gone, or there was none
	remembered string    // what Remember was told last
	strange    time.Time // since when another one is there without a file; zero = that is not so

	notify  *fsnotify.Watcher
	watched identity        // the folder that notify tells of
	touched map[string]bool // of which it told since the last look
	looked  time.Time       // when the last look began,
	took    time.Duration   // and how long it took
}

func newWatcher(c Config) *watcher {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	w := &watcher{Config: c, entries: map[string]*entry{}, touched: map[string]bool{}, home: parseIdentity(c.Was), remembered: c.Was}
	if w.Problem == nil {
		w.Problem = func(string) {}
	}
	if w.Remember == nil {
		w.Remember = func(string) {}
	}
	return w
}

// at looks at the folder, hands over what has changed, and says when to look again.
func (w *watcher) at(ctx context.Context, now time.Time) time.Duration {
	w.looked = now
	if !w.look(now) {
		w.dirty, w.took = time.Time{}, 0
		if !w.retry.IsZero() && !w.retry.After(now) {
			w.retry = now.Add(poll) // or it would be looked at without a pause
		}
		return poll
	}
	ready, next := w.collect(now)
	if !ready || !w.news && w.begun && (w.retry.IsZero() || now.Before(w.retry)) {
		return next
	}
	w.begun, w.news, w.retry = true, false, time.Time{}
	files := w.files()
	from := ""
	if len(files) > 0 {
		from = w.home.String()
	}
	w.took = time.Since(now) // without what others do
	if from != w.remembered {
		w.remembered = from
		w.Remember(from)
	}
	if retry := w.Changed(ctx, files); retry > 0 {
		w.retry = time.Now().Add(retry)
	}
	return next
}

// look brings the states of all entries up to date. It says whether the folder is there.
func (w *watcher) look(now time.Time) bool {
	w.watch() // before the listing, so that nothing falls between the two
	id, names, err := list(w.Dir)
	if err != nil {
		if !w.missing {
			w.Logger.Warn("the folder of environment files cannot be read; nothing is changed until it can", "folder", w.Dir, "err", err)
		}
		w.missing, w.strange = true, time.Time{}
		w.forget()
		w.doubt("it cannot be read: " + reason(err))
		return false
	}
	if !w.believe(id, len(names), now) {
		return false
	}
	if w.missing {
		w.Logger.Info("the folder of environment files is there", "folder", w.Dir)
	}
	w.missing = false
	w.doubt("")
	if id != w.folder {
		if w.begun {
			w.replaced = now
			for _, e := range w.entries {
				if e.gone() { // maybe only because the folder was about to go
					e.since = now
				}
			}
		}
		w.folder = id
	}
	for name, e := range w.entries {
		if _, there := names[name]; !there {
			e.see(state{}, now)
		}
	}
	for name, s := range names {
		e := w.entries[name]
		if e == nil {
			e = &entry{since: now}
			w.entries[name] = e
		}
		e.see(s, now)
	}
	return true
}

// believe says whether a folder with that many files may be taken for the one that is meant. One
// without any is what is seen where nothing is mounted, or what somebody made who is yet to fill
// it: all files would seem to be gone at once.
func (w *watcher) believe(id identity, files int, now time.Time) bool {
	if files > 0 || id == w.home || !w.atStake() {
		w.home, w.strange = id, time.Time{}
		return true
	}
	if w.strange.IsZero() {
		w.strange = now
	}
	if now.Sub(w.strange) >= refill && w.problem != emptied {
		w.Logger.Warn("the folder of environment files is empty and another one than that which the files were in; nothing is ended until they are back", "folder", w.Dir)
		w.doubt(emptied)
	}
	return false
}

// emptied is the problem of a folder that is not believed to be empty.
const emptied = "it is empty, and another folder than that which the files were in"

// atStake says whether there were files that are not known to be gone.
func (w *watcher) atStake() bool {
	if !w.begun {
		return w.Was != ""
	}
	for _, e := range w.entries {
		if e.has {
			return true
		}
	}
	return false
}

// doubt tells what is wrong with the folder; "" = nothing.
func (w *watcher) doubt(problem string) {
	if problem != w.problem {
		w.problem = problem
		w.Problem(problem)
	}
}

// refilled says whether a file is missing since the folder was made again.
func (w *watcher) refilled(e *entry) bool {
	return !w.replaced.IsZero() && !e.since.Before(w.replaced) && e.since.Sub(w.replaced) < refill
}

func (e *entry) see(s state, now time.Time) {
	if s != e.state {
		e.state, e.since = s, now
	}
}

// collect reads what has changed, once it has settled. It says whether what it has can be
// handed over, and when it wants to be asked again.
func (w *watcher) collect(now time.Time) (ready bool, next time.Duration) {
	var changed []string
	wait, held := time.Duration(0), poll
	for name, e := range w.entries {
		switch {
		case e.gone() && !e.has: // came and went
			delete(w.entries, name)
		case e.gone() && w.refilled(e):
			if left := refill - now.Sub(e.since); left > 0 {
				held = min(held, left)
			} else {
				changed = append(changed, name)
			}
		case !e.has || e.state != e.read:
			changed = append(changed, name)
			wait = max(wait, settled-now.Sub(e.since))
		case !e.sure() && (w.touched[name] || now.Sub(e.at) >= poll):
			changed = append(changed, name)
		}
	}
	clear(w.touched)
	late := false // some of it does not settle
	if wait > 0 {
		if w.dirty.IsZero() {
			w.dirty = now
		}
		left := patient - now.Sub(w.dirty)
		if left > 0 {
			return false, min(wait, left)
		}
		late = true
	}
	ready, next = true, held
	for _, name := range changed {
		e := w.entries[name]
		if e.gone() {
			if now.Sub(e.since) < settled {
				next = settled // an editor may be about to put it back
				continue
			}
			delete(w.entries, name)
			w.news = true
			continue
		}
		f, before, after, later := read(w.Dir, name, e.state)
		vanished := before == state{} // what there was before goes on to count until it is sure that it is gone
		if vanished || before != after && !late {
			e.see(after, now)
			ready, next = ready && late, settled
			continue
		}
		differs := !e.has || !same(e.file, f)
		if differs && before == e.read {
			e.since = now // changed without a trace, and maybe not for the last time
		}
		e.see(before, now)
		e.has, e.read, e.at, e.later = true, before, now, later
		if differs {
			e.file, w.news = f, true
		}
	}
	switch {
	case ready:
		w.dirty = time.Time{}
	case w.dirty.IsZero():
		w.dirty = now
	}
	return ready, next
}

// files gives all that was read.
func (w *watcher) files() []File {
	files := make([]File, 0, len(w.entries))
	for _, e := range w.entries {
		if e.has {
			files = append(files, e.file)
		}
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	return files
}

// wait waits for the time of the next look. It says whether there is one.
func (w *watcher) wait(ctx context.Context, next time.Duration) bool {
	if !w.retry.IsZero() {
		next = min(next, max(time.Until(w.retry), 0))
	}
	timer := time.NewTimer(next)
	defer timer.Stop()
	// A look may take a quarter of the time: in a storm, it is not repeated for each drop.
	early := w.looked.Add(max(gap, min(3*w.took, poll)))
	var events chan fsnotify.Event
	var failures chan error
	if w.notify != nil {
		events, failures = w.notify.Events, w.notify.Errors
	}
	hear := func(ok bool) {
		if !ok { // closed
			events, failures = nil, nil
		}
		if at := time.Until(early); at < next {
			next = max(at, 0)
			timer.Reset(next)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return ctx.Err() == nil
		case e, ok := <-events:
			if e.Name == filepath.Clean(w.Dir) && e.Op.Has(fsnotify.Remove|fsnotify.Rename) {
				w.forget()
				ok = false
			}
			w.touched[filepath.Base(e.Name)] = true
			hear(ok)
		case _, ok := <-failures: // such as a queue that was too short: what was lost is looked for
			hear(ok)
		}
	}
}

// watch lets the kernel tell of changes in the folder that there is now.
func (w *watcher) watch() {
	id := identify(w.Dir)
	if w.notify != nil && id == w.watched {
		return
	}
	w.unwatch()
	if id == (identity{}) {
		return
	}
	n, err := fsnotify.NewWatcher()
	if err == nil {
		if err = n.Add(w.Dir); err != nil {
			n.Close() //nolint:errcheck // it has nothing to lose
		}
	}
	if err != nil {
		if !w.deaf {
			w.Logger.Warn("the system does not tell of changes in the folder of environment files; it is looked at twice a second", "folder", w.Dir, "err", err)
		}
		w.deaf = true
		return
	}
	w.deaf, w.notify, w.watched = false, n, id
}

// forget makes the folder that is there next another one than before, though the system may
// give it the number of the old one.
func (w *watcher) forget() {
	w.unwatch()
	w.folder, w.home = identity{}, identity{}
}

func (w *watcher) unwatch() {
	if w.notify != nil {
		w.notify.Close() //nolint:errcheck // it has nothing to lose
		w.notify = nil
	}
}

// Counts says whether a name in the folder is that of an environment file, and not one that
// an editor leaves there for a while.
func Counts(name string) bool {
	ext := filepath.Ext(name)
	return (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "#")
}
