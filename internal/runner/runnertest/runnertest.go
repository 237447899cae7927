// Package runnertest is the suite that every runner has to pass: each sentence of the
// contract in package runner, tried against the real thing. What a runner cannot do, by
// its Capabilities, is not asked of it.
package runnertest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/runner"
)

// Kind names what the program of a deployment does.
type Kind string

// The kinds of programs. Those with a port take connections at it.
const (
	Web       Kind = "web"        // has a port; prints "hello"; gets healthy and runs until it is stopped
	Stubborn  Kind = "stubborn"   // as Web, but ignores the stop signal; its grace is 100 ms
	Worker    Kind = "worker"     // has no port; gets healthy and runs until it is stopped
	Printer   Kind = "printer"    // as Worker; prints "line 1" to "line 50" first
	Crashing  Kind = "crashing"   // prints "giving up" and exits with 3, each time
	Job       Kind = "job"        // a job that prints "done" and exits with 0
	BadJob    Kind = "bad job"    // a job that prints "not done" and exits with 4
	BadBuild  Kind = "bad build"  // its build prints "no such thing" and fails
	SlowBuild Kind = "slow build" // as Worker, but its build takes a second
)

// Harness is what the suite needs of an implementation.
type Harness struct {
	// New makes a runner on a host, which is a name of the test's: a second
	// runner on the same host is made when the first has been closed. The
	// harness cleans up the host when the test ends.
	New func(t *testing.T, host string, hooks runner.Hooks) runner.Runner
	// Deployment makes a deployment with an id of its own.
	Deployment func(t *testing.T, kind Kind) dayfly.Deployment
	// Crash makes an instance end, unasked.
	Crash func(t *testing.T, host string, i dayfly.Instance)
	// Left lists what exists of a deployment on the host besides its logs:
	// processes, folders, records.
	Left func(t *testing.T, host, deploymentID string) []string
	// Starts counts how often instances of a deployment were started.
	Starts func(t *testing.T, host, deploymentID string) int
}

// patience is how long anything may take here. It is long, for slow machines; nothing
// waits for it when all is well.
const patience = 60 * time.Second

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		run  func(*suite)
	}{
		{"Prepare makes ready and starts nothing", prepare},
		{"a build that fails is remembered with what it printed", failingBuild},
		{"a cancelled Prepare can be repeated", cancelledPrepare},
		{"Ensure keeps as many instances as asked for", counts},
		{"Observe knows all, some and unknown deployments", observing},
		{"Changes tells whoever listens", changes},
		{"an instance that ends is replaced", crash},
		{"an instance that keeps ending is a failure that explains itself", crashLoop},
		{"a job runs once until it is asked for again", jobs},
		{"a job that fails says how", failingJob},
		{"an instance is out of rotation and drained before it is stopped", draining},
		{"an instance that does not stop is killed", stubborn},
		{"Remove leaves nothing but logs, and PruneLogs not even these", removing},
		{"Logs gives what was printed", logs},
		{"Logs follows", following},
		{"Close lets instances run, and the next runner adopts them", adoption},
		{"what ended while no runner was there is replaced", endedMeanwhile},
		{"everything may happen at once", atOnce},
		{"a closed runner refuses", closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{T: t, Harness: h, host: t.Name()}
			s.open()
			c.run(s)
		})
	}
}

// suite is one test of the suite.
type suite struct {
	*testing.T
	Harness
	host   string
	hooks  runner.Hooks
	runner runner.Runner
}

// open makes the runner; the one before has to be closed.
func (s *suite) open() {
	s.Helper()
	s.runner = s.New(s.T, s.host, s.hooks)
	s.Cleanup(func() {
		if err := s.runner.Close(); err != nil {
			s.Errorf("Close: %v", err)
		}
	})
}

// reopen makes a new runner on the same host.
func (s *suite) reopen() {
	s.Helper()
	s.close()
	s.open()
}

func (s *suite) close() {
	s.Helper()
	if err := s.runner.Close(); err != nil {
		s.Fatalf("Close: %v", err)
	}
}

func (s *suite) prepare(d dayfly.Deployment) {
	s.Helper()
	if err := s.runner.Prepare(s.Context(), d); err != nil {
		s.Fatalf("Prepare: %v", err)
	}
}

