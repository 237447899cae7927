package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/app"
	"github.com/dayfly-dev/dayfly/internal/demo"
	"github.com/dayfly-dev/dayfly/internal/holder"
	"github.com/dayfly-dev/dayfly/internal/source"
)

// stopping is how long the server may take to end.
const stopping = 30 * time.Second

// serverCommands are those that run on the server's platform only.
func (c *command) serverCommands() []*cobra.Command {
	return []*cobra.Command{c.serverCommand(), c.demoCommand(), holdCommand(), c.hookCommand()}
}

// hold is the command that the server starts itself with.
const hold = "hold-sockets"

func holdCommand() *cobra.Command {
	return &cobra.Command{
		Use: hold + " DATA", Short: "Keep a server's listening sockets open until the next one; started by the server", Hidden: true, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return holder.Run(cmd.Context(), args[0]) },
	}
}

// hook is the argument with which git's hooks start this program.
const hook = "git-hook"

func (c *command) hookCommand() *cobra.Command {
	return &cobra.Command{
		Use: hook + " NAME [ARGUMENT...]", Short: "Ask the server about a push; started by git", Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			err := source.RunHook(args, c.Getenv, c.In, c.Out)
			if errors.Is(err, source.ErrRefused) {
				return &shown{err}
			}
			return err
		},
	}
}

func (c *command) serverCommand() *cobra.Command {
	var f serverFlags
	cmd := &cobra.Command{
		Use: "server", Short: "Run the server: control plane and proxy", Args: args(cobra.NoArgs),
		Long: `Run the server. SIGTERM and Ctrl-C end the server, not what runs: the next start adopts it.
After SIGTERM connections wait 10 s for that start; after Ctrl-C the ports are free at once.
Every flag can also be given as a variable: --keep-logs as DAYFLY_KEEP_LOGS.

` + exitCodes,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.fromVariables(cmd.Flags(), c.Getenv); err != nil {
				return err
			}
			config, err := f.config(cmd.Flags(), c.version)
			if err != nil {
				return err
			}
			config.Holder, config.Hook, config.Databases = []string{"/proc/self/exe", hold}, hook, openDatabases
			return c.serve(cmd.Context(), config, f.logLevel)
		},
	}
	f.register(cmd.Flags())
	return cmd
}

// serve runs a server until ctx ends.
func (c *command) serve(ctx context.Context, config app.Config, level slog.Level) error {
	log := slog.New(slog.NewTextHandler(c.Err, &slog.HandlerOptions{Level: level}))
	started := time.Now()
	server, err := app.New(config, log)
	if err != nil {
		return err
	}
	if err := server.Start(ctx); err != nil {
		return err
	}
	public, api, internal := server.Addresses()
	log.Info("ready", "public", public, "api", api, "internal", internal, "data", config.Data, "after", time.Since(started).Round(time.Millisecond))
	<-ctx.Done()
	if config.TakeDown {
		log.Info("ending; everything is taken away first")
	} else {
		log.Info("ending; what runs goes on")
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopping)
	defer cancel()
	if errors.Is(context.Cause(ctx), ErrTerminated) {
		return server.StopForNext(stop)
	}
	return server.Stop(stop)
}

// serverFlags are the flags of the server. Each is accepted from the first version on;
// one whose part is not built may only be empty.
type serverFlags struct {
	c                                    app.Config
	etcd, trusted                        string
	keep, maxKeep, keepLogs, poll, drain string
	https                                string
	logSize                              int
	maxHead, maxBody, uids, memory       string
	maxPush                              string
	dbPorts                              string
	headTimeout, bodyTimeout             string
	idleTimeout, buildTimeout            string
	quotaBuilds, quotaCheckouts          string
	quotaLogs                            string
	verbose                              bool
	logLevel                             slog.Level
}

