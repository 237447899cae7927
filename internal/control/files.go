package control

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
	"github.com/dayfly-dev/dayfly/internal/spec"
)

// EnvironmentFile is a file of environments, as it was read.
type EnvironmentFile struct {
	Origin string // what people call it; unique within its source
	Specs  []dayfly.EnvironmentSpec
	Err    error // why it cannot be used; Specs are then of no meaning
}

// FilesOutcome is what came of a set of files.
type FilesOutcome struct {
	Expired  []string          // files all of whose environments have had their time
	Problems map[string]string // why a file is no environment, or not as it says, by origin
	Again    time.Duration     // when to look again although nothing changes; 0 = not at all
}

const (
	// retryFile is how long a file waits that could not become an environment.
	retryFile = time.Minute
	// filesAtOnce bounds the environments of files that are made at a time.
	filesAtOnce = 8
)

// SyncFiles makes the environments of a source, such as a folder of one server, what its files say:
// it adds, changes and ends them. A file that cannot be used is passed over: what runs of it goes
// on, and where nothing does, an environment without services says what is wrong.
func (c *Control) SyncFiles(ctx context.Context, source string, files []EnvironmentFile) (FilesOutcome, error) {
	s := &filesSync{Control: c, source: source, files: map[string]bool{}, wanted: map[string]fileEnvironment{}, broken: map[string]string{}, failed: map[string]string{},
		out: FilesOutcome{Problems: map[string]string{}}}
	for _, f := range files {
		s.files[f.Origin] = true
		s.add(f)
	}
	for _, step := range []func(context.Context) error{s.leaveExpired, s.end, s.make, s.report} {
		if err := step(ctx); err != nil {
			return s.out, err
		}
	}
	for _, f := range files {
		// A file without environments, or whose names another one has, has not had its time.
		if _, broken := s.broken[f.Origin]; !broken && len(f.Specs) > 0 && s.left[f.Origin] == 0 {
			s.out.Expired = append(s.out.Expired, f.Origin)
		}
	}
	return s.out, nil
}

// ReadFile reads a file of environments; project is that of those which name none.
func (c *Control) ReadFile(origin string, data []byte, project string) EnvironmentFile {
	f := EnvironmentFile{Origin: origin}
	f.Specs, f.Err = spec.ParseEnvironmentFiles(origin, data, spec.EnvironmentOptions{Mayfly: c.config.Mayfly})
	for i := range f.Specs {
		f.Specs[i].Project = cmp.Or(f.Specs[i].Project, project)
		if f.Err == nil && project != "" && f.Specs[i].Project != project {
			f.Err = dayfly.Invalid(dayfly.Problem{File: origin, Field: "project", Message: fmt.Sprintf("is %s: a file in the repository of %s can have environments of that only", f.Specs[i].Project, project)})
		}
	}
	return f
}

// syncProjectFiles follows the environment files on the default branch of a project.
func (c *Control) syncProjectFiles(ctx context.Context, p dayfly.Project) (FilesOutcome, error) {
	if p.Commit == "" {
		return FilesOutcome{}, nil
	}
	found, err := c.resolver.EnvironmentFiles(ctx, p.Home(), c.tokenOf(dayfly.Secret{}, p), p.Commit)
	if err != nil {
		return FilesOutcome{}, err
	}
	var files []EnvironmentFile
	for _, f := range found {
		read := EnvironmentFile{Origin: f.Name, Err: f.Err}
		if f.Err == nil {
			read = c.ReadFile(f.Name, f.Data, p.Name)
		}
		files = append(files, read)
	}
	return c.SyncFiles(ctx, "project:"+p.ID, files)
}

// filesSync is one call of SyncFiles.
type filesSync struct {
	*Control
	source string
	files  map[string]bool            // all, by origin
	wanted map[string]fileEnvironment // by name
	broken map[string]string          // why a file cannot be used at all, by origin
	left   map[string]int             // environments that have not expired, by origin

	mu     sync.Mutex
	failed map[string]string // why one could not be made, by name
	out    FilesOutcome
}

