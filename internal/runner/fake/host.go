// Package fake keeps deployments in memory. It is the runner contract's second
// implementation, for tests and benchmarks: as a runner of single instances, or as a
// cluster that is given a count and starts, replaces, moves and reports instances by
// itself, late and out of order, as Docker Swarm and Kubernetes do.
package fake

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/runner"
)

// Mode is how a Host behaves.
type Mode int

// The modes.
const (
	// Single does at once what it is told, and reports it at once.
	Single Mode = iota
	// Replicas keeps counts by itself: whatever it does and says comes a little
	// later, what is said of one deployment may overtake what is said of another,
	// and an instance that ends is replaced by another one at another address.
	Replicas
)

// Program is what the instances of a deployment do.
type Program struct {
	BuildLines []string      // printed by the build
	BuildFails string        // the build prints this and fails
	BuildTime  time.Duration // how long the build takes
	Lines      []string      // printed at the start
	Exit       *int          // ends at once with this code; nil = runs until it is stopped
	Sick       bool          // never gets healthy
	Stubborn   bool          // does not end when it is asked to, only when it is killed
	Handler    http.Handler  // answers at the instance's address; nil = nobody really listens there
}

// crashLoop is how often an instance may end in a row before it counts as failed.
const crashLoop = 3

// Host is what runs the instances. It outlives the runner, as the processes of a host
// and the services of a cluster do: a Runner that is closed and made again on the same
// Host finds everything as it was.
type Host struct {
	mode    Mode
	program func(dayfly.Deployment) Program

	mu          sync.Mutex
	rand        *rand.Rand
	deployments map[string]*deployment
	logs        map[string][]logLine
	logged      chan struct{} // closed and made anew with each line
	runners     map[*Runner]bool
	nextPID     int
	starts      map[string]int // instances ever started, by deployment
	closed      bool
	later       sync.WaitGroup
}

type logLine struct {
	dayfly.LogLine
	source string
}

// deployment is what really is, and what has been reported of it.
type deployment struct {
	d         dayfly.Deployment
	replicas  int
	preparing int
	built     bool
	failure   string
	tail      []string
	instances []*instance
	removing  bool

	seq, told int64 // of what is, and of what has been reported
	reported  *runner.Observation
}

type instance struct {
	dayfly.Instance
	failures int
	server   *httptest.Server
	gone     chan struct{} // closed when it has ended for good
	stopping bool
}

// NewHost makes a host without deployments; program says what their instances do. The
// seed decides what a host in the mode Replicas does when.
func NewHost(mode Mode, seed uint64, program func(dayfly.Deployment) Program) *Host {
	return &Host{
		mode: mode, program: program, rand: rand.New(rand.NewPCG(seed, 1)), //nolint:gosec // it is to be repeated
		deployments: map[string]*deployment{}, logs: map[string][]logLine{}, logged: make(chan struct{}),
		runners: map[*Runner]bool{}, starts: map[string]int{},
	}
}

// Close ends every instance and waits for everything that was still to happen.
func (h *Host) Close() {
	h.mu.Lock()
	h.closed = true
	var servers []*httptest.Server
	for _, dep := range h.deployments {
		for _, i := range dep.instances {
			if i.server != nil {
				servers = append(servers, i.server)
			}
		}
	}
	h.mu.Unlock()
	for _, s := range servers {
		s.Close()
	}
	h.later.Wait()
}

// Starts says how many instances of a deployment have ever been started.
func (h *Host) Starts(deploymentID string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.starts[deploymentID]
}

