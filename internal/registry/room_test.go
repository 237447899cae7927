package registry_test

import (
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// noRoom has an etcd refuse everything that needs room, until the alarm is disarmed.
func noRoom(t *testing.T, p *process) *clientv3.Client {
	t.Helper()
	client := p.client(t)
	status, err := client.Status(t.Context(), p.address)
	if err != nil {
		t.Fatal(err)
	}
	_, err = etcdserverpb.NewMaintenanceClient(client.ActiveConnection()).Alarm(t.Context(), &etcdserverpb.AlarmRequest{
		Action: etcdserverpb.AlarmRequest_ACTIVATE, MemberID: status.Header.MemberId, Alarm: etcdserverpb.AlarmType_NOSPACE,
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestAServerBeginsWhereEtcdHasNoRoomAndIsKnownToOthersWhenItHas(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	before := open(t, registry.Config{Endpoints: []string{p.address}})
	commit(t, before, registry.Put(registry.Hosts, "known", host("known")))
	client := noRoom(t, p)

	s := open(t, registry.Config{Endpoints: []string{p.address}})
	if s.ClusterID() != before.ClusterID() {
		t.Errorf("belongs to %s, not %s", s.ClusterID(), before.ClusterID())
	}
	c := startCache(t, s)
	if _, ok := registry.Lookup(c, registry.Hosts, "known"); !ok {
		t.Error("does not know what is there")
	}
	node := registry.Node{ID: "n1", StartedAt: time.Unix(1, 0).UTC()}
	m, err := s.Join(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Commit(t.Context(), s, registry.Create(registry.Hosts, "more", host("more"))); dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !strings.Contains(err.Error(), "space quota") {
		t.Errorf("a change is answered with %v", err)
	}
	if _, ok := registry.Lookup(c, registry.Nodes, "n1"); ok {
		t.Error("the node is known although nothing can be written")
	}

	if _, err := client.AlarmDisarm(t.Context(), &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node is known", func() bool { _, ok := registry.Lookup(c, registry.Nodes, "n1"); return ok })
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestANodeThatNobodyCouldBeToldOfLeavesAtOnce(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	before := open(t, registry.Config{Endpoints: []string{p.address}})
	noRoom(t, p)
	m, err := before.Join(t.Context(), registry.Node{ID: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
