package keeper

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// Sweep takes away clones and versions of templates that nobody knows, once they were noticed for grace, and gives those
// that are left. known is asked for the ids of clones and of versions, after what is there was listed: what comes into
// being has its record first. It is called by one goroutine at a time.
func (k *Keeper) Sweep(ctx context.Context, grace time.Duration, known func(id string) bool) ([]dayfly.Leftover, error) {
	ctx, end, err := k.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	names, err := k.o.Cloner.List(ctx)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	for id := range k.clones {
		names = append(names, "c"+id) // a record without a folder
	}
	k.mu.Unlock()
	// Clones first: versions that they were made from may go then.
	slices.Sort(names)
	names = slices.Compact(names)
	var all error
	var left []dayfly.Leftover
	noticed := map[string]time.Time{}
	for _, name := range names {
		if len(name) < 2 || checkID(name[1:]) != nil || !strings.ContainsRune("cot", rune(name[0])) {
			continue
		}
		id := name[1:]
		k.mu.Lock()
		spare := k.spares[id] != nil && name[0] == 'c'
		k.mu.Unlock()
		if spare || known(id) || name[0] == 'o' && slices.Contains(names, "c"+id) {
			continue
		}
		l := dayfly.Leftover{Kind: "database", Name: name, Since: time.Now()}
		if name[0] == 't' {
			l.Kind = "template"
		}
		k.mu.Lock()
		if since, ok := k.noticed[name]; ok {
			l.Since = since
		}
		k.mu.Unlock()
		if time.Since(l.Since) >= grace && ctx.Err() == nil {
			k.o.Logger.Warn("taking away what belongs to nothing", "kind", l.Kind, "name", name)
			if err := k.takeAway(ctx, name, known); err == nil {
				continue
			} else { //nolint:revive // the other way round would hide the error's scope
				all = errors.Join(all, err)
			}
		}
		noticed[name] = l.Since
		left = append(left, l)
	}
	k.mu.Lock()
	k.noticed = noticed
	k.mu.Unlock()
	return left, all
}

// takeAway deletes one leftover, unless somebody has come to know it meanwhile.
func (k *Keeper) takeAway(ctx context.Context, name string, known func(string) bool) error {
	if name[0] == 't' {
		if known(name[1:]) {
			return nil
		}
		return k.Forget(ctx, name[1:])
	}
	return k.with(ctx, name[1:], func(ctx context.Context) error {
		if known(name[1:]) {
			return nil
		}
		return k.remove(ctx, name[1:])
	})
}

// measure keeps the sizes of clones, one after the other. What was measured a moment ago waits for its next turn.
func (k *Keeper) measure() {
	for {
		next := time.NewTimer(k.o.Measure)
		select {
		case <-k.ctx.Done():
			next.Stop()
			return
		case <-k.kick:
			next.Stop()
		case <-next.C:
		}
		k.mu.Lock()
		ids := slices.Sorted(maps.Keys(k.clones))
		k.mu.Unlock()
		for _, id := range ids {
			if k.ctx.Err() == nil {
				k.measureOne(id)
			}
		}
	}
}

func (k *Keeper) measureOne(id string) {
	k.mu.Lock()
	c := k.clones[id]
	due := c != nil && c.rec.Made && time.Since(c.measured) >= k.o.Measure
	var path string
	if due {
		c.measured, path = time.Now(), c.path
	}
	k.mu.Unlock()
	if !due {
		return
	}
	own, ok, err := k.o.Cloner.OwnBytes(k.ctx, "c"+id)
	if err != nil {
		ok = false
	}
	bytes := size(path)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.clones[id] != c {
		return
	}
	c.own = nil
	if ok {
		c.own = &own
	}
	if bytes > 0 {
		c.rec.Bytes = bytes
	}
}

// size adds up the files of a folder, as far as they can be seen: they come and go meanwhile.
func size(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { // never fails
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}
