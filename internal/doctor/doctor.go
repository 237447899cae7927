//go:build linux

// Package doctor looks at a host for everything that keeps dayfly from working well, and
// says what to do about it. It changes nothing.
package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dayfly-dev/dayfly"
)

// Host is what is looked at.
type Host struct {
	Data      string            // the data folder
	Domain    string            // what public hosts end with
	Addresses map[string]string // by flag
	DNS       string            // where this server answers names; "" = nowhere
	Users     bool              // services run as users of their own
	// Environments is the folder of environment files that the server follows, "" = none, and
	// EnvironmentsProblem why it does not do so now, "" = it does.
	Environments, EnvironmentsProblem string
	// Ready says what is wrong with the state; nil = the server does not run.
	Ready func(context.Context) error
	// Leftovers gives what belongs to nothing; nil = the server does not run.
	Leftovers func() []dayfly.Leftover
}

// Bounds below which the host is said to be short of something.
const (
	leastSpace  = 1 << 30 // bytes
	leastInodes = 10_000
	leastFiles  = 4096 // open at a time
	leastGit    = "2.31"
	clockSlack  = 2 * time.Minute
)

// Examine makes every check; those that found nothing wrong are OK.
func Examine(ctx context.Context, h Host) []dayfly.Finding {
	var all []dayfly.Finding
	for _, check := range []func(context.Context, Host) []dayfly.Finding{
		state, git, folder, parents, space, files, clock, environments, domain, ports, leftovers,
	} {
		all = append(all, check(ctx, h)...)
	}
	return all
}

// Healthy says whether nothing is wrong.
func Healthy(findings []dayfly.Finding) bool {
	for _, f := range findings {
		if !f.OK {
			return false
		}
	}
	return true
}

func fine(check, format string, args ...any) []dayfly.Finding {
	return []dayfly.Finding{{Check: check, OK: true, Message: fmt.Sprintf(format, args...)}}
}

func bad(check, advice, format string, args ...any) []dayfly.Finding {
	return []dayfly.Finding{{Check: check, Message: fmt.Sprintf(format, args...), Advice: advice}}
}

func state(ctx context.Context, h Host) []dayfly.Finding {
	if h.Ready == nil {
		return nil
	}
	if err := h.Ready(ctx); err != nil {
		return bad("state", "look whether etcd runs and can be reached; traffic goes on as last known until then", "%v", err)
	}
	return fine("state", "can be read and written")
}

func git(ctx context.Context, _ Host) []dayfly.Finding {
	const install = "install git 2.31 or newer, for example with the system's package manager"
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "git", "--version") //nolint:forbidigo // nothing from outside
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return bad("git", install, "it cannot be run: %v", err)
	}
	version := strings.TrimPrefix(strings.TrimSpace(out.String()), "git version ")
	if older(version, leastGit) {
		return bad("git", install, "version %s is too old", version)
	}
	return fine("git", "version %s", version)
}

// older compares the first two numbers of versions.
func older(version, than string) bool {
	var a, b [2]int
	_, _ = fmt.Sscanf(version, "%d.%d", &a[0], &a[1])
	_, _ = fmt.Sscanf(than, "%d.%d", &b[0], &b[1])
	return a[0] < b[0] || a[0] == b[0] && a[1] < b[1]
}

func folder(_ context.Context, h Host) []dayfly.Finding {
	f, err := os.CreateTemp(h.Data, ".doctor-*")
	if errors.Is(err, os.ErrNotExist) && h.Ready == nil {
		return fine("data folder", "%s will be made", h.Data)
	}
	if err == nil {
		_, err = f.WriteString("x")
		err = errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		return bad("data folder", "make it writable for the server's user, or choose another one with --data", "%v", err)
	}
	return fine("data folder", "%s can be written to", h.Data)
}

// parents finds folders above the data folder that other users cannot enter: what runs as
// another user than the server's could not reach its files.
func parents(_ context.Context, h Host) []dayfly.Finding {
	if !h.Users {
		return nil
	}
	path, err := filepath.Abs(h.Data)
	for ; err == nil; path = filepath.Dir(path) {
		info, statErr := os.Stat(path)
		switch {
		case errors.Is(statErr, os.ErrNotExist):
		case statErr != nil:
			err = statErr
		case info.Mode().Perm()&0o001 == 0:
			return bad("parent folders", "run chmod o+x "+path+", or choose another folder with --data", "others cannot enter %s: services that run as users of their own could not reach their files", path)
		}
		if path == "/" {
			break
		}
	}
	if err != nil {
		return bad("parent folders", "choose another folder with --data", "%v", err)
	}
	return fine("parent folders", "everybody can enter them")
}

