//go:build linux

// Package holder keeps a server's listening sockets open while no server does: a small
// process that the server starts holds on to them. When the server is killed or ends for
// another one to follow, connections wait in the kernel until the next server takes the
// sockets over, instead of being refused. The idea is that of systemd's socket activation and file descriptor store.
package holder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// socketName is where a server finds the holder, in its data folder.
	socketName = "holder.sock"
	// Patience is how long the sockets are held for a server that has ended.
	Patience = 10 * time.Second
	// answerTime is how long a server waits for the holder's answer.
	answerTime = 2 * time.Second
)

// message is what a server says and a holder answers; the sockets travel beside it.
type message struct {
	Do      string   `json:"do,omitempty"` // take | keep | release
	Sockets []socket `json:"sockets,omitempty"`
}

// socket names a listening socket.
type socket struct {
	Name      string `json:"name"`
	Requested string `json:"requested"` // address that was asked for
	Actual    string `json:"actual"`    // the same with the port that it got
	file      *os.File
}

// Holder is a server's side: the sockets that it takes over and those to be held.
type Holder struct {
	dir string

	mu   sync.Mutex
	conn *net.UnixConn // nil = there is no process yet
	held []socket
	kept []socket
	done sync.WaitGroup // the process, where it is our child
}

// Find takes over the sockets that are held for the data folder, if any are.
func Find(dir string) (*Holder, error) {
	h := &Holder{dir: dir}
	conn, err := dial(dir)
	if err != nil {
		return h, nil //nolint:nilerr // nobody holds anything
	}
	if err := send(conn, message{Do: "take"}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	m, err := receive(conn, answerTime)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("what holds the listening sockets does not answer: %w", err), conn.Close())
	}
	h.conn, h.held = conn, m.Sockets
	return h, nil
}

// Listen gives the socket that is held under this name for this address, or opens it.
// What is held under the name for another address is let go.
func (h *Holder) Listen(name, address string, open func(address string) (net.Listener, error)) (net.Listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := slices.IndexFunc(h.held, func(s socket) bool {
		return s.Name == name && (s.Requested == address || s.Actual == address)
	})
	if at >= 0 {
		s := h.held[at]
		h.held = slices.Delete(h.held, at, at+1)
		l, err := net.FileListener(s.file)
		if err != nil {
			return nil, errors.Join(err, s.file.Close())
		}
		h.kept = append(h.kept, s)
		return l, nil
	}
	if slices.ContainsFunc(h.held, func(s socket) bool { return s.Name == name }) {
		h.held = slices.DeleteFunc(h.held, func(s socket) bool { return s.Name == name && s.file.Close() == nil })
		if err := h.tell(append(slices.Clone(h.held), h.kept...)); err != nil {
			return nil, err
		}
	}
	l, err := open(address)
	if err != nil {
		return nil, err
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("a listener of type %T cannot be held", l), l.Close())
	}
	file, err := tcp.File()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	h.kept = append(h.kept, socket{Name: name, Requested: address, Actual: net.JoinHostPort(host, port), file: file})
	return l, nil
}

// Hold has the sockets held from now on; command starts the process that calls Run with
// the rest of its arguments.
func (h *Holder) Hold(command []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.held {
		_ = s.file.Close() // nobody wants it any more
	}
	h.held = nil
	if h.conn == nil {
		if err := h.begin(command); err != nil {
			return err
		}
	}
	return h.tell(h.kept)
}

// begin starts the process; h.mu is held.
func (h *Holder) begin(command []string) error {
	l, err := listen(h.dir)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }() // the process has its own
	file, err := l.File()
	if err != nil {
		return err
	}
	defer file.Close()
	cmd := exec.Command(command[0], append(slices.Clone(command[1:]), h.dir)...) //nolint:forbidigo,noctx // this binary; it outlives this server
	cmd.Args[0] = "dayfly"                                                       // for who looks at the list of processes
	cmd.Dir, cmd.Env, cmd.ExtraFiles = "/", []string{}, []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	h.done.Go(func() { _ = cmd.Wait() })
	h.conn, err = dial(h.dir)
	return err
}

// tell says what is to be held and waits until it is; h.mu is held.
func (h *Holder) tell(sockets []socket) error {
	if err := send(h.conn, message{Do: "keep", Sockets: sockets}); err != nil {
		return err
	}
	_, err := receive(h.conn, answerTime)
	return err
}

// Release ends the holding: the sockets close with the listeners.
func (h *Holder) Release() error {
	h.mu.Lock()
	var err error
	if h.conn != nil {
		if err = send(h.conn, message{Do: "release"}); err == nil {
			_, err = receive(h.conn, answerTime)
		}
	}
	h.mu.Unlock()
	err = errors.Join(err, h.Close())
	h.done.Wait()
	return err
}

