// Package logfile reads and bounds files that programs write their output to by
// themselves, opened with O_APPEND. Nobody stands between a program and its file, so
// nothing breaks when the server ends.
//
// A file is bounded by giving the blocks of its oldest part back (a hole at the
// front): offsets stay what they are, and a writer or a reader in the middle
// notices nothing. A second file, NAME.idx, says when the file had grown to which
// length, for the times of lines.
package logfile

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Open opens a file for a program to write to, and makes it where it is missing.
func Open(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
}

// Sample notes in the index that the file has its present length now, if it has grown
// since the last time, and bounds the file to limit bytes on disk. Call it about once a
// second for every file that may grow.
func Sample(path string, limit int64) error {
	err := note(path)
	if err == nil {
		err = Bound(path, limit)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not there yet, or removed meanwhile
	}
	return err
}

// note writes a mark if the file has grown since the last one. It reads the end of the index
// only, because it is called often.
func note(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	idx, err := os.OpenFile(path+indexSuffix, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer idx.Close()
	size, err := idx.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	end := make([]byte, min(size, 64)) // longer than any mark
	if _, err := idx.ReadAt(end, size-int64(len(end))); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	text := mark{info.ModTime(), info.Size()}.String()
	if len(end) > 0 && end[len(end)-1] != '\n' {
		text = "\n" + text // the last one was cut off by a crash
	} else if last, ok := parseMark(string(end[bytes.LastIndexByte(bytes.TrimSuffix(end, []byte("\n")), '\n')+1:])); ok {
		switch {
		case last.offset == info.Size():
			return nil
		case last.offset > info.Size(): // somebody cut the file: its marks mean nothing
			if err := idx.Truncate(0); err != nil {
				return err
			}
			size = 0
		}
	}
	if info.Size() == 0 {
		return nil
	}
	if _, err := idx.WriteString(text); err != nil {
		return err
	}
	if size > maxIndex {
		return thin(path)
	}
	return nil
}

// thin makes an index shorter: marks of what was freed go, and every second one of the rest.
func thin(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	data := dataStart(f)
	f.Close()
	var text strings.Builder
	marks := readIndex(path)
	for i, m := range marks {
		if m.offset > data && (len(marks)-1-i)%2 == 0 {
			text.WriteString(m.String())
		}
	}
	idx := path + indexSuffix
	if err := os.WriteFile(idx+".new", []byte(text.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(idx+".new", idx)
}

// Bound frees the oldest part of a file, so that at most limit bytes stay on disk. A
// file system that has no holes gets the file copied to its last part instead, in which
// what is written at that very moment may be lost.
func Bound(path string, limit int64) error {
	if limit <= 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Blocks*512 <= limit+limit/8 {
		return nil // freed in larger parts, not for every line
	}
	// A part of a block is not freed but overwritten.
	block := max(4096, int64(st.Blksize)) //nolint:unconvert // it has another type on other processors
	keep := (st.Size - limit) / block * block
	if keep <= 0 {
		return nil
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, keep)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return copyRest(f, path, keep)
}

// copyRest bounds a file where holes cannot be: the file is written again from the first line at or
// behind an offset on.
func copyRest(f *os.File, path string, keep int64) error {
	rest, err := io.ReadAll(io.NewSectionReader(f, keep-1, math.MaxInt64-keep))
	if err != nil {
		return err
	}
	rest = rest[bytes.IndexByte(rest, '\n')+1:]
	if err := f.Truncate(0); err != nil {
		return err
	}
	appendTo, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = appendTo.Write(rest)
	err = errors.Join(err, appendTo.Close())
	if gone := os.Remove(path + indexSuffix); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}
