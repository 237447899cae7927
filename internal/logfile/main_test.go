package logfile_test

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/logfile"

	"go.uber.org/goleak"
)

// writerVariable makes the test binary the program whose output is kept.
const writerVariable = "DAYFLY_TEST_LOG_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerVariable); path != "" {
		if err := write(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// write appends to a file as many lines as each line of the standard input says, and answers
// each of them when it has.
func write(path string) error {
	f, err := logfile.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	next := 0
	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
		n, err := strconv.Atoi(orders.Text())
		if err != nil {
			return err
		}
		for range n {
			// In two halves: a reader must not take the first for a line.
			line := numbered(os.Args[1], next)
			if _, err := f.WriteString(line[:len(line)/2]); err != nil {
				return err
			}
			if _, err := f.WriteString(line[len(line)/2:] + "\n"); err != nil {
				return err
			}
			next++
		}
		if _, err := fmt.Println(next); err != nil {
			return err
		}
	}
	return nil
}

// numbered is a line that tells if it is whole: its number, and a length that follows from it.
func numbered(who string, n int) string {
	return fmt.Sprintf("%s %d %s.", who, n, strings.Repeat(string(rune('a'+n%26)), n*37%211))
}

// number is the number of a line, or -1 if it is not as it was written.
func number(line string) int {
	who, rest, _ := strings.Cut(line, " ")
	text, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(text)
	if err != nil || numbered(who, n) != line {
		return -1
	}
	return n
}
