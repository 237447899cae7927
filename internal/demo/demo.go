// Package demo shows the whole thing on this machine with the sample project: two branches
// side by side, an environment that borrows, a database for each where there is PostgreSQL, a
// new commit under load, a push to the server, a test, and nothing left behind.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api/client"
	"github.com/dayfly-dev/dayfly/internal/app"
)

// Options say how the demo runs.
type Options struct {
	Once   bool // end after the tour instead of staying up
	Out    io.Writer
	Config app.Config // of the server; Data is a folder of the demo's own
}

// tour is a demo under way.
type tour struct {
	Options
	dir    string // everything that the demo makes lies here
	repo   string
	public string // host:port
	server string // the API's address, as a URL
	api    *client.Client
	// databases says whether the shop keeps its orders in databases.
	databases bool
	database  string // name of the one that was changed
}

// stopping is how long taking everything down may take.
const stopping = time.Minute

// Run starts a server with everything in a temporary folder, makes the tour and, unless
// Once is set, stays up until ctx ends. Then it takes everything away.
func Run(ctx context.Context, o Options) (err error) {
	dir, err := os.MkdirTemp("", "dayfly-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeAll(dir)) }()
	// Services of another user have to get through to their trees.
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	t := &tour{Options: o, dir: dir, repo: filepath.Join(dir, "shop")}
	config := o.Config
	config.Data = filepath.Join(dir, "data")
	config.TakeDown = true
	// The shop needs no C, without which the first build is much quicker.
	if err := os.Setenv("CGO_ENABLED", "0"); err != nil {
		return err
	}
	config.PassEnv = append(config.PassEnv, "CGO_ENABLED")
	server, err := app.New(config, slog.New(slog.NewTextHandler(o.Out, &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		return err
	}
	if err := server.Start(ctx); err != nil {
		return err
	}
	defer func() {
		t.say("\nTaking everything away …")
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopping)
		defer cancel()
		err = errors.Join(err, server.Stop(stopCtx))
		if err == nil {
			t.say("Nothing is left: no process, no database, no folder.")
		}
	}()
	public, apiAddress, _ := server.Addresses()
	t.public, t.server = public, "http://"+apiAddress
	t.api = client.New(t.server, "")
	err = t.show(ctx)
	switch {
	case ctx.Err() != nil:
		return nil // the user has seen enough
	case err != nil || o.Once:
		return err
	}
	t.invite()
	<-ctx.Done()
	return nil
}

// show is the tour itself.
func (t *tour) show(ctx context.Context) error {
	if err := t.loadOrders(ctx); err != nil {
		return err
	}
	if err := t.makeRepository(ctx); err != nil {
		return err
	}

	t.step("A project: a git repository with a compose.yaml. This one is a small shop: a frontend, a backend, a worker, and a test.")
	t.command("dayfly project add shop --repo " + t.repo)
	if _, _, err := t.api.CreateProject(ctx, dayfly.ProjectRequest{Name: "shop", Repo: t.repo}); err != nil {
		return err
	}

	t.step("Two of its branches, side by side. The first build fills the project's cache and takes a moment.")
	for _, branch := range []string{"main", "summer-sale"} {
		t.command("dayfly create --project shop --branch " + branch)
		if err := t.create(ctx, "shop-"+branch, dayfly.EnvironmentSpec{Project: "shop", Branch: branch}); err != nil {
			return err
		}
	}

	t.step("A third environment that is only its difference: the backend of summer-sale. It borrows all else from shop-main.")
	if err := t.share(ctx); err != nil {
		return err
	}

	if t.databases {
		t.step("A million orders in each of them, and a database of its own for each: whatever happens to one, the others stay whole.")
		if err := t.deleteOrder(ctx); err != nil {
			return err
		}
	}

	t.step("A new commit on main, while all three are under load.")
	if err := t.release(ctx); err != nil {
		return err
	}

	t.step("Another branch, pushed to the server itself. Its environment comes with the push, which ends with the address.")
	if err := t.push(ctx); err != nil {
		return err
	}

	t.step("The project's own smoke test, against the running environment.")
	t.command("dayfly test shop-main smoke")
	run, err := t.api.Test(ctx, "shop-main", "smoke")
	if err != nil {
		return err
	}
	t.say("  %s after %s", run.Phase, run.EndedAt.Sub(run.StartedAt).Round(time.Millisecond))
	if run.Phase != "passed" {
		return dayfly.Errorf(dayfly.CodeFailed, "the smoke test failed: %s", strings.Join(run.Log, "\n"))
	}
	return nil
}

// create makes an environment and tells its steps.
func (t *tour) create(ctx context.Context, name string, spec dayfly.EnvironmentSpec) error {
	start := time.Now()
	env, _, err := t.api.CreateEnvironment(ctx, dayfly.EnvironmentRequest{Spec: spec})
	if err != nil {
		return err
	}
	steps, cancel := context.WithCancel(ctx)
	defer cancel()
	for e, err := range t.api.Events(steps, name, dayfly.EventOptions{Follow: true}) {
		if err != nil {
			return err
		}
		if e.Reason == "building" || e.Reason == "database-ready" || e.Reason == "ready" && e.Service != "" || e.Kind != dayfly.EventStep {
			t.say("  %5.1f s  %s", e.Time.Sub(start).Seconds(), e.Message)
		}
		if e.Service != "" {
			continue
		}
		switch dayfly.Phase(e.Reason) {
		case dayfly.PhaseReady:
			env, err = t.api.Environment(ctx, name)
			if err != nil {
				return err
			}
			t.say("  %5.1f s  ready at %s", e.Time.Sub(start).Seconds(), env.URL)
			return nil
		case dayfly.PhaseFailed, dayfly.PhaseDegraded:
			return dayfly.Errorf(dayfly.CodeFailed, "environment %s %s", name, e.Message)
		}
	}
	return ctx.Err()
}

// release commits to main under load, and counts.
func (t *tour) release(ctx context.Context) error {
	before, err := t.api.Environment(ctx, "shop-main")
	if err != nil {
		return err
	}
	l := startLoad(ctx, t.public, []string{"shop-main.localhost", "shop-summer-sale.localhost", borrower + ".localhost"})
	if err := t.commit(ctx, "Everything for a life of one day", "Everything for a life of one day, and one evening", "Sell evenings, too"); err != nil {
		l.stop()
		return err
	}
	t.command("git commit -m 'Sell evenings, too'")
	start := time.Now()
	err = t.follow(ctx, before)
	if err == nil {
		t.say("  %5.1f s  the new commit answers, the old version has been drained", time.Since(start).Seconds())
		select { // and some more for the count
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
		}
	}
	result := l.stop()
	if err != nil {
		return err
	}
	t.say("  %s", result)
	if result.failed > 0 {
		return dayfly.Errorf(dayfly.CodeFailed, "%d requests failed: %w", result.failed, result.err)
	}
	return nil
}

// follow waits until main's new commit serves.
func (t *tour) follow(ctx context.Context, before dayfly.Environment) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		page, err := t.page(ctx, "shop-main.localhost")
		if err == nil && strings.Contains(page, "one evening") {
			return nil
		}
		env, err := t.api.Environment(ctx, before.Name)
		if err == nil && env.Phase == dayfly.PhaseDegraded {
			return dayfly.Errorf(dayfly.CodeFailed, "the new commit does not run: %s", env.Message)
		}
		select {
		case <-ctx.Done():
			return dayfly.Errorf(dayfly.CodeTimeout, "the new commit did not come up in time: %s", env.Message)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// page asks for the front page of a host at the public listener, without asking DNS.
func (t *tour) page(ctx context.Context, host string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.public+"/", nil)
	if err != nil {
		return "", err
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// invite says what to try now.
func (t *tour) invite() {
	flags := ""
	if t.server != "http://127.0.0.1:7070" {
		flags = " --server " + t.server
	}
	_, port, _ := strings.Cut(t.public, ":")
	database := ""
	if t.databases {
		database = fmt.Sprintf("\n  psql \"$(dayfly%[1]s db url %[2]s)\"\n  dayfly%[1]s db reset %[2]s", flags, t.database)
	}
	t.say(`
Open them:
  http://shop-main.localhost:%[1]s
  http://shop-summer-sale.localhost:%[1]s
  http://%[6]s.localhost:%[1]s    its foot says who has made the page
  http://shop-%[5]s.localhost:%[1]s
  %[2]s/docs                   the HTTP API

Try, in another terminal:
  dayfly%[3]s list
  dayfly%[3]s details %[6]s
  dayfly%[3]s logs shop-main -f
  dayfly%[3]s events shop-main
  cd %[4]s, change something, and git commit: the environment follows
  git push %[2]s/git/shop.git HEAD:mine, and that is an environment, too
  dayfly%[3]s delete shop-summer-sale%[7]s

Ctrl-C takes everything away.`, port, t.server, flags, t.repo, pushedBranch, borrower, database)
}

func (t *tour) step(text string)               { t.say("\n%s", text) }
func (t *tour) command(command string)         { t.say("  $ %s", command) }
func (t *tour) say(format string, args ...any) { fmt.Fprintf(t.Out, format+"\n", args...) }

// removeAll removes a folder in which some folders are read-only.
func removeAll(dir string) error {
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return nil
	})
	return errors.Join(err, os.RemoveAll(dir))
}
