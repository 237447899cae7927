package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// load is a version of a template that is being made by this server.
type load struct {
	cancel   context.CancelCauseFunc
	done     chan struct{}            // closed when it has ended
	progress *dayfly.TemplateProgress // under loadsMu
}

var errTemplateDeleted = errors.New("the template was deleted")

// CreateTemplate makes a template. With a dump it returns when that is loaded, and else at once. What cannot be
// loaded is a template that has failed, which may be created again. Created is false where the name had been
// taken by such a one.
func (c *Control) CreateTemplate(ctx context.Context, req dayfly.TemplateRequest, dump io.Reader) (t dayfly.Template, err error) {
	none := dayfly.Template{}
	if _, err := c.keeper(); err != nil {
		return none, err
	}
	rec, err := c.newTemplate(req, dump != nil)
	if err != nil {
		return none, err
	}
	there, exists := registry.Lookup(c.cache, registry.Templates, req.Name)
	if exists && (there.Value.Current != "" || there.Value.Loading != "") {
		return none, dayfly.Errorf(dayfly.CodeConflict, "there is a template %s already: `dayfly template refresh %s` makes a new version of it", req.Name, req.Name)
	}
	op := func(rec dayfly.TemplateRecord) registry.Op { return registry.Create(registry.Templates, rec.Name, rec) }
	if exists {
		rec.ID = there.Value.ID
		op = func(rec dayfly.TemplateRecord) registry.Op {
			return registry.Update(registry.Templates, rec.Name, rec, there.Revision)
		}
	}
	return c.begin(ctx, rec, dump, req.Size, op)
}

// newTemplate checks what was asked for.
func (c *Control) newTemplate(req dayfly.TemplateRequest, dump bool) (dayfly.TemplateRecord, error) {
	rec := dayfly.TemplateRecord{Format: dayfly.Format, ID: dayfly.NewID(), Name: req.Name, Mask: req.Mask, Fixtures: req.Fixtures, CreatedAt: c.now()}
	var problems []dayfly.Problem
	bad := func(field, message string) {
		problems = append(problems, dayfly.Problem{Field: field, Message: message})
	}
	if err := dayfly.ValidName(req.Name); err != nil {
		bad("name", err.Error())
	}
	sources := 0
	rec.Source = dayfly.SourceEmpty
	if dump {
		sources, rec.Source = sources+1, dayfly.SourceDump
	}
	if req.Dir != "" {
		sources, rec.Source, rec.Dir = sources+1, dayfly.SourceDir, req.Dir
		switch {
		case !c.config.LocalFiles:
			return rec, dayfly.Errorf(dayfly.CodeForbidden, "folders of the server may be used only where its API listens on loopback, or with --allow-local-repos: send a dump")
		case !filepath.IsAbs(req.Dir) || filepath.Clean(req.Dir) != strings.TrimRight(req.Dir, "/"):
			bad("dir", "has to be an absolute path on the server")
		}
	}
	if !req.URL.IsZero() {
		sources, rec.Source = sources+1, dayfly.SourceURL
		u, err := url.Parse(req.URL.Reveal())
		if err != nil || u.Host == "" || u.Scheme == "" {
			bad("url", "is no address of a database: write it as postgres://user:password@host/database")
		}
		if rec.URL, err = c.vault.Seal(req.URL); err != nil {
			return rec, err
		}
	}
	if sources > 1 {
		bad("source", "give one of a dump, dir and url")
	}
	for field, script := range map[string][]byte{"mask": req.Mask, "fixtures": req.Fixtures} {
		if len(script) > dayfly.MaxScript {
			problems = append(problems, tooLarge(field, len(script)))
		}
	}
	if len(problems) > 0 {
		return rec, dayfly.Invalid(problems...)
	}
	return rec, nil
}

