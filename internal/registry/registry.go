// Package registry keeps the asked, resolved and observed state in etcd: typed
// records with revisions and compare-and-swap, a cache that follows them, node
// leases, roles and events. Embedded etcd and a cluster are reached through the
// same client on the same code path.
//
// Keys, all under /dayfly/1/:
//
//	cluster              the id of the cluster, made once
//	record/KIND/KEY      the records, followed by Cache
//	event/ENVIRONMENT/…  a ring of the last events of an environment
//	lead/ROLE/…          who has a role
package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry/embedded"
)

const (
	root          = "/dayfly/1/"
	clusterKey    = root + "cluster"
	recordPrefix  = root + "record/"
	eventPrefix   = root + "event/"
	electionsRoot = root + "lead/"
)

const (
	defaultTimeout  = 5 * time.Second
	defaultLeaseTTL = 10 * time.Second
)

// Config says where the state is.
type Config struct {
	// Endpoints of an etcd cluster, as host:port or URL. None = an etcd in
	// this process.
	Endpoints []string
	TLS       *tls.Config // for Endpoints; nil = as their URLs say
	Username  string      // for Endpoints; "" = no authentication
	Password  dayfly.Secret

	Dir    string // the folder of the embedded etcd
	Listen string // where the embedded etcd takes clients, as ip:port; "" = nowhere

	// Timeout bounds one request; 0 = 5 s.
	Timeout time.Duration
	// LeaseTTL is how long a server that went silent still counts as alive and
	// keeps its roles, in whole seconds; 0 = 10 s.
	LeaseTTL time.Duration

	Logger *slog.Logger // nil = slog.Default()
}

// Store reads and writes the state.
type Store struct {
	client    *clientv3.Client
	server    *embedded.Server // nil for a cluster
	clusterID string
	timeout   time.Duration
	leaseTTL  int // seconds
	log       *slog.Logger
	events    *eventWriter
}

// Open starts the embedded etcd or reaches the cluster. A cluster that does not
// answer is dayfly.CodeUnavailable after Timeout, a folder that another server
// uses dayfly.CodeConflict at once.
func Open(ctx context.Context, config Config) (*Store, error) {
	s := &Store{timeout: config.Timeout, leaseTTL: int(config.LeaseTTL / time.Second), log: config.Logger}
	if s.timeout <= 0 {
		s.timeout = defaultTimeout
	}
	if s.leaseTTL <= 0 {
		s.leaseTTL = int(defaultLeaseTTL / time.Second)
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	var err error
	if len(config.Endpoints) > 0 {
		s.client, err = dial(config)
	} else if s.server, err = embedded.Start(ctx, config.Dir, config.Listen, s.log); err == nil {
		s.client = s.server.Client()
	}
	if err != nil {
		return nil, err
	}
	if s.clusterID, err = s.identify(ctx); err != nil {
		return nil, errors.Join(err, s.shut())
	}
	s.events = startEventWriter(s)
	return s, nil
}

// dial makes a client of a cluster; it connects by itself when used.
func dial(config Config) (*clientv3.Client, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: config.Endpoints,
		TLS:       config.TLS,
		Username:  config.Username,
		Password:  config.Password.Reveal(),
		// A machine that vanished without closing its connections is noticed
		// by these; servers refuse pings that come more often than every 5 s.
		DialTimeout:          3 * time.Second,
		DialKeepAliveTime:    6 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		// An etcd that comes back is found at once, also after a long time: by
		// default it would be asked every two minutes in the end.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		})},
		// What matters of its log is said by those who use it.
		Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, dayfly.Errorf(dayfly.CodeInvalid, "etcd at %v cannot be used: %w", config.Endpoints, err)
	}
	return client, nil
}

type clusterRecord struct {
	ID string `json:"id"`
}

// identify gives the id of the cluster and makes it where there is none.
func (s *Store) identify(ctx context.Context) (string, error) {
	fresh, err := encode(clusterRecord{ID: dayfly.NewID()})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	// Nearly always it is there, also where etcd has no room for the transaction.
	resp, err := s.client.Get(ctx, clusterKey)
	if err == nil && len(resp.Kvs) == 0 {
		_, err = s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(clusterKey), "=", 0)).
			Then(clientv3.OpPut(clusterKey, string(fresh))).
			Commit()
		if err == nil {
			resp, err = s.client.Get(ctx, clusterKey)
		}
	}
	if err != nil {
		return "", s.failure(ctx, err)
	}
	if len(resp.Kvs) == 0 {
		return "", dayfly.Errorf(dayfly.CodeInternal, "the id of the cluster was deleted from etcd while the server started: start it again")
	}
	rec, err := decode[clusterRecord](clusterKey, resp.Kvs[0].Value)
	return rec.ID, err
}

// ClusterID is a random id made when the state was new. Whatever the servers of
// a cluster make on a host carries it.
func (s *Store) ClusterID() string { return s.clusterID }

// Close writes the events that are not written yet, and lets go of the cluster or
// stops the embedded etcd. Caches, memberships and roles must have ended.
func (s *Store) Close() error {
	err := s.events.close()
	if shutErr := s.shut(); err == nil {
		err = shutErr
	}
	return err
}

func (s *Store) shut() error {
	if s.server != nil {
		return s.server.Close()
	}
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("closing the client of etcd: %w", err)
	}
	return nil
}

// envelope is how every record is stored.
type envelope struct {
	Format int             `json:"format"`
	Record json.RawMessage `json:"record"`
}

func encode(v any) ([]byte, error) {
	record, err := json.Marshal(v)
	if err != nil {
		return nil, dayfly.Errorf(dayfly.CodeInternal, "a record cannot be written: %w", err)
	}
	return json.Marshal(envelope{Format: dayfly.Format, Record: record})
}

func decode[T any](key string, data []byte) (v T, err error) {
	// Nearly always one pass is enough; it matters when a server starts and reads them all.
	var whole struct {
		Format int `json:"format"`
		Record *T  `json:"record"`
	}
	if err := json.Unmarshal(data, &whole); err == nil && whole.Format <= dayfly.Format && whole.Record != nil {
		return *whole.Record, nil
	}
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return v, unreadable(key, err)
	}
	if e.Format > dayfly.Format {
		return v, dayfly.Errorf(dayfly.CodeFailed, "the record %s was written by a newer dayfly (format %d, this one reads up to %d): use that version of dayfly or a later one",
			key, e.Format, dayfly.Format)
	}
	err = unreadable(key, json.Unmarshal(e.Record, &v))
	return v, err
}

// unreadable says what an error of decoding a record means; nil = nothing.
func unreadable(key string, err error) error {
	if err == nil {
		return nil
	}
	return dayfly.Errorf(dayfly.CodeInternal, "the record %s in etcd cannot be read: %w", key, err)
}
