package registry

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
)

// Op is one operation of a transaction.
type Op struct {
	kind, key string
	compare   bool         // demands that the record is as at revision
	revision  int64        // 0 = there is none
	do        *clientv3.Op // what is done then
	err       error
}

// Create adds a record; there must be none with this key.
func Create[T any](kind Kind[T], key string, v T) Op {
	return Absent(kind, key).put(kind.encode(v))
}

// Put adds or replaces a record.
func Put[T any](kind Kind[T], key string, v T) Op {
	return operation(kind, key).put(kind.encode(v))
}

// Update replaces a record that has not changed since revision.
func Update[T any](kind Kind[T], key string, v T, revision int64) Op {
	return Require(kind, key, revision).put(kind.encode(v))
}

// Delete removes a record if it is there.
func Delete[T any](kind Kind[T], key string) Op { return operation(kind, key).delete() }

// DeleteIf removes a record that has not changed since revision.
func DeleteIf[T any](kind Kind[T], key string, revision int64) Op {
	return Require(kind, key, revision).delete()
}

// Require changes nothing, but demands that a record has not changed since
// revision.
func Require[T any](kind Kind[T], key string, revision int64) Op {
	op := operation(kind, key)
	op.compare, op.revision = true, revision
	return op
}

// Absent changes nothing, but demands that there is no such record.
func Absent[T any](kind Kind[T], key string) Op {
	return Require(kind, key, 0)
}

func operation[T any](kind Kind[T], key string) Op {
	op := Op{kind: kind.name, key: key}
	if key == "" || strings.ContainsRune(key, 0) {
		op.err = dayfly.Errorf(dayfly.CodeInternal, "%q is no key of a %s", key, kind.name)
	}
	return op
}

func (op Op) put(data []byte, err error) Op {
	if op.err == nil {
		op.err = err
	}
	put := clientv3.OpPut(op.path(), string(data))
	op.do = &put
	return op
}

func (op Op) delete() Op {
	del := clientv3.OpDelete(op.path())
	op.do = &del
	return op
}

func (op Op) path() string { return recordPrefix + op.kind + "/" + op.key }

// conflict says that op's comparison failed.
func (op Op) conflict() error {
	c := &Conflict{Kind: op.kind, Key: op.key}
	if op.revision == 0 {
		return &dayfly.Error{Code: dayfly.CodeConflict, Err: c, Message: op.kind + " " + op.key + " exists already"}
	}
	return &dayfly.Error{Code: dayfly.CodeConflict, Err: c, Message: op.kind + " " + op.key + " was changed or removed meanwhile: look at it again and repeat what you want to change"}
}

// Commit does all operations at once, or none of them, and gives the revision at
// which a Cache has them (see Cache.Wait). Where something is not as an operation
// demands the error is dayfly.CodeConflict with a *Conflict; where etcd does not
// answer dayfly.CodeUnavailable, and the change may or may not have been made. No
// key may be written twice.
func Commit(ctx context.Context, s *Store, ops ...Op) (revision int64, err error) {
	var compares []clientv3.Cmp
	var does, looks []clientv3.Op
	var compared []Op
	repeatable := false // something written shows whether an earlier try has succeeded
	for _, op := range ops {
		if op.err != nil {
			return 0, op.err
		}
		if op.compare {
			look := clientv3.OpGet(op.path(), clientv3.WithKeysOnly())
			if op.do != nil && op.do.IsPut() {
				repeatable, look = true, clientv3.OpGet(op.path())
			}
			compares = append(compares, clientv3.Compare(clientv3.ModRevision(op.path()), "=", op.revision))
			looks = append(looks, look)
			compared = append(compared, op)
		}
		if op.do != nil {
			does = append(does, *op.do)
		}
	}
	if crash.Enabled {
		crash.Point("before " + describe(ops))
		defer crash.Point("after " + describe(ops))
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, again, err := s.transact(ctx, compares, does, looks, repeatable)
	if err != nil {
		return 0, s.failure(ctx, err)
	}
	if resp.Succeeded {
		return resp.Header.Revision, nil
	}
	if again {
		if revision := written(compared, resp.Responses); revision > 0 {
			return revision, nil
		}
	}
	for i, op := range compared {
		var now int64
		if kvs := resp.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			now = kvs[0].ModRevision
		}
		if now != op.revision {
			return 0, op.conflict()
		}
	}
	return 0, dayfly.Errorf(dayfly.CodeInternal, "etcd refused a transaction whose comparisons hold")
}

// transact does a transaction, and where one that was lost can be told from one that was
// done, it tries again within the time of ctx: a member of a cluster that dies takes with it
// what it was asked, or what was passed on to it.
func (s *Store) transact(ctx context.Context, compares []clientv3.Cmp, does, looks []clientv3.Op, repeatable bool) (resp *clientv3.TxnResponse, again bool, err error) {
	repeatable = repeatable && s.server == nil
	for broken := 0; ; again = true {
		tryCtx, cancel := ctx, context.CancelFunc(func() {})
		if repeatable {
			tryCtx, cancel = context.WithTimeout(ctx, s.timeout/3)
		}
		resp, err = s.client.Txn(tryCtx).If(compares...).Then(does...).Else(looks...).Commit()
		late := tryCtx.Err() != nil
		cancel()
		if err == nil || !repeatable || ctx.Err() != nil {
			return resp, again, err
		}
		if answered, lost := lostByCluster(err); !late && !answered {
			// Nobody is there, for certain after asking each member of a usual cluster.
			if broken++; !lost || broken == 3 {
				return resp, again, err
			}
		}
		pause(ctx)
	}
}

// written gives the revision at which all that was compared has been written, together and
// as asked for; 0 = it has not been. Others may write the same record at the same time, but
// hardly all of them with the same content in one transaction.
func written(compared []Op, answers []*etcdserverpb.ResponseOp) (revision int64) {
	for i, op := range compared {
		kvs := answers[i].GetResponseRange().Kvs
		switch {
		case op.do == nil:
		case op.do.IsDelete() && len(kvs) > 0, op.do.IsPut() && len(kvs) == 0:
			return 0
		case op.do.IsPut():
			if revision == 0 {
				revision = kvs[0].ModRevision
			}
			if kvs[0].ModRevision != revision || !bytes.Equal(kvs[0].Value, op.do.ValueBytes()) {
				return 0
			}
		}
	}
	return revision
}

// describe says what kinds of records operations write.
func describe(ops []Op) string {
	var what []string
	for _, op := range ops {
		verb := ""
		switch {
		case op.do == nil:
			continue
		case op.do.IsDelete():
			verb = "delete "
		case op.compare && op.revision == 0:
			verb = "create "
		default:
			verb = "write "
		}
		if w := verb + op.kind; !slices.Contains(what, w) {
			what = append(what, w)
		}
	}
	slices.Sort(what)
	return strings.Join(what, ", ")
}
