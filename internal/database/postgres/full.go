//go:build linux

package postgres

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
)

const (
	// noRoom is how programs say that a disk is full: they speak as in the C locale.
	noRoom = "No space left on device"
	// spent is what is free, in bytes, where nothing that was written need have reached the disk. Not all messages of a server
	// say why something could not be written.
	spent = 1 << 20
)

// explain says what to do where something failed because the disk of a folder is full.
func explain(dir string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || !full(dir, err) {
		return err
	}
	return dayfly.Errorf(dayfly.CodeUnavailable, "the disk of the databases is full: delete or reset the database that fills it, or make room on the disk: %w", err)
}

func full(dir string, err error) bool {
	if errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), noRoom) {
		return true
	}
	var e *dayfly.Error
	if errors.As(err, &e) && e.Code != dayfly.CodeFailed && e.Code != dayfly.CodeTimeout {
		return false // what is asked for is wrong
	}
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && int64(s.Bavail)*s.Bsize < spent //nolint:gosec // no disk has 2^63 bytes
}
