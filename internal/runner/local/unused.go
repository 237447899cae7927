//go:build linux

package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/dayfly-dev/dayfly"
)

// Unused lists the builds that no deployment uses. They stay for the next one that is the same, as
// long as there is room.
func (r *Runner) Unused(ctx context.Context) ([]dayfly.Departure, error) {
	used := r.usedBuilds()
	entries, err := os.ReadDir(r.path("builds"))
	if err != nil {
		return nil, err
	}
	var list []dayfly.Departure
	var total int64
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if strings.Contains(e.Name(), ".new-") {
			continue // not whole yet, or left over
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		path := r.path("builds", e.Name())
		size := r.size(path)
		total += size
		if used[e.Name()] {
			continue
		}
		since := info.ModTime().UTC()
		list = append(list, dayfly.Departure{Kind: "build", Name: path, Reason: "no deployment uses it", Since: &since, Bytes: size})
	}
	for i := range list {
		list[i].How = "it stays: builds have no bound (--quota-builds)"
		if r.MaxBuildBytes > 0 {
			list[i].How = fmt.Sprintf("the one that was not used for the longest time goes when all builds are larger than %s; now they are %s (--quota-builds)", dayfly.Size(r.MaxBuildBytes), dayfly.Size(total))
		}
	}
	return list, nil
}

// usedBuilds gives the keys of the builds that are made or used now.
func (r *Runner) usedBuilds() map[string]bool {
	r.mu.Lock()
	used := map[string]bool{}
	for key := range r.building {
		used[key] = true
	}
	keepers := make([]*keeper, 0, len(r.keepers))
	for _, k := range r.keepers {
		keepers = append(keepers, k)
	}
	r.mu.Unlock()
	for _, k := range keepers {
		used[k.key()] = true
	}
	return used
}
