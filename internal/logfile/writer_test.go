package logfile_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/logfile"

	"golang.org/x/sys/unix"
)

// program is another process that writes lines to a file when it is told to.
type program struct {
	orders  io.WriteCloser
	answers *bufio.Scanner
}

func start(t *testing.T, path string) *program {
	t.Helper()
	cmd := exec.Command(os.Args[0], "w")
	cmd.Env = append(os.Environ(), writerVariable+"="+path)
	cmd.Stderr = os.Stderr
	orders, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		orders.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the writer: %v", err)
		}
	})
	return &program{orders, bufio.NewScanner(answers)}
}

// order asks for n more lines without waiting for them.
func (p *program) order(t *testing.T, n int) {
	t.Helper()
	if _, err := fmt.Fprintln(p.orders, n); err != nil {
		t.Fatal(err)
	}
}

// done waits until an order is carried out and gives how many lines there are altogether.
func (p *program) done(t *testing.T) int {
	t.Helper()
	if !p.answers.Scan() {
		t.Fatal("the writer is gone")
	}
	n, err := strconv.Atoi(p.answers.Text())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// bounding calls Sample over and over until the function that it gives is called.
func bounding(t *testing.T, path string, limit int64) (stop func()) {
	t.Helper()
	var group sync.WaitGroup
	var end atomic.Bool
	group.Go(func() {
		for !end.Load() {
			if err := logfile.Sample(path, limit); err != nil {
				t.Error(err)
				return
			}
		}
	})
	return func() { end.Store(true); group.Wait() }
}

func onDisk(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestAFollowerGetsEveryLineOnceWhileTheFileIsBoundedAndWritten(t *testing.T) {
	const limit, batch, batches = 256 << 10, 500, 60
	path := filepath.Join(t.TempDir(), "logs", "run.log")
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	stop := bounding(t, path, limit)
	defer stop()
	writer := start(t, path)

	// The writer is never further ahead than the limit: then nothing may be missed.
	writer.order(t, batch)
	next := 0
	for line, err := range logfile.Read(ctx, path, logfile.Options{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if number(line.Text) != next {
			t.Fatalf("line %d is %q", next, line.Text)
		}
		if next++; next == batch*batches {
			break
		}
		if next%batch == 0 {
			writer.done(t)
			writer.order(t, batch)
		}
	}
	if next != batch*batches {
		t.Fatalf("only %d lines came", next)
	}
	writer.done(t)
	stop()

	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() < 10*limit {
		t.Fatalf("the file has %d bytes: too few for this test to mean anything", info.Size())
	}
	if n := onDisk(t, path); n > 2*limit {
		t.Errorf("%d bytes are on disk, the limit is %d", n, limit)
	}
	expectLastLines(t, path, batch*batches)
}

func TestAFollowerThatFallsBehindGoesOnWithWholeLinesInOrder(t *testing.T) {
	const limit, total = 64 << 10, 40000
	path := filepath.Join(t.TempDir(), "run.log")
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	stop := bounding(t, path, limit)
	defer stop()
	writer := start(t, path)
	writer.order(t, total/2)

	last, gaps, waited := -1, 0, false
	for line, err := range logfile.Read(ctx, path, logfile.Options{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		n := number(line.Text)
		if n <= last {
			t.Fatalf("after line %d came %q", last, line.Text)
		}
		if n != last+1 {
			gaps++
		}
		if last = n; last == total-1 {
			break
		}
		if !waited { // with the first line in hand, until far more than the limit is behind it
			waited = true
			writer.done(t)
			writer.order(t, total/2)
			writer.done(t)
			stop()
			if err := logfile.Sample(path, limit); err != nil {
				t.Fatal(err)
			}
		}
	}
	if last != total-1 {
		t.Fatalf("the last line that came is %d: %v", last, ctx.Err())
	}
	if gaps == 0 {
		t.Error("the reader missed nothing, so this test shows nothing")
	}
}

func TestReadersThatBeginAndEndInTheMiddleTogetherGetEveryLineOnce(t *testing.T) {
	const limit, batch, batches = 256 << 10, 300, 30
	path := filepath.Join(t.TempDir(), "run.log")
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	stop := bounding(t, path, limit)
	defer stop()
	writer := start(t, path)

	seen := 0
	for i := range batches {
		// A reader of its own for every batch, with the writer in the middle of one.
		writer.order(t, batch)
		for line, err := range logfile.Read(ctx, path, logfile.Options{Follow: true}) {
			if err != nil {
				t.Fatal(err)
			}
			n := number(line.Text)
			if n < 0 || n > seen {
				t.Fatalf("after line %d came %q", seen-1, line.Text)
			}
			if seen = max(seen, n+1); seen == (i+1)*batch {
				break
			}
		}
		if total := writer.done(t); total != seen {
			t.Fatalf("%d lines came of %d", seen, total)
		}
	}
	stop()
	expectLastLines(t, path, batch*batches)
}

// expectLastLines reads a file at rest: what comes must be the last ones of total numbered lines.
func expectLastLines(t *testing.T, path string, total int) {
	t.Helper()
	var numbers []int
	for line, err := range logfile.Read(t.Context(), path, logfile.Options{}) {
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, number(line.Text))
	}
	if len(numbers) == 0 || len(numbers) == total {
		t.Fatalf("%d lines of %d are left", len(numbers), total)
	}
	for i, n := range numbers {
		if want := total - len(numbers) + i; n != want {
			t.Fatalf("line %d of those left is %d, not %d", i, n, want)
		}
	}
}

func TestLinesOfSeveralProcessesStayWhole(t *testing.T) {
	const each = 4000
	path := filepath.Join(t.TempDir(), "run.log")
	stop := bounding(t, path, 1<<30)
	defer stop()
	var writers []*exec.Cmd
	for range 3 {
		cmd := exec.Command("awk", fmt.Sprintf(`BEGIN { for (i = 0; i < %d; i++) { print "line", i; fflush() } }`, each))
		out, err := logfile.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out.Close()
		writers = append(writers, cmd)
	}
	var err error
	for _, cmd := range writers {
		err = errors.Join(err, cmd.Wait())
	}
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for line, err := range logfile.Read(t.Context(), path, logfile.Options{}) {
		if err != nil {
			t.Fatal(err)
		}
		count[line.Text]++
	}
	for i := range each {
		if n := count["line "+strconv.Itoa(i)]; n != 3 {
			t.Fatalf("line %d is there %d times", i, n)
		}
	}
	if len(count) != each {
		t.Errorf("%d different lines: %s", len(count), strings.Join(firstKeys(count, 5), ", "))
	}
}

func firstKeys(m map[string]int, n int) (keys []string) {
	for key := range m {
		if keys = append(keys, key); len(keys) == n {
			break
		}
	}
	return keys
}
