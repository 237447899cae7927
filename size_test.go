package dayfly_test

import (
	"testing"

	"github.com/dayfly-dev/dayfly"
)

func TestASizeIsShownInTheUnitThatFits(t *testing.T) {
	for size, want := range map[dayfly.Size]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1 << 10: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 1 << 20: "1.0 MiB",
		20 << 30: "20.0 GiB", 3<<40 + 1<<39: "3.5 TiB", 5000 << 40: "5000.0 TiB",
	} {
		if got := size.String(); got != want {
			t.Errorf("%d is %s, want %s", int64(size), got, want)
		}
	}
}
