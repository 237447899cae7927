package source

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dayfly-dev/dayfly"

	"github.com/dayfly-dev/dayfly/internal/files"
)

// Sweep deletes the trees and mirrors that were not used for the longest time, for as long
// as all are larger than Config.MaxBytes. Each can be had again from its repository, so none
// of them is ever left over.
func (s *Source) Sweep(ctx context.Context, _ time.Duration, _ func(deploymentID string) bool) ([]dayfly.Leftover, error) {
	if s.MaxBytes <= 0 {
		return nil, nil
	}
	type folder struct {
		path string
		size int64
		used time.Time
	}
	var all []folder
	var total int64
	for _, kind := range []string{"trees", "mirrors"} {
		found, err := os.ReadDir(filepath.Join(s.Dir, kind))
		if err != nil {
			return nil, err
		}
		for _, d := range found {
			info, err := d.Info()
			if err != nil || strings.Contains(d.Name(), making) {
				continue // gone meanwhile, or not complete yet
			}
			f := folder{filepath.Join(s.Dir, kind, d.Name()), 0, info.ModTime()}
			f.size = size(f.path)
			total += f.size
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b folder) int { return a.used.Compare(b.used) })
	for _, f := range all {
		if total <= s.MaxBytes || ctx.Err() != nil {
			break
		}
		// What was used a moment ago may be in use.
		if time.Since(f.used) < time.Minute {
			continue
		}
		gone, err := s.setAside(f.path)
		if err != nil {
			return nil, err
		}
		if gone == "" {
			continue
		}
		s.Logger.Info("deleting what was not used for the longest time, to keep within the limit", "folder", f.path, "bytes", f.size)
		if err := files.RemoveAll(gone); err != nil {
			return nil, err
		}
		total -= f.size
	}
	return nil, nil
}

// size gives the bytes on disk of a folder.
func size(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it changes while it is looked at
		}
		if info, err := d.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				bytes += stat.Blocks * 512
			}
		}
		return nil
	})
	return bytes
}
