package main

import (
	"strings"
	"testing"
)

const run = `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: needs btrfs\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB","Elapsed":0}
`

func TestSkippedTestsAreListedWithTheirReasons(t *testing.T) {
	var out strings.Builder
	failed, err := report(strings.NewReader(run+`{"Action":"pass","Package":"p","Elapsed":0.2}`), &out)
	if err != nil || failed {
		t.Fatalf("failed %v, error %v", failed, err)
	}
	for _, want := range []string{"--- SKIP: p.TestB: needs btrfs\n", "1 passed, 0 failed, 1 skipped\n", "ok    p 0.2s\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}

func TestFailuresAreShownAndDecideTheExit(t *testing.T) {
	var out strings.Builder
	failed, err := report(strings.NewReader(run+`{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:9: got 1\n"}
{"Action":"fail","Package":"p","Test":"TestC","Elapsed":0}
{"Action":"fail","Package":"p","Elapsed":0.2}`), &out)
	if err != nil || !failed {
		t.Fatalf("failed %v, error %v", failed, err)
	}
	if !strings.Contains(out.String(), "c_test.go:9: got 1") || !strings.Contains(out.String(), "1 passed, 1 failed, 1 skipped") {
		t.Errorf("the failure is missing in:\n%s", out.String())
	}
}

func TestARunWithoutTestsFails(t *testing.T) {
	if failed, _ := report(strings.NewReader(""), &strings.Builder{}); !failed {
		t.Error("nothing was tested and nothing failed")
	}
}
