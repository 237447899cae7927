package logfile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// maxLine is the longest line that is given whole, in bytes.
const maxLine = 64 << 10

// poll is how often a follower looks for more.
const poll = 50 * time.Millisecond

// Line is a line of a file.
type Line struct {
	Time time.Time // when it was there at the latest, to about a second
	Text string
	Next int64 // where the next line begins, in bytes, see Options.After
}

// Options say which lines to give.
type Options struct {
	Since  time.Time
	Tail   int  // at most so many old lines; 0 = all
	Follow bool // go on until ctx ends
	// After goes on with the line that begins at this offset, whatever Since and Tail say; 0 = not.
	// Where that is not there any more, it is the first whole line that is left.
	After int64
	// Done says that nothing more will be written; nil = never said. A last line
	// without an end is given then.
	Done func() bool
}

// Read gives the lines of a file, oldest first. A file that is not there has none,
// and is waited for with Follow. A reader that is slower than the writer for so long that
// the file was bounded before its eyes goes on with the first whole line that is left.
// Following ends with ctx, with Done, or when the file has been removed.
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
		marks, err := presentMarks(f, path)
		if err != nil {
			yield(Line{}, err)
			return
		}
		r, err := begin(f, marks, o)
		if err != nil {
			yield(Line{}, err)
			return
		}
		for {
			// Asked before reading, so that nothing written before it is missed.
			finished := o.Done != nil && o.Done() || removed(f)
			for ctx.Err() == nil {
				text, ok, err := r.line(!o.Follow || finished)
				if err != nil {
					yield(Line{}, err)
					return
				}
				if !ok {
					break
				}
				if !yield(Line{Time: timeAt(marks, r.offset, r.modified), Text: text, Next: r.offset}, nil) {
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
			}
		}
	}
}

// open opens the file, and waits for it when it is to be followed.
func open(ctx context.Context, path string, o Options) (*os.File, error) {
	for {
		finished := o.Done != nil && o.Done() // asked before looking, as in Read
		f, err := os.Open(path)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case !o.Follow || finished:
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(poll):
		}
	}
}

// removed says whether a file has no name any more.
func removed(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink == 0
}

// begin makes a reader that stands at the first line to give.
func begin(f *os.File, marks []mark, o Options) (*reader, error) {
	data := dataStart(f)
	if o.After > 0 {
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if o.After > info.Size() { // somebody cut the file: it has begun anew
			return &reader{f: f, offset: data, skip: data > 0}, nil
		}
		return &reader{f: f, offset: max(o.After, data), skip: data > o.After}, nil
	}
	start := data
	if !o.Since.IsZero() {
		for _, m := range marks {
			if m.time.After(o.Since) {
				break
			}
			start = max(start, m.offset)
		}
		// A line that was there in part is one that came after it.
		var err error
		if start, err = lineStart(f, start, data); err != nil {
			return nil, err
		}
	}
	if o.Tail > 0 {
		var err error
		if start, err = tailStart(f, o.Tail, start); err != nil {
			return nil, err
		}
	}
	return &reader{f: f, offset: start, skip: data > 0 && start == data}, nil
}

// dataStart is the offset of the first byte behind the hole at the front.
func dataStart(f *os.File) int64 {
	start, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
	if err != nil {
		return 0 // the file is empty, or its file system knows no holes
	}
	return start
}

// lineStart is the offset at which the line begins that goes on at an offset.
func lineStart(f *os.File, offset, least int64) (int64, error) {
	buf := make([]byte, 4096)
	for offset > least {
		size := min(int64(len(buf)), offset-least)
		n, err := f.ReadAt(buf[:size], offset-size)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return offset - size + int64(i) + 1, nil
		}
		offset -= size
	}
	return offset, nil
}

// tailStart is the offset of the n-th last line, found from the end.
func tailStart(f *os.File, n int, least int64) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end := info.Size()
	for lines := 0; end > least; {
		start, err := lineStart(f, end-1, least) // end-1 is the line's own end
		if err != nil {
			return 0, err
		}
		pieces := []int64{start}
		if end-start > maxLine {
			pieces = pieceStarts(f, start, end)
		}
		if lines+len(pieces) >= n {
			return pieces[len(pieces)-(n-lines)], nil
		}
		lines += len(pieces)
		end = start
	}
	return least, nil
}

// pieceStarts are the offsets of the pieces in which a long line is given.
func pieceStarts(f *os.File, start, end int64) []int64 {
	starts := []int64{start}
	for r := (&reader{f: f, offset: start}); ; {
		if _, ok, err := r.line(true); err != nil || !ok || r.offset >= end {
			return starts
		}
		starts = append(starts, r.offset)
	}
}

// reader reads lines from an offset on.
type reader struct {
	f        *os.File
	offset   int64 // of the next line
	buf      []byte
	chunk    []byte
	skip     bool      // the offset is behind a hole, in the middle of a line
	modified time.Time // when the file had at least what buf has
}

// line gives the next line; ok is false where there is none yet. One without an end
// counts when last is set. A line that is too long is given in pieces.
func (r *reader) line(last bool) (text string, ok bool, err error) {
	for {
		if i := bytes.IndexByte(r.buf[:min(len(r.buf), maxLine+1)], '\n'); i >= 0 {
			if line := r.take(i + 1); !r.skip {
				return clean(bytes.TrimSuffix(line[:i], []byte("\r"))), true, nil
			}
			r.skip = false
			continue
		}
		if len(r.buf) > maxLine {
			if piece := r.take(pieceEnd(r.buf)); !r.skip {
				return clean(piece), true, nil
			}
			r.skip = false // a line that long is given in pieces anyway
			continue
		}
		switch n, err := r.fill(); {
		case err != nil:
			return "", false, err
		case n > 0:
			continue
		case last && len(r.buf) > 0 && !r.skip:
			return clean(r.take(len(r.buf))), true, nil
		}
		return "", false, nil
	}
}

// take moves on by n bytes.
func (r *reader) take(n int) []byte {
	part := r.buf[:n]
	r.buf = r.buf[n:]
	r.offset += int64(n)
	return part
}

// fill reads more of the file; 0 = there is no more.
func (r *reader) fill() (int, error) {
	if r.chunk == nil {
		r.chunk = make([]byte, 32<<10)
	}
	for {
		at := r.offset + int64(len(r.buf))
		n, err := r.f.ReadAt(r.chunk, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		// What was freed reads as zeros. Programs write zeros, too, so it is the
		// file system that has to say, after the read.
		if bytes.IndexByte(r.chunk[:n], 0) >= 0 {
			if data := dataStart(r.f); data > at {
				r.buf, r.offset, r.skip = nil, data, true
				continue
			}
		}
		info, err := r.f.Stat()
		if err != nil {
			return 0, err
		}
		if n == 0 && info.Size() < at {
			// Somebody cut the file: it begins anew.
			r.buf, r.offset, r.skip = nil, 0, false
			if info.Size() > 0 {
				continue
			}
		}
		r.modified = info.ModTime()
		r.buf = append(r.buf, r.chunk[:n]...)
		return n, nil
	}
}

// pieceEnd is where to cut a line that is too long, without cutting a character.
func pieceEnd(line []byte) int {
	for end := maxLine; end > maxLine-utf8.UTFMax; end-- {
		if utf8.RuneStart(line[end]) {
			return end
		}
	}
	return maxLine
}

// clean makes a line safe to show.
func clean(line []byte) string {
	text := strings.ToValidUTF8(string(line), "\uFFFD")
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
