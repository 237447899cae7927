//go:build linux

package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database"
)

// Roles of ours in every cluster. The first is its bootstrap superuser, whatever it was called before.
const (
	admin   = "dayfly_admin"
	loader  = "dayfly_loader"  // loads a source; gone before the freeze
	owner   = "dayfly_owner"   // owns everything; renamed to the clone's user
	renamer = "dayfly_renamer" // renames the superuser of a copied cluster; gone at once
)

// Options are what an Engine may be told. The zero value is right for a server.
type Options struct {
	// Sockets is the folder for sockets: short, since a path of one has at most 107 bytes. Default:
	// /run/dayfly-postgres as root, else one in the folder for temporary files.
	Sockets string
	// User is who the server's programs run as where this process is root. Default: postgres, where
	// there is such a user, else dayfly-postgres, which is made.
	User string
	// Programs are the folders in which versions are looked for. Default: where they are usually.
	Programs []string
	// StartTimeout is how long a server may take until it takes connections. Default: two minutes, since one
	// may have to recover.
	StartTimeout time.Duration
	Logger       *slog.Logger
}

// Engine is PostgreSQL. It has no state that is not on the disk.
type Engine struct {
	o Options

	mu    sync.Mutex
	found []programs
	who   *account
}

var _ database.Engine = (*Engine)(nil)

// account is who the programs run as.
type account struct {
	name     string
	uid, gid int
	switched bool // from root
}

// New gives an Engine. Nothing is looked at before it is used.
func New(o Options) *Engine {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Sockets == "" {
		o.Sockets = "/run/dayfly-postgres"
		if os.Geteuid() != 0 {
			o.Sockets = filepath.Join(os.TempDir(), "dayfly-postgres-"+strconv.Itoa(os.Geteuid()))
		}
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 2 * time.Minute
	}
	return &Engine{o: o}
}

// Name is "postgres".
func (e *Engine) Name() string { return "postgres" }

// Versions are the major versions that are installed, newest first.
func (e *Engine) Versions(ctx context.Context) ([]string, error) {
	found, err := e.find(ctx)
	versions := make([]string, len(found))
	for i, p := range found {
		versions[i] = p.version()
	}
	return versions, err
}

// account finds who programs run as, and makes a user where there is none.
func (e *Engine) account(ctx context.Context) (account, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.who != nil {
		return *e.who, nil
	}
	if os.Geteuid() != 0 {
		u, err := user.Current()
		if err != nil {
			return account{}, dayfly.Errorf(dayfly.CodeUnavailable, "PostgreSQL needs a user with an entry in /etc/passwd, and the server runs as one that has none: %w", err)
		}
		e.who = &account{name: u.Username, uid: os.Geteuid(), gid: os.Getegid()}
		return *e.who, nil
	}
	names := []string{"postgres", "dayfly-postgres"}
	if e.o.User != "" {
		names = []string{e.o.User}
	}
	var u *user.User
	var err error
	for _, name := range names {
		if u, err = user.Lookup(name); err == nil && u.Uid != "0" {
			break
		}
		u = nil
	}
	if u == nil {
		name := names[len(names)-1]
		out, err := exec.CommandContext(ctx, "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", "--", name).CombinedOutput() //nolint:forbidigo // the name is ours or the operator's, after --
		if err != nil {
			return account{}, dayfly.Errorf(dayfly.CodeUnavailable, "PostgreSQL refuses to run as root, and the user %s cannot be made: %s: %w", name, out, err)
		}
		if u, err = user.Lookup(name); err != nil {
			return account{}, dayfly.Errorf(dayfly.CodeUnavailable, "the user %s was made and cannot be found: %w", name, err)
		}
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return account{}, err
	}
	e.who = &account{name: u.Username, uid: uid, gid: gid, switched: true}
	return *e.who, nil
}

// credential is what a child gets; nil = ours.
func (a account) credential() *syscall.Credential {
	if !a.switched {
		return nil
	}
	return &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid), Groups: []uint32{}} //nolint:gosec // ids are never negative
}

// own makes a file or folder the account's.
func (a account) own(path string) error {
	if !a.switched {
		return nil
	}
	return os.Lchown(path, a.uid, a.gid)
}

// mkdir makes a private folder of the account's.
func (a account) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return a.own(path)
}

// write writes a private file of the account's in place of the one that is there.
func (a account) write(path string, content []byte) error {
	next := path + ".new"
	if err := os.WriteFile(next, content, 0o600); err != nil {
		return err
	}
	return errors.Join(a.own(next), os.Rename(next, path))
}

// note is what a folder knows of itself.
type note struct {
	Database string `json:"database"`
	Owner    string `json:"owner"` // the role that owns everything
	Version  string `json:"version"`
}

func dataOf(dir string) string { return filepath.Join(dir, "data") }
func logOf(dir string) string  { return filepath.Join(dir, "server.log") }

// asideOf is where a load keeps what was not masked, until what was is a cluster of its own.
func asideOf(dir string) string { return filepath.Join(dir, "unmasked") }

func noteOf(dir string) string { return filepath.Join(dir, "dayfly.json") }

func readNote(dir string) (note, error) {
	var n note
	b, err := os.ReadFile(noteOf(dir))
	if err == nil {
		err = json.Unmarshal(b, &n)
	}
	if err != nil {
		return n, fmt.Errorf("%s is no folder of this engine: %w", dir, err)
	}
	return n, nil
}

func (a account) writeNote(dir string, n note) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return a.write(noteOf(dir), b)
}

// sockets gives the folder of the socket of a cluster's server, and makes it.
func (e *Engine) sockets(a account, data string) (string, error) {
	dir := e.socketsOf(data)
	if len(dir)+len("/.s.PGSQL.65535") > 107 {
		return "", dayfly.Errorf(dayfly.CodeInvalid, "%s is too long for the path of a socket", dir)
	}
	if err := os.Mkdir(e.o.Sockets, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	// In a folder for temporary files anybody may have made it first.
	info, err := os.Lstat(e.o.Sockets)
	if err != nil {
		return "", err
	}
	if s, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(s.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return "", dayfly.Errorf(dayfly.CodeForbidden, "%s is no private folder of this user: take it away", e.o.Sockets)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	// The stranger that reads scripts comes through here. Who gets in at a socket, pg_hba.conf says.
	return dir, errors.Join(os.Chmod(dir, 0o711), a.own(dir)) //nolint:gosec // others may pass through, and see nothing
}

func (e *Engine) socketsOf(data string) string {
	sum := sha256.Sum256([]byte(data))
	return filepath.Join(e.o.Sockets, hex.EncodeToString(sum[:8]))
}
