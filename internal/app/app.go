// Package app is the only place where everything meets: it makes the parts of a
// server, starts them in an order in which each finds what it needs, and stops them
// in the reverse one.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api"
	"github.com/dayfly-dev/dayfly/internal/control"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/dns"
	"github.com/dayfly-dev/dayfly/internal/doctor"
	"github.com/dayfly-dev/dayfly/internal/feed"
	"github.com/dayfly-dev/dayfly/internal/holder"
	"github.com/dayfly-dev/dayfly/internal/proxy"
	"github.com/dayfly-dev/dayfly/internal/reconcile"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/resolve"
	"github.com/dayfly-dev/dayfly/internal/route"
	"github.com/dayfly-dev/dayfly/internal/runner"
	"github.com/dayfly-dev/dayfly/internal/runner/local"
	"github.com/dayfly-dev/dayfly/internal/source"
	"github.com/dayfly-dev/dayfly/internal/vault"
	"github.com/dayfly-dev/dayfly/internal/web"
)

// defaultDrain is how long an instance that is stopped for another reason than a
// release or a deletion may take to become idle.
const defaultDrain = 30 * time.Second

// shutdown is how long requests in flight may take when the server ends.
const shutdown = 10 * time.Second

// App is a server.
type App struct {
	config Config
	log    *slog.Logger

	folder    *dataDir
	node      string // id of this server
	sources   *sources
	pushes    *source.Server // nil = none are taken
	vault     *vault.Vault
	ports     *ports
	holder    *holder.Holder
	store     *registry.Store
	member    *registry.Membership
	cache     *registry.Cache
	table     *route.Table
	feed      *feed.Feed
	runner    runner.Runner
	sweepers  []reconcile.Sweeper
	databases database.Keeper // nil = none are kept,
	// and why.
	noDatabases string
	users       local.Users // zero: services run as the server's own user
	leftovers   func() []dayfly.Leftover
	departing   func(context.Context) ([]dayfly.Departure, error)
	// filesProblem is why the folder of environment files is not followed; nil or "" = it is.
	filesProblem atomic.Pointer[string]
	control      *control.Control
	proxy        *proxy.Proxy
	api          *http.Server
	public       net.Listener
	internal     net.Listener
	listen       net.Listener
	dns          *dns.Server // nil = off

	next     bool      // another server is to follow this one
	cleanups []cleanup // in the order in which the parts were started
}

// cleanup stops one part.
type cleanup struct {
	name string
	stop func(ctx context.Context) error
}

// New checks a configuration. Start does the rest.
func New(config Config, log *slog.Logger) (*App, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	return &App{config: config, log: log}, nil
}

// Start starts every part and returns when the server serves. When it fails, what
// had been started is stopped again.
func (a *App) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdown)
			defer cancel()
			err = errors.Join(err, a.Stop(stopCtx))
		}
	}()
	for _, part := range []struct {
		name  string
		start func(context.Context) error
	}{
		{"data folder", a.startFolder},
		{"listeners", a.startListeners},
		{"state", a.startState},
		{"access to the API", a.checkAccess},
		{"sources and runner", a.startRunner},
		{"databases", a.startDatabases},
		{"control", a.startControl},
		{"pushes", a.startPushes},
		{"data plane", a.startDataPlane},
		{"DNS", a.startDNS},
		{"reconcilers", a.startReconcilers},
		{"environment files", a.startFiles},
		{"API", a.startAPI},
		{"holder of the listening sockets", a.startHolder},
	} {
		if err := part.start(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	a.background("memory", giveBack)
	return nil
}

// giveBack returns the memory to the system that only a start needs: with many environments
// more than what is known of them. It would be kept for a heap that grows as much again.
func giveBack(ctx context.Context) {
	for _, later := range []time.Duration{10 * time.Second, time.Minute} {
		select {
		case <-ctx.Done():
			return
		case <-time.After(later):
			debug.FreeOSMemory()
		}
	}
}

// Stop stops every part, the last started first. What runs is left running.
func (a *App) Stop(ctx context.Context) error {
	var all error
	for len(a.cleanups) > 0 {
		c := a.cleanups[len(a.cleanups)-1]
		a.cleanups = a.cleanups[:len(a.cleanups)-1]
		if err := c.stop(ctx); err != nil {
			all = errors.Join(all, fmt.Errorf("stopping the %s: %w", c.name, err))
		}
	}
	return all
}

func (a *App) onStop(name string, stop func(ctx context.Context) error) {
	a.cleanups = append(a.cleanups, cleanup{name, stop})
}

// background runs a part until Stop, which waits for its end.
func (a *App) background(name string, run func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { run(ctx) })
	a.onStop(name, func(context.Context) error {
		cancel()
		done.Wait()
		return nil
	})
}

