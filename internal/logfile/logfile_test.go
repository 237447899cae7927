package logfile_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly/internal/logfile"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// testTimeout ends a test that hangs. No test waits for it.
const testTimeout = time.Minute

type fatal interface {
	Helper()
	Fatal(args ...any)
}

func read(t fatal, path string, o logfile.Options) (lines []logfile.Line) {
	t.Helper()
	for line, err := range logfile.Read(context.Background(), path, o) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

func texts(lines []logfile.Line) []string {
	list := []string{}
	for _, line := range lines {
		list = append(list, line.Text)
	}
	return list
}

func put(t fatal, path, text string) {
	t.Helper()
	f, err := logfile.Open(path)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

const maxLine = 64 << 10

func TestLinesAreGivenSoThatTheyCanBeShown(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"nothing":                             {"", []string{}},
		"lines":                               {"one\ntwo\n", []string{"one", "two"}},
		"an empty line":                       {"\n\nx\n", []string{"", "", "x"}},
		"a last line without an end":          {"one\ntwo", []string{"one", "two"}},
		"the ends of Windows":                 {"one\r\ntwo\r\n", []string{"one", "two"}},
		"only the last return goes":           {"10%\r20%\r\r\n", []string{"10%\r20%\r"}},
		"no UTF-8":                            {"caf\xe9 \xff\xfe!\n", []string{"caf\uFFFD \uFFFD!"}},
		"zeros":                               {"a\x00b\x00\n", []string{"ab"}},
		"a line as long as a line may be":     {long(maxLine) + "\nnext\n", []string{long(maxLine), "next"}},
		"one byte more":                       {long(maxLine+1) + "\nnext\n", []string{long(maxLine), "x", "next"}},
		"several times as long":               {long(3*maxLine) + "\n\nnext\n", []string{long(maxLine), long(maxLine), long(maxLine), "", "next"}},
		"a long one without an end":           {long(maxLine + 5), []string{long(maxLine), "xxxxx"}},
		"a character at the end of the piece": {long(maxLine-1) + "ö\n", []string{long(maxLine - 1), "ö"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "run.log")
			put(t, path, c.text)
			if diff := cmp.Diff(c.want, texts(read(t, path, logfile.Options{}))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTailGivesTheLastLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for name, c := range map[string]struct {
		text string
		n    int
		want []string
	}{
		"some":                            {"1\n2\n3\n4\n", 2, []string{"3", "4"}},
		"all":                             {"1\n2\n", 2, []string{"1", "2"}},
		"more than there are":             {"1\n2\n", 9, []string{"1", "2"}},
		"of nothing":                      {"", 3, []string{}},
		"one without an end":              {"1\n2\n3", 2, []string{"2", "3"}},
		"empty ones":                      {"1\n\n\n", 2, []string{"", ""}},
		"a piece of a line that is long":  {long + "end\n", 1, []string{"end"}},
		"two pieces and a line behind":    {"a\n" + long + long + "end\nlast\n", 3, []string{long, "end", "last"}},
		"more than one reading, backward": {strings.Repeat("0123456789\n", 5000), 4000, slices.Repeat([]string{"0123456789"}, 4000)},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "run.log")
			put(t, path, c.text)
			if diff := cmp.Diff(c.want, texts(read(t, path, logfile.Options{Tail: c.n}))); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.want, append([]string{}, logfile.Tail(path, c.n)...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAFileThatIsNotThereHasNoLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nothing.log")
	if lines := read(t, path, logfile.Options{}); lines != nil {
		t.Error(lines)
	}
	if lines := logfile.Tail(path, 3); lines != nil {
		t.Error(lines)
	}
	if err := logfile.Sample(path, 1); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("sampling made %v", left)
	}
}

func TestAFolderIsNoLog(t *testing.T) {
	for line, err := range logfile.Read(t.Context(), t.TempDir(), logfile.Options{}) {
		if err == nil {
			t.Errorf("got a line: %q", line.Text)
		}
		return
	}
	t.Error("there was no error")
}

// sampled writes lines and a mark for each, an hour apart, and gives the first mark's time.
func sampled(t *testing.T, path string, lines ...string) time.Time {
	t.Helper()
	first := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for i, line := range lines {
		put(t, path, line)
		at := first.Add(time.Duration(i) * time.Hour)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		if err := logfile.Sample(path, 1<<30); err != nil {
			t.Fatal(err)
		}
	}
	return first
}

func TestLinesHaveTheTimeAtWhichTheyWereThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.log")
	first := sampled(t, path, "a\nb\n", "c\nhalf of", " d\n")
	put(t, path, "e\n") // nobody looked since
	end := first.Add(5 * time.Hour)
	if err := os.Chtimes(path, end, end); err != nil {
		t.Fatal(err)
	}
	want := map[string]time.Duration{"a": 0, "b": 0, "c": time.Hour, "half of d": 2 * time.Hour, "e": 5 * time.Hour}
	for _, o := range []logfile.Options{{}, {Follow: true, Done: func() bool { return true }}} {
		got := map[string]time.Duration{}
		for _, line := range read(t, path, o) {
			got[line.Text] = line.Time.Sub(first)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestSinceGivesWhatCameLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.log")
	first := sampled(t, path, "a\nb\n", "c\nhalf of", " d\ne\n")
	for _, c := range []struct {
		since time.Duration
		o     logfile.Options
		want  []string
	}{
		{-time.Minute, logfile.Options{}, []string{"a", "b", "c", "half of d", "e"}},
		{0, logfile.Options{}, []string{"c", "half of d", "e"}},
		{time.Hour - 1, logfile.Options{}, []string{"c", "half of d", "e"}},
		{time.Hour, logfile.Options{}, []string{"half of d", "e"}},
		{2 * time.Hour, logfile.Options{}, []string{}},
		{9 * time.Hour, logfile.Options{}, []string{}},
		{0, logfile.Options{Tail: 1}, []string{"e"}},
		{time.Hour, logfile.Options{Tail: 4}, []string{"half of d", "e"}},
	} {
		c.o.Since = first.Add(c.since)
		if diff := cmp.Diff(c.want, texts(read(t, path, c.o))); diff != "" {
			t.Errorf("since %s, at most %d: %s", c.since, c.o.Tail, diff)
		}
	}
}

func TestReadingGoesOnWhereItWasLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.log")
	long := strings.Repeat("x", 100<<10) // given in pieces
	if err := os.WriteFile(path, []byte("a\n\nb\r\n"+long+"\nc\nhalf"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := read(t, path, logfile.Options{})
	if len(all) != 7 {
		t.Fatalf("%d lines", len(all))
	}
	for n, line := range all {
		rest := read(t, path, logfile.Options{After: line.Next, Tail: 1, Since: time.Now().Add(time.Hour)})
		if diff := cmp.Diff(texts(all[n+1:]), texts(rest)); diff != "" {
			t.Errorf("behind line %d: %s", n, diff)
		}
	}
	// What a program began anew is read from its start.
	if err := os.WriteFile(path, []byte("anew\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := texts(read(t, path, logfile.Options{After: all[3].Next})); !slices.Equal(got, []string{"anew"}) {
		t.Errorf("of a file that was cut: %q", got)
	}
}

func TestReadingThatWasLeftInWhatIsGoneGoesOnWithAWholeLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.log")
	var text strings.Builder
	for n := range 20_000 {
		fmt.Fprintf(&text, "line %d\n", n)
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := logfile.Bound(path, 64<<10); err != nil {
		t.Fatal(err)
	}
	left := texts(read(t, path, logfile.Options{}))
	if len(left) == 0 || len(left) == 20_000 {
		t.Fatalf("%d lines are left", len(left))
	}
	if diff := cmp.Diff(left, texts(read(t, path, logfile.Options{After: 5}))); diff != "" {
		t.Error(diff)
	}
}

func TestADamagedIndexCostsTimesAndNoLines(t *testing.T) {
	whole := []string{"a", "b", "c"}
	for name, damage := range map[string]string{
		"cut off":          "17723",
		"cut in the words": "1772366400000 ",
		"rubbish":          "\x00\x00\x00\x00\nx y z\n-1 -1\n",
		"beyond the file":  "1772366400000 99999\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "run.log")
			put(t, path+".idx", damage)
			first := sampled(t, path, "a\n", "b\n", "c\n")
			lines := read(t, path, logfile.Options{})
			if diff := cmp.Diff(whole, texts(lines)); diff != "" {
				t.Error(diff)
			}
			for i, line := range lines[1:] {
				if want := first.Add(time.Duration(i+1) * time.Hour); !line.Time.Equal(want) {
					t.Errorf("%q has the time %s, not %s", line.Text, line.Time, want)
				}
			}
		})
	}
}

func TestAnIndexStaysSmallAndGoesOnTellingTimes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.log")
	lines := make([]string, 9000)
	for i := range lines {
		lines[i] = fmt.Sprintf("line %d\n", i)
	}
	first := sampled(t, path, lines...)
	info, err := os.Stat(path + ".idx")
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 66<<10 {
		t.Errorf("the index has %d bytes", info.Size())
	}
	for i, line := range read(t, path, logfile.Options{}) {
		late := int(line.Time.Sub(first.Add(time.Duration(i)*time.Hour)) / time.Hour)
		if age := len(lines) - i; late < 0 || late > age/100 {
			t.Fatalf("line %d is said to be %d hours younger than it is, at an age of %d", i, late, age)
		}
	}
	if left, _ := filepath.Glob(path + ".idx?*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBoundingFreesTheOldestPartAndTimesStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.log")
	lines := make([]string, 100)
	for i := range lines {
		lines[i] = numbered("w", i) + strings.Repeat(" ", 10000) + "\n"
	}
	first := sampled(t, path, lines...)
	if err := logfile.Bound(path, 200<<10); err != nil {
		t.Fatal(err)
	}
	if n := onDisk(t, path); n > 220<<10 {
		t.Errorf("%d bytes are on disk", n)
	}
	left := read(t, path, logfile.Options{})
	if len(left) < 15 || len(left) > 22 {
		t.Fatalf("%d lines are left", len(left))
	}
	for i, line := range left {
		n := len(lines) - len(left) + i
		if line.Text+"\n" != lines[n] {
			t.Fatalf("line %d is %.40q", n, line.Text)
		}
		if want := first.Add(time.Duration(n) * time.Hour); !line.Time.Equal(want) {
			t.Errorf("line %d has the time %s, not %s", n, line.Time, want)
		}
	}
	if got := texts(read(t, path, logfile.Options{Since: first})); len(got) != len(left) {
		t.Errorf("since the very first line %d lines came, not %d", len(got), len(left))
	}
	if got := texts(read(t, path, logfile.Options{Tail: 99})); len(got) != len(left) {
		t.Errorf("of the last 99 lines %d came, not %d", len(got), len(left))
	}
}

func TestALineLongerThanTheFileMayBeIsGivenInPieces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.log")
	put(t, path, strings.Repeat("x", 20*maxLine)+"end\n")
	if err := logfile.Bound(path, 8*maxLine); err != nil {
		t.Fatal(err)
	}
	got := texts(read(t, path, logfile.Options{}))
	if len(got) < 5 || got[len(got)-1][max(0, len(got[len(got)-1])-3):] != "end" {
		t.Errorf("%d pieces came", len(got))
	}
	for _, piece := range got {
		if len(piece) > maxLine || strings.Trim(piece, "x") != "" && !strings.HasSuffix(piece, "end") {
			t.Errorf("a piece has %d bytes", len(piece))
		}
	}
}

func TestNoLimitFreesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.log")
	put(t, path, strings.Repeat("0123456789abcde\n", 1<<12))
	if err := logfile.Bound(path, 0); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path, logfile.Options{}); len(got) != 1<<12 {
		t.Errorf("%d lines are left", len(got))
	}
}

func TestFollowingWaitsForTheFileAndEndsWhenNothingMoreIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "later", "run.log")
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	var done atomic.Bool
	asked := make(chan struct{}, 1)
	lines := make(chan string)
	go func() {
		defer close(lines)
		for line, err := range logfile.Read(ctx, path, logfile.Options{Follow: true, Done: func() bool {
			select {
			case asked <- struct{}{}:
			default:
			}
			return done.Load()
		}}) {
			if err != nil {
				t.Error(err)
			}
			lines <- line.Text
		}
	}()
	<-asked // it is waiting
	put(t, path, "one\nha")
	expect := func(want string) {
		t.Helper()
		if got := <-lines; got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	expect("one")
	put(t, path, "lf\n")
	expect("half")
	put(t, path, "the end")
	done.Store(true)
	expect("the end")
	if line, open := <-lines; open {
		t.Errorf("then came %q", line)
	}
	if ctx.Err() != nil {
		t.Error("it ended because the test did")
	}
}

