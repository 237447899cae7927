package keeper

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/database"
)

const (
	// calm is how long no clone may have been made before a spare is: those who wait come first.
	calm = 250 * time.Millisecond
	// unclaimed is how long a spare that was given away waits for the one that it was given to.
	unclaimed = time.Minute
)

// spare is a clone that nobody has asked for yet. Its server runs, and lets nobody in: its user is not made yet. It is
// in a folder called like a clone's, since it becomes one.
type spare struct {
	database.Clone
	made   bool // before this Keeper came
	path   string
	server database.Server // nil = it is not ready
	given  time.Time       // when Place gave it away
}

// spareRecord is what is written down of a spare.
type spareRecord struct {
	Clone database.Clone `json:"clone"`
	Made  bool           `json:"made"`
}

// alike says whether a clone that was made for one, is right for the other.
func alike(a, b database.Clone) bool {
	b.Port = a.Port
	return a.Template == b.Template && a.From == "" && b.From == "" && a.User == b.User && same(a, b)
}

// Place gives a new clone its id and its port.
func (k *Keeper) Place(ctx context.Context, c database.Clone, taken func(port int) bool) (id string, port int, err error) {
	if taken == nil {
		taken = func(int) bool { return false }
	}
	k.mu.Lock()
	for id, s := range k.spares {
		if s.given.IsZero() && s.runs() && alike(s.Clone, c) && !taken(s.Port) {
			s.given = time.Now()
			k.mu.Unlock()
			return id, s.Port, nil
		}
	}
	k.mu.Unlock()
	port, err = k.freePort(ctx, taken)
	if err != nil && ctx.Err() == nil && k.discardOne(ctx, taken) {
		port, err = k.freePort(ctx, taken) // spares are no reason to have nothing
	}
	return dayfly.NewID(), port, err
}

// runs says whether a spare's server runs.
func (s *spare) runs() bool {
	if s.server == nil {
		return false
	}
	select {
	case <-s.server.Ended():
		return false
	default:
		return true
	}
}

// freePort gives a port that nobody listens on. Ports go round, so that one that was just given is not given again at once.
func (k *Keeper) freePort(ctx context.Context, taken func(int) bool) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.freePortLocked(ctx, taken)
}

func (k *Keeper) freePortLocked(ctx context.Context, taken func(int) bool) (int, error) {
	mine := map[int]bool{}
	for _, c := range k.clones {
		mine[c.rec.Clone.Port] = true
	}
	for _, s := range k.spares {
		mine[s.Port] = true
	}
	for range k.o.LastPort - k.o.FirstPort + 1 {
		port := k.nextPort
		if k.nextPort++; k.nextPort > k.o.LastPort {
			k.nextPort = k.o.FirstPort
		}
		if mine[port] || taken(port) {
			continue
		}
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", ":"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, dayfly.Errorf(dayfly.CodeUnavailable, "all ports from %d to %d are taken: delete a database, or give a wider range with --db-ports", k.o.FirstPort, k.o.LastPort)
}

// Reserve has a spare made soon from which a clone like c can be had, if there is none. The spares of templates that
// were asked for longest ago make room.
func (k *Keeper) Reserve(c database.Clone) {
	if k.o.Spares == 0 || c.Template == "" {
		return
	}
	c.ID, c.Password, c.Port, c.Fixtures = "", "", 0, nil
	k.mu.Lock()
	if k.retired[c.Template] {
		k.mu.Unlock()
		return
	}
	k.likes = append([]database.Clone{c}, slices.DeleteFunc(k.likes, func(l database.Clone) bool { return l.Template == c.Template })...)
	k.likes = k.likes[:min(len(k.likes), k.o.Spares)]
	k.mu.Unlock()
	k.look()
}

// Retire lets the spare of a version go and no other one be made, until Forget.
func (k *Keeper) Retire(templateID string) {
	k.mu.Lock()
	_, there := k.templates[templateID]
	news := there && !k.retired[templateID]
	if news {
		k.retired[templateID] = true
	}
	k.mu.Unlock()
	if news {
		k.dislike(templateID)
		k.look()
	}
}

// look lets stock see what has changed.
func (k *Keeper) look() {
	select {
	case k.restock <- struct{}{}:
	default: // it will look anyway
	}
}

// stock keeps spares until the Keeper ends.
func (k *Keeper) stock() {
	k.adoptSpares()
	for {
		for !k.isCalm() {
			if pause(k.ctx, calm) != nil {
				return
			}
		}
		if err := k.discardAll(k.ctx, k.unwanted); err != nil && k.ctx.Err() == nil {
			k.o.Logger.Error("a spare database cannot be taken away", "error", err)
		}
		for _, like := range k.lacking() {
			if err := k.makeSpare(k.ctx, like); err != nil && k.ctx.Err() == nil {
				k.o.Logger.Warn("no spare database could be made; the next one of its template takes longer", "template", like.Template, "error", err)
				k.dislike(like.Template) // until somebody asks for one again
			}
		}
		next := time.NewTimer(unclaimed)
		select {
		case <-k.ctx.Done():
			next.Stop()
			return
		case <-k.restock:
			next.Stop()
		case <-next.C:
		}
	}
}

// isCalm says whether nobody waits for a clone, and has not for a moment.
func (k *Keeper) isCalm() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.making == 0 && time.Since(k.made) >= calm
}

