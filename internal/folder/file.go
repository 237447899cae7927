//go:build linux

package folder

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"unicode/utf8"
)

// state is all that shows a change of a file without reading it. The zero state is that of
// no file.
type state struct {
	identity
	mode         uint32
	size         int64
	mtime, ctime syscall.Timespec
	failure      string // why there is no more known
}

// identity tells files and folders apart. The zero one is that of none.
type identity struct{ dev, ino uint64 }

func (i identity) String() string { return fmt.Sprintf("%d:%d", i.dev, i.ino) }

// parseIdentity reads what String gave; all else is no identity.
func parseIdentity(s string) (i identity) {
	if _, err := fmt.Sscanf(s, "%d:%d", &i.dev, &i.ino); err != nil {
		return identity{}
	}
	return i
}

func stateOf(info fs.FileInfo) state {
	s := info.Sys().(*syscall.Stat_t)
	return state{identity: identity{s.Dev, s.Ino}, mode: s.Mode, size: s.Size, mtime: s.Mtim, ctime: s.Ctim}
}

func identify(dir string) identity {
	info, err := os.Stat(dir)
	if err != nil {
		return identity{}
	}
	return stateOf(info).identity
}

// list gives the states of all files of a folder that count, and which folder that was.
func list(dir string) (identity, map[string]state, error) {
	fail := func(err error) (identity, map[string]state, error) { return identity{}, nil, err }
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return fail(err)
	}
	all := make(map[string]state, len(names))
	for _, name := range names {
		if !Counts(name) {
			continue
		}
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err == nil {
			all[name] = stateOf(info)
			continue
		}
		// One that went since it was listed is gone, a link to nothing is not.
		if _, missing := os.Lstat(path); missing == nil {
			all[name] = state{failure: reason(err)}
		} else if !errors.Is(missing, fs.ErrNotExist) {
			return fail(missing)
		}
	}
	// What was listed may be the rest of a folder that somebody removes.
	opened, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	id := stateOf(opened).identity
	if identify(dir) != id {
		return fail(fmt.Errorf("%s was removed or replaced while it was read", dir))
	}
	return id, all, nil
}

// read reads a file, and its state before and after that, the zero one of a file that is
// gone. later says that it may be possible
// to read it later though it looks the same.
func read(dir, name string, seen state) (f File, before, after state, later bool) {
	fail := func(s state, later bool, format string, args ...any) (File, state, state, bool) {
		return File{Name: name, Err: fmt.Errorf(format, args...)}, s, s, later
	}
	refuse := func(s state) error {
		switch {
		case !utf8.ValidString(name):
			return errors.New("has a name that is no UTF-8")
		case s.failure != "":
			return errors.New("cannot be read: " + s.failure)
		case s.mode&syscall.S_IFMT != syscall.S_IFREG:
			return errors.New("is no regular file")
		case s.size > MaxSize:
			return errors.New("is larger than 1 MiB")
		}
		return nil
	}
	if err := refuse(seen); err != nil { // before it is opened: that alone can do something to a device
		return fail(seen, false, "%w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) { // it went since it was seen
		return File{}, state{}, state{}, false
	}
	if err != nil {
		return fail(seen, true, "cannot be read: %s", reason(err))
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fail(seen, true, "cannot be read: %s", reason(err))
	}
	before = stateOf(info)
	if err := refuse(before); err != nil { // it was another one when it was looked at
		return fail(before, false, "%w", err)
	}
	data, err := io.ReadAll(io.LimitReader(file, MaxSize+1))
	if err == nil {
		info, err = file.Stat()
	}
	if err != nil {
		return fail(before, true, "cannot be read: %s", reason(err))
	}
	f, after = File{Name: name, Data: data}, stateOf(info)
	if len(data) > MaxSize {
		f = File{Name: name, Err: errors.New("is larger than 1 MiB")}
	}
	return f, before, after, false
}

// same says whether two files tell the same.
func same(a, b File) bool {
	if a.Err != nil || b.Err != nil {
		return a.Err != nil && b.Err != nil && a.Err.Error() == b.Err.Error()
	}
	return bytes.Equal(a.Data, b.Data)
}

// reason leaves out where the folder is.
func reason(err error) string {
	var p *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "it does not exist"
	case errors.As(err, &p):
		return p.Err.Error()
	}
	return err.Error()
}
