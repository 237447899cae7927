//go:build linux

package torture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dayfly-dev/dayfly"
)

// One member after the other is lost and comes back while environments come and go. At
// last two are lost at once, and nothing can be changed until one of them is back.
func oneOfThreeLost(l *life) string {
	var members []*member
	var names, clients []string
	for i := range 3 {
		names = append(names, fmt.Sprintf("m%d=http://%s", i, freeAddress(l.T)))
	}
	for i := range names {
		m := newMember(l.T, filepath.Join(l.dir, fmt.Sprint("etcd", i)), "-name", fmt.Sprint("m", i), "-members", strings.Join(names, ","))
		m.start()
		members, clients = append(members, m), append(clients, m.address)
	}
	// The leader first: what the others pass on to it is lost with it.
	c := reach(l, clients...)
	leads := func(m *member) bool {
		status, err := c.Status(l.Context(), m.address)
		return err == nil && status.Leader == status.Header.MemberId
	}
	first := slices.IndexFunc(members, leads)
	if first < 0 {
		l.Fatal("no member leads")
	}
	members[0], members[first] = members[first], members[0]
	l.etcd = strings.Join(clients, ",")
	l.start(fate{})
	untouched := l.settle()
	visits := l.visit("untouched")
	last := "changing"
	rounds := members
	if !*long {
		rounds = members[:1]
	}
	for i, m := range rounds {
		m.kill()
		next := fmt.Sprint("round", i)
		// At the first try: two members are enough for everything.
		if _, _, err := l.client.CreateEnvironment(l.Context(), dayfly.EnvironmentRequest{
			Repo: l.repo, Spec: dayfly.EnvironmentSpec{Name: next, Branch: "main"},
		}); err != nil {
			l.Errorf("with two of three members: create %s: %v", next, err)
		}
		if _, err := l.client.DeleteEnvironment(l.Context(), last, false); err != nil {
			l.Errorf("with two of three members: delete %s: %v", last, err)
		}
		l.answers(next, "1")
		l.gone(last)
		l.check(next, "untouched")
		m.start()
		reach(l, m.address)
		last = next
	}
	if !*long {
		n := l.end(visits)
		l.finish(untouched, 3, 9, last, "untouched")
		return fmt.Sprintf("the leader lost during a create and a delete; %d requests, 0 failed", n)
	}
	members[0].kill()
	members[1].kill()
	l.lost()
	l.refused("does not answer")
	l.more(visits)
	members[1].start()
	l.ready()
	l.create("majority", "main", 0)
	l.answers("majority", "1")
	members[0].start()
	n := l.end(visits)
	l.finish(untouched, 6, 18, "majority", last, "untouched")
	return fmt.Sprintf("each lost in turn during a create and a delete, then two at once; %d requests, 0 failed", n)
}

// The server dies while there is nothing that it could begin from.
func diesMeanwhile(l *life) string {
	m := newMember(l.T, filepath.Join(l.dir, "etcd"))
	m.start()
	reach(l, m.address)
	l.etcd = m.address
	building, pass := l.gated("gated")
	l.start(fate{})
	untouched := l.settle()
	l.create("coming", "gated", 0)
	building()

	m.kill()
	l.lost()
	if err := l.now().Kill(); err != nil {
		l.Fatal(err)
	}
	commit(l.T, l.repo, "feature", "2")
	pass()
	l.dead(3)
	if diff := cmp.Diff(untouched, l.running("untouched"), cmp.AllowUnexported(process{})); diff != "" {
		l.Errorf("an environment does not outlive the server:\n%s", diff)
	}

	m.start()
	l.answers("coming", "1")
	l.answers("changing", "2")
	l.finish(untouched, 3, 12, "changing", "coming", "untouched")
	return fmt.Sprintf("started %d times before there was an etcd again, then adopted, built and updated", l.deaths())
}

// dead waits until the server has died so often.
func (l *life) dead(times int) {
	l.Helper()
	l.until("dead", func() string {
		if l.deaths() < times {
			return fmt.Sprint(l.deaths(), " deaths")
		}
		return ""
	})
}

// junk is what others have in the same etcd.
const junk = "/others/"

// stuff writes until etcd takes nothing more, and gives its answer.
func stuff(l *life, c *clientv3.Client) error {
	l.Helper()
	value := strings.Repeat("x", 1<<20)
	for i := range 10_000 {
		ctx, cancel := context.WithTimeout(l.Context(), 5*time.Second)
		_, err := c.Put(ctx, fmt.Sprint(junk, i), value)
		cancel()
		if err != nil {
			return err
		}
	}
	l.Fatal("etcd never has enough")
	return nil
}

