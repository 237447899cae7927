//go:build linux

package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/cgroup"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/files"
)

const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 30 * time.Second
	// settled is how long an instance has to run until earlier failures are forgotten.
	settled = 10 * time.Second
	// crashLoop is how many ends in a row make a deployment a failed one.
	crashLoop    = 3
	defaultGrace = 10 * time.Second
)

func now() time.Time { return time.Now() }

// instanceRecord is what is kept of an instance on disk. It is written before the
// process is started, so that none is lost between two steps.
type instanceRecord struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	Port      int       `json:"port,omitempty"`
	Process   process   `json:"process"` // zero = being started
	StartedAt time.Time `json:"started_at"`
	Restarts  int       `json:"restarts"`
	Healthy   bool      `json:"healthy,omitempty"` // has been, since its start
	Exited    bool      `json:"exited,omitempty"`  // a job that has ended
	ExitCode  *int      `json:"exit_code,omitempty"`
}

// instance keeps one process running.
type instance struct {
	k   *keeper
	rec instanceRecord // changed by run and its check alone, with mu held

	mu       sync.Mutex
	phase    dayfly.InstancePhase
	message  string
	failures int // ends or failed checks in a row
	late     bool
	killed   int // processes that had used up the memory before this one; of run alone

	begun bool
	once  sync.Once
	stop  chan struct{} // closed by end
	done  chan struct{} // closed when run has ended
}

func newInstance(k *keeper) *instance {
	return &instance{k: k, phase: dayfly.InstanceStarting, stop: make(chan struct{}), done: make(chan struct{})}
}

// begin starts the goroutine that keeps the instance; k.mu is held.
func (i *instance) begin(adopted bool) {
	if i.begun {
		return
	}
	i.begun = true
	deployment, build := i.k.rec.Deployment, i.k.rec.Build
	i.k.r.all.Go(func() {
		defer close(i.done)
		i.run(deployment, build, adopted)
	})
}

// end asks the instance to stop gently.
func (i *instance) end() { i.once.Do(func() { close(i.stop) }) }

func (i *instance) stopping() bool {
	select {
	case <-i.stop:
		return true
	default:
		return false
	}
}

// view is an instance as Observe shows it.
type view struct {
	dayfly.Instance
	failing bool // it keeps failing: see Message
}

func (i *instance) view() view {
	i.mu.Lock()
	defer i.mu.Unlock()
	v := view{Instance: dayfly.Instance{
		ID: i.rec.ID, Deployment: i.k.rec.Deployment.ID, Phase: i.phase, PID: i.rec.Process.PID,
		StartedAt: i.rec.StartedAt, Restarts: i.rec.Restarts, ExitCode: i.rec.ExitCode, Message: i.message,
	}, failing: i.failures >= crashLoop || i.late}
	if i.rec.Port != 0 {
		v.Address = fmt.Sprintf("127.0.0.1:%d", i.rec.Port)
	}
	return v
}

// set changes what Observe shows.
func (i *instance) set(deployment string, phase dayfly.InstancePhase, message string) {
	i.mu.Lock()
	same := i.phase == phase && i.message == message
	i.phase, i.message = phase, message
	i.mu.Unlock()
	if !same {
		i.k.r.changed(deployment)
	}
}

// find looks for the process of a record, also of one that was being started when the
// server died. marked holds the processes of this cluster by instance.
func (i *instance) find(marked map[string][]int) {
	p := &i.rec.Process
	if code, ok := notedExit(i.exitFile(i.k.rec.Deployment)); ok && !i.rec.Exited {
		i.rec.Exited, i.rec.ExitCode = true, &code // while no server was there
		for _, pid := range marked[i.rec.ID] {
			_ = syscall.Kill(pid, syscall.SIGKILL) // what it has left; gone already is as good
		}
	}
	if i.rec.Exited {
		i.phase = dayfly.InstanceExited
		return
	}
	if p.PID != 0 {
		switch {
		case !p.alive(i.k.r.boot):
			p.gone = true
		case i.rec.Healthy:
			i.phase = dayfly.InstanceHealthy // it goes on serving until a check says otherwise
		}
		return
	}
	for _, pid := range marked[i.rec.ID] {
		if found, err := identify(pid, i.k.r.boot); err == nil && found.leader {
			*p = found
			i.rec.StartedAt = now()
			return
		}
	}
}

