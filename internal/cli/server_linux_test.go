package cli

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/app"
	"github.com/dayfly-dev/dayfly/internal/proxy"
)

// parse reads flags of the server as its command does.
func parse(args []string, vars map[string]string) (app.Config, *serverFlags, error) {
	var f serverFlags
	flags := pflag.NewFlagSet("server", pflag.ContinueOnError)
	f.register(flags)
	if err := flags.Parse(args); err != nil {
		return app.Config{}, &f, err
	}
	if err := f.fromVariables(flags, func(name string) string { return vars[name] }); err != nil {
		return app.Config{}, &f, err
	}
	config, err := f.config(flags, "v1")
	return config, &f, err
}

// plain is a configuration when nothing is given.
func plain() app.Config {
	return app.Config{
		Data: app.DefaultData(), HTTP: app.DefaultHTTP(), Internal: ":7071", Listen: "127.0.0.1:7070", Given: map[string]bool{"http": false, "internal": false, "listen": false, "advertise": false},
		Domain: "localhost", NamePattern: "{project}-{branch}", HostPattern: "{service}-{env}", ReleaseHeader: "X-Dayfly-Release", Runner: "local", Advertise: "127.0.0.1",
		FirstUser: 200000, LastUser: 265535, BuildTimeout: 30 * time.Minute, MaxEnvironments: 1000, MaxPerProject: 200,
		MaxPush:     2 << 30,
		FirstDBPort: 15432, LastDBPort: 16431, DBSpares: 2, Pool: "auto",
		Limits:      proxy.Limits{Head: 64 << 10, HeadTimeout: 15 * time.Second, BodyTimeout: time.Minute, IdleTimeout: 2 * time.Minute},
		QuotaBuilds: 20 << 30, QuotaCheckouts: 10 << 30, QuotaLogs: 5 << 30, LogSize: 16 << 20, Poll: time.Minute, Drain: 10 * time.Minute, Keep: dayfly.Duration(7 * 24 * time.Hour), MaxKeep: dayfly.Duration(30 * 24 * time.Hour), KeepLogs: 24 * time.Hour, Version: "v1",
	}
}

