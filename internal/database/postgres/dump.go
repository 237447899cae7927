//go:build linux

package postgres

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/dayfly-dev/dayfly"
)

// kind is what a dump is, found by its first bytes.
type kind int

const (
	plain  kind = iota // SQL for psql
	custom             // pg_dump --format=custom
	tarred             // pg_dump --format=tar, or a tar of what --format=directory wrote
)

// open takes the compression off a dump and says what it is.
func open(r io.Reader) (*bufio.Reader, kind, error) {
	b := bufio.NewReaderSize(r, 1<<20)
	for range 3 { // compressed twice, by pg_dump and on the way, happens
		head, err := b.Peek(4)
		if len(head) == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				err = dayfly.Errorf(dayfly.CodeInvalid, "the dump is empty")
			}
			return nil, 0, broken(err)
		}
		switch {
		case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
			z, err := gzip.NewReader(b)
			if err != nil {
				return nil, 0, broken(err)
			}
			b = bufio.NewReaderSize(z, 1<<20)
			continue
		case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
			// One goroutine less to end: it decodes where it is read.
			z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
			if err != nil {
				return nil, 0, broken(err)
			}
			b = bufio.NewReaderSize(z, 1<<20)
			continue
		}
		break
	}
	head, err := b.Peek(4096)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, broken(err)
	}
	switch {
	case bytes.HasPrefix(head, []byte("PGDMP")):
		return b, custom, nil
	case len(head) > 262 && bytes.Equal(head[257:262], []byte("ustar")):
		return b, tarred, nil
	case bytes.IndexByte(head, 0) >= 0:
		return nil, 0, dayfly.Errorf(dayfly.CodeInvalid, "this is no dump of PostgreSQL: give what pg_dump wrote, plain, custom, or a tar of the directory format; it may be compressed with gzip or zstd")
	}
	return b, plain, nil
}

// broken says what is wrong with a dump that cannot be read.
func broken(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return dayfly.Errorf(dayfly.CodeInvalid, "the dump is truncated: it ends in the middle")
	}
	var known *dayfly.Error
	if errors.As(err, &known) {
		return err
	}
	return dayfly.Errorf(dayfly.CodeInvalid, "the dump cannot be read: %w", err)
}

// archive is a dump for pg_restore, in a file or folder.
type archive struct {
	path   string
	format string // as pg_restore calls it
}

// unpack writes a dump for pg_restore into work, so that several processes can restore it.
func (a account) unpack(b *bufio.Reader, k kind, work string) (archive, error) {
	if k == custom {
		return archive{filepath.Join(work, "dump"), "custom"}, a.spool(b, filepath.Join(work, "dump"))
	}
	// pg_dump's own tar begins with its contents, and pg_restore reads it as it is. One of a folder may begin with anything.
	head, _ := b.Peek(1024) // shorter: no tar
	if len(head) == 1024 && bytes.HasPrefix(head, []byte("toc.dat\x00")) && bytes.HasPrefix(head[512:], []byte("PGDMP")) && head[512+10] == 3 {
		return archive{filepath.Join(work, "dump"), "tar"}, a.spool(b, filepath.Join(work, "dump"))
	}
	dir := filepath.Join(work, "dump")
	if err := a.mkdir(dir); err != nil {
		return archive{}, err
	}
	contents, tr := false, tar.NewReader(b)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return archive{}, broken(err)
		}
		if h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name := filepath.Base(filepath.Clean("/" + h.Name))
		if h.Typeflag != tar.TypeReg || !partName.MatchString(name) {
			return archive{}, dayfly.Errorf(dayfly.CodeInvalid, "the dump is a tar with %q, which is no part of a dump in the directory format", h.Name)
		}
		contents = contents || name == "toc.dat"
		if err := a.spool(tr, filepath.Join(dir, name)); err != nil {
			return archive{}, err
		}
	}
	if !contents {
		return archive{}, dayfly.Errorf(dayfly.CodeInvalid, "the dump is a tar without toc.dat: give a tar of the folder that `pg_dump --format=directory` wrote")
	}
	return archive{dir, "directory"}, nil
}

var partName = regexp.MustCompile(`^(toc\.dat|(blobs(_\d+)?\.toc|blob_\d+\.dat|\d+\.dat)(\.gz|\.lz4|\.zst)?)$`)

// spool writes all of r to a new file of the account's.
func (a account) spool(r io.Reader, path string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), a.own(path)) }()
	// Told apart: what cannot be written is not the dump's fault.
	_, err = io.Copy(f, readOnly{r})
	var read readError
	if errors.As(err, &read) {
		return broken(read.err)
	}
	return err
}

// readOnly marks the errors of reading.
type readOnly struct{ r io.Reader }

type readError struct{ err error }

func (e readError) Error() string { return e.err.Error() }
func (e readError) Unwrap() error { return e.err }

// Read reads on.
func (r readOnly) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = readError{err}
	}
	return n, err
}

