package dayfly

import (
	"slices"
	"strings"
	"time"
)

// DatabasePhase is where a database stands.
type DatabasePhase string

// The phases of a database.
const (
	DatabaseStarting DatabasePhase = "starting"
	DatabaseReady    DatabasePhase = "ready" // takes connections
	DatabaseFailed   DatabasePhase = "failed"
	DatabaseDeleting DatabasePhase = "deleting"
)

// Database is what the API answers about a database.
type Database struct {
	ID          string        `json:"id"`
	Name        string        `json:"name"`
	Template    string        `json:"template"`
	Version     int           `json:"version"`        // of the template
	From        string        `json:"from,omitempty"` // name of the database that it is a copy of
	Environment string        `json:"env,omitempty"`  // that it belongs to
	Status      DatabasePhase `json:"status"`
	Message     string        `json:"message,omitempty"`
	Engine      string        `json:"engine"`
	Host        string        `json:"host"`
	Port        int           `json:"port"`
	Database    string        `json:"database"` // as a client calls it
	User        string        `json:"user"`
	Password    string        `json:"password"`
	URL         string        `json:"url"`
	CreatedAt   time.Time     `json:"created_at"`
	ExpiresAt   *time.Time    `json:"expires_at"` // null = with its environment, or never
	SizeBytes   *int64        `json:"size_bytes"` // of its files; null = not known
	OwnBytes    *int64        `json:"own_bytes"`  // on the device, that it shares with nobody; null = not known
	Revision    int64         `json:"revision"`
}

// Settled says whether a database has come to an end of its way, good or bad.
func (d Database) Settled() bool { return d.Status == DatabaseReady || d.Status == DatabaseFailed }

// DatabaseRecord is a database that is wanted, as it is stored.
type DatabaseRecord struct {
	Format      int    `json:"format"`
	ID          string `json:"id"`
	Name        string `json:"name"`
	Owner       string `json:"owner,omitempty"`       // id of an environment; "" = of whoever asked for it
	Environment string `json:"environment,omitempty"` // name of the owner
	Label       string `json:"label,omitempty"`       // what the environment's project file calls it
	Template    string `json:"template"`              // name
	Version     string `json:"version"`               // id of the template's version, also of a copy of a copy
	From        string `json:"from,omitempty"`        // id of the database that it is a copy of
	FromName    string `json:"from_name,omitempty"`   // its name
	Engine      string `json:"engine"`
	Node        string `json:"node"`
	Host        string `json:"host"`
	Port        int    `json:"port"`
	Database    string `json:"database"`
	User        string `json:"user"`
	// Password is sealed with a key that is not in the state.
	Password  []byte     `json:"password"`
	Fixtures  []byte     `json:"fixtures,omitempty"` // run once, when it is made
	Commit    string     `json:"commit,omitempty"`   // that the environment was at when it was made
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	// Resets is how often it was asked to be brought back to what it was made from.
	Resets int `json:"resets,omitempty"`
	// Replaced is set when the environment has another one in its place: it stays until no
	// deployment has its address any more.
	Replaced bool `json:"replaced,omitempty"`
	Deleting bool `json:"deleting,omitempty"` // on its way out; never unset
}

// DatabaseStatus is what its node saw of a database, but for its sizes, which change all the time.
type DatabaseStatus struct {
	Format   int           `json:"format"`
	Database string        `json:"database"` // id
	Node     string        `json:"node"`
	Phase    DatabasePhase `json:"phase"`
	Message  string        `json:"message,omitempty"`
	Resets   int           `json:"resets,omitempty"` // of the record, that have been done
	Tried    int           `json:"tried,omitempty"`  // of the record, that have been done or have failed
	Since    time.Time     `json:"since"`
}

// databaseSecret begins what stands for the password of a database of an environment wherever the
// state has it, as in the variables of services.
const databaseSecret = "dayfly-secret-of-" //nolint:gosec // it stands for a password and is none

// DatabaseSecret stands for the password of a database in variables and definitions, until they
// are handed to what runs them.
func DatabaseSecret(id string) string { return databaseSecret + id }

// HasDatabaseSecret says whether a text has what stands for a password.
func HasDatabaseSecret(s string) bool { return strings.Contains(s, databaseSecret) }

// TemplatePhase is where a template stands.
type TemplatePhase string

// The phases of a template.
const (
	TemplateLoading TemplatePhase = "loading" // there is no version of it yet
	TemplateReady   TemplatePhase = "ready"
	TemplateFailed  TemplatePhase = "failed" // its first version could not be made
)

// The kinds of sources of a template.
const (
	SourceDump  = "dump"
	SourceDir   = "dir"
	SourceURL   = "url"
	SourceEmpty = "empty"
)

