package control

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

const (
	// hookWindow is how old, or how far ahead, a hook may be.
	hookWindow = 5 * time.Minute
	// secretPrefix begins a secret, as Standard Webhooks has it.
	secretPrefix = "whsec_"
	// hookNoise is how often a project tells of hooks that it refuses: anybody can send those.
	hookNoise = time.Minute
)

// NewHookSecret makes the secret with which hooks of a project are signed; the one before no
// longer counts. It is given once.
func (c *Control) NewHookSecret(ctx context.Context, name string) (dayfly.Secret, error) {
	p, err := c.addedProject(name)
	if err != nil {
		return dayfly.Secret{}, err
	}
	var key [24]byte
	rand.Read(key[:]) // never fails, see crypto/rand
	secret := dayfly.NewSecret(secretPrefix + base64.StdEncoding.EncodeToString(key[:]))
	id, op, err := c.seal(secret)
	if err != nil {
		return dayfly.Secret{}, err
	}
	ops := []registry.Op{op}
	if p.Hook != "" {
		ops = append(ops, registry.Delete(registry.Credentials, p.Hook))
	}
	changed := p
	changed.Hook, changed.PushURL = id, ""
	err = c.commit(ctx, append(ops, registry.Update(registry.Projects, p.Name, changed, p.Revision))...)
	if dayfly.ErrorCode(err) == dayfly.CodeConflict {
		err = dayfly.Errorf(dayfly.CodeConflict, "project %s was changed meanwhile: try again", p.Name)
	}
	return secret, err
}

// ReceiveHook looks at once at the repository that a hook names, and says what came of it in each
// project. A hook that no project of the repository has signed is refused.
func (c *Control) ReceiveHook(ctx context.Context, h dayfly.Hook) ([]dayfly.HookResult, error) {
	refused := dayfly.Errorf(dayfly.CodeUnauthorized, "no project of this repository knows the signature: `dayfly project hook NAME` makes a secret")
	if h.Repository == "" {
		return nil, dayfly.Invalid(dayfly.Problem{Field: "repository", Message: "is missing: the URL of the repository that has news"})
	}
	var results []dayfly.HookResult
	for r := range registry.All(c.cache, registry.Projects) {
		p := c.project(r)
		if !slices.ContainsFunc(reposOf(p), func(repo string) bool { return sameRepo(repo, h.Repository) }) {
			continue
		}
		if why := c.verifyHook(p, h); why != "" {
			c.tellRefused(ctx, p, "a hook was refused: "+why)
			continue
		}
		result := dayfly.HookResult{Project: p.Name, Branch: strings.TrimPrefix(h.Ref, "refs/heads/"), Result: "followed"}
		if result.Reason = c.skipHook(p, h); result.Reason == "" {
			result.Reason = c.followHook(ctx, p, h)
		}
		if result.Reason != "" {
			result.Result = "skipped"
			c.tellProject(ctx, p, dayfly.EventStep, "hook-skipped", "a hook of "+h.Ref+" was passed over: "+result.Reason)
		}
		results = append(results, result)
	}
	if len(results) == 0 {
		c.log.Warn("a hook was refused", "repository", h.Repository, "ref", h.Ref)
		return nil, refused
	}
	return results, nil
}

// verifyHook says why a hook is not from who knows the project's secret; "" = it is.
func (c *Control) verifyHook(p dayfly.Project, h dayfly.Hook) string {
	secret, err := c.token(p.Hook)
	if err != nil || secret.IsZero() {
		return "the project has no secret: `dayfly project hook " + p.Name + "` makes one"
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret.Reveal(), secretPrefix))
	if err != nil {
		return "the project's secret cannot be read: make another one"
	}
	seconds, err := strconv.ParseInt(h.Timestamp, 10, 64)
	if err != nil || h.ID == "" {
		return "it has no webhook-id or webhook-timestamp"
	}
	if age := c.now().Sub(time.Unix(seconds, 0)); age > hookWindow || age < -hookWindow {
		return fmt.Sprintf("it is of another time, by %s (clocks may differ by %s)", age.Round(time.Second), hookWindow)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", h.ID, h.Timestamp)
	mac.Write(h.Body)
	want := mac.Sum(nil)
	for signature := range strings.FieldsSeq(h.Signature) {
		version, text, _ := strings.Cut(signature, ",")
		got, err := base64.StdEncoding.DecodeString(text)
		if err == nil && version == "v1" && hmac.Equal(got, want) {
			return ""
		}
	}
	return "its signature is another one"
}

