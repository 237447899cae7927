package dayfly

import "time"

// Registration is an instance that registered itself, as it is stored. It lasts for as long as its
// lease does.
type Registration struct {
	Service     string    `json:"service"`
	ID          string    `json:"id"` // chosen by who registers, unique within the service
	Version     string    `json:"version"`
	Address     string    `json:"address"` // host:port
	Project     string    `json:"project"`
	Environment string    `json:"env,omitempty"`  // "" = of no environment: the project's pool of the version
	Host        string    `json:"host,omitempty"` // public host, without port, where the environment has none for the service
	TTL         Duration  `json:"ttl"`
	CreatedAt   time.Time `json:"created_at"`
	// Lease is the one that the record lives under, another one after each change.
	Lease int64 `json:"lease"`
}

// RegistrationRequest asks for a registration, or renews it.
type RegistrationRequest struct {
	Service     string
	ID          string
	Version     string
	Address     string // host:port; :port is the sender's
	Sender      string // IP address that the request came from; "" = unknown
	Environment string // "" = of none
	Project     string // "" = the environment's, or the only one
	TTL         Duration
}

// Route leads from a host and a path to a URL that is no service of ours.
type Route struct {
	Name      string    `json:"name"`
	Host      string    `json:"host"`            // without port, lower case
	Path      string    `json:"path"`            // begins with "/"
	To        string    `json:"to"`              // http or https
	Strip     bool      `json:"strip,omitempty"` // remove Path before passing on
	CreatedAt time.Time `json:"created_at"`
	Revision  int64     `json:"revision,omitempty"`
}
