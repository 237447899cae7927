package dayfly

import (
	"slices"
	"time"
)

// EnvironmentSpec is what a user asked for: the asked state.
type EnvironmentSpec struct {
	Name    string `json:"name,omitempty"`
	Project string `json:"project,omitempty"`
	// Branch is followed by every service that says nothing else. "" = the
	// default branch, or none where Services pin everything.
	Branch       string        `json:"branch,omitempty"`
	Base         string        `json:"base,omitempty"` // "" = the project's baseline, "none" = none
	Prefix       string        `json:"prefix,omitempty"`
	Header       string        `json:"header,omitempty"` // the value by which a header names it; "" = Name
	Keep         Duration      `json:"keep,omitempty"`   // 0 = the default
	Data         string        `json:"data,omitempty"`   // snapshot | fixtures | none
	PublicHeader bool          `json:"public_header,omitempty"`
	Services     []ServiceSpec `json:"services,omitempty"`
	// Only names the services that this environment has; nil = all.
	Only []string `json:"only,omitempty"`
}

// ServiceSpec is what a user asked for one service.
type ServiceSpec struct {
	Name      string            `json:"name"`
	Version   string            `json:"version,omitempty"` // pinned: a git ref or an image tag
	Branch    string            `json:"branch,omitempty"`  // followed
	Repo      string            `json:"repo,omitempty"`
	URL       string            `json:"url,omitempty"` // no service of ours
	Route     string            `json:"route,omitempty"`
	Variables map[string]string `json:"variables,omitempty"`
}

// EnvironmentRecord is the asked state as it is stored.
type EnvironmentRecord struct {
	Format     int             `json:"format"`
	ID         string          `json:"id"`
	Spec       EnvironmentSpec `json:"spec"`
	Origin     string          `json:"origin,omitempty"`     // the file it belongs to; "" = made by command
	Source     string          `json:"source,omitempty"`     // of the file: what keeps it as the file says
	Problem    string          `json:"problem,omitempty"`    // why it is not as the file says
	Auto       bool            `json:"auto,omitempty"`       // made because its branch is there, and ends with it
	Pushed     bool            `json:"pushed,omitempty"`     // its branch is one that was pushed to this server
	Frozen     bool            `json:"frozen,omitempty"`     // follows nothing for now
	Credential string          `json:"credential,omitempty"` // id of a stored credential
	CreatedAt  time.Time       `json:"created_at"`
	RenewedAt  time.Time       `json:"renewed_at"`         // the last change; life counts from here
	ExpiresAt  *time.Time      `json:"expires_at"`         // null = never
	Deleting   bool            `json:"deleting,omitempty"` // on its way out; never unset
}

// From says who provides a service of an environment.
type From string

// The ways to have a service.
const (
	FromOwn        From = "own"
	FromShared     From = "shared"
	FromBorrowed   From = "borrowed"
	FromExternal   From = "external"
	FromRegistered From = "registered"
)

// Resolution is the resolved state of an environment: commits, definitions and
// who provides each service. It is kept, so that healing and deleting need no
// git.
type Resolution struct {
	Format      int    `json:"format"`
	Environment string `json:"environment"` // id
	Asked       int64  `json:"asked"`       // revision of the EnvironmentRecord it was made from
	Base        string `json:"base,omitempty"`
	// Address is 127.x.y.z: where the environment's path routes are reached from
	// inside, without any DNS.
	Address  string            `json:"address,omitempty"`
	Services []ResolvedService `json:"services"`
	// Databases are those of the environment itself.
	Databases []ResolvedDatabase `json:"databases,omitempty"`
	// Missing are needs that nobody can meet yet; they are looked for again and again.
	Missing []Need `json:"missing,omitempty"`
	// Hosts are those of the environment itself, where none of its services has them.
	Hosts []string `json:"hosts,omitempty"`
	// Problem is why the last attempt to resolve failed; Services are then
	// those of the attempt before.
	Problem    string    `json:"problem,omitempty"`
	ResolvedAt time.Time `json:"resolved_at"`
}

