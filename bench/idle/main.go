// Command idle measures a server at rest: size of the binary, time from its start until it
// is ready, memory and CPU. Then the same with many environments in its state, that belong
// to another node, so that this server knows and routes them and runs none; and what it
// takes to list them, to look at one, and to create one more. What is done for one
// environment should not cost more where there are many.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/bench/lab"
	"github.com/dayfly-dev/dayfly/internal/api/client"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
)

var noBounds = []string{"--max-environments", "0", "--max-per-project", "0"}

func main() {
	binary := flag.String("dayfly", "bin/dayfly", "the binary to measure")
	service := flag.String("service", "", "bench/service ready made; empty = build it")
	sizes := flag.String("environments", "0,100,10000", "environments known, one run for each; the last two are compared")
	starts := flag.Int("starts", 7, "starts to measure, each")
	flag.Parse()
	if err := run(*binary, *service, *sizes, *starts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(binary, service, sizes string, starts int) error {
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	fmt.Printf("binary %.1f MiB\n", float64(info.Size())/(1<<20))
	var all []figures
	for text := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		f, err := measure(binary, service, n, starts)
		if err != nil {
			return err
		}
		all = append(all, f)
	}
	if len(all) < 2 {
		return nil
	}
	few, many := all[len(all)-2], all[len(all)-1]
	ratio := func(a, b time.Duration) float64 { return float64(b) / float64(a) }
	fmt.Printf("%d against %d environments: start %.1f times as long, list of 100 %.1f, list of all %.1f, details %.1f, one more create %.1f, resident %.1f KiB each, CPU at rest %.2f %% and %.2f %%\n",
		many.environments, few.environments, ratio(few.start, many.start), ratio(few.page, many.page), ratio(few.list, many.list), ratio(few.details, many.details), ratio(few.create, many.create),
		float64(many.resident-few.resident)/1024/float64(many.environments-few.environments), few.cpu, many.cpu)
	return nil
}

// figures are what was seen with a number of environments.
type figures struct {
	environments                       int
	start, page, list, details, create time.Duration
	resident                           int
	cpu                                float64 // percent of a core
}

func measure(binary, service string, environments, rounds int) (f figures, err error) {
	f.environments = environments
	l, err := lab.New(binary)
	if err != nil {
		return f, err
	}
	defer l.Close()
	if err := l.BuildService(service); err != nil {
		return f, err
	}
	files := map[string]string{"Procfile": "web: benchservice\n", "VERSION": "1\n"}
	repo, err := l.Repo("extra", files)
	if err != nil {
		return f, err
	}
	if environments > 0 {
		shop, err := l.Repo("shop", files)
		if err != nil {
			return f, err
		}
		if err := fill(l, shop, environments); err != nil {
			return f, err
		}
	}
	var starts []time.Duration
	for range rounds {
		if err := l.Stop(); err != nil {
			return f, err
		}
		took, err := l.Start(noBounds...)
		if err != nil {
			return f, err
		}
		starts = append(starts, took)
	}
	settled := settle(l)
	if n := len(l.Processes()); n != min(environments, 1) {
		return f, fmt.Errorf("%d services run here, although all but one belong to another node", n)
	}
	before, begun := lab.CPU(l.PID()), time.Now()
	time.Sleep(10 * time.Second) // this is what is measured
	f.cpu = 100 * (lab.CPU(l.PID()) - before).Seconds() / time.Since(begun).Seconds()
	f.start = lab.At(starts, 50)
	var mapped int
	f.resident, mapped = lab.Memory(l.PID())
	fmt.Printf("%5d environments known: start to ready p50 %v (min %v), at rest %.0f s and %v of CPU later, resident %s (and %s of mapped files), CPU at rest %.2f %%\n",
		environments, ms(f.start), ms(lab.At(starts, 0)), settled.Seconds(), before, lab.MiB(f.resident), lab.MiB(mapped), f.cpu)

	if environments > 0 {
		if f.page, err = latency(l, 50, "/v1/environments?limit=100"); err != nil {
			return f, err
		}
		if f.list, err = all(l, environments); err != nil {
			return f, err
		}
		if f.details, err = latency(l, 200, "/v1/environments/"+name(environments/2)); err != nil {
			return f, err
		}
		fmt.Printf("%5d environments known: list of 100 p50 %v, list of all, page by page, %v, details p50 %v\n",
			environments, ms(f.page), ms(f.list), ms(f.details))
	}
	var created []time.Duration
	for i := range 11 {
		name := fmt.Sprintf("extra-%d", i)
		begun := time.Now()
		if err := l.Create(name, repo, "main"); err != nil {
			return f, err
		}
		if err := l.Answers(name); err != nil {
			return f, err
		}
		if i > 0 { // the first one fills the caches
			created = append(created, time.Since(begun))
		}
		if err := l.Delete(name); err != nil {
			return f, err
		}
	}
	f.create = lab.At(created, 50)
	fmt.Printf("%5d environments known: one more, to its first 200, p50 %v (min %v); resident after all of that %s\n",
		environments, ms(f.create), ms(lab.At(created, 0)), lab.MiB(lab.Resident(l.PID())))
	return f, nil
}

// settle waits until what a start needs is over: until the server has been quiet for
// three seconds. It gives up after five minutes, and what is measured then shows why.
func settle(l *lab.Lab) time.Duration {
	begun := time.Now()
	for time.Since(begun) < 5*time.Minute {
		before, quiet := lab.CPU(l.PID()), time.Now()
		time.Sleep(3 * time.Second)
		if (lab.CPU(l.PID()) - before).Seconds() < 0.03*time.Since(quiet).Seconds() {
			return quiet.Sub(begun)
		}
	}
	return time.Since(begun)
}

func ms(d time.Duration) time.Duration {
	return d.Round(10 * time.Microsecond)
}

// latency asks the API again and again and gives the median.
func latency(l *lab.Lab, rounds int, path string) (time.Duration, error) {
	var took []time.Duration
	for range rounds {
		begun := time.Now()
		status, text, err := l.Call(http.MethodGet, path, nil)
		if err != nil || status != http.StatusOK {
			return 0, fmt.Errorf("%s: %d %s %w", path, status, text, err)
		}
		took = append(took, time.Since(begun))
	}
	return lab.At(took, 50), nil
}

// all lists everything as the client does and gives the median.
func all(l *lab.Lab, environments int) (time.Duration, error) {
	c := client.New(l.API, "")
	var took []time.Duration
	for range 7 {
		begun := time.Now()
		items, err := c.Environments(context.Background(), "")
		if err != nil {
			return 0, err
		}
		if len(items) != environments {
			return 0, fmt.Errorf("%d environments are listed instead of %d", len(items), environments)
		}
		took = append(took, time.Since(begun))
	}
	return lab.At(took, 50), nil
}

func name(i int) string { return fmt.Sprintf("shop-branch-%05d", i) }

// records are those of one environment.
type records struct {
	Environment dayfly.EnvironmentRecord
	Resolution  dayfly.Resolution
	Release     release.State
	Deployment  dayfly.Deployment
	Observed    dayfly.DeploymentStatus
}

// fill makes one environment as users do, ends the server and writes copies of it into the
// state, each with a branch, a name, hosts and addresses of its own, that another node runs.
func fill(l *lab.Lab, repo string, n int) error {
	if err := branches(repo, n); err != nil {
		return err
	}
	if _, err := l.Start(noBounds...); err != nil {
		return err
	}
	if err := l.Create(name(0), repo, name(0)); err != nil {
		return err
	}
	if err := l.Answers(name(0)); err != nil {
		return err
	}
	if err := l.Stop(); err != nil {
		return err
	}
	ctx := context.Background()
	store, err := registry.Open(ctx, registry.Config{Dir: filepath.Join(l.Data, "etcd"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer store.Close()
	model, err := read(ctx, store)
	if err != nil {
		return err
	}
	for i := 1; i < n; i++ {
		r, err := model.copy(i)
		if err != nil {
			return err
		}
		id, d := r.Environment.ID, r.Deployment.ID
		ops := []registry.Op{
			registry.Create(registry.Environments, name(i), r.Environment),
			registry.Create(registry.Resolutions, name(i), r.Resolution),
			registry.Create(registry.Releases, name(i), r.Release),
			registry.Create(registry.Deployments, d, r.Deployment),
			registry.Create(registry.Observed, d, r.Observed),
		}
		for _, rs := range r.Resolution.Services {
			ops = append(ops, registry.Create(registry.Addresses, rs.Address, registry.AddressClaim{Environment: id, Service: rs.Name}))
			for _, host := range rs.Hosts {
				ops = append(ops, registry.Create(registry.Hosts, host, registry.HostClaim{Environment: id, Name: name(i)}))
			}
		}
		if _, err := registry.Commit(ctx, store, ops...); err != nil {
			return err
		}
	}
	return nil
}

// branches makes one for each environment.
func branches(repo string, n int) error {
	var list strings.Builder
	for i := range n {
		fmt.Fprintf(&list, "create refs/heads/%s HEAD\n", name(i))
	}
	update := exec.Command("git", "update-ref", "--stdin")
	update.Dir, update.Stdin = repo, strings.NewReader(list.String())
	if out, err := update.CombinedOutput(); err != nil {
		return fmt.Errorf("git update-ref: %w: %s", err, out)
	}
	return lab.Git(repo, "pack-refs", "--all")
}

// read gives the records of the first environment.
func read(ctx context.Context, store *registry.Store) (r records, err error) {
	e, err := registry.Get(ctx, store, registry.Environments, name(0))
	if err != nil {
		return r, err
	}
	res, err := registry.Get(ctx, store, registry.Resolutions, name(0))
	if err != nil {
		return r, err
	}
	rel, err := registry.Get(ctx, store, registry.Releases, name(0))
	if err != nil {
		return r, err
	}
	id := rel.Value.Services["web"][0].Deployment
	d, err := registry.Get(ctx, store, registry.Deployments, id)
	if err != nil {
		return r, err
	}
	o, err := registry.Get(ctx, store, registry.Observed, id)
	return records{e.Value, res.Value, rel.Value, d.Value, o.Value}, err
}

// copy gives the records of another environment that is made in the same way.
func (r records) copy(i int) (c records, err error) {
	text, err := json.Marshal(r)
	if err != nil {
		return c, err
	}
	address := func(net int) string { return fmt.Sprintf("127.%d.%d.%d", net, i/250, i%250+1) }
	text = []byte(strings.NewReplacer(
		name(0), name(i), r.Environment.ID, dayfly.NewID(), r.Deployment.ID, dayfly.NewID(), r.Deployment.Node, "elsewhere",
		r.Resolution.Services[0].Address, address(101), r.Resolution.Address, address(102),
	).Replace(string(text)))
	if err := json.Unmarshal(text, &c); err != nil {
		return c, err
	}
	for _, at := range []*time.Time{&c.Environment.CreatedAt, &c.Environment.RenewedAt, &c.Deployment.CreatedAt, &c.Observed.Since} {
		*at = at.Add(-time.Hour) // of new ones a server that starts would tell that they are ready
	}
	// As package resolve does; otherwise the server would start them all again, which
	// is noticed.
	rs := &c.Resolution.Services[0]
	b, err := json.Marshal(struct {
		Definition *dayfly.Definition
		Variables  map[string]string
	}{rs.Definition, rs.Variables})
	if err != nil {
		return c, err
	}
	sum := sha256.Sum256(b)
	rs.Hash = hex.EncodeToString(sum[:12])
	c.Deployment.Key.Hash = rs.Hash
	return c, nil
}
