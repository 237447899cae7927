//go:build linux

package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot/loop"
)

// Drivers are the names of all drivers, the best first.
var Drivers = []string{"btrfs", "reflink", "overlay", "copy"}

// What Options.Pool may be.
const (
	PoolAuto = "auto" // a pool is made where that is possible and of use
	PoolNone = "none" // no pool is made
)

// trial begins the names of what is made to find out what a folder can do.
const trial = ".trial-"

// Options say where folders are kept and how.
type Options struct {
	// Dir is the folder for all of it. What is in it is ours. Each user whose database is in it
	// must be able to pass through it.
	Dir string
	// Driver is one of Drivers, or "" for the best that the folder can do, which it then stays with
	// as long as there are folders of that driver.
	Driver string
	// Pool is PoolAuto, PoolNone or "", which is PoolAuto.
	Pool string
	// Logger is told what was chosen and why nothing better; nil is slog.Default().
	Logger *slog.Logger
}

// Grower is a Cloner whose room has to be seen to. Grow is to be called every second where something may write; it takes
// little.
type Grower interface {
	// Grow makes room where that is running out, and gives back what the disk does not have.
	Grow(ctx context.Context) error
}

// Open gives the cloner of a folder. Nothing is made in it before the first Create.
//
// Without a driver asked for, it is the first that works here: btrfs and reflink in the folder itself,
// btrfs in a pool (see Options.Pool) and overlay as root, copy.
func Open(ctx context.Context, opt Options) (Cloner, error) {
	log := opt.Logger
	if log == nil {
		log = slog.Default()
	}
	if opt.Pool != "" && opt.Pool != PoolAuto && opt.Pool != PoolNone {
		return nil, dayfly.Errorf(dayfly.CodeInvalid, "%q is no kind of pool: use %s or %s", opt.Pool, PoolAuto, PoolNone)
	}
	if err := os.MkdirAll(opt.Dir, 0o711); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(opt.Dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // mounts are known by the real path
	}
	if err != nil {
		return nil, err
	}
	o := opener{dir: dir, pool: opt.Pool != PoolNone, log: log}
	if err := o.tidy(ctx); err != nil {
		return nil, err
	}
	used, pooled, err := o.used()
	if err != nil {
		return nil, err
	}
	if used != "" && opt.Driver != "" && used != opt.Driver {
		return nil, dayfly.Errorf(dayfly.CodeConflict, "%s has databases in it that were made by the driver %s, and %s cannot use them: delete them first, or go on with %s", dir, used, opt.Driver, used)
	}
	c, err := o.choose(ctx, opt.Driver, used, pooled)
	if err != nil {
		return nil, err
	}
	if o, ok := c.(*overlay); ok {
		if err := o.collect(); err != nil { // what a crash left
			return nil, err
		}
	}
	return c, nil
}

type opener struct {
	dir  string
	pool bool
	log  *slog.Logger
}

func (o opener) root(driver string) string { return filepath.Join(o.dir, driver) }

// tidy takes away what trials left that a crash ended.
func (o opener) tidy(ctx context.Context) error {
	entries, err := os.ReadDir(o.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), trial) {
			if err := o.forget(ctx, filepath.Join(o.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// used gives the driver that there are folders of.
func (o opener) used() (driver string, pooled bool, err error) {
	if pooled, err = newPool(o.dir, o.log).made(); err != nil || pooled {
		return "btrfs", pooled, err
	}
	for _, driver := range Drivers {
		if all, err := names(o.root(driver)); err != nil || len(all) > 0 {
			return driver, false, err
		}
	}
	return "", false, nil
}

func (o opener) choose(ctx context.Context, asked, used string, pooled bool) (Cloner, error) {
	switch {
	case pooled:
		return newPool(o.dir, o.log), nil
	case used == "btrfs":
		return newBtrfs(o.root(used)), nil
	case used == "copy" && asked == "":
		// The copies may be all that is between this folder and something better.
		o.log.Warn("databases are copied in full, as there are copies already: delete them for something better to be looked for", "dir", o.dir)
		return newCopy(o.root(used)), nil
	case used != "":
		return o.make(used)
	case asked == "":
		return o.best(ctx)
	}
	err := o.try(ctx, asked)
	if err == nil {
		return o.make(asked)
	}
	if asked == "btrfs" && o.pool {
		p := newPool(o.dir, o.log)
		if err := p.possible(); err != nil {
			return nil, dayfly.Errorf(dayfly.CodeInvalid, "%s is no btrfs, and %w", o.dir, err)
		}
		return p, nil
	}
	return nil, dayfly.Errorf(dayfly.CodeInvalid, "the driver %s cannot be used in %s: %w. Choose another driver or another folder", asked, o.dir, err)
}

// make gives a driver that works here.
func (o opener) make(driver string) (Cloner, error) {
	switch driver {
	case "btrfs":
		return newBtrfs(o.root(driver)), nil
	case "reflink":
		return newReflink(o.root(driver)), nil
	case "overlay":
		return newOverlay(o.root(driver)), nil
	case "copy":
		return newCopy(o.root(driver)), nil
	}
	return nil, unknown(driver)
}

func unknown(driver string) error {
	return dayfly.Errorf(dayfly.CodeInvalid, "%q is no driver of snapshots: use %s", driver, strings.Join(Drivers, ", "))
}

// best tries one after the other.
func (o opener) best(ctx context.Context) (Cloner, error) {
	var why []error
	for _, driver := range []string{"btrfs", "reflink"} {
		err := o.try(ctx, driver)
		if err == nil {
			return o.make(driver)
		}
		why = append(why, fmt.Errorf("%s: %w", driver, err))
	}
	if o.pool {
		p := newPool(o.dir, o.log)
		err := p.possible()
		if err == nil {
			return &fallback{pool: p, then: func(ctx context.Context, err error) (Cloner, error) {
				return o.rest(ctx, append(why, err))
			}}, nil
		}
		why = append(why, err)
	}
	return o.rest(ctx, why)
}

// rest gives what there is beside drivers that share blocks.
func (o opener) rest(ctx context.Context, why []error) (Cloner, error) {
	err := o.try(ctx, "overlay")
	if err == nil {
		o.log.Info("databases share whole files with their template (overlay), since nothing better works here", "dir", o.dir, "why", errors.Join(why...))
		return o.make("overlay")
	}
	why = append(why, fmt.Errorf("overlay: %w", err))
	o.log.Warn("databases are copied in full, which takes time and room, since nothing better works here", "dir", o.dir, "why", errors.Join(why...))
	return o.make("copy")
}

// try does with a driver what it will be used for.
func (o opener) try(ctx context.Context, driver string) (err error) {
	dir, err := os.MkdirTemp(o.dir, trial)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.forget(context.WithoutCancel(ctx), dir)) }()
	if driver == "btrfs" {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			return &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
		// Others might know the same requests by other meanings.
		if s.Type != unix.BTRFS_SUPER_MAGIC {
			return errors.New("the folder is on another file system")
		}
	}
	of := o
	of.dir = dir
	c, err := of.make(driver)
	if err != nil {
		return err
	}
	path, err := c.Create(ctx, "a")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(path, "file"), make([]byte, 4096), 0o600); err != nil {
		return err
	}
	if driver == "overlay" { // what is not frozen is copied
		if err := c.Freeze(ctx, "a"); err != nil {
			return err
		}
	}
	if path, err = c.Clone(ctx, "a", "b"); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(path, "file"), make([]byte, 1), 0o600)
}