func (s *suite) ensure(d dayfly.Deployment, n int) {
	s.Helper()
	if err := s.runner.Ensure(s.Context(), d, n); err != nil {
		s.Fatalf("Ensure(%d): %v", n, err)
	}
}

// see observes one deployment, nil = unknown.
func (s *suite) see(id string) *runner.Observation {
	s.Helper()
	found, err := s.runner.Observe(s.Context(), id)
	if err != nil {
		s.Fatalf("Observe: %v", err)
	}
	if len(found) == 0 {
		return nil
	}
	return &found[0]
}

// until waits until a deployment is as wanted, looking again with each change.
func (s *suite) until(d dayfly.Deployment, what string, is func(runner.Observation) bool) runner.Observation {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	changes := s.runner.Changes(ctx)
	if o := s.see(d.ID); o != nil && is(*o) {
		return *o
	}
	for id := range changes {
		if id != d.ID {
			continue
		}
		if o := s.see(d.ID); o != nil && is(*o) {
			return *o
		}
	}
	s.Fatalf("not %s within %s: %+v", what, patience, s.see(d.ID))
	return runner.Observation{}
}

// phase waits for a phase and a count.
func (s *suite) phase(d dayfly.Deployment, phase dayfly.DeploymentPhase, n int) runner.Observation {
	s.Helper()
	return s.until(d, fmt.Sprintf("%s with %d instances", phase, n), func(o runner.Observation) bool {
		return o.Phase == phase && len(o.Instances) == n
	})
}

// started prepares a deployment and waits until it has n healthy instances.
func (s *suite) started(kind Kind, n int) (dayfly.Deployment, runner.Observation) {
	s.Helper()
	d := s.Deployment(s.T, kind)
	s.prepare(d)
	s.ensure(d, n)
	return d, s.phase(d, dayfly.DeploymentReady, n)
}

