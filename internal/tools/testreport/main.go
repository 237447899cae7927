// Command testreport reads the output of `go test -json` and prints what people
// want to know of it: packages as they end, failures in full, at the end every
// skipped test with its reason, and a count. It exits with 1 if anything failed.
//
//	go test -json ./... | testreport
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is a line of `go test -json`, see `go doc test2json`.
type event struct {
	Action      string
	Package     string
	Test        string
	Elapsed     float64
	Output      string
	ImportPath  string
	FailedBuild string
}

func main() {
	failed, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
	if failed {
		os.Exit(1)
	}
}

// report copies what matters of in to out and says whether anything failed.
func report(in io.Reader, out io.Writer) (failed bool, err error) {
	output := map[string][]string{} // by package and test
	var passes, fails int
	var skips []string
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text()) // go itself has something to say
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if e.Action == "build-output" {
				fmt.Fprint(out, e.Output)
				break
			}
			output[key] = append(output[key], e.Output)
		case "pass":
			if e.Test == "" {
				fmt.Fprintf(out, "ok    %s %.1fs\n", e.Package, e.Elapsed)
			} else {
				passes++
			}
			delete(output, key)
		case "skip":
			if e.Test != "" {
				skips = append(skips, fmt.Sprintf("--- SKIP: %s.%s: %s", e.Package, e.Test, reason(output[key])))
			}
			delete(output, key)
		case "fail":
			failed = true
			if e.Test != "" {
				fails++
			}
			fmt.Fprintf(out, "FAIL  %s %s\n%s", e.Package, e.Test, strings.Join(output[key], ""))
			delete(output, key)
		}
	}
	if err := lines.Err(); err != nil {
		return true, err
	}
	fmt.Fprintln(out)
	slices.Sort(skips)
	for _, s := range skips {
		fmt.Fprintln(out, s)
	}
	if len(skips) == 0 {
		fmt.Fprintln(out, "no test was skipped")
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", passes, fails, len(skips))
	return failed || passes == 0, nil
}

// reason finds what a skipped test said in its output.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "---") || strings.HasPrefix(line, "===") {
			continue
		}
		if _, said, ok := strings.Cut(line, ".go:"); ok {
			if _, said, ok = strings.Cut(said, ": "); ok {
				return said
			}
		}
		return line
	}
	return "no reason was given"
}
