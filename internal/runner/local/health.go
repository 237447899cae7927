//go:build linux

package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"syscall"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/spec"
)

const (
	defaultInterval    = 10 * time.Second
	defaultTimeout     = 5 * time.Second
	defaultRetries     = 3
	defaultStartPeriod = time.Minute
	// alone is how long an instance that takes no connections has to live to count
	// as healthy.
	alone = time.Second
)

var errNoRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// check asks the instance how it is, until ctx ends: at first again within
// milliseconds, later once in a while.
func (i *instance) check(ctx context.Context, d dayfly.Deployment) {
	if d.Definition.Job {
		return
	}
	h := d.Definition.Health
	interval, timeout := or(h.Interval, defaultInterval), or(h.Timeout, defaultTimeout)
	period, retries := or(h.StartPeriod, defaultStartPeriod), h.Retries
	if retries == 0 {
		retries = defaultRetries
	}
	probe, what := i.probe(d)
	begun := now()
	wait := time.Millisecond
	healthy, misses := i.rec.Healthy, 0
	var looked time.Time // when hint was found out
	var hint string
	for {
		asked, cancel := context.WithTimeout(ctx, timeout)
		err := probe(asked)
		cancel()
		switch {
		case ctx.Err() != nil || i.stopping():
			return
		case err == nil:
			misses = 0
			i.mu.Lock()
			i.late = false
			if !healthy && i.rec.Restarts == 0 {
				i.failures = 0
			}
			i.rec.Healthy = true
			i.mu.Unlock()
			if !healthy {
				if err := i.write(d.ID); err != nil {
					i.k.r.Logger.Warn("that an instance is healthy cannot be noted", "deployment", d.ID, "error", err)
				}
			}
			healthy, wait = true, interval
			i.set(d.ID, dayfly.InstanceHealthy, "")
		case healthy:
			if misses++; misses >= retries {
				i.set(d.ID, dayfly.InstanceUnhealthy, fmt.Sprintf("runs, but %s: %v", what, err))
			}
			wait = min(interval, time.Second)
		default:
			if now().Sub(begun) > period {
				i.mu.Lock()
				i.late = true
				i.mu.Unlock()
				if now().Sub(looked) > interval {
					looked = now()
					hint = i.hint()
				}
				i.set(d.ID, dayfly.InstanceUnhealthy, tooLate(period, what, err, hint))
			}
			wait = min(wait*2, time.Second)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// hint says what the instance listens on where that is not its port.
func (i *instance) hint() string {
	if i.rec.Port == 0 {
		return ""
	}
	return listening(i.rec.Process.PID, i.rec.Port)
}

// tooLate says why an instance has not become healthy in time.
func tooLate(period time.Duration, what string, err error, hint string) string {
	switch {
	case hint == "":
		return fmt.Sprintf("was not healthy within %s: %s: %v", period, what, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("was not healthy within %s: it %s", period, hint) // which is why
	}
	return fmt.Sprintf("was not healthy within %s: %s: %v (it %s)", period, what, err, hint)
}

func or(d dayfly.Duration, usual time.Duration) time.Duration {
	if d == 0 {
		return usual
	}
	return time.Duration(d)
}

// probe gives the check of a deployment's instances, and what it does in words.
func (i *instance) probe(d dayfly.Deployment) (check func(context.Context) error, what string) {
	h := d.Definition.Health
	address := fmt.Sprintf("127.0.0.1:%d", i.rec.Port)
	switch {
	case h.Path != "" && i.rec.Port != 0:
		client := &http.Client{CheckRedirect: errNoRedirect, Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil}}
		return func(ctx context.Context) error { return ask(ctx, client, "http://"+address+h.Path) }, "GET " + h.Path
	case len(h.Test) > 0:
		return func(ctx context.Context) error { return i.test(ctx, d) }, "the check " + h.Test[0]
	case i.rec.Port != 0:
		var dialer net.Dialer
		return func(ctx context.Context) error {
			c, err := dialer.DialContext(ctx, "tcp", address)
			if err == nil {
				err = c.Close()
			}
			return err
		}, fmt.Sprintf("port %d ($PORT) takes connections", i.rec.Port)
	}
	started := i.rec.StartedAt
	return func(ctx context.Context) error {
		select {
		case <-time.After(time.Until(started.Add(alone))):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, "it lives"
}

func ask(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "dayfly-health")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // the status has said it
	if resp.StatusCode >= 400 {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}

// test runs the check command of a deployment.
func (i *instance) test(ctx context.Context, d dayfly.Deployment) error {
	env := i.variables(d)
	args := spec.Expand(d.Definition.Health.Test, env)
	dir := i.k.r.path("builds", buildKey(d))
	path, err := lookPath(args[0], dir, env["PATH"], i.k.rec.User)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, args[1:]...) //nolint:forbidigo // an argument vector of the project file
	cmd.Dir, cmd.Env = dir, list(env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: credential(i.k.rec.User)}
	cmd.Cancel = func() error { killGroup(cmd.Process.Pid); return nil }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if cmd.Process != nil {
		killGroup(cmd.Process.Pid)
	}
	return err
}
