package embedded_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry/embedded"
)

// smallDisk mounts a file system of its own on a loop device.
func smallDisk(t *testing.T, megabytes int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	for _, args := range [][]string{
		{"truncate", "-s", fmt.Sprintf("%dM", megabytes), image}, {"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no small disk can be mounted here: %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill writes until not a byte more is taken.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

func TestAFullDiskEndsNothingAndRefusesChangesUntilThereIsRoom(t *testing.T) {
	dir := smallDisk(t, 128)
	s, err := embedded.Start(t.Context(), filepath.Join(dir, "state"), "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	put := func(value string) error {
		_, err := s.Client().Put(t.Context(), "key", value)
		return err
	}
	until := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	if err := put("before"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // the server looks at its disk twice a second
	filler := filepath.Join(dir, "filler")
	fill(t, filler)
	// What is written at first still has room; then it is refused.
	value := bytes.Repeat([]byte("x"), 1000)
	until("changes are refused", func() bool { return put(string(value)) != nil })
	err = put("refused")
	if dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !strings.Contains(err.Error(), "make room") {
		t.Errorf("refused with %v", err)
	}
	if _, err := s.Client().Txn(t.Context()).Commit(); dayfly.ErrorCode(err) != dayfly.CodeUnavailable {
		t.Errorf("a transaction: %v", err)
	}
	if got, err := s.Client().Get(t.Context(), "key"); err != nil || len(got.Kvs) != 1 {
		t.Errorf("reading: %v, %v", got, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	until("changes are taken again", func() bool { return put("after") == nil })
}
