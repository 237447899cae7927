// Package fake is a database.Keeper whose databases are bytes in memory: what a test of those who use a
// keeper needs, with nothing to install. What it keeps outlives a Keeper, as what a real one keeps does.
package fake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database"
)

// Host is the folder of keepers: what there is of templates and databases.
type Host struct {
	// First is the first port that Place gives.
	First int

	mu        sync.Mutex
	templates map[string]*template
	clones    map[string]*clone
	watchers  map[chan string]bool
	holds     map[string]chan struct{} // by kind of work
	fails     map[string]error
	done      []string
}

type template struct {
	database.Template
	content []byte
}

type clone struct {
	database.Clone
	content []byte
	begin   []byte // what it was made from
	status  database.Status
}

// NewHost makes a host on which nothing is.
func NewHost() *Host {
	return &Host{First: 15432, templates: map[string]*template{}, clones: map[string]*clone{}, watchers: map[chan string]bool{},
		holds: map[string]chan struct{}{}, fails: map[string]error{}}
}

// Hold lets every call of a method ("Load", "Ensure", "Reset", "Remove") wait until the returned function is called.
func (h *Host) Hold(method string) (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := make(chan struct{})
	h.holds[method] = held
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.holds, method)
		close(held)
	})
}

// Fail lets every call of a method fail, until it is called with nil.
func (h *Host) Fail(method string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fails[method] = err
}

// Content gives what is in a database; ok is false where there is none.
func (h *Host) Content(id string) (content string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok := h.clones[id]
	if !ok {
		return "", false
	}
	return string(c.content), true
}

// Write adds to what is in a database, as its users do.
func (h *Host) Write(id, more string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clones[id].content = append(h.clones[id].content, more...)
}

// Clone gives what a database was asked to be.
func (h *Host) Clone(id string) (database.Clone, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok := h.clones[id]
	if !ok {
		return database.Clone{}, false
	}
	return c.Clone, true
}

// Crash lets the server of a database end by itself, with a message, and not come back.
func (h *Host) Crash(id, message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.clones[id]
	c.status.Phase, c.status.Message = database.PhaseFailed, message
	h.tell(id)
}

// Plant makes a database that nobody asked for, as a crash may leave one.
func (h *Host) Plant(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clones[id] = &clone{Clone: database.Clone{ID: id}, status: database.Status{ID: id, Phase: database.PhaseReady}}
}

// IDs gives the ids of all templates and databases, in order.
func (h *Host) IDs() (templates, clones []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.templates)), slices.Sorted(maps.Keys(h.clones))
}

// Done gives the methods that have been called with what, in order: "Ensure ID".
func (h *Host) Done() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.done)
}

func (h *Host) tell(id string) {
	for w := range h.watchers {
		select {
		case w <- id:
		default:
		}
	}
}

// begin notes a call, and waits or fails where that was asked for.
func (h *Host) begin(ctx context.Context, method, id string) error {
	h.mu.Lock()
	h.done = append(h.done, method+" "+id)
	held := h.holds[method]
	h.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fails[method]
}

// Keeper is a database.Keeper of a Host.
type Keeper struct{ *Host }

// New makes a keeper of a host.
func New(h *Host) *Keeper { return &Keeper{h} }

