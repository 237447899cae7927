package dayfly

import "time"

// EventKind says how an event is to be read.
type EventKind string

// The kinds of events.
const (
	EventStep    EventKind = "step"    // something was begun or done
	EventWarning EventKind = "warning" // something went wrong and will be tried again
	EventError   EventKind = "error"   // something went wrong and needs somebody
)

// ReasonDeleted is the reason of the last event of an environment: it is gone.
const ReasonDeleted = "deleted"

// Event is one thing that happened to an environment.
type Event struct {
	Format      int       `json:"-"`
	ID          int64     `json:"id"` // grows with time; the position to go on from
	Time        time.Time `json:"time"`
	Environment string    `json:"environment"` // name
	Service     string    `json:"service,omitempty"`
	Kind        EventKind `json:"kind"`
	Reason      string    `json:"reason"`  // a word for machines: "build-failed"
	Message     string    `json:"message"` // a sentence for people
	Cause       string    `json:"cause,omitempty"`
	Log         []string  `json:"log,omitempty"` // the last lines that explain it
}

// LogLine is one line that a service, a build or a job printed.
type LogLine struct {
	Time     time.Time `json:"time"` // zero when unknown
	Service  string    `json:"service"`
	Instance string    `json:"instance,omitempty"`
	Source   string    `json:"source"` // build | run
	Line     string    `json:"line"`
}
