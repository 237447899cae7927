//go:build linux

package loop

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMountsAreReadWithTheirEscapes(t *testing.T) {
	for line, want := range map[string]Mount{
		`36 35 98:0 / /mnt rw,noatime - ext4 /dev/root rw`:                             {"/mnt", "ext4", "/dev/root"},
		`36 35 98:0 /r /a\040b\134c\011d rw shared:1 master:2 - btrfs /dev/loop3 rw,x`: {"/a b\\c\td", "btrfs", "/dev/loop3"},
		`36 35 0:3 / /x\1 rw - overlay \999 rw`:                                        {`/x\1`, "overlay", `\999`},
	} {
		if got, ok := parse(line); !ok || got != want {
			t.Errorf("%s is %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", " - ", "a b c d e - x", "a b c - ext4 /dev/root", "36 35 98:0 / /mnt rw ext4 /dev/root"} {
		if got, ok := parse(line); ok {
			t.Errorf("%q is %+v", line, got)
		}
	}
}

func FuzzMounts(f *testing.F) {
	f.Add(`36 35 98:0 /r /a\040b rw shared:1 - btrfs /dev/loop3 rw,x`)
	f.Fuzz(func(t *testing.T, line string) {
		if m, ok := parse(line); ok && (m.Type == "" || m.Point == "" || m.Source == "") {
			t.Errorf("%q is %+v", line, m)
		}
	})
}

func TestWhatIsMountedIsFoundByAnyNameAndUnmounted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount")
	}
	dir := filepath.Join(t.TempDir(), `with space and \ and é`)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if _, there, err := At(dir); err != nil || there {
		t.Errorf("before: %v, %v", there, err)
	}
	for range 2 {
		if err := unix.Mount("dayfly", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{dir, link} {
		if m, there, err := At(name); err != nil || !there || m.Type != "tmpfs" || m.Source != "dayfly" {
			t.Errorf("%s: %+v, %v, %v", name, m, there, err)
		}
	}
	if lazy, err := Unmount(dir); err != nil || lazy {
		t.Errorf("unmounting: %v, %v", lazy, err)
	}
	if _, there, err := At(dir); err != nil || there {
		t.Errorf("after: %v, %v", there, err)
	}
	if lazy, err := Unmount(dir); err != nil || lazy {
		t.Errorf("unmounting again: %v, %v", lazy, err)
	}
	if err := unix.Mount("dayfly", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(dir + "/used")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if lazy, err := Unmount(dir); err != nil || !lazy {
		t.Errorf("unmounting what is in use: %v, %v", lazy, err)
	}
	if _, there, err := At(dir); err != nil || there {
		t.Errorf("after that: %v, %v", there, err)
	}
}

func TestAFileHasOneDevice(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can attach a device")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if dev, err := Find(file); err != nil || dev != nil {
		t.Fatalf("before: %v, %v", dev, err)
	}
	a, err := Attach(file)
	if err != nil {
		t.Skip(err)
	}
	b, err := Attach(file)
	if err != nil || a.Name() != b.Name() {
		t.Fatalf("it has %v and %v, %v", a.Name(), b, err)
	}
	if err := os.Truncate(file, 4<<20); err != nil {
		t.Fatal(err)
	}
	if err := Resize(a); err != nil {
		t.Error(err)
	}
	if end, err := b.Seek(0, 2); err != nil || end != 4<<20 {
		t.Errorf("after growing it has %d bytes, %v", end, err)
	}
	a.Close()
	b.Close()
	if dev, err := Find(file); err != nil || dev != nil {
		t.Errorf("nobody uses it, and there is %v, %v", dev, err)
	}
}

func TestAFileSystemThatTheKernelDoesNotHaveIsNotSupported(t *testing.T) {
	if err := Supported("nosuchfs"); err == nil {
		t.Error("nosuchfs is supported")
	}
	if err := Supported("proc"); err != nil {
		t.Error(err)
	}
}
