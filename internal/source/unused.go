package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dayfly-dev/dayfly"
)

// Unused lists the trees and mirrors that nobody reads now. They stay for whoever wants them next, as
// long as there is room.
func (s *Source) Unused(ctx context.Context) ([]dayfly.Departure, error) {
	var list []dayfly.Departure
	var total int64
	for _, kind := range []struct{ folder, name string }{{"trees", "checkout"}, {"mirrors", "mirror"}} {
		found, err := os.ReadDir(filepath.Join(s.Dir, kind.folder))
		if err != nil {
			return nil, err
		}
		for _, d := range found {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			info, err := d.Info()
			if strings.Contains(d.Name(), making) || errors.Is(err, fs.ErrNotExist) {
				continue // not complete yet, or gone meanwhile
			}
			if err != nil {
				return nil, err
			}
			path := filepath.Join(s.Dir, kind.folder, d.Name())
			bytes := size(path)
			total += bytes
			if s.used(path) {
				continue
			}
			since := info.ModTime().UTC()
			list = append(list, dayfly.Departure{Kind: kind.name, Name: path, Reason: "nobody reads it now, and it can be had again from its repository", Since: &since, Bytes: bytes})
		}
	}
	for i := range list {
		list[i].How = "it stays: checkouts have no bound (--quota-checkouts)"
		if s.MaxBytes > 0 {
			list[i].How = fmt.Sprintf("the one that was not used for the longest time goes when all checkouts and mirrors are larger than %s; now they are %s (--quota-checkouts)", dayfly.Size(s.MaxBytes), dayfly.Size(total))
		}
	}
	return list, nil
}

// used says whether somebody reads a folder, or writes to it.
func (s *Source) used(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uses[dir] > 0 {
		return true
	}
	turn := s.busy[dir]
	return len(turn) > 0
}
