package resolve

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/spec"
)

// The bounds of what is remembered: those who come together mostly need the same.
const (
	rememberedFiles = 64 // also of those that only definitions refer to
	rememberedTexts = 1024
)

// memory is what was read of repositories: by who may read them, and by what cannot change.
type memory struct {
	mu      sync.Mutex
	files   map[place]*spec.Project
	objects map[objectsOf]map[string]string
	commits map[refOf]found
	defined map[definitionOf]dayfly.Definition // nobody changes what is in them
}

// place is a commit, as somebody sees it who may read the repository.
type place struct {
	repo   string
	token  dayfly.Secret
	commit string
}

type objectsOf struct {
	place
	paths string
}

type refOf struct {
	repo  string
	token dayfly.Secret
	ref   Ref
}

type definitionOf struct {
	file      *spec.Project
	service   string
	raw       bool
	variables string // JSON
}

type found struct{ commit, name string }

type memoryKey struct{}

// Remember gives a context with which what many environments need is read once: the same branch leads
// to the same commit and the same file each time. It is for resolving many of them one after the other
// because of one piece of news, and no longer.
func Remember(ctx context.Context) context.Context {
	return context.WithValue(ctx, memoryKey{}, &memory{
		files: map[place]*spec.Project{}, objects: map[objectsOf]map[string]string{}, commits: map[refOf]found{},
		defined: map[definitionOf]dayfly.Definition{},
	})
}

// memoryOf gives the memory of a context; nil = it has none.
func memoryOf(ctx context.Context) *memory {
	m, _ := ctx.Value(memoryKey{}).(*memory)
	return m
}

// recall gives what a key has in one of the maps of a memory, or reads it and remembers it. What cannot
// be read is tried again the next time. Without a memory everything is read.
func recall[K comparable, V any](m *memory, of func(*memory) map[K]V, key K, most int, read func() (V, error)) (V, error) {
	if m == nil {
		return read()
	}
	m.mu.Lock()
	known, ok := of(m)[key]
	m.mu.Unlock()
	if ok {
		return known, nil
	}
	v, err := read()
	if err != nil {
		return v, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(of(m)) >= most {
		clear(of(m))
	}
	of(m)[key] = v
	return v, nil
}

// raw gives the definition of a service as it is written.
func (s *session) raw(file *spec.Project, service string) (dayfly.Definition, error) {
	key := definitionOf{file: file, service: service, raw: true}
	return recall(s.memory, (*memory).definitions, key, rememberedFiles, func() (dayfly.Definition, error) { return file.Raw(service) })
}

// definition gives the definition of a service with variables.
func (s *session) definition(file *spec.Project, service string, variables map[string]string) (dayfly.Definition, error) {
	text, err := json.Marshal(variables) // in the order of their names
	if err != nil {
		return dayfly.Definition{}, err
	}
	key := definitionOf{file: file, service: service, variables: string(text)}
	return recall(s.memory, (*memory).definitions, key, rememberedFiles, func() (dayfly.Definition, error) { return file.Definition(service, variables) })
}

func (m *memory) definitions() map[definitionOf]dayfly.Definition { return m.defined }