// Close lets go of the process, which goes on holding for a while.
func (h *Holder) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range append(h.held, h.kept...) {
		_ = s.file.Close() // a copy of the listener's
	}
	h.held, h.kept = nil, nil
	if h.conn == nil {
		return nil
	}
	err := h.conn.Close()
	h.conn = nil
	return err
}

// Run is the process that holds: it takes servers at the socket that it inherited as file
// 3 until one releases it, or none has come back for too long.
func Run(ctx context.Context, dir string) error {
	file := os.NewFile(3, socketName)
	l, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("this command is started by the server alone: %w", err)
	}
	file.Close()
	return run(ctx, l.(*net.UnixListener), dir, Patience)
}

func run(ctx context.Context, l *net.UnixListener, dir string, patience time.Duration) error {
	l.SetUnlinkOnClose(false)
	stop := context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var held []socket
	for {
		err := l.SetDeadline(time.Now().Add(patience))
		var conn *net.UnixConn
		if err == nil && ctx.Err() == nil {
			conn, err = l.AcceptUnix()
		}
		if conn == nil { // nobody has come back
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = nil
			}
			return errors.Join(err, l.Close(), os.Remove(filepath.Join(dir, socketName)))
		}
		cut := context.AfterFunc(ctx, func() { _ = conn.Close() })
		released := serve(conn, &held)
		if released {
			// Nothing is left when the server hears of it.
			err = errors.Join(l.Close(), os.Remove(filepath.Join(dir, socketName)), send(conn, message{}))
		}
		cut()
		_ = conn.Close() // it may be closed already
		if released {
			return err
		}
	}
}

// serve does what one server says, until it is gone. It says whether it was released.
func serve(conn *net.UnixConn, held *[]socket) (released bool) {
	for {
		m, err := receive(conn, 0)
		if err != nil {
			return false
		}
		var answer message
		switch m.Do {
		case "take":
			answer.Sockets = *held
		case "keep":
			for _, s := range *held {
				_ = s.file.Close()
			}
			*held = m.Sockets
		}
		if m.Do == "release" {
			for _, s := range *held {
				_ = s.file.Close()
			}
			return true
		}
		if err := send(conn, answer); err != nil {
			return false
		}
	}
}

// at calls do with a path of the socket that is short enough for the kernel, however long
// the folder's is.
func at(dir string, do func(path string) error) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return do(fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), socketName))
}

func dial(dir string) (conn *net.UnixConn, err error) {
	err = at(dir, func(path string) error {
		conn, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		return err
	})
	return conn, err
}

func listen(dir string) (l *net.UnixListener, err error) {
	if err := os.Remove(filepath.Join(dir, socketName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	err = at(dir, func(path string) error {
		if l, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"}); err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		return os.Chmod(path, 0o600)
	})
	return l, err
}

// send sends a message with its sockets.
func send(conn *net.UnixConn, m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	fds := make([]int, 0, len(m.Sockets))
	for _, s := range m.Sockets {
		// Not Fd, which would make the listener's own file block, too.
		raw, err := s.file.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			return err
		}
	}
	_, _, err = conn.WriteMsgUnix(b, syscall.UnixRights(fds...), nil)
	runtime.KeepAlive(m.Sockets)
	return err
}

// receive waits for a message, wait = 0 for as long as it takes.
func receive(conn *net.UnixConn, wait time.Duration) (m message, err error) {
	deadline := time.Time{}
	if wait > 0 {
		deadline = time.Now().Add(wait)
	}
	if err := conn.SetReadDeadline(deadline); err != nil {
		return m, err
	}
	b, oob := make([]byte, 64<<10), make([]byte, syscall.CmsgSpace(4*64))
	n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil {
		return m, err
	}
	var files []*os.File
	controls, err := syscall.ParseSocketControlMessage(oob[:oobn])
	for _, c := range controls {
		fds, rightsErr := syscall.ParseUnixRights(&c)
		err = errors.Join(err, rightsErr)
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "listener"))
		}
	}
	if err == nil {
		err = json.Unmarshal(b[:n], &m)
	}
	if err == nil && len(files) != len(m.Sockets) {
		err = fmt.Errorf("%d sockets came for %d names", len(files), len(m.Sockets))
	}
	if err != nil {
		for _, f := range files {
			_ = f.Close()
		}
		return m, err
	}
	for n := range m.Sockets {
		m.Sockets[n].file = files[n]
	}
	return m, nil
}
