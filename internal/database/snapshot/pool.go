//go:build linux

package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot/loop"
)

const (
	poolFile = "pool.img"
	poolDir  = "pool"
	making   = ".new" // ends the name of a pool's file that is no file system yet

	minPool   = 256 << 20 // bytes; mkfs.btrfs wants 109 MB
	firstPool = 32 << 30  // bytes that a new pool has at most
	poolStep  = 16 << 20  // bytes; sizes are multiples of it
	poolLow   = 64 << 20  // bytes: with less, nothing new is begun
	roomy     = 256 << 20 // bytes that should be free

	reservePart = 20      // of the disk below, a 20th is left to others
	reserveMost = 1 << 30 // bytes: but not more
)

// pool is a btrfs in a file: for folders whose own file system can share no blocks. The file is
// sparse, so the pool takes what is written to it; what is deleted is given back. Its size is what
// the disk below could give it: were it more, the disk could be full without the pool knowing, and that
// breaks a file system.
type pool struct {
	*btrfs // in the mounted file system
	dir    string
	log    *slog.Logger
	mu     sync.Mutex // of making, mounting and growing

	flushing sync.Mutex
	lost     int            // how often something could not be written to the disk below
	filling  map[string]int // name of what was made here and is not frozen -> lost before
}

func newPool(dir string, log *slog.Logger) *pool {
	return &pool{btrfs: newBtrfs(filepath.Join(dir, poolDir)), dir: dir, log: log, filling: map[string]int{}}
}

// errNoPool is why a host can have no pool.
type errNoPool struct{ err error }

func (e errNoPool) Error() string { return "no pool of snapshots can be made: " + e.err.Error() }
func (e errNoPool) Unwrap() error { return e.err }

// possible says why there can be no pool, as far as that can be told without making one.
func (p *pool) possible() error {
	if os.Geteuid() != 0 {
		return errNoPool{errors.New("only root can mount a file system")}
	}
	if _, err := exec.LookPath("mkfs.btrfs"); err != nil {
		return errNoPool{errors.New("mkfs.btrfs is not installed (package btrfs-progs)")}
	}
	if err := loop.Supported("btrfs"); err != nil {
		return errNoPool{err}
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return errNoPool{err}
	}
	return control.Close()
}

func (p *pool) file() string { return filepath.Join(p.dir, poolFile) }

// made says whether there is a pool, mounted or not.
func (p *pool) made() (bool, error) {
	_, err := os.Lstat(p.file())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// mounted is asked before everything that is done, so it must be cheap.
func (p *pool) mounted() (bool, error) {
	var above, root unix.Stat_t
	if err := unix.Stat(p.dir, &above); err != nil {
		return false, &os.PathError{Op: "stat", Path: p.dir, Err: err}
	}
	err := unix.Stat(p.root, &root)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "stat", Path: p.root, Err: err}
	}
	return above.Dev != root.Dev, nil
}

// up mounts the pool where it is not; false says that there is none.
func (p *pool) up() (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mount()
}