// Template is what the API answers about a template.
type Template struct {
	ID            string            `json:"id"`
	Name          string            `json:"name"`
	Status        TemplatePhase     `json:"status"`
	Message       string            `json:"message,omitempty"`
	Source        string            `json:"source"`     // dump | dir | url | empty
	Version       int               `json:"version"`    // the one that new databases are copies of; 0 = none yet
	Refreshing    bool              `json:"refreshing"` // another version is being made
	Progress      *TemplateProgress `json:"progress,omitempty"`
	Engine        string            `json:"engine,omitempty"`
	EngineVersion string            `json:"engine_version,omitempty"`
	Database      string            `json:"database,omitempty"`
	Driver        string            `json:"driver,omitempty"` // how its folder is copied
	SizeBytes     *int64            `json:"size_bytes"`
	Databases     []string          `json:"databases"` // names of the databases that were made from it
	CreatedAt     time.Time         `json:"created_at"`
	RefreshedAt   *time.Time        `json:"refreshed_at"` // when Version was frozen
	Revision      int64             `json:"revision"`
}

// Settled says whether nothing of a template is being made.
func (t Template) Settled() bool { return !t.Refreshing && t.Status != TemplateLoading }

// TemplateProgress is how far a version that is being made has come.
type TemplateProgress struct {
	Step  string `json:"step"`
	Bytes int64  `json:"bytes"`
	Total int64  `json:"total"` // 0 = not known
}

// TemplateRecord is a template as it is stored.
type TemplateRecord struct {
	Format int    `json:"format"`
	ID     string `json:"id"`
	Name   string `json:"name"`
	Source string `json:"source"`
	Dir    string `json:"dir,omitempty"`
	// URL is sealed with a key that is not in the state.
	URL       []byte    `json:"url,omitempty"`
	Mask      []byte    `json:"mask,omitempty"`
	Fixtures  []byte    `json:"fixtures,omitempty"`
	Current   string    `json:"current,omitempty"` // id of the version that new databases are copies of
	Loading   string    `json:"loading,omitempty"` // id of the version that is being made
	Problem   string    `json:"problem,omitempty"` // why the last one could not be made
	Numbers   int       `json:"numbers"`           // the highest number that a version of it had
	CreatedAt time.Time `json:"created_at"`
	// Internal templates are ours: empty ones for environments that bring their own fixtures.
	Internal bool `json:"internal,omitempty"`
}

// TemplateVersion is a version of a template that is there, or is being made.
type TemplateVersion struct {
	Format        int       `json:"format"`
	ID            string    `json:"id"`
	Template      string    `json:"template"` // name
	TemplateID    string    `json:"template_id"`
	Number        int       `json:"number"`
	Node          string    `json:"node"`
	Source        string    `json:"source"`
	Frozen        bool      `json:"frozen"`
	Engine        string    `json:"engine,omitempty"`
	EngineVersion string    `json:"engine_version,omitempty"`
	Database      string    `json:"database,omitempty"`
	Driver        string    `json:"driver,omitempty"`
	Bytes         int64     `json:"bytes,omitempty"`
	CreatedAt     time.Time `json:"created_at"`
	FrozenAt      time.Time `json:"frozen_at"`
}

// DatabaseRequest asks for a database.
type DatabaseRequest struct {
	Name     string // "" = one is made
	Template string // name; "" = the only one there is
	From     string // name or id of a database to copy, instead of a template
	Keep     Duration
}

// DatabaseFilter says which databases to list.
type DatabaseFilter struct {
	Environment string // name or id; "" = all
	Template    string // name or id; "" = all
}

// TemplateRequest asks for a template.
type TemplateRequest struct {
	Name     string
	Dir      string // a data folder on the server, of a database server that was shut down
	URL      Secret // of a running server
	Mask     []byte
	Fixtures []byte
	Size     int64 // bytes of the dump that comes with it; 0 = not known
}

// EmptyTemplate is a template of ours: what environments get that begin with fixtures, or with nothing.
const EmptyTemplate = "dayfly-empty"

// MaxScript is how large a file of fixtures, or a mask, may be, in bytes: both are kept in the state.
const MaxScript = 256 << 10

// What the databases of an environment begin with.
const (
	DataSnapshot = "snapshot" // a copy of the template
	DataFixtures = "fixtures" // the project's fixtures alone
	DataNone     = "none"     // nothing
)

// DatabaseDefinition is what a project file says about a database.
type DatabaseDefinition struct {
	Name     string  `json:"name"`
	Template string  `json:"template,omitempty"` // "" = the only one there is
	Fixtures string  `json:"fixtures,omitempty"` // path in the repository
	Renew    bool    `json:"renew,omitempty"`    // a fresh one with every commit
	Migrate  Command `json:"migrate,omitempty"`  // run once for every commit
}

// ResolvedDatabase is one database of a Resolution.
type ResolvedDatabase struct {
	Name string `json:"name"`         // as the project file calls it
	ID   string `json:"id,omitempty"` // of its record; "" = it cannot be made yet
	// Waiting is why there is none yet, and Template whom it waits for.
	Waiting  string `json:"waiting,omitempty"`
	Template string `json:"template,omitempty"`
}

// VariableOf is what the address of a service or a database is called: NAME_URL.
func VariableOf(name string) string {
	return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "_URL"
}

// SortDatabases puts databases in the order of their names.
func SortDatabases(list []Database) {
	slices.SortFunc(list, func(a, b Database) int { return strings.Compare(a.Name, b.Name) })
}
