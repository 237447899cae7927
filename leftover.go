package dayfly

import "time"

// Leftover is something that exists on a host and that nothing there belongs to any more.
type Leftover struct {
	Kind  string    `json:"kind"`  // process | folder | logs | control group
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