func (p *pool) mount() (bool, error) {
	if there, err := p.mounted(); err != nil || there {
		return there, err
	}
	if there, err := p.made(); err != nil || !there {
		return false, err
	}
	if err := os.Mkdir(p.root, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	crash.Point("before attaching the pool")
	dev, err := loop.Attach(p.file())
	if err != nil {
		return false, errNoPool{err}
	}
	// The device goes by itself when nothing uses it: after a crash here as after unmounting.
	defer dev.Close()
	crash.Point("before mounting the pool")
	err = unix.EINVAL
	for _, data := range []string{"discard=async", "discard"} { // kernels before 5.6
		if errors.Is(err, unix.EINVAL) {
			err = unix.Mount(dev.Name(), p.root, "btrfs", unix.MS_NOATIME|unix.MS_NOSUID|unix.MS_NODEV, data)
		}
	}
	if err != nil {
		return false, errNoPool{fmt.Errorf("%s cannot be mounted: %w", p.file(), err)}
	}
	crash.Point("after mounting the pool")
	return true, makeRoot(p.root)
}

// limit is how large the pool may be, and what the disk below has free for it.
func (p *pool) limit() (limit, free int64, err error) {
	total, free, err := room(p.dir)
	if err != nil {
		return 0, 0, err
	}
	free = max(free-min(total/reservePart, reserveMost), 0)
	var s unix.Stat_t
	if err := unix.Stat(p.file(), &s); err != nil && !errors.Is(err, unix.ENOENT) {
		return 0, 0, &os.PathError{Op: "stat", Path: p.file(), Err: err}
	}
	return steps(512*s.Blocks + free), free, nil
}

func steps(bytes int64) int64 { return bytes / poolStep * poolStep }

func (p *pool) full(free int64) error {
	return dayfly.Errorf(dayfly.CodeUnavailable, "the disk of %s is nearly full: %d MB are left for databases beside what is kept free, and %d MB are needed. Delete databases or templates, or make room on the disk", p.dir, free>>20, poolLow>>20)
}

// make makes the pool where there is none, and mounts it.
func (p *pool) make(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if there, err := p.mount(); err != nil || there {
		return err
	}
	limit, free, err := p.limit()
	if err != nil {
		return err
	}
	if free < minPool {
		return dayfly.Errorf(dayfly.CodeUnavailable, "the disk of %s is nearly full: a pool of snapshots needs %d MB beside what is kept free, and %d MB are left. Make room on the disk, or choose another folder", p.dir, minPool>>20, free>>20)
	}
	mkfs, err := exec.LookPath("mkfs.btrfs")
	if err != nil {
		return errNoPool{err}
	}
	file := p.file() + making
	if err := os.RemoveAll(file); err != nil {
		return err
	}
	crash.Point("before making the pool")
	if err := sparse(file, max(minPool, min(steps(limit/2), firstPool))); err != nil {
		return err
	}
	crash.Point("before formatting the pool")
	//nolint:forbidigo // an argument vector of our own and a file of ours
	out, err := exec.CommandContext(ctx, mkfs, "-q", "-f", "-K", "-m", "single", "-L", "dayfly", "--", file).CombinedOutput()
	if err != nil {
		os.Remove(file)
		return errNoPool{fmt.Errorf("mkfs.btrfs: %w: %s", err, out)}
	}
	crash.Point("before naming the pool")
	if err := os.Rename(file, p.file()); err != nil {
		return err
	}
	crash.Point("after making the pool")
	if _, err := p.mount(); err != nil {
		// Nothing is in it yet, and another driver may do.
		return errors.Join(err, os.Remove(p.file()))
	}
	p.log.Info("a pool of snapshots was made", "file", p.file())
	return nil
}

func sparse(file string, bytes int64) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(bytes), f.Close())
}

// Grow gives the pool the size that it needs and that the disk below has: more when it is
// filling, less when others fill the disk. A pool that is not there stays so.
func (p *pool) Grow(context.Context) error {
	_, err := p.fit()
	return err
}

// fit gives what can be written to the pool. All that is free in it can be, also where the disk has given its file no
// blocks yet, as long as the pool is not larger than its limit.
func (p *pool) fit() (free int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if there, err := p.mount(); err != nil || !there {
		return 0, err
	}
	limit, _, err := p.limit()
	if err != nil {
		return 0, err
	}
	size, free, err := p.room()
	if err != nil {
		return 0, err
	}
	switch want := steps(min(2*size, limit)); {
	case steps(size) > limit:
		err = p.shrink(max(limit, minPool), size)
	case free < max(size/4, roomy) && want > size:
		err = p.grow(want)
	default:
		return free, nil
	}
	if err != nil {
		return 0, err
	}
	size, free, err = p.room()
	return max(free-max(steps(size)-limit, 0), 0), err
}

// grow does each step whatever was done before: it may have been killed in between.
func (p *pool) grow(want int64) error {
	var s unix.Stat_t
	if err := unix.Stat(p.file(), &s); err != nil {
		return &os.PathError{Op: "stat", Path: p.file(), Err: err}
	}
	crash.Point("before growing the pool's file")
	if s.Size < want {
		if err := os.Truncate(p.file(), want); err != nil {
			return err
		}
	}
	dev, err := loop.Find(p.file())
	if err != nil {
		return err
	}
	if dev == nil {
		return fmt.Errorf("the pool at %s is not that of %s: unmount it", p.root, p.file())
	}
	defer dev.Close()
	crash.Point("before growing the pool's device")
	if err := loop.Resize(dev); err != nil {
		return err
	}
	crash.Point("before growing the pool")
	defer crash.Point("after growing the pool")
	if err := p.resize(want); err != nil {
		return err
	}
	p.log.Info("the pool of snapshots has grown", "file", p.file(), "bytes", want)
	return nil
}

// shrink keeps the pool from writing to where the disk has nothing left. It does what it can: that
// the disk is nearly full is said by whoever wants something of the pool.
func (p *pool) shrink(want, size int64) error {
	if want >= size {
		return nil
	}
	crash.Point("before shrinking the pool")
	defer crash.Point("after shrinking the pool")
	if err := p.resize(want); err != nil {
		p.log.Warn("the disk below the pool of snapshots has less room than the pool, which cannot be made smaller; make room on the disk", "file", p.file(), "error", err)
		return nil
	}
	p.log.Warn("others fill the disk below the pool of snapshots: it was made smaller", "file", p.file(), "bytes", want)
	return nil
}