// busyMaking counts a clone that somebody waits for, until the returned function is called.
func (k *Keeper) busyMaking() func() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.making++
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.making--
		k.made = time.Now()
	}
}

// lacking gives what spares are to be made of.
func (k *Keeper) lacking() []database.Clone {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(k.likes), func(like database.Clone) bool {
		for _, s := range k.spares {
			if s.given.IsZero() && alike(s.Clone, like) {
				return true
			}
		}
		return false
	})
}

// unwanted says whether a spare is of no use any more; k.mu is held.
func (k *Keeper) unwanted(s *spare) bool {
	if !s.given.IsZero() {
		return time.Since(s.given) >= unclaimed
	}
	return !s.runs() || !slices.ContainsFunc(k.likes, func(like database.Clone) bool { return alike(s.Clone, like) })
}

// dislike lets no more spares be made of a template.
func (k *Keeper) dislike(template string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.likes = slices.DeleteFunc(k.likes, func(l database.Clone) bool { return l.Template == template })
}

// adoptSpares finds the servers of the spares that a Keeper before this one has left.
func (k *Keeper) adoptSpares() {
	k.mu.Lock()
	found := map[string]*spare{}
	for id, s := range k.spares {
		if s.made && k.o.Spares > 0 && s.Port >= k.o.FirstPort && s.Port <= k.o.LastPort {
			found[id] = s
		}
	}
	k.mu.Unlock()
	for id, s := range found {
		unlock, err := k.locks.lock(k.ctx, "c"+id)
		if err != nil {
			return
		}
		k.mu.Lock()
		there := k.spares[id] == s
		k.mu.Unlock()
		if !there { // whom it was given to has come meanwhile
			unlock()
			continue
		}
		var server database.Server
		path, err := k.o.Cloner.Attach(k.ctx, "c"+id)
		if err == nil {
			server, err = k.o.Engine.Start(k.ctx, path, s.Clone)
		}
		if err == nil {
			k.mu.Lock()
			s.path, s.server = path, server
			k.mu.Unlock()
			k.Reserve(s.Clone)
		} else if k.ctx.Err() == nil {
			k.o.Logger.Warn("a spare database is taken away, since it cannot be started", "error", err)
		}
		unlock()
	}
}

// makeSpare makes a spare.
func (k *Keeper) makeSpare(ctx context.Context, like database.Clone) (err error) {
	like.ID = dayfly.NewID()
	unlock, err := k.locks.lock(ctx, "c"+like.ID)
	if err != nil {
		return err
	}
	defer unlock()
	k.mu.Lock()
	like.Port, err = k.freePortLocked(ctx, func(int) bool { return false })
	if err == nil {
		k.spares[like.ID] = &spare{Clone: like}
	}
	k.mu.Unlock()
	if err != nil {
		return err
	}
	known := false
	defer func() {
		if err != nil || !known {
			err = errors.Join(err, k.discardLocked(ctx, like.ID))
		}
	}()
	if known, err = k.noteSpare(ctx, like); !known || err != nil {
		return err
	}
	crash.Point("spare.copy")
	path, err := k.o.Cloner.Clone(ctx, "t"+like.Template, "c"+like.ID)
	if err != nil {
		return notCopied(err)
	}
	crash.Point("spare.copied")
	server, err := k.o.Engine.Start(ctx, path, like)
	if err != nil {
		return err
	}
	crash.Point("spare.started")
	if err := write(k.recordOf("spares", like.ID), spareRecord{like, true}); err != nil {
		server.Close()
		return err
	}
	crash.Point("spare.written")
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.spares[like.ID]
	s.path, s.server = path, server
	return nil
}

