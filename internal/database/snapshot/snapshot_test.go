//go:build linux

package snapshot_test

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot/snapshottest"
)

func TestMain(m *testing.M) {
	if os.Getenv(asUser) != "" {
		os.Exit(actAsUser())
	}
	// Each check makes and deletes dozens of folders on each file system. Who asks for more gets it.
	flag.Parse()
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set("15"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

func TestDrivers(t *testing.T) {
	for name, driver := range map[string]snapshottest.Driver{
		"btrfs": {
			Dir: snapshottest.Btrfs, Name: "btrfs", Options: snapshot.Options{Driver: "btrfs", Pool: snapshot.PoolNone},
			ReadOnly: true, ReadOnlyClones: true,
		},
		"btrfs in a pool on ext4": {
			Dir: snapshottest.Ext4, Name: "btrfs", Options: snapshot.Options{Driver: "btrfs"},
			ReadOnly: true, ReadOnlyClones: true, Pooled: true,
		},
		"reflink on XFS": {
			Dir: snapshottest.XFS, Name: "reflink", Options: snapshot.Options{Driver: "reflink"},
		},
		"reflink on btrfs": {
			Dir: snapshottest.Btrfs, Name: "reflink", Options: snapshot.Options{Driver: "reflink"},
		},
		"overlay on ext4": {
			Dir: snapshottest.Ext4, Name: "overlay", Options: snapshot.Options{Driver: "overlay"},
			WholeFiles: true, ReadOnlyClones: true,
		},
		"overlay on XFS": {
			Dir: snapshottest.XFS, Name: "overlay", Options: snapshot.Options{Driver: "overlay"},
			ReadOnlyClones: true, // copying up shares blocks, where that is possible
		},
		"copy on ext4": {
			Dir: snapshottest.Ext4, Name: "copy", Options: snapshot.Options{Driver: "copy"}, Copies: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			snapshottest.Run(t, driver)
		})
	}
}
