package route

import (
	"context"
	"slices"
	"sync/atomic"
)

// deployment has the instances that claims choose from. It is made by the first
// who speaks of it, an environment or SetDeployment, and outlives changes of
// both. All but current is guarded by Table.mu.
type deployment struct {
	id      string
	current atomic.Pointer[[]*instance] // the slice is never changed

	refs     int         // targets that lead here
	set      bool        // by SetDeployment, Drain or Cut, until DeleteDeployment
	draining bool        // all instances, also those to come
	leaving  []*instance // not in current, but in use, or to be remembered as draining; oldest first
	past     uint64      // claims of instances that are forgotten
}

// remembered is how many instances of a deployment are remembered as draining
// once nobody uses or lists them: enough for whoever lists them late.
const remembered = 64

func (d *deployment) instances() []*instance {
	if list := d.current.Load(); list != nil {
		return *list
	}
	return nil
}

// SetDeployment gives the instances of a deployment that take requests, in place
// of those before. An instance that stays (same id and address) keeps its
// in-flight count, its ejection and its draining. Claims of one that goes stay
// valid. Endpoints without an address are left out. What is set is kept until
// DeleteDeployment.
func (t *Table) SetDeployment(id string, endpoints []Endpoint) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.deployment(id)
	d.set = true

	known := make(map[Endpoint]*instance, len(endpoints))
	drained := map[string]bool{}
	before := slices.Concat(d.leaving, d.instances())
	for _, i := range before {
		known[Endpoint{i.id, i.address}] = i
		if i.draining() {
			drained[i.id] = true
		}
	}
	list := make([]*instance, 0, len(endpoints))
	stays := make(map[*instance]bool, len(endpoints))
	for _, e := range endpoints {
		i := known[e]
		switch {
		case e.Address == "" || stays[i]:
			continue
		case i == nil:
			i = newInstance(e)
			known[e] = i
			if d.draining || drained[e.Instance] {
				i.state.Or(draining)
			}
		}
		stays[i] = true
		i.state.And(^absent)
		list = append(list, i)
	}
	d.current.Store(&list)
	d.leaving = slices.DeleteFunc(before, func(i *instance) bool { return stays[i] })
	for _, i := range d.leaving {
		i.state.Or(absent)
	}
	d.forget()
}

// forget drops instances that nobody will ask for any more. All of leaving is
// absent, so one without claims gets none later.
func (d *deployment) forget() {
	marks := 0
	for _, i := range slices.Backward(d.leaving) { // the newest marks are kept
		if i.inFlight() > 0 {
			continue
		}
		if i.draining() && marks < remembered {
			marks++
			continue
		}
		i.forgotten = true
		d.past += i.total.Load()
	}
	d.leaving = slices.DeleteFunc(d.leaving, func(i *instance) bool { return i.forgotten })
	if len(d.leaving) == 0 {
		d.leaving = nil
	}
}

// DeleteDeployment forgets a deployment with its instances and what was drained
// of it. Claims of them stay valid, but no later Drain waits for them. An unknown
// id is no error.
func (t *Table) DeleteDeployment(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.deployments[id]
	if d == nil {
		return
	}
	list := d.instances()
	d.current.Store(nil)
	for _, i := range list {
		i.state.Or(absent)
	}
	d.set, d.draining, d.leaving, d.past = false, false, nil, 0
	t.release(d, 0)
}

// Drain lets no new request on an instance, or with instance "" on any of the
// deployment, and returns when none is in flight: nobody is on it then, and
// nobody will be. When ctx ends before, it gives ctx's error, and still no new
// request gets there. Draining is never undone: it outlives SetDeployment, also
// one that lists the instance for the first time; only DeleteDeployment forgets
// it, and must be called for every deployment that was drained.
func (t *Table) Drain(ctx context.Context, deployment, instance string) error {
	for _, i := range t.shut(deployment, instance, false) {
		if err := i.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Cut lets no new request on an instance, or with instance "" on any of the
// deployment, and tells those who have claims of it to end (see Claim.Cut).
func (t *Table) Cut(deployment, instance string) {
	t.shut(deployment, instance, true)
}

// shut sets instances of a deployment draining and gives them.
func (t *Table) shut(deployment, id string, cut bool) []*instance {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.deployment(deployment)
	d.set = true
	if id == "" {
		d.draining = true
	}
	var shut []*instance
	for _, i := range slices.Concat(d.leaving, d.instances()) {
		if id != "" && i.id != id {
			continue
		}
		i.state.Or(draining)
		if cut {
			i.cutOff()
		}
		shut = append(shut, i)
	}
	if id != "" && len(shut) == 0 { // it may be listed later
		i := newInstance(Endpoint{Instance: id})
		i.state.Or(closed)
		d.leaving = append(d.leaving, i)
		d.forget()
	}
	return shut
}

// Stats gives how many requests are in flight on a deployment and how many there
// were since it was set.
func (t *Table) Stats(deployment string) (inFlight int, total uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.deployments[deployment]
	if d == nil {
		return 0, 0
	}
	total = d.past
	for _, list := range [][]*instance{d.leaving, d.instances()} {
		for _, i := range list {
			inFlight += i.inFlight()
			total += i.total.Load()
		}
	}
	return inFlight, total
}

// deployment gives the deployment of this id and makes it where there is none.
func (t *Table) deployment(id string) *deployment {
	d := t.deployments[id]
	if d == nil {
		d = &deployment{id: id}
		t.deployments[id] = d
	}
	return d
}

// release gives back n references to d and drops it when nobody knows it any
// more.
func (t *Table) release(d *deployment, n int) {
	if d.refs -= n; d.refs == 0 && !d.set {
		delete(t.deployments, d.id)
	}
}

// link gives the services of env their targets.
func (t *Table) link(env *environment, services []Service) {
	for _, s := range services {
		to := env.find([]byte(lower(s.Name)))
		to.targets = make([]target, len(s.Targets))
		for i, from := range s.Targets {
			d := t.deployment(from.Deployment)
			d.refs++
			to.targets[i] = target{d, from.Version, uint64(from.Weight)}
			to.weight += uint64(from.Weight)
		}
	}
}

// unlink gives back the targets of env, which may be nil.
func (t *Table) unlink(env *environment) {
	if env == nil {
		return
	}
	for i := range env.services {
		for _, target := range env.services[i].targets {
			t.release(target.deployment, 1)
		}
	}
}
