package dayfly

import "time"

// Project is a set of services that belong together, described by one Compose
// file in a git repository.
type Project struct {
	Format   int      `json:"-"`
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Repo     string   `json:"repo"` // without credentials
	Baseline string   `json:"baseline,omitempty"`
	Keep     Duration `json:"keep,omitempty"` // default life of its environments; 0 = the server's
	// Credential is the id of the stored credential for Repo.
	Credential string    `json:"-"`
	CreatedAt  time.Time `json:"created_at"`
	Revision   int64     `json:"revision"`
}