// begin writes that a version is being made, by the op for its template's record. With a dump it makes it, too:
// nobody else could.
func (c *Control) begin(ctx context.Context, rec dayfly.TemplateRecord, dump io.Reader, size int64, write func(dayfly.TemplateRecord) registry.Op) (dayfly.Template, error) {
	rec.Numbers++
	v := dayfly.TemplateVersion{
		Format: dayfly.Format, ID: dayfly.NewID(), Template: rec.Name, TemplateID: rec.ID, Number: rec.Numbers,
		Node: c.config.DatabaseNode, Source: rec.Source, CreatedAt: c.now(),
	}
	rec.Loading, rec.Problem = v.ID, ""
	loadCtx := ctx
	if dump != nil { // before its record is there, so that it is not taken for one that was left behind
		fed, done, _ := c.startLoad(ctx, v.ID) // the id is new
		defer done()
		loadCtx = fed
	}
	if err := c.commit(ctx, write(rec), registry.Create(registry.TemplateVersions, v.ID, v)); err != nil {
		var conflict *registry.Conflict
		if errors.As(err, &conflict) {
			return dayfly.Template{}, dayfly.Errorf(dayfly.CodeConflict, "template %s was created, refreshed or deleted at the same moment: look at it again", rec.Name)
		}
		return dayfly.Template{}, err
	}
	if dump == nil {
		return c.Template(ctx, rec.Name)
	}
	if err := c.load(loadCtx, v, database.Source{Dump: dump, Size: size}); err != nil {
		return dayfly.Template{}, err
	}
	return c.Template(context.WithoutCancel(ctx), rec.Name)
}

// startLoad notes that a version is being made here. Where it is already, it gives what is closed when that has ended.
func (c *Control) startLoad(ctx context.Context, id string) (_ context.Context, done func(), there <-chan struct{}) {
	c.loadsMu.Lock()
	defer c.loadsMu.Unlock()
	if other := c.loads[id]; other != nil {
		return ctx, func() {}, other.done
	}
	ctx, cancel := context.WithCancelCause(ctx)
	mine := &load{cancel: cancel, done: make(chan struct{})}
	c.loads[id] = mine
	return ctx, func() {
		cancel(nil)
		c.loadsMu.Lock()
		defer c.loadsMu.Unlock()
		delete(c.loads, id)
		close(mine.done)
	}, nil
}

