package registry

import (
	"iter"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/release"
)

// The kinds of records, with what their keys are.
var (
	Projects = Kind[dayfly.Project]{name: "project", // name
		save: func(p dayfly.Project) any { return storedProject{p, p.Credential, p.Hook} },
		load: func(_ *pool, key string, data []byte) (dayfly.Project, error) {
			stored, err := decode[storedProject](key, data)
			stored.Project.Format = dayfly.Format
			stored.Project.Credential, stored.Project.Hook = stored.Credential, stored.Hook
			return stored.Project, err
		},
		indexes: map[string]func(dayfly.Project) string{
			byID: func(p dayfly.Project) string { return p.ID },
		}}
	Environments = Kind[dayfly.EnvironmentRecord]{name: "environment", // name
		share: func(p *pool, e *dayfly.EnvironmentRecord) {
			p.share(&e.ID, &e.Spec.Name, &e.Spec.Project, &e.Spec.Branch, &e.Spec.Base, &e.Spec.Data, &e.Origin, &e.Credential)
		},
		indexes: map[string]func(dayfly.EnvironmentRecord) string{
			byID:      func(e dayfly.EnvironmentRecord) string { return e.ID },
			byProject: func(e dayfly.EnvironmentRecord) string { return e.Spec.Project },
			bySource:  func(e dayfly.EnvironmentRecord) string { return e.Source },
			byExpiry:  expiryOf,
		}}
	Resolutions = Kind[dayfly.Resolution]{name: "resolution", // name of the environment
		load: func(p *pool, key string, data []byte) (dayfly.Resolution, error) {
			stored, err := decode[storedResolution](key, data)
			if err != nil {
				return dayfly.Resolution{}, err
			}
			r, err := stored.load(p)
			return r, unreadable(key, err)
		},
		indexes: map[string]func(dayfly.Resolution) string{
			byBase: func(r dayfly.Resolution) string { return r.Base },
			byMissing: func(r dayfly.Resolution) string {
				if len(r.Missing) == 0 {
					return ""
				}
				return byMissing
			},
		},
		lists: map[string]func(dayfly.Resolution) iter.Seq[string]{
			// What is shared is of one version, whose name is there anyway: a name of its own for
			// each shared deployment would have to be kept for every one that uses it.
			byShared: func(r dayfly.Resolution) iter.Seq[string] {
				return func(yield func(string) bool) {
					for i := range r.Services {
						if rs := &r.Services[i]; rs.From == dayfly.FromShared && !yield(rs.Commit) {
							return
						}
					}
				}
			},
			byRegistered: func(r dayfly.Resolution) iter.Seq[string] {
				return func(yield func(string) bool) {
					for i := range r.Services {
						if rs := &r.Services[i]; rs.From == dayfly.FromRegistered && !yield(rs.Name+"/"+rs.Version) {
							return
						}
					}
				}
			},
			byRepo: func(r dayfly.Resolution) iter.Seq[string] {
				return func(yield func(string) bool) {
					for i := range r.Services {
						if rs := &r.Services[i]; rs.Repo != "" && !yield(rs.Repo) {
							return
						}
					}
				}
			},
		}}
	Releases = Kind[release.State]{name: "release", // name of the environment
		share: func(p *pool, s *release.State) {
			for service, targets := range s.Services {
				p.share(&service)
				for i := range targets {
					p.share(&targets[i].Deployment, &targets[i].Version)
				}
				s.Services[service] = targets
			}
		},
		lists: map[string]func(release.State) iter.Seq[string]{
			byDeployment: func(s release.State) iter.Seq[string] {
				return func(yield func(string) bool) {
					for _, targets := range s.Services {
						for _, t := range targets {
							if !yield(t.Deployment) {
								return
							}
						}
					}
				}
			},
		}}
	Deployments = Kind[dayfly.Deployment]{name: "deployment", // id
		load: func(p *pool, key string, data []byte) (dayfly.Deployment, error) {
			stored, err := decode[storedDeployment](key, data)
			if err != nil {
				return dayfly.Deployment{}, err
			}
			d, err := stored.load(p)
			return d, unreadable(key, err)
		},
		indexes: map[string]func(dayfly.Deployment) string{
			byOwner:   func(d dayfly.Deployment) string { return d.Key.Owner },
			byProject: func(d dayfly.Deployment) string { return d.Key.Project },
		}}
	Observed = Kind[dayfly.DeploymentStatus]{name: "observed", // id of the deployment
		share: func(p *pool, s *dayfly.DeploymentStatus) {
			p.share(&s.Deployment, &s.Node, (*string)(&s.Phase), &s.Message)
			for i := range s.Instances {
				in := &s.Instances[i]
				p.share(&in.ID, &in.Deployment, (*string)(&in.Phase), &in.Message)
			}
		}}
	Hosts = Kind[HostClaim]{name: "host", // public host name
		share: func(p *pool, h *HostClaim) { p.share(&h.Environment, &h.Name) }}
	Addresses = Kind[AddressClaim]{name: "address", // IP address
		share: func(p *pool, a *AddressClaim) { p.share(&a.Environment, &a.Service) }}
	Nodes = Kind[Node]{name: "node"} // id
	// Credentials are sealed before they get here.
	Credentials = Kind[Credential]{name: "credential"}  // id
	Tokens      = Kind[Token]{name: "token"}            // name
	Ended       = Kind[EndedEnvironment]{name: "ended", // id of the environment
		indexes: map[string]func(EndedEnvironment) string{
			byName: func(e EndedEnvironment) string { return e.Name },
		}}
	Dismissed = Kind[DismissedBranch]{name: "dismissed", // id of the environment that it had
		indexes: map[string]func(DismissedBranch) string{
			byProject: func(d DismissedBranch) string { return d.Project },
		}}
	ExpiredFiles = Kind[ExpiredFile]{name: "expired", // id of the environment that it had
		indexes: map[string]func(ExpiredFile) string{
			bySource: func(e ExpiredFile) string { return e.Source },
		}}
	Retired = Kind[RetiredDeployment]{name: "retired", // id of the deployment
		indexes: map[string]func(RetiredDeployment) string{
			byOwner: func(d RetiredDeployment) string { return d.Environment },
		}}
	// Registrations are each under a lease of their own, see Store.Register.
	Registrations = Kind[dayfly.Registration]{name: "registration", // RegistrationKey
		share: func(p *pool, r *dayfly.Registration) {
			p.share(&r.Service, &r.Version, &r.Project, &r.Environment, &r.Host)
		},
		indexes: map[string]func(dayfly.Registration) string{
			byEnvironment: func(r dayfly.Registration) string { return registeredWith(r.Project, r.Environment) },
			byDeployment: func(r dayfly.Registration) string {
				return RegisteredID(r.Project, r.Environment, r.Service, r.Version)
			},
			byHost: func(r dayfly.Registration) string { return r.Host },
		}}
	Routes = Kind[dayfly.Route]{name: "route", // name
		indexes: map[string]func(dayfly.Route) string{
			byHost: func(r dayfly.Route) string { return r.Host },
		}}
	Databases = Kind[dayfly.DatabaseRecord]{name: "database", // name
		indexes: map[string]func(dayfly.DatabaseRecord) string{
			byID:       func(d dayfly.DatabaseRecord) string { return d.ID },
			byOwner:    func(d dayfly.DatabaseRecord) string { return d.Owner },
			byVersion:  func(d dayfly.DatabaseRecord) string { return d.Version },
			byTemplate: func(d dayfly.DatabaseRecord) string { return d.Template },
		}}
	DatabaseStatuses = Kind[dayfly.DatabaseStatus]{name: "database-status"} // id of the database
	Templates        = Kind[dayfly.TemplateRecord]{name: "template",        // name
		indexes: map[string]func(dayfly.TemplateRecord) string{
			byID: func(t dayfly.TemplateRecord) string { return t.ID },
		}}
	TemplateVersions = Kind[dayfly.TemplateVersion]{name: "template-version", // id
		indexes: map[string]func(dayfly.TemplateVersion) string{
			byTemplate: func(v dayfly.TemplateVersion) string { return v.Template },
		}}
)

