package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/pflag"

	"github.com/dayfly-dev/dayfly"
)

// waiting says whether and for how long a command waits for what it started.
type waiting struct {
	noWait, wait bool
	timeout      time.Duration
}

func (w *waiting) flags(f *pflag.FlagSet) {
	f.BoolVar(&w.noWait, "no-wait", false, "return at once")
	f.BoolVar(&w.wait, "wait", true, "wait until it is done (the default)")
	f.DurationVar(&w.timeout, "timeout", defaultTimeout, "how long to wait")
}

// within asks the server for what may need a repository, for no longer than the command
// waits: one that does not answer must not hold the user.
func (w *waiting) within(ctx context.Context, ask func(context.Context) (dayfly.Environment, error)) (dayfly.Environment, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	env, err := ask(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = dayfly.Errorf(dayfly.CodeTimeout, "the server has not answered within %s, and nothing was done: perhaps a repository does not answer it", w.timeout)
	}
	return env, err
}

// settle waits until an environment is ready or has failed, shows its steps on standard
// error, and then the environment on standard output.
func (c *command) settle(ctx context.Context, env dayfly.Environment, w waiting) error {
	env, there, failure := c.settled(ctx, env, w)
	if !there {
		return failure
	}
	if done, err := c.machine(env); done {
		return errors.Join(err, failure)
	}
	if failure == nil {
		c.showAddresses(env)
	}
	return failure
}

// settled waits until an environment is ready or has failed and shows its steps on standard
// error. there says whether it has come to such an end: also one that failed is to be shown.
func (c *command) settled(ctx context.Context, env dayfly.Environment, w waiting) (_ dayfly.Environment, there bool, failure error) {
	if !w.noWait && w.wait {
		var err error
		name := env.Name
		if env, err = c.watch(ctx, env, w.timeout, dayfly.Environment.Settled); dayfly.ErrorCode(err) == dayfly.CodeNotFound {
			return env, false, dayfly.Errorf(dayfly.CodeNotFound, "environment %s was deleted before it was ready: `dayfly events %s --deleted` tells more", name, name)
		} else if err != nil {
			return env, false, err
		}
		if env.Phase == dayfly.PhaseFailed || env.Phase == dayfly.PhaseDegraded || len(env.Missing) > 0 {
			failure = &shown{dayfly.Errorf(dayfly.CodeFailed, "environment %s: %s", env.Name, env.Message)}
			fmt.Fprintf(c.Err, "environment %s is %s: %s\n  dayfly details %s and dayfly logs %s tell more\n", env.Name, env.Phase, env.Message, env.Name, env.Name)
		}
	}
	return env, true, failure
}

// showAddresses prints where an environment is reached: the main address first.
func (c *command) showAddresses(env dayfly.Environment) {
	if env.URL != "" {
		fmt.Fprintln(c.Out, env.URL)
		return
	}
	for _, s := range env.Services {
		if s.URL != "" {
			fmt.Fprintln(c.Out, s.URL)
		}
	}
}

// watch shows the steps of an environment until done says so, it is gone, or the time is
// over.
func (c *command) watch(ctx context.Context, env dayfly.Environment, timeout time.Duration, done func(dayfly.Environment) bool) (dayfly.Environment, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	api := c.client()
	progress := c.newProgress(env.Name)
	var follower sync.WaitGroup
	events, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		follower.Wait()
		progress.end()
	}()
	news := make(chan struct{}, 1)
	begun := time.Now().Add(-2 * time.Second)
	id, old := env.ID, env.CreatedAt.Before(begun)
	last := int64(0) // of the follower until it has ended
	show := func(e dayfly.Event) {
		last = e.ID
		if !old || !e.Time.Before(begun) { // not the history of what was there before
			progress.event(e)
		}
	}
	seen := make(chan struct{})
	follower.Go(func() {
		defer close(seen)
		for e, err := range api.Events(events, id, dayfly.EventOptions{Follow: true}) {
			if err != nil {
				return
			}
			show(e)
			select {
			case news <- struct{}{}:
			default:
			}
		}
	})
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := api.Environment(ctx, env.ID)
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return env, dayfly.Errorf(dayfly.CodeTimeout, "environment %s is still %s after %s: %s", env.Name, env.Phase, timeout, env.Message)
		case err != nil:
			return env, err
		}
		env = now
		progress.phase(env)
		if done(env) {
			// What led here is told before the end: what comes within a moment, and then
			// what the follower has not got yet.
			select {
			case <-seen:
			case <-time.After(150 * time.Millisecond):
			}
			stop()
			follower.Wait()
			for e, err := range api.Events(ctx, id, dayfly.EventOptions{After: last}) {
				if err != nil {
					break
				}
				show(e)
			}
			return env, nil
		}
		select {
		case <-ctx.Done():
		case <-news:
		case <-tick.C:
		}
	}
}

// progress shows steps: live on a terminal, as plain lines elsewhere.
type progress struct {
	out    io.Writer
	live   bool
	colour bool
	start  time.Time

	mu     sync.Mutex
	status string
	said   int64 // lines
	stop   chan struct{}
	done   sync.WaitGroup
}

func (c *command) newProgress(name string) *progress {
	p := &progress{out: c.Err, live: c.Terminal, colour: c.Terminal && c.Getenv("NO_COLOR") == "", start: time.Now(), status: name, stop: make(chan struct{})}
	if p.live {
		p.done.Go(p.spin)
	} else {
		p.done.Go(p.remind)
	}
	return p
}

// quiet is how long nothing may be said where there is no terminal.
const quiet = 10 * time.Second

// remind says how things stand when nothing else was said for a while.
func (p *progress) remind() {
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	said := int64(0)
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		p.mu.Lock()
		if said == p.said {
			fmt.Fprintf(p.out, "%6.1fs  still %s\n", time.Since(p.start).Seconds(), p.status)
		}
		said = p.said
		p.mu.Unlock()
	}
}

// spin redraws the last line while something goes on.
func (p *progress) spin() {
	frames := []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		p.mu.Lock()
		fmt.Fprintf(p.out, "\r\x1b[K%s %s %s", frames[i%len(frames)], p.status, time.Since(p.start).Round(100*time.Millisecond))
		p.mu.Unlock()
	}
}

func (p *progress) event(e dayfly.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said++
	line := fmt.Sprintf("%6.1fs  %s", max(0, e.Time.Sub(p.start).Seconds()), e.Message)
	if p.colour && e.Kind != dayfly.EventStep {
		line = lipgloss.NewStyle().Foreground(lipgloss.Color("1")).Render(line)
	}
	if p.live {
		line = "\r\x1b[K" + line
	}
	fmt.Fprintln(p.out, line)
	for _, l := range e.Log {
		fmt.Fprintln(p.out, "         | "+l)
	}
}

func (p *progress) phase(e dayfly.Environment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var busy []string
	for _, s := range e.Services {
		if s.Phase != dayfly.PhaseReady {
			busy = append(busy, s.Name+" "+string(s.Phase))
		}
	}
	p.status = e.Name + " " + string(e.Phase)
	if len(busy) > 0 {
		p.status += " (" + strings.Join(busy, ", ") + ")"
	}
}

func (p *progress) end() {
	close(p.stop)
	p.done.Wait()
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
