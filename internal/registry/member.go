package registry

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/dayfly-dev/dayfly"
)

// Membership shows the others that a node is alive.
type Membership struct {
	store   *Store
	node    Node
	cancel  context.CancelFunc
	running sync.WaitGroup
	left    error // set when stay has ended
}

// Join puts down the record of a node for as long as this process is alive and
// reaches etcd, until ctx ends or Close is called. When the lease was lost it is
// made again as soon as etcd is back, and made later where etcd has no room for it now. A
// node id must be used by one server only.
func (s *Store) Join(ctx context.Context, node Node) (*Membership, error) {
	ctx, cancel := context.WithCancel(ctx)
	m := &Membership{store: s, node: node, cancel: cancel}
	session, err := m.enter(ctx)
	if errors.Is(err, rpctypes.ErrNoSpace) {
		// What is known is worth more to users than that others know of this node.
		s.log.Error("this node cannot be made known to others yet", "node", node.ID, "error", err)
	} else if err != nil {
		cancel()
		return nil, err
	}
	m.running.Go(func() { m.stay(ctx, session) })
	return m, nil
}

// Close takes the node's record away. Where etcd does not answer that is an error,
// and the record goes when its lease has run out.
func (m *Membership) Close() error {
	m.cancel()
	m.running.Wait()
	return m.left
}

// enter makes a lease and the record under it.
func (m *Membership) enter(ctx context.Context) (*session, error) {
	session, err := m.store.newSession(ctx)
	if err != nil {
		return nil, err
	}
	data, err := Nodes.encode(m.node)
	if err == nil {
		err = m.store.bury(ctx, clientv3.OpGet(Nodes.path(m.node.ID)), session.Lease(), m.node.ID)
	}
	if err == nil {
		putCtx, cancel := context.WithTimeout(ctx, m.store.timeout)
		defer cancel()
		if _, err = m.store.client.Put(putCtx, Nodes.path(m.node.ID), string(data), clientv3.WithLease(session.Lease())); err == nil {
			return session, nil
		}
		err = m.store.failure(putCtx, err)
	}
	_ = session.end()
	return nil, err
}

// bury revokes the leases that an earlier life of a node has left among the keys that look
// finds. It was killed; until they run out by themselves, others would take it for alive.
func (s *Store) bury(ctx context.Context, look clientv3.Op, own clientv3.LeaseID, node string) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	found, err := s.client.Do(ctx, look)
	if err != nil {
		return s.failure(ctx, err)
	}
	for _, kv := range found.Get().Kvs {
		lease := clientv3.LeaseID(kv.Lease)
		mine := string(kv.Value) == node || string(kv.Key) == Nodes.path(node)
		if lease == clientv3.NoLease || lease == own || !mine {
			continue
		}
		if _, err := s.client.Revoke(ctx, lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return s.failure(ctx, err)
		}
	}
	return nil
}

// stay keeps the record there; session is nil where it has to be made first.
func (m *Membership) stay(ctx context.Context, session *session) {
	for {
		if session != nil {
			select {
			case <-ctx.Done():
				m.left = session.end()
				return
			case <-session.Done():
				m.store.log.Warn("the lease of this node ended, it is made again", "node", m.node.ID)
			}
			_ = session.end()
		}
		var err error
		for session, err = m.enter(ctx); err != nil; session, err = m.enter(ctx) {
			if ctx.Err() != nil {
				return
			}
			pause(ctx)
		}
	}
}

// session is a lease that is kept alive.
type session struct {
	*concurrency.Session
	store  *Store
	cancel context.CancelFunc
}

// newSession makes a lease within the time-out of the store. It is kept alive until
// it is lost or end is called; ctx only bounds the making.
func (s *Store) newSession(ctx context.Context) (*session, error) {
	// The session lives in a context that ends with the time-out, unless it has
	// been made by then.
	live, cancel := context.WithCancel(context.WithoutCancel(ctx))
	late := time.AfterFunc(s.timeout, cancel)
	abandoned := context.AfterFunc(ctx, cancel)
	made, err := concurrency.NewSession(s.client, concurrency.WithTTL(s.leaseTTL), concurrency.WithContext(live))
	inTime, wanted := late.Stop(), abandoned()
	switch {
	case err == nil && inTime && wanted:
		return &session{Session: made, store: s, cancel: cancel}, nil
	case err == nil:
		_ = (&session{Session: made, store: s, cancel: cancel}).end()
		err = context.DeadlineExceeded
	}
	cancel()
	return nil, s.failure(ctx, err)
}

// end revokes the lease, so that what is under it goes at once. Where etcd is away
// the lease runs out by itself.
func (s *session) end() error {
	s.Orphan()
	s.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), min(s.store.timeout, time.Second))
	defer cancel()
	if _, err := s.store.client.Revoke(ctx, s.Lease()); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return s.store.failure(ctx, err)
	}
	return nil
}

// Lead runs fn while this server has a role, and asks for the role again whenever
// that was lost. The context of fn ends as soon as the loss is noticed, and Lead
// waits for fn before it goes on. It returns ctx's error when ctx ends, or what fn
// returns by itself while it has the role, which then goes to another server.
//
// A server that is cut off notices later than the others, so for a moment two may
// believe that they have the role: guard what must not happen twice by revisions. A node
// asks for a role once at a time: an earlier life of it gives way at once.
func (s *Store) Lead(ctx context.Context, role, node string, fn func(ctx context.Context) error) error {
	for ctx.Err() == nil {
		session, err := s.newSession(ctx)
		if err != nil {
			pause(ctx)
			continue
		}
		done, err := s.leadOnce(ctx, session, role, node, fn)
		_ = session.end()
		if done {
			return err
		}
		if err != nil {
			pause(ctx)
		}
	}
	return ctx.Err()
}

// leadOnce waits for the role and runs fn with it; done says that fn ended by itself.
func (s *Store) leadOnce(ctx context.Context, session *session, role, node string, fn func(ctx context.Context) error) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		select {
		case <-session.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() {
		cancel()
		<-lost
	}()
	if err := s.bury(ctx, clientv3.OpGet(electionsRoot+role+"/", clientv3.WithPrefix()), session.Lease(), node); err != nil {
		return false, err
	}
	election := concurrency.NewElection(session.Session, electionsRoot+role)
	if err := election.Campaign(ctx, node); err != nil {
		return false, err
	}
	err = fn(ctx)
	return ctx.Err() == nil, err
}

// Leader gives the node that has a role; nobody having it is dayfly.CodeNotFound.
func (s *Store) Leader(ctx context.Context, role string) (node string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := s.client.Get(ctx, electionsRoot+role+"/", clientv3.WithFirstCreate()...)
	if err != nil {
		return "", s.failure(ctx, err)
	}
	if len(resp.Kvs) == 0 {
		return "", dayfly.Errorf(dayfly.CodeNotFound, "nobody has the role %s", role)
	}
	return string(resp.Kvs[0].Value), nil
}