// noteSpare writes down that a spare is being made. It is not known when its template is to go.
func (k *Keeper) noteSpare(ctx context.Context, like database.Clone) (known bool, err error) {
	unlock, err := k.locks.lock(ctx, "t"+like.Template)
	if err != nil {
		return false, err
	}
	defer unlock()
	k.mu.Lock()
	_, known = k.templates[like.Template]
	known = known && slices.ContainsFunc(k.likes, func(l database.Clone) bool { return l.Template == like.Template })
	k.mu.Unlock()
	if !known {
		return false, nil
	}
	crash.Point("spare.note")
	if err := write(k.recordOf("spares", like.ID), spareRecord{like, false}); err != nil {
		return false, err
	}
	crash.Point("spare.noted")
	return true, nil
}

// claim makes the spare that was given to a clone its own, if there is one that is as it should be; the clone's lock is
// held, and its record is written.
func (k *Keeper) claim(want database.Clone) (path string, ok bool, err error) {
	k.mu.Lock()
	s := k.spares[want.ID]
	k.mu.Unlock()
	if s == nil {
		return "", false, nil
	}
	ok = s.runs() && alike(s.Clone, want) && s.Port == want.Port
	if s.server != nil {
		s.server.Close() // whoever has it now looks for it
	}
	crash.Point("spare.claim")
	if err := removeRecord(k.recordOf("spares", want.ID)); err != nil {
		return "", false, err
	}
	crash.Point("spare.claimed")
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.spares, want.ID)
	return s.path, ok, nil
}

// discardAll takes the spares away of which which says so; k.mu is held when it is asked.
func (k *Keeper) discardAll(ctx context.Context, which func(*spare) bool) (err error) {
	k.mu.Lock()
	var ids []string
	for id, s := range k.spares {
		if which(s) {
			ids = append(ids, id)
		}
	}
	k.mu.Unlock()
	for _, id := range ids {
		err = errors.Join(err, k.discard(ctx, id))
	}
	return err
}

// yield takes a spare away that has the port of a clone that was asked for.
func (k *Keeper) yield(ctx context.Context, c database.Clone) error {
	return k.discardAll(ctx, func(s *spare) bool { return s.Port == c.Port && s.ID != c.ID })
}

// discardOne takes any one spare away that was given to nobody, or to someone who did not take its port, and says whether
// there was one.
func (k *Keeper) discardOne(ctx context.Context, taken func(int) bool) bool {
	k.mu.Lock()
	for id, s := range k.spares {
		if s.given.IsZero() || !taken(s.Port) {
			k.mu.Unlock()
			return k.discard(ctx, id) == nil
		}
	}
	k.mu.Unlock()
	return false
}

// discard takes a spare away, unless somebody has made it theirs meanwhile.
func (k *Keeper) discard(ctx context.Context, id string) error {
	unlock, err := k.locks.lock(ctx, "c"+id)
	if err != nil {
		return err
	}
	defer unlock()
	return k.discardLocked(ctx, id)
}

func (k *Keeper) discardLocked(ctx context.Context, id string) error {
	k.mu.Lock()
	s := k.spares[id]
	if s == nil {
		k.mu.Unlock()
		return nil
	}
	server := s.server
	s.server = nil // nobody gets it any more
	k.mu.Unlock()
	if server != nil {
		server.Close()
	}
	crash.Point("spare.discard")
	if err := k.wipe(ctx, "c"+id); err != nil {
		return err
	}
	crash.Point("spare.discarded")
	if err := removeRecord(k.recordOf("spares", id)); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.spares, id)
	return nil
}
