package dayfly

import (
	"strings"
	"time"
)

// Project is a set of services that belong together, described by one Compose
// file in a git repository.
type Project struct {
	Format   int      `json:"-"`
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Repo     string   `json:"repo"` // without credentials; "" = it lives on this server alone, by pushes
	Baseline string   `json:"baseline,omitempty"`
	Keep     Duration `json:"keep,omitempty"` // default life of its environments; 0 = the server's

	// What the project file on the default branch says, as of Commit.
	DefaultBranch string         `json:"default_branch,omitempty"`
	Branches      BranchPatterns `json:"branches,omitempty"` // those that become environments by themselves
	Repos         []string       `json:"repos,omitempty"`    // further repositories, of its services
	Commit        string         `json:"commit,omitempty"`   // of the default branch
	Problem       string         `json:"problem,omitempty"`  // why that could not be read
	PushURL       string         `json:"push_url,omitempty"` // where `git push` takes its branches; set when it is shown

	// Registered is how many instances are registered for a project that nobody has added: it lasts as
	// long as they do. 0 = somebody has added it.
	Registered int `json:"registered,omitempty"`

	// Credential is the id of the stored credential for Repo.
	Credential string `json:"-"`
	// Hook is the id of the stored secret with which hooks are signed.
	Hook      string    `json:"-"`
	CreatedAt time.Time `json:"created_at"`
	Revision  int64     `json:"revision"`
}

// hostedScheme begins the name of a repository on this server that takes pushes.
const hostedScheme = "dayfly://"

// Hosted is what stands in the state for the repository on this server that takes pushes of the
// project's branches. It is no URL that anybody can ask for.
func (p Project) Hosted() string { return hostedScheme + p.ID + "/" + p.Name }

// ParseHosted reads what Hosted gave.
func ParseHosted(repo string) (projectID, name string, ok bool) {
	rest, ok := strings.CutPrefix(repo, hostedScheme)
	projectID, name, both := strings.Cut(rest, "/")
	return projectID, name, ok && both && projectID != "" && !strings.ContainsAny(projectID, "/.")
}

// Home is the repository that has the project file: the one it was added with, or the hosted one.
func (p Project) Home() string {
	if p.Repo == "" {
		return p.Hosted()
	}
	return p.Repo
}
