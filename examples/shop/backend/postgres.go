package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// postgres speaks to a PostgreSQL server. A real shop takes a library; this one is to be built
// where there is nothing but Go and no network.
type postgres struct {
	address, user, password, database string
	// slots are the connections that nobody uses; nil stands for one that has yet to be made.
	slots chan *connection
}

// connection is an open one.
type connection struct {
	net.Conn
	in *bufio.Reader
}

// failure is what the server says of a statement; the connection is as good as before.
type failure struct{ code, message string }

func (f *failure) Error() string { return f.message }

// Bounds of what the shop puts up with.
const (
	connections = 8
	patience    = 10 * time.Second // for a statement
	largest     = 16 << 20         // bytes of a message
)

// openPostgres reads an address such as postgres://user:password@host:port/database.
func openPostgres(address string) (*postgres, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the address of the database is none") // without the password in it
	}
	if u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, fmt.Errorf("%s is no PostgreSQL", u.Redacted())
	}
	port := u.Port()
	if port == "" {
		port = "5432"
	}
	password, _ := u.User.Password()
	p := &postgres{net.JoinHostPort(u.Hostname(), port), u.User.Username(), password, strings.TrimPrefix(u.Path, "/"), make(chan *connection, connections)}
	for range connections {
		p.slots <- nil
	}
	return p, nil
}

// query runs one statement and gives its rows.
func (p *postgres) query(statement string, args ...string) (rows [][]string, err error) {
	c := <-p.slots
	defer func() { p.slots <- c }()
	for {
		fresh := c == nil
		if fresh {
			if c, err = p.connect(); err != nil {
				c = nil
				return nil, err
			}
		}
		rows, err = c.run(statement, args)
		if f := (*failure)(nil); err == nil || errors.As(err, &f) && !strings.HasPrefix(f.code, "57P") {
			return rows, err
		}
		c.Close()
		c = nil
		// A server that was restarted meanwhile, as by `dayfly db reset`, has closed what was open.
		if fresh {
			return nil, err
		}
	}
}

// run sends a statement with its arguments and reads the answer up to its end.
func (c *connection) run(statement string, args []string) (rows [][]string, err error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	bind := []byte("\x00\x00\x00\x00") // no names, all as text
	bind = binary.BigEndian.AppendUint16(bind, uint16(len(args)))
	for _, a := range args {
		bind = append(binary.BigEndian.AppendUint32(bind, uint32(len(a))), a...)
	}
	bind = append(bind, 0, 0)
	var out []byte
	out = message(out, 'P', []byte("\x00"+statement+"\x00\x00\x00"))
	out = message(out, 'B', bind)
	out = message(out, 'E', []byte("\x00\x00\x00\x00\x00"))
	out = message(out, 'S', nil)
	if _, err := c.Write(out); err != nil {
		return nil, err
	}
	var failed error
	for {
		kind, body, err := c.read()
		if err != nil {
			if failed != nil { // the last words of a server that ends
				return nil, failed
			}
			return nil, err
		}
		switch kind {
		case 'D':
			row, err := columns(body)
			if err != nil {
				return nil, err
			}
			rows = append(rows, row)
		case 'E':
			failed = failureOf(body)
		case 'Z':
			return rows, failed
		}
	}
}

// connect opens a connection and says who we are.
func (p *postgres) connect() (*connection, error) {
	nc, err := net.DialTimeout("tcp", p.address, patience)
	if err != nil {
		return nil, err
	}
	c := &connection{nc, bufio.NewReader(nc)}
	if err := c.greet(p); err != nil {
		c.Close()
		return nil, fmt.Errorf("the database at %s: %w", p.address, err)
	}
	return c, nil
}

