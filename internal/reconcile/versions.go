package reconcile

import (
	"context"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

func (d *databases) adoptTemplates(ctx context.Context) {
	for v := range registry.All(d.Cache, registry.TemplateVersions) {
		d.versions.add(v.Key)
	}
	found, err := d.Keeper.Templates(ctx)
	if err != nil {
		d.Logger.Error("the keeper's templates cannot be observed", "error", err)
	}
	for _, t := range found {
		d.left(t.ID, func() bool { _, ok := registry.Lookup(d.Cache, registry.TemplateVersions, t.ID); return ok })
		d.versions.add(t.ID)
	}
}

// version is one pass over one version of a template: it is made where that was asked for, and collected when no
// database was made from it and no new one will be.
func (d *databases) version(ctx context.Context, id string) error {
	v, ok := registry.Lookup(d.Cache, registry.TemplateVersions, id)
	if !ok {
		return d.orphanVersion(ctx, id)
	}
	if v.Value.Node != d.NodeID {
		return nil
	}
	t, ok := registry.Lookup(d.Cache, registry.Templates, v.Value.Template)
	wanted := ok && t.Value.ID == v.Value.TemplateID && (t.Value.Current == id || t.Value.Loading == id)
	if !wanted {
		for range registry.DatabasesFromVersion(d.Cache, id) {
			d.Keeper.Retire(id)
			return nil
		}
		d.Owner.StopLoad(id)
		if !d.busy(id, "forget") {
			d.start(ctx, d.versions, id, "forget", v.Revision, func(ctx context.Context) error { return d.forgetVersion(ctx, v) })
		}
		return nil
	}
	if !v.Value.Frozen && t.Value.Loading == id && !d.busy(id, "load") {
		d.start(ctx, d.versions, id, "load", v.Revision, func(ctx context.Context) error { return d.Owner.LoadTemplate(ctx, id) })
	}
	return nil
}

// forgetVersion takes a version of a template away for good.
func (d *databases) forgetVersion(ctx context.Context, v registry.Record[dayfly.TemplateVersion]) error {
	crash.Point("before Forget")
	if err := d.Keeper.Forget(ctx, v.Key); err != nil {
		return err
	}
	crash.Point("after Forget")
	revision, err := d.commit(ctx, registry.Delete(registry.TemplateVersions, v.Key))
	if err != nil {
		return err
	}
	return d.Cache.Wait(ctx, revision)
}

// orphanVersion removes a version of which there is no record.
func (d *databases) orphanVersion(ctx context.Context, id string) error {
	found, err := d.Keeper.Templates(ctx)
	if err != nil {
		return err
	}
	for _, t := range found {
		if t.ID != id || d.busy(id, "forget") {
			continue
		}
		if wait := d.grace(id); wait > 0 {
			d.versions.addAfter(id, wait)
			return nil
		}
		d.start(ctx, d.versions, id, "forget", 0, func(ctx context.Context) error { return d.Keeper.Forget(ctx, id) })
	}
	return nil
}
