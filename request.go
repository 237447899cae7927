package dayfly

import "time"

// ProjectRequest asks for a project.
type ProjectRequest struct {
	Name  string
	Repo  string
	Token Secret // for Repo, where it is private
}

// EnvironmentRequest asks for an environment.
type EnvironmentRequest struct {
	Spec         EnvironmentSpec
	Repo         string // its project, made on the fly where there is none of this repository
	Token        Secret // of the user, kept while the environment follows
	WithFixtures bool
	Pin          bool // follow nothing from the start
	DryRun       bool // say what would be, and make nothing
}

// EnvironmentPatch changes an environment; nil fields stay as they are.
type EnvironmentPatch struct {
	ExtendBy *Duration // at least so long from now
	Keep     *Duration // life from the last change on
	Frozen   *bool     // follow nothing, or follow again
}

// DatabasePatch changes a database; nil fields stay as they are.
type DatabasePatch struct {
	ExtendBy *Duration // at least so long from now
}

// DeleteOptions says how an environment, or a database, is deleted.
type DeleteOptions struct {
	// Force: also when others borrow from it, or it belongs to a file, and without what a server that is
	// not there has of it.
	Force bool
}

// EnvironmentFilter says which environments to list.
type EnvironmentFilter struct {
	Project string // "" = all
	Limit   int    // at most so many; 0 = a sensible number
	After   string // name of the last one of the page before
}

// EventOptions says which events to give.
type EventOptions struct {
	After   int64 // id of the last one known
	Follow  bool
	Deleted bool // of an environment that is gone
}

// LogQuery says which lines to give.
type LogQuery struct {
	Service string // "" = all
	Since   time.Time
	Tail    int // at most so many old lines of each service; 0 = all
	Follow  bool
	Deleted bool // of an environment that is gone
	// After goes on where an earlier reader has come to. Of deployments with a place in it
	// everything behind that is given, whatever Since and Tail say.
	After LogPositions
}

// TestRun is the outcome of a test job.
type TestRun struct {
	Job       string    `json:"job"`
	Phase     string    `json:"phase"` // passed | failed
	ExitCode  *int      `json:"exit_code"`
	Message   string    `json:"message,omitempty"`
	Log       []string  `json:"log"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at"`
}

// ServiceInfo is a service over all environments.
type ServiceInfo struct {
	Name         string   `json:"name"`
	Project      string   `json:"project"`
	Environments []string `json:"environments"`
}

// InstanceInfo is an instance and whose it is.
type InstanceInfo struct {
	Instance
	Service     string `json:"service"`
	Version     string `json:"version"`
	Environment string `json:"env,omitempty"`
	Project     string `json:"project"`
	Node        string `json:"node,omitempty"`
	// Of one that registered itself.
	TTL      Duration   `json:"ttl,omitempty"`
	LastSeen *time.Time `json:"last_seen,omitempty"`
}

// Hook is a message from elsewhere that a repository has news, signed as the Standard Webhooks
// specification says.
type Hook struct {
	ID, Timestamp, Signature string // of the headers webhook-id, -timestamp and -signature
	Body                     []byte
	Repository               string // URL
	Ref                      string // such as refs/heads/main
}

// HookResult is what came of a hook in a project.
type HookResult struct {
	Project string `json:"project"`
	Branch  string `json:"branch"`
	Result  string `json:"result"` // followed | skipped
	Reason  string `json:"reason,omitempty"`
}