// roomFor says whether something new can be begun.
func (p *pool) roomFor(ctx context.Context) error {
	if err := p.writable(); err != nil {
		return err
	}
	free, err := p.fit()
	if err == nil && free < poolLow { // something may be deleted and not freed yet
		if err = p.reclaim(ctx); err == nil {
			free, err = p.fit()
		}
	}
	if err == nil && free < poolLow {
		err = p.full(free)
	}
	return err
}

// writable says whether the kernel still writes to the pool: it does not any more where it could not write what holds the
// file system together.
func (p *pool) writable() error {
	var s unix.Statfs_t
	if err := unix.Statfs(p.root, &s); err != nil {
		return &os.PathError{Op: "statfs", Path: p.root, Err: err}
	}
	if s.Flags&unix.ST_RDONLY != 0 {
		return dayfly.Errorf(dayfly.CodeUnavailable, "the kernel made %s read-only, probably since the disk below was full: make room on the disk, then run `fuser -km %s` and `umount %s`, and reset the databases that were written to lately", p.root, p.root, p.root)
	}
	return nil
}

func (p *pool) Create(ctx context.Context, name string) (string, error) {
	if err := check(name); err != nil {
		return "", err
	}
	if err := p.make(ctx); err != nil {
		return "", err
	}
	if err := p.roomFor(ctx); err != nil {
		return "", err
	}
	if err := p.flush(name, true); err != nil {
		return "", err
	}
	return p.btrfs.Create(ctx, name)
}

func (p *pool) Clone(ctx context.Context, from, name string) (string, error) {
	if err := p.there(from, name); err != nil {
		return "", err
	}
	if err := p.roomFor(ctx); err != nil {
		return "", err
	}
	return p.btrfs.Clone(ctx, from, name)
}

// there mounts the pool for something with folders in it.
func (p *pool) there(names ...string) error {
	if err := check(names...); err != nil {
		return err
	}
	there, err := p.up()
	if err == nil && !there {
		err = notFound(names[0])
	}
	return err
}

func (p *pool) Freeze(ctx context.Context, name string) error {
	if err := p.there(name); err != nil {
		return err
	}
	if err := p.flush(name, false); err != nil {
		return err
	}
	return p.btrfs.Freeze(ctx, name)
}

// flush has all that was written to the pool written to its disk, and says whether some of it was lost since the folder
// was made: the disk below may be filled quicker than the pool is made smaller. Who wrote it need not have noticed, and the kernel
// tells only the first who asks.
func (p *pool) flush(name string, made bool) error {
	p.flushing.Lock()
	defer p.flushing.Unlock()
	err := flush(p.root)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EIO) {
		p.lost++
		p.log.Warn("the disk below the pool of snapshots was full, and what was written to the pool is lost in part: reset databases that were written to lately", "file", p.file(), "error", err)
	} else if err != nil {
		return err
	}
	if made {
		p.filling[name] = p.lost
		return nil
	}
	before, ok := p.filling[name]
	delete(p.filling, name)
	if lost := p.lost > before; ok && lost || !ok && err != nil {
		return dayfly.Errorf(dayfly.CodeUnavailable, "the disk of %s was full while this was written, and some of it is lost: make room on the disk and try again", p.dir)
	}
	return nil
}

func (p *pool) Attach(ctx context.Context, name string) (string, error) {
	if err := p.there(name); err != nil {
		return "", err
	}
	if err := p.writable(); err != nil {
		return "", err
	}
	return p.btrfs.Attach(ctx, name)
}

func (p *pool) Delete(ctx context.Context, name string) error {
	if err := check(name); err != nil {
		return err
	}
	if there, err := p.up(); err != nil || !there {
		return err
	}
	return p.btrfs.Delete(ctx, name)
}

func (p *pool) List(ctx context.Context) ([]string, error) {
	if there, err := p.up(); err != nil || !there {
		return nil, err
	}
	return p.btrfs.List(ctx)
}

func (p *pool) OwnBytes(ctx context.Context, name string) (int64, bool, error) {
	if err := p.there(name); err != nil {
		return 0, false, err
	}
	return p.btrfs.OwnBytes(ctx, name)
}

// destroy takes the pool away with all that is in it.
func (p *pool) destroy() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := os.RemoveAll(p.file() + making); err != nil {
		return err
	}
	crash.Point("before unmounting the pool")
	lazy, err := loop.Unmount(p.root)
	if err != nil {
		return err
	}
	if lazy {
		p.log.Warn("programs still use the pool of snapshots: its room is free when they have ended", "file", p.file())
	}
	crash.Point("after unmounting the pool")
	if err := os.RemoveAll(p.file()); err != nil {
		return err
	}
	crash.Point("after removing the pool's file")
	if err := os.Remove(p.root); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
