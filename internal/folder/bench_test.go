//go:build linux

package folder

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// BenchmarkLook is what is done twice a second where nothing changes.
func BenchmarkLook(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			for i := range n {
				put(b, fmt.Sprintf("%s/%d.yaml", dir, i), "name: a\n")
			}
			w := newWatcher(Config{Dir: dir, Changed: func(context.Context, []File) time.Duration { return 0 }})
			defer w.unwatch()
			now := time.Now()
			for range 4 { // until all are old
				w.at(b.Context(), now)
				now = now.Add(doubt)
			}
			for b.Loop() {
				w.at(b.Context(), now)
				now = now.Add(poll)
			}
		})
	}
}
