package dayfly

// Protocol says how the proxy speaks to a service.
type Protocol string

// The protocols of a service.
const (
	ProtocolHTTP Protocol = "http" // HTTP/1.1
	ProtocolH2C  Protocol = "h2c"  // HTTP/2 in clear text, as gRPC uses it
	ProtocolTCP  Protocol = "tcp"  // bytes, passed through
)

// Condition is what a service waits for in another one before it starts, as in
// Compose's depends_on.
type Condition string

// The conditions of depends_on.
const (
	ConditionStarted   Condition = "service_started"
	ConditionHealthy   Condition = "service_healthy"
	ConditionCompleted Condition = "service_completed_successfully"
)

// Command is an argument vector. "$NAME" and "${NAME}" in an argument stand
// for a variable of the instance, "$$" for a dollar sign; a value never
// becomes more than the argument it stands in.
type Command []string

// Definition is what a project file says about one service, at one commit.
// Build fields are ignored by runners that cannot use them.
type Definition struct {
	Service string `json:"service"`

	// Dir is the folder of the project file within its tree ("." at the
	// root); commands run there.
	Dir      string    `json:"dir"`
	Build    []Command `json:"build,omitempty"`     // for the local runner, in order
	BuildEnv []string  `json:"build_env,omitempty"` // variables of the environment that builds see
	Run      Command   `json:"run,omitempty"`       // for the local runner
	Writable bool      `json:"writable,omitempty"`  // each instance gets a tree of its own to write to

	Image      string      `json:"image,omitempty"`
	ImageBuild *ImageBuild `json:"image_build,omitempty"`
	Entrypoint Command     `json:"entrypoint,omitempty"`
	Args       Command     `json:"args,omitempty"` // Compose's command

	Port     int         `json:"port,omitempty"` // the container's side of the first port; 0 = takes no connections
	Protocol Protocol    `json:"protocol,omitempty"`
	Routes   []PathRoute `json:"routes,omitempty"`
	Health   Health      `json:"health"`

	DependsOn map[string]Condition `json:"depends_on,omitempty"`
	Variables map[string]string    `json:"variables,omitempty"` // Compose's environment and env_file

	Job  bool `json:"job,omitempty"`  // runs to its end and is not started again: a test, or what others wait for to complete
	Test bool `json:"test,omitempty"` // a job that starts only when asked for
	Own  bool `json:"own,omitempty"`  // never borrowed or shared

	Paths   []string          `json:"paths,omitempty"` // what makes the service differ, relative to the tree
	Repo    string            `json:"repo,omitempty"`  // the repository the service lives in, "" = the project's
	Restart string            `json:"restart,omitempty"`
	Stop    Stop              `json:"stop"`
	Memory  int64             `json:"memory,omitempty"` // bytes that an instance may use; 0 = the server's usual
	CPUs    float64           `json:"cpus,omitempty"`   // cores that an instance may use; 0 = the server's usual
	Scale   Scale             `json:"scale"`
	Release ReleaseDefinition `json:"release"`
	Volumes []string          `json:"volumes,omitempty"` // names of named volumes
}

// ImageBuild is Compose's build section.
type ImageBuild struct {
	Context    string            `json:"context"` // relative to the tree
	Dockerfile string            `json:"dockerfile,omitempty"`
	Target     string            `json:"target,omitempty"`
	Args       map[string]string `json:"args,omitempty"`
}

// PathRoute makes a service public under a path of its environment's host.
type PathRoute struct {
	Path  string `json:"path"`            // begins with "/"
	Strip bool   `json:"strip,omitempty"` // remove the prefix before passing on
}

// Health says how an instance shows that it can be used. With neither Path nor
// Test it is: the port accepts connections, or without a port alive for 1 s.
type Health struct {
	Path        string   `json:"path,omitempty"`         // HTTP path that answers 200 to 399
	Test        Command  `json:"test,omitempty"`         // command that exits with 0
	Interval    Duration `json:"interval,omitempty"`     // between checks of a healthy instance
	Timeout     Duration `json:"timeout,omitempty"`      // of one check
	Retries     int      `json:"retries,omitempty"`      // failures in a row until unhealthy
	StartPeriod Duration `json:"start_period,omitempty"` // how long it may take to get healthy
}

// Stop says how an instance is asked to end.
type Stop struct {
	Signal string   `json:"signal,omitempty"` // SIGTERM by default
	Grace  Duration `json:"grace,omitempty"`  // until SIGKILL, 10 s by default
}

// Scale is how many instances a service has.
type Scale struct {
	Min    int      `json:"min"`
	Max    int      `json:"max,omitempty"`
	Target int      `json:"target,omitempty"` // concurrent requests per instance
	Idle   Duration `json:"idle,omitempty"`
}

// ReleaseDefinition is how a new version takes over.
type ReleaseDefinition struct {
	Strategy string   `json:"strategy,omitempty"` // direct by default
	Steps    []string `json:"steps,omitempty"`
	Pause    Duration `json:"pause,omitempty"`
	Errors   string   `json:"errors,omitempty"`
	Latency  Duration `json:"latency,omitempty"`
	Test     string   `json:"test,omitempty"`
	Choose   bool     `json:"choose,omitempty"` // requests from outside may choose by header
}
