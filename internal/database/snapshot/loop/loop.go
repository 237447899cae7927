//go:build linux

// Package loop makes block devices of files by the kernel's loop driver, and finds out what is
// mounted where.
package loop

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// tries is how many devices are asked for when others take them meanwhile.
const tries = 100

// Attach gives a loop device of a file: the one that there is, or a new one. The kernel takes the
// device away when nothing uses it: no open file, which the caller has to keep until it is
// mounted, and no mount.
func Attach(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if dev, err := find(f); err != nil || dev != nil {
		return dev, err
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("no loop device can be made: %w", err)
	}
	defer control.Close()
	// Direct access goes past the page cache of the file, which would hold all a second time.
	config := unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO}}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], file)
	for range tries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("no loop device is free: %w", err)
		}
		dev, err := os.OpenFile(name(n), os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("no loop device can be opened: %w", err)
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if errors.Is(err, unix.EINVAL) && config.Info.Flags&unix.LO_FLAGS_DIRECT_IO != 0 {
			// The file system below has no direct access.
			config.Info.Flags &^= unix.LO_FLAGS_DIRECT_IO
			err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		}
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody was quicker
			return nil, fmt.Errorf("%s cannot be attached to %s: %w", file, name(n), err)
		}
	}
	return nil, fmt.Errorf("no loop device for %s: others took each of %d", file, tries)
}

// Find gives the loop device of a file, nil when there is none.
func Find(file string) (*os.File, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return find(f)
}

func find(f *os.File) (*os.File, error) {
	var want unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &want); err != nil {
		return nil, err
	}
	// Only devices that have a file have this folder.
	attached, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	for _, dir := range attached {
		dev, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(dir)), os.O_RDWR, 0)
		if err != nil {
			continue // gone meanwhile, or another's that nobody may open
		}
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		if err == nil && info.Inode == want.Ino && info.Device == want.Dev && info.Flags&unix.LO_FLAGS_READ_ONLY == 0 && info.Offset == 0 {
			return dev, nil
		}
		dev.Close()
	}
	return nil, nil
}

func name(n int) string { return "/dev/loop" + strconv.Itoa(n) }

// Resize tells a device that its file has another size now.
func Resize(dev *os.File) error {
	if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("%s cannot be given the size of its file: %w", dev.Name(), err)
	}
	return nil
}

// Mount is one line of what is mounted.
type Mount struct {
	Point  string // the folder
	Type   string // of the file system
	Source string // "/dev/loop0"
}

// Mounts gives what this process sees mounted, in the order of mounting.
func Mounts() ([]Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []Mount
	for s := bufio.NewScanner(f); ; {
		if !s.Scan() {
			return all, s.Err()
		}
		if m, ok := parse(s.Text()); ok {
			all = append(all, m)
		}
	}
}

// parse reads "36 35 98:0 /root /mnt rw,noatime master:1 - ext4 /dev/root rw,errors=continue".
func parse(line string) (Mount, bool) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 5 || len(r) < 2 {
		return Mount{}, false
	}
	return Mount{Point: unescape(l[4]), Type: r[0], Source: unescape(r[1])}, true
}

// unescape undoes the octal escapes of white space and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// At gives what is mounted at a folder, the topmost one.
func At(dir string) (Mount, bool, error) {
	dir, err := resolve(dir)
	if err != nil {
		return Mount{}, false, err
	}
	all, err := Mounts()
	if err != nil {
		return Mount{}, false, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Point == dir {
			return all[i], true, nil
		}
	}
	return Mount{}, false, nil
}

// resolve gives the path without symbolic links, as mounts are listed by it.
func resolve(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// Unmount takes away all that is mounted at a folder. What programs still use goes when they let go
// of it; lazy says that this was so. A folder at which nothing is mounted is no error.
func Unmount(dir string) (lazy bool, err error) {
	for {
		err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			lazy = true
			err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		switch {
		case err == nil:
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // nothing (more) is mounted there
			return lazy, nil
		case errors.Is(err, unix.EPERM):
			// Who is not root has mounted nothing there.
			if _, there, err := At(dir); err == nil && !there {
				return lazy, nil
			}
			return lazy, &os.PathError{Op: "unmount", Path: dir, Err: err}
		default:
			return lazy, &os.PathError{Op: "unmount", Path: dir, Err: err}
		}
	}
}

// Supported says whether the kernel can mount a file system, in the words of an error when not.
// Where it is a module that can be loaded, mounting it loads it: so this tries nothing but reads
// what is known.
func Supported(fstype string) error {
	data, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == fstype {
			return nil
		}
	}
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return err
	}
	var release []byte
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		release = append(release, byte(c))
	}
	found, err := filepath.Glob("/lib/modules/" + string(release) + "/kernel/fs/" + fstype + "/" + fstype + ".ko*")
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return fmt.Errorf("the kernel has no %s", fstype)
	}
	return nil
}
