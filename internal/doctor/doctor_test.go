//go:build linux

package doctor

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// find gives what was said of one check.
func find(t *testing.T, all []dayfly.Finding, check string) dayfly.Finding {
	t.Helper()
	for _, f := range all {
		if f.Check == check {
			return f
		}
	}
	t.Fatalf("nothing was said of %s: %+v", check, all)
	return dayfly.Finding{}
}

func ready(context.Context) error { return nil }

func none() []dayfly.Leftover { return nil }

func TestAHostWithNothingWrongIsHealthy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	all := Examine(t.Context(), Host{Data: dir, Domain: "localhost", Addresses: map[string]string{"http": l.Addr().String()}, Ready: ready, Leftovers: none, Environments: "/srv/environments"})
	if f := find(t, all, "environment files"); !strings.Contains(f.Message, "/srv/environments is followed") {
		t.Errorf("%+v", f)
	}
	for _, f := range all {
		if !f.OK {
			t.Errorf("%+v", f)
		}
	}
	if !Healthy(all) {
		t.Error("it is not healthy")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("it left %v in the data folder, %v", left, err)
	}
}

func TestWhatIsWrongIsFoundAndExplained(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	for _, c := range []struct {
		name, check, message, advice string
		change                       func(t *testing.T, h *Host)
	}{
		{"etcd is away", "state", "no leader", "etcd", func(_ *testing.T, h *Host) {
			h.Ready = func(context.Context) error { return errors.New("no leader") }
		}},
		{"no git", "git", "cannot be run", "install", func(t *testing.T, _ *Host) { t.Setenv("PATH", t.TempDir()) }},
		{"an old git", "git", "2.17.1 is too old", "install", func(t *testing.T, _ *Host) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "git"), []byte("#!/bin/sh\necho git version 2.17.1\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir)
		}},
		{"no data folder", "data folder", "no such file", "--data", func(_ *testing.T, h *Host) { h.Data += "/gone" }},
		{"a parent that others cannot enter", "parent folders", "closed", "chmod o+x", func(t *testing.T, h *Host) {
			h.Users = true
			closed := filepath.Join(h.Data, "closed")
			h.Data = filepath.Join(closed, "data")
			if err := os.MkdirAll(h.Data, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(closed, 0o700); err != nil {
				t.Fatal(err)
			}
		}},
		{"the clock was set back", "clock", "set back", "chrony", func(t *testing.T, h *Host) {
			file := filepath.Join(h.Data, "file")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			later := time.Now().Add(time.Hour)
			if err := os.Chtimes(file, later, later); err != nil {
				t.Fatal(err)
			}
		}},
		{"no wildcard record", "DNS", "not found", "*.dayfly.invalid", func(_ *testing.T, h *Host) { h.Domain = "dayfly.invalid" }},
		{"a DNS of ours that does not answer", "DNS", "does not answer", "firewall", func(_ *testing.T, h *Host) {
			h.Domain, h.DNS = "dayfly.invalid", free.Addr().String()
		}},
		{"nobody answers", "port of --http", "nobody answers", "firewall", func(_ *testing.T, h *Host) { h.Addresses["http"] = free.Addr().String() }},
		{"a port in use, no server", "port of --http", "in use", "--http", func(_ *testing.T, h *Host) {
			h.Ready, h.Leftovers, h.Addresses["http"] = nil, nil, busy.Addr().String()
		}},
		{"the folder of environment files is away", "environment files", "it is empty", "mounting", func(_ *testing.T, h *Host) {
			h.Environments, h.EnvironmentsProblem = "/srv/environments", "it is empty"
		}},
		{"a leftover", "leftovers", "process 7", "30 s", func(_ *testing.T, h *Host) {
			h.Leftovers = func() []dayfly.Leftover { return []dayfly.Leftover{{Kind: "process", Name: "7"}} }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := Host{Data: t.TempDir(), Domain: "localhost", Addresses: map[string]string{}, Ready: ready, Leftovers: none}
			c.change(t, &h)
			all := Examine(t.Context(), h)
			f := find(t, all, c.check)
			if f.OK || !strings.Contains(f.Message, c.message) || !strings.Contains(f.Advice, c.advice) {
				t.Errorf("%+v", f)
			}
			if Healthy(all) {
				t.Error("it is said to be healthy")
			}
		})
	}
}
