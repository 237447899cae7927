package shop_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

func TestWithADatabaseTheProjectFileSaysNothingElse(t *testing.T) {
	dir := t.TempDir()
	if err := shop.Write(dir, 1); err != nil {
		t.Fatal(err)
	}
	read := func() []string {
		b, err := os.ReadFile(filepath.Join(dir, "compose.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(string(b), "\n")
	}
	without := read()
	if err := shop.WriteDatabase(dir); err != nil {
		t.Fatal(err)
	}
	var added []string
	for _, line := range read() {
		if len(without) > 0 && line == without[0] {
			without = without[1:]
			continue
		}
		added = append(added, line)
	}
	if want := []string{"x-dayfly:", "  databases:", "    db: {template: shop} # made from db/orders.sql", "      databases: [db]"}; !slices.Equal(added, want) || len(without) > 0 {
		t.Errorf("it adds\n%s\nand goes another way at\n%s", strings.Join(added, "\n"), strings.Join(without, "\n"))
	}
	orders, err := shop.Orders()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "db", "orders.sql")); err != nil || string(b) != string(orders) {
		t.Errorf("db/orders.sql is not what the template is made of: %v", err)
	}
}
