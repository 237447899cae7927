package shop_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	shop "github.com/dayfly-dev/dayfly/examples/shop"
)

func TestBothVersionsBuildByThemselvesAndDiffer(t *testing.T) {
	versions := map[int]string{}
	for _, version := range []int{1, 2} {
		dir := t.TempDir()
		if err := shop.Write(dir, version); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "build", "-o", filepath.Join(t.TempDir(), "bin")+"/", "./...")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("version %d does not build: %s", version, out)
		}
		b, err := os.ReadFile(filepath.Join(dir, "backend", "version.go"))
		if err != nil {
			t.Fatal(err)
		}
		versions[version] = string(b)
	}
	if !strings.Contains(versions[1], `"1"`) || !strings.Contains(versions[2], `"2"`) {
		t.Errorf("the versions do not differ: %v", versions)
	}
}
