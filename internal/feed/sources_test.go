package feed_test

import (
	"net/netip"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

func (w *world) source(addr string) string {
	s := w.table.Source(netip.MustParseAddr(addr))
	return s.Environment + "/" + s.Service
}

func TestAnAddressTellsTheEnvironmentThatHasItForItself(t *testing.T) {
	w := start(t)
	const at = "10.9.0.5"
	step := func(what, want string) {
		t.Helper()
		if got := w.source(at); got != want {
			t.Errorf("%s: calls from %s are %q's, want %q", what, at, got, want)
		}
	}
	step("nobody", "/")
	web := w.registerAt(at+":80", "a", "web", "v1", "1")
	step("one", "a/web")
	w.registerAt(at+":81", "a", "api", "v1", "1")
	step("two services of it", "a/")
	other := w.registerAt(at+":82", "b", "api", "v1", "2")
	step("two environments", "/")
	w.deregister(other)
	step("one of them has gone", "a/")
	pool := w.registerAt(at+":82", "", "api", "v1", "2")
	step("somebody who is of no environment", "/")
	w.deregister(pool)
	w.deregister(web)
	step("one is left", "a/api")
	api := w.registerAt("10.9.0.6:80", "a", "api", "v1", "1")
	step("it has moved", "/")
	if got := w.source("10.9.0.6"); got != "a/api" {
		t.Errorf("where it moved to: %q", got)
	}
	w.deregister(api)
	if got := w.source("10.9.0.6"); got != "/" {
		t.Errorf("after the end: %q", got)
	}
	for _, shared := range []string{"127.0.0.1", "127.5.5.5", "0.0.0.0"} {
		r := w.registerAt(shared+":80", "a", "web", "v1", "1")
		if got := w.source(shared); got != "/" {
			t.Errorf("whoever calls from %s is %q", shared, got)
		}
		w.deregister(r)
	}
}

func TestInstancesWithAddressesOfTheirOwnTellTheirEnvironment(t *testing.T) {
	w := start(t)
	w.commit(creation("main")...)
	at := func(id, ip string, phase dayfly.InstancePhase) registry.Op {
		return registry.Put(registry.Observed, id, dayfly.DeploymentStatus{Deployment: id, Instances: []dayfly.Instance{{ID: id, Address: ip + ":3000", Phase: phase}}})
	}
	w.commit(deployment("main", "web", "v1")...)
	w.commit(at("web@v1", "10.1.0.2", dayfly.InstanceStarting))
	if got := w.source("10.1.0.2"); got != "main/web" {
		t.Errorf("one that starts is %q", got)
	}
	shared := dayfly.Deployment{ID: "shared", Key: dayfly.DeploymentKey{Service: "api", Owner: dayfly.SharedOwner("shop")}}
	w.commit(registry.Create(registry.Deployments, "shared", shared))
	w.commit(at("shared", "10.1.0.3", dayfly.InstanceHealthy))
	if got := w.source("10.1.0.3"); got != "/" {
		t.Errorf("one that environments share is %q", got)
	}
	w.commit(at("web@v1", "10.1.0.2", dayfly.InstanceExited))
	if got := w.source("10.1.0.2"); got != "/" {
		t.Errorf("one that has ended is %q", got)
	}
	w.commit(at("web@v1", "10.1.0.2", dayfly.InstanceHealthy))
	d, _ := registry.Lookup(w.cache, registry.Deployments, "web@v1")
	w.commit(registry.Delete(registry.Deployments, d.Key), registry.Delete(registry.Observed, d.Key))
	if got := w.source("10.1.0.2"); got != "/" {
		t.Errorf("what is gone is %q", got)
	}
}
