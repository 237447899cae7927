package app

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/proxy"
)

// Config is what the server's flags say. docs/cli.md explains each of them.
type Config struct {
	Data string

	HTTP, Internal, Listen, DNS string
	// Given says which of the addresses were given by flag (by their flags' names):
	// those must bind, a default one may move to a free port. "advertise" tells whether that
	// was given.
	Given map[string]bool

	Domain           string
	NamePattern      string
	HostPattern      string
	Headers          []string
	InternalSuffixes []string
	ReleaseHeader    string
	TrustedProxies   []netip.Prefix

	Runner     string
	Etcd       []string
	EtcdListen string
	Advertise  string
	MaxBuilds  int
	LogSize    int64 // bytes kept of each service's output
	PassEnv    []string
	Memory     int64   // bytes that an instance may use; 0 = no bound
	CPUs       float64 // cores that an instance may use; 0 = no bound
	// FirstUser to LastUser are the ids of users that services and builds run as where the
	// server is root; 0 = as the server's own user.
	FirstUser, LastUser int
	// Bytes of all builds, of all checkouts and mirrors, and of all logs; 0 = no bound.
	QuotaBuilds, QuotaCheckouts, QuotaLogs int64
	AllowLocal                             bool // local repositories although the API is not on loopback
	Poll, Drain                            time.Duration
	// BuildTimeout bounds the time of a build; 0 = any.
	BuildTimeout time.Duration
	// MaxEnvironments bounds all environments, MaxPerProject those of a project; 0 = no bound.
	MaxEnvironments, MaxPerProject int
	Limits                         proxy.Limits // of clients

	Environments string // folder of environment files; "" = none
	Mayfly       bool   // they are in Mayfly's format

	Keep, MaxKeep dayfly.Duration
	AllowForever  bool
	KeepLogs      time.Duration
	TakeDown      bool // remove every environment before the server ends

	// Holder starts the process that keeps the listening sockets open when this one is
	// killed or terminated (see package holder); nil = there is none.
	Holder []string
	// Hook is the argument with which this program is a hook of git (see source.RunHook); "" =
	// no pushes are taken.
	Hook    string
	MaxPush int64 // bytes of one push; 0 = no bound

	// Databases makes what keeps databases; nil = none are kept.
	Databases func(context.Context, DatabaseConfig) (Databases, error)
	// FirstDBPort to LastDBPort are the ports of databases.
	FirstDBPort, LastDBPort int
	DBSpares                int    // of databases, see DatabaseConfig
	Pool, DBDriver          string // see DatabaseConfig

	Version string
}

// DefaultData is where the server keeps its data when no flag says otherwise.
func DefaultData() string {
	if os.Geteuid() == 0 {
		return "/var/lib/dayfly"
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "dayfly")
	}
	return "dayfly-data"
}

// DefaultHTTP is the public address when no flag says otherwise.
func DefaultHTTP() string {
	if os.Geteuid() == 0 {
		return ":80"
	}
	return ":8080"
}

// validate finds what cannot work before anything is started.
func (c *Config) validate() error {
	problems := []dayfly.Problem{}
	bad := func(flag, message string) {
		problems = append(problems, dayfly.Problem{Field: "--" + flag, Message: message})
	}
	if err := dayfly.ValidateNamePattern(c.NamePattern); err != nil {
		bad("names", err.Error())
	}
	if err := dayfly.ValidateHostPattern(c.HostPattern); err != nil {
		bad("hosts", err.Error())
	}
	if c.Runner != "local" {
		bad("runner", "this version has the runner local only")
	}
	if c.Domain == "" || strings.ContainsAny(c.Domain, "/: ") {
		bad("domain", "is no domain name: write it without scheme and port")
	}
	if c.MaxKeep < c.Keep && !c.AllowForever {
		bad("max-keep", "is shorter than --keep")
	}
	for flag, address := range map[string]string{"http": c.HTTP, "internal": c.Internal, "listen": c.Listen, "dns": c.DNS} {
		if address == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			bad(flag, "is no address: write HOST:PORT or :PORT")
		}
	}
	if len(problems) > 0 {
		return dayfly.Invalid(problems...)
	}
	return nil
}

// names are those under which the API may be called where it is not on loopback.
func (c *Config) names() []string {
	names := []string{strings.ToLower(c.Domain)}
	for _, address := range []string{c.Listen, c.Advertise} {
		host := address
		if h, _, err := net.SplitHostPort(address); err == nil {
			host = h
		}
		host = strings.ToLower(strings.Trim(host, "[]"))
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
			continue // all addresses: each request says which of them it reached
		}
		names = append(names, host)
	}
	return names
}

// local says whether names resolve to this host alone.
func (c *Config) local() bool {
	return c.Domain == "localhost" || strings.HasSuffix(c.Domain, ".localhost")
}
