package dayfly

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that reads and writes "90s", "36h", "5d", "2w"
// or "forever".
type Duration time.Duration

// Forever is the life of what never expires.
const Forever Duration = math.MaxInt64

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// ParseDuration reads a number with a unit (s, m, h, d, w, also ms), several
// of them ("1d12h"), or "forever". Negative durations are refused.
func ParseDuration(s string) (Duration, error) {
	if s == "forever" {
		return Forever, nil
	}
	bad := func() (Duration, error) {
		return 0, fmt.Errorf("%q is no duration: write a number and s, m, h, d or w, such as 36h or 5d", s)
	}
	var total time.Duration
	rest := s
	for rest != "" {
		i := strings.IndexFunc(rest, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if i <= 0 {
			return bad()
		}
		n, err := strconv.ParseFloat(rest[:i], 64)
		if err != nil {
			return bad()
		}
		rest = rest[i:]
		j := strings.IndexFunc(rest, func(r rune) bool { return r >= '0' && r <= '9' || r == '.' })
		if j < 0 {
			j = len(rest)
		}
		unit, ok := map[string]time.Duration{
			"ms": time.Millisecond, "s": time.Second, "m": time.Minute,
			"h": time.Hour, "d": day, "w": week,
		}[rest[:j]]
		if !ok {
			return bad()
		}
		part := n * float64(unit)
		if part+float64(total) >= math.MaxInt64 {
			return 0, fmt.Errorf("%q is longer than 292 years: write forever", s)
		}
		total += time.Duration(part) // each for itself: their sum has no place in a float
		rest = rest[j:]
	}
	if s == "" {
		return bad()
	}
	return Duration(total), nil
}

// String gives the shortest form that ParseDuration reads back, such as "5d"
// for 120 h.
func (d Duration) String() string {
	if d == Forever {
		return "forever"
	}
	t := time.Duration(d)
	switch {
	case t <= 0:
		return "0s"
	case t%week == 0:
		return strconv.FormatInt(int64(t/week), 10) + "w"
	case t%day == 0:
		return strconv.FormatInt(int64(t/day), 10) + "d"
	}
	var b strings.Builder
	for _, u := range []struct {
		size time.Duration
		name string
	}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := t / u.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			t -= n * u.size
		}
	}
	if b.Len() == 0 {
		return "0s"
	}
	return b.String()
}

// MarshalText writes String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads ParseDuration.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}