// Deployments gives the ids of what really is there, in their order.
func (h *Host) Deployments() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := make([]string, 0, len(h.deployments))
	for id := range h.deployments {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Crash makes an instance end by itself, and says whether there was one.
func (h *Host) Crash(instanceID string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	dep, i := h.find(instanceID)
	if i == nil {
		return false
	}
	h.ended(dep, i, 137)
	return true
}

// Move starts another instance in the place of this one and ends it then, as a cluster
// does that empties a node. It says whether there was one.
func (h *Host) Move(instanceID string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	dep, i := h.find(instanceID)
	if i == nil || h.mode != Replicas || dep.d.Definition.Job || i.stopping {
		return false
	}
	h.launch(dep)
	h.end(dep, i)
	return true
}

func (h *Host) find(instanceID string) (*deployment, *instance) {
	for _, dep := range h.deployments {
		for _, i := range dep.instances {
			if i.ID == instanceID {
				return dep, i
			}
		}
	}
	return nil, nil
}

// soon does something with h.mu held: at once, or in the mode Replicas a little later.
// h.mu is held.
func (h *Host) soon(do func()) {
	if h.mode == Single {
		do()
		return
	}
	h.after(time.Duration(h.rand.IntN(4000))*time.Microsecond, do)
}

// after does something with h.mu held when d has passed. h.mu is held.
func (h *Host) after(d time.Duration, do func()) {
	if h.closed {
		return
	}
	h.later.Add(1)
	time.AfterFunc(d, func() {
		defer h.later.Done()
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.closed {
			do()
		}
	})
}

// log adds a line; h.mu is held.
func (h *Host) log(id, source, line string) {
	service := ""
	if dep := h.deployments[id]; dep != nil {
		service = dep.d.Key.Service
	}
	h.logs[id] = append(h.logs[id], logLine{dayfly.LogLine{Time: time.Now(), Service: service, Source: source, Line: line}, source})
	close(h.logged)
	h.logged = make(chan struct{})
}

// lines gives the last lines of a log; h.mu is held.
func (h *Host) lines(id, source string, n int) []string {
	var found []string
	for _, l := range h.logs[id] {
		if l.source == source {
			found = append(found, l.Line)
		}
	}
	return found[max(0, len(found)-n):]
}

// adjust starts what is missing and ends what is too much; h.mu is held.
func (h *Host) adjust(dep *deployment) {
	if !dep.built || dep.removing || h.closed {
		return
	}
	var running []*instance
	for _, i := range dep.instances {
		if !i.stopping {
			running = append(running, i)
		}
	}
	for n := len(running); n < dep.replicas; n++ {
		h.launch(dep)
	}
	for n := len(running) - 1; n >= dep.replicas; n-- {
		h.end(dep, running[n])
	}
}

// launch starts an instance; h.mu is held.
func (h *Host) launch(dep *deployment) {
	i := &instance{Instance: dayfly.Instance{
		ID: dayfly.NewID(), Deployment: dep.d.ID, Phase: dayfly.InstanceStarting, StartedAt: time.Now(),
	}, gone: make(chan struct{})}
	dep.instances = append(dep.instances, i)
	h.begin(dep, i)
}

// begin runs an instance's program; h.mu is held.
func (h *Host) begin(dep *deployment, i *instance) {
	p := h.program(dep.d)
	h.nextPID++
	h.starts[dep.d.ID]++
	if h.mode == Single {
		i.PID = h.nextPID
	}
	i.Phase, i.StartedAt, i.ExitCode, i.Message = dayfly.InstanceStarting, time.Now(), nil, ""
	if dep.d.Definition.Port != 0 {
		i.Address = fmt.Sprintf("127.0.0.1:%d", 20000+h.nextPID%40000)
		if p.Handler != nil {
			i.server = httptest.NewServer(p.Handler)
			i.Address = i.server.Listener.Addr().String()
		}
	}
	for _, line := range p.Lines {
		h.log(dep.d.ID, "run", line)
	}
	h.report(dep)
	h.soon(func() {
		switch {
		case i.stopping || i.Phase != dayfly.InstanceStarting:
		case p.Exit != nil:
			h.ended(dep, i, *p.Exit)
		case p.Sick:
			i.Phase, i.Message = dayfly.InstanceUnhealthy, "was not healthy in time"
			h.report(dep)
		default:
			i.Phase = dayfly.InstanceHealthy
			h.report(dep)
		}
	})
}

// ended takes in that an instance has ended by itself; h.mu is held.
func (h *Host) ended(dep *deployment, i *instance, code int) {
	if i.Phase == dayfly.InstanceExited {
		return
	}
	i.shut()
	i.Phase, i.ExitCode = dayfly.InstanceExited, &code
	if code != 0 {
		i.Message = fmt.Sprintf("exited with code %d", code)
	}
	i.failures++
	h.report(dep)
	if dep.d.Definition.Job || i.stopping {
		return
	}
	pause := time.Millisecond << min(i.failures, 10)
	h.after(pause, func() {
		if i.stopping || dep.removing {
			return
		}
		if h.mode == Single {
			i.Restarts++
			h.begin(dep, i)
			return
		}
		h.drop(dep, i)
		failures := i.failures
		h.adjust(dep)
		if n := len(dep.instances); n > 0 {
			dep.instances[n-1].failures = failures
		}
	})
}

// end stops an instance gently: out of rotation, drained, asked, killed. h.mu is held.
func (h *Host) end(dep *deployment, i *instance) {
	i.stopping = true
	exited := i.Phase == dayfly.InstanceExited
	i.Phase = dayfly.InstanceStopping
	h.report(dep)
	finish := func() {
		h.drop(dep, i)
		h.report(dep)
	}
	var drain func()
	for r := range h.runners {
		if r.hooks.Drain != nil && h.mode == Single && !exited {
			drain = func() { r.hooks.Drain(r.ctx, dep.d.ID, i.ID) }
		}
	}
	grace := time.Duration(0)
	if h.program(dep.d).Stubborn && !exited {
		grace = time.Duration(dep.d.Definition.Stop.Grace)
	}
	if drain == nil {
		h.after(grace, finish)
		return
	}
	h.later.Go(func() {
		drain()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.after(grace, finish)
	})
}

// drop forgets an instance; h.mu is held.
func (h *Host) drop(dep *deployment, i *instance) {
	i.shut()
	dep.instances = slices.DeleteFunc(dep.instances, func(x *instance) bool { return x == i })
	select {
	case <-i.gone:
	default:
		close(i.gone)
	}
}

// shut ends what listens at the instance's address.
func (i *instance) shut() {
	if i.server != nil {
		i.server.CloseClientConnections()
		i.server.Listener.Close()
		i.server = nil
	}
}

// report tells of a deployment as it is now: at once, or later and then perhaps only what
// is still news. h.mu is held.
func (h *Host) report(dep *deployment) {
	dep.seq++
	seq, seen := dep.seq, dep.observe(h)
	h.soon(func() {
		if seq < dep.told {
			return // overtaken
		}
		dep.told, dep.reported = seq, &seen
		h.soon(func() { h.tell(dep.d.ID) })
	})
}

// tell wakes the readers of Changes; h.mu is held.
func (h *Host) tell(id string) {
	for r := range h.runners {
		r.changed(id)
	}
}

// observe says how the deployment really is; h.mu is held.
func (dep *deployment) observe(h *Host) runner.Observation {
	o := runner.Observation{DeploymentID: dep.d.ID, Replicas: dep.replicas}
	healthy, failing := 0, false
	for _, i := range dep.instances {
		o.Instances = append(o.Instances, i.Instance)
		switch i.Phase {
		case dayfly.InstanceHealthy:
			healthy++
		case dayfly.InstanceUnhealthy:
			failing = true
		}
		failing = failing || i.failures >= crashLoop
		if i.Message != "" {
			o.Message = i.Message
		}
	}
	slices.SortFunc(o.Instances, func(a, b dayfly.Instance) int { return strings.Compare(a.ID, b.ID) })
	switch {
	case dep.failure != "":
		o.Phase, o.Message, o.LogTail, o.Instances = dayfly.DeploymentFailed, dep.failure, dep.tail, nil
	case dep.preparing > 0:
		o.Phase = dayfly.DeploymentBuilding
	case !dep.built:
		o.Phase = dayfly.DeploymentPending
	case dep.replicas == 0:
		o.Phase, o.Message = dayfly.DeploymentPrepared, ""
	case dep.d.Definition.Job:
		o.Phase = dayfly.DeploymentStarting
		for _, i := range dep.instances {
			switch {
			case i.ExitCode == nil:
			case *i.ExitCode == 0:
				o.Phase = dayfly.DeploymentCompleted
			default:
				o.Phase = dayfly.DeploymentFailed
			}
		}
	case healthy >= dep.replicas:
		o.Phase, o.Message = dayfly.DeploymentReady, ""
	case healthy > 0:
		o.Phase = dayfly.DeploymentDegraded
		if o.Message == "" {
			o.Message = fmt.Sprintf("%d of %d instances are healthy", healthy, dep.replicas)
		}
	case failing:
		o.Phase = dayfly.DeploymentFailed
	default:
		o.Phase = dayfly.DeploymentStarting
	}
	if o.Phase == dayfly.DeploymentFailed && dep.failure == "" {
		o.LogTail = h.lines(dep.d.ID, "run", 20)
	}
	return o
}