// kinds are those that caches hold.
func kinds() []anyKind {
	return []anyKind{Projects, Environments, Resolutions, Releases, Deployments, Observed,
		Hosts, Addresses, Nodes, Credentials, Tokens, Ended, Retired, Dismissed, ExpiredFiles, Registrations, Routes,
		Databases, DatabaseStatuses, Templates, TemplateVersions}
}

const (
	byID          = "id"
	byName        = "name"
	byOwner       = "owner"
	byProject     = "project"
	bySource      = "source"
	byBase        = "base"
	byEnvironment = "environment"
	byDeployment  = "deployment"
	byHost        = "host"
	byShared      = "shared"
	byRepo        = "repo"
	byRegistered  = "registered"
	byMissing     = "missing"
	byExpiry      = "expiry"
	byVersion     = "version"
	byTemplate    = "template"
)

// storedProject adds what the API does not show.
type storedProject struct {
	dayfly.Project
	Credential string `json:"credential,omitempty"`
	Hook       string `json:"hook,omitempty"`
}

// HostClaim says which environment has a public host name, or which routes have it.
type HostClaim struct {
	Environment string `json:"environment,omitempty"` // id
	Name        string `json:"name,omitempty"`        // of the environment
	Routes      int    `json:"routes,omitempty"`      // how many
}

