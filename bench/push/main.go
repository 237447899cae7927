// Command push measures what happens without a command of dayfly: from a git push, and from
// an environment file's rename into the folder of --environments, to the first answer of
// what was asked for; and what it costs a server at rest to follow many repositories
// elsewhere. The service is also started by hand, to show what of the time is its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/dayfly-dev/dayfly/bench/lab"
)

const (
	patience = 2 * time.Minute
	compose  = `name: app
services:
  web:
    ports: ["80"]
    x-dayfly: {route: /, health: /, process: {build: cp VERSION BUILT, run: benchservice}}
`
)

type options struct {
	binary, service             string
	rounds, files, repositories int
	rest                        time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.binary, "dayfly", "bin/dayfly", "the binary to measure")
	flag.StringVar(&o.service, "service", "", "bench/service ready made; empty = build it")
	flag.IntVar(&o.rounds, "rounds", 30, "pushes of each kind, and files one after the other")
	flag.IntVar(&o.files, "files", 100, "files at once")
	flag.IntVar(&o.repositories, "repositories", 200, "repositories elsewhere; 0 = skip this part")
	flag.DurationVar(&o.rest, "rest", time.Minute, "how long the server at rest is watched")
	flag.Parse()
	o.rounds, o.files = max(2, o.rounds), max(1, o.files) // one commit again and again would be no change
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(o options) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "milliseconds\tp50\tp90\tp99\tof\t")
	if err := quick(o, table); err != nil {
		return err
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if o.repositories == 0 {
		return nil
	}
	return atRest(o)
}

// row prints the percentiles of what took so long.
func row(w io.Writer, what string, took []time.Duration) {
	ms := func(percentile int) float64 { return float64(lab.At(took, percentile)) / float64(time.Millisecond) }
	fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%d\t\n", what, ms(50), ms(90), ms(99), len(took))
}

// quick measures pushes and files on one server.
func quick(o options, table io.Writer) error {
	l, err := lab.New(o.binary)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.BuildService(o.service); err != nil {
		return err
	}
	repo, err := l.Repo("app", map[string]string{"compose.yaml": compose, "VERSION": "start\n"})
	if err != nil {
		return err
	}
	environments := filepath.Join(l.Dir, "environments")
	if err := os.Mkdir(environments, 0o755); err != nil { //nolint:gosec // as a user would make it
		return err
	}
	if _, err := l.Start("--max-environments", "0", "--max-per-project", "0", "--environments", environments); err != nil {
		return err
	}
	b := &bench{Lab: l, repo: repo, environments: environments}
	// The first push makes the project, and fills the caches.
	if _, _, err := b.push("HEAD:refs/heads/main", "start"); err != nil {
		return err
	}
	byHand, err := b.byHand(o.rounds)
	if err != nil {
		return err
	}
	row(table, "the service alone, started by hand", byHand)
	if err := b.pushes(o.rounds, table); err != nil {
		return err
	}
	return b.files(o.rounds, o.files, table)
}

type bench struct {
	*lab.Lab
	repo, environments string
}

// byHand starts the service again and again and gives the times until it answers.
func (b *bench) byHand(rounds int) (took []time.Duration, err error) {
	for range rounds {
		address := lab.Free()
		_, port, _ := strings.Cut(address, ":")
		begun := time.Now()
		cmd := exec.Command(filepath.Join(b.Dir, "bin", "benchservice"))
		cmd.Dir, cmd.Env = b.repo, []string{"PORT=" + port}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		err := lab.Until(patience, func() bool {
			req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+address+"/", nil)
			if err != nil {
				return false
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return false
			}
			return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
		})
		took = append(took, time.Since(begun))
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if err != nil {
			return nil, err
		}
	}
	return took, nil
}

