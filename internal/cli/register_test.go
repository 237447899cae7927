package cli_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/cli"
)

// These make the test binary a service: it listens at an address, and when it is told to stop it asks
// whether it is still registered. Then it ends with 7.
const serviceAddress, serviceURL = "TEST_SERVICE_ADDRESS", "TEST_SERVICE_URL"

func service() int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	l, err := net.Listen("tcp", os.Getenv(serviceAddress))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer l.Close()
	fmt.Println("listening")
	got := <-stop
	resp, err := http.Get(os.Getenv(serviceURL))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	resp.Body.Close()
	fmt.Println("told by", got, "when registered is", resp.StatusCode)
	return 7
}

// freeAddress gives an address at which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// registering runs a command beside the test until end is called with why.
func (s *shell) registering(args ...string) (end func(error) result) {
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan result, 1)
	go func() { ended <- s.runContext(ctx, append([]string{"register"}, args...)...) }()
	s.Cleanup(func() { cancel(nil) })
	return func(why error) result {
		s.Helper()
		cancel(why)
		select {
		case r := <-ended:
			return r
		case <-time.After(60 * time.Second):
			s.Fatal("it does not end")
			return result{}
		}
	}
}

func (s *shell) eventually(what string, done func() bool) {
	s.Helper()
	for deadline := time.Now().Add(60 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("it never became true that %s", what)
		}
	}
}

func (s *shell) registered(id string) func() bool {
	return func() bool { _, ok := s.control.Registered("web", id); return ok }
}

func (s *shell) puts() (n int) {
	for _, c := range s.called() {
		if strings.HasPrefix(c, "PUT ") {
			n++
		}
	}
	return n
}

func TestACommandIsRegisteredWhileItRunsAndToldToStopWhenItIsNotAnyMore(t *testing.T) {
	for _, c := range []struct {
		why  error
		told string
	}{{cli.ErrTerminated, "terminated"}, {context.Canceled, "interrupt"}} {
		s := newShell(t)
		address := freeAddress(t)
		t.Setenv(serviceAddress, address)
		t.Setenv(serviceURL, s.url+"/v1/services/web/instances/me")
		end := s.registering("web", "v1", address, "--env", "temp", "--project", "shop", "--ttl", "1s", "--id", "me", "--", os.Args[0])
		s.eventually("it is registered", s.registered("me"))
		got, _ := s.control.Registered("web", "me")
		if want := (dayfly.RegistrationRequest{Service: "web", ID: "me", Version: "v1", Address: address, Sender: "127.0.0.1", Environment: "temp", Project: "shop", TTL: dayfly.Duration(time.Second)}); got != want {
			t.Errorf("registered %+v, want %+v", got, want)
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Errorf("it was registered before it took connections: %v", err)
		} else {
			conn.Close()
		}
		s.eventually("it is renewed", func() bool { return s.puts() >= 3 })
		r := end(c.why)
		if r.code != 7 || r.out != "listening\ntold by "+c.told+" when registered is 404\n" || !strings.Contains(r.err, "web v1 at "+address+" is registered as me") {
			t.Errorf("%+v", r)
		}
		if s.registered("me")() {
			t.Error("it is registered after its end")
		}
	}
}

func TestACommandThatEndsByItselfIsRegisteredNoMore(t *testing.T) {
	s := newShell(t)
	address := freeAddress(t)
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// It ends when it is registered: its standard output tells of nothing else.
	s.before = func(r *http.Request) {
		if r.Method == http.MethodPut {
			_ = os.WriteFile(s.vars["GO"], nil, 0o600)
		}
	}
	s.vars["GO"] = t.TempDir() + "/go"
	for code, script := range map[int]string{
		0: `exit 0`, 3: `exit 3`, 128 + int(syscall.SIGKILL): `kill -KILL $$`,
	} {
		_ = os.Remove(s.vars["GO"])
		r := s.run("register", "web", "v1", address, "--id", "me", "--", "sh", "-c", `until [ -e "$0" ]; do sleep 0.02; done; `+script, s.vars["GO"])
		if r.code != code || r.out != "" {
			t.Errorf("%s: %+v, want %d", script, r, code)
		}
		if s.registered("me")() {
			t.Error("it is still registered")
		}
	}
}

func TestACommandThatNeverListensIsNeverRegistered(t *testing.T) {
	s := newShell(t)
	if r := s.run("register", "web", "v1", freeAddress(t), "--", "sh", "-c", "exit 4"); r.code != 4 {
		t.Errorf("%+v", r)
	}
	end := s.registering("web", "v1", freeAddress(t), "--", "sleep", "100")
	if r := end(cli.ErrTerminated); r.code != 128+int(syscall.SIGTERM) && r.code != 0 {
		t.Errorf("%+v", r)
	}
	if s.puts() != 0 {
		t.Errorf("the API was asked: %v", s.called())
	}
	if r := s.run("register", "web", "v1", ":1", "--", t.TempDir()+"/no-such-program"); r.code != 1 || !strings.Contains(r.err, "cannot be started") {
		t.Errorf("%+v", r)
	}
}

