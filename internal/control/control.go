// Package control is what users and the API ask: it checks a wish, resolves
// it, and writes it down as asked and resolved state. What follows from that is
// up to package reconcile.
package control

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/resolve"
	"github.com/dayfly-dev/dayfly/internal/runner"
)

// Config is what the server's flags say about names and life.
type Config struct {
	NamePattern  string // --names
	Keep         dayfly.Duration
	MaxKeep      dayfly.Duration
	AllowForever bool
	KeepLogs     time.Duration
	// MaxEnvironments bounds all environments, MaxPerProject those of a project; 0 = no bound.
	MaxEnvironments, MaxPerProject int
	Mayfly                         bool   // read environment files in Mayfly's format
	Runner                         string // of deployments made here
	NodeID                         string // of deployments made here; "" = a cluster keeps them
	PublicURL                      func(host string) string
	InternalURL                    func(address string) string
	PushURL                        func(project string) string // where git pushes to; nil = nowhere
	// Host is the public host, without port, of a service of an environment that is called so there.
	Host func(service, env string) string
	// Left returns when nobody is on an instance any more whose registration has gone; nil = at once.
	Left func(context.Context, dayfly.Registration) error
	// Server is the id of this server, and Counts what it has counted of the requests that it passed on.
	Server string
	Counts func() dayfly.CallCounts
	// Routed returns when the route table has all changes up to a revision; nil = at once.
	Routed func(ctx context.Context, revision int64) error
	// DatabaseNode is whose databases the keeper keeps, DatabaseHost where clients reach them, and
	// DatabaseListen what their servers bind to.
	DatabaseNode, DatabaseHost, DatabaseListen string
	NoDatabases                                string // why there is no keeper
	LocalFiles                                 bool   // folders of this host may be named
}

// Resolver resolves environments and reads projects.
type Resolver interface {
	Resolve(ctx context.Context, in resolve.Input) (*dayfly.Resolution, error)
	Project(ctx context.Context, repo string, token dayfly.Secret) (resolve.ProjectInfo, error)
	ProjectAt(ctx context.Context, repo string, token dayfly.Secret, branch, commit string) (resolve.ProjectInfo, error)
	Heads(ctx context.Context, repo string, token dayfly.Secret) (dayfly.Heads, error)
	EnvironmentFiles(ctx context.Context, repo string, token dayfly.Secret, commit string) ([]resolve.File, error)
	CleanRepo(repo string) (clean string, token dayfly.Secret, err error)
}

// Vault seals credentials for the state.
type Vault interface {
	Seal(dayfly.Secret) ([]byte, error)
	Unseal([]byte) (dayfly.Secret, error)
}

// Logs is where the lines of deployments are read.
type Logs interface {
	Logs(ctx context.Context, deploymentID string, o runner.LogOptions) iter.Seq2[dayfly.LogLine, error]
}

// Control implements what the API asks for.
type Control struct {
	config   Config
	store    *registry.Store
	cache    *registry.Cache
	resolver Resolver
	vault    Vault
	logs     Logs
	now      func() time.Time
	log      *slog.Logger

	databases database.Keeper // nil = none are kept
	portsMu   sync.Mutex
	ports     map[int]bool // given to databases whose records are not written yet
	loadsMu   sync.Mutex
	loads     map[string]*load // what is being loaded here, by version

	hub   hub
	moves atomic.Int64 // how often branches have been looked at because they had moved

	mu       sync.Mutex
	reserved map[string]string    // ids of projects that are pushed to before they are there, by name
	hooks    map[string]time.Time // when a hook was delivered, or refused
	told     map[string]told      // what was last said about a branch, by project and branch
	// following lets one at a time follow the default branch of a project, by its id.
	following map[string]chan struct{}
	// seen are the branches as last seen, by project and repository.
	seen map[string]map[string]dayfly.Heads
}

// Parts is what a Control works with.
type Parts struct {
	Store    *registry.Store
	Cache    *registry.Cache
	Resolver Resolver
	Vault    Vault
	Logs     Logs
	// Databases keeps databases; nil = none are kept.
	Databases database.Keeper
	Now       func() time.Time
	Logger    *slog.Logger
}

// New makes a Control. Run must be called for waiting and following to work.
func New(config Config, p Parts) *Control {
	return &Control{
		config: config, store: p.Store, cache: p.Cache, resolver: p.Resolver, vault: p.Vault, logs: p.Logs,
		now: p.Now, log: p.Logger, hub: hub{waiters: map[string]map[chan struct{}]bool{}},
		databases: p.Databases, ports: map[int]bool{}, loads: map[string]*load{},
		reserved: map[string]string{}, told: map[string]told{}, hooks: map[string]time.Time{},
		following: map[string]chan struct{}{}, seen: map[string]map[string]dayfly.Heads{},
	}
}

// Ready says whether the state can be read and written.
func (c *Control) Ready(context.Context) error {
	if !c.cache.Healthy() {
		return dayfly.Errorf(dayfly.CodeUnavailable, "the state (etcd) cannot be reached; traffic goes on as last known")
	}
	return nil
}

// commit writes ops and waits until the cache has them, so that whoever is
// answered reads what he wrote.
func (c *Control) commit(ctx context.Context, ops ...registry.Op) error {
	revision, err := registry.Commit(ctx, c.store, ops...)
	if err != nil {
		return err
	}
	return c.cache.Wait(ctx, revision)
}

// token opens the credential with this id; "" has none.
func (c *Control) token(id string) (dayfly.Secret, error) {
	if id == "" {
		return dayfly.Secret{}, nil
	}
	rec, ok := registry.Lookup(c.cache, registry.Credentials, id)
	if !ok {
		return dayfly.Secret{}, nil
	}
	return c.vault.Unseal(rec.Value.Ciphertext)
}

// seal makes the op that stores a token, and the id under which it will be.
func (c *Control) seal(token dayfly.Secret) (id string, op registry.Op, err error) {
	sealed, err := c.vault.Seal(token)
	if err != nil {
		return "", registry.Op{}, err
	}
	id = dayfly.NewID()
	return id, registry.Create(registry.Credentials, id, registry.Credential{Ciphertext: sealed}), nil
}
