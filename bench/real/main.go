// Command real makes many real environments of one small service, asks each of them once
// when the last is made, deletes them all and looks for what was left behind.
package main

import (
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly/bench/lab"
)

func main() {
	binary := flag.String("dayfly", "bin/dayfly", "the binary to measure")
	service := flag.String("service", "", "bench/service ready made; empty = build it")
	n := flag.Int("n", 500, "environments")
	flag.Parse()
	if err := run(*binary, *service, *n); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(binary, service string, n int) error {
	l, err := lab.New(binary)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.BuildService(service); err != nil {
		return err
	}
	repo, err := l.Repo("repo", map[string]string{"Procfile": "web: benchservice\n", "VERSION": "1\n"})
	if err != nil {
		return err
	}
	// Logs of what is gone are kept on purpose; here they would look like leftovers.
	if _, err := l.Start("--max-environments", "0", "--max-per-project", "0", "--keep-logs", "1s"); err != nil {
		return err
	}
	// One environment that comes and goes makes what all share: mirror, checkout, build.
	if err := l.Create("first", repo, "main"); err != nil {
		return err
	}
	if err := l.Answers("first"); err != nil {
		return err
	}
	if err := l.Delete("first"); err != nil {
		return err
	}
	empty, err := folders(l.Data)
	if err != nil {
		return err
	}
	rest := lab.Resident(l.PID())

	name := func(i int) string { return fmt.Sprintf("real-%03d", i) }
	begun := time.Now()
	if err := each(n, func(i int) error {
		if err := l.Create(name(i), repo, "main"); err != nil {
			return err
		}
		return l.Answers(name(i))
	}); err != nil {
		return err
	}
	made := time.Since(begun)

	var mu sync.Mutex
	var wrong []string
	begun = time.Now()
	if err := each(n, func(i int) error {
		status, text, err := l.Ask(name(i))
		if err != nil || status != http.StatusOK || text != "1 "+name(i) {
			mu.Lock()
			defer mu.Unlock()
			wrong = append(wrong, fmt.Sprintf("%s: %d %q %v", name(i), status, text, err))
		}
		return nil
	}); err != nil {
		return err
	}
	asked := time.Since(begun)
	full, running := lab.Resident(l.PID()), len(l.Processes())
	before, since := lab.CPU(l.PID()), time.Now()
	time.Sleep(10 * time.Second) // this is what is measured
	percent := 100 * (lab.CPU(l.PID()) - before).Seconds() / time.Since(since).Seconds()

	begun = time.Now()
	if err := each(n, func(i int) error { return l.Delete(name(i)) }); err != nil {
		return err
	}
	deleted := time.Since(begun)
	// The logs go a moment after their --keep-logs.
	var left []string
	_ = lab.Until(30*time.Second, func() bool {
		now, err := folders(l.Data)
		if err != nil {
			return false
		}
		left = slices.DeleteFunc(now, func(path string) bool { return slices.Contains(empty, path) })
		return len(left) == 0
	})
	processes := l.Processes()

	fmt.Printf("%d real environments: made and answering after %v (%.1f ms each), all asked once in %v: %d wrong\n",
		n, made.Round(time.Millisecond), made.Seconds()*1000/float64(n), asked.Round(time.Millisecond), len(wrong))
	fmt.Printf("%d real environments: server resident %s (%s before them, %.1f KiB each), CPU at rest %.1f %%, %d processes of services\n",
		n, lab.MiB(full), lab.MiB(rest), float64(full-rest)/1024/float64(n), percent, running)
	fmt.Printf("%d real environments deleted in %v: %d processes and %d files left behind\n", n, deleted.Round(time.Millisecond), len(processes), len(left))
	switch {
	case len(wrong) > 0:
		return fmt.Errorf("wrong answers: %s", strings.Join(wrong[:min(10, len(wrong))], "; "))
	case running != n:
		return fmt.Errorf("%d processes of services ran for %d environments", running, n)
	case len(processes) > 0:
		return fmt.Errorf("processes left behind: %v", processes)
	case len(left) > 0:
		return fmt.Errorf("left behind: %s", strings.Join(left[:min(10, len(left))], ", "))
	}
	return nil
}

// each does something n times, eight at a time, and gives the first error.
func each(n int, do func(int) error) error {
	next := make(chan int)
	var workers sync.WaitGroup
	var mu sync.Mutex
	var first error
	for range 8 {
		workers.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
	return first
}

// folders gives everything in the data folder but the state, whose files are etcd's.
func folders(data string) (paths []string, err error) {
	err = filepath.WalkDir(data, func(path string, _ fs.DirEntry, err error) error {
		if path == filepath.Join(data, "etcd") {
			return filepath.SkipDir
		}
		if err == nil {
			paths = append(paths, path)
		}
		return nil // what goes away while it is looked at is not left behind
	})
	return paths, err
}