// run keeps the instance until it is ended, the job has ended, or the runner is closed.
func (i *instance) run(d dayfly.Deployment, build string, adopted bool) {
	r := i.k.r
	if adopted && i.rec.Exited {
		i.exited(d)
		i.wait()
		i.clear(d)
		return
	}
	for {
		if !adopted || i.rec.Process.PID == 0 {
			if err := i.launch(d, build); err != nil {
				i.failed(d, "could not be started: "+err.Error())
				if !i.pause() {
					break
				}
				continue
			}
		}
		adopted = false
		if r.ctx.Err() != nil {
			return
		}
		ended := make(chan exit, 1)
		watch, cancel := context.WithCancel(r.ctx)
		var both sync.WaitGroup
		process := i.rec.Process
		both.Go(func() {
			if e, err := process.wait(watch); err == nil {
				ended <- e
			}
		})
		both.Go(func() { i.check(watch, d) })
		var e exit
		select {
		case <-r.ctx.Done():
			cancel()
			both.Wait()
			return
		case <-i.stop:
			i.set(d.ID, dayfly.InstanceStopping, "")
			if r.Hooks.Drain != nil {
				r.Hooks.Drain(r.ctx, d.ID, i.rec.ID)
			}
			if r.ctx.Err() == nil {
				i.terminate(d, ended)
			}
			cancel()
			both.Wait()
			if r.ctx.Err() == nil {
				i.clear(d)
			}
			return
		case e = <-ended:
			cancel()
			both.Wait()
		}
		i.killRest(d)
		if code, ok := notedExit(i.exitFile(d)); ok && !e.known {
			e = exit{code: code, known: true}
		}
		if d.Definition.Job && e.known {
			i.mu.Lock()
			i.rec.Exited, i.rec.ExitCode = true, &e.code
			i.mu.Unlock()
			if err := i.write(d.ID); err != nil {
				r.Logger.Error("the end of a job cannot be noted", "deployment", d.ID, "error", err)
			}
			i.exited(d)
			i.wait()
			i.clear(d)
			return
		}
		if now().Sub(i.rec.StartedAt) > settled {
			i.mu.Lock()
			i.failures = 0
			i.mu.Unlock()
		}
		i.failed(d, cmp.Or(i.starved(d), e.String()))
		i.mu.Lock()
		i.rec.Process = process0
		i.rec.Restarts++
		i.mu.Unlock()
		if !i.pause() {
			break
		}
	}
	if r.ctx.Err() == nil {
		i.clear(d)
	}
}

var process0 process

// exited shows a job that has ended.
func (i *instance) exited(d dayfly.Deployment) {
	message := ""
	if code := i.rec.ExitCode; code != nil && *code != 0 {
		message = exit{code: *code, known: true}.String()
	}
	i.set(d.ID, dayfly.InstanceExited, message)
}

// wait returns when the instance is ended or the runner closed.
func (i *instance) wait() {
	select {
	case <-i.stop:
	case <-i.k.r.ctx.Done():
	}
}

// failed counts a failure.
func (i *instance) failed(d dayfly.Deployment, what string) {
	i.mu.Lock()
	i.failures++
	n := i.failures
	i.mu.Unlock()
	message := what + "; it is started again"
	if n >= crashLoop {
		message = fmt.Sprintf("%s, %d times in a row; it is tried again with longer and longer pauses", what, n)
	}
	i.set(d.ID, dayfly.InstanceExited, message)
}

