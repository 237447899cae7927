// Command create measures a warm create: three services in a chain, their build
// cached, from the request until the first 200 through the proxy. In between it starts
// the same three programs by hand, in the same order, to show what of the time is theirs.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const compose = `name: chain
services:
  front:
    ports: ["80"]
    depends_on: {middle: {condition: service_healthy}}
    x-dayfly: {route: /, health: /, process: {run: SERVICE http}}
  middle:
    ports: ["80"]
    depends_on: {back: {condition: service_healthy}}
    x-dayfly: {health: /, process: {run: SERVICE http}}
  back:
    ports: ["80"]
    x-dayfly: {health: /, process: {run: SERVICE http}}
`

func main() {
	binary := flag.String("dayfly", "bin/dayfly", "the binary to measure")
	service := flag.String("service", "", "the program that the services run (test/e2e/testservice)")
	rounds := flag.Int("rounds", 30, "creates to measure")
	flag.Parse()
	if err := run(*binary, *service, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(binary, service string, rounds int) error {
	dir, err := os.MkdirTemp("", "dayfly-bench-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	repo := filepath.Join(dir, "repo")
	if err := os.Mkdir(repo, 0o755); err != nil {
		return err
	}
	file := bytes.ReplaceAll([]byte(compose), []byte("SERVICE"), []byte(service))
	if err := os.WriteFile(filepath.Join(repo, "compose.yaml"), file, 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "-A"}, {"-c", "user.name=b", "-c", "user.email=b@localhost", "commit", "-q", "-m", "begin"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = repo
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git: %w: %s", err, out)
		}
	}
	api, public, internal := freeAddress(), freeAddress(), freeAddress()
	server := exec.Command(binary, "server", "--data", filepath.Join(dir, "data"), "--listen", api, "--http", public, "--internal", internal, "--take-down")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		return err
	}
	defer func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		_ = server.Wait()
	}()
	if err := until(time.Minute, func() bool { return status("http://"+api+"/readyz", "") == 200 }); err != nil {
		return err
	}
	var whole, answered, ours []time.Duration
	for i := range rounds + 1 {
		alone, err := byHand(service)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("round-%d", i)
		start := time.Now()
		body, _ := json.Marshal(map[string]string{"name": name, "repo": repo, "branch": "main"})
		resp, err := http.Post("http://"+api+"/v1/environments", "application/json", bytes.NewReader(body))
		if err != nil {
			return err
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode >= 300 {
			return fmt.Errorf("create answered %d: %s", resp.StatusCode, text)
		}
		accepted := time.Since(start)
		if err := until(time.Minute, func() bool { return status("http://"+public+"/", name+".localhost") == 200 }); err != nil {
			return err
		}
		total := time.Since(start)
		if i > 0 { // the first one fills the caches
			whole, answered, ours = append(whole, total), append(answered, accepted), append(ours, total-alone)
		}
		req, _ := http.NewRequest(http.MethodDelete, "http://"+api+"/v1/environments/"+name+"?wait=60s", nil)
		if resp, err = http.DefaultClient.Do(req); err != nil {
			return err
		}
		resp.Body.Close()
	}
	fmt.Printf("warm create, three services in a chain, to the first 200: p50 %v p90 %v; the request itself p50 %v; less the same three started by hand: p50 %v p90 %v (%d rounds)\n",
		at(whole, 50), at(whole, 90), at(answered, 50), at(ours, 50), at(ours, 90), rounds)
	return nil
}

// byHand starts the three programs one after the other, each when the one before answers,
// and says how long that took.
func byHand(service string) (time.Duration, error) {
	start := time.Now()
	for range 3 {
		address := freeAddress()
		_, port, _ := net.SplitHostPort(address)
		cmd := exec.Command(service, "http")
		cmd.Env = []string{"PORT=" + port}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
		if err := until(time.Minute, func() bool { return status("http://"+address+"/", "") == 200 }); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

func status(url, host string) int {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func until(limit time.Duration, done func() bool) error {
	for deadline := time.Now().Add(limit); !done(); time.Sleep(500 * time.Microsecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("nothing came within %s", limit)
		}
	}
	return nil
}

func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return ""
	}
	defer l.Close()
	return l.Addr().String()
}

func at(d []time.Duration, percentile int) time.Duration {
	slices.Sort(d)
	return d[min(len(d)-1, len(d)*percentile/100)].Round(100 * time.Microsecond)
}