// pushes pushes new commits, with a build each, and then the same ones again, whose builds
// are there.
func (b *bench) pushes(rounds int, table io.Writer) error {
	for _, kind := range []struct {
		name string
		args []string
	}{{"-o no-wait", []string{"-o", "no-wait"}}, {"waiting", nil}} {
		prefix := strings.Trim(kind.name, "-")[:1]
		for _, build := range []string{"built anew", "build cached"} {
			var fromEnd, fromBegin []time.Duration
			for i := range rounds {
				version := fmt.Sprintf("%s%d", prefix, i)
				if build == "built anew" {
					if err := lab.Commit(b.repo, map[string]string{"VERSION": version + "\n"}); err != nil {
						return err
					}
					if err := lab.Git(b.repo, "tag", version); err != nil {
						return err
					}
				}
				end, begin, err := b.push(version+":refs/heads/main", version, kind.args...)
				if err != nil {
					return err
				}
				fromEnd, fromBegin = append(fromEnd, end), append(fromBegin, begin)
			}
			row(table, "git push, "+kind.name+", "+build+": from its begin to the first 200", fromBegin)
			row(table, "from its end (less than 0: before that)", fromEnd)
		}
	}
	return nil
}

// push pushes and gives the times from its end and from its begin to the first answer of the
// version. The environment is asked all the time, so the first of them may be less than 0.
func (b *bench) push(ref, version string, args ...string) (fromEnd, fromBegin time.Duration, err error) {
	seen, failed := make(chan time.Time, 1), make(chan error, 1)
	begun := time.Now()
	go func() {
		err := b.answers("app-main", version)
		seen <- time.Now()
		failed <- err
	}()
	pushErr := lab.Git(b.repo, append(append([]string{"push", "-q", "--force"}, args...), b.API+"/git/app.git", ref)...)
	ended := time.Now()
	if pushErr != nil {
		return 0, 0, pushErr
	}
	at := <-seen
	return at.Sub(ended), at.Sub(begun), <-failed
}

// answers waits until an environment answers with a version.
func (b *bench) answers(environment, version string) error {
	var status int
	var text string
	err := lab.Until(patience, func() bool {
		var err error
		status, text, err = b.Ask(environment)
		return err == nil && status == http.StatusOK && strings.HasPrefix(text, version+" ")
	})
	if err != nil {
		return fmt.Errorf("%s does not answer with %s: %w; last it was %d %s", environment, version, err, status, text)
	}
	return nil
}

// files moves environment files into the folder, one after the other and then many at once.
func (b *bench) files(rounds, many int, table io.Writer) error {
	var one []time.Duration
	for i := range rounds {
		took, err := b.appear([]string{fmt.Sprintf("one-%d", i)})
		if err != nil {
			return err
		}
		one = append(one, took...)
	}
	row(table, "a file's rename to the first 200", one)
	names := make([]string, many)
	for i := range names {
		names[i] = fmt.Sprintf("many-%d", i)
	}
	all, err := b.appear(names)
	if err != nil {
		return err
	}
	row(table, fmt.Sprintf("%d files at once: each to its first 200", many), all)
	return nil
}

// appear moves files into the folder, waits for their environments to answer, and takes all
// of it away again. It gives the times from the first rename to the first answers.
func (b *bench) appear(names []string) ([]time.Duration, error) {
	at := func(name string) string { return filepath.Join(b.environments, name+".yaml") }
	for _, name := range names {
		text := fmt.Sprintf("name: %s\nproject: app\nbranch: main\n", name)
		if err := os.WriteFile(filepath.Join(b.Dir, name), []byte(text), 0o644); err != nil { //nolint:gosec // the server may be somebody else
			return nil, err
		}
	}
	begun := time.Now()
	for _, name := range names {
		if err := os.Rename(filepath.Join(b.Dir, name), at(name)); err != nil {
			return nil, err
		}
	}
	took := make([]time.Duration, len(names))
	missing := map[int]bool{}
	for i := range names {
		missing[i] = true
	}
	// One asks for all in turn: a client for each would take the processor from the server.
	err := lab.Until(patience, func() bool {
		for i := range missing {
			if status, _, err := b.Ask(names[i]); err == nil && status == http.StatusOK {
				took[i] = time.Since(begun)
				delete(missing, i)
			}
		}
		return len(missing) == 0
	})
	if err != nil {
		return nil, fmt.Errorf("%d of %d files are no environments: %w", len(missing), len(names), err)
	}
	for _, name := range names {
		err = errors.Join(err, os.Remove(at(name)))
	}
	if err != nil {
		return nil, err
	}
	return took, lab.Until(patience, func() bool {
		for _, name := range names {
			if status, _, err := b.Call(http.MethodGet, "/v1/environments/"+name, nil); err != nil || status != http.StatusNotFound {
				return false
			}
		}
		return true
	})
}

// counter counts what many handlers do at once.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
}

func (c *counter) get() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}