func space(_ context.Context, h Host) []dayfly.Finding {
	path := h.Data
	var s unix.Statfs_t
	err := unix.Statfs(path, &s)
	for errors.Is(err, unix.ENOENT) && path != "/" {
		path = filepath.Dir(path)
		err = unix.Statfs(path, &s)
	}
	if err != nil {
		return bad("disk", "choose another folder with --data", "%s: %v", path, err)
	}
	free := s.Bavail * uint64(s.Bsize) //nolint:gosec // never negative
	switch {
	case free < leastSpace:
		return bad("disk", "make room, lower --quota-builds, --quota-checkouts and --quota-logs, or choose another folder with --data", "only %d MiB are free in %s", free>>20, path)
	case s.Files > 0 && s.Ffree < leastInodes:
		return bad("disk", "make room: many small files are there", "only %d more files can be made in %s", s.Ffree, path)
	}
	return fine("disk", "%d GiB are free", free>>30)
}

func files(context.Context, Host) []dayfly.Finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return bad("open files", "", "%v", err)
	}
	if limit.Cur < leastFiles {
		return bad("open files", "raise the limit: ulimit -n 65536, or LimitNOFILE= of the service", "only %d files may be open at a time, and each connection is one", limit.Cur)
	}
	return fine("open files", "%d at a time", limit.Cur)
}

// clock looks for files of ours from times to come: the clock was set back since.
func clock(_ context.Context, h Host) []dayfly.Finding {
	now := time.Now()
	entries, err := os.ReadDir(h.Data)
	if err != nil {
		return nil // see folder
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().After(now.Add(clockSlack)) {
			return bad("clock", "set the clock, and let something keep it right (chrony, systemd-timesyncd)",
				"%s was changed at %s, and now it is only %s: the clock was set back, so environments live longer than they should", e.Name(), info.ModTime().Format(time.RFC3339), now.Format(time.RFC3339))
		}
	}
	return fine("clock", "%s", now.Format(time.RFC3339))
}

func environments(_ context.Context, h Host) []dayfly.Finding {
	const check = "environment files"
	switch {
	case h.Environments == "":
		return nil
	case h.EnvironmentsProblem != "":
		return bad(check, "bring the folder back, for example by mounting it; if it is meant to be without files, put any environment file there and remove it 10 s later",
			"%s is not followed, and its environments stay as they are: %s", h.Environments, h.EnvironmentsProblem)
	}
	return fine(check, "%s is followed", h.Environments)
}

func domain(ctx context.Context, h Host) []dayfly.Finding {
	if h.Domain == "localhost" {
		return fine("DNS", "browsers find *.localhost by themselves")
	}
	name := dayfly.NewID() + "." + h.Domain
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	advice := "make a wildcard record *." + h.Domain + " that leads to this host"
	if h.DNS != "" {
		own := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, h.DNS)
		}}
		if _, err := own.LookupHost(ctx, name+"."); err != nil {
			return bad("DNS", "look whether a firewall is in between", "this server does not answer at %s: %v", h.DNS, err)
		}
		advice = "have the system's resolver ask " + h.DNS + ", where this server answers, for " + h.Domain + " (and for internal), or " + advice
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return bad("DNS", advice, "a host such as %s is not found: %v", name, err)
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return bad("DNS", "", "%v", err)
	}
	for _, a := range addresses {
		for _, o := range own {
			if n, ok := o.(*net.IPNet); ok && n.IP.Equal(net.ParseIP(a)) {
				return fine("DNS", "*.%s leads to %s", h.Domain, a)
			}
		}
	}
	return []dayfly.Finding{{Check: "DNS", OK: true,
		Message: fmt.Sprintf("*.%s leads to %s, which is no address of this host: right where something in front of it passes requests on", h.Domain, strings.Join(addresses, ", "))}}
}

// ports looks whether what should listen does, or could.
func ports(ctx context.Context, h Host) (all []dayfly.Finding) {
	for _, name := range []string{"http", "internal", "listen"} {
		address := h.Addresses[name]
		if address == "" {
			continue
		}
		check := "port of --" + name
		if h.Ready != nil {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			var dialer net.Dialer
			c, err := dialer.DialContext(ctx, "tcp", address)
			cancel()
			if err == nil {
				err = c.Close()
			}
			if err != nil {
				all = append(all, bad(check, "look whether a firewall is between, and at the server's log", "nobody answers at %s: %v", address, err)...)
				continue
			}
			all = append(all, fine(check, "%s answers", address)...)
			continue
		}
		l, err := net.Listen("tcp", address)
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			all = append(all, bad(check, "end what uses it, or choose another address with --"+name, "%v", err)...)
			continue
		}
		all = append(all, fine(check, "%s is free", address)...)
	}
	return all
}

func leftovers(_ context.Context, h Host) (all []dayfly.Finding) {
	if h.Leftovers == nil {
		return nil
	}
	for _, l := range h.Leftovers() {
		all = append(all, bad("leftovers", "nothing: it is taken away 30 s after it was noticed; if it stays, the server's log says why",
			"%s %s belongs to nothing, since %s", l.Kind, l.Name, l.Since.Format(time.RFC3339))...)
	}
	if len(all) == 0 {
		return fine("leftovers", "none")
	}
	return all
}
