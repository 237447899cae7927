package app

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api/client"
	"github.com/dayfly-dev/dayfly/internal/source"
)

// asService makes the test binary the program of a service: it says who it is.
const asService = "as-service"

// asTeller makes it a service that tells its variables, and asMigration a job that notes them in a file.
const asTeller, asMigration = "as-teller", "as-migration"

// asHook makes it a hook of git.
const asHook = "as-hook"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asHook {
		if err := source.RunHook(os.Args[2:], os.Getenv, os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == asService {
		panic(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, "%s is %d", os.Getenv("DAYFLY_ENV"), os.Getpid())
		})))
	}
	if len(os.Args) > 1 && os.Args[1] == asTeller {
		panic(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for _, name := range []string{"DATABASE_URL", "DB_URL", "GREETING"} {
				fmt.Fprintf(w, "%s=%s\n", name, os.Getenv(name))
			}
		})))
	}
	if len(os.Args) > 1 && os.Args[1] == asMigration {
		f, err := os.OpenFile(os.Args[2], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = fmt.Fprintln(f, os.Getenv("DB_URL"))
		}
		if err != nil {
			panic(err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// contains says whether an error mentions all of these.
func contains(err error, parts ...string) bool {
	if err == nil {
		return false
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			return false
		}
	}
	return true
}

// testConfig is a configuration like that of the flags' defaults.
func testConfig(data string) Config {
	return Config{
		Data: data, HTTP: "127.0.0.1:0", Internal: "127.0.0.1:0", Listen: "127.0.0.1:0",
		Domain: "localhost", NamePattern: "{project}-{branch}", HostPattern: "{service}-{env}",
		ReleaseHeader: "X-Dayfly-Release", Runner: "local", Advertise: "127.0.0.1", LogSize: 1 << 20,
		Poll: time.Minute, Drain: 10 * time.Second, KeepLogs: time.Hour,
		Keep: dayfly.Duration(24 * time.Hour), MaxKeep: dayfly.Duration(48 * time.Hour), Version: "test",
	}
}

// dataFolder gives a folder whose read-only parts the test can remove.
func dataFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				return os.Chmod(path, 0o700)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "data")
}

// repository makes one whose only service is this test binary.
func repository(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "hello")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Procfile"), []byte("web: "+self+" "+asService+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch=main"}, {"add", "--all"}, {"commit", "--quiet", "--message", "Say hello"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
			"GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@localhost", "GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@localhost")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", args[0], err, out)
		}
	}
	return dir
}

// serve starts a server; stop ends it, and is called when the test ends at the latest.
func serve(t *testing.T, config Config) (a *App, stop func()) {
	t.Helper()
	a, err := New(config, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	}
	t.Cleanup(stop)
	return a, stop
}

// call asks the server for the front page of a host and gives the process that answered.
func call(t *testing.T, a *App, environment string) (pid int) {
	t.Helper()
	public, _, _ := a.Addresses()
	deadline := time.Now().Add(30 * time.Second)
	var last string
	for time.Now().Before(deadline) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+public+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = environment + ".localhost"
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if last = string(body); resp.StatusCode == http.StatusOK {
			if _, err := fmt.Sscanf(last, environment+" is %d", &pid); err != nil {
				t.Fatalf("%q: %v", last, err)
			}
			return pid
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s does not answer: %s", environment, last)
	return 0
}

// alive says whether a process runs.
func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func ready(t *testing.T, a *App, environment string) dayfly.Environment {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	env, err := a.control.WaitEnvironment(ctx, environment, func(e dayfly.Environment) bool {
		return e.Phase == dayfly.PhaseReady || e.Phase == dayfly.PhaseFailed
	})
	if err != nil || env.Phase != dayfly.PhaseReady {
		t.Fatalf("%s is %s: %s, %v", environment, env.Phase, env.Message, err)
	}
	return env
}

func TestWhatRunsOutlivesItsServerAndGoesWhenItIsTakenDown(t *testing.T) {
	config := testConfig(dataFolder(t))
	// All of them are in use, so that the ports that are taken instead have to be kept.
	config.HTTP, config.Internal, config.Listen = occupied(t), occupied(t), occupied(t)
	repo := repository(t)

	first, stop := serve(t, config)
	public, apiAddress, internal := first.Addresses()
	api := client.New("http://"+apiAddress, "")
	if _, created, err := api.CreateProject(t.Context(), dayfly.ProjectRequest{Name: "hello", Repo: repo}); err != nil || !created {
		t.Fatalf("project: %t, %v", created, err)
	}
	env, created, err := api.CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{Spec: dayfly.EnvironmentSpec{Project: "hello", Branch: "main"}})
	if err != nil || !created || env.Name != "hello-main" {
		t.Fatalf("environment: %t, %+v, %v", created, env, err)
	}
	env = ready(t, first, "hello-main")
	if want := "http://hello-main.localhost:" + public[strings.LastIndex(public, ":")+1:]; env.URL != want {
		t.Errorf("is at %s, want %s", env.URL, want)
	}
	pid := call(t, first, "hello-main")
	stop()
	if !alive(pid) {
		t.Fatal("the service ended with its server")
	}

	config.TakeDown = true
	second, stop := serve(t, config)
	if p, a, i := second.Addresses(); p != public || a != apiAddress || i != internal {
		t.Errorf("is at %s, %s and %s, was at %s, %s and %s", p, a, i, public, apiAddress, internal)
	}
	if again := call(t, second, "hello-main"); again != pid {
		t.Errorf("process %d answers, not %d", again, pid)
	}
	if again := ready(t, second, env.ID); again.ID != env.ID || again.Services[0].Instances != 1 {
		t.Errorf("is %+v now", again)
	}
	stop()
	if alive(pid) {
		t.Errorf("process %d is left", pid)
	}

	config.TakeDown = false
	third, _ := serve(t, config)
	list, err := client.New("http://"+apiAddress, "").Environments(t.Context(), "")
	if err != nil || len(list) > 0 {
		t.Errorf("there are %+v, %v", list, err)
	}
	if projects, err := third.control.Projects(t.Context()); err != nil || len(projects) != 1 {
		t.Errorf("there are the projects %+v, %v", projects, err)
	}
}

