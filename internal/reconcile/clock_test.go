package reconcile

import (
	"testing"
	"time"
)

func TestAClockThatJumpsAheadIsNotTrustedForAWhile(t *testing.T) {
	start := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	var g clockGuard
	for _, c := range []struct {
		what    string
		wall    time.Duration // since start
		up      time.Duration
		by      time.Duration
		trusted bool
	}{
		{"the first look", 0, 0, 0, true},
		{"time passes", time.Second, time.Second, 0, true},
		{"a little drift", 31 * time.Second, 2 * time.Second, 0, true},
		{"a day ahead", 24*time.Hour + 32*time.Second, 3 * time.Second, 24 * time.Hour, false},
		{"still wrong", 24*time.Hour + 33*time.Second, 4 * time.Second, 0, false},
		{"put right", 34 * time.Second, 5 * time.Second, -24 * time.Hour, true},
		{"a day ahead again", 24*time.Hour + 35*time.Second, 6 * time.Second, 24 * time.Hour, false},
		{"it stays there", 24*time.Hour + 9*time.Minute, 9 * time.Minute, 0, false},
		{"for long enough", 24*time.Hour + 11*time.Minute, 11 * time.Minute, 0, true},
	} {
		by, trusted := g.observe(start.Add(c.wall), c.up)
		if by.Round(time.Minute) != c.by || trusted != c.trusted {
			t.Errorf("%s: jumped %s, trusted %t; want %s, %t", c.what, by, trusted, c.by, c.trusted)
		}
	}
}
