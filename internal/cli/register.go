package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
)

const (
	// leaving is how long requests may take to end before the command is stopped.
	leaving = 10 * time.Second
	// listening is how often the address of a command that starts is tried.
	listening = 50 * time.Millisecond
)

// ended is the end of a command that was run: its exit code is ours.
type ended struct{ code int }

func (e *ended) Error() string { return fmt.Sprintf("the command ended with exit code %d", e.code) }

func (c *command) registerCommand() *cobra.Command {
	var req dayfly.RegistrationRequest
	var ttl string
	cmd := &cobra.Command{
		Use: "register SERVICE VERSION ADDR [-- CMD...]", Short: "Register an instance for as long as a command runs",
		Long: `Register the instance of a service that listens on ADDR (host:port, or :port for this machine), for as
long as CMD runs, or without CMD until Ctrl-C. CMD is started first, and registered when ADDR takes
connections. When it is to stop (SIGTERM, SIGINT), the registration is removed, requests under way
may end, and only then the signal is passed on. The exit code is that of CMD.

  dayfly register backend 0.0.2 :8081 -- ./backend --port 8081
  dayfly register backend mine :8081 --env temp-1 -- npm run dev

` + exitCodes,
		Args: func(cmd *cobra.Command, given []string) error {
			if at := cmd.ArgsLenAtDash(); at >= 0 && (at != 3 || len(given) == 3) || at < 0 && len(given) != 3 {
				return usagef("register: say SERVICE VERSION ADDR, and a command only behind --")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			req.Service, req.Version, req.Address = given[0], given[1], given[2]
			host, port, err := net.SplitHostPort(req.Address)
			if err != nil || port == "" {
				return usagef("register: %q is not written as host:port, nor as :port", req.Address)
			}
			if req.TTL, err = dayfly.ParseDuration(ttl); err != nil {
				return usagef("register: --ttl: %w", err)
			}
			if req.ID == "" {
				req.ID = ownID(host, port)
			}
			return c.register(cmd.Context(), req, given[3:])
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.Environment, "env", "", "the environment that it is for, which need not be there")
	flags.StringVar(&req.Project, "project", "", "its project (the environment's, or the only one, by default)")
	flags.StringVar(&req.ID, "id", "", "a name for the instance, unique in the service (made from host and port by default)")
	flags.StringVar(&ttl, "ttl", "10s", "how long it lasts without being renewed, 1s to 1h; it is renewed three times as often")
	return cmd
}

// ownID names an instance after its host and port: after a restart it is the same one.
func ownID(host, port string) string {
	if host == "" {
		host, _ = os.Hostname()
	}
	id := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, host+"-"+port)
	return strings.TrimLeft(id, ".-")
}

// register holds a registration until ctx ends or the command does.
func (c *command) register(ctx context.Context, req dayfly.RegistrationRequest, argv []string) error {
	// The first signal ends ctx, too; further ones are for the command.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	work := context.WithoutCancel(ctx) // what has to be done after ctx has ended

	p := &child{done: make(chan struct{})} // never done without a command
	if len(argv) > 0 {
		if err := p.start(c, argv); err != nil {
			return err
		}
		if !p.listens(ctx, req.Address) {
			return p.end(ctx, signals)
		}
	}
	lease := &lease{c: c, req: req, show: len(argv) == 0, stop: make(chan struct{}), ended: make(chan struct{})}
	go lease.hold(work)
	select {
	case <-lease.ended: // it is refused
		if len(argv) > 0 {
			p.signal(syscall.SIGTERM)
			<-p.done
		}
		return lease.err
	case <-p.done:
	case <-ctx.Done():
	}
	close(lease.stop)
	<-lease.ended // else its last word might come after the next one
	hurry, cancel := context.WithTimeout(work, leaving+5*time.Second)
	defer cancel()
	away := make(chan error, 1)
	go func() { away <- c.client().Deregister(hurry, req.Service, req.ID, leaving) }()
	if err := p.leave(away, signals, cancel); err != nil && dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		fmt.Fprintf(c.Err, "the registration is left to run out: %v\n", err)
	}
	if len(argv) == 0 {
		return nil
	}
	return p.end(ctx, signals)
}