// LoadTemplate makes a version that has a record, or waits until whoever is making it already has done so. One whose
// dump went with the server that was loading it has failed.
func (c *Control) LoadTemplate(ctx context.Context, versionID string) error {
	v, ok := registry.Lookup(c.cache, registry.TemplateVersions, versionID)
	if !ok || v.Value.Frozen {
		return nil
	}
	t, ok := registry.Lookup(c.cache, registry.Templates, v.Value.Template)
	if !ok || t.Value.Loading != versionID {
		return nil
	}
	ctx, done, there := c.startLoad(ctx, versionID)
	if there != nil {
		select {
		case <-there:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	defer done()
	source := database.Source{Dir: t.Value.Dir}
	switch v.Value.Source {
	case dayfly.SourceDump:
		return c.failed(ctx, v.Value, "the server ended while the dump was being loaded: send it again")
	case dayfly.SourceURL:
		address, err := c.vault.Unseal(t.Value.URL)
		if err != nil {
			return c.failed(ctx, v.Value, err.Error())
		}
		source.URL = address.Reveal()
	}
	err := c.load(ctx, v.Value, source)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if dayfly.ErrorCode(err) == dayfly.CodeUnavailable {
		return err // the state does not answer
	}
	return nil // the template says what happened
}

// load makes a version and writes what came of it.
func (c *Control) load(ctx context.Context, v dayfly.TemplateVersion, source database.Source) error {
	t, ok := registry.Lookup(c.cache, registry.Templates, v.Template)
	if !ok {
		return dayfly.Errorf(dayfly.CodeNotFound, "template %s was deleted", v.Template)
	}
	name := v.Template
	if t.Value.Internal {
		name = "app"
	}
	made, err := c.databases.Load(ctx, database.Load{
		ID: v.ID, Database: name, Source: source, Mask: t.Value.Mask, Fixtures: t.Value.Fixtures,
		Progress: func(p database.Progress) {
			c.loadsMu.Lock()
			defer c.loadsMu.Unlock()
			if l := c.loads[v.ID]; l != nil {
				l.progress = &dayfly.TemplateProgress{Step: p.Step, Bytes: p.Bytes, Total: p.Total}
			}
		},
	})
	if err != nil {
		switch {
		case errors.Is(context.Cause(ctx), errTemplateDeleted):
			return dayfly.Errorf(dayfly.CodeConflict, "template %s was deleted while it was being loaded", v.Template)
		case ctx.Err() != nil && source.Dump == nil:
			return ctx.Err() // it is made again by the next life of the server
		case ctx.Err() != nil:
			err = dayfly.Errorf(dayfly.CodeFailed, "whoever sent the dump went away: send it again")
		}
		// What is wrong with a source is not our own fault.
		message := err.Error()
		if code := dayfly.ErrorCode(err); code == dayfly.CodeInternal {
			c.log.Warn("a template could not be loaded", "template", v.Template, "error", err)
			err = &dayfly.Error{Code: dayfly.CodeFailed, Message: message, Err: err}
		}
		return errors.Join(err, c.failed(context.WithoutCancel(ctx), v, message))
	}
	v.Frozen, v.Engine, v.EngineVersion, v.Database = true, made.Engine, made.Version, made.Database
	v.Driver, v.Bytes, v.FrozenAt = made.Driver, made.Bytes, made.FrozenAt
	err = c.concluded(context.WithoutCancel(ctx), v, func(t *dayfly.TemplateRecord) []registry.Op {
		t.Current, t.Loading, t.Problem = v.ID, "", ""
		return []registry.Op{registry.Put(registry.TemplateVersions, v.ID, v)}
	})
	if err == nil {
		c.databases.Reserve(c.newClone(v.ID)) // whoever loads one is about to use it
	}
	return err
}

// failed writes why a version could not be made.
func (c *Control) failed(ctx context.Context, v dayfly.TemplateVersion, problem string) error {
	return c.concluded(ctx, v, func(t *dayfly.TemplateRecord) []registry.Op {
		t.Loading, t.Problem = "", problem
		return nil
	})
}

// concluded writes what came of a version that was being made. A template that is gone has nothing of it.
func (c *Control) concluded(ctx context.Context, v dayfly.TemplateVersion, change func(*dayfly.TemplateRecord) []registry.Op) error {
	for attempt := 0; ; attempt++ {
		fresh, err := registry.Get(ctx, c.store, registry.Templates, v.Template)
		if dayfly.ErrorCode(err) == dayfly.CodeNotFound || err == nil && (fresh.Value.ID != v.TemplateID || fresh.Value.Loading != v.ID) {
			return dayfly.Errorf(dayfly.CodeConflict, "template %s was deleted while it was being loaded", v.Template)
		}
		if err != nil {
			return err
		}
		rec := fresh.Value
		ops := change(&rec)
		err = c.commit(ctx, append(ops, registry.Update(registry.Templates, v.Template, rec, fresh.Revision))...)
		if dayfly.ErrorCode(err) != dayfly.CodeConflict || attempt == 5 {
			return err
		}
	}
}

// RefreshTemplate makes the next version of a template, while databases made from others live on. A template from
// a dump needs a new one.
func (c *Control) RefreshTemplate(ctx context.Context, name string, dump io.Reader, size int64) (dayfly.Template, error) {
	none := dayfly.Template{}
	if _, err := c.keeper(); err != nil {
		return none, err
	}
	t, err := c.templateRecord(name)
	if err != nil {
		return none, err
	}
	rec := t.Value
	switch {
	case rec.Loading != "":
		return none, dayfly.Errorf(dayfly.CodeConflict, "template %s is being loaded already: wait until that has ended", t.Key)
	case rec.Source == dayfly.SourceDump && dump == nil:
		return none, dayfly.Invalid(dayfly.Problem{Field: "dump", Message: "template " + t.Key + " was made from a dump: give a new one (--from-dump)"})
	case rec.Source != dayfly.SourceDump && dump != nil:
		return none, dayfly.Invalid(dayfly.Problem{Field: "dump", Message: "template " + t.Key + " was not made from a dump, but from " + rec.Source + ": refresh it without one"})
	}
	return c.begin(ctx, rec, dump, size, func(rec dayfly.TemplateRecord) registry.Op {
		return registry.Update(registry.Templates, t.Key, rec, t.Revision)
	})
}

// DeleteTemplate takes a template away. One that databases were made from stays.
func (c *Control) DeleteTemplate(ctx context.Context, name string) error {
	t, err := c.templateRecord(name)
	if err != nil {
		return err
	}
	var names []string
	for d := range registry.DatabasesFromTemplate(c.cache, t.Key) {
		names = append(names, d.Key)
	}
	if len(names) > 0 {
		return dayfly.Errorf(dayfly.CodeConflict, "databases were made from template %s: %s: delete them first", t.Key, strings.Join(names, ", "))
	}
	err = c.commit(ctx, registry.DeleteIf(registry.Templates, t.Key, t.Revision))
	if dayfly.ErrorCode(err) == dayfly.CodeConflict {
		return dayfly.Errorf(dayfly.CodeConflict, "template %s was changed meanwhile: look at it again", t.Key)
	}
	if err != nil {
		return err
	}
	c.StopLoad(t.Value.Loading)
	return nil
}

// StopLoad ends the making of a version that nobody wants any more.
func (c *Control) StopLoad(versionID string) {
	c.loadsMu.Lock()
	defer c.loadsMu.Unlock()
	if l := c.loads[versionID]; l != nil {
		l.cancel(errTemplateDeleted)
	}
}

// templateRecord finds a template by its name or id.
func (c *Control) templateRecord(nameOrID string) (registry.Record[dayfly.TemplateRecord], error) {
	if t, ok := registry.Lookup(c.cache, registry.Templates, nameOrID); ok {
		return t, nil
	}
	if t, ok := registry.TemplateByID(c.cache, nameOrID); ok && nameOrID != "" {
		return t, nil
	}
	return registry.Record[dayfly.TemplateRecord]{}, dayfly.Errorf(dayfly.CodeNotFound,
		"there is no template %q: `dayfly template create %s --from-dump FILE` makes one", nameOrID, nameOrID)
}

// templateOrOnly finds a template; "" = the only one there is.
func (c *Control) templateOrOnly(name string) (registry.Record[dayfly.TemplateRecord], error) {
	if name != "" {
		return c.templateRecord(name)
	}
	var all, failed []registry.Record[dayfly.TemplateRecord]
	var names []string
	for t := range registry.All(c.cache, registry.Templates) {
		switch {
		case t.Value.Internal:
		case t.Value.Current == "" && t.Value.Loading == "":
			failed = append(failed, t)
		default:
			all, names = append(all, t), append(names, t.Key)
		}
	}
	if len(all) == 0 && len(failed) == 1 {
		return failed[0], nil
	}
	switch len(all) {
	case 0:
		return registry.Record[dayfly.TemplateRecord]{}, dayfly.Errorf(dayfly.CodeNotFound,
			"there is no template yet: `dayfly template create NAME --from-dump FILE` makes one")
	case 1:
		return all[0], nil
	}
	return registry.Record[dayfly.TemplateRecord]{}, dayfly.Invalid(dayfly.Problem{Field: "template", Message: "say which one: " + strings.Join(names, ", ")})
}

// Template gives a template by its name or id.
func (c *Control) Template(_ context.Context, nameOrID string) (dayfly.Template, error) {
	t, err := c.templateRecord(nameOrID)
	if err != nil {
		return dayfly.Template{}, err
	}
	return c.viewTemplate(t), nil
}

// Templates lists templates in the order of their names.
func (c *Control) Templates(context.Context) ([]dayfly.Template, error) {
	list := []dayfly.Template{}
	for t := range registry.All(c.cache, registry.Templates) {
		if !t.Value.Internal {
			list = append(list, c.viewTemplate(t))
		}
	}
	return list, nil
}

// viewTemplate puts together what the API answers about a template.
func (c *Control) viewTemplate(r registry.Record[dayfly.TemplateRecord]) dayfly.Template {
	rec := r.Value
	t := dayfly.Template{
		ID: rec.ID, Name: r.Key, Status: dayfly.TemplateReady, Message: rec.Problem, Source: rec.Source,
		Refreshing: rec.Loading != "" && rec.Current != "", Databases: []string{}, CreatedAt: rec.CreatedAt, Revision: r.Revision,
	}
	switch {
	case rec.Current != "":
	case rec.Loading != "":
		t.Status = dayfly.TemplateLoading
	default:
		t.Status = dayfly.TemplateFailed
	}
	if v, ok := registry.Lookup(c.cache, registry.TemplateVersions, rec.Current); ok && rec.Current != "" {
		size, frozen := v.Value.Bytes, v.Value.FrozenAt
		t.Version, t.Engine, t.EngineVersion, t.Database = v.Value.Number, v.Value.Engine, v.Value.EngineVersion, v.Value.Database
		t.Driver, t.SizeBytes, t.RefreshedAt = v.Value.Driver, &size, &frozen
	}
	for d := range registry.DatabasesFromTemplate(c.cache, r.Key) {
		t.Databases = append(t.Databases, d.Key)
	}
	slices.Sort(t.Databases)
	c.loadsMu.Lock()
	defer c.loadsMu.Unlock()
	if l := c.loads[rec.Loading]; l != nil && l.progress != nil {
		p := *l.progress
		t.Progress = &p
	}
	return t
}

// WaitTemplate waits until done says so of a template and gives it as it is then. One that is not there,
// or goes meanwhile, is dayfly.CodeNotFound; when ctx ends it gives the template as it is and ctx's error.
func (c *Control) WaitTemplate(ctx context.Context, name string, done func(dayfly.Template) bool) (dayfly.Template, error) {
	t, err := c.Template(ctx, name)
	if err != nil {
		return t, err
	}
	return wait(ctx, &c.hub, hubTemplate(t.Name), func() (dayfly.Template, error) { return c.Template(ctx, t.ID) }, done)
}

// emptyTemplate makes the template of ours that has nothing in it, where there is none yet, and gives it a
// moment: it takes no longer than an environment does to be resolved.
func (c *Control) emptyTemplate(ctx context.Context) error {
	t, ok := registry.Lookup(c.cache, registry.Templates, dayfly.EmptyTemplate)
	if ok && (t.Value.Current != "" || t.Value.Loading != "" && t.Value.Problem == "") {
		return c.awaitEmpty(ctx)
	}
	rec := dayfly.TemplateRecord{Format: dayfly.Format, ID: dayfly.NewID(), Name: dayfly.EmptyTemplate, Source: dayfly.SourceEmpty, Internal: true, CreatedAt: c.now()}
	op := func(rec dayfly.TemplateRecord) registry.Op {
		return registry.Create(registry.Templates, rec.Name, rec)
	}
	if ok {
		rec.ID, rec.Numbers = t.Value.ID, t.Value.Numbers
		op = func(rec dayfly.TemplateRecord) registry.Op {
			return registry.Update(registry.Templates, rec.Name, rec, t.Revision)
		}
	}
	if _, err := c.begin(ctx, rec, nil, 0, op); err != nil && dayfly.ErrorCode(err) != dayfly.CodeConflict {
		return err
	}
	return c.awaitEmpty(ctx)
}

// emptyPatience is how long an environment waits for the empty template before it says that it waits.
const emptyPatience = 10 * time.Second

func (c *Control) awaitEmpty(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, emptyPatience)
	defer cancel()
	_, err := c.WaitTemplate(wait, dayfly.EmptyTemplate, dayfly.Template.Settled)
	if err != nil && ctx.Err() == nil {
		return nil // what it waits for then is told
	}
	return err
}

// ForgetTemplates deletes all templates, ours as well, and waits until nothing of them is left.
func (c *Control) ForgetTemplates(ctx context.Context) error {
	var all error
	for t := range registry.All(c.cache, registry.Templates) {
		if err := c.DeleteTemplate(ctx, t.Key); err != nil && dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			all = errors.Join(all, err)
		}
	}
	if all != nil {
		return all
	}
	changed, stop := c.hub.listen(hubVersions)
	defer stop()
	for registry.Len(c.cache, registry.TemplateVersions) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
	return nil
}

// tooLarge says that a file is too large to be kept in the state.
func tooLarge(field string, n int) dayfly.Problem {
	return dayfly.Problem{Field: field, Message: fmt.Sprintf("has %d bytes, and %d are allowed: load it as a dump instead (--from-dump)", n, dayfly.MaxScript)}
}
