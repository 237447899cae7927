package embedded

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
)

const (
	// leastFree is how many bytes have to be free for anything to be written: less than
	// that is left to what etcd does by itself. A write that fails ends its process.
	leastFree = 24 << 20
	// enoughFree is when writing is allowed again.
	enoughFree = 32 << 20
	lookEvery  = 500 * time.Millisecond
)

// disk watches the room on the disk.
type disk struct {
	dir  string
	log  *slog.Logger
	full atomic.Bool
}

// watch looks until ctx ends.
func (d *disk) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		d.look()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look sees how much is free, and makes sure that the blocks of the database are there: it
// is a file with holes at first, and filling one of them needs room on the disk.
func (d *disk) look() {
	var s unix.Statfs_t
	if err := unix.Statfs(d.dir, &s); err != nil {
		return // the folder is gone: others say so
	}
	free := s.Bavail * uint64(s.Bsize) //nolint:gosec // never negative
	switch was := d.full.Load(); {
	case !was && free < leastFree:
		d.full.Store(true)
		d.log.Error("the disk is full: nothing is changed until there is room; what runs goes on", "folder", d.dir, "free", free)
	case was && free >= enoughFree:
		d.full.Store(false)
		d.log.Info("there is room on the disk again", "folder", d.dir, "free", free)
	}
	if free >= leastFree {
		if err := d.allocate(); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EOPNOTSUPP) {
			d.log.Warn("room for the state cannot be kept free", "error", err)
		}
	}
}

// allocate gives the database's file the blocks that it lacks.
func (d *disk) allocate() error {
	path := filepath.Join(d.dir, "etcd", "member", "snap", "db")
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return err
	}
	if s.Blocks*512 >= s.Size {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, s.Size), f.Close())
}

// check says that nothing can be written.
func (d *disk) check() error {
	if !d.full.Load() {
		return nil
	}
	return dayfly.Errorf(dayfly.CodeUnavailable, "the disk of the data folder is full (%s): make room; until then nothing is changed, and what runs goes on", d.dir)
}

// guarded refuses to write while the disk is full.
type guarded struct {
	clientv3.KV
	disk *disk
}

func (g guarded) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	if err := g.disk.check(); err != nil {
		return nil, err
	}
	return g.KV.Put(ctx, key, val, opts...)
}

func (g guarded) Txn(ctx context.Context) clientv3.Txn {
	return &guardedTxn{g.KV.Txn(ctx), g.disk}
}

type guardedTxn struct {
	txn  clientv3.Txn
	disk *disk
}

func (t *guardedTxn) If(cs ...clientv3.Cmp) clientv3.Txn {
	t.txn = t.txn.If(cs...)
	return t
}

func (t *guardedTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.txn = t.txn.Then(ops...)
	return t
}

func (t *guardedTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	t.txn = t.txn.Else(ops...)
	return t
}

func (t *guardedTxn) Commit() (*clientv3.TxnResponse, error) {
	if err := t.disk.check(); err != nil {
		return nil, err
	}
	return t.txn.Commit()
}
