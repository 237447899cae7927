//go:build linux

package postgres

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/database"
)

// rounds is how often a password is hashed: what PostgreSQL does, and the least that RFC 7677 and
// drivers want.
const rounds = 4096

// verifier gives what PostgreSQL keeps of a password. It is made here, while the server starts, so that the password
// itself is in no statement that could be logged.
func verifier(password string) (string, error) {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails, see crypto/rand
	salted, err := pbkdf2.Key(sha256.New, password, salt, rounds, sha256.Size)
	if err != nil {
		return "", err
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text)) // of a hash: never fails
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", rounds, b64(salt), b64(stored[:]), b64(mac("Server Key"))), nil
}

type verified struct {
	text string
	err  error
}

// checkPassword wants what needs no normalization before it is hashed, and cannot be guessed.
func checkPassword(password string) error {
	if password == "" || bytes.ContainsFunc([]byte(password), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return dayfly.Invalid(dayfly.Problem{Field: "password", Message: "a password is made of letters, digits and signs of ASCII"})
	}
	return nil
}

// Prepare makes a fresh copy of a folder a clone of its own, and leaves its server running, so that it starts once.
func (e *Engine) Prepare(ctx context.Context, dir string, clone database.Clone) (err error) {
	defer func() { err = explain(dir, err) }()
	if err := errors.Join(checkUser(clone.User), checkPassword(clone.Password), CheckSettings(clone.Settings)); err != nil {
		return err
	}
	c, n, err := e.of(ctx, dir, clone.Port)
	if err != nil {
		return err
	}
	// It is made while the server starts.
	secret := make(chan verified, 1)
	go func() {
		text, err := verifier(clone.Password)
		secret <- verified{text, err}
	}()
	s, err := c.running(ctx)
	if s == nil && err == nil {
		s, err = e.startCopy(ctx, c, clone)
	}
	if err != nil {
		return err
	}
	defer s.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop(context.WithoutCancel(ctx), false))
		}
	}()
	crash.Point("clone.prepare.started")
	password := <-secret
	if password.err != nil {
		return password.err
	}
	conn, err := c.connect(ctx, admin, n.Database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	heir := clone.User
	if heir != n.Owner {
		// The role that owned everything so far goes by another name: one row is written however much it owns.
		_, err = conn.PgConn().Exec(ctx, "BEGIN; ALTER ROLE "+quoteName(n.Owner)+" RENAME TO "+quoteName(clone.User)+"; "+login(clone.User, password.text)+" COMMIT").ReadAll()
		if isCode(err, "42710") { // the source has a role of that name, which others may refer to
			heir = n.Owner
			_, err = conn.PgConn().Exec(ctx, "ROLLBACK; BEGIN; REVOKE "+quoteName(clone.User)+" FROM "+quoteName(heir)+"; "+login(clone.User, password.text)+
				" GRANT "+quoteName(heir)+" TO "+quoteName(clone.User)+"; COMMIT").ReadAll()
		}
	} else {
		_, err = conn.PgConn().Exec(ctx, login(clone.User, password.text)).ReadAll()
	}
	if err != nil {
		return fmt.Errorf("the user of the database cannot be set: %w", err)
	}
	crash.Point("clone.prepare.user")
	if heir != n.Owner {
		n.Owner = heir
		if err := c.a.writeNote(dir, n); err != nil {
			return err
		}
	}
	if len(clone.Fixtures) == 0 {
		return nil
	}
	return c.script(ctx, "the fixtures", script{in: bytes.NewReader(clone.Fixtures), host: "127.0.0.1", user: clone.User, password: clone.Password, database: n.Database})
}

// startCopy starts the server of a fresh copy.
func (e *Engine) startCopy(ctx context.Context, c *cluster, clone database.Clone) (*server, error) {
	// A copy of a clone has what the server of the original said, and its number.
	if err := errors.Join(remove(c.log), remove(filepath.Join(c.data, "postmaster.pid")), remove(filepath.Join(c.data, "postmaster.opts"))); err != nil {
		return nil, err
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		c.readAhead()
	}()
	defer func() { <-read }()
	return e.startClone(ctx, c, clone)
}

// login lets a role log in. It may not make roles: one that may can give itself the right to run programs.
func login(role, secret string) string {
	return "ALTER ROLE " + quoteName(role) + " LOGIN INHERIT CREATEDB NOCREATEROLE NOSUPERUSER PASSWORD '" + secret + "';"
}

// quoteName quotes a name in SQL.
func quoteName(name string) string { return pgx.Identifier{name}.Sanitize() }

func isCode(err error, code string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == code
}
