// Package runner is the contract of what keeps deployments running: local
// processes, Docker, Swarm or Kubernetes. It speaks of deployments and counts,
// never of starting one process, because cluster runners keep replicas by
// themselves, late and in their own order. Package runnertest is the suite that
// every implementation passes.
package runner

import (
	"context"
	"iter"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// Capabilities says as data what a runner can do, so that callers need not
// know which one it is.
type Capabilities struct {
	Name string
	// Node: instances belong to the node that the server runs on. False:
	// the runner is a cluster of its own, driven by one elected server.
	Node bool
	// Replicas: the runner keeps the count by itself and may start,
	// replace and move instances on its own.
	Replicas bool
	// Images: runs container images. False: runs commands in a checkout.
	Images bool
	// Drains: asks to be told when the instance it wants to stop is out of
	// rotation and idle (see Hooks.Drain) before it signals it.
	Drains bool
}

// Observation is what a runner knows of one deployment.
type Observation struct {
	DeploymentID string
	// Replicas is the count last given to Ensure; 0 after a Prepare alone.
	Replicas  int
	Phase     dayfly.DeploymentPhase
	Message   string   // what is wrong and what to do; empty when all is well
	LogTail   []string // the last lines that explain Message
	Instances []dayfly.Instance
}

// Runner keeps deployments. All methods may be called at once from several
// goroutines, for one deployment and for several; every one is idempotent, and
// after a crash in the middle of any, calling it again completes it.
type Runner interface {
	Capabilities() Capabilities

	// Prepare makes everything that an instance needs (checkout, build,
	// image) and returns when that is done, and Observe shows it neither as pending
	// nor as building. A second call for the same source and commands returns at once. A build that fails is an error of
	// dayfly.CodeFailed and is remembered: Observe shows DeploymentFailed with the
	// log's tail until Prepare or Remove is called.
	Prepare(ctx context.Context, d dayfly.Deployment) error

	// Ensure makes the runner keep n instances of a prepared deployment and
	// returns when it has taken that in, not when they are healthy. Fewer
	// than before stops the surplus gently: out of rotation, drained, stop
	// signal, grace, kill. n = 0 stops all and keeps what Prepare made. A job
	// runs once for n = 1; when it has ended, another Ensure(d, 1) does
	// nothing, and Ensure(d, 0) followed by Ensure(d, 1) runs it again.
	Ensure(ctx context.Context, d dayfly.Deployment, n int) error

	// Observe gives what the runner knows of the deployments with these ids,
	// or without ids of every one, also those that nobody wants any more, in
	// the order of their ids. Unknown ids are left out. One id costs the same
	// however many deployments there are.
	Observe(ctx context.Context, ids ...string) ([]Observation, error)

	// Changes gives the id of a deployment whenever its Observation may have
	// changed, merged when the reader is slow, until ctx ends. A new reader
	// is not told what was before: call Observe after Changes.
	Changes(ctx context.Context) iter.Seq[string]

	// Remove stops all instances of a deployment and deletes what belongs to
	// it alone, except its logs, which PruneLogs deletes. It returns when nothing of it is left; unknown ids are no error.
	Remove(ctx context.Context, deploymentID string) error

	// Logs gives what a deployment's build and instances printed, oldest
	// first. With Follow it goes on until ctx ends. Unknown ids give
	// nothing.
	Logs(ctx context.Context, deploymentID string, o LogOptions) iter.Seq2[dayfly.LogLine, error]

	// PruneLogs deletes the logs of a removed deployment.
	PruneLogs(ctx context.Context, deploymentID string) error

	// Close lets go of everything without stopping a single instance; the
	// next runner on the same host adopts them, and shows at once what was
	// healthy as healthy.
	Close() error
}

// LogOptions says which lines Logs gives.
type LogOptions struct {
	Since  time.Time // zero = all that is kept
	Tail   int       // at most so many of the old lines; 0 = all
	Follow bool
	// After goes on behind these offsets of sources, whatever Since and Tail say. A source that
	// comes before one of them and has none has been read.
	After map[string]int64
}

// Hooks is what a runner asks of the rest of the house.
type Hooks struct {
	// Drain returns when instanceID takes no new requests and has none in
	// flight any more, or when ctx ends. Nil = nobody routes to it.
	Drain func(ctx context.Context, deploymentID, instanceID string)
}
