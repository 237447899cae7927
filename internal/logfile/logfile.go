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
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxLine is the longest line that is given whole, in bytes.
const maxLine = 64 << 10

// poll is how often a follower looks for more.
const poll = 50 * time.Millisecond

// Open opens a file for a program to write to, and makes it where it is missing.
func Open(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
}

// Line is a line of a file.
type Line struct {
	Time time.Time // when it was there at the latest, to about a second
	Text string
}

// Options say which lines to give.
type Options struct {
	Since  time.Time
	Tail   int  // at most so many old lines; 0 = all
	Follow bool // go on until ctx ends
	// Done says that nothing more will be written; nil = never said. A last line
	// without an end is given then.
	Done func() bool
}

// Read gives the lines of a file, oldest first. A file that is not there has none,
// and is waited for with Follow.
func Read(ctx context.Context, path string, o Options) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		f, err := open(ctx, path, o)
		if f == nil {
			if err != nil {
				yield(Line{}, err)
			}
			return
		}
		defer f.Close()
		marks := readIndex(path)
		offset, err := begin(f, marks, o)
		if err != nil {
			yield(Line{}, err)
			return
		}
		r := &reader{f: f, offset: offset}
		for {
			finished := o.Done != nil && o.Done() // asked before reading, so that nothing written before it is missed
			for {
				at := r.offset
				text, ok, err := r.line(!o.Follow || finished)
				if err != nil {
					yield(Line{}, err)
					return
				}
				if !ok {
					break
				}
				if !yield(Line{Time: timeAt(marks, at, o.Follow), Text: text}, nil) {
					return
				}
			}
			if !o.Follow || finished {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(poll):
				marks = appendIndex(path, marks)
			}
		}
	}
}

// open opens the file, and waits for it when it is to be followed.
func open(ctx context.Context, path string, o Options) (*os.File, error) {
	for {
		f, err := os.Open(path)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case !o.Follow || o.Done != nil && o.Done():
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(poll):
		}
	}
}

// begin finds the offset of the first line to give.
func begin(f *os.File, marks []mark, o Options) (int64, error) {
	start, err := dataStart(f)
	if err != nil {
		return 0, err
	}
	if !o.Since.IsZero() {
		for _, m := range marks {
			if m.time.After(o.Since) {
				break
			}
			start = max(start, m.offset)
		}
		if start > 0 {
			if start, err = nextLine(f, start); err != nil {
				return 0, err
			}
		}
	}
	if o.Tail > 0 {
		tail, err := tailStart(f, o.Tail, start)
		return max(tail, start), err
	}
	return start, nil
}

// dataStart is the offset of the first whole line behind the hole at the front.
func dataStart(f *os.File) (int64, error) {
	start, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return 0, nil // empty
	case err != nil:
		return 0, nil //nolint:nilerr // the file system knows no holes
	case start == 0:
		return 0, nil
	}
	return nextLine(f, start)
}