// fileEnvironment is one environment that a file asks for.
type fileEnvironment struct {
	origin string
	spec   dayfly.EnvironmentSpec
}

func (s *filesSync) add(f EnvironmentFile) {
	if f.Err != nil {
		s.broken[f.Origin] = f.Err.Error()
		return
	}
	for _, asked := range f.Specs {
		if other, taken := s.wanted[asked.Name]; taken {
			s.broken[f.Origin] = fmt.Sprintf("environment %s is in %s already", asked.Name, other.origin)
			continue
		}
		s.wanted[asked.Name] = fileEnvironment{f.Origin, onlyListed(asked)}
	}
}

// onlyListed says that there are only the services that a file lists: there is no base to be had.
func onlyListed(asked dayfly.EnvironmentSpec) dayfly.EnvironmentSpec {
	if len(asked.Services) > 0 && asked.Only == nil {
		for _, service := range asked.Services {
			asked.Only = append(asked.Only, service.Name)
		}
	}
	return asked
}

// leaveExpired leaves out what has had its time.
func (s *filesSync) leaveExpired(ctx context.Context) error {
	for t := range registry.ExpiredFrom(s.cache, s.source) {
		w, there := s.wanted[t.Value.Name]
		if there && hashSpec(w.spec) == t.Value.Hash {
			delete(s.wanted, t.Value.Name)
			continue
		}
		if _, unreadable := s.broken[t.Value.Origin]; unreadable {
			continue // whether it says something else is not known yet
		}
		if err := s.commit(ctx, registry.Delete(registry.ExpiredFiles, t.Key)); err != nil {
			return err
		}
	}
	s.left = map[string]int{}
	for _, w := range s.wanted {
		s.left[w.origin]++
	}
	return nil
}

// end ends the environments that no file has any more. A mistake in a file ends nothing.
func (s *filesSync) end(ctx context.Context) error {
	for r := range registry.EnvironmentsFrom(s.cache, s.source) {
		_, asked := s.wanted[r.Key]
		_, unreadable := s.broken[r.Value.Origin]
		if r.Value.Deleting || asked || unreadable || s.files[r.Value.Origin] && s.isPlaceholder(r.Key) {
			continue
		}
		s.tellEnvironment(ctx, r.Value, "file-gone", r.Value.Origin+" has it no longer: so it ends")
		if _, err := s.deleteRecord(ctx, r, false); err != nil && dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			return err
		}
	}
	return nil
}

// isPlaceholder says whether an environment says what is wrong with a file, and nothing else.
func (s *filesSync) isPlaceholder(name string) bool {
	_, resolved := registry.Lookup(s.cache, registry.Resolutions, name)
	return !resolved
}

// make makes and changes environments. What failed is tried once more where others have changed:
// they may have had its host.
func (s *filesSync) make(ctx context.Context) error {
	names := slices.Sorted(maps.Keys(s.wanted))
	for {
		changed := s.round(ctx, names)
		again := slices.Sorted(maps.Keys(s.failed))
		if changed == 0 || len(again) == 0 || len(again) == len(names) || ctx.Err() != nil {
			return ctx.Err()
		}
		names = again
	}
}

// round makes environments, several at a time, and says how many it has changed.
func (s *filesSync) round(ctx context.Context, names []string) (changed int) {
	slots := make(chan struct{}, filesAtOnce)
	var all sync.WaitGroup
	for _, name := range names {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			did, err := s.one(ctx, s.wanted[name])
			s.mu.Lock()
			defer s.mu.Unlock()
			if did {
				changed++
			}
			if err != nil {
				s.failed[name] = err.Error()
			} else {
				delete(s.failed, name)
			}
		})
	}
	all.Wait()
	return changed
}