// skipHook says why nothing has to be done about a good hook; "" = something may have to.
func (c *Control) skipHook(p dayfly.Project, h dayfly.Hook) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for id, at := range c.hooks {
		if now.Sub(at) > 2*hookWindow {
			delete(c.hooks, id)
		}
	}
	key := p.ID + "/" + h.ID
	if _, seen := c.hooks[key]; seen {
		return "it was delivered already"
	}
	c.hooks[key] = now
	if h.Ref != "" && !strings.HasPrefix(h.Ref, "refs/heads/") && !strings.HasPrefix(h.Ref, "refs/tags/") {
		return "nothing follows " + h.Ref
	}
	return ""
}

// followHook looks at the repositories of a project, and says why nothing came of it.
func (c *Control) followHook(ctx context.Context, p dayfly.Project, h dayfly.Hook) string {
	heads, err := c.askAll(ctx, p)
	if err != nil && !slices.ContainsFunc(slices.Collect(maps.Keys(heads)), func(repo string) bool { return sameRepo(repo, h.Repository) }) {
		return err.Error() // another one that does not answer is another's trouble
	}
	if _, err := c.FollowProject(ctx, p.Name, heads); err != nil {
		return err.Error()
	}
	if p, err = c.addedProject(p.Name); err != nil { // its patterns may be others now
		return err.Error()
	}
	branch, isBranch := strings.CutPrefix(h.Ref, "refs/heads/")
	followed := false
	for r := range registry.EnvironmentsOf(c.cache, p.Name) {
		res, ok := registry.Lookup(c.cache, registry.Resolutions, r.Key)
		if !ok || !slices.ContainsFunc(res.Value.Services, func(rs dayfly.ResolvedService) bool { return sameRepo(rs.Repo, h.Repository) }) {
			continue
		}
		if err := c.Refresh(ctx, r.Key, heads); err != nil {
			return err.Error()
		}
		followed = followed || r.Value.Spec.Branch == branch || slices.ContainsFunc(res.Value.Services, func(rs dayfly.ResolvedService) bool { return rs.Version == branch })
	}
	switch {
	case !isBranch || followed || p.DefaultBranch == branch:
		return ""
	case heads[p.Repo].Branches[branch] == "":
		return "" // it was deleted, and so was its environment
	case !p.Branches.Match(branch):
		return "no pattern of x-dayfly.branches matches " + branch
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if last := c.told[p.ID+"/"+branch]; last.problem != "" {
		return last.problem
	}
	return "its environment was deleted and stays away until there is another commit"
}

// askAll asks the repositories of a project for their branches.
func (c *Control) askAll(ctx context.Context, p dayfly.Project) (map[string]dayfly.Heads, error) {
	heads := map[string]dayfly.Heads{}
	var mu sync.Mutex
	var all sync.WaitGroup
	var failed error
	for _, repo := range reposOf(p) {
		all.Go(func() {
			h, err := c.resolver.Heads(ctx, repo, c.tokenOf(dayfly.Secret{}, p))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			heads[repo] = h
		})
	}
	all.Wait()
	return heads, failed
}

// tellRefused makes an event of a hook that was refused, not too often.
func (c *Control) tellRefused(ctx context.Context, p dayfly.Project, message string) {
	// By kind, and not by all that it says: those who are refused choose the rest.
	kind, _, _ := strings.Cut(message, ",")
	c.mu.Lock()
	key, now := p.ID+" "+kind, c.now()
	last, said := c.hooks[key]
	if quiet := said && now.Sub(last) < hookNoise; quiet {
		c.mu.Unlock()
		return
	}
	c.hooks[key] = now
	c.mu.Unlock()
	c.tellProject(ctx, p, dayfly.EventWarning, "hook-refused", message)
}

// sameRepo says whether two URLs name one repository, however it is reached.
func sameRepo(a, b string) bool { return a != "" && plainRepo(a) == plainRepo(b) }

func plainRepo(url string) string {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		url = rest
	} else if host, path, ok := strings.Cut(url, ":"); ok && !strings.HasPrefix(url, "/") {
		url = host + "/" + path // user@host:path
	}
	if at := strings.IndexByte(url, '@'); at >= 0 && !strings.Contains(url[:at], "/") {
		url = url[at+1:]
	}
	return strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(url, "/"), "/.git"), ".git"))
}
