//go:build linux

package torture

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// networks counts those that were made, for names of their own.
var networks atomic.Int32

// runs runs a program that has to succeed.
func runs(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// far is an etcd in a network of its own, which is reached through two cables.
type far struct {
	*member
	cables    [2]string // names of the near ends
	addresses [2]string // of clients, one for each cable
}

// newFar makes one, or skips where that cannot be.
func newFar(l *life) *far {
	l.Helper()
	if os.Geteuid() != 0 {
		l.Skip("only root can make a network of its own")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		l.Skip("there is no ip (iproute2) to make a network with")
	}
	number := os.Getpid()*8 + int(networks.Add(1))
	name := fmt.Sprintf("dayfly-torture-%d", number)
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		l.Skipf("no network can be made here: %v: %s", err, out)
	}
	f := &far{member: newMember(l.T, filepath.Join(l.dir, "etcd"))}
	// Its members are asked at an address of its own: nothing else is there.
	f.options = []string{"-members", "alone=http://127.0.0.1:2380"}
	f.program = slices.Concat([]string{"ip", "netns", "exec", name}, f.program)
	// This comes before the cleanup that newMember asked for, so it kills as well.
	l.Cleanup(func() {
		f.kill()
		runs(l.T, "ip", "netns", "delete", name)
	})
	runs(l.T, "ip", "-n", name, "link", "set", "lo", "up")
	for i := range f.cables {
		near, end := fmt.Sprintf("dft%d.%d", number, i), fmt.Sprintf("end%d", i)
		// A network for tests of networks (RFC 2544), in parts of four addresses.
		part := (number*2 + i) % (1 << 14)
		prefix := fmt.Sprintf("198.18.%d.", part>>6)
		ours, theirs := fmt.Sprint(prefix, part&63*4+1), fmt.Sprint(prefix, part&63*4+2)
		runs(l.T, "ip", "link", "add", near, "type", "veth", "peer", "name", end, "netns", name)
		runs(l.T, "ip", "address", "add", ours+"/30", "dev", near)
		runs(l.T, "ip", "link", "set", near, "up")
		runs(l.T, "ip", "-n", name, "address", "add", theirs+"/30", "dev", end)
		runs(l.T, "ip", "-n", name, "link", "set", end, "up")
		f.cables[i], f.addresses[i] = near, theirs+":2379"
	}
	f.flagged = strings.Join(f.addresses[:], ",")
	f.start()
	return f
}

// cut takes the first cable out.
func (f *far) cut() { f.Helper(); runs(f.T, "ip", "link", "set", f.cables[0], "down") }

// mend puts it in again.
func (f *far) mend() { f.Helper(); runs(f.T, "ip", "link", "set", f.cables[0], "up") }

// gated adds a branch whose builds say that they have begun, and go on when pass is called.
func (l *life) gated(branch string) (begun func(), pass func()) {
	l.Helper()
	gate := filepath.Join(l.dir, "gate")
	if err := os.WriteFile(filepath.Join(l.repo, "gated.sh"), fmt.Appendf(nil,
		"touch %[1]s.seen\nuntil test -e %[1]s; do sleep 0.05; done\ncp VERSION BUILT\n", gate), 0o644); err != nil {
		l.Fatal(err)
	}
	path := filepath.Join(l.repo, "compose.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		l.Fatal(err)
	}
	git(l.T, l.repo, "checkout", "-q", "-b", branch)
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "build: cp VERSION BUILT", "build: sh gated.sh")), 0o644); err != nil {
		l.Fatal(err)
	}
	git(l.T, l.repo, "add", ".")
	git(l.T, l.repo, "commit", "-qm", "gated")
	git(l.T, l.repo, "checkout", "-q", "main")
	return func() {
			l.Helper()
			l.until("building", func() string {
				if _, err := os.Stat(gate + ".seen"); err != nil {
					return err.Error()
				}
				return ""
			})
		}, func() {
			if err := os.WriteFile(gate, nil, 0o644); err != nil {
				l.Fatal(err)
			}
		}
}

