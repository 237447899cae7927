package keeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"syscall"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/database"
)

// Ensure makes a clone where there is none, and starts its server where it does not run.
func (k *Keeper) Ensure(ctx context.Context, want database.Clone) error {
	return k.with(ctx, want.ID, func(ctx context.Context) error {
		k.mu.Lock()
		c := k.clones[want.ID]
		made := c != nil && c.rec.Made
		k.mu.Unlock()
		if !made {
			return k.create(ctx, want)
		}
		if !same(c.rec.Clone, want) {
			return k.move(ctx, c, want)
		}
		return k.started(ctx, want.ID, c)
	})
}

// same says whether a server that was started for one is right for the other.
func same(a, b database.Clone) bool {
	return a.Port == b.Port && a.Listen == b.Listen && maps.Equal(a.Settings, b.Settings)
}

// Reset makes a clone again from what it was made from.
func (k *Keeper) Reset(ctx context.Context, want database.Clone) error {
	return k.with(ctx, want.ID, func(ctx context.Context) error { return k.create(ctx, want) })
}

// Remove stops a clone and deletes it.
func (k *Keeper) Remove(ctx context.Context, id string) error {
	return k.with(ctx, id, func(ctx context.Context) error { return k.remove(ctx, id) })
}

// with runs f while nobody else changes the clone.
func (k *Keeper) with(ctx context.Context, id string, f func(context.Context) error) error {
	return k.withFolder(ctx, "c", id, f)
}

// withFolder runs f while nobody else changes the clone or template whose folder is called kind and id.
func (k *Keeper) withFolder(ctx context.Context, kind, id string, f func(context.Context) error) error {
	if err := checkID(id); err != nil {
		return err
	}
	ctx, end, err := k.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	unlock, err := k.locks.lock(ctx, kind+id)
	if err != nil {
		return err
	}
	defer unlock()
	return f(ctx)
}

// remove takes a clone away; its lock is held.
func (k *Keeper) remove(ctx context.Context, id string) error {
	k.unwatch(id)
	// From here on it is not whole: whoever comes after a crash must not start what is left.
	k.mu.Lock()
	c := k.clones[id]
	var rec record
	if c != nil {
		c.rec.Made = false
		rec = c.rec
	}
	k.mu.Unlock()
	if c != nil {
		err := write(k.recordOf("clones", id), rec)
		if errors.Is(err, syscall.ENOSPC) {
			err = removeRecord(k.recordOf("clones", id)) // it may be what fills the disk
		}
		if err != nil {
			return err
		}
	}
	crash.Point("clone.remove")
	// What it was made from goes last: drivers may need it as long as the clone is there.
	for _, name := range []string{"c" + id, "o" + id} {
		if err := k.wipe(ctx, name); err != nil {
			return err
		}
	}
	crash.Point("clone.forget")
	if err := removeRecord(k.recordOf("clones", id)); err != nil {
		return err
	}
	crash.Point("clone.forgotten")
	k.mu.Lock()
	delete(k.clones, id)
	k.mu.Unlock()
	k.changed.tell(id)
	return nil
}

