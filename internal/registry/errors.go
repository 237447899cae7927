package registry

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/raft/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dayfly-dev/dayfly"
)

// Conflict is the cause of a dayfly.CodeConflict of Commit: the first record that
// is not as an operation demanded.
type Conflict struct {
	Kind string
	Key  string
}

func (c *Conflict) Error() string { return fmt.Sprintf("%s %q is not as expected", c.Kind, c.Key) }

// failure says what an error of etcd's client means to the caller of a request
// made with ctx, a child of the caller's with the time-out of the store.
func (s *Store) failure(ctx context.Context, err error) error {
	var ours *dayfly.Error
	code := status.Code(err)
	if etcd, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		code = etcd.Code()
	}
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Canceled
	case errors.Is(err, rpctypes.ErrTooManyOps):
		return &dayfly.Error{Code: dayfly.CodeFailed, Err: err,
			Message: "this change is too big for one transaction of etcd: start etcd with a higher --max-txn-ops"}
	case errors.Is(err, rpctypes.ErrRequestTooLarge):
		return &dayfly.Error{Code: dayfly.CodeFailed, Err: err, Message: "this change is too big for etcd: start etcd with a higher --max-request-bytes"}
	case errors.Is(err, rpctypes.ErrNoSpace):
		return &dayfly.Error{Code: dayfly.CodeUnavailable, Err: err,
			Message: "etcd has reached its space quota and takes no changes: defragment it, disarm its alarm or raise --quota-backend-bytes"}
	case code == codes.Unauthenticated || code == codes.PermissionDenied ||
		errors.Is(err, rpctypes.ErrAuthFailed) || errors.Is(err, rpctypes.ErrUserEmpty):
		return &dayfly.Error{Code: dayfly.CodeFailed, Err: err, Message: "etcd refuses these credentials: check user, password and certificates"}
	case code == codes.InvalidArgument:
		return &dayfly.Error{Code: dayfly.CodeInternal, Err: err, Message: "etcd refuses a request: " + err.Error()}
	}
	return &dayfly.Error{Code: dayfly.CodeUnavailable, Err: err,
		Message: "the state (etcd) does not answer; try again when it is back. A change that was under way may have been made"}
}

// lostByCluster says whether a request was lost on its way through the cluster, and
// whether a member has said so, which stands for a cluster that will have a leader again.
func lostByCluster(err error) (answered, lost bool) {
	if etcd, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return etcd.Code() == codes.Unavailable, etcd.Code() == codes.Unavailable
	}
	// Without a leader, etcd gives an error of raft as it is.
	answered = status.Code(err) == codes.Unknown && status.Convert(err).Message() == raft.ErrProposalDropped.Error()
	return answered, answered || status.Code(err) == codes.Unavailable
}
