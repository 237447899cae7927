package dayfly

import (
	"crypto/sha256"
	"encoding/base32"
	"maps"
	"strings"
	"time"
)

// DeploymentKey says which deployment one is: two wishes with equal keys are
// served by the same deployment.
type DeploymentKey struct {
	Project string `json:"project"`
	Service string `json:"service"`
	Version string `json:"version"` // commit, tag or image
	Hash    string `json:"hash"`    // of definition and variables
	Owner   string `json:"owner"`   // id of an environment, or "project:NAME" when shared
}

// Deployment is one service version with one set of variables, kept at
// Replicas instances by one runner. It is what is started, scaled, drained and
// stopped.
type Deployment struct {
	Format      int           `json:"format"`
	ID          string        `json:"id"`
	Key         DeploymentKey `json:"key"`
	Environment string        `json:"environment,omitempty"` // name of the owner, for people
	Runner      string        `json:"runner"`
	Node        string        `json:"node,omitempty"` // whose it is; "" = a cluster runner's

	Repo       string            `json:"repo,omitempty"` // without credentials
	Commit     string            `json:"commit,omitempty"`
	Credential string            `json:"credential,omitempty"` // id of a stored credential
	Definition *Definition       `json:"definition"`           // never changed, and shared by those that have the same
	Variables  map[string]string `json:"variables"`            // all but PORT and DAYFLY_DIR, which belong to an instance

	// Replicas is how many instances should run; 0 keeps the build and
	// stops all instances.
	Replicas  int       `json:"replicas"`
	CreatedAt time.Time `json:"created_at"`

	// TestRun is the id of the test run that this deployment is; "" = part of
	// its environment.
	TestRun string `json:"test_run,omitempty"`
	// Retiring is set once, when nobody wants the deployment any more.
	Retiring *Retirement `json:"retiring,omitempty"`
}

// SharedOwner is the owner of the deployments that environments of a project share.
func SharedOwner(project string) string { return "project:" + project }

// Shared says whether the deployment belongs to a project, and its environments share it.
func (d Deployment) Shared() bool { return strings.HasPrefix(d.Key.Owner, SharedOwner("")) }

// KeyOf says which deployment a service of an environment is: its own, or one that is shared.
func KeyOf(rec EnvironmentRecord, rs ResolvedService) DeploymentKey {
	key := DeploymentKey{Project: rec.Spec.Project, Service: rs.Name, Version: rs.Commit, Hash: rs.Hash, Owner: rec.ID}
	if rs.From == FromShared {
		key.Owner = SharedOwner(rec.Spec.Project)
	}
	return key
}

// ID is that of a shared deployment: whoever needs one first makes the same.
func (k DeploymentKey) ID() string {
	sum := sha256.Sum256([]byte(strings.Join([]string{k.Owner, k.Project, k.Service, k.Version, k.Hash}, "\x00")))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:10]))
}

// NewDeployment makes the deployment of a service that an environment has of its
// own, or shares.
func NewDeployment(rec EnvironmentRecord, rs ResolvedService, runner, node string, now time.Time) Deployment {
	vars := make(map[string]string, len(rs.Variables))
	maps.Copy(vars, rs.Variables)
	key, id, name := KeyOf(rec, rs), NewID(), rec.Spec.Name
	if rs.From == FromShared {
		id, name = key.ID(), ""
	}
	return Deployment{
		Format: Format, ID: id, Key: key, Environment: name, Runner: runner, Node: node,
		Repo: rs.Repo, Commit: rs.Commit, Credential: rs.Credential,
		Definition: rs.Definition, Variables: vars, CreatedAt: now,
	}
}

// Retirement is how a deployment goes away.
type Retirement struct {
	Since time.Time `json:"since"`
	// Drain is how long its requests and connections may take to end by
	// themselves before they are cut.
	Drain Duration `json:"drain"`
}

// DeploymentPhase is where a deployment stands.
type DeploymentPhase string

// The phases of a deployment.
const (
	DeploymentPending   DeploymentPhase = "pending"
	DeploymentBuilding  DeploymentPhase = "building"
	DeploymentPrepared  DeploymentPhase = "prepared" // built; no instance wanted yet
	DeploymentStarting  DeploymentPhase = "starting"
	DeploymentReady     DeploymentPhase = "ready"     // as many healthy instances as wanted
	DeploymentDegraded  DeploymentPhase = "degraded"  // some healthy, but fewer than wanted
	DeploymentFailed    DeploymentPhase = "failed"    // see Message; tried again with back-off unless it is a build or a job
	DeploymentCompleted DeploymentPhase = "completed" // a job that ended with 0
)

// DeploymentStatus is what its runner's node saw of a deployment.
type DeploymentStatus struct {
	Format     int             `json:"format"`
	Deployment string          `json:"deployment"` // id
	Node       string          `json:"node"`
	Phase      DeploymentPhase `json:"phase"`
	Message    string          `json:"message,omitempty"` // what is wrong and what to do
	LogTail    []string        `json:"log_tail,omitempty"`
	Since      time.Time       `json:"since"`
	Instances  []Instance      `json:"instances,omitempty"`
}

// InstancePhase is where an instance stands.
type InstancePhase string

// The phases of an instance.
const (
	InstanceStarting  InstancePhase = "starting"
	InstanceHealthy   InstancePhase = "healthy"
	InstanceUnhealthy InstancePhase = "unhealthy" // runs, but fails its checks
	InstanceStopping  InstancePhase = "stopping"  // out of rotation
	InstanceExited    InstancePhase = "exited"
)

// Instance is one running copy of a deployment.
type Instance struct {
	ID         string        `json:"id"`
	Deployment string        `json:"deployment"`
	Address    string        `json:"address,omitempty"` // host:port; "" = takes no connections
	Phase      InstancePhase `json:"phase"`
	PID        int           `json:"pid,omitempty"`
	StartedAt  time.Time     `json:"started_at"`
	Restarts   int           `json:"restarts,omitempty"`
	ExitCode   *int          `json:"exit_code,omitempty"` // set when exited and known; 128+n for signal n
	Message    string        `json:"message,omitempty"`   // why it is not healthy
}
