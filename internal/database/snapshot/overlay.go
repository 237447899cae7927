//go:build linux

package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot/loop"
)

// What the folder of an overlay clone, or of what it is cloned from, has in it.
const (
	inBase    = "base"    // all the files, of a folder that is no clone
	inLayers  = "layers"  // the folders below, the topmost first, one a line, relative to the root
	inUpper   = "upper"   // what was written
	inWork    = "work"    // the kernel's
	inMerged  = "merged"  // where it is mounted
	isFrozen  = "frozen"  // it is read-only
	isDeleted = "deleted" // it is gone, but for the layer that others lie upon
)

// maxMountData is the size of a mount's options.
const maxMountData = 4095

// overlay clones by mounting an empty layer upon a frozen folder (overlayfs), as root on nearly any
// file system.
//
// What is shared is shared by whole files: the first write to a file, or a change of its owner,
// mode or times, copies all of it up, while it waits. A database server that starts writes to few and
// small files (of PostgreSQL the newest WAL segment of 16 MB, its control file and some below
// 1 MB), but the first change of a table copies up to 1 GB of it, as that is how PostgreSQL cuts
// its files.
//
// A clone of a frozen clone lies upon the layers of that. A clone of what is not frozen copies what is
// writable there: all of a folder that is no clone, and what was written in one that is. It should
// not be written to meanwhile.
type overlay struct {
	root string
	mu   sync.Mutex // of who lies upon whom, and of mounting
}

func newOverlay(root string) *overlay { return &overlay{root: root} }

func (o *overlay) Name() string { return "overlay" }

// overlayState is what is known of a folder.
type overlayState struct {
	clone, frozen, deleted bool
	whole                  bool // it can be used
	layers                 []string
}

