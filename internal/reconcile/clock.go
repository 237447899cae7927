package reconcile

import "time"

const (
	// jump is how far the clock may go ahead of the time that has really passed.
	jump = time.Minute
	// distrust is how long nothing is ended by a clock that has jumped ahead: for as long
	// as whoever set it wrongly may need to see that.
	distrust = 10 * time.Minute
)

// clockGuard compares the clock with the time that has passed since the server started. A
// clock that is set wrongly for a moment must not end every environment.
type clockGuard struct {
	known bool
	wall  time.Time
	up    time.Duration
	until time.Duration // the clock is not trusted, in time since the start
}

// observe takes in what the clock says and how long the server runs. It gives by how much
// the clock has jumped since the last look (0 = not worth a word), and whether it can be
// trusted.
func (g *clockGuard) observe(wall time.Time, up time.Duration) (by time.Duration, trusted bool) {
	wall = wall.Round(0) // what the clock says, not what has passed
	if g.known {
		by = wall.Sub(g.wall) - (up - g.up)
	}
	g.known, g.wall, g.up = true, wall, up
	switch {
	case by > jump:
		g.until = up + distrust
	case by < -jump:
		g.until = 0 // what had been wrong was put right
	default:
		by = 0
	}
	return by, up >= g.until
}