// AddressClaim says what an address stands for.
type AddressClaim struct {
	Environment string `json:"environment"` // id
	Service     string `json:"service"`
}

// Node is a server that is alive; its record goes when it is not.
type Node struct {
	ID        string    `json:"id"`
	Address   string    `json:"address"` // where others reach it
	Hostname  string    `json:"hostname"`
	StartedAt time.Time `json:"started_at"`
	Version   string    `json:"version"`
}

// Credential is a sealed secret.
type Credential struct {
	Ciphertext []byte `json:"ciphertext"`
}

// Token is what is kept of a token of the API: enough to know it again, not to tell it.
type Token struct {
	dayfly.Token
	SHA256 []byte `json:"sha256"` // of its secret
}

// EndedEnvironment is what is kept of an environment that is gone, for as long as
// its logs and events are.
type EndedEnvironment struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Project     string    `json:"project"`
	EndedAt     time.Time `json:"ended_at"`
	Deployments []string  `json:"deployments,omitempty"` // ids
}

// DismissedBranch is a branch whose environment was deleted, or has expired, while the branch
// goes on: it becomes an environment again when it has another commit.
type DismissedBranch struct {
	Project string   `json:"project"` // name
	Branch  string   `json:"branch"`
	Commits []string `json:"commits"` // where it led to then
}

// ExpiredFile is what a file said about an environment whose time was over: it becomes one again when
// it says something else.
type ExpiredFile struct {
	Source string `json:"source"`
	Origin string `json:"origin"`
	Name   string `json:"name"` // of the environment
	Hash   string `json:"hash"` // of what the file said about it
}

// RetiredDeployment is what is kept of a deployment that is gone, for as long as
// its logs are.
type RetiredDeployment struct {
	ID          string    `json:"id"`
	Environment string    `json:"environment"` // id
	Service     string    `json:"service"`
	Runner      string    `json:"runner,omitempty"`
	Node        string    `json:"node,omitempty"`
	RetiredAt   time.Time `json:"retired_at"`
}

// EnvironmentByID finds an environment by its id.
func EnvironmentByID(c *Cache, id string) (Record[dayfly.EnvironmentRecord], bool) {
	return first(selectBy(c, Environments, byID, id))
}

// EnvironmentsOf gives the environments of a project, in the order of their names.
func EnvironmentsOf(c *Cache, project string) iter.Seq[Record[dayfly.EnvironmentRecord]] {
	return selectBy(c, Environments, byProject, project)
}

// ProjectByID finds a project by its id.
func ProjectByID(c *Cache, id string) (Record[dayfly.Project], bool) {
	return first(selectBy(c, Projects, byID, id))
}

// BorrowersOf gives the resolutions of the environments that borrow from one, by its name.
func BorrowersOf(c *Cache, base string) iter.Seq[Record[dayfly.Resolution]] {
	return selectBy(c, Resolutions, byBase, base)
}

// Missing gives the resolutions in which something is missing, in the order of their names.
func Missing(c *Cache) iter.Seq[Record[dayfly.Resolution]] {
	return selectBy(c, Resolutions, byMissing, byMissing)
}

// expiryOf is what the index of environments by their end finds one by: in the order of time.
func expiryOf(e dayfly.EnvironmentRecord) string {
	if e.ExpiresAt == nil || e.Deleting {
		return ""
	}
	return e.ExpiresAt.UTC().Format("2006-01-02T15:04:05.000000000")
}

// Expiring gives the environments that end by themselves, those first that end first.
func Expiring(c *Cache) iter.Seq[Record[dayfly.EnvironmentRecord]] {
	return func(yield func(Record[dayfly.EnvironmentRecord]) bool) {
		c.view.Load().tables[Environments.name][byExpiry].Ascend(func(i item) bool {
			return yield(*i.record.(*Record[dayfly.EnvironmentRecord]))
		})
	}
}

