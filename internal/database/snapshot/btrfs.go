//go:build linux

package snapshot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly/internal/crash"
)

// The kernel's requests to a btrfs, see linux/btrfs.h.
const (
	btrfsResize      = 0x50009403
	btrfsCreate      = 0x5000940e
	btrfsDestroy     = 0x5000940f
	btrfsSnapshot    = 0x50009417
	btrfsSetFlags    = 0x4008941a
	btrfsSync        = 0x9408
	btrfsStartSync   = 0x80089418
	btrfsWaitSync    = 0x40089416
	btrfsReadOnly    = 1 << 1
	btrfsNameBytes   = 4087
	btrfsName2Bytes  = 4039
	btrfsTopOfVolume = 256 // the inode that a subvolume begins with
)

type btrfsArgs struct {
	fd   int64
	name [btrfsNameBytes + 1]byte
}

type btrfsArgs2 struct {
	fd             int64
	transid, flags uint64
	_              [4]uint64
	name           [btrfsName2Bytes + 1]byte
}

// btrfs makes each folder a subvolume, and clones by snapshots: whatever the size and the number of
// the files, and of one moment even while they are written to.
type btrfs struct{ root string }

func newBtrfs(root string) *btrfs { return &btrfs{root} }

func (b *btrfs) Name() string { return "btrfs" }

func (b *btrfs) Create(_ context.Context, name string) (string, error) {
	if err := check(name); err != nil {
		return "", err
	}
	path, err := absent(b.root, name)
	if err != nil {
		return "", err
	}
	if err := makeRoot(b.root); err != nil {
		return "", err
	}
	crash.Point("before making a folder of data")
	defer crash.Point("after making a folder of data")
	if err := b.ask(btrfsCreate, name); err != nil {
		return "", &os.PathError{Op: "making a subvolume", Path: path, Err: err}
	}
	return path, os.Chmod(path, 0o700)
}

// ask has the kernel do something with a name below the root.
func (b *btrfs) ask(request uint, name string) error {
	root, err := os.Open(b.root)
	if err != nil {
		return err
	}
	defer root.Close()
	var args btrfsArgs
	copy(args.name[:btrfsNameBytes], name)
	return control(root, request, ptr(&args))
}

// Freeze writes the subvolume to the device and makes it read-only.
func (b *btrfs) Freeze(_ context.Context, name string) error {
	if err := check(name); err != nil {
		return err
	}
	path, err := present(b.root, name)
	if err != nil {
		return err
	}
	if err := flush(path); err != nil {
		return err
	}
	crash.Point("before freezing a folder of data")
	defer crash.Point("after freezing a folder of data")
	return setReadOnly(path, true)
}

func setReadOnly(path string, on bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var flags uint64
	if on {
		flags = btrfsReadOnly
	}
	if err := control(f, btrfsSetFlags, ptr(&flags)); err != nil {
		return &os.PathError{Op: "changing whether it is read-only", Path: path, Err: err}
	}
	return nil
}

func (b *btrfs) Clone(_ context.Context, from, name string) (string, error) {
	if err := check(from, name); err != nil {
		return "", err
	}
	source, err := present(b.root, from)
	if err != nil {
		return "", err
	}
	path, err := absent(b.root, name)
	if err != nil {
		return "", err
	}
	root, err := os.Open(b.root)
	if err != nil {
		return "", err
	}
	defer root.Close()
	f, err := os.Open(source)
	if err != nil {
		return "", err
	}
	defer f.Close()
	args := btrfsArgs2{fd: int64(f.Fd())}
	copy(args.name[:btrfsName2Bytes], name)
	crash.Point("before cloning a folder of data")
	defer crash.Point("after cloning a folder of data")
	if err := control(root, btrfsSnapshot, ptr(&args)); err != nil {
		return "", &os.PathError{Op: "making a snapshot of " + from, Path: path, Err: err}
	}
	return path, nil
}

func (b *btrfs) Attach(_ context.Context, name string) (string, error) {
	if err := check(name); err != nil {
		return "", err
	}
	path, err := present(b.root, name)
	if err != nil {
		return "", err
	}
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if s.Ino != btrfsTopOfVolume {
		return "", notFound(name)
	}
	return path, nil
}

// Delete takes a subvolume away at once; the kernel frees its blocks some seconds later.
func (b *btrfs) Delete(_ context.Context, name string) error {
	if err := check(name); err != nil {
		return err
	}
	crash.Point("before deleting a folder of data")
	defer crash.Point("after deleting a folder of data")
	err := b.ask(btrfsDestroy, name)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	// A user other than root may only remove what is empty, and so it is where there are
	// subvolumes in it.
	path := filepath.Join(b.root, name)
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		_ = setReadOnly(path, false) // what else is wrong is said by the removal
	}
	if removed := os.RemoveAll(path); removed != nil {
		return errors.Join(&os.PathError{Op: "deleting a subvolume", Path: path, Err: err}, removed)
	}
	return nil
}

func (b *btrfs) List(context.Context) ([]string, error) { return names(b.root) }

func (b *btrfs) OwnBytes(ctx context.Context, name string) (int64, bool, error) {
	if err := check(name); err != nil {
		return 0, false, err
	}
	path, err := present(b.root, name)
	if err != nil {
		return 0, false, err
	}
	n, err := ownBytes(ctx, path)
	return n, err == nil, err
}

func (b *btrfs) Close() error { return nil }

// resize gives a mounted btrfs on one device another size.
func (b *btrfs) resize(bytes int64) error {
	if err := b.ask(btrfsResize, strconv.FormatInt(bytes, 10)); err != nil {
		return &os.PathError{Op: "resizing to " + strconv.FormatInt(bytes, 10) + " bytes", Path: b.root, Err: err}
	}
	return nil
}

// commit has what was done counted: what is free is known as of the last commit, half a minute ago.
// Unlike a sync, it does not write out files.
func (b *btrfs) commit() error {
	root, err := os.Open(b.root)
	if err != nil {
		return err
	}
	defer root.Close()
	var transaction uint64
	if err := control(root, btrfsStartSync, ptr(&transaction)); err != nil {
		return &os.PathError{Op: "starting a commit", Path: b.root, Err: err}
	}
	if err := control(root, btrfsWaitSync, ptr(&transaction)); err != nil {
		return &os.PathError{Op: "waiting for a commit", Path: b.root, Err: err}
	}
	return nil
}

// clean has what was deleted freed now, in the background. The kernel would begin within half a minute.
func (b *btrfs) clean() error {
	root, err := os.Open(b.root)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := control(root, btrfsSync, nil); err != nil {
		return &os.PathError{Op: "sync", Path: b.root, Err: err}
	}
	return nil
}