func (o *overlay) state(name string) (s overlayState, err error) {
	dir := filepath.Join(o.root, name)
	has := func(what string) bool {
		_, e := os.Lstat(filepath.Join(dir, what))
		if e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
		return e == nil
	}
	s.frozen, s.deleted = has(isFrozen), has(isDeleted)
	data, e := os.ReadFile(filepath.Join(dir, inLayers))
	if s.clone = e == nil; s.clone {
		s.layers = strings.Fields(string(data))
		s.whole = has(inUpper)
	} else {
		s.whole = has(inBase)
		if !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return s, err
}

// known gives the state of a folder that can be used.
func (o *overlay) known(name string) (overlayState, error) {
	s, err := o.state(name)
	if err == nil && (!s.whole || s.deleted) {
		err = notFound(name)
	}
	return s, err
}

// usable says what is wrong with a root whose path cannot be given to the kernel.
func (o *overlay) usable() error {
	if strings.ContainsAny(o.root, `:,\`) {
		return dayfly.Errorf(dayfly.CodeInvalid, "%s has a colon, a comma or a backslash in its name, which overlayfs takes for its own: choose another folder", o.root)
	}
	return nil
}

func (o *overlay) Create(_ context.Context, name string) (string, error) {
	if err := errors.Join(check(name), o.usable()); err != nil {
		return "", err
	}
	dir, err := absent(o.root, name)
	if err != nil {
		return "", err
	}
	if err := makeRoot(o.root); err != nil {
		return "", err
	}
	crash.Point("before making a folder of data")
	defer crash.Point("after making a folder of data")
	if err := makeRoot(dir); err != nil {
		return "", err
	}
	base := filepath.Join(dir, inBase)
	return base, os.Mkdir(base, 0o700)
}

// Freeze writes the files to the device and mounts a clone again, read-only. For that, nothing may use it.
func (o *overlay) Freeze(_ context.Context, name string) error {
	if err := check(name); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.known(name)
	if err != nil || s.frozen {
		return err
	}
	dir := filepath.Join(o.root, name)
	if err := flush(dir); err != nil {
		return err
	}
	merged := filepath.Join(dir, inMerged)
	if s.clone {
		crash.Point("before unmounting a folder of data")
		err := unix.Unmount(merged, unix.UMOUNT_NOFOLLOW)
		crash.Point("after unmounting a folder of data")
		if errors.Is(err, unix.EBUSY) {
			return dayfly.Errorf(dayfly.CodeConflict, "%s is in use and cannot be made read-only: end the programs that use it", merged)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return &os.PathError{Op: "unmount", Path: merged, Err: err}
		}
	}
	crash.Point("before freezing a folder of data")
	if err := mark(dir, isFrozen); err != nil {
		return err
	}
	crash.Point("after freezing a folder of data")
	s.frozen = true
	_, err = o.mount(name, s)
	return err
}

// mark makes an empty file that stays.
func mark(dir, name string) error { return write(dir, name, "") }

func write(dir, name, content string) error {
	f, err := os.CreateTemp(dir, name+partly)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// mount gives the path of a folder, and mounts it where it has to be and is not.
func (o *overlay) mount(name string, s overlayState) (string, error) {
	dir := filepath.Join(o.root, name)
	if !s.clone {
		return filepath.Join(dir, inBase), nil
	}
	merged := filepath.Join(dir, inMerged)
	if _, there, err := loop.At(merged); err != nil || there {
		return merged, err
	}
	var lower []string
	if s.frozen {
		lower = append(lower, filepath.Join(dir, inUpper))
	}
	for _, l := range s.layers {
		lower = append(lower, filepath.Join(o.root, l))
	}
	data, flags := "lowerdir="+strings.Join(lower, ":"), uintptr(unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOATIME)
	if s.frozen {
		flags |= unix.MS_RDONLY
	} else {
		data += ",upperdir=" + filepath.Join(dir, inUpper) + ",workdir=" + filepath.Join(dir, inWork)
	}
	// What a kernel may have as its default would tie a layer to where it was first mounted.
	data += ",index=off,redirect_dir=off,metacopy=off"
	if len(data) > maxMountData {
		return "", dayfly.Errorf(dayfly.CodeInvalid, "%d layers lie upon each other, which are more than overlayfs can be told: clone from one with fewer below it", len(lower))
	}
	crash.Point("before mounting a folder of data")
	defer crash.Point("after mounting a folder of data")
	if err := unix.Mount("overlay", merged, "overlay", flags, data); err != nil {
		return "", &os.PathError{Op: "mounting an overlay", Path: merged, Err: err}
	}
	return merged, nil
}

func (o *overlay) Clone(ctx context.Context, from, name string) (path string, err error) {
	if err := check(from, name); err != nil {
		return "", err
	}
	s, err := o.hold(from, name)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(o.root, name)
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Delete(context.WithoutCancel(ctx), name))
		}
	}()
	source := filepath.Join(o.root, from, inBase)
	what := inBase
	if s.clone {
		source, what = filepath.Join(o.root, from, inUpper), inUpper
	}
	whole := filepath.Join(dir, what)
	if s.frozen {
		whole = filepath.Join(dir, inUpper)
		err = copyTop(whole+partly, source)
	} else if err = copyTree(ctx, whole+partly, source, copyBytes); err == nil {
		err = flush(whole + partly)
	}
	if err != nil {
		return "", err
	}
	crash.Point("before naming a folder of data")
	if err := os.Rename(whole+partly, whole); err != nil {
		return "", err
	}
	crash.Point("after cloning a folder of data")
	return o.Attach(ctx, name)
}

// hold makes a folder that lies upon layers, so that they stay.
func (o *overlay) hold(from, name string) (overlayState, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.known(from)
	if err != nil {
		return s, err
	}
	dir, err := absent(o.root, name)
	if err != nil {
		return s, err
	}
	crash.Point("before cloning a folder of data")
	if err = makeRoot(dir); err == nil && (s.clone || s.frozen) {
		err = s.upon(from, dir)
	}
	if err != nil {
		return s, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// upon makes what the folder of a clone needs beside what was written.
func (s overlayState) upon(from, dir string) error {
	layers := s.layers
	switch {
	case s.frozen && s.clone:
		layers = append([]string{from + "/" + inUpper}, layers...)
	case s.frozen:
		layers = []string{from + "/" + inBase}
	}
	for _, sub := range []string{inWork, inMerged} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	return write(dir, inLayers, strings.Join(layers, "\n")+"\n")
}

// copyTop makes an empty folder that looks like another.
func copyTop(to, from string) error {
	dir, err := openAt(unix.AT_FDCWD, from)
	if err != nil {
		return err
	}
	defer dir.Close()
	l, err := look(dir, to)
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	return l.apply()
}

func (o *overlay) Attach(_ context.Context, name string) (string, error) {
	if err := check(name); err != nil {
		return "", err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.known(name)
	if err != nil {
		return "", err
	}
	return o.mount(name, s)
}

// Delete takes away what others do not lie upon, and the rest with the last of them.
func (o *overlay) Delete(_ context.Context, name string) error {
	if err := check(name); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	dir := filepath.Join(o.root, name)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	merged := filepath.Join(dir, inMerged)
	crash.Point("before unmounting a folder of data")
	if _, err := loop.Unmount(merged); err != nil {
		return err
	}
	crash.Point("after unmounting a folder of data")
	crash.Point("before deleting a folder of data")
	defer crash.Point("after deleting a folder of data")
	if err := mark(dir, isDeleted); err != nil && !errors.Is(err, unix.ENOSPC) {
		return err
	} else if err != nil {
		// On a full disk, only what nobody needs can go.
		if needed, e := o.needed(name); e != nil || needed {
			return errors.Join(err, e)
		}
		return os.RemoveAll(dir)
	}
	return o.collect()
}

// needed says whether others lie upon a folder.
func (o *overlay) needed(name string) (bool, error) {
	all, err := names(o.root)
	if err != nil {
		return false, err
	}
	for _, other := range all {
		s, err := o.state(other)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(s.layers, func(l string) bool { return strings.HasPrefix(l, name+"/") }) {
			return true, nil
		}
	}
	return false, nil
}

// collect takes away deleted folders that nobody needs (any more).
func (o *overlay) collect() error {
	for {
		all, err := names(o.root)
		if err != nil {
			return err
		}
		states := map[string]overlayState{}
		needed := map[string]bool{}
		for _, name := range all {
			s, err := o.state(name)
			if err != nil {
				return err
			}
			states[name] = s
			for _, l := range s.layers {
				of, _, _ := strings.Cut(l, "/")
				needed[of] = true
			}
		}
		gone := false
		for name, s := range states {
			if s.deleted && !needed[name] {
				if err := removeMarked(filepath.Join(o.root, name)); err != nil {
					return err
				}
				gone = true
			}
		}
		if !gone {
			return nil
		}
	}
}

// removeMarked removes a folder, and that it is deleted last of all.
func removeMarked(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != isDeleted {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(dir)
}

// List leaves out what is deleted, though others lie upon it.
func (o *overlay) List(context.Context) ([]string, error) {
	all, err := names(o.root)
	if err != nil {
		return nil, err
	}
	var listed []string
	for _, name := range all {
		s, err := o.state(name)
		if err != nil {
			return nil, err
		}
		if !s.deleted {
			listed = append(listed, name)
		}
	}
	return listed, nil
}

// OwnBytes counts the topmost layer, and nothing when others lie upon it.
func (o *overlay) OwnBytes(ctx context.Context, name string) (int64, bool, error) {
	if err := check(name); err != nil {
		return 0, false, err
	}
	o.mu.Lock()
	s, err := o.known(name)
	needed := false
	if err == nil {
		needed, err = o.needed(name)
	}
	o.mu.Unlock()
	if err != nil || needed {
		return 0, err == nil, err
	}
	top := inBase
	if s.clone {
		top = inUpper
	}
	// On a file system that can share blocks, even what was copied up shares those that were not written.
	dir := filepath.Join(o.root, name, top)
	n, err := ownBytes(ctx, dir)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) {
		n, err = allBytes(ctx, dir)
	}
	return n, err == nil, err
}

// Close leaves the clones mounted: what runs on them goes on.
func (o *overlay) Close() error { return nil }
