// Command idle measures a server at rest: size of the binary, time from its start until it
// is ready, memory and CPU. Then the same with many environments in its state, that belong
// to another node, so that this server knows and routes them and runs none.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
)

func main() {
	binary := flag.String("dayfly", "bin/dayfly", "the binary to measure")
	many := flag.Int("environments", 1000, "environments known in the second part")
	flag.Parse()
	for _, n := range []int{0, *many} {
		if err := measure(*binary, n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func measure(binary string, environments int) error {
	dir, err := os.MkdirTemp("", "dayfly-bench-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	data := filepath.Join(dir, "data")
	if environments > 0 {
		if err := fill(filepath.Join(data, "etcd"), environments); err != nil {
			return err
		}
	}
	var starts []time.Duration
	var server *exec.Cmd
	var api string
	for range 7 {
		if server != nil {
			_ = server.Process.Signal(syscall.SIGTERM)
			_ = server.Wait()
		}
		api = free()
		server = exec.Command(binary, "server", "--data", data, "--listen", api, "--http", free(), "--internal", free())
		start := time.Now()
		if err := server.Start(); err != nil {
			return err
		}
		for {
			if resp, err := http.Get("http://" + api + "/readyz"); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					break
				}
			}
			if time.Since(start) > time.Minute {
				return fmt.Errorf("the server is not ready after a minute")
			}
			time.Sleep(500 * time.Microsecond)
		}
		starts = append(starts, time.Since(start))
	}
	defer func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		_ = server.Wait()
	}()
	time.Sleep(3 * time.Second) // until what a start needs is over
	before, begun := cpu(server.Process.Pid), time.Now()
	time.Sleep(10 * time.Second)
	used := cpu(server.Process.Pid) - before
	percent := 100 * used.Seconds() / time.Since(begun).Seconds()
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	slices.Sort(starts)
	fmt.Printf("%5d environments known: start to ready p50 %v (min %v), resident %s MiB, CPU at rest %.2f %%, binary %.1f MiB\n",
		environments, starts[len(starts)/2].Round(time.Millisecond), starts[0].Round(time.Millisecond), resident(server.Process.Pid), percent, float64(info.Size())/(1<<20))
	return nil
}

// fill writes environments of another node into the state.
func fill(dir string, n int) error {
	ctx := context.Background()
	store, err := registry.Open(ctx, registry.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer store.Close()
	expires := time.Now().Add(24 * time.Hour)
	if _, err := registry.Commit(ctx, store, registry.Create(registry.Projects, "shop", dayfly.Project{Format: dayfly.Format, ID: "p", Name: "shop", Repo: "/nowhere"})); err != nil {
		return err
	}
	for i := range n {
		name := fmt.Sprintf("shop-branch-%05d", i)
		id, d := "e-"+name, "d-"+name
		def := dayfly.Definition{Service: "web", Dir: ".", Run: dayfly.Command{"bin/web"}, Port: 80, Protocol: dayfly.ProtocolHTTP, Routes: []dayfly.PathRoute{{Path: "/"}}}
		_, err := registry.Commit(ctx, store,
			registry.Create(registry.Environments, name, dayfly.EnvironmentRecord{Format: dayfly.Format, ID: id, ExpiresAt: &expires, Spec: dayfly.EnvironmentSpec{Name: name, Project: "shop", Branch: name}}),
			registry.Create(registry.Resolutions, name, dayfly.Resolution{Format: dayfly.Format, Environment: id, Services: []dayfly.ResolvedService{{
				Name: "web", From: dayfly.FromOwn, Repo: "/nowhere", Commit: "c", Hash: "h", Definition: def, Variables: map[string]string{"DAYFLY_ENV": name},
				Address: fmt.Sprintf("127.1.%d.%d", i/250, i%250+1), Hosts: []string{name + ".localhost", "web-" + name + ".localhost"}}}}),
			registry.Create(registry.Releases, name, release.State{Format: dayfly.Format, Services: map[string][]release.Target{"web": {{Deployment: d, Version: "c", Weight: 1}}}}),
			registry.Create(registry.Deployments, d, dayfly.Deployment{Format: dayfly.Format, ID: d, Environment: name, Node: "elsewhere", Definition: def, Replicas: 1,
				Key: dayfly.DeploymentKey{Project: "shop", Service: "web", Version: "c", Hash: "h", Owner: id}}),
			registry.Create(registry.Observed, d, dayfly.DeploymentStatus{Format: dayfly.Format, Deployment: d, Node: "elsewhere", Phase: dayfly.DeploymentReady,
				Instances: []dayfly.Instance{{ID: "i-" + name, Deployment: d, Address: "127.0.0.1:1", Phase: dayfly.InstanceHealthy}}}))
		if err != nil {
			return err
		}
	}
	return nil
}

func cpu(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func resident(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "?"
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return fmt.Sprintf("%.1f", float64(kb)/1024)
		}
	}
	return "?"
}

func free() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return ""
	}
	defer l.Close()
	return l.Addr().String()
}