// one makes or changes one environment, where it is not as its file says.
func (s *filesSync) one(ctx context.Context, w fileEnvironment) (changed bool, err error) {
	p, err := s.projectFor(ctx, dayfly.EnvironmentRequest{Spec: w.spec})
	if err != nil {
		return false, err
	}
	w.spec.Project = p.Name
	there, ok := registry.Lookup(s.cache, registry.Environments, w.spec.Name)
	if ok && there.Value.Source == s.source && !there.Value.Deleting {
		switch res, resolved := registry.Lookup(s.cache, registry.Resolutions, w.spec.Name); {
		case there.Value.Frozen:
			s.soon(10 * time.Second) // it may follow again then
			return false, nil
		case resolved && there.Value.Origin == w.origin && same(there.Value.Spec, w.spec) && there.Value.Problem == "" && res.Value.Problem == "":
			s.untilExpiry(there.Value)
			return false, nil
		}
	}
	env, _, err := s.put(ctx, wish{project: p, spec: w.spec, origin: w.origin, source: s.source, replace: true})
	if err != nil {
		return false, err
	}
	if r, err := s.record(env.Name); err == nil {
		s.untilExpiry(r.Value)
	}
	return true, nil
}

// untilExpiry asks for another look when the time of an environment is over.
func (s *filesSync) untilExpiry(rec dayfly.EnvironmentRecord) {
	if rec.ExpiresAt != nil {
		s.soon(max(time.Second, rec.ExpiresAt.Sub(s.now())+time.Second))
	}
}

// soon asks for another look after a while.
func (s *filesSync) soon(after time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out.Again == 0 || after < s.out.Again {
		s.out.Again = after
	}
}

// complaint is what is wrong with a file.
type complaint struct {
	origin, text string
	spec         dayfly.EnvironmentSpec // what the file asks for, as far as that is known
}