func TestFollowingEndsWhereNothingEverCame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "never.log")
	if got := read(t, path, logfile.Options{Follow: true, Done: func() bool { return true }}); got != nil {
		t.Error(got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for line, err := range logfile.Read(ctx, path, logfile.Options{Follow: true}) {
		t.Error(line, err)
	}
}

func TestFollowingEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.log")
	put(t, path, "one\ntwo\n")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	for line, err := range logfile.Read(ctx, path, logfile.Options{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, line.Text)
		cancel()
	}
	if !slices.Equal(got, []string{"one"}) {
		t.Errorf("got %q", got)
	}
}

func TestFollowingARemovedFileGivesItsRestAndEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.log")
	f, err := logfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintln(f, "one")
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	var got []string
	for line, err := range logfile.Read(ctx, path, logfile.Options{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, line.Text); len(got) == 1 {
			fmt.Fprint(f, "two\nlast") // the program still has it
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := logfile.Sample(path, 1); err != nil {
				t.Error(err)
			}
		}
	}
	if want := []string{"one", "two", "last"}; !slices.Equal(got, want) || ctx.Err() != nil {
		t.Errorf("got %q (%v)", got, ctx.Err())
	}
}

func TestAFollowerNoticesThatAProgramCutItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.log")
	sampled(t, path, "long ago\n", "and after\n")
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	var got []string
	for line, err := range logfile.Read(ctx, path, logfile.Options{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, line.Text); len(got) == 2 {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			put(t, path, "new\n")
		}
		if len(got) == 3 {
			break
		}
	}
	if want := []string{"long ago", "and after", "new"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil {
		t.Fatal(err)
	}
	if err := logfile.Sample(path, 1<<30); err != nil {
		t.Fatal(err)
	}
	if lines := read(t, path, logfile.Options{}); len(lines) != 1 || lines[0].Time.Before(now.Add(-time.Second)) {
		t.Errorf("a new line has an old time: %v", lines)
	}
}