// create makes a clone anew, whatever there is of it; its lock is held. When it fails nothing is left of a new one; of
// one that there was, its record says so.
func (k *Keeper) create(ctx context.Context, want database.Clone) (err error) {
	id := want.ID
	defer k.busyMaking()()
	if err := k.yield(ctx, want); err != nil {
		return err
	}
	k.mu.Lock()
	_, existed := k.clones[id]
	k.mu.Unlock()
	step := stepOf(want, existed)
	origin, rec, err := k.note(ctx, want, step)
	if existed && errors.Is(err, syscall.ENOSPC) {
		// It may be what fills the disk.
		if err = k.vacate(ctx, id); err == nil {
			origin, rec, err = k.note(ctx, want, step)
		}
		if err != nil {
			k.fail(id, err)
		}
	}
	if err != nil {
		return err // and what there was goes on
	}
	k.unwatch(id)
	k.changed.tell(id)
	defer func() {
		switch {
		case err == nil:
		case existed:
			err = errors.Join(err, k.wipe(ctx, "c"+id))
			k.fail(id, err)
		default:
			err = errors.Join(err, k.remove(ctx, id))
		}
	}()
	path, claimed, err := k.claim(want)
	if err != nil {
		return err
	}
	if !claimed {
		if path, err = k.copy(ctx, want, &rec, origin, step); err != nil {
			return err
		}
	}
	select { // starting a server takes a processor
	case k.slots <- struct{}{}:
		defer func() { <-k.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := k.o.Engine.Prepare(ctx, path, want); err != nil {
		return err
	}
	crash.Point(step + ".prepared")
	rec.Made = true
	if err := write(k.recordOf("clones", id), rec); err != nil {
		return err
	}
	crash.Point(step + ".written")
	s, err := k.o.Engine.Start(ctx, path, want)
	if err != nil {
		return err
	}
	k.mu.Lock()
	c := k.clones[id]
	c.rec, c.path, c.server, c.phase, c.message, c.measured = rec, path, s, database.PhaseReady, "", time.Time{}
	k.watchLocked(id, c)
	k.mu.Unlock()
	k.changed.tell(id)
	select {
	case k.kick <- struct{}{}:
	default: // there is one already
	}
	k.Reserve(want)
	return nil
}

// copy makes a clone's folder anew.
func (k *Keeper) copy(ctx context.Context, want database.Clone, rec *record, origin, step string) (path string, err error) {
	if err := k.wipe(ctx, "c"+want.ID); err != nil {
		return "", err
	}
	if want.From != "" {
		if err := k.originOf(ctx, want, rec, step); err != nil {
			return "", err
		}
	}
	crash.Point(step + ".copy")
	path, err = k.o.Cloner.Clone(ctx, origin, "c"+want.ID)
	if err != nil {
		return "", notCopied(err)
	}
	crash.Point(step + ".copied")
	return path, nil
}

func notCopied(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return dayfly.Errorf(dayfly.CodeUnavailable, "the data cannot be copied, since the disk is full: delete databases or templates, or make room on the disk: %w", err)
	}
	return fmt.Errorf("the data cannot be copied: %w", err)
}

// fail says of a clone that is there no more why.
func (k *Keeper) fail(id string, err error) {
	k.mu.Lock()
	k.clones[id].server, k.clones[id].phase, k.clones[id].message = nil, database.PhaseFailed, err.Error()
	k.mu.Unlock()
	k.changed.tell(id)
}

// vacate takes a clone's data away where not even its record can be written; its lock is held. Without a record it is
// one that nobody asked for, should we end here.
func (k *Keeper) vacate(ctx context.Context, id string) error {
	k.unwatch(id)
	k.mu.Lock()
	k.clones[id].rec.Made = false
	k.mu.Unlock()
	if err := removeRecord(k.recordOf("clones", id)); err != nil {
		return err
	}
	return k.wipe(ctx, "c"+id)
}

// stepOf is what the making of a clone is called where it may be killed.
func stepOf(want database.Clone, existed bool) string {
	switch {
	case existed:
		return "reset"
	case want.From != "":
		return "copy"
	}
	return "clone"
}

// note writes down that a clone is being made, and gives the folder that it is a copy of. From then on its template stays.
func (k *Keeper) note(ctx context.Context, want database.Clone, step string) (origin string, rec record, err error) {
	kept := want
	kept.Password, kept.Fixtures = "", nil
	rec = record{Clone: kept}
	switch {
	case want.Template != "" && want.From == "":
		unlock, err := k.locks.lock(ctx, "t"+want.Template)
		if err != nil {
			return "", rec, err
		}
		defer unlock()
		t, ok := k.template(want.Template)
		if !ok {
			return "", rec, dayfly.Errorf(dayfly.CodeNotFound, "this version of the template is not on this server: refresh the template")
		}
		origin, rec.Database, rec.Bytes = "t"+want.Template, t.Database, t.Bytes
	case want.From != "" && want.Template == "":
		if err := checkID(want.From); err != nil || want.From == want.ID {
			return "", rec, dayfly.Errorf(dayfly.CodeInvalid, "%q cannot be what this database is made from", want.From)
		}
		origin = "o" + want.ID
		k.mu.Lock()
		from, self := k.clones[want.From], k.clones[want.ID]
		switch {
		case from != nil && from.rec.Made:
			rec.Database, rec.Bytes = from.rec.Database, from.rec.Bytes
		case self != nil: // its origin may be there still
			rec.Database, rec.Bytes = self.rec.Database, self.rec.Bytes
		}
		rec.Origin = self != nil && self.rec.Origin && self.rec.Clone.From == want.From
		k.mu.Unlock()
	default:
		return "", rec, dayfly.Errorf(dayfly.CodeInvalid, "a database is made from a template or from another database, and from one of them only")
	}
	crash.Point(step + ".note")
	if err := write(k.recordOf("clones", want.ID), rec); err != nil {
		return "", rec, err
	}
	crash.Point(step + ".noted")
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.clones[want.ID]
	if c == nil {
		c = &clone{}
		k.clones[want.ID] = c
	}
	c.rec, c.phase, c.message, c.own = rec, database.PhaseStarting, "", nil
	return origin, rec, nil
}

// originOf keeps what a clone of a clone is made from: the other one goes on, or goes. What is there already
// stays, so that a reset goes back to it.
func (k *Keeper) originOf(ctx context.Context, want database.Clone, rec *record, step string) error {
	origin := "o" + want.ID
	if rec.Origin {
		return nil
	}
	if err := k.wipe(ctx, origin); err != nil {
		return err
	}
	unlock, err := k.locks.lock(ctx, "c"+want.From)
	if err != nil {
		return err
	}
	defer unlock()
	k.mu.Lock()
	from := k.clones[want.From]
	if from == nil || !from.rec.Made {
		k.mu.Unlock()
		return dayfly.Errorf(dayfly.CodeNotFound, "there is no database %s to make a copy of", want.From)
	}
	known := from.rec.Clone
	k.mu.Unlock()
	path, err := k.o.Cloner.Attach(ctx, "c"+want.From)
	if err != nil {
		return err
	}
	release, err := k.o.Engine.Quiesce(ctx, path, known)
	if err != nil {
		return err
	}
	defer release()
	crash.Point(step + ".origin")
	if _, err := k.o.Cloner.Clone(ctx, "c"+want.From, origin); err != nil {
		return notCopied(err)
	}
	crash.Point(step + ".origin.copied")
	rec.Origin = true
	k.mu.Lock()
	k.clones[want.ID].rec = *rec
	k.mu.Unlock()
	return write(k.recordOf("clones", want.ID), *rec)
}

// move starts a clone's server again, at another address or with other settings; its lock is held.
func (k *Keeper) move(ctx context.Context, c *clone, want database.Clone) error {
	k.unwatch(want.ID)
	k.mu.Lock()
	rec := c.rec
	c.phase = database.PhaseStarting
	k.mu.Unlock()
	rec.Clone.Port, rec.Clone.Listen, rec.Clone.Settings = want.Port, want.Listen, want.Settings
	if err := k.yield(ctx, want); err != nil {
		return err
	}
	path, err := k.o.Cloner.Attach(ctx, "c"+want.ID)
	if err != nil {
		return err
	}
	crash.Point("clone.move")
	if err := k.o.Engine.Stop(ctx, path, true); err != nil {
		return err
	}
	crash.Point("clone.move.stopped")
	if err := write(k.recordOf("clones", want.ID), rec); err != nil {
		return err
	}
	k.mu.Lock()
	c.rec = rec
	k.mu.Unlock()
	return k.started(ctx, want.ID, c)
}

// started sees to it that a clone that is made has a server; its lock is held.
func (k *Keeper) started(ctx context.Context, id string, c *clone) error {
	k.mu.Lock()
	s, watched := c.server, c.done != nil
	k.mu.Unlock()
	if s != nil {
		select {
		case <-s.Ended():
		default:
			if watched {
				return nil
			}
		}
	}
	err := k.start(ctx, id, c)
	k.mu.Lock()
	k.watchLocked(id, c)
	k.mu.Unlock()
	return err
}

// start starts a clone's server or finds it; its lock is held.
func (k *Keeper) start(ctx context.Context, id string, c *clone) error {
	select {
	case k.slots <- struct{}{}:
		defer func() { <-k.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	k.mu.Lock()
	known, old := c.rec.Clone, c.server
	c.server, c.phase = nil, database.PhaseStarting
	k.mu.Unlock()
	if old != nil {
		old.Close()
	}
	path, err := k.o.Cloner.Attach(ctx, "c"+id)
	var s database.Server
	if err == nil {
		crash.Point("clone.start")
		s, err = k.o.Engine.Start(ctx, path, known)
		crash.Point("clone.started")
	}
	k.mu.Lock()
	c.path, c.server, c.phase, c.message = path, s, database.PhaseReady, ""
	if err != nil {
		c.server, c.phase, c.message = nil, database.PhaseFailed, err.Error()
	}
	k.mu.Unlock()
	k.changed.tell(id)
	return err
}