// answers says whether something takes connections at an address.
func answers(address string) bool {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

func ids(o runner.Observation) []string {
	list := make([]string, 0, len(o.Instances))
	for _, i := range o.Instances {
		list = append(list, i.ID)
	}
	return list
}

func prepare(s *suite) {
	d := s.Deployment(s.T, Web)
	if o := s.see(d.ID); o != nil {
		s.Fatalf("known before Prepare: %+v", o)
	}
	s.prepare(d)
	o := s.see(d.ID)
	if o == nil || o.Phase != dayfly.DeploymentPrepared || len(o.Instances) > 0 {
		s.Fatalf("after Prepare: %+v", o)
	}
	if o.Replicas != 0 || o.Message != "" {
		s.Errorf("after Prepare: %+v", o)
	}
	s.prepare(d)
	if n := s.Starts(s.T, s.host, d.ID); n != 0 {
		s.Errorf("Prepare started %d instances", n)
	}
}

func failingBuild(s *suite) {
	d := s.Deployment(s.T, BadBuild)
	for range 2 { // it is tried again with each call
		err := s.runner.Prepare(s.Context(), d)
		if dayfly.ErrorCode(err) != dayfly.CodeFailed {
			s.Fatalf("Prepare of what cannot be built: %v, want code %s", err, dayfly.CodeFailed)
		}
		o := s.phase(d, dayfly.DeploymentFailed, 0)
		if o.Message == "" || !strings.Contains(strings.Join(o.LogTail, "\n"), "no such thing") {
			s.Errorf("the failure does not explain itself: %q, %q", o.Message, o.LogTail)
		}
	}
	if !slices.Contains(s.lines(d, "build"), "no such thing") {
		s.Errorf("the build's output is not in the log: %q", s.lines(d, "build"))
	}
	if err := s.runner.Remove(s.Context(), d.ID); err != nil {
		s.Errorf("Remove: %v", err)
	}
	if o := s.see(d.ID); o != nil {
		s.Errorf("known after Remove: %+v", o)
	}
}

func cancelledPrepare(s *suite) {
	d := s.Deployment(s.T, SlowBuild)
	ctx, cancel := context.WithCancel(s.Context())
	result := make(chan error, 1)
	go func() { result <- s.runner.Prepare(ctx, d) }()
	s.until(d, "building", func(o runner.Observation) bool { return o.Phase == dayfly.DeploymentBuilding })
	cancel()
	if err := <-result; err == nil || dayfly.ErrorCode(err) == dayfly.CodeFailed {
		s.Fatalf("a cancelled Prepare gave %v", err)
	}
	s.prepare(d)
	s.ensure(d, 1)
	s.phase(d, dayfly.DeploymentReady, 1)
}

func counts(s *suite) {
	d, two := s.started(Web, 2)
	addresses := map[string]bool{}
	for _, i := range two.Instances {
		addresses[i.Address] = true
		if i.Phase != dayfly.InstanceHealthy || i.Deployment != d.ID || i.StartedAt.IsZero() || !answers(i.Address) {
			s.Errorf("not a healthy instance that answers: %+v", i)
		}
	}
	if len(addresses) != 2 {
		s.Errorf("two instances share an address: %v", addresses)
	}
	s.ensure(d, 3)
	three := s.phase(d, dayfly.DeploymentReady, 3)
	for _, id := range ids(two) {
		if !slices.Contains(ids(three), id) {
			s.Errorf("instance %s did not outlive an increase", id)
		}
	}
	s.ensure(d, 3)
	s.ensure(d, 1)
	one := s.phase(d, dayfly.DeploymentReady, 1)
	if !slices.Contains(ids(three), one.Instances[0].ID) {
		s.Errorf("a decrease replaced all instances: %v of %v", ids(one), ids(three))
	}
	if !answers(one.Instances[0].Address) {
		s.Errorf("what is left does not answer")
	}
	s.ensure(d, 0)
	if o := s.phase(d, dayfly.DeploymentPrepared, 0); o.Replicas != 0 {
		s.Errorf("after Ensure(0): %+v", o)
	}
	if answers(one.Instances[0].Address) {
		s.Errorf("the last instance answers after Ensure(0)")
	}
	s.ensure(d, 1)
	s.phase(d, dayfly.DeploymentReady, 1)
	if n := s.Starts(s.T, s.host, d.ID); n != 4 {
		s.Errorf("%d instances were started, want 4", n)
	}
}

func observing(s *suite) {
	var want []string
	for range 3 {
		d := s.Deployment(s.T, Worker)
		s.prepare(d)
		s.phase(d, dayfly.DeploymentPrepared, 0)
		want = append(want, d.ID)
	}
	slices.Sort(want)
	names := func(list []runner.Observation) (ids []string) {
		for _, o := range list {
			ids = append(ids, o.DeploymentID)
		}
		return ids
	}
	all, err := s.runner.Observe(s.Context())
	if err != nil || !slices.Equal(names(all), want) {
		s.Errorf("Observe() = %v, %v; want %v", names(all), err, want)
	}
	some, err := s.runner.Observe(s.Context(), want[2], "unknown", want[0])
	if err != nil || !slices.Equal(names(some), []string{want[0], want[2]}) {
		s.Errorf("Observe of two and an unknown one = %v, %v", names(some), err)
	}
}

func changes(s *suite) {
	d := s.Deployment(s.T, Worker)
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	first, second := s.runner.Changes(ctx), s.runner.Changes(ctx)
	s.prepare(d)
	for _, reader := range []func(func(string) bool){first, second} {
		told := false
		for id := range reader {
			if told = id == d.ID; told {
				break
			}
		}
		if !told {
			s.Errorf("a reader of Changes was not told")
		}
	}
	ended, end := context.WithCancel(s.Context())
	third := s.runner.Changes(ended)
	end()
	for range third { // returns, or the test does not end
		continue
	}
}

func crash(s *suite) {
	d, before := s.started(Web, 2)
	victim, other := before.Instances[0], before.Instances[1]
	s.Crash(s.T, s.host, victim)
	after := s.until(d, "ready with another instance", func(o runner.Observation) bool {
		return o.Phase == dayfly.DeploymentReady && len(o.Instances) == 2 &&
			!slices.ContainsFunc(o.Instances, func(i dayfly.Instance) bool {
				return i.ID == victim.ID && i.StartedAt.Equal(victim.StartedAt)
			})
	})
	for _, i := range after.Instances {
		switch {
		case i.ID == other.ID:
			if !i.StartedAt.Equal(other.StartedAt) || i.Restarts != 0 {
				s.Errorf("the other instance was restarted, too: %+v, before %+v", i, other)
			}
		case i.ID == victim.ID && i.Restarts != 1:
			s.Errorf("the restart was not counted: %+v", i)
		case !answers(i.Address):
			s.Errorf("the new instance does not answer: %+v", i)
		}
	}
}

func crashLoop(s *suite) {
	d := s.Deployment(s.T, Crashing)
	s.prepare(d)
	s.ensure(d, 1)
	o := s.until(d, "failed", func(o runner.Observation) bool { return o.Phase == dayfly.DeploymentFailed })
	if !strings.Contains(o.Message, "exited with code 3") || !slices.Contains(o.LogTail, "giving up") {
		s.Errorf("the failure does not explain itself: %q, %q", o.Message, o.LogTail)
	}
	if n := s.Starts(s.T, s.host, d.ID); n < 2 {
		s.Errorf("it was started %d times: not tried again", n)
	}
	if err := s.runner.Remove(s.Context(), d.ID); err != nil {
		s.Errorf("Remove of what keeps ending: %v", err)
	}
}

func jobs(s *suite) {
	d := s.Deployment(s.T, Job)
	s.prepare(d)
	s.ensure(d, 1)
	o := s.until(d, "completed", func(o runner.Observation) bool { return o.Phase == dayfly.DeploymentCompleted })
	if len(o.Instances) != 1 || o.Instances[0].ExitCode == nil || *o.Instances[0].ExitCode != 0 || o.Instances[0].Phase != dayfly.InstanceExited {
		s.Errorf("a completed job: %+v", o)
	}
	s.ensure(d, 1)
	s.reopen()
	s.ensure(d, 1)
	s.until(d, "completed still", func(o runner.Observation) bool { return o.Phase == dayfly.DeploymentCompleted })
	if n := s.Starts(s.T, s.host, d.ID); n != 1 {
		s.Errorf("the job ran %d times", n)
	}
	s.ensure(d, 0)
	s.phase(d, dayfly.DeploymentPrepared, 0)
	s.ensure(d, 1)
	s.until(d, "completed again", func(o runner.Observation) bool { return o.Phase == dayfly.DeploymentCompleted })
	if n := s.Starts(s.T, s.host, d.ID); n != 2 {
		s.Errorf("the job ran %d times after it was asked for again", n)
	}
}

func failingJob(s *suite) {
	d := s.Deployment(s.T, BadJob)
	s.prepare(d)
	s.ensure(d, 1)
	o := s.until(d, "failed", func(o runner.Observation) bool { return o.Phase == dayfly.DeploymentFailed })
	if len(o.Instances) != 1 || o.Instances[0].ExitCode == nil || *o.Instances[0].ExitCode != 4 ||
		!strings.Contains(o.Message, "4") || !slices.Contains(o.LogTail, "not done") {
		s.Errorf("a failed job: %+v", o)
	}
	if n := s.Starts(s.T, s.host, d.ID); n != 1 {
		s.Errorf("the failed job was started %d times", n)
	}
}

func draining(s *suite) {
	if !s.runner.Capabilities().Drains {
		return // it does not ask before it stops an instance
	}
	type asked struct{ deployment, instance string }
	drain, idle := make(chan asked), make(chan struct{})
	s.hooks.Drain = func(ctx context.Context, deployment, instance string) {
		select {
		case drain <- asked{deployment, instance}:
		case <-ctx.Done():
			return
		}
		select {
		case <-idle:
		case <-ctx.Done():
		}
	}
	s.reopen()
	d, o := s.started(Web, 1)
	s.ensure(d, 0)
	select {
	case a := <-drain:
		if a != (asked{d.ID, o.Instances[0].ID}) {
			s.Errorf("asked to drain %+v", a)
		}
	case <-time.After(patience):
		s.Fatal("nobody was asked whether the instance is idle")
	}
	if seen := s.see(d.ID); len(seen.Instances) != 1 || seen.Instances[0].Phase != dayfly.InstanceStopping {
		s.Errorf("while it is drained: %+v", seen)
	}
	if !answers(o.Instances[0].Address) {
		s.Errorf("it does not answer any more while it is drained")
	}
	close(idle)
	s.phase(d, dayfly.DeploymentPrepared, 0)
	if answers(o.Instances[0].Address) {
		s.Errorf("it answers after it was stopped")
	}
}

func stubborn(s *suite) {
	d, o := s.started(Stubborn, 1)
	s.ensure(d, 0)
	s.phase(d, dayfly.DeploymentPrepared, 0)
	if answers(o.Instances[0].Address) {
		s.Errorf("it answers after it was killed")
	}
}

func removing(s *suite) {
	d, o := s.started(Web, 2)
	if len(s.Left(s.T, s.host, d.ID)) == 0 {
		s.Fatal("the harness sees nothing of what runs: it cannot see what is left either")
	}
	for range 2 {
		if err := s.runner.Remove(s.Context(), d.ID); err != nil {
			s.Fatalf("Remove: %v", err)
		}
	}
	if left := s.Left(s.T, s.host, d.ID); len(left) > 0 {
		s.Errorf("left after Remove: %v", left)
	}
	if seen := s.see(d.ID); seen != nil {
		s.Errorf("known after Remove: %+v", seen)
	}
	for _, i := range o.Instances {
		if answers(i.Address) {
			s.Errorf("%s answers after Remove", i.Address)
		}
	}
	if !slices.Contains(s.lines(d, "run"), "hello") {
		s.Errorf("the log did not outlive Remove: %q", s.lines(d, "run"))
	}
	for range 2 {
		if err := s.runner.PruneLogs(s.Context(), d.ID); err != nil {
			s.Fatalf("PruneLogs: %v", err)
		}
	}
	if l := s.lines(d, ""); len(l) > 0 {
		s.Errorf("logs after PruneLogs: %q", l)
	}
	if err := s.runner.Remove(s.Context(), "unknown"); err != nil {
		s.Errorf("Remove of an unknown deployment: %v", err)
	}
}

// lines gives what a deployment printed; source "" = all.
func (s *suite) lines(d dayfly.Deployment, source string) []string {
	s.Helper()
	return s.read(d, source, runner.LogOptions{})
}

func (s *suite) read(d dayfly.Deployment, source string, o runner.LogOptions) []string {
	s.Helper()
	var lines []string
	for l, err := range s.runner.Logs(s.Context(), d.ID, o) {
		if err != nil {
			s.Fatalf("Logs: %v", err)
		}
		if source == "" || l.Source == source {
			lines = append(lines, l.Line)
		}
	}
	return lines
}

func numbered(from, to int) []string {
	var lines []string
	for n := from; n <= to; n++ {
		lines = append(lines, fmt.Sprintf("line %d", n))
	}
	return lines
}

func logs(s *suite) {
	d, _ := s.started(Printer, 1)
	if got, want := s.lines(d, "run"), numbered(1, 50); !slices.Equal(got, want) {
		s.Errorf("Logs gives %q", got)
	}
	for l, err := range s.runner.Logs(s.Context(), d.ID, runner.LogOptions{}) {
		if err != nil || l.Service != d.Key.Service || l.Time.IsZero() {
			s.Errorf("a line without its service or time: %+v, %v", l, err)
		}
		break // a reader may stop
	}
	if got := s.read(d, "run", runner.LogOptions{Tail: 3}); !slices.Equal(got, numbered(48, 50)) {
		s.Errorf("the last three: %q", got)
	}
	if got := s.read(d, "run", runner.LogOptions{Since: time.Now().Add(time.Hour)}); len(got) > 0 {
		s.Errorf("since a time to come: %q", got)
	}
	if got := s.read(d, "run", runner.LogOptions{Since: time.Now().Add(-time.Hour)}); len(got) != 50 {
		s.Errorf("since an hour: %d lines", len(got))
	}
	s.reopen()
	if got := s.lines(d, "run"); !slices.Equal(got, numbered(1, 50)) {
		s.Errorf("a new runner gives %q", got)
	}
	if got := s.lines(s.Deployment(s.T, Web), ""); len(got) > 0 {
		s.Errorf("logs of an unknown deployment: %q", got)
	}
}

func following(s *suite) {
	d, o := s.started(Web, 1)
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	hellos := 0
	for l, err := range s.runner.Logs(ctx, d.ID, runner.LogOptions{Follow: true}) {
		if err != nil {
			s.Fatalf("Logs: %v", err)
		}
		if l.Line == "hello" {
			hellos++
		}
		if hellos == 1 {
			s.Crash(s.T, s.host, o.Instances[0]) // the next one says hello, too
		}
		if hellos == 2 {
			cancel()
		}
	}
	if hellos != 2 {
		s.Errorf("followed %d lines, want 2", hellos)
	}
}

func adoption(s *suite) {
	d, before := s.started(Web, 2)
	s.close()
	for _, i := range before.Instances {
		if !answers(i.Address) {
			s.Errorf("%s does not answer while there is no runner", i.Address)
		}
	}
	s.open()
	// At once, not only after a while: until then nobody would send it requests.
	after := s.see(d.ID)
	if after == nil || after.Phase != dayfly.DeploymentReady || len(after.Instances) != 2 {
		s.Fatalf("a runner that has just been made sees %+v", after)
	}
	for n, i := range after.Instances {
		b := before.Instances[n]
		if i.ID != b.ID || i.PID != b.PID || i.Address != b.Address || !i.StartedAt.Equal(b.StartedAt) || i.Restarts != b.Restarts {
			s.Errorf("not adopted as it was: %+v, before %+v", i, b)
		}
	}
	s.ensure(d, 2)
	s.ensure(d, 1)
	s.phase(d, dayfly.DeploymentReady, 1)
	if n := s.Starts(s.T, s.host, d.ID); n != 2 {
		s.Errorf("%d instances were started, want 2", n)
	}
	if err := s.runner.Remove(s.Context(), d.ID); err != nil {
		s.Fatalf("Remove of what was adopted: %v", err)
	}
	if left := s.Left(s.T, s.host, d.ID); len(left) > 0 {
		s.Errorf("left after Remove: %v", left)
	}
}

func endedMeanwhile(s *suite) {
	d, before := s.started(Web, 2)
	s.close()
	victim := before.Instances[0]
	s.Crash(s.T, s.host, victim)
	s.open()
	after := s.until(d, "ready with a new instance", func(o runner.Observation) bool {
		return o.Phase == dayfly.DeploymentReady && len(o.Instances) == 2 &&
			!slices.ContainsFunc(o.Instances, func(i dayfly.Instance) bool {
				return i.ID == victim.ID && i.StartedAt.Equal(victim.StartedAt)
			})
	})
	for _, i := range after.Instances {
		if !answers(i.Address) {
			s.Errorf("%+v does not answer", i)
		}
	}
	if n := s.Starts(s.T, s.host, d.ID); n != 3 {
		s.Errorf("%d instances were started, want 3", n)
	}
}

func atOnce(s *suite) {
	const many = 8
	var all []dayfly.Deployment
	done := make(chan error)
	for range many {
		d := s.Deployment(s.T, Web)
		all = append(all, d)
		go func() {
			ctx := s.Context()
			err := s.runner.Prepare(ctx, d)
			for _, n := range []int{2, 1, 3, 0, 2} {
				if err == nil {
					err = s.runner.Ensure(ctx, d, n)
				}
				if _, seen := s.runner.Observe(ctx); err == nil {
					err = seen
				}
			}
			done <- err
		}()
	}
	for range many {
		if err := <-done; err != nil {
			s.Fatal(err)
		}
	}
	for _, d := range all {
		s.phase(d, dayfly.DeploymentReady, 2)
		for range 2 {
			go func() { done <- s.runner.Remove(s.Context(), d.ID) }()
		}
	}
	for range 2 * many {
		if err := <-done; err != nil {
			s.Fatal(err)
		}
	}
	for _, d := range all {
		if left := s.Left(s.T, s.host, d.ID); len(left) > 0 {
			s.Errorf("left: %v", left)
		}
	}
}

func closed(s *suite) {
	d, _ := s.started(Worker, 1)
	s.close()
	if err := s.runner.Prepare(s.Context(), s.Deployment(s.T, Web)); err == nil {
		s.Errorf("Prepare of a closed runner gave no error")
	}
	if err := s.runner.Ensure(s.Context(), d, 2); err == nil {
		s.Errorf("Ensure of a closed runner gave no error")
	}
	for range s.runner.Changes(s.Context()) { // returns, or the test does not end
		continue
	}
	if n := s.Starts(s.T, s.host, d.ID); n != 1 {
		s.Errorf("%d instances were started, want 1", n)
	}
}