// Load implements database.Keeper. A dump that begins with "garbage" is none.
func (k *Keeper) Load(ctx context.Context, l database.Load) (database.Template, error) {
	progress := func(step string, bytes int) {
		if l.Progress != nil {
			l.Progress(database.Progress{Step: step, Bytes: int64(bytes), Total: int64(bytes)})
		}
	}
	var content []byte
	switch {
	case l.Source.Dump != nil:
		b, err := io.ReadAll(l.Source.Dump)
		if err != nil {
			return database.Template{}, dayfly.Errorf(dayfly.CodeFailed, "the dump was cut off: %w", err)
		}
		if strings.HasPrefix(string(b), "garbage") {
			return database.Template{}, dayfly.Errorf(dayfly.CodeFailed, "this is no dump")
		}
		content = b
	case l.Source.Dir != "":
		content = []byte("dir " + l.Source.Dir)
	case l.Source.URL != "":
		content = []byte("url " + l.Source.URL)
	}
	content = append(content, l.Fixtures...)
	progress("loading", len(content))
	if err := k.begin(ctx, "Load", l.ID); err != nil {
		return database.Template{}, err
	}
	if len(l.Mask) > 0 {
		progress("masking", len(content))
		content = []byte(strings.ReplaceAll(string(content), string(l.Mask), "***"))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	t := &template{content: content, Template: database.Template{
		ID: l.ID, Engine: "postgres", Version: "15", Database: l.Database, Bytes: int64(len(content)), Driver: "fake", FrozenAt: time.Now()}}
	k.templates[l.ID] = t
	return t.Template, nil
}

// Templates implements database.Keeper.
func (k *Keeper) Templates(context.Context) ([]database.Template, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []database.Template
	for _, id := range slices.Sorted(maps.Keys(k.templates)) {
		all = append(all, k.templates[id].Template)
	}
	return all, nil
}

// Forget implements database.Keeper.
func (k *Keeper) Forget(ctx context.Context, id string) error {
	if err := k.begin(ctx, "Forget", id); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.clones {
		if c.Template == id {
			return fmt.Errorf("%s is a copy of it", c.ID)
		}
	}
	delete(k.templates, id)
	return nil
}

// Reserve implements database.Keeper. There are no spares.
func (k *Keeper) Reserve(database.Clone) {}

// Retire implements database.Keeper.
func (k *Keeper) Retire(templateID string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.done = append(k.done, "Retire "+templateID)
}

// Place implements database.Keeper.
func (k *Keeper) Place(_ context.Context, _ database.Clone, taken func(int) bool) (string, int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for port := k.First; port < k.First+1000; port++ {
		if !taken(port) {
			return dayfly.NewID(), port, nil
		}
	}
	return "", 0, errors.New("no port is free")
}

// Ensure implements database.Keeper.
func (k *Keeper) Ensure(ctx context.Context, c database.Clone) error {
	if err := k.begin(ctx, "Ensure", c.ID); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	there, ok := k.clones[c.ID]
	if !ok {
		content, err := k.origin(c)
		if err != nil {
			return err
		}
		there = &clone{Clone: c, content: content, begin: slices.Clone(content)}
		k.clones[c.ID] = there
	}
	there.status = k.status(there)
	k.tell(c.ID)
	return nil
}

func (k *Keeper) status(c *clone) database.Status {
	own := int64(8192)
	return database.Status{ID: c.ID, Phase: database.PhaseReady, Bytes: int64(len(c.content)), OwnBytes: &own, PID: 1}
}

// origin gives what a database begins with.
func (k *Keeper) origin(c database.Clone) ([]byte, error) {
	var content []byte
	if c.From != "" {
		from, ok := k.clones[c.From]
		if !ok {
			return nil, dayfly.Errorf(dayfly.CodeFailed, "the database %s is gone", c.From)
		}
		content = from.content
	} else {
		t, ok := k.templates[c.Template]
		if !ok {
			return nil, dayfly.Errorf(dayfly.CodeFailed, "the template %s is gone", c.Template)
		}
		content = t.content
	}
	return append(slices.Clone(content), c.Fixtures...), nil
}

// Reset implements database.Keeper.
func (k *Keeper) Reset(ctx context.Context, c database.Clone) error {
	if err := k.begin(ctx, "Reset", c.ID); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	before, ok := k.clones[c.ID]
	if !ok {
		return dayfly.Errorf(dayfly.CodeFailed, "there is no database %s", c.ID)
	}
	there := &clone{Clone: c, content: slices.Clone(before.begin), begin: before.begin}
	there.status = k.status(there)
	k.clones[c.ID] = there
	k.tell(c.ID)
	return nil
}

// Remove implements database.Keeper.
func (k *Keeper) Remove(ctx context.Context, id string) error {
	if err := k.begin(ctx, "Remove", id); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.clones, id)
	k.tell(id)
	return nil
}

// Observe implements database.Keeper.
func (k *Keeper) Observe(_ context.Context, ids ...string) ([]database.Status, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(ids) == 0 {
		ids = slices.Sorted(maps.Keys(k.clones))
	}
	var all []database.Status
	for _, id := range ids {
		if c, ok := k.clones[id]; ok {
			all = append(all, c.status)
		}
	}
	return all, nil
}

// Changes implements database.Keeper.
func (k *Keeper) Changes(ctx context.Context) iter.Seq[string] {
	news := make(chan string, 1000)
	k.mu.Lock()
	k.watchers[news] = true
	k.mu.Unlock()
	return func(yield func(string) bool) {
		defer func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			delete(k.watchers, news)
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case id := <-news:
				if !yield(id) {
					return
				}
			}
		}
	}
}

// Close implements database.Keeper.
func (k *Keeper) Close() error { return nil }

// Sweep takes away what nobody knows, whatever the grace.
func (k *Keeper) Sweep(_ context.Context, _ time.Duration, known func(id string) bool) ([]dayfly.Leftover, error) {
	templates, clones := k.IDs()
	for _, id := range append(templates, clones...) {
		if known(id) {
			continue
		}
		k.mu.Lock()
		delete(k.templates, id)
		delete(k.clones, id)
		k.mu.Unlock()
	}
	return nil, nil
}

// Destroy refuses as long as anything is left.
func (k *Keeper) Destroy(context.Context) error {
	if templates, clones := k.IDs(); len(templates)+len(clones) > 0 {
		return fmt.Errorf("templates %v and databases %v are left", templates, clones)
	}
	return nil
}