func TestTheServersFlagsSayItsConfiguration(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		vars map[string]string
		want func(*app.Config)
	}{
		{"nothing", nil, nil, func(*app.Config) {}},
		{"what is not built may be empty", []string{"--https=", "--dns=", "--environments=", "--mayfly=false"}, nil, func(*app.Config) {}},
		{"databases", []string{"--db-ports", "6000-6010", "--pool", "none", "--db-driver", "copy", "--db-spares", "0"}, nil, func(c *app.Config) {
			c.FirstDBPort, c.LastDBPort, c.Pool, c.DBDriver, c.DBSpares = 6000, 6010, "none", "copy", 0
		}},
		{"files", []string{"--environments=/e", "--mayfly"}, nil, func(c *app.Config) { c.Environments, c.Mayfly = "/e", true }},
		{"addresses", []string{"--http", ":1", "--internal=127.0.0.1:2", "--listen", "localhost:3"}, nil, func(c *app.Config) {
			c.HTTP, c.Internal, c.Listen = ":1", "127.0.0.1:2", "localhost:3"
			c.Given = map[string]bool{"http": true, "internal": true, "listen": true, "advertise": false}
		}},
		{"names are answered", []string{"--dns", ":53"}, nil, func(c *app.Config) { c.DNS = ":53" }},
		{"an address that is switched off", []string{"--http="}, nil, func(c *app.Config) { c.HTTP, c.Given["http"] = "", true }},
		{"names", []string{"--domain", "x.org", "--names", "{branch}", "--hosts", "{service}.{env}", "--header", "a,b", "--header", "c", "--internal-suffix", "service", "--release-header", "R"}, nil, func(c *app.Config) {
			c.Domain, c.NamePattern, c.HostPattern, c.Headers, c.InternalSuffixes, c.ReleaseHeader = "x.org", "{branch}", "{service}.{env}", []string{"a", "b", "c"}, []string{"service"}, "R"
		}},
		{"lives", []string{"--keep", "2d", "--max-keep", "1w", "--allow-forever", "--keep-logs", "90m", "--poll", "10s", "--drain", "500ms"}, nil, func(c *app.Config) {
			c.Keep, c.MaxKeep, c.AllowForever = dayfly.Duration(48*time.Hour), dayfly.Duration(7*24*time.Hour), true
			c.KeepLogs, c.Poll, c.Drain = 90*time.Minute, 10*time.Second, 500*time.Millisecond
		}},
		{"proxies", []string{"--trusted-proxies", "10.0.0.0/8,192.0.2.1,::1"}, nil, func(c *app.Config) {
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("::1/128")}
		}},
		{"the rest", []string{"--data", "/d", "--runner", "local", "--etcd", "a:1,b:2", "--etcd-listen", "c:3", "--advertise", "10.0.0.1", "--max-builds", "3", "--log-size", "1", "--pass-env", "A,B", "--quota-builds", "1g", "--quota-checkouts", "512m", "--quota-logs", "0", "--allow-local-repos", "--take-down"}, nil, func(c *app.Config) {
			c.Data, c.Etcd, c.EtcdListen, c.Advertise, c.MaxBuilds, c.LogSize, c.PassEnv, c.AllowLocal, c.TakeDown, c.QuotaBuilds, c.QuotaCheckouts, c.QuotaLogs, c.Given["advertise"] = "/d", []string{"a:1", "b:2"}, "c:3", "10.0.0.1", 3, 1<<20, []string{"A", "B"}, true, true, 1<<30, 512<<20, 0, true
		}},
		{"variables", nil, map[string]string{
			"DAYFLY_HTTP": ":1", "DAYFLY_KEEP_LOGS": "2h", "DAYFLY_MAX_BUILDS": "2", "DAYFLY_HEADER": "a,b", "DAYFLY_ALLOW_FOREVER": "true", "DAYFLY_TRUSTED_PROXIES": "10.0.0.0/8", "DAYFLY_ETCD": "e:1", "DAYFLY_DNS": "",
		}, func(c *app.Config) {
			c.HTTP, c.Given["http"], c.KeepLogs, c.MaxBuilds, c.Headers, c.AllowForever, c.Etcd = ":1", true, 2*time.Hour, 2, []string{"a", "b"}, true, []string{"e:1"}
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		}},
		{"a flag counts more than its variable", []string{"--keep", "1d", "--allow-forever=false", "--http="}, map[string]string{"DAYFLY_KEEP": "nonsense", "DAYFLY_ALLOW_FOREVER": "true", "DAYFLY_HTTP": ":1"}, func(c *app.Config) {
			c.Keep, c.HTTP, c.Given["http"] = dayfly.Duration(24*time.Hour), "", true
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := parse(c.args, c.vars)
			if err != nil {
				t.Fatal(err)
			}
			want := plain()
			c.want(&want)
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestVerboseLogsMore(t *testing.T) {
	for arg, want := range map[string]slog.Level{"--verbose": slog.LevelDebug, "--verbose=false": slog.LevelInfo} {
		if _, f, err := parse([]string{arg}, nil); err != nil || f.logLevel != want {
			t.Errorf("%s logs from %s on, %v", arg, f.logLevel, err)
		}
	}
}

func TestEveryFlagOfTheDesignIsThereAndHasAVariable(t *testing.T) {
	values := map[string]string{"bool": "true", "int": "5", "string": "x", "stringSlice": "x"}
	for _, name := range []string{
		"data", "http", "https", "internal", "dns", "listen", "domain", "names", "hosts", "header", "internal-suffix", "release-header", "trusted-proxies", "runner", "etcd", "etcd-listen", "advertise",
		"environments", "mayfly", "keep", "max-keep", "allow-forever", "keep-logs", "poll", "drain", "max-builds", "log-size", "pass-env", "allow-local-repos", "take-down",
	} {
		var f serverFlags
		flags := pflag.NewFlagSet("server", pflag.ContinueOnError)
		f.register(flags)
		flag := flags.Lookup(name)
		if flag == nil || flag.Usage == "" {
			t.Errorf("--%s is not there, or says nothing", name)
			continue
		}
		asked := "DAYFLY_" + strings.ReplaceAll(strings.ToUpper(name), "-", "_")
		if err := f.fromVariables(flags, func(name string) string {
			if name == asked {
				return values[flag.Value.Type()]
			}
			return ""
		}); err != nil || !flag.Changed {
			t.Errorf("%s does not set --%s: %v", asked, name, err)
		}
	}
}

// serve runs the command in a folder that has to stay empty, and is interrupted if it
// starts a server.
func serve(t *testing.T, vars map[string]string, args ...string) (code int, stderr string) {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	var out, err bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // who gets as far as serving ends at once
	code = Main(ctx, append([]string{"server", "--data", data}, args...), Streams{Out: &out, Err: &err, Getenv: func(name string) string { return vars[name] }}, "v1")
	if out.Len() > 0 {
		t.Errorf("it prints %q", out.String())
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("a server that cannot work has made its folder")
	}
	return code, err.String()
}

func TestAServerWithWrongFlagsEndsWithTwoBeforeItBegins(t *testing.T) {
	for _, c := range []struct {
		args string
		vars map[string]string
		says []string
	}{
		{args: "--https :443", says: []string{"--https", "does not have that yet", "leave it empty"}},
		{args: "--dns 53", says: []string{"--dns", "HOST:PORT"}},
		{vars: map[string]string{"DAYFLY_HTTPS": ":443"}, says: []string{"--https", "does not have that yet"}},
		{args: "--runner docker", says: []string{"--runner", "local only"}},
		{args: "--keep soon", says: []string{"--keep", `"soon"`, "such as 36h"}},
		{args: "--max-keep -3d", says: []string{"--max-keep", "no duration"}},
		{args: "--keep-logs 3", says: []string{"--keep-logs", "no duration"}},
		{args: "--poll=", says: []string{"--poll", "no duration"}},
		{args: "--poll 0s", says: []string{"--poll", "longer than nothing"}},
		{args: "--drain 5x", says: []string{"--drain", "no duration"}},
		{args: "--keep 3d --max-keep 2d", says: []string{"--max-keep", "shorter than --keep"}},
		{args: "--trusted-proxies 10.0.0.0/33", says: []string{"--trusted-proxies", "10.0.0.0/33"}},
		{args: "--trusted-proxies somebody", says: []string{"--trusted-proxies", "somebody"}},
		{args: "--max-builds many", says: []string{"--max-builds", "many"}},
		{args: "--max-builds -1", says: []string{"--max-builds"}},
		{args: "--quota-logs many", says: []string{"--quota-logs", "many"}},
		{args: "--quota-builds -1g", says: []string{"--quota-builds"}},
		{args: "--log-size 0", says: []string{"--log-size"}},
		{args: "--log-size -5", says: []string{"--log-size"}},
		{args: "--names same", says: []string{"--names", "{branch}"}},
		{args: "--hosts {env}", says: []string{"--hosts", "{service}"}},
		{args: "--domain http://x", says: []string{"--domain", "without scheme"}},
		{args: "--http nonsense", says: []string{"--http", "HOST:PORT"}},
		{args: "--internal 7071", says: []string{"--internal", "HOST:PORT"}},
		{args: "--listen 0.0.0.0", says: []string{"--listen", "HOST:PORT"}},
		{args: "--nonsense", says: []string{"unknown flag: --nonsense"}},
		{args: "extra", says: []string{"unknown command"}},
		{vars: map[string]string{"DAYFLY_MAX_BUILDS": "many"}, says: []string{"DAYFLY_MAX_BUILDS", "many"}},
		{vars: map[string]string{"DAYFLY_TAKE_DOWN": "perhaps"}, says: []string{"DAYFLY_TAKE_DOWN", "perhaps"}},
		{vars: map[string]string{"DAYFLY_KEEP": "soon"}, says: []string{"--keep", "soon"}},
		{args: "--names same --domain http://x", says: []string{"--names", "--domain"}},
	} {
		name := c.args
		for k, v := range c.vars {
			name += k + "=" + v
		}
		t.Run(name, func(t *testing.T) {
			code, stderr := serve(t, c.vars, strings.Fields(c.args)...)
			if code != 2 || !strings.HasPrefix(stderr, "dayfly: ") {
				t.Errorf("it ends with %d and says %q", code, stderr)
			}
			if slices.ContainsFunc(c.says, func(text string) bool { return !strings.Contains(stderr, text) }) {
				t.Errorf("it says %q, want %q", stderr, c.says)
			}
		})
	}
}
