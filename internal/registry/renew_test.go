package registry_test

import (
	"fmt"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// BenchmarkRenew is what a renewal costs while there are many registrations.
func BenchmarkRenew(b *testing.B) {
	s := open(b, registry.Config{Dir: b.TempDir()})
	all := make([]dayfly.Registration, 500)
	for i := range all {
		made, err := s.Register(b.Context(), registration("shop", "", "web", "v1", fmt.Sprint(i)), 0)
		if err != nil {
			b.Fatal(err)
		}
		all[i] = made.Value
	}
	i := 0
	for b.Loop() {
		if alive, err := s.Renew(b.Context(), all[i%len(all)]); err != nil || !alive {
			b.Fatal(alive, err)
		}
		i++
	}
}
