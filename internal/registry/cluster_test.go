package registry_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// freeAddresses gives addresses of this machine that nobody uses.
func freeAddresses(t *testing.T, n int) []string {
	t.Helper()
	var list []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		list = append(list, l.Addr().String())
	}
	return list
}

// startMembers starts an etcd of three members.
func startMembers(t *testing.T) []*process {
	t.Helper()
	clients, peers := freeAddresses(t, 3), freeAddresses(t, 3)
	var cluster []string
	for i, peer := range peers {
		cluster = append(cluster, fmt.Sprintf("m%d=http://%s", i, peer))
	}
	var members []*process
	for i, client := range clients {
		m := &process{dir: t.TempDir(), address: client, peers: strings.Join(cluster, ","), name: fmt.Sprintf("m%d", i)}
		m.start(t)
		t.Cleanup(func() { m.kill(t) })
		members = append(members, m)
	}
	return members
}

func leader(t *testing.T, members []*process) int {
	t.Helper()
	found := -1
	eventually(t, "there is a leader", func() bool {
		found = slices.IndexFunc(members, func(m *process) bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			status, err := m.client(t).Status(ctx, m.address)
			return err == nil && status.Leader != 0 && status.Leader == status.Header.MemberId
		})
		return found >= 0
	})
	return found
}

func TestAClusterThatLosesItsLeaderGoesOnAndOneWithoutAMajorityIsAway(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts three servers")
	}
	members := startMembers(t)
	first := leader(t, members)
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, m.address)
	}
	s := open(t, registry.Config{Endpoints: endpoints, Timeout: 2 * time.Second})
	c := startCache(t, s)
	told := changes(t, c)
	var want []registry.Change
	put := func(key string) {
		t.Helper()
		var revision int64
		eventually(t, key+" is written", func() bool {
			r, err := registry.Commit(context.Background(), s, registry.Create(registry.Hosts, key, host(key)))
			if dayfly.ErrorCode(err) == dayfly.CodeConflict { // an earlier try, whose answer was lost
				var got registry.Record[registry.HostClaim]
				got, err = registry.Get(context.Background(), s, registry.Hosts, key)
				r = got.Revision
			}
			revision = r
			return err == nil
		})
		want = append(want, registry.Change{Kind: "host", Key: key, Revision: revision})
		eventually(t, "the cache is current", func() bool { return c.Revision() >= revision && c.Healthy() })
	}
	put("a")
	members[first].kill(t)
	put("b")

	second := (first + 1) % 3
	members[second].kill(t)
	eventually(t, "the loss is noticed", func() bool { return !c.Healthy() })
	if _, err := registry.Commit(t.Context(), s, registry.Put(registry.Hosts, "x", host("x"))); dayfly.ErrorCode(err) != dayfly.CodeUnavailable {
		t.Errorf("without a majority: %v", err)
	}
	if _, ok := registry.Lookup(c, registry.Hosts, "b"); !ok {
		t.Error("does not answer without a majority")
	}
	members[first].start(t)
	put("c")
	eventually(t, "all told", func() bool {
		return slices.ContainsFunc(told.all(), func(change registry.Change) bool { return change.Key == "c" })
	})
	// What was refused for want of a majority may have been written nevertheless.
	got := slices.DeleteFunc(told.all(), func(change registry.Change) bool { return change.Key == "x" })
	if !slices.Equal(got, want) {
		t.Errorf("told %v\nwant %v", got, want)
	}
}