// The alarm of etcd refuses all changes until somebody makes room and disarms it.
func quotaUsedUp(l *life) string {
	m := newMember(l.T, filepath.Join(l.dir, "etcd"), "-quota", fmt.Sprint(24<<20))
	m.start()
	c := reach(l, m.address)
	l.etcd = m.address
	building, pass := l.gated("gated")
	l.start(fate{})
	untouched := l.settle()
	visits := l.visit("untouched")
	l.create("coming", "gated", 0)
	building()

	if err := stuff(l, c); !errors.Is(err, rpctypes.ErrNoSpace) {
		l.Fatalf("etcd takes nothing more: %v", err)
	}
	l.refused("space quota")
	commit(l.T, l.repo, "feature", "2")
	pass()
	l.more(visits)
	// A server that begins now reads what there is, although it cannot write a word.
	n := l.end(visits)
	if err := l.now().Kill(); err != nil {
		l.Fatal(err)
	}
	l.dead(1)
	l.ready()
	l.answers("untouched", "1")
	l.refused("space quota")
	visits = l.visit("untouched")
	l.more(visits)

	if _, err := c.Delete(l.Context(), junk, clientv3.WithPrefix()); err != nil {
		l.Fatal(err)
	}
	compact(l, c)
	if _, err := c.Defragment(l.Context(), m.address); err != nil {
		l.Fatal(err)
	}
	l.refused("space quota")
	disarmed, err := c.AlarmDisarm(l.Context(), &clientv3.AlarmMember{})
	if err != nil || len(disarmed.Alarms) != 1 || disarmed.Alarms[0].Alarm != etcdserverpb.AlarmType_NOSPACE {
		l.Fatalf("disarmed %v, %v", disarmed, err)
	}
	l.answers("coming", "1")
	l.answers("changing", "2")
	n += l.end(visits)
	l.finish(untouched, 3, 12, "changing", "coming", "untouched")
	return fmt.Sprintf("refused with its reason until disarmed, also after a restart, then built and updated; %d requests, 0 failed", n)
}

// etcd ends itself when it cannot write, over and over, until there is room.
func diskFull(l *life) string {
	if os.Geteuid() != 0 {
		l.Skip("only root can mount a small disk")
	}
	image, disk := filepath.Join(l.dir, "image"), filepath.Join(l.dir, "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		l.Fatal(err)
	}
	for _, args := range [][]string{{"truncate", "-s", "128M", image}, {"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, disk}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			l.Skipf("no small disk can be mounted here: %v: %v: %s", args, err, out)
		}
	}
	l.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			l.Error(err)
		}
	})
	m := newMember(l.T, filepath.Join(disk, "etcd"))
	m.start()
	c := reach(l, m.address)
	l.etcd = m.address
	building, pass := l.gated("gated")
	l.start(fate{})
	untouched := l.settle()
	visits := l.visit("untouched")
	l.create("coming", "gated", 0)
	building()

	ballast := filepath.Join(disk, "ballast")
	fill(l, ballast)
	full := stuff(l, c)
	l.lost()
	// It takes changes for moments between its deaths. What it took must be there in the
	// end; what it died of may be.
	var taken []bool
	l.until("a change is refused", func() string {
		_, _, err := l.client.CreateEnvironment(l.Context(), dayfly.EnvironmentRequest{
			Repo: l.repo, Spec: dayfly.EnvironmentSpec{Name: fmt.Sprint("squeezed", len(taken)), Branch: "main"},
		})
		taken = append(taken, err == nil)
		switch {
		case err == nil:
			return "taken"
		case dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !strings.Contains(err.Error(), "may have been made"):
			l.Fatalf("a change that cannot be made is answered with %v", err)
		}
		return ""
	})
	commit(l.T, l.repo, "feature", "2")
	pass()
	l.more(visits)

	if err := os.Remove(ballast); err != nil {
		l.Fatal(err)
	}
	l.until("etcd is back", func() string { return refusal(l, c) })
	l.ready()
	made := 0
	for i, sure := range taken {
		name := fmt.Sprint("squeezed", i)
		_, err := l.client.Environment(l.Context(), name)
		switch {
		case err == nil:
			l.delete(name)
			l.gone(name)
			made++
		case sure || dayfly.ErrorCode(err) != dayfly.CodeNotFound:
			l.Errorf("%s was taken, and now: %v", name, err)
		}
	}
	l.answers("coming", "1")
	l.answers("changing", "2")
	n := l.end(visits)
	l.finish(untouched, 3+made, 12, "changing", "coming", "untouched")
	return fmt.Sprintf("etcd gave up (%v), came back when there was room; %d requests, 0 failed", full, n)
}

// fill writes until not a byte more is taken.
func fill(l *life, file string) {
	l.Helper()
	f, err := os.Create(file)
	if err != nil {
		l.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			l.Fatal(err)
		}
	}
}
