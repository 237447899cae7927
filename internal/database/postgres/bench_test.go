//go:build linux

package postgres

import (
	"fmt"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/database"
)

// BenchmarkClone measures what a clone takes without the copying of its folder: "ready" from Prepare to the first SELECT 1 over
// TCP, "start" what PostgreSQL itself takes to start on a folder that is prepared.
func BenchmarkClone(b *testing.B) {
	w := newWorld(b)
	template, _ := w.load("t", database.Load{Fixtures: []byte("CREATE TABLE a AS SELECT generate_series(1, 100000);")})
	n := 0
	b.Run("ready", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			n++
			c := database.Clone{ID: "c", User: "app", Password: "secret", Port: freePort(b)}
			dir := w.copied(template, fmt.Sprint("c", n))
			b.StartTimer()
			if err := w.Prepare(b.Context(), dir, c); err != nil {
				b.Fatal(err)
			}
			s, err := w.Start(b.Context(), dir, c)
			if err != nil {
				b.Fatal(err)
			}
			if got, err := try(b.Context(), c, "shop", "SELECT 1"); err != nil || got != "1" {
				b.Fatal(got, err)
			}
			b.StopTimer()
			s.Close()
			if err := w.Stop(b.Context(), dir, false); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("start", func(b *testing.B) {
		dir, c := w.clone(template, "again")
		cl, _, err := w.of(b.Context(), dir, c.Port)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			b.StopTimer()
			if err := cl.stop(b.Context(), true); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			s, err := cl.start(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			s.Close()
		}
	})
}