// SharedDeployments gives those that environments of a project share, of all projects.
func SharedDeployments(c *Cache) iter.Seq[Record[dayfly.Deployment]] {
	return func(yield func(Record[dayfly.Deployment]) bool) {
		prefix := dayfly.SharedOwner("")
		c.view.Load().tables[Deployments.name][byOwner].AscendGreaterOrEqual(item{found: prefix}, func(i item) bool {
			return strings.HasPrefix(i.found, prefix) && yield(*i.record.(*Record[dayfly.Deployment]))
		})
	}
}

// ReposInUse gives the repositories that services come from, each once.
func ReposInUse(c *Cache) iter.Seq[string] { return foundBy(c, Resolutions, byRepo, "") }

// FromRepo gives the resolutions with services from a repository, in the order of their names.
func FromRepo(c *Cache, repo string) iter.Seq[Record[dayfly.Resolution]] {
	return selectBy(c, Resolutions, byRepo, repo)
}

// DeploymentsOf gives the deployments of an owner (DeploymentKey.Owner: the id of
// an environment, or "project:NAME"), in the order of their ids.
func DeploymentsOf(c *Cache, owner string) iter.Seq[Record[dayfly.Deployment]] {
	return selectBy(c, Deployments, byOwner, owner)
}

// DeploymentsOfProject gives the deployments of a project and of all its
// environments, in the order of their ids.
func DeploymentsOfProject(c *Cache, project string) iter.Seq[Record[dayfly.Deployment]] {
	return selectBy(c, Deployments, byProject, project)
}

// DismissedOf gives the dismissed branches of a project.
func DismissedOf(c *Cache, project string) iter.Seq[Record[DismissedBranch]] {
	return selectBy(c, Dismissed, byProject, project)
}

// EnvironmentsFrom gives the environments of the files of a source, in the order of their names.
func EnvironmentsFrom(c *Cache, source string) iter.Seq[Record[dayfly.EnvironmentRecord]] {
	return selectBy(c, Environments, bySource, source)
}

// ExpiredFrom gives what has expired of the files of a source.
func ExpiredFrom(c *Cache, source string) iter.Seq[Record[ExpiredFile]] {
	return selectBy(c, ExpiredFiles, bySource, source)
}

// RetiredOf gives the retired deployments of an environment, by its id.
func RetiredOf(c *Cache, environment string) iter.Seq[Record[RetiredDeployment]] {
	return selectBy(c, Retired, byOwner, environment)
}

// EndedNamed gives the environments of this name that are gone.
func EndedNamed(c *Cache, name string) iter.Seq[Record[EndedEnvironment]] {
	return selectBy(c, Ended, byName, name)
}

// DatabaseByID finds a database by its id.
func DatabaseByID(c *Cache, id string) (Record[dayfly.DatabaseRecord], bool) {
	return first(selectBy(c, Databases, byID, id))
}

// DatabasesOf gives the databases of an environment, by its id, in the order of their names.
func DatabasesOf(c *Cache, environment string) iter.Seq[Record[dayfly.DatabaseRecord]] {
	return selectBy(c, Databases, byOwner, environment)
}

// DatabasesFromVersion gives the databases that are copies of a version of a template, or copies of these.
func DatabasesFromVersion(c *Cache, version string) iter.Seq[Record[dayfly.DatabaseRecord]] {
	return selectBy(c, Databases, byVersion, version)
}

// DatabasesFromTemplate gives the databases that were made from a template, by its name.
func DatabasesFromTemplate(c *Cache, template string) iter.Seq[Record[dayfly.DatabaseRecord]] {
	return selectBy(c, Databases, byTemplate, template)
}

// TemplateByID finds a template by its id.
func TemplateByID(c *Cache, id string) (Record[dayfly.TemplateRecord], bool) {
	return first(selectBy(c, Templates, byID, id))
}

// VersionsOf gives the versions of a template, by its name.
func VersionsOf(c *Cache, template string) iter.Seq[Record[dayfly.TemplateVersion]] {
	return selectBy(c, TemplateVersions, byTemplate, template)
}

func first[T any](records iter.Seq[Record[T]]) (Record[T], bool) {
	for r := range records {
		return r, true
	}
	return Record[T]{}, false
}