func (a *App) startFolder(context.Context) (err error) {
	if a.folder, err = openFolder(a.config.Data); err != nil {
		return err
	}
	a.onStop("data folder", func(context.Context) error { return a.folder.close() })
	if a.ports, err = readPorts(a.folder.path); err != nil {
		return err
	}
	if a.holder, err = holder.Find(a.folder.path); err != nil {
		return err
	}
	a.onStop("held sockets", func(context.Context) error { return a.holder.Close() })
	return nil
}

func (a *App) startState(ctx context.Context) (err error) {
	a.store, err = registry.Open(ctx, registry.Config{
		Endpoints: a.config.Etcd, Dir: a.folder.sub("etcd"), Listen: a.config.EtcdListen, Logger: a.log,
	})
	if err != nil {
		return err
	}
	a.onStop("state", func(context.Context) error { return a.store.Close() })
	if err := a.folder.belongsTo(a.store.ClusterID()); err != nil {
		return err
	}
	if a.node, err = a.folder.node(); err != nil {
		return err
	}
	hostname, _ := os.Hostname()
	a.member, err = a.store.Join(context.WithoutCancel(ctx), registry.Node{
		ID: a.node, Address: a.config.Advertise, Hostname: hostname, StartedAt: time.Now(), Version: a.config.Version,
	})
	if err != nil {
		return err
	}
	a.onStop("membership", func(context.Context) error { return a.member.Close() })
	a.cache = registry.NewCache(a.store)
	if err := a.cache.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	a.onStop("cache", func(context.Context) error { a.cache.Close(); return nil })
	return nil
}

// exposed says whether others than this host's users can reach the API.
func (a *App) exposed() bool {
	if a.listen == nil {
		return false
	}
	address, ok := a.listen.Addr().(*net.TCPAddr)
	return !ok || !address.IP.IsLoopback()
}

// checkAccess refuses to serve an API to everybody who can reach it.
func (a *App) checkAccess(context.Context) error {
	switch {
	case !a.exposed():
	case registry.Len(a.cache, registry.Tokens) == 0:
		return dayfly.Invalid(dayfly.Problem{Field: "--listen", Message: a.listen.Addr().String() +
			" is not on loopback, and there are no tokens yet: start the server with --listen 127.0.0.1:7070 once and make one with `dayfly token create NAME`"})
	default:
		a.log.Warn("the API is reached from elsewhere, without encryption: tokens can be read on the way unless something in front of it speaks TLS", "listen", a.listen.Addr())
	}
	return nil
}

func (a *App) startRunner(ctx context.Context) error {
	allowLocal := a.config.AllowLocal || !a.exposed()
	git, err := source.New(source.Config{Dir: a.folder.sub("git"), MaxBytes: a.config.QuotaCheckouts, MaxPush: a.config.MaxPush, Logger: a.log})
	if err != nil {
		return err
	}
	keys, err := vault.Open(a.folder.sub("vault.key"))
	if err != nil {
		return err
	}
	a.sources = &sources{git: git, vault: keys, cache: a.cache, local: allowLocal}
	a.vault = keys
	a.table = route.New(route.Options{Domain: a.config.Domain, InternalSuffixes: a.config.InternalSuffixes})
	a.feed = feed.New(a.cache, a.table, a.log)
	if a.users, err = a.serviceUsers(); err != nil {
		return err
	}
	keeper, err := local.New(ctx, local.Config{
		Users: a.users, Memory: a.config.Memory, CPUs: a.config.CPUs,
		Dir: a.folder.path, ClusterID: a.store.ClusterID(), NodeID: a.node, Trees: a.sources,
		Hooks: runner.Hooks{Drain: a.drain}, MaxBuilds: a.config.MaxBuilds, BuildTimeout: a.config.BuildTimeout, PassEnv: a.config.PassEnv,
		NoProxy: []string{a.config.Domain}, LogMax: a.config.LogSize,
		MaxBuildBytes: a.config.QuotaBuilds, MaxLogBytes: a.config.QuotaLogs, Logger: a.log,
	})
	if err != nil {
		return err
	}
	a.runner, a.sweepers = keeper, []reconcile.Sweeper{keeper, git, hosted{git, a.cache}}
	a.onStop("runner", func(context.Context) error { return a.runner.Close() })
	return nil
}