// runOut waits until etcd has given up these leases.
func (l *life) runOut(c *clientv3.Client, old []clientv3.LeaseID) {
	l.Helper()
	if len(old) == 0 {
		l.Fatal("there is no lease that could run out")
	}
	l.until("all leases have run out", func() string {
		for _, id := range leases(l, c) {
			if slices.Contains(old, id) {
				return fmt.Sprintf("lease %x is there", id)
			}
		}
		return ""
	})
}

// A watch that was interrupted cannot go on where it was.
func compactedWhileCutOff(l *life) string {
	etcd := newFar(l)
	c := reach(l, etcd.addresses[1])
	l.etcd = etcd.addresses[0]
	other := l.another(etcd.addresses[1])
	l.start(fate{})
	untouched := l.settle()
	l.create("leaving", "main", 0)
	l.answers("leaving", "1")
	other.start(fate{})
	other.ready()
	visits := l.visit("untouched")

	etcd.cut()
	l.lost()
	other.changes()
	revision := compact(l, c)
	l.more(visits)

	etcd.mend()
	l.ready()
	l.answers("coming", "1")
	l.answers("changing", "2")
	other.gone("leaving")
	l.gone("leaving")
	n := l.end(visits)
	l.finish(untouched, 5, 18, "changing", "coming", "untouched")
	return fmt.Sprintf("5 changes by a second server and compaction at revision %d; %d requests through both, 0 failed", revision, n)
}

// The only server is away for so long that etcd has forgotten it, while an environment is
// being built and a branch moves.
func cutOffForLong(l *life) string {
	etcd := newFar(l)
	c := reach(l, etcd.addresses[1])
	l.etcd = etcd.addresses[0]
	building, pass := l.gated("gated")
	l.start(fate{})
	untouched := l.settle()
	visits := l.visit("untouched")
	l.create("coming", "gated", 0)
	building()
	old := leases(l, c)

	etcd.cut()
	l.lost()
	l.refused("does not answer")
	commit(l.T, l.repo, "feature", "2")
	pass()
	l.runOut(c, old)
	l.more(visits)

	etcd.mend()
	l.ready()
	l.answers("coming", "1")
	l.answers("changing", "2")
	n := l.end(visits)
	l.finish(untouched, 3, 12, "changing", "coming", "untouched")
	return fmt.Sprintf("%d leases ran out during a build and a commit; %d requests, 0 failed", len(old), n)
}

// The other server takes over meanwhile, and both have to agree afterwards.
func oneOfTwoCutOff(l *life) string {
	etcd := newFar(l)
	c := reach(l, etcd.addresses[1])
	l.etcd = etcd.addresses[0]
	building, pass := l.gated("gated")
	other := l.another(etcd.addresses[1])
	l.start(fate{})
	untouched := l.settle()
	l.create("leaving", "main", 0)
	l.answers("leaving", "1")
	old := leases(l, c)
	other.start(fate{})
	other.ready()
	visits := l.visit("untouched")
	l.create("coming", "gated", 0)
	building()

	etcd.cut()
	l.lost()
	l.refused("does not answer")
	other.delete("leaving")
	commit(l.T, l.repo, "feature", "2")
	pass()
	l.runOut(c, old)
	other.create("others", "main", 0)
	other.answers("others", "1")
	other.answers("changing", "2")
	l.more(visits)

	etcd.mend()
	l.ready()
	for _, server := range l.all() {
		server.answers("coming", "1")
		server.answers("others", "1")
		server.answers("changing", "2")
		server.gone("leaving")
	}
	n := l.end(visits)
	l.finish(untouched, 5, 18, "changing", "coming", "others", "untouched")
	return fmt.Sprintf("%d leases ran out, the other server created, updated and deleted; %d requests through both, 0 failed", len(old), n)
}
