package cli_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-dev/dayfly"
)

func TestEveryErrorHasItsExitCode(t *testing.T) {
	for code, exit := range map[dayfly.Code]int{
		dayfly.CodeInvalid: 2, dayfly.CodeNotFound: 3, dayfly.CodeUnauthorized: 4, dayfly.CodeForbidden: 4, dayfly.CodeUnavailable: 5, dayfly.CodeTimeout: 6,
		dayfly.CodeConflict: 7, dayfly.CodeFailed: 1, dayfly.CodeInternal: 1,
	} {
		s := newShell(t)
		s.add("a")
		s.control.Fail(dayfly.Errorf(code, "that went wrong"))
		file := filepath.Join(t.TempDir(), "e.yaml")
		if err := os.WriteFile(file, []byte("name: e\nproject: shop\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{
			"list", "details a", "details a -o envfile", "logs a", "logs a -f", "events a", "events a -f", "open a", "extend a 3d", "delete a", "test a", "create --project shop",
			"project add shop --repo /r", "project list", "project remove shop", "apply -f " + file, "list -o json",
		} {
			r := s.run(strings.Fields(command)...)
			if r.code != exit || r.out != "" || r.err != "dayfly: that went wrong\n" {
				t.Errorf("%s: %s ends with %d, says %q and prints %q; want %d", code, command, r.code, r.err, r.out, exit)
			}
		}
	}
}

func TestAWrongCommandLineEndsWithTwoAndAsksNobody(t *testing.T) {
	for _, c := range []struct{ command, says string }{
		{"nonsense", "unknown command"},
		{"project nonsense", "unknown command"},
		{"project", "say add, list, show, events, hook or remove"},
		{"list extra", "unknown command"},
		{"list --nonsense", "unknown flag: --nonsense"},
		{"details", "accepts 1 arg"},
		{"details a b", "accepts 1 arg"},
		{"logs", "accepts between 1 and 2 arg"},
		{"logs a b c", "accepts between 1 and 2 arg"},
		{"logs a --since soon", "--since"},
		{"logs a --tail x", "--tail"},
		{"events", "accepts 1 arg"},
		{"open", "accepts 1 arg"},
		{"extend a", "accepts 2 arg"},
		{"extend a soon", "no duration"},
		{"extend a -3d", "unknown shorthand"},
		{"delete", "requires at least 1 arg"},
		{"test", "accepts between 1 and 2 arg"},
		{"create a b", "accepts at most 1 arg"},
		{"create --project p --repo /r", "not both"},
		{"create --project p --keep soon", "--keep"},
		{"create --project p --service web", "NAME=BRANCH"},
		{"create --project p --service =x", "NAME=BRANCH"},
		{"create --project p --service web=", "NAME=BRANCH"},
		{"create --project p --timeout soon", "--timeout"},
		{"create --project", "needs an argument"},
		{"apply", "-f is missing"},
		{"check", "requires at least 1 arg"},
		{"project add", "accepts 1 arg"},
		{"project remove", "accepts 1 arg"},
		{"version extra", "unknown command"},
		{"list -o xml", "use table, json or yaml"},
		{"details a -o compose", "use table, json or yaml"},
		{"list -o envfile", "use table, json or yaml"},
		{"version -o envfile", "use table, json or yaml"},
		{"list -o", "needs an argument"},
		{"completion bash extra", "unknown command"},
		{"completion tcsh", "unknown command"},
		{"completion", "say bash, zsh, fish or powershell"},
	} {
		t.Run(c.command, func(t *testing.T) {
			s := newShell(t)
			s.add("a")
			r := s.run(strings.Fields(c.command)...)
			if r.code != 2 || r.out != "" {
				t.Errorf("it ends with %d and prints %q", r.code, r.out)
			}
			if !strings.HasPrefix(r.err, "dayfly: ") || !strings.Contains(r.err, c.says) || !strings.HasSuffix(r.err, " --help.\n") || strings.Count(r.err, "\n") != 2 {
				t.Errorf("it says %q, want %q", r.err, c.says)
			}
			_, path, _ := strings.Cut(strings.TrimSuffix(r.err, " --help.\n"), "\nSee ")
			if !strings.HasPrefix("dayfly "+c.command+" ", path+" ") || path == "dayfly" && !strings.Contains(r.err, "unknown command") {
				t.Errorf("it refers to the help of %q", path)
			}
			if calls := s.called(); len(calls) != 0 {
				t.Errorf("the server was asked for %v", calls)
			}
		})
	}
}

func TestAMistakeInAFlagRefersToTheHelpOfItsCommand(t *testing.T) {
	if r := newShell(t).run("db", "create", "--name", "mine"); r.code != 2 || r.err != "dayfly: unknown flag: --name\nSee dayfly db create --help.\n" {
		t.Errorf("it ends with %d and says %q", r.code, r.err)
	}
}

func TestWrongInputEndsWithTwoAndShowsAllProblems(t *testing.T) {
	s := newShell(t)
	s.control.Fail(dayfly.Invalid(dayfly.Problem{File: "compose.yaml", Line: 2, Field: "services", Message: "are missing"}, dayfly.Problem{Field: "branch", Message: "does not exist"}))
	if r := s.run("create", "--project", "shop"); r.code != 2 || r.out != "" || r.err != "dayfly: compose.yaml:2: services: are missing\nbranch: does not exist\n" {
		t.Errorf("it ends with %d and says %q", r.code, r.err)
	}
}

func TestAServerThatIsNotThereEndsWithFive(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "http://" + l.Addr().String()
	l.Close()
	s := newShell(t)
	s.vars["DAYFLY_SERVER"] = address
	var r result
	synctest.Test(t, func(*testing.T) { r = s.runContext(context.Background(), "list") }) // it is tried for a while
	if r.code != 5 || r.out != "" || !strings.Contains(r.err, address) || !strings.Contains(r.err, "dayfly server") {
		t.Errorf("it ends with %d and says %q", r.code, r.err)
	}
}

func TestTheServerIsTheFlagsThenTheVariables(t *testing.T) {
	s := newShell(t)
	s.add("a")
	if out := s.ok("list"); !strings.Contains(out, "shop") {
		t.Errorf("by variable it lists %q", out)
	}
	s.vars["DAYFLY_SERVER"] = "http://127.0.0.1:1"
	for _, args := range [][]string{{"list", "--server", s.url}, {"--server=" + s.url + "/", "list"}} {
		if out := s.ok(args...); !strings.Contains(out, "shop") {
			t.Errorf("by flag it lists %q", out)
		}
	}
	s.vars["DAYFLY_SERVER"] = "127.0.0.1:7070"
	if r := s.run("list"); r.code != 2 || !strings.Contains(r.err, "http://127.0.0.1:7070") {
		t.Errorf("an address without a scheme ends with %d and %q", r.code, r.err)
	}
}

func TestTokensAreNotShownByHelp(t *testing.T) {
	s := newShell(t)
	s.vars["DAYFLY_TOKEN"], s.vars["DAYFLY_GITHUB_TOKEN"] = "swordfish", "swordfish"
	for _, args := range [][]string{{"--help"}, {"create", "--help"}, {"project", "add", "--help"}, {"help", "list"}, {}} {
		if r := s.run(args...); r.code != 0 || strings.Contains(r.out+r.err, "swordfish") || !strings.Contains(r.out, "Usage:") {
			t.Errorf("%v ends with %d: %s%s", args, r.code, r.out, r.err)
		}
	}
}

func TestHelpSaysTheExitCodesAndNamesEveryCommand(t *testing.T) {
	s := newShell(t)
	out := s.ok("--help")
	for _, text := range []string{"0 done", "1 failed", "2 wrong usage", "3 not found", "4 not allowed", "5 server unreachable", "6 timed out", "7 conflict"} {
		if !strings.Contains(strings.ReplaceAll(out, "\n", " "), text) {
			t.Errorf("help does not say %q", text)
		}
	}
	for _, name := range []string{"project", "create", "apply", "check", "list", "details", "logs", "events", "open", "extend", "delete", "test", "version", "completion"} {
		if !strings.Contains(out, "\n  "+name+" ") {
			t.Errorf("help does not name %s", name)
		}
	}
	if strings.Contains(out, "hold-sockets") {
		t.Error("help shows what only the server calls")
	}
}

func TestWaitingTooLongEndsWithSix(t *testing.T) {
	s := newShell(t) // nothing ever gets ready here
	s.add("a")
	for _, args := range [][]string{{"create", "slow", "--project", "shop", "--timeout", "500ms"}, {"delete", "a", "--timeout", "500ms"}} {
		if r := s.run(args...); r.code != 6 || !strings.Contains(r.err, "500ms") || r.out != "" {
			t.Errorf("%v ends with %d: %q %q", args, r.code, r.out, r.err)
		}
	}
}

func TestAnInterruptEndsTheWaitingAndSaysSo(t *testing.T) {
	s := newShell(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.control.OnCreate = func(*dayfly.Environment) { time.AfterFunc(20*time.Millisecond, cancel) }
	if r := s.runContext(ctx, "create", "n", "--project", "shop"); r.code != 1 || !strings.Contains(r.err, "interrupted") {
		t.Errorf("it ends with %d: %q", r.code, r.err)
	}
}

func TestAnEnvironmentThatFailsEndsWithOneAndSaysWhereToLook(t *testing.T) {
	for _, phase := range []dayfly.Phase{dayfly.PhaseFailed, dayfly.PhaseDegraded} {
		s := newShell(t)
		s.control.OnCreate = func(e *dayfly.Environment) { e.Phase, e.Message = phase, "web does not build" }
		r := s.run("create", "n", "--project", "shop")
		if r.code != 1 || r.out != "" {
			t.Errorf("it ends with %d and prints %q", r.code, r.out)
		}
		for _, text := range []string{"environment n is " + string(phase) + ": web does not build", "dayfly details n", "dayfly logs n"} {
			if strings.Count(r.err, text) != 1 {
				t.Errorf("it says %q, want %q once", r.err, text)
			}
		}
		if r := s.run("create", "n", "--project", "shop", "-o", "json"); r.code != 1 || onlyJSON[dayfly.Environment](t, r.out).Phase != phase {
			t.Errorf("as JSON it ends with %d and prints %q", r.code, r.out)
		}
	}
}

func TestATestThatFailsEndsWithOneAndItsOutputIsShown(t *testing.T) {
	s := newShell(t)
	s.add("a")
	run := dayfly.TestRun{Job: "smoke", Phase: "failed", Message: "exit code 3", Log: []string{"no price", "bye"}, StartedAt: time.Unix(0, 0), EndedAt: time.Unix(2, 0)}
	s.control.TestEnds(run)
	if r := s.run("test", "a"); r.code != 1 || r.err != "" || r.out != "no price\nbye\nsmoke failed after 2s exit code 3\n" {
		t.Errorf("it ends with %d: %q %q", r.code, r.out, r.err)
	}
	if r := s.run("test", "a", "other", "-o", "json"); r.code != 1 || onlyJSON[dayfly.TestRun](t, r.out).Job != "other" {
		t.Errorf("it ends with %d: %q", r.code, r.out)
	}
	run.Phase, run.Message = "passed", ""
	s.control.TestEnds(run)
	if out := s.ok("test", "a"); !strings.Contains(out, "smoke passed after 2s") {
		t.Errorf("it prints %q", out)
	}
}