func (s *serverFlags) register(f *pflag.FlagSet) {
	f.StringVar(&s.c.Data, "data", app.DefaultData(), "folder for state, builds and logs")
	f.StringVar(&s.c.HTTP, "http", app.DefaultHTTP(), "where applications are shown; empty = off")
	f.StringVar(&s.https, "https", "", "not built yet: empty = off")
	f.StringVar(&s.c.Internal, "internal", ":7071", "where services reach each other; on loopback one socket for all of 127.0.0.0/8")
	f.StringVar(&s.c.DNS, "dns", "", "where names are answered, over UDP and TCP; empty = off")
	f.StringVar(&s.c.Listen, "listen", "127.0.0.1:7070", "API")
	f.StringVar(&s.c.Domain, "domain", "localhost", "what public hosts end with")
	f.StringVar(&s.c.NamePattern, "names", "{project}-{branch}", "name of an environment that is made from a branch")
	f.StringVar(&s.c.HostPattern, "hosts", "{service}-{env}", "host of a single service")
	f.StringSliceVar(&s.c.Headers, "header", nil, "further header that names the environment, besides X-Dayfly-Env")
	f.StringSliceVar(&s.c.InternalSuffixes, "internal-suffix", nil, "further suffix of internal names, besides internal")
	f.StringVar(&s.c.ReleaseHeader, "release-header", "X-Dayfly-Release", "header that names the version that answered")
	f.StringVar(&s.trusted, "trusted-proxies", "", "addresses whose X-Forwarded-* and traceparent are believed: CIDR,...")
	f.StringVar(&s.c.Runner, "runner", "local", "what keeps services running: local")
	f.StringVar(&s.etcd, "etcd", "", "etcd cluster, host:port,...; empty = one in this process")
	f.StringVar(&s.c.EtcdListen, "etcd-listen", "", "where the etcd in this process takes clients; empty = nowhere")
	f.StringVar(&s.c.Advertise, "advertise", "127.0.0.1", "address at which others reach this server")
	f.StringVar(&s.c.Environments, "environments", "", "folder of environment files to follow; empty = none")
	f.BoolVar(&s.c.Mayfly, "mayfly", false, "read environment files in Mayfly's format")
	f.StringVar(&s.keep, "keep", "7d", "life of an environment from its last change on")
	f.StringVar(&s.maxKeep, "max-keep", "30d", "longest life that can be asked for")
	f.BoolVar(&s.c.AllowForever, "allow-forever", false, "allow environments that never end")
	f.StringVar(&s.keepLogs, "keep-logs", "24h", "how long logs and events outlive what they are of")
	f.StringVar(&s.poll, "poll", "1m", "how often remote repositories are asked for news")
	f.StringVar(&s.drain, "drain", "10m", "how long requests and connections of a replaced version may take to end")
	f.IntVar(&s.c.MaxBuilds, "max-builds", 0, "builds at a time (number of cores)")
	f.StringVar(&s.uids, "uids", "200000-265535", "where the server is root: ids of users that services and builds run as, one for each environment and one for the builds of each project; empty = root")
	f.StringVar(&s.memory, "memory", "0", "bytes that an instance may use where its service has no mem_limit, such as 2g; 0 = no bound")
	f.Float64Var(&s.c.CPUs, "cpus", 0, "cores that an instance may use where its service has no cpus, such as 1.5; 0 = no bound")
	f.StringVar(&s.buildTimeout, "build-timeout", "30m", "how long a build may take; 0s = any time")
	f.IntVar(&s.c.MaxEnvironments, "max-environments", 1000, "environments in all; 0 = no bound")
	f.IntVar(&s.c.MaxPerProject, "max-per-project", 200, "environments of a project; 0 = no bound")
	f.StringVar(&s.maxHead, "max-head", "64k", "bytes of a request's head")
	f.StringVar(&s.maxBody, "max-body", "0", "bytes of a request's body; 0 = any number")
	f.StringVar(&s.maxPush, "max-push", "2g", "bytes of one git push; 0 = any number")
	f.StringVar(&s.headTimeout, "head-timeout", "15s", "how long a client may take to send a request's head")
	f.StringVar(&s.bodyTimeout, "body-timeout", "1m", "how long the next part of a request's body may take, where its length is known; 0s = any time")
	f.StringVar(&s.idleTimeout, "idle-timeout", "2m", "how long a client's connection is kept between requests")
	f.IntVar(&s.c.Limits.Connections, "max-connections", 0, "clients' connections at a time, on each of --http and --internal; further ones wait; 0 = a fifth of the files that may be open")
	f.StringVar(&s.dbPorts, "db-ports", "15432-16431", "ports of databases: FIRST-LAST")
	f.StringVar(&s.c.Pool, "pool", "auto", "auto = where the server is root and its folder cannot share blocks, a file is mounted to keep databases in; none = never")
	f.IntVar(&s.c.DBSpares, "db-spares", 2, "templates, those asked for last, of which a database is kept ready for the next one who asks; 0 = none")
	f.StringVar(&s.c.DBDriver, "db-driver", "", "how databases are copied: btrfs, reflink, overlay or copy; empty = the best that works")
	f.StringVar(&s.quotaBuilds, "quota-builds", "20g", "bytes of all builds; those not used for the longest time go first; 0 = no bound")
	f.StringVar(&s.quotaCheckouts, "quota-checkouts", "10g", "bytes of all checkouts and mirrors of repositories")
	f.StringVar(&s.quotaLogs, "quota-logs", "5g", "bytes of all logs; the oldest of what is gone go first")
	f.IntVar(&s.logSize, "log-size", 16, "MiB kept of each service's output")
	f.StringSliceVar(&s.c.PassEnv, "pass-env", nil, "further variables of the server that builds and services see")
	f.BoolVar(&s.c.AllowLocal, "allow-local-repos", false, "allow repositories by path although the API is not on loopback")
	f.BoolVar(&s.c.TakeDown, "take-down", false, "remove every environment, database and template before the server ends")
	f.BoolVar(&s.verbose, "verbose", false, "log more")
}