// serviceUsers says which users services and builds run as.
func (a *App) serviceUsers() (local.Users, error) {
	if os.Geteuid() != 0 || a.config.LastUser == 0 {
		return local.Users{}, nil
	}
	closed, err := local.Closed(a.folder.path)
	if err != nil {
		return local.Users{}, err
	}
	if closed != "" {
		a.log.Warn("services and builds run as root, since other users could not reach their files: run chmod o+x on this folder, or choose another one with --data", "folder", closed)
		return local.Users{}, nil
	}
	return local.Users{First: a.config.FirstUser, Last: a.config.LastUser}, nil
}

// drain takes an instance out of rotation and waits until nobody is on it, for as
// long as its retirement allows; then it cuts what is left.
func (a *App) drain(ctx context.Context, deployment, instance string) {
	limit := defaultDrain
	if d, ok := registry.Lookup(a.cache, registry.Deployments, deployment); ok && d.Value.Retiring != nil {
		limit = time.Duration(d.Value.Retiring.Drain)
	}
	// The table must have heard of the successor before the old one is closed.
	if err := a.feed.Wait(ctx, a.cache.Revision()); err != nil {
		return
	}
	wait, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := a.table.Drain(wait, deployment, instance); err != nil && ctx.Err() == nil {
		a.table.Cut(deployment, instance)
	}
}

func (a *App) startControl(context.Context) error {
	resolver := &resolve.Resolver{
		Config: resolve.Config{
			Domain: a.config.Domain, HostPattern: a.config.HostPattern, PublicURL: a.publicURL,
			InternalPort: func() int { return port(a.internal) },
		},
		Sources: a.sources, Now: time.Now,
	}
	home := a.node
	if !a.runner.Capabilities().Node {
		home = "" // a cluster of its own keeps the deployments
	}
	a.control = control.New(control.Config{
		NamePattern: a.config.NamePattern, Keep: a.config.Keep, MaxKeep: a.config.MaxKeep, AllowForever: a.config.AllowForever,
		KeepLogs: a.config.KeepLogs, Runner: a.config.Runner, NodeID: home,
		MaxEnvironments: a.config.MaxEnvironments, MaxPerProject: a.config.MaxPerProject,
		PublicURL: a.publicURL, InternalURL: a.internalURL, DatabaseNode: a.node, DatabaseHost: a.databaseHost(), DatabaseListen: a.databaseHost(), NoDatabases: a.noDatabases,
		LocalFiles: a.config.AllowLocal || !a.exposed(),
		Server:     a.node, Counts: func() dayfly.CallCounts { return a.proxy.Counts() },
		Routed: a.feed.Wait, Left: a.feed.Left, Host: a.serviceHost, PushURL: a.pushURL, Mayfly: a.config.Mayfly,
	}, control.Parts{
		Store: a.store, Cache: a.cache, Resolver: resolver, Vault: a.vault, Logs: a.runner, Databases: a.databases, Now: time.Now, Logger: a.log,
	})
	a.background("control", a.control.Run)
	return nil
}

func (a *App) startDataPlane(context.Context) error {
	a.background("feed", a.feed.Run)
	limits := a.config.Limits
	if limits.Connections == 0 {
		limits.Connections = connections()
	}
	a.proxy = proxy.New(proxy.Config{
		Limits: limits,
		Table:  a.table, Pages: web.NewPages(), Headers: a.config.Headers, ReleaseHeader: a.config.ReleaseHeader,
		TrustedProxies: a.config.TrustedProxies, Logger: a.log,
	})
	// The table is whole before the first request is taken.
	if err := a.feed.Wait(context.Background(), a.cache.Revision()); err != nil {
		return err
	}
	serve := func(name string, l net.Listener, serve func(context.Context, net.Listener) error) {
		if l == nil {
			return
		}
		a.background(name, func(ctx context.Context) {
			if err := serve(ctx, l); err != nil && ctx.Err() == nil {
				a.log.Error("a listener failed", "listener", name, "error", err)
			}
		})
	}
	serve("internal listener", a.internal, a.proxy.ServeInternal)
	serve("public listener", a.public, a.proxy.ServePublic)
	a.onStop("data plane", a.proxy.Shutdown)
	return nil
}

