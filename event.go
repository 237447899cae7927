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
	// Next is where what comes after it is read, see LogQuery.After; zero when unknown.
	Next LogPosition `json:"-"`
}

// LogPosition is a place in what a deployment printed.
type LogPosition struct {
	Deployment, Source string
	Offset             int64 // in bytes
}

// LogPositions are places in what several deployments printed: offsets by deployment and
// source. What has none has not been read.
type LogPositions map[string]map[string]int64

// Pass notes that all before a place has been read.
func (p LogPositions) Pass(at LogPosition) {
	if at.Deployment == "" {
		return
	}
	if p[at.Deployment] == nil {
		p[at.Deployment] = map[string]int64{}
	}
	p[at.Deployment][at.Source] = at.Offset
}