// report writes what is wrong with files to their environments; where there is none, to one without
// services that is made for it. What is right again is no longer reported.
func (s *filesSync) report(ctx context.Context) error {
	said := map[string]complaint{} // by name of an environment
	for _, name := range slices.Sorted(maps.Keys(s.failed)) {
		origin := s.wanted[name].origin
		said[s.nameFor(name, origin, said)] = complaint{origin, fileProblem(origin, s.failed[name]), s.wanted[name].spec}
		s.out.Problems[origin] = s.failed[name]
	}
	for _, origin := range slices.Sorted(maps.Keys(s.broken)) {
		wrong := complaint{origin: origin, text: fileProblem(origin, s.broken[origin])}
		s.out.Problems[origin] = s.broken[origin]
		found := false
		for r := range registry.EnvironmentsFrom(s.cache, s.source) {
			if r.Value.Origin == origin && !r.Value.Deleting && !s.isPlaceholder(r.Key) {
				said[r.Key], found = wrong, true
			}
		}
		if !found {
			said[s.nameFor(dayfly.Slug(strings.TrimSuffix(path.Base(origin), path.Ext(origin))), origin, said)] = wrong
		}
	}
	for r := range registry.EnvironmentsFrom(s.cache, s.source) {
		_, still := said[r.Key]
		switch {
		case still || r.Value.Deleting:
		case s.isPlaceholder(r.Key): // what it said is right again, or said elsewhere
			if _, err := s.deleteRecord(ctx, r, false); err != nil && dayfly.ErrorCode(err) != dayfly.CodeNotFound {
				return err
			}
		case r.Value.Problem != "":
			if err := s.setProblem(ctx, r.Key, ""); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(said)) {
		s.soon(retryFile)
		if err := s.tell(ctx, name, said[name]); err != nil {
			return err
		}
	}
	return nil
}

// nameFor gives the name of the environment that says what is wrong with a file: the wanted one, unless that is no
// name, or somebody else's, also when that is another file's.
func (s *filesSync) nameFor(name, origin string, said map[string]complaint) string {
	there, ok := registry.Lookup(s.cache, registry.Environments, name)
	asked, wanted := s.wanted[name]
	its := wanted && asked.origin == origin
	others := wanted && !its || ok && (there.Value.Source != s.source || there.Value.Origin != origin && !its)
	if _, taken := said[name]; !others && !taken && dayfly.ValidName(name) == nil {
		return name
	}
	return dayfly.WithSuffix(cmp.Or(dayfly.Slug(name), "file"), s.source+"/"+origin+"/"+name)
}

// fileProblem says of which file a problem is, unless it says so itself.
func fileProblem(origin, problem string) string {
	if strings.HasPrefix(problem, origin) || strings.Contains(problem, path.Base(origin)+":") {
		return problem
	}
	return origin + ": " + problem
}

// tell writes what is wrong to the environment of this name, or to one that is made for it.
func (s *filesSync) tell(ctx context.Context, name string, wrong complaint) error {
	there, ok := registry.Lookup(s.cache, registry.Environments, name)
	if ok {
		if there.Value.Source != s.source {
			return nil
		}
		return s.setProblem(ctx, name, wrong.text)
	}
	asked := wrong.spec
	asked.Name = name
	now := s.now()
	rec := dayfly.EnvironmentRecord{
		Format: dayfly.Format, ID: dayfly.NewID(), Spec: asked, Origin: wrong.origin, Source: s.source, Problem: wrong.text, CreatedAt: now, RenewedAt: now,
	}
	err := s.commit(ctx, registry.Create(registry.Environments, name, rec),
		registry.Create(registry.Releases, name, release.State{Format: dayfly.Format, Services: map[string][]release.Target{}}))
	switch {
	case err == nil:
		s.tellProblem(ctx, rec)
	case dayfly.ErrorCode(err) == dayfly.CodeConflict: // somebody was quicker: the next look will see
		return nil
	}
	return err
}

// setProblem writes what is wrong with the file of an environment; "" = nothing any more.
func (s *filesSync) setProblem(ctx context.Context, name, problem string) error {
	r, ok := registry.Lookup(s.cache, registry.Environments, name)
	if !ok || r.Value.Deleting || r.Value.Problem == problem {
		return nil
	}
	rec := r.Value
	rec.Problem = problem
	err := s.commit(ctx, registry.Update(registry.Environments, name, rec, r.Revision))
	if dayfly.ErrorCode(err) == dayfly.CodeConflict {
		s.soon(time.Second)
		return nil
	}
	if err == nil && problem != "" {
		s.tellProblem(ctx, rec)
	}
	return err
}

func (s *filesSync) tellProblem(ctx context.Context, rec dayfly.EnvironmentRecord) {
	e := dayfly.Event{Time: s.now(), Environment: rec.Spec.Name, Kind: dayfly.EventWarning, Reason: "file", Message: rec.Problem}
	if err := registry.AppendEvent(ctx, s.store, rec.ID, e); err != nil {
		s.log.Warn("an event could not be written", "environment", rec.Spec.Name, "error", err)
	}
	s.log.Warn("an environment file cannot be used as it is", "file", rec.Origin, "problem", rec.Problem)
}

// hashSpec identifies what a file says about an environment.
func hashSpec(asked dayfly.EnvironmentSpec) string {
	asked.Project = "" // filled in later where there is one only
	b, err := json.Marshal(asked)
	if err != nil {
		panic(err) // plain data
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}

// expiry notes that what a file says about an environment has had its time.
func expiry(rec dayfly.EnvironmentRecord) registry.Op {
	return registry.Put(registry.ExpiredFiles, rec.ID, registry.ExpiredFile{
		Source: rec.Source, Origin: rec.Origin, Name: rec.Spec.Name, Hash: hashSpec(rec.Spec),
	})
}

// Surroundings changes whenever files that are the same may have to be followed again: when an
// environment of the source has come or gone, and where some wait, when projects, other environments or
// branches have changed. It asks nobody.
func (c *Control) Surroundings(source string, waiting bool) string {
	h := fnv.New64a()
	for r := range registry.EnvironmentsFrom(c.cache, source) {
		fmt.Fprintln(h, r.Value.ID, r.Value.Deleting, r.Value.Frozen)
	}
	for r := range registry.ExpiredFrom(c.cache, source) {
		fmt.Fprintln(h, r.Key)
	}
	if waiting {
		fmt.Fprintln(h, c.moves.Load())
		for r := range registry.All(c.cache, registry.Projects) {
			fmt.Fprintln(h, r.Key, r.Revision)
		}
		for r := range registry.All(c.cache, registry.Environments) {
			fmt.Fprintln(h, r.Key, r.Created)
		}
	}
	return strconv.FormatUint(h.Sum64(), 16)
}
