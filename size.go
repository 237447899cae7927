package dayfly

import "fmt"

// Size is a number of bytes.
type Size int64

// String gives a size for people: "3.1 GiB", "512 B".
func (s Size) String() string {
	value, units := float64(s), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	unit := 0
	for value >= 1023.95 && unit < len(units)-1 { // 1024.0 is one of the next
		value /= 1024
		unit++
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", int64(s))
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