// What is read is always the end of what was written, in whole lines, whatever was freed before; and
// Tail and Since only leave out lines at the front.
func TestLinesReadAreASuffixOfLinesWritten(t *testing.T) {
	dir := t.TempDir()
	count := 0
	rapid.Check(t, func(t *rapid.T) {
		count++
		path := filepath.Join(dir, fmt.Sprint(count))
		defer os.Remove(path)
		defer os.Remove(path + ".idx")
		put(t, path, "")
		limit := rapid.Int64Range(1, 32<<10).Draw(t, "limit")
		var written []string
		var bytes []int // of each line
		clock := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				n := rapid.IntRange(1, 60).Draw(t, "lines")
				width := rapid.IntRange(0, 1200).Draw(t, "width")
				var text strings.Builder
				for range n {
					line := fmt.Sprint(len(written), " ", strings.Repeat("\x00ü", width/3))
					written = append(written, strings.ReplaceAll(line, "\x00", ""))
					bytes = append(bytes, len(line)+1)
					text.WriteString(line + "\n")
				}
				put(t, path, text.String())
				clock = clock.Add(time.Second)
				if err := os.Chtimes(path, clock, clock); err != nil {
					t.Fatal(err)
				}
			},
			"sample": func(t *rapid.T) {
				if err := logfile.Sample(path, limit); err != nil {
					t.Fatal(err)
				}
			},
			"bound": func(t *rapid.T) {
				if err := logfile.Bound(path, limit); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				all := read(t, path, logfile.Options{})
				isSuffix(t, "of those written", written, texts(all))
				if first := len(written) - len(all); first > 0 {
					left := 0
					for _, n := range bytes[first-1:] {
						left += n
					}
					if left < int(limit) {
						t.Fatalf("line %d is gone, though with it only %d of %d bytes were there", first-1, left, limit)
					}
				}
				n := rapid.IntRange(1, 100).Draw(t, "tail")
				tail := texts(read(t, path, logfile.Options{Tail: n}))
				isSuffix(t, "of those that are there", texts(all), tail)
				if want := min(n, len(all)); len(tail) != want {
					t.Fatalf("of the last %d of %d lines %d came", n, len(all), len(tail))
				}
				since := clock.Add(-time.Duration(rapid.IntRange(0, 20).Draw(t, "since")) * time.Second)
				var later []string
				for _, line := range all {
					if line.Time.After(since) {
						later = append(later, line.Text)
					}
				}
				if got := texts(read(t, path, logfile.Options{Since: since})); !slices.Equal(got, later) {
					t.Fatalf("%d lines came since then, %d have such a time", len(got), len(later))
				}
			},
		})
	})
}

func isSuffix(t *rapid.T, what string, whole, part []string) {
	t.Helper()
	if len(part) > len(whole) || !slices.Equal(whole[len(whole)-len(part):], part) {
		t.Fatalf("%d lines are no suffix %s, %d: %.200q", len(part), what, len(whole), part)
	}
}