// pause waits before the next start; false = there is to be none.
func (i *instance) pause() bool {
	i.mu.Lock()
	n := i.failures
	i.mu.Unlock()
	d := min(firstBackoff<<min(n-1, 20), lastBackoff)
	d = d*3/4 + rand.N(d/2) //nolint:gosec // jitter
	select {
	case <-i.stop:
		return false
	case <-i.k.r.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// launch starts the process: a port, a record of the intention, the process, a record of it.
func (i *instance) launch(d dayfly.Deployment, build string) error {
	i.mu.Lock()
	i.rec.Process, i.rec.Healthy = process0, false
	if d.Definition.Port != 0 {
		port, err := freePort()
		if err != nil {
			i.mu.Unlock()
			return err
		}
		i.rec.Port = port
	}
	i.late = false
	i.mu.Unlock()
	if err := i.write(d.ID); err != nil {
		return err
	}
	command, err := i.command(d, build)
	if err != nil {
		return err
	}
	defer command.out.Close()
	if d.Definition.Job {
		noted, err := os.OpenFile(i.exitFile(d), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer noted.Close()
		command = command.noting(noted)
	}
	grouped, err := i.group(d)
	if err != nil {
		return err
	}
	crash.Point("before starting a process")
	p, err := i.startIn(grouped, command)
	crash.Point("after starting a process")
	if err != nil {
		return err
	}
	i.mu.Lock()
	i.rec.Process, i.rec.StartedAt = p, now()
	i.mu.Unlock()
	i.set(d.ID, dayfly.InstanceStarting, "")
	return i.write(d.ID)
}

// startIn starts the process, in the control group of the instance where it has one.
func (i *instance) startIn(grouped bool, c command) (p process, err error) {
	r := i.k.r
	if !grouped {
		return c.start(r.boot, nil)
	}
	err = r.groups.Start(i.rec.ID, func(into func(*syscall.SysProcAttr)) (err error) {
		p, err = c.start(r.boot, into)
		return err
	})
	return p, err
}

// group makes the control group that the instance is to be started in, with its limits, and
// ends what is left in it of an earlier start. It says whether there is one.
func (i *instance) group(d dayfly.Deployment) (bool, error) {
	r := i.k.r
	l := cgroup.Limits{Memory: cmp.Or(d.Definition.Memory, r.Memory), CPUs: cmp.Or(d.Definition.CPUs, r.CPUs)}
	if r.groups == nil {
		if !l.None() {
			r.Logger.Warn("memory and CPU are not bounded: control groups cannot be written to by the server's user", "deployment", d.ID)
		}
		return false, nil
	}
	err := r.groups.Make(i.rec.ID, l)
	if err == nil {
		err = r.groups.Kill(i.rec.ID)
	}
	if err != nil && l.None() {
		r.Logger.Warn("an instance has no control group: what leaves its session may outlive it for a while", "deployment", d.ID, "error", err)
		return false, nil
	}
	i.killed = r.groups.Killed(i.rec.ID)
	return err == nil, err
}

// killRest kills what a process that has ended left running: its group, and what has left that
// and all its parents.
func (i *instance) killRest(d dayfly.Deployment) {
	killGroup(i.rec.Process.PID)
	if i.k.r.groups == nil {
		return
	}
	if err := i.k.r.groups.Kill(i.rec.ID); err != nil {
		i.k.r.Logger.Warn("something of an instance is left", "deployment", d.ID, "error", err)
	}
}

// starved says that the instance was killed since it had used up its memory; "" = it was not.
func (i *instance) starved(d dayfly.Deployment) string {
	r := i.k.r
	if most := cmp.Or(d.Definition.Memory, r.Memory); most > 0 && r.groups != nil && r.groups.Killed(i.rec.ID) > i.killed {
		return fmt.Sprintf("was killed since it used more memory than its %d MiB (mem_limit of the service, or --memory of the server)", most>>20)
	}
	return ""
}

// exitFile is where a job's process notes its exit code: of the process that was started last.
func (i *instance) exitFile(d dayfly.Deployment) string {
	return i.k.r.path("run", d.ID, "x-"+i.rec.ID)
}

func (i *instance) write(deployment string) error {
	return writeJSON(i.k.r.path("run", deployment, "i-"+i.rec.ID+".json"), i.rec)
}

// terminate stops the process: signal, grace, kill, the whole group.
func (i *instance) terminate(d dayfly.Deployment, ended <-chan exit) {
	grace := time.Duration(d.Definition.Stop.Grace)
	if grace == 0 {
		grace = defaultGrace
	}
	crash.Point("before signalling a process")
	i.rec.Process.signal(stopSignal(d.Definition.Stop.Signal))
	crash.Point("after signalling a process")
	select {
	case <-ended:
	case <-time.After(grace):
		i.k.r.Logger.Info("an instance did not end by itself and is killed", "deployment", d.ID, "grace", grace)
		killGroup(i.rec.Process.PID)
		select {
		case <-ended:
		case <-time.After(time.Second): // it hangs in the kernel
		}
	case <-i.k.r.ctx.Done():
		return
	}
	// Its children may have outlived it, and must not write to what is removed next.
	i.killRest(d)
	awaitGroup(i.rec.Process.PID)
}

// clear removes what belongs to the instance alone.
func (i *instance) clear(d dayfly.Deployment) {
	r := i.k.r
	if i.k.r.ctx.Err() != nil {
		return
	}
	if r.groups != nil {
		if err := errors.Join(r.groups.Kill(i.rec.ID), r.groups.Remove(i.rec.ID)); err != nil {
			r.Logger.Warn("something of an instance is left", "deployment", d.ID, "error", err)
		}
	}
	crash.Point("before deleting an instance's files")
	defer crash.Point("after deleting an instance's files")
	_ = os.Remove(i.exitFile(d)) // of a job alone
	err := errors.Join(os.Remove(r.path("run", d.ID, "i-"+i.rec.ID+".json")), files.RemoveAll(r.path("private", d.ID, i.rec.ID)))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.Logger.Warn("something of an instance is left", "deployment", d.ID, "error", err)
	}
	i.k.gone(i)
}

// exit is how a process ended.
type exit struct {
	code  int // 128+n for signal n
	known bool
}

func (e exit) String() string {
	switch {
	case !e.known:
		return "ended while no server watched"
	case e.code > 128 && e.code < 160:
		return "was ended by the signal " + strings.ToUpper(signalName(e.code-128))
	}
	return fmt.Sprintf("exited with code %d", e.code)
}
