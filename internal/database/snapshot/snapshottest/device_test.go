//go:build linux

package snapshottest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/database/snapshot/loop"
)

func TestAFileSystemHasADeviceOfItsOwnAndGoesWithItsTest(t *testing.T) {
	for name, make := range map[string]func(testing.TB, int64) string{"btrfs": Btrfs, "xfs": XFS, "ext4": Ext4} {
		t.Run(name, func(t *testing.T) {
			var file string
			t.Run("test", func(t *testing.T) {
				dir := make(t, 400)
				file = filepath.Join(filepath.Dir(filepath.Dir(dir)), "device")
				m, mounted, err := loop.At(filepath.Dir(dir))
				if err != nil || !mounted || m.Type != name {
					t.Fatalf("mounted there: %+v, %v, %v", m, mounted, err)
				}
				dev, err := loop.Find(file)
				if err != nil || dev == nil || dev.Name() != m.Source {
					t.Errorf("the device of %s is %v, %v, mounted is %s", file, dev, err, m.Source)
				}
				dev.Close()
				before := Used(t, dir)
				if err := os.WriteFile(dir+"/x", bytes.Repeat([]byte("x"), 20<<20), 0o600); err != nil {
					t.Fatal(err)
				}
				if used := Used(t, dir) - before; used < 20<<20 || used > 22<<20 {
					t.Errorf("20 MB use %d bytes", used)
				}
			})
			if file == "" {
				t.Skip("see the test within")
			}
			mounts, err := loop.Mounts()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range mounts {
				if m.Point == filepath.Join(filepath.Dir(file), "mnt") {
					t.Errorf("%+v is left", m)
				}
			}
		})
	}
}
