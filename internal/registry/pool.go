package registry

import (
	"encoding/json"
	"sync"

	"github.com/dayfly-dev/dayfly"
)

// pool holds parts of records that many of them have alike, so that a cache has each
// once: definitions, variables, and strings such as names and commits. Nobody changes
// what a cache gives, so nobody notices. A nil pool shares nothing.
//
// Whoever fills a pool lets go of it after a while, since it never forgets anything.
type pool struct {
	mu          sync.Mutex
	definitions map[string]*dayfly.Definition // by their JSON
	variables   map[string]map[string]string  // by their JSON
	strings     map[string]string
}

// poolLimit is how many parts the pool of a cache that follows has before a new one is
// begun. Records that are alike mostly come together.
const poolLimit = 4096

func newPool() *pool {
	return &pool{definitions: map[string]*dayfly.Definition{}, variables: map[string]map[string]string{}, strings: map[string]string{}}
}

func (p *pool) full() bool { return len(p.definitions)+len(p.variables)+len(p.strings) >= poolLimit }

// share makes each of some strings one that others have too.
func (p *pool) share(texts ...*string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range texts {
		if known, ok := p.strings[*s]; ok {
			*s = known
		} else {
			p.strings[*s] = *s
		}
	}
}

// text gives a string that others have too.
func (p *pool) text(b []byte) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, ok := p.strings[string(b)]; ok {
		return known
	}
	s := string(b)
	p.strings[s] = s
	return s
}

// definition reads a definition; none is an empty one.
func (p *pool) definition(data []byte) (*dayfly.Definition, error) {
	if p == nil {
		d := new(dayfly.Definition)
		return d, read(data, d)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.definitions[string(data)]; known != nil {
		return known, nil
	}
	d := new(dayfly.Definition)
	if err := read(data, d); err != nil {
		return nil, err
	}
	p.definitions[string(data)] = d
	return d, nil
}

// vars reads variables.
func (p *pool) vars(data []byte) (v map[string]string, err error) {
	if p == nil {
		err = read(data, &v)
		return v, err
	}
	p.mu.Lock()
	v, ok := p.variables[string(data)]
	p.mu.Unlock()
	if ok {
		return v, nil
	}
	if err := read(data, &v); err != nil {
		return nil, err
	}
	for name, value := range v {
		p.share(&name, &value)
		v[name] = value
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, ok := p.variables[string(data)]; ok { // somebody read the same meanwhile
		return known, nil
	}
	p.variables[string(data)] = v
	return v, nil
}

// read decodes JSON, and leaves what it is read into as it is where there is none.
func read(data []byte, into any) error {
	if len(data) == 0 {
		return nil
	}
	return json.Unmarshal(data, into)
}

// storedDeployment leaves what can be shared undecoded.
type storedDeployment struct {
	dayfly.Deployment
	Definition json.RawMessage `json:"definition"`
	Variables  json.RawMessage `json:"variables"`
}

func (s *storedDeployment) load(p *pool) (d dayfly.Deployment, err error) {
	d = s.Deployment
	if d.Definition, err = p.definition(s.Definition); err != nil {
		return d, err
	}
	if d.Variables, err = p.vars(s.Variables); err != nil {
		return d, err
	}
	p.share(&d.ID, &d.Key.Project, &d.Key.Service, &d.Key.Version, &d.Key.Hash, &d.Key.Owner, &d.Environment,
		&d.Runner, &d.Node, &d.Repo, &d.Commit, &d.Credential)
	return d, nil
}

// storedResolution leaves what can be shared undecoded.
type storedResolution struct {
	dayfly.Resolution
	Services []storedService `json:"services"`
}

type storedService struct {
	dayfly.ResolvedService
	Definition json.RawMessage `json:"definition"`
	Variables  json.RawMessage `json:"variables"`
}

func (s *storedResolution) load(p *pool) (r dayfly.Resolution, err error) {
	r = s.Resolution
	p.share(&r.Environment, &r.Base)
	if s.Services == nil {
		return r, nil
	}
	r.Services = make([]dayfly.ResolvedService, len(s.Services))
	for i := range s.Services {
		rs := &r.Services[i]
		*rs = s.Services[i].ResolvedService
		if rs.Definition, err = p.definition(s.Services[i].Definition); err != nil {
			return r, err
		}
		if rs.Variables, err = p.vars(s.Services[i].Variables); err != nil {
			return r, err
		}
		p.share(&rs.Name, (*string)(&rs.From), &rs.Environment, &rs.Version, &rs.Repo, &rs.Commit, &rs.Credential, &rs.Hash, &rs.Address)
		for h := range rs.Hosts {
			p.share(&rs.Hosts[h])
		}
	}
	return r, nil
}
