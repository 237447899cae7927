//go:build linux

package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

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
	btrfsSearch      = 0xd0009411
	btrfsInfo        = 0x8400941f
	btrfsReadOnly    = 1 << 1
	btrfsNameBytes   = 4087
	btrfsName2Bytes  = 4039
	btrfsTopOfVolume = 256 // the inode that a subvolume begins with

	// Where a file system notes the subvolumes that are deleted and not freed yet.
	btrfsRootTree   = 1
	btrfsOrphans    = ^uint64(4) // -5
	btrfsOrphanItem = 48
)

// freeing is how long what was deleted may take until its blocks are free.
const freeing = 30 * time.Second

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

type btrfsSearchArgs struct {
	tree                           uint64
	minObject, maxObject           uint64
	minOffset, maxOffset           uint64
	minTransaction, maxTransaction uint64
	minType, maxType, items, _     uint32
	_                              [4]uint64
	_                              [4096 - 104]byte // what is found
}

type btrfsInfoArgs struct {
	_    [2]uint64
	fsid [16]byte
	_    [1024 - 32]byte
}

// btrfs makes each folder a subvolume, and clones by snapshots: whatever the size and the number of
// the files, and of one moment even while they are written to.
type btrfs struct{ root string }

func newBtrfs(root string) *btrfs { return &btrfs{root} }

func (b *btrfs) Name() string { return "btrfs" }

func (b *btrfs) Create(ctx context.Context, name string) (string, error) {
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
	if err := b.makeRoom(ctx); err != nil {
		return "", err
	}
	crash.Point("before making a folder of data")
	defer crash.Point("after making a folder of data")
	if err := b.patiently(ctx, func() error { return b.ask(btrfsCreate, name) }); err != nil {
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

func (b *btrfs) Clone(ctx context.Context, from, name string) (string, error) {
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
	if err := b.makeRoom(ctx); err != nil {
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
	if err := b.patiently(ctx, func() error { return control(root, btrfsSnapshot, ptr(&args)) }); err != nil {
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

// Delete takes a subvolume away at once; the kernel frees its blocks some seconds later. Where there is little room that is
// waited for.
func (b *btrfs) Delete(ctx context.Context, name string) error {
	if err := check(name); err != nil {
		return err
	}
	crash.Point("before deleting a folder of data")
	defer crash.Point("after deleting a folder of data")
	err := b.ask(btrfsDestroy, name)
	if err == nil {
		return b.makeRoom(ctx)
	}
	if errors.Is(err, os.ErrNotExist) {
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

// makeRoom waits for the blocks of what was deleted where there is little room for what is new.
func (b *btrfs) makeRoom(ctx context.Context) error {
	_, free, err := room(b.root)
	if err == nil && free < poolLow {
		err = b.reclaim(ctx)
	}
	return err
}

// patiently does again what finds no room: right after something was deleted, its room need not serve for
// everything yet.
func (b *btrfs) patiently(ctx context.Context, do func() error) error {
	for end := time.Now().Add(freeing / 3); ; {
		err := do()
		if !errors.Is(err, unix.ENOSPC) || time.Now().After(end) {
			return err
		}
		if err := b.reclaim(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// reclaim waits until the blocks of what was deleted are free, for as long as that may take.
func (b *btrfs) reclaim(ctx context.Context) error {
	if err := b.clean(); err != nil {
		return err
	}
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(freeing); ; {
		pending, err := b.deleting()
		if err != nil {
			return err
		}
		if !pending || time.Now().After(end) {
			return b.commit() // what is free is counted by that
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
	}
}

// deleting says whether there are subvolumes that are deleted and have blocks still. Who is not root cannot tell.
func (b *btrfs) deleting() (bool, error) {
	root, err := os.Open(b.root)
	if err != nil {
		return false, err
	}
	defer root.Close()
	args := btrfsSearchArgs{
		tree: btrfsRootTree, minObject: btrfsOrphans, maxObject: btrfsOrphans, maxOffset: ^uint64(0), maxTransaction: ^uint64(0),
		minType: btrfsOrphanItem, maxType: btrfsOrphanItem, items: 1,
	}
	if err := control(root, btrfsSearch, ptr(&args)); err != nil {
		if errors.Is(err, unix.EPERM) {
			return false, nil
		}
		return false, &os.PathError{Op: "looking for what is deleted", Path: b.root, Err: err}
	}
	return args.items > 0, nil
}

// room gives the size of the file system and what can be written to it, where what was written and is not on the
// device yet counts: for that, room has been promised.
func (b *btrfs) room() (size, free int64, err error) {
	promised, err := b.promised()
	if errors.Is(err, os.ErrNotExist) { // there is no sysfs
		promised, err = 0, b.commit()
	}
	if err != nil {
		return 0, 0, err
	}
	size, free, err = room(b.root)
	return size, max(free-promised, 0), err
}

func (b *btrfs) promised() (sum int64, err error) {
	root, err := os.Open(b.root)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	var info btrfsInfoArgs
	if err := control(root, btrfsInfo, ptr(&info)); err != nil {
		return 0, &os.PathError{Op: "asking for what it is", Path: b.root, Err: err}
	}
	id := info.fsid
	dir := fmt.Sprintf("/sys/fs/btrfs/%x-%x-%x-%x-%x/allocation/data", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	for _, name := range []string{"bytes_may_use", "bytes_reserved"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
