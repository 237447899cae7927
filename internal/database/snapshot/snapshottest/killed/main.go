//go:build linux

// Command killed uses a driver of snapshots and says what it has done, so that a test can kill it
// at each step and look at what is left.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir, driver string) error {
	ctx, log := context.Background(), slog.New(slog.NewTextHandler(io.Discard, nil))
	c, err := snapshot.Open(ctx, snapshot.Options{Dir: dir, Driver: driver, Logger: log})
	if err != nil {
		return err
	}
	file := func(name string) error {
		path, err := c.Attach(ctx, name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(path, name), []byte(name), 0o600)
	}
	clone := func(from, name string) func() error {
		return func() error {
			_, err := c.Clone(ctx, from, name)
			return errors.Join(err, file(name))
		}
	}
	remove := func(name string) func() error { return func() error { return c.Delete(ctx, name) } }
	for _, step := range []struct {
		says string
		do   func() error
	}{
		{"made t", func() error {
			_, err := c.Create(ctx, "t")
			return errors.Join(err, file("t"), c.Freeze(ctx, "t"))
		}},
		{"made a", clone("t", "a")},
		{"made b", clone("a", "b")},
		{"frozen a", func() error { return c.Freeze(ctx, "a") }},
		{"made c", clone("a", "c")},
		{"grown", func() error { return grow(ctx, c) }},
		{"begun t", nil}, {"deleted t", remove("t")},
		{"begun a", nil}, {"deleted a", remove("a")},
		{"begun c", nil}, {"deleted c", remove("c")},
		{"begun b", nil}, {"destroyed b", func() error { return snapshot.Destroy(ctx, dir, log) }},
	} {
		if step.do != nil {
			if err := step.do(); err != nil {
				return fmt.Errorf("%s: %w", step.says, err)
			}
		}
		fmt.Println(step.says)
	}
	return nil
}

// grow makes the pool need more room, if there is one.
func grow(ctx context.Context, c snapshot.Cloner) error {
	g, ok := c.(snapshot.Grower)
	if !ok {
		return nil
	}
	path, err := c.Attach(ctx, "c")
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(path, "large"))
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, 100<<20), f.Close(), g.Grow(ctx))
}
