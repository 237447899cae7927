package registry

import (
	"context"
	"errors"
	"iter"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
)

// RegistrationKey is the key of a registration.
func RegistrationKey(service, id string) string { return service + "/" + id }

// RegisteredID is the id of the deployment that the registered instances of a version are; env is
// "" for those of no environment.
func RegisteredID(project, env, service, version string) string {
	return "registered:" + project + "/" + env + "/" + service + "/" + version
}

// registeredWith is what the index of registrations by environment finds them by: names of environments are
// unique on the server, those of none belong to their project.
func registeredWith(project, env string) string {
	if env == "" {
		return "p/" + project
	}
	return "e/" + env
}

// RegistrationsOf gives the registrations with an environment of a project, whether somebody has
// created it or not; env "" gives those of no environment.
func RegistrationsOf(c *Cache, project, env string) iter.Seq[Record[dayfly.Registration]] {
	return func(yield func(Record[dayfly.Registration]) bool) {
		for r := range selectBy(c, Registrations, byEnvironment, registeredWith(project, env)) {
			if r.Value.Project == project && !yield(r) {
				return
			}
		}
	}
}

// RegistrationsNamed gives the registrations with environments of this name, of whatever project.
func RegistrationsNamed(c *Cache, env string) iter.Seq[Record[dayfly.Registration]] {
	if env == "" {
		return func(func(Record[dayfly.Registration]) bool) {}
	}
	return selectBy(c, Registrations, byEnvironment, registeredWith("", env))
}

// RegisteredVersion gives the registrations of a version that are of no environment.
func RegisteredVersion(c *Cache, project, service, version string) iter.Seq[Record[dayfly.Registration]] {
	return RegisteredAs(c, RegisteredID(project, "", service, version))
}

// UsersOfRegistered gives the names of the environments whose service is the registered instances of a
// version that are of no environment, in their order.
func UsersOfRegistered(c *Cache, project, service, version string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for res := range selectBy(c, Resolutions, byRegistered, service+"/"+version) {
			r, ok := Lookup(c, Environments, res.Key)
			if ok && r.Value.Spec.Project == project && r.Value.ID == res.Value.Environment && !yield(res.Key) {
				return
			}
		}
	}
}

// RegisteredAs gives the registrations that make up a deployment, by RegisteredID.
func RegisteredAs(c *Cache, deployment string) iter.Seq[Record[dayfly.Registration]] {
	return selectBy(c, Registrations, byDeployment, deployment)
}

// RegistrationsAt gives the registrations that have a public host.
func RegistrationsAt(c *Cache, host string) iter.Seq[Record[dayfly.Registration]] {
	return selectBy(c, Registrations, byHost, host)
}

// RoutesAt gives the routes of a public host.
func RoutesAt(c *Cache, host string) iter.Seq[Record[dayfly.Route]] {
	return selectBy(c, Routes, byHost, host)
}

// RegisteredEnvironments gives the names that registrations give to environments, in their order,
// from the first one on that comes after this one; "" = from the beginning.
func RegisteredEnvironments(c *Cache, after string) iter.Seq[string] {
	return func(yield func(string) bool) {
		last := after
		c.view.Load().tables[Registrations.name][byEnvironment].AscendGreaterOrEqual(item{found: registeredWith("", after+"\x00")}, func(i item) bool {
			name, ok := strings.CutPrefix(i.found, "e/")
			if !ok {
				return false
			}
			if name == last {
				return true
			}
			last = name
			return yield(name)
		})
	}
}

// Holder says in words who has a public host; "" = nobody.
func Holder(c *Cache, host string) string {
	claim, ok := Lookup(c, Hosts, host)
	switch {
	case ok && claim.Value.Routes == 0:
		return "environment " + claim.Value.Name
	case ok:
		var names []string
		for r := range RoutesAt(c, host) {
			names = append(names, r.Key)
		}
		return "route " + strings.Join(names, ", ")
	}
	for r := range RegistrationsAt(c, host) {
		return "what is registered with environment " + r.Value.Environment
	}
	return ""
}

