// Package registrytest opens a real, empty state for the tests of those who work with it.
package registrytest

import (
	"context"
	"log/slog"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/registry"
)

// Open opens a state of its own with a cache, until the test ends.
func Open(t testing.TB) (*registry.Store, *registry.Cache) {
	t.Helper()
	store, err := registry.Open(context.Background(), registry.Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	cache := registry.NewCache(store)
	if err := cache.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cache.Close)
	return store, cache
}