// fromVariables sets the flags that are given as variables and not on the command line.
func (s *serverFlags) fromVariables(f *pflag.FlagSet, getenv func(string) string) error {
	var err error
	f.VisitAll(func(flag *pflag.Flag) {
		name := "DAYFLY_" + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
		switch name {
		case "DAYFLY_SERVER", "DAYFLY_TOKEN", "DAYFLY_OUTPUT": // the client's
			return
		}
		if v := getenv(name); v != "" && !flag.Changed && err == nil {
			if setErr := f.Set(flag.Name, v); setErr != nil {
				err = usagef("%s: %w", name, setErr)
			}
		}
	})
	return err
}

// config reads what the flags say.
func (s *serverFlags) config(f *pflag.FlagSet, version string) (app.Config, error) {
	c := s.c
	c.Version = version
	c.LogSize = int64(s.logSize) << 20
	c.Given = map[string]bool{}
	for _, name := range []string{"http", "internal", "listen", "advertise"} {
		c.Given[name] = f.Changed(name)
	}
	if s.https != "" {
		return c, usagef("--https: this version does not have that yet; leave it empty")
	}
	if c.MaxBuilds < 0 {
		return c, usagef("--max-builds: %d is less than none; 0 is the number of cores", c.MaxBuilds)
	}
	if s.logSize < 1 {
		return c, usagef("--log-size: %d is too small: write a number of MiB from 1 on", s.logSize)
	}
	if s.etcd != "" {
		c.Etcd = strings.Split(s.etcd, ",")
	}
	for _, p := range strings.Split(s.trusted, ",") {
		if p == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(p)
		if addr, addrErr := netip.ParseAddr(p); err != nil && addrErr == nil {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return c, usagef("--trusted-proxies: %w", err)
		}
		c.TrustedProxies = append(c.TrustedProxies, prefix)
	}
	for _, d := range []struct {
		flag, text string
		into       func(dayfly.Duration)
	}{
		{"keep", s.keep, func(d dayfly.Duration) { c.Keep = d }},
		{"max-keep", s.maxKeep, func(d dayfly.Duration) { c.MaxKeep = d }},
		{"keep-logs", s.keepLogs, func(d dayfly.Duration) { c.KeepLogs = time.Duration(d) }},
		{"poll", s.poll, func(d dayfly.Duration) { c.Poll = time.Duration(d) }},
		{"drain", s.drain, func(d dayfly.Duration) { c.Drain = time.Duration(d) }},
		{"build-timeout", s.buildTimeout, func(d dayfly.Duration) { c.BuildTimeout = time.Duration(d) }},
		{"head-timeout", s.headTimeout, func(d dayfly.Duration) { c.Limits.HeadTimeout = time.Duration(d) }},
		{"body-timeout", s.bodyTimeout, func(d dayfly.Duration) { c.Limits.BodyTimeout = time.Duration(d) }},
		{"idle-timeout", s.idleTimeout, func(d dayfly.Duration) { c.Limits.IdleTimeout = time.Duration(d) }},
	} {
		v, err := dayfly.ParseDuration(d.text)
		if err != nil {
			return c, usagef("--%s: %w", d.flag, err)
		}
		if d.flag == "poll" && v <= 0 {
			return c, usagef("--poll: has to be longer than nothing")
		}
		d.into(v)
	}
	if s.uids != "" {
		if n, err := fmt.Sscanf(s.uids+" ", "%d-%d ", &c.FirstUser, &c.LastUser); n != 2 || err != nil || c.FirstUser < 1000 || c.LastUser < c.FirstUser || c.LastUser >= 1<<31 {
			return c, usagef("--uids: %q is no range of ids: write FIRST-LAST, from 1000 on, such as 200000-265535", s.uids)
		}
	}
	if n, err := fmt.Sscanf(s.dbPorts+" ", "%d-%d ", &c.FirstDBPort, &c.LastDBPort); n != 2 || err != nil || c.FirstDBPort < 1 || c.LastDBPort < c.FirstDBPort || c.LastDBPort > 65535 {
		return c, usagef("--db-ports: %q is no range of ports: write FIRST-LAST, such as 15432-16431", s.dbPorts)
	}
	if c.DBSpares < 0 {
		return c, usagef("--db-spares: %d is no number of databases", c.DBSpares)
	}
	if c.Pool != "auto" && c.Pool != "none" {
		return c, usagef("--pool: %q is none: use auto or none", c.Pool)
	}
	switch c.DBDriver {
	case "", "btrfs", "reflink", "overlay", "copy":
	default:
		return c, usagef("--db-driver: %q is none: use btrfs, reflink, overlay or copy", c.DBDriver)
	}
	var head int64
	for _, q := range []struct {
		flag, text string
		into       *int64
	}{
		{"memory", s.memory, &c.Memory}, {"max-head", s.maxHead, &head}, {"max-body", s.maxBody, &c.Limits.Body}, {"max-push", s.maxPush, &c.MaxPush},
		{"quota-builds", s.quotaBuilds, &c.QuotaBuilds}, {"quota-checkouts", s.quotaCheckouts, &c.QuotaCheckouts}, {"quota-logs", s.quotaLogs, &c.QuotaLogs},
	} {
		bytes, err := units.RAMInBytes(q.text)
		if err != nil {
			return c, usagef("--%s: %q is no size: write a number and k, m, g or t, such as 20g", q.flag, q.text)
		}
		*q.into = bytes
	}
	if head < 1<<10 || head > 16<<20 {
		return c, usagef("--max-head: %s is out of bounds: from 1k to 16m", s.maxHead)
	}
	c.Limits.Head = int(head)
	if c.CPUs < 0 {
		return c, usagef("--cpus: %g is less than none", c.CPUs)
	}
	for flag, n := range map[string]int{"max-environments": c.MaxEnvironments, "max-per-project": c.MaxPerProject, "max-connections": c.Limits.Connections} {
		if n < 0 {
			return c, usagef("--%s: %d is less than none", flag, n)
		}
	}
	if s.verbose {
		s.logLevel = slog.LevelDebug
	}
	return c, nil
}

func (c *command) demoCommand() *cobra.Command {
	var once bool
	var f serverFlags
	cmd := &cobra.Command{
		Use: "demo", Short: "Show everything on this machine with a sample project", Args: args(cobra.NoArgs),
		Long: `Start a server with everything in a temporary folder, make a git repository of a sample shop, bring
up two of its branches and a third environment that borrows from the first, commit under load,
push a branch to the server, and run the shop's test. Where PostgreSQL is installed, each environment
has a copy of a database with a million orders; elsewhere the tour says what to install, and goes on
without. It stays up until Ctrl-C, which takes everything away.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags := pflag.NewFlagSet("demo", pflag.ContinueOnError)
			f.register(flags)
			config, err := f.config(flags, c.version)
			if err != nil {
				return err
			}
			config.HTTP = ":8080" // also for root: nothing here needs port 80
			config.Hook = hook    // it takes pushes
			config.Databases = openDatabases
			config.FirstUser, config.LastUser = 0, 0 // so that it works wherever Go is installed
			return demo.Run(cmd.Context(), demo.Options{Once: once, Out: c.Out, Config: config})
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "make the tour and end")
	return cmd
}