func TestWithoutACommandItIsRegisteredUntilItIsInterrupted(t *testing.T) {
	s := newShell(t)
	end := s.registering("web", "v1", "127.0.0.1:80", "-o", "json")
	s.eventually("it is registered", s.registered("127.0.0.1-80"))
	r := end(context.Canceled)
	if i := onlyJSON[dayfly.InstanceInfo](t, r.out); r.code != 0 || i.ID != "127.0.0.1-80" || i.TTL != dayfly.Duration(10*time.Second) {
		t.Errorf("%+v", r)
	}
	if s.registered("127.0.0.1-80")() {
		t.Error("it is registered after its end")
	}
	hostname, _ := os.Hostname()
	end = s.registering("web", "v1", ":80")
	s.eventually("it is registered by the name of this host", func() bool {
		return slices.ContainsFunc(s.called(), func(c string) bool {
			return strings.HasPrefix(c, "PUT ") && strings.HasSuffix(c, "-80") && !strings.Contains(c, "127.0.0.1")
		})
	})
	if r := end(context.Canceled); !strings.Contains(r.err, "is registered as") || hostname == "" {
		t.Errorf("%+v", r)
	}
}

func TestAServerThatIsAwayIsAskedAgainAndOneThatRefusesIsNot(t *testing.T) {
	s := newShell(t)
	end := s.registering("web", "v1", "10.0.0.1:80", "--id", "me", "--ttl", "1s")
	s.eventually("it is registered", s.registered("me"))
	s.control.Fail(dayfly.Errorf(dayfly.CodeUnavailable, "the state is away"))
	before := s.puts()
	s.eventually("it is tried while the state is away", func() bool { return s.puts() >= before+2 })
	s.control.Fail(nil)
	before = s.puts()
	s.eventually("it is tried again", func() bool { return s.puts() >= before+2 })
	if r := end(context.Canceled); r.code != 0 || strings.Count(r.err, "cannot be renewed, and is tried again: the state is away") != 1 || strings.Count(r.err, "is registered again") != 1 {
		t.Errorf("%+v", r)
	}

	s.control.Fail(dayfly.Errorf(dayfly.CodeConflict, "somebody else has it"))
	defer s.control.Fail(nil)
	if r := s.run("register", "web", "v1", "10.0.0.1:80", "--id", "me"); r.code != 7 || !strings.Contains(r.err, "somebody else has it") {
		t.Errorf("%+v", r)
	}
	// The command does not go on without.
	address := freeAddress(t)
	t.Setenv(serviceAddress, address)
	t.Setenv(serviceURL, s.url+"/v1/services/web/instances/me")
	if r := s.run("register", "web", "v1", address, "--id", "me", "--", os.Args[0]); r.code != 7 || !strings.Contains(r.out, "told by terminated") {
		t.Errorf("%+v", r)
	}
}

func TestARegistrationThatMakesNoSenseIsWrongUsage(t *testing.T) {
	s := newShell(t)
	for _, args := range []string{"", "web", "web v1", "web v1 :80 more", "web v1 :80 --", "web v1 -- :80 x", "web v1 :80 x -- y", "web v1 80", "web v1 host:", "web v1 :80 --ttl nonsense", "web v1 :80 --nonsense"} {
		if r := s.run(append([]string{"register"}, strings.Fields(args)...)...); r.code != 2 || r.err == "" || r.out != "" {
			t.Errorf("%q: %+v", args, r)
		}
	}
	if len(s.called()) > 0 {
		t.Errorf("the API was asked: %v", s.called())
	}
}

func TestRoutesAreAddedListedAndRemoved(t *testing.T) {
	s := newShell(t)
	out := s.ok("route", "add", "docs.localhost", "https://docs.example.org")
	if !strings.HasPrefix(out, "NAME ") || !strings.Contains(out, "\ndocs-localhost   docs.localhost   https://docs.example.org ") {
		t.Errorf("added %s", out)
	}
	made := onlyJSON[dayfly.Route](t, s.ok("-o", "json", "route", "add", "Tools.localhost/wiki", "http://x", "--strip", "--name", "wiki"))
	if made.Name != "wiki" || made.Host != "Tools.localhost" || made.Path != "/wiki" || made.To != "http://x" || !made.Strip {
		t.Errorf("added %+v", made)
	}
	if list := onlyJSON[struct{ Items []dayfly.Route }](t, s.ok("route", "ls", "-o", "json")); len(list.Items) != 2 {
		t.Errorf("listed %+v", list)
	}
	if out := s.ok("route", "remove", "docs.localhost"); out != "" {
		t.Errorf("removing prints %q", out)
	}
	if out := s.ok("route", "rm", "wiki"); out != "" {
		t.Errorf("removing prints %q", out)
	}
	for args, code := range map[string]int{"remove wiki": 3, "": 2, "add": 2, "add a": 2, "add a b c": 2, "remove": 2, "list a": 2, "nonsense": 2} {
		if r := s.run(append([]string{"route"}, strings.Fields(args)...)...); r.code != code || r.out != "" || r.err == "" {
			t.Errorf("route %s: %+v, want %d", args, r, code)
		}
	}
}