// nextLine is the offset behind the first line end at or behind offset-1.
func nextLine(f *os.File, offset int64) (int64, error) {
	buf := make([]byte, 4096)
	for at := offset - 1; ; {
		n, err := f.ReadAt(buf, at)
		if i := bytes.IndexByte(buf[:n], '\n'); i >= 0 {
			return at + int64(i) + 1, nil
		}
		at += int64(n)
		if err == io.EOF {
			return at, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// tailStart is the offset of the n-th last line, found from the end.
func tailStart(f *os.File, n int, least int64) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end := info.Size()
	buf := make([]byte, 32<<10)
	lines := 0
	for at := end; at > least; {
		size := min(int64(len(buf)), at-least)
		at -= size
		if _, err := f.ReadAt(buf[:size], at); err != nil && err != io.EOF {
			return 0, err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] == '\n' && at+i != end-1 {
				if lines++; lines == n {
					return at + i + 1, nil
				}
			}
		}
	}
	return least, nil
}

// reader reads lines from an offset on.
type reader struct {
	f      *os.File
	offset int64 // of the next line
	buf    []byte
}

// line gives the next line; ok is false where there is none yet. One without an end
// counts when last is set.
func (r *reader) line(last bool) (text string, ok bool, err error) {
	for {
		if i := bytes.IndexByte(r.buf, '\n'); i >= 0 {
			text, r.buf = clean(r.buf[:i]), r.buf[i+1:]
			r.offset += int64(i) + 1
			return text, true, nil
		}
		if len(r.buf) >= maxLine {
			text, r.buf = clean(r.buf[:maxLine]), r.buf[maxLine:]
			r.offset += maxLine
			return text, true, nil
		}
		chunk := make([]byte, 32<<10)
		n, err := r.f.ReadAt(chunk, r.offset+int64(len(r.buf)))
		r.buf = append(r.buf, chunk[:n]...)
		if err != nil && err != io.EOF {
			return "", false, err
		}
		if n == 0 {
			if last && len(r.buf) > 0 {
				text = clean(r.buf)
				r.offset += int64(len(r.buf))
				r.buf = nil
				return text, true, nil
			}
			return "", false, nil
		}
	}
}

// clean makes a line safe to show.
func clean(line []byte) string {
	text := strings.ToValidUTF8(strings.TrimSuffix(string(line), "\r"), "\uFFFD")
	return strings.ReplaceAll(text, "\x00", "")
}

// Tail gives the last n lines of a file; a file that is not there has none.
func Tail(path string, n int) []string {
	var lines []string
	for line, err := range Read(context.Background(), path, Options{Tail: n}) {
		if err != nil {
			break
		}
		lines = append(lines, line.Text)
	}
	return lines
}

// mark says that at some time the file had some length.
type mark struct {
	time   time.Time
	offset int64
}

func readIndex(path string) []mark { return appendIndex(path, nil) }

// appendIndex reads what the index has beyond the marks that are known.
func appendIndex(path string, marks []mark) []mark {
	f, err := os.Open(path + ".idx")
	if err != nil {
		return marks
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	known := len(marks)
	for i := 0; lines.Scan(); i++ {
		if i < known {
			continue
		}
		var at, offset int64
		if n, _ := fmt.Sscanf(lines.Text(), "%d %d", &at, &offset); n == 2 {
			marks = append(marks, mark{time.UnixMilli(at), offset})
		}
	}
	return marks
}

// timeAt is when the file had grown beyond an offset: the time of the first mark behind it.
func timeAt(marks []mark, offset int64, following bool) time.Time {
	i, _ := slices.BinarySearchFunc(marks, offset, func(m mark, offset int64) int {
		if m.offset <= offset {
			return -1
		}
		return 1
	})
	if i < len(marks) {
		return marks[i].time
	}
	if following || len(marks) == 0 || i == len(marks) {
		return time.Now()
	}
	return marks[len(marks)-1].time
}

// Sample notes in the index that the file has its present length now, if it has grown
// since the last time, and bounds the file to max bytes on disk. Call it about once a
// second for every file that may grow.
func Sample(path string, limit int64) error {
	info, err := os.Stat(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	marks := readIndex(path)
	if len(marks) == 0 && info.Size() > 0 || len(marks) > 0 && marks[len(marks)-1].offset < info.Size() {
		idx, err := os.OpenFile(path+".idx", os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(idx, "%d %d\n", info.ModTime().UnixMilli(), info.Size())
		if err := errors.Join(err, idx.Close()); err != nil {
			return err
		}
	}
	return Bound(path, limit)
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
	const block = 4096
	if st.Blocks*512 <= limit+limit/8 {
		return nil // freed in larger parts, not for every line
	}
	keep := (st.Size - limit) / block * block
	if keep <= 0 {
		return nil
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, keep)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	rest := make([]byte, st.Size-keep)
	n, err := f.ReadAt(rest, keep)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	appendTo, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = appendTo.Write(rest[:n])
	return errors.Join(err, appendTo.Close(), os.Remove(path+".idx"))
}