func (c *connection) greet(p *postgres) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	hello := []byte("\x00\x03\x00\x00user\x00" + p.user + "\x00database\x00" + p.database + "\x00\x00")
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(hello)+4)), hello...)); err != nil {
		return err
	}
	s := scram{password: p.password}
	for {
		kind, body, err := c.read()
		if err != nil {
			return err
		}
		switch kind {
		case 'E':
			return failureOf(body)
		case 'Z':
			return nil
		case 'R':
			if len(body) < 4 {
				return io.ErrUnexpectedEOF
			}
			answer, err := s.answer(binary.BigEndian.Uint32(body), string(body[4:]))
			if err != nil {
				return err
			}
			if answer != nil {
				if _, err := c.Write(message(nil, 'p', answer)); err != nil {
					return err
				}
			}
		}
	}
}

// scram proves that both sides know the password, without telling it (RFC 5802).
type scram struct {
	password, first string
	server          []byte // what the server has to show
}

func (s *scram) answer(step uint32, said string) ([]byte, error) {
	switch step {
	case 0:
		return nil, nil
	case 10: // it names what it can
		s.first = "n=,r=" + rand.Text()
		text := "n,," + s.first
		answer := binary.BigEndian.AppendUint32([]byte("SCRAM-SHA-256\x00"), uint32(len(text)))
		return append(answer, text...), nil
	case 11: // its nonce, salt and rounds
		fields := map[string]string{}
		for field := range strings.SplitSeq(said, ",") {
			k, v, _ := strings.Cut(field, "=")
			fields[k] = v
		}
		salt, err := base64.StdEncoding.DecodeString(fields["s"])
		rounds, roundsErr := strconv.Atoi(fields["i"])
		if err := errors.Join(err, roundsErr); err != nil {
			return nil, err
		}
		if !strings.HasPrefix(fields["r"], strings.TrimPrefix(s.first, "n=,r=")) {
			return nil, errors.New("it answers somebody else")
		}
		salted, err := pbkdf2.Key(sha256.New, s.password, salt, rounds, sha256.Size)
		if err != nil {
			return nil, err
		}
		last := "c=biws,r=" + fields["r"]
		all := s.first + "," + said + "," + last
		key := sum(salted, "Client Key")
		stored := sha256.Sum256(key)
		proof := sum(stored[:], all)
		for i := range proof {
			proof[i] ^= key[i]
		}
		s.server = sum(sum(salted, "Server Key"), all)
		return []byte(last + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
	case 12:
		if said != "v="+base64.StdEncoding.EncodeToString(s.server) {
			return nil, errors.New("it does not know the password")
		}
		return nil, nil
	}
	return nil, fmt.Errorf("it asks for a password in way %d", step)
}

func sum(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// message appends one in the form of the protocol.
func message(to []byte, kind byte, body []byte) []byte {
	to = binary.BigEndian.AppendUint32(append(to, kind), uint32(len(body)+4))
	return append(to, body...)
}

func (c *connection) read() (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > largest {
		return 0, nil, fmt.Errorf("a message of %d bytes", n)
	}
	body = make([]byte, n-4)
	_, err = io.ReadFull(c.in, body)
	return head[0], body, err
}

// columns reads a row.
func columns(body []byte) (row []string, err error) {
	if len(body) < 2 {
		return nil, io.ErrUnexpectedEOF
	}
	for body = body[2:]; len(body) >= 4; {
		n := int32(binary.BigEndian.Uint32(body))
		body = body[4:]
		if int(n) > len(body) {
			return nil, io.ErrUnexpectedEOF
		}
		n = max(n, 0) // -1 is NULL
		row, body = append(row, string(body[:n])), body[n:]
	}
	return row, nil
}

// failureOf reads what the server complains of.
func failureOf(body []byte) error {
	f := &failure{}
	for field := range bytes.SplitSeq(body, []byte{0}) {
		if len(field) == 0 {
			continue
		}
		switch field[0] {
		case 'C':
			f.code = string(field[1:])
		case 'M':
			f.message = string(field[1:])
		}
	}
	return f
}