// statements passes SQL of a plain dump on, looks at it meanwhile, and finds out whether it is whole. Rows between COPY and \. are
// passed over.
type statements struct {
	r *bufio.Reader
	// role is called with each role that a statement refers to, before the statement is passed on.
	role func(name string) error
	made map[string]bool // roles that the dump makes itself, and those that were given to role

	rest   []byte // of the line that is being passed on
	copies bool
	middle bool // of a line that is longer than the buffer
	begun  bool // by pg_dump, which says when it is done
	done   bool
	eof    bool
	err    error
	lines  int
}

const (
	oneName  = `(?:"(?:[^"]|"")+"|'(?:[^']|'')+'|[A-Za-z_\x80-\xff][\w$\x80-\xff]*)`
	nameList = oneName + `(?:\s*,\s*` + oneName + `)*`
)

var (
	copyLine = regexp.MustCompile(`^COPY .* FROM (stdin|STDIN)\b.*;\s*$`)
	// Where roles stand in statements: alone, or in a list.
	roleWords = []*regexp.Regexp{
		regexp.MustCompile(`(?i)\b(?:OWNER TO|FOR ROLE|FOR USER|AUTHORIZATION)\s+(` + nameList + `)`),
		regexp.MustCompile(`(?i)^(?:GRANT|ALTER DEFAULT PRIVILEGES)\b.*\bTO\s+(` + nameList + `)`),
		regexp.MustCompile(`(?i)^(?:REVOKE|ALTER DEFAULT PRIVILEGES)\b.*\bFROM\s+(` + nameList + `)`),
		regexp.MustCompile(`(?i)^(?:CREATE|ALTER) POLICY\b.*?\bTO\s+(` + nameList + `)`),
		regexp.MustCompile(`(?i)^GRANT\s+(` + nameList + `)\s+TO\s`), // membership
	}
	createRole = regexp.MustCompile(`(?i)^CREATE (?:ROLE|USER|GROUP)\s+(` + oneName + `)`)
	oneRole    = regexp.MustCompile(oneName)
	notRoles   = map[string]bool{"public": true, "current_user": true, "session_user": true, "current_role": true, "default": true, "none": true, "group": true}
)

// rolesIn lists the roles that a line of SQL refers to.
func rolesIn(line []byte) []string {
	var roles []string
	for _, words := range roleWords {
		for _, found := range words.FindAllSubmatch(line, -1) {
			roles = append(roles, namesIn(found[1])...)
		}
	}
	return roles
}

// namesIn lists the roles in a list of names.
func namesIn(list []byte) (roles []string) {
	for _, word := range oneRole.FindAll(list, -1) {
		name := string(word)
		switch name[0] {
		case '"':
			name = strings.ReplaceAll(name[1:len(name)-1], `""`, `"`)
		case '\'':
			name = strings.ReplaceAll(name[1:len(name)-1], `''`, `'`)
		default:
			name = strings.ToLower(name)
		}
		if !notRoles[name] && !strings.HasPrefix(name, "pg_") && len(name) < 64 {
			roles = append(roles, name)
		}
	}
	return roles
}

// Read passes on.
func (s *statements) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		s.err = s.next()
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// next looks at the next line.
func (s *statements) next() error {
	line, err := s.r.ReadSlice('\n')
	s.rest = line
	start := !s.middle
	s.middle = errors.Is(err, bufio.ErrBufferFull)
	if start {
		s.lines++
	}
	switch {
	case errors.Is(err, io.EOF):
		if s.copies && !bytes.Equal(bytes.TrimSpace(line), []byte(`\.`)) || s.begun && !s.done && !bytes.HasPrefix(line, []byte(finished)) {
			return dayfly.Errorf(dayfly.CodeInvalid, "the dump is truncated: it ends in the middle, at line %d", s.lines)
		}
		s.eof = true
		return io.EOF
	case err != nil && !s.middle:
		return broken(err)
	case !start:
		return nil
	case s.copies:
		s.copies = !bytes.Equal(bytes.TrimRight(line, "\r\n"), []byte(`\.`))
		return nil
	}
	switch {
	case bytes.HasPrefix(line, []byte("-- PostgreSQL database")):
		s.begun = s.begun || !bytes.HasPrefix(line, []byte(finished)) && !bytes.HasPrefix(line, []byte("-- PostgreSQL database cluster dump complete"))
		s.done = bytes.Contains(line, []byte("dump complete"))
	case bytes.HasPrefix(line, []byte(`\restrict `)), bytes.HasPrefix(line, []byte(`\unrestrict `)):
		// Only a psql of the same age knows it; what it is to prevent is harmless here.
		s.rest = append([]byte(nil), "\n"...)
	case copyLine.Match(line):
		s.copies = true
	case s.role != nil && !s.middle:
		if found := createRole.FindSubmatch(line); found != nil {
			for _, role := range namesIn(found[1]) {
				s.made[role] = true
			}
			return nil
		}
		for _, role := range rolesIn(line) {
			if s.made[role] {
				continue
			}
			s.made[role] = true
			if err := s.role(role); err != nil {
				return fmt.Errorf("line %d: %w", s.lines, err)
			}
		}
	}
	return nil
}

// finished is what pg_dump writes in the end.
const finished = "-- PostgreSQL database dump complete"