// Unmanaged gives the project of an environment that nobody created: it is there for as long as
// something is registered with it. Should several projects register something, it is that of who came
// first.
func Unmanaged(c *Cache, name string) (project string, ok bool) {
	if _, created := Lookup(c, Environments, name); created {
		return "", false
	}
	first := int64(0)
	for r := range RegistrationsNamed(c, name) {
		if !ok || r.Created < first {
			project, first, ok = r.Value.Project, r.Created, true
		}
	}
	return project, ok
}

// Register writes a registration under a new lease and gives it as it is then, with the revision at
// which a Cache has it. The one there was must be as at revision; 0 = there must be none.
func (s *Store) Register(ctx context.Context, r dayfly.Registration, revision int64) (Record[dayfly.Registration], error) {
	before := r.Lease
	key := RegistrationKey(r.Service, r.ID)
	none := Record[dayfly.Registration]{}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	lease, err := s.client.Grant(ctx, seconds(r.TTL))
	if err != nil {
		return none, s.failure(ctx, err)
	}
	r.Lease = int64(lease.ID)
	op := Require(Registrations, key, revision)
	data, err := Registrations.encode(r)
	if op.err != nil || err != nil {
		return none, errors.Join(op.err, err)
	}
	if crash.Enabled {
		crash.Point("before write registration")
		defer crash.Point("after write registration")
	}
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(op.path()), "=", revision)).
		Then(clientv3.OpPut(op.path(), string(data), clientv3.WithLease(lease.ID))).
		Commit()
	switch {
	case err != nil:
		return none, s.failure(ctx, err) // the lease runs out by itself
	case !resp.Succeeded:
		s.revoke(ctx, r.Lease)
		return none, op.conflict()
	}
	if before != 0 {
		s.revoke(ctx, before) // it holds nothing any more
	}
	return Record[dayfly.Registration]{Key: key, Value: r, Revision: resp.Header.Revision}, nil
}

// revoke ends a lease; where that fails, it ends by itself.
func (s *Store) revoke(ctx context.Context, lease int64) {
	if _, err := s.client.Revoke(ctx, clientv3.LeaseID(lease)); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		s.log.Debug("a lease is left to run out", "error", err)
	}
}

// Deregister ends a registration that is not another one by now: it goes with its lease.
func (s *Store) Deregister(ctx context.Context, r dayfly.Registration) (revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := s.client.Revoke(ctx, clientv3.LeaseID(r.Lease))
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return 0, nil
	case err != nil:
		return 0, s.failure(ctx, err)
	}
	return resp.Header.Revision, nil
}

// seconds is how long a lease lasts, at least.
func seconds(ttl dayfly.Duration) int64 {
	return int64((time.Duration(ttl) + time.Second - 1) / time.Second)
}

// Renew lets a registration last for another ttl. It writes nothing. False = its lease has run out.
func (s *Store) Renew(ctx context.Context, r dayfly.Registration) (alive bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	_, err = s.client.KeepAliveOnce(ctx, clientv3.LeaseID(r.Lease))
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return false, nil
	case err != nil:
		return false, s.failure(ctx, err)
	}
	return true, nil
}

// LastSeen says when a registration was renewed, to the second; false = its lease has run out.
func (s *Store) LastSeen(ctx context.Context, r dayfly.Registration, now time.Time) (seen time.Time, alive bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	left, err := s.client.TimeToLive(ctx, clientv3.LeaseID(r.Lease))
	switch {
	case err != nil:
		return seen, false, s.failure(ctx, err)
	case left.TTL < 0:
		return seen, false, nil
	}
	seen = now.Add(-time.Duration(max(0, left.GrantedTTL-left.TTL)) * time.Second)
	if seen.Before(r.CreatedAt) {
		seen = r.CreatedAt
	}
	return seen, true, nil
}
