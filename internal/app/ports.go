package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/dayfly-dev/dayfly/internal/crash"
)

// ports remembers where listeners were moved to: services that run know the port
// of the internal one.
type ports struct {
	file  string
	Moved map[string]int `json:"moved"` // port by flag
}

func readPorts(data string) (*ports, error) {
	p := &ports{file: filepath.Join(data, "ports.json"), Moved: map[string]int{}}
	b, err := os.ReadFile(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(b, p)
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", p.file, err)
	}
	return p, nil
}

func (p *ports) write() error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return writeFile(p.file, b, 0o644)
}

// listen opens a listener. An address that was given must bind; a default one in
// use is moved to a free port, which is kept in the data folder and is the only one
// tried again.
func (p *ports) listen(flag, address string, given bool, open func(address string) (net.Listener, error), log *slog.Logger) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if moved := p.Moved[flag]; moved != 0 && !given {
		l, err := open(net.JoinHostPort(host, strconv.Itoa(moved)))
		if err != nil {
			return nil, fmt.Errorf("--%s was moved to port %d, which running services know, and it is not free now: %w", flag, moved, err)
		}
		return l, nil
	}
	l, err := open(address)
	if err == nil || given {
		if err != nil {
			err = fmt.Errorf("--%s %s: %w: choose another address, or end what uses this one", flag, address, err)
		}
		return l, err
	}
	l, moveErr := open(net.JoinHostPort(host, "0"))
	if moveErr != nil {
		return nil, fmt.Errorf("--%s %s: %w", flag, address, errors.Join(err, moveErr))
	}
	p.Moved[flag] = l.Addr().(*net.TCPAddr).Port
	log.Warn("the usual port is in use; another one is taken from now on", "flag", "--"+flag, "usual", port, "port", p.Moved[flag])
	if err := p.write(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// writeFile replaces a file so that a crash leaves the old or the new one, never a
// part.
func writeFile(path string, b []byte, mode fs.FileMode) error {
	if crash.Enabled {
		crash.Point("before writing " + filepath.Base(path))
		defer crash.Point("after writing " + filepath.Base(path))
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = errors.Join(f.Chmod(mode), write(f, b), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func write(f *os.File, b []byte) error {
	_, err := f.Write(b)
	return err
}