// forget takes a folder away in which any driver may have been at work.
func (o opener) forget(ctx context.Context, dir string) error {
	of := o
	of.dir = dir
	for _, driver := range Drivers {
		c, err := of.make(driver)
		if err != nil {
			return err
		}
		all, err := names(of.root(driver))
		if err != nil {
			return err
		}
		for _, name := range all {
			if err := c.Delete(ctx, name); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(dir)
}

// Destroy takes away all that was ever made in a folder, by whichever driver, and the folder. Nothing in it
// should be running any more.
func Destroy(ctx context.Context, dir string, log *slog.Logger) error {
	if log == nil {
		log = slog.Default()
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	switch dir, err = filepath.EvalSymlinks(dir); {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	o := opener{dir: dir, log: log}
	if err := newPool(dir, log).destroy(); err != nil {
		return err
	}
	if err := o.tidy(ctx); err != nil {
		return err
	}
	// Clones that an overlay has hidden are mounted nowhere, but something else may be mounted there.
	if err := o.forgetMounts(); err != nil {
		return err
	}
	if err := o.forget(ctx, dir); !errors.Is(err, unix.EBUSY) { // which is what a mount point of others says
		return err
	}
	return nil
}

// forgetMounts unmounts what is mounted below, the last first, so that nothing is deleted through
// a mount.
func (o opener) forgetMounts() error {
	all, err := loop.Mounts()
	if err != nil {
		return err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if strings.HasPrefix(all[i].Point, o.dir+"/") {
			if _, err := loop.Unmount(all[i].Point); err != nil {
				return err
			}
		}
	}
	return nil
}

// fallback is a pool for as long as there is hope that it can be made.
type fallback struct {
	*pool
	then func(ctx context.Context, why error) (Cloner, error)

	mu      sync.Mutex
	instead Cloner
}

func (f *fallback) now() Cloner {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.instead != nil {
		return f.instead
	}
	return f.pool
}

func (f *fallback) Name() string { return f.now().Name() }

func (f *fallback) Create(ctx context.Context, name string) (string, error) {
	c := f.now()
	path, err := c.Create(ctx, name)
	var none errNoPool
	if c == Cloner(f.pool) && errors.As(err, &none) {
		if there, e := f.pool.made(); e != nil || there {
			return "", errors.Join(err, e)
		}
		if c, err = f.give(ctx, none); err == nil {
			path, err = c.Create(ctx, name)
		}
	}
	return path, err
}

// give chooses what is used instead of the pool, once.
func (f *fallback) give(ctx context.Context, why error) (Cloner, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if f.instead == nil {
		f.instead, err = f.then(ctx, why)
	}
	return f.instead, err
}

func (f *fallback) Freeze(ctx context.Context, name string) error {
	return f.now().Freeze(ctx, name)
}

func (f *fallback) Clone(ctx context.Context, from, name string) (string, error) {
	return f.now().Clone(ctx, from, name)
}

func (f *fallback) Attach(ctx context.Context, name string) (string, error) {
	return f.now().Attach(ctx, name)
}

func (f *fallback) Delete(ctx context.Context, name string) error {
	return f.now().Delete(ctx, name)
}

func (f *fallback) List(ctx context.Context) ([]string, error) { return f.now().List(ctx) }

func (f *fallback) OwnBytes(ctx context.Context, name string) (int64, bool, error) {
	return f.now().OwnBytes(ctx, name)
}

func (f *fallback) Grow(ctx context.Context) error {
	if g, ok := f.now().(Grower); ok {
		return g.Grow(ctx)
	}
	return nil
}

func (f *fallback) Close() error { return f.now().Close() }
