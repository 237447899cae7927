package keeper

import (
	"time"

	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
)

// growEvery is how often room is looked for: within this time, nobody writes as much as there should be.
const growEvery = time.Second

// grow sees to it that there is room to write, where the Cloner's room has to be seen to.
func (k *Keeper) grow() {
	grower, ok := k.o.Cloner.(snapshot.Grower)
	if !ok {
		return
	}
	tick := time.NewTicker(growEvery)
	defer tick.Stop()
	for {
		select {
		case <-k.ctx.Done():
			return
		case <-tick.C:
		}
		k.mu.Lock()
		busy := k.loading > 0 || len(k.clones) > 0
		k.mu.Unlock()
		if !busy {
			continue
		}
		if err := grower.Grow(k.ctx); err != nil && k.ctx.Err() == nil {
			k.o.Logger.Warn("no more room can be made for databases: delete some, or free room on the disk", "error", err)
		}
	}
}
