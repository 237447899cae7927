package logfile

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWhereHolesCannotBeTheLastLinesAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.log")
	program, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	line := strings.Repeat("x", 999)
	if _, err := program.WriteString(strings.Repeat(line+"\n", 20)); err != nil {
		t.Fatal(err)
	}
	for _, keep := range []int64{8192, 4096} { // the second time there is no index any more
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if keep == 8192 {
			if err := Sample(path, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		if err := copyRest(f, path, keep); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if _, err := program.WriteString("goes on\n"); err != nil {
		t.Fatal(err)
	}
	// 20 lines without the 9 that begin before 8192, and of the 11 without the 5 that begin before 4096.
	want := append(slices.Repeat([]string{line}, 6), "goes on")
	if got := Tail(path, 99); !slices.Equal(got, want) {
		t.Errorf("%d lines are left", len(got))
	}
}