func TestTwoServersDoNotShareAFolder(t *testing.T) {
	config := testConfig(dataFolder(t))
	serve(t, config)
	second, err := New(config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(t.Context()); dayfly.ErrorCode(err) != dayfly.CodeConflict {
		t.Errorf("the second one says %v", err)
	}
}

func TestAStartThatFailsLeavesNothingRunning(t *testing.T) {
	config := testConfig(dataFolder(t))
	config.Listen, config.Given = occupied(t), map[string]bool{"listen": true}
	failing, err := New(config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := failing.Start(t.Context()); !contains(err, "--listen", config.Listen) {
		t.Fatalf("got %v", err)
	}
	config.Listen = "127.0.0.1:0"
	serve(t, config) // the folder is free again
}

func TestAnAPIThatOthersReachNeedsTokens(t *testing.T) {
	config := testConfig(dataFolder(t))
	config.Domain, config.Listen = "dayfly.test", "0.0.0.0:0"
	refusing, err := New(config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := refusing.Start(t.Context()); dayfly.ErrorCode(err) != dayfly.CodeInvalid || !contains(err, "--listen", "dayfly token create") {
		t.Fatalf("without a token its start says %v", err)
	}
	if _, address, _ := refusing.Addresses(); refusing.api != nil {
		t.Fatalf("it serves at %s", address)
	}

	config.Listen = "127.0.0.1:0"
	a, stop := serve(t, config)
	_, address, _ := a.Addresses()
	_, secret, err := client.New("http://"+address, "").CreateToken(t.Context(), "ci")
	if err != nil {
		t.Fatal(err)
	}
	stop()

	config.Listen = "0.0.0.0:0"
	a, _ = serve(t, config)
	_, port, err := net.SplitHostPort(a.listen.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	base := "http://127.0.0.1:" + port
	for token, want := range map[string]dayfly.Code{"": dayfly.CodeUnauthorized, "wrong": dayfly.CodeUnauthorized, secret.Reveal(): ""} {
		if _, err := client.New(base, token).Projects(t.Context()); dayfly.ErrorCode(err) != want {
			t.Errorf("with a token of %d letters: %v, want %q", len(token), err, want)
		}
	}
	for host, want := range map[string]int{
		"dayfly.test:" + port: http.StatusOK, "localhost": http.StatusOK,
		"shop.dayfly.test:" + port: http.StatusMisdirectedRequest, "evil.test": http.StatusMisdirectedRequest, "0.0.0.0": http.StatusMisdirectedRequest,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/v1/projects", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Authorization", "Bearer "+secret.Reveal())
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("as %s it answers %d, want %d", host, resp.StatusCode, want)
		}
	}
	// Nor does it build from folders of its own host for them.
	_, _, err = client.New(base, secret.Reveal()).CreateProject(t.Context(), dayfly.ProjectRequest{Name: "hello", Repo: repository(t)})
	if dayfly.ErrorCode(err) != dayfly.CodeInvalid {
		t.Errorf("a repository by path: %v", err)
	}
}

func TestAPortAloneIsOnLoopbackWhileTheDomainIs(t *testing.T) {
	config := testConfig(dataFolder(t))
	config.Listen = ":0"
	a, _ := serve(t, config)
	_, address, _ := a.Addresses()
	if _, err := client.New("http://"+address, "").Projects(t.Context()); err != nil || a.exposed() {
		t.Errorf("at %s: %v", address, err)
	}
}

func TestAServerWithEverythingOffStartsAndStops(t *testing.T) {
	config := testConfig(dataFolder(t))
	config.HTTP, config.Internal, config.Listen = "", "", ""
	a, _ := serve(t, config)
	if p, api, internal := a.Addresses(); p+api+internal != "" {
		t.Errorf("is at %q, %q and %q", p, api, internal)
	}
}
