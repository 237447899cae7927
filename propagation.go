package dayfly

import "time"

// CallCounts is what a server has counted of the requests that it passed on.
type CallCounts struct {
	Since  time.Time // when counting began; what was forgotten for want of room is older
	Served []ServedCount
	Calls  []CallCount
}

// ServedCount says how often a service was called for an environment, from outside and inside.
type ServedCount struct {
	EnvironmentID string
	Service       string
	Requests      uint64
}

// CallCount says how often a service was called from inside, and what the calls carried.
type CallCount struct {
	EnvironmentID string // whom they were for; "" = it cannot be told
	Project       string
	From          []string // the services one of which called; nil = not known
	To            string
	Went          string // name of the environment whose service answered
	Carried
}

// Carried counts calls by what told the environment that they are for: the first of these.
type Carried struct {
	Header   uint64 `json:"header"` // X-Dayfly-Env, or another name that the server was given
	Baggage  uint64 `json:"baggage"`
	Host     uint64 `json:"host"`     // SERVICE.ENV.internal
	Trace    uint64 `json:"trace"`    // nothing but a traceparent that is remembered
	Source   uint64 `json:"source"`   // nothing, and the caller's address is known
	Address  uint64 `json:"address"`  // nothing, and the address is that of an environment's SERVICE_URL
	Baseline uint64 `json:"baseline"` // nothing at all
}

// Total is the number of calls.
func (c Carried) Total() uint64 {
	return c.Header + c.Baggage + c.Host + c.Trace + c.Source + c.Address + c.Baseline
}

// Nothing is the number of calls that carried nothing, and whose caller is not known by its address.
func (c Carried) Nothing() uint64 { return c.Address + c.Baseline }

// Propagation says which services hand on for which environment a request is.
type Propagation struct {
	Environment string    `json:"env"`
	Project     string    `json:"project"`
	Server      string    `json:"server"` // whose counters these are
	Since       time.Time `json:"since"`  // when it began to count
	Called      []Called  `json:"called"`
	Calls       []Calls   `json:"calls"`
	// Unattributed are calls in the project that carried nothing while requests for several
	// environments were being answered.
	Unattributed []Calls   `json:"unattributed"`
	Dropped      []Dropped `json:"dropped"`
	Unseen       []string  `json:"unseen"` // what these numbers do not tell
}

// Asked says how often the only one of some services was called for the environment; 0 = there are several.
func (p Propagation) Asked(services []string) uint64 {
	if len(services) != 1 {
		return 0
	}
	for _, c := range p.Called {
		if c.Service == services[0] {
			return c.Requests
		}
	}
	return 0
}

// Called says how often a service was called for an environment.
type Called struct {
	Service  string `json:"service"`
	From     From   `json:"from,omitempty"` // see EnvironmentService
	Env      string `json:"env,omitempty"`  // who has it
	Requests uint64 `json:"requests"`
}

// Calls counts the calls of one service to another one.
type Calls struct {
	From  []string `json:"from"` // who called: one of these; empty = it cannot be seen
	To    string   `json:"to"`
	Env   string   `json:"env"` // who answered
	Total uint64   `json:"total"`
	Carried
}

// Dropped is a service that does not hand on for whom a request is.
type Dropped struct {
	From  []string `json:"from"` // one of these
	To    string   `json:"to"`
	Calls uint64   `json:"calls"`
	Env   string   `json:"env"` // where the calls went
	// Lost: they went to another environment. Perhaps: some of them may have, since several environments
	// were asking. Neither: they arrived by their trace alone.
	Lost    bool   `json:"lost"`
	Perhaps bool   `json:"perhaps,omitempty"`
	Message string `json:"message"`
	Advice  string `json:"advice"`
}
