package logfile

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// presentMarks are the marks of the index and one for what the file is now, so that
// also lines behind the last mark have a time.
func presentMarks(f *os.File, path string) ([]mark, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	marks := readIndex(path)
	if n := len(marks); n > 0 && marks[n-1].offset > info.Size() {
		marks = nil // of what the file was before somebody cut it
	}
	if n := len(marks); info.Size() > 0 && (n == 0 || marks[n-1].offset < info.Size()) {
		at := info.ModTime()
		if n > 0 && at.Before(marks[n-1].time) {
			at = marks[n-1].time
		}
		marks = append(marks, mark{at, info.Size()})
	}
	return marks, nil
}

// mark says that at some time the file had some length.
type mark struct {
	time   time.Time
	offset int64
}

// maxIndex is the length in bytes from which on an index is thinned out.
const maxIndex = 64 << 10

// readIndex gives the marks of a file. What is damaged is left out.
func readIndex(path string) []mark {
	text, err := os.ReadFile(path + indexSuffix)
	if err != nil {
		return nil
	}
	var marks []mark
	for line := range strings.Lines(string(text)) {
		m, ok := parseMark(line)
		if !ok {
			continue
		}
		if n := len(marks); n > 0 {
			if m.offset <= marks[n-1].offset {
				continue
			}
			if m.time.Before(marks[n-1].time) {
				m.time = marks[n-1].time // somebody set the clock back
			}
		}
		marks = append(marks, m)
	}
	return marks
}

const indexSuffix = ".idx"

// parseMark reads a line of an index: milliseconds since 1970, and the length in bytes.
func parseMark(line string) (mark, bool) {
	line, whole := strings.CutSuffix(line, "\n")
	first, second, _ := strings.Cut(line, " ")
	at, err1 := strconv.ParseInt(first, 10, 64)
	offset, err2 := strconv.ParseInt(second, 10, 64)
	return mark{time.UnixMilli(at), offset}, whole && err1 == nil && err2 == nil && offset > 0
}

func (m mark) String() string { return fmt.Sprintf("%d %d\n", m.time.UnixMilli(), m.offset) }

// timeAt is when the file had grown to an offset: the time of the first mark that has it, or else the
// time at which the file was seen to have it.
func timeAt(marks []mark, offset int64, seen time.Time) time.Time {
	i, _ := slices.BinarySearchFunc(marks, offset, func(m mark, offset int64) int { return cmp.Compare(m.offset, offset) })
	switch n := len(marks); {
	case i < n:
		return marks[i].time
	case n > 0 && seen.Before(marks[n-1].time):
		return marks[n-1].time
	}
	return seen
}
