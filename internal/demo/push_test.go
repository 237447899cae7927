package demo

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hooked gives the folder of an empty repository that says something after each push.
func hooked(t *testing.T, made *tour, hook, script string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shop.git")
	made.output(t, "init", "--quiet", "--bare", dir)
	if err := os.WriteFile(filepath.Join(dir, "hooks", hook), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestThePushShowsWhatTheServerSaysAndEndsWithTheAddress(t *testing.T) {
	for _, c := range []struct {
		name, hook, script string
		address            string
		shown              []string
		mention            string // in the error; "" = there is none
	}{
		{"it becomes ready", "post-receive", "echo '   0.1s  building'\necho 'environment shop-winter is ready: http://shop-winter.localhost:8080'\n",
			"http://shop-winter.localhost:8080", []string{"remote:    0.1s  building\n", "remote: environment shop-winter is ready: http://shop-winter.localhost:8080\n"}, ""},
		{"it fails", "post-receive", "echo 'environment shop-winter is failed: no'\n", "", []string{"is failed: no\n"}, "without an address: remote: environment shop-winter is failed"},
		{"it is refused", "pre-receive", "echo 'compose.yaml:4: no'\nexit 1\n", "", []string{"remote: compose.yaml:4: no\n"}, "failed to push some refs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			made := prepared(t)
			var out bytes.Buffer
			made.Out = &out
			address, err := made.pushed(t.Context(), "push", "--quiet", hooked(t, made, c.hook, c.script), "main")
			if address != c.address {
				t.Errorf("the address is %q", address)
			}
			if c.mention == "" && err != nil || c.mention != "" && (err == nil || !strings.Contains(err.Error(), c.mention)) {
				t.Errorf("the error is %v", err)
			}
			for _, line := range c.shown {
				if !strings.Contains(out.String(), line) {
					t.Errorf("%q does not show %q", out.String(), line)
				}
			}
		})
	}
}

// The words of the tour have to be in the shop.
func TestThePushedBranchCanBeMadeFromMainAsTheTourLeavesIt(t *testing.T) {
	made := prepared(t)
	if err := made.commit(t.Context(), "Everything for a life of one day", "Everything for a life of one day, and one evening", "Sell evenings, too"); err != nil {
		t.Fatal(err)
	}
	if err := made.commit(t.Context(), "Everything for a life", "Warm things for a life", "Sell warm things"); err != nil {
		t.Error(err)
	}
}
