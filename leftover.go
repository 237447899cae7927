package dayfly

import "time"

// Leftover is something that exists on a host and that nothing there belongs to any more.
type Leftover struct {
	Kind  string    `json:"kind"`  // process | folder | logs | control group | database | template
	Name  string    `json:"name"`  // number or path
	Since time.Time `json:"since"` // when it was first noticed
}

// Finding is what `doctor` says about one thing that it looked at.
type Finding struct {
	Check   string `json:"check"`
	OK      bool   `json:"ok"`
	Message string `json:"message"`          // what was found
	Advice  string `json:"advice,omitempty"` // what to do about it
}

// Departure is something that nobody needs now, and that goes by itself.
type Departure struct {
	// Kind is environment, deployment, logs, events, build, checkout or mirror, or that of a Leftover.
	Kind    string `json:"kind"`
	Name    string `json:"name"` // of an environment, SERVICE@VERSION, a path or a number
	Project string `json:"project,omitempty"`
	Env     string `json:"env,omitempty"`
	Reason  string `json:"reason"` // why it goes
	How     string `json:"how"`    // what makes it go, or keeps it
	// Since is when it was last needed; nil = that is not known.
	Since *time.Time `json:"since,omitempty"`
	// At is when it goes; nil = not at a known time, see How.
	At      *time.Time `json:"at,omitempty"`
	Bytes   int64      `json:"bytes,omitempty"`   // on disk, where that is known
	Overdue bool       `json:"overdue,omitempty"` // it should have gone by now: something is wrong
}