// lease is a registration that is renewed.
type lease struct {
	c     *command
	req   dayfly.RegistrationRequest
	show  bool          // the answer on standard output
	stop  chan struct{} // ends it
	ended chan struct{}
	err   error // why it was refused, when ended is closed
}

// hold registers, and renews until stop is closed. A server that cannot be reached is asked again;
// one that refuses from the start is not.
func (l *lease) hold(ctx context.Context) {
	defer close(l.ended)
	every := max(time.Duration(l.req.TTL)/3, 100*time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	held, failing := false, false
	for {
		try, cancel := context.WithTimeout(ctx, max(every, 5*time.Second))
		i, err := l.c.client().Register(try, l.req)
		cancel()
		switch code := dayfly.ErrorCode(err); {
		case err == nil && !held:
			held = true
			if done, _ := l.c.machineIf(l.show, i); !done {
				fmt.Fprintf(l.c.Err, "%s %s at %s is registered as %s\n", i.Service, i.Version, i.Address, i.ID)
			}
		case err == nil && failing:
			fmt.Fprintf(l.c.Err, "%s %s at %s is registered again\n", i.Service, i.Version, i.Address)
		case err != nil && !held && code != dayfly.CodeUnavailable && code != dayfly.CodeTimeout && !errors.Is(err, context.DeadlineExceeded):
			l.err = err
			return
		case err != nil && !failing:
			fmt.Fprintf(l.c.Err, "the registration cannot be renewed, and is tried again: %v\n", err)
		}
		failing = err != nil
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
	}
}

// machineIf is machine where the answer is to be shown.
func (c *command) machineIf(show bool, v any) (bool, error) {
	if !show {
		return false, nil
	}
	return c.machine(v)
}

// child is a command that runs while it is registered.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
	told bool // the signal that has ended ctx was seen among the signals
}

func (p *child) start(c *command, argv []string) error {
	p.cmd = exec.Command(argv[0], argv[1:]...) //nolint:forbidigo // it is the user's own command line, already split
	p.cmd.Stdout, p.cmd.Stderr = c.Out, c.Err
	if in, ok := c.In.(*os.File); ok {
		p.cmd.Stdin = in
	}
	apart(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return dayfly.Errorf(dayfly.CodeFailed, "%s cannot be started: %w", argv[0], err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // ProcessState tells
	}()
	return nil
}

// listens waits until an address takes connections; false = the command or ctx has ended before.
func (p *child) listens(ctx context.Context, address string) bool {
	tick := time.NewTicker(listening)
	defer tick.Stop()
	dialer := net.Dialer{Timeout: time.Second}
	for {
		if conn, err := dialer.DialContext(ctx, "tcp", address); err == nil {
			_ = conn.Close() // nothing was sent
			return true
		}
		select {
		case <-p.done:
			return false
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

func (p *child) signal(s syscall.Signal) {
	if p.cmd != nil {
		tell(p.cmd, s)
	}
}

// leave waits until the registration has gone. A second signal is passed on at once.
func (p *child) leave(away <-chan error, signals <-chan os.Signal, cancel func()) error {
	for {
		select {
		case err := <-away:
			return err
		case s := <-signals:
			if p.further(s) {
				cancel()
			}
		}
	}
}

// further passes a signal on, unless it is the one that has ended the context.
func (p *child) further(s os.Signal) bool {
	if !p.told {
		p.told = true
		return false
	}
	if s, ok := s.(syscall.Signal); ok {
		p.signal(s)
	}
	return true
}

// end passes on what has ended ctx, waits for the command, and gives its exit code. Further signals are
// passed on, too.
func (p *child) end(ctx context.Context, signals <-chan os.Signal) error {
	if ctx.Err() != nil {
		s := syscall.SIGINT
		if errors.Is(context.Cause(ctx), ErrTerminated) {
			s = syscall.SIGTERM
		}
		p.signal(s)
	}
	for {
		select {
		case <-p.done:
			code := exitCode(p.cmd.ProcessState)
			if code == 0 {
				return nil
			}
			return &ended{code}
		case s := <-signals:
			p.further(s)
		}
	}
}