// ResolvedService is one service of a Resolution.
type ResolvedService struct {
	Name        string `json:"name"`
	From        From   `json:"from"`
	Environment string `json:"environment,omitempty"` // the lender of a borrowed service
	Reason      string `json:"reason,omitempty"`      // why it is provided so
	// Replaces is what provided the service before and goes on until this one is ready.
	Replaces   From              `json:"replaces,omitempty"`
	Version    string            `json:"version"` // as asked: branch, tag or commit
	Repo       string            `json:"repo,omitempty"`
	Commit     string            `json:"commit,omitempty"`
	Credential string            `json:"credential,omitempty"` // id of the stored credential that Repo may see
	Definition *Definition       `json:"definition"`           // interpolated; never changed, and shared by those that have the same
	Hash       string            `json:"hash"`                 // of definition and variables
	Variables  map[string]string `json:"variables,omitempty"`
	Address    string            `json:"address,omitempty"` // 127.x.y.z: where SERVICE_URL leads to
	Hosts      []string          `json:"hosts,omitempty"`   // public hosts, without port
	URL        string            `json:"url,omitempty"`     // of an external service
	// Databases are the names of those that it starts after.
	Databases []string `json:"databases,omitempty"`
}

// Phase is where an environment or one of its services stands.
type Phase string

// The phases of an environment.
const (
	PhasePending  Phase = "pending"
	PhaseBuilding Phase = "building"
	PhaseStarting Phase = "starting"
	PhaseReady    Phase = "ready"
	PhaseDegraded Phase = "degraded" // serves, but not all of it, or not the newest version
	PhaseFailed   Phase = "failed"
	PhaseAsleep   Phase = "asleep"
	PhaseDeleting Phase = "deleting"
)

// Environment is what the API answers about an environment.
type Environment struct {
	ID        string               `json:"id"`
	Name      string               `json:"name"`
	Project   string               `json:"project"`
	Branch    string               `json:"branch,omitempty"`
	Base      string               `json:"base,omitempty"`
	Phase     Phase                `json:"phase"`
	Message   string               `json:"message,omitempty"`
	URL       string               `json:"url,omitempty"`
	URLs      map[string]string    `json:"urls"`
	Frozen    bool                 `json:"frozen,omitempty"` // follows nothing for now
	Pushed    bool                 `json:"pushed,omitempty"` // its branch is one that was pushed to this server
	Origin    string               `json:"origin,omitempty"` // the file it belongs to
	CreatedAt time.Time            `json:"created_at"`
	ExpiresAt *time.Time           `json:"expires_at"`          // null = never
	LastSeen  *time.Time           `json:"last_seen,omitempty"` // of one that nobody created: it lasts as long as what is registered with it
	Revision  int64                `json:"revision"`
	Services  []EnvironmentService `json:"services"`
	Databases []string             `json:"databases"`
	Missing   []Missing            `json:"missing"`
}

// Settled says whether an environment has come to an end of its way, good or bad, or waits for nothing
// but what is missing.
func (e Environment) Settled() bool {
	switch e.Phase {
	case PhaseReady, PhaseFailed, PhaseDegraded, PhaseAsleep:
		return true
	case PhaseDeleting:
		return false
	}
	for _, s := range e.Services {
		waits := s.WaitsFor != "" && slices.ContainsFunc(e.Missing, func(m Missing) bool { return m.Service == s.WaitsFor })
		if s.Phase != PhaseReady && s.Phase != PhaseAsleep && !waits {
			return false
		}
	}
	return len(e.Missing) > 0
}

// EnvironmentService is one service of an Environment.
type EnvironmentService struct {
	Name      string `json:"name"`
	Version   string `json:"version"` // as asked
	Commit    string `json:"commit,omitempty"`
	From      From   `json:"from"`
	Env       string `json:"env"`              // who has it
	Reason    string `json:"reason,omitempty"` // why it is provided so
	Phase     Phase  `json:"phase"`
	Message   string `json:"message,omitempty"`
	Instances int    `json:"instances"` // healthy ones
	URL       string `json:"url,omitempty"`
	WaitsFor  string `json:"waits_for,omitempty"` // the database without which it is not started
}

// Missing is a need of an environment that is not met.
type Missing struct {
	Service string    `json:"service"`
	Version string    `json:"version"`
	Have    string    `json:"have,omitempty"`
	Doing   string    `json:"doing,omitempty"`
	Since   time.Time `json:"since"`
}

// Need is a Missing as it is stored.
type Need struct {
	Missing
	Routes []PathRoute `json:"routes,omitempty"` // the paths at which the service would be met
}