func (a *App) startReconcilers(context.Context) error {
	r := reconcile.New(reconcile.Config{
		NodeID: a.node, Kind: a.config.Runner, Drain: a.config.Drain, KeepLogs: a.config.KeepLogs, Poll: a.config.Poll,
	}, reconcile.Parts{
		Store: a.store, Cache: a.cache, Runner: a.runner, Asked: a.control, News: news{a.sources}, Sweepers: a.sweepers, Keeper: a.databases, Owner: a.control, Now: time.Now, Logger: a.log,
	})
	a.leftovers, a.departing = r.Leftovers, r.Departures
	a.background("reconcilers", r.Run)
	if a.config.TakeDown {
		a.onStop("environments", a.takeDown)
	}
	return nil
}

// takeDown deletes every environment and waits until they are gone.
func (a *App) takeDown(ctx context.Context) error {
	list, _, err := a.control.Environments(ctx, dayfly.EnvironmentFilter{Limit: 1 << 30})
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(e dayfly.Environment) bool { return e.LastSeen != nil }) // they go by themselves
	var all error
	for _, env := range list {
		if _, err := a.control.DeleteEnvironment(ctx, env.Name, dayfly.DeleteOptions{Force: true}); err != nil {
			all = errors.Join(all, err)
		}
	}
	if all != nil {
		return all
	}
	for _, env := range list {
		_, err := a.control.WaitEnvironment(ctx, env.ID, func(dayfly.Environment) bool { return false })
		if err != nil && dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			return err
		}
	}
	return a.takeDatabasesDown(ctx)
}

func (a *App) startAPI(context.Context) error {
	if a.listen == nil {
		return nil
	}
	config := api.Config{Control: a.control, Version: a.config.Version, Doctor: a.doctor, Retire: a.departing, Git: http.HandlerFunc(a.serveGit), Logger: a.log}
	if a.exposed() {
		config.NeedToken, config.Hosts = true, a.config.names()
	}
	a.api = &http.Server{
		Handler:           api.New(config),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	var done sync.WaitGroup
	done.Go(func() {
		if err := a.api.Serve(a.listen); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("the API has ended", "error", err)
		}
	})
	a.onStop("API", func(ctx context.Context) error {
		// Those who follow something would keep the server: they come back to the next one.
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		err := a.api.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = a.api.Close()
		}
		done.Wait()
		return err
	})
	return nil
}

// doctor examines this host.
func (a *App) doctor(ctx context.Context) []dayfly.Finding {
	addresses := map[string]string{}
	for name, l := range map[string]net.Listener{"http": a.public, "internal": a.internal, "listen": a.listen} {
		if l == nil {
			continue
		}
		tcp := *l.Addr().(*net.TCPAddr)
		if tcp.IP.IsUnspecified() {
			tcp.IP = net.IPv4(127, 0, 0, 1)
		}
		addresses[name] = tcp.String()
	}
	answers := ""
	if a.dns != nil {
		answers = a.dns.Local().String()
	}
	problem := ""
	if p := a.filesProblem.Load(); p != nil {
		problem = *p
	}
	return append(a.control.Missed(), doctor.Examine(ctx, doctor.Host{
		DNS: answers, Environments: a.config.Environments, EnvironmentsProblem: problem,
		Data: a.folder.path, Domain: a.config.Domain, Addresses: addresses, Users: os.Geteuid() == 0 && a.config.LastUser != 0, Ready: a.control.Ready, Leftovers: a.leftovers,
	})...)
}

// Addresses says where the server is reached: public, API and internal, "" where off.
func (a *App) Addresses() (public, api, internal string) {
	address := func(l net.Listener) string {
		if l == nil {
			return ""
		}
		return l.Addr().String()
	}
	return address(a.public), address(a.listen), address(a.internal)
}
