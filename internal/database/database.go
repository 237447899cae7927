// Package database is the contract of what keeps databases: templates that are loaded once and frozen,
// and clones of them that start at once and use no disk until they are written to. An Engine knows one
// kind of database server; package snapshot knows how a folder is copied; package keeper puts both
// together on a node. Package enginetest is the suite that every engine passes.
package database

import (
	"context"
	"io"
	"iter"
	"time"
)

// Source says where the data of a template comes from: one of its fields, or none for an empty database.
type Source struct {
	Dump io.Reader // as the engine's own dump program writes it, also compressed; read once, to its end
	Dir  string    // a data folder on this host, of a server that was shut down
	URL  string    // a running server; may hold a password
	Size int64     // of Dump, in bytes; 0 = unknown
}

// Load is a version of a template that is to be made.
type Load struct {
	ID       string // random; never used before
	Database string // what the database is called where the source does not say
	Source   Source
	Mask     []byte // run before the freeze; what it replaced is in no file afterwards
	Fixtures []byte // run after the source and before Mask
	// Progress is called now and then, from one goroutine, and must not block. May be nil.
	Progress func(Progress)
}

// Progress is how far a Load has come.
type Progress struct {
	Step  string // what is done now: "loading", "masking", "freezing"
	Bytes int64  // of the source that were taken
	Total int64  // of the source; 0 = unknown
}

// Template is a version of a template that is there and frozen.
type Template struct {
	ID       string    `json:"id"`
	Engine   string    `json:"engine"`  // "postgres"
	Version  string    `json:"version"` // of the server's program: "15"
	Database string    `json:"database"`
	Bytes    int64     `json:"bytes"` // of the files, as du --apparent-size counts them
	Driver   string    `json:"driver"`
	FrozenAt time.Time `json:"frozen_at"`
}

// Clone is a database that should be there and run.
type Clone struct {
	ID       string // chosen by Place; names its folder
	Template string // id of the version that it is a copy of; "" = of a clone
	From     string // id of the clone that it is a copy of
	User     string
	Password string
	Listen   string            // the address that its server binds to, besides one of its own host's
	Port     int               // chosen by Place
	Settings map[string]string // of the server, over those for throw-away data
	Fixtures []byte            // run once, when the clone is made
}

// Phase is where a clone stands.
type Phase string

// The phases of a clone.
const (
	PhaseStarting Phase = "starting"
	PhaseReady    Phase = "ready" // takes connections
	PhaseFailed   Phase = "failed"
)

// Status is what is known of a clone.
type Status struct {
	ID       string
	Phase    Phase
	Message  string // what is wrong and what to do
	Database string
	PID      int
	Restarts int
	Bytes    int64  // of its files
	OwnBytes *int64 // on the device, that it shares with nobody; may be a minute old; nil = cannot be told
}

// Keeper keeps the templates and clones of one node. All methods may be called at once from several
// goroutines; every one is idempotent, and after a crash in the middle of any, calling it again
// completes it.
type Keeper interface {
	// Load makes a version of a template and returns when it is frozen. When it fails nothing is left
	// of it; an error of dayfly.CodeFailed has the last lines of what the engine's programs printed.
	Load(ctx context.Context, l Load) (Template, error)
	// Templates gives what is there and frozen.
	Templates(ctx context.Context) ([]Template, error)
	// Forget deletes a version. Clones of it must be gone. Unknown ids are no error.
	Forget(ctx context.Context, templateID string) error

	// Place gives a new clone its id and its port, one in the keeper's range that nobody listens on and that is not in
	// taken: those of a spare, where there is one from which c can be had at once, else new ones. It is
	// not given to anybody else; Ensure should come soon.
	Place(ctx context.Context, c Clone, taken func(port int) bool) (id string, port int, err error)
	// Reserve says that clones like c may be asked for. It returns at once; whether there is a spare then is the keeper's
	// affair. Nobody sees one before it is placed.
	Reserve(c Clone)
	// Retire says that no new clone of a version will be asked for; those that are there live on. What was held
	// ready for one goes soon.
	Retire(templateID string)
	// Ensure makes a clone where there is none, and starts its server where it does not run. It returns
	// when it takes connections. A server that ends by itself is started again with back-off, until Remove.
	Ensure(ctx context.Context, c Clone) error
	// Reset brings a clone back to what it was made from, at the same address.
	Reset(ctx context.Context, c Clone) error
	// Remove stops a clone and deletes it. It returns when nothing of it is left; unknown ids are no error.
	Remove(ctx context.Context, cloneID string) error
	// Observe gives what is known of clones: without ids, of all, also of those that nobody wants any more.
	Observe(ctx context.Context, ids ...string) ([]Status, error)
	// Changes gives the id of a clone whenever its Status may have changed, but for its sizes.
	Changes(ctx context.Context) iter.Seq[string]
	// Close lets go of everything without stopping a single server; the next Keeper on the same folder
	// adopts them.
	Close() error
}

// Engine is one kind of database server. A folder that it is given is its own, belongs to the user that its
// programs run as, and is copied while no server runs on it, or, for a clone of a clone, right after Quiesce.
// Whatever an Engine starts outlives this process.
type Engine interface {
	Name() string
	// Versions are those of the programs that are installed, newest first, and an error that says what to
	// install where there are none.
	Versions(ctx context.Context) ([]string, error)
	// Load makes a data folder from a source and shuts its server down cleanly: nothing of what
	// Mask replaced is left in any file of dir, the write-ahead log included.
	Load(ctx context.Context, dir string, l Load) (Template, error)
	// Prepare gives a fresh copy of a data folder what makes it a clone of its own: user, password, who may
	// connect, settings. Once per copy; fixtures run here.
	// It may start the server, and leave it running for Start to find. Where Start has come first, with the same clone
	// but its password, nobody could connect so far, and the server goes on.
	Prepare(ctx context.Context, dir string, c Clone) error
	// Start starts the server of a data folder, or finds the one that runs on it, and returns when it takes connections.
	Start(ctx context.Context, dir string, c Clone) (Server, error)
	// Stop ends the server of a data folder, if one runs: cleanly, or at once.
	Stop(ctx context.Context, dir string, clean bool) error
	// Quiesce makes a data folder whose server may run fit to be copied, until release is called: the copy starts
	// as after a crash at worst.
	Quiesce(ctx context.Context, dir string, c Clone) (release func(), err error)
}

// Server is a running server of a data folder.
type Server interface {
	PID() int
	// Ended is closed when it does not run any more.
	Ended() <-chan struct{}
	// Close lets go of it without stopping it.
	Close()
}
