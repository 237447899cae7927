package app

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

func TestWhatCannotWorkIsFoundBeforeAnythingIsStarted(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		fields []string
	}{
		{"the defaults", func(*Config) {}, nil},
		{"everything off", func(c *Config) { c.HTTP, c.Internal, c.Listen = "", "", "" }, nil},
		{"a port alone", func(c *Config) { c.HTTP = ":8080" }, nil},
		{"the API on another loopback address", func(c *Config) { c.Listen = "127.1.2.3:7070" }, nil},
		{"the API on IPv6", func(c *Config) { c.Listen = "[::1]:7070" }, nil},
		{"the API on localhost", func(c *Config) { c.Listen = "localhost:7070" }, nil},
		{"the API for everybody, which tokens are for", func(c *Config) { c.Listen = ":7070" }, nil},
		{"an API without a port", func(c *Config) { c.Listen = "192.0.2.1" }, []string{"--listen"}},
		{"a default life that is forever", func(c *Config) { c.Keep, c.AllowForever = dayfly.Forever, true }, nil},
		{"a domain", func(c *Config) { c.Domain = "preview.example.com" }, nil},

		{"names without the branch", func(c *Config) { c.NamePattern = "{project}" }, []string{"--names"}},
		{"names that are no labels", func(c *Config) { c.NamePattern = "{branch}_x" }, []string{"--names"}},
		{"hosts without the service", func(c *Config) { c.HostPattern = "{env}" }, []string{"--hosts"}},
		{"hosts without the environment", func(c *Config) { c.HostPattern = "{service}" }, []string{"--hosts"}},
		{"a runner that is not there", func(c *Config) { c.Runner = "docker" }, []string{"--runner"}},
		{"no domain", func(c *Config) { c.Domain = "" }, []string{"--domain"}},
		{"a domain with a scheme", func(c *Config) { c.Domain = "http://example.com" }, []string{"--domain"}},
		{"a domain with a port", func(c *Config) { c.Domain = "localhost:80" }, []string{"--domain"}},
		{"a longest life that is shorter than the default one", func(c *Config) { c.MaxKeep = c.Keep - 1 }, []string{"--max-keep"}},
		{"addresses without ports", func(c *Config) { c.HTTP, c.Internal = "localhost", "7071" }, []string{"--http", "--internal"}},
		{"several mistakes at once", func(c *Config) { c.Domain, c.Runner, c.NamePattern = "", "", "" }, []string{"--domain", "--names", "--runner"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := testConfig(t.TempDir())
			c.change(&config)
			_, err := New(config, slog.New(slog.DiscardHandler))
			var e *dayfly.Error
			if err != nil && (!errors.As(err, &e) || e.Code != dayfly.CodeInvalid) {
				t.Fatalf("got %v", err)
			}
			var fields []string
			if e != nil {
				for _, p := range e.Problems {
					fields = append(fields, p.Field)
				}
			}
			slices.Sort(fields)
			if !slices.Equal(fields, c.fields) {
				t.Errorf("complains of %v (%v), want %v", fields, err, c.fields)
			}
		})
	}
}

func TestAnExposedAPIIsCalledByTheNamesOfTheServer(t *testing.T) {
	for _, c := range []struct {
		listen, advertise, domain string
		want                      []string
	}{
		{"0.0.0.0:7070", "127.0.0.1", "localhost", []string{"localhost", "127.0.0.1"}},
		{":7070", "dayfly.example.org:7070", "Preview.Example.com", []string{"preview.example.com", "dayfly.example.org"}},
		{"[::]:7070", "", "example.com", []string{"example.com"}},
		{"[2001:DB8::1]:7070", "2001:db8::2", "example.com", []string{"example.com", "2001:db8::1", "2001:db8::2"}},
		{"API.example.com:7070", "[2001:db8::2]:1", "example.com", []string{"example.com", "api.example.com", "2001:db8::2"}},
	} {
		config := Config{Listen: c.listen, Advertise: c.advertise, Domain: c.domain}
		if got := config.names(); !slices.Equal(got, c.want) {
			t.Errorf("%+v has %v", c, got)
		}
	}
}

func TestADataFolderIsHeldByOneServerAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "not", "there", "yet")
	first, err := openFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = openFolder(path)
	if dayfly.ErrorCode(err) != dayfly.CodeConflict || !contains(err, path, "pid "+strconv.Itoa(os.Getpid()), "--data") {
		t.Errorf("a second one got %v", err)
	}
	id, err := first.node()
	if err != nil || id == "" {
		t.Fatalf("node %q, %v", id, err)
	}
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	second, err := openFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.close()
	if again, err := second.node(); err != nil || again != id {
		t.Errorf("the node is %q, was %q, %v", again, id, err)
	}
}

func TestAFolderThatCannotBeMadeIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openFolder(filepath.Join(file, "data")); !contains(err, "--data") {
		t.Errorf("got %v", err)
	}
}

func open(address string) (net.Listener, error) { return net.Listen("tcp", address) }

// occupied gives an address that is in use until the test ends.
func occupied(t *testing.T) string {
	t.Helper()
	l, err := open("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// listen opens a listener as a server on a data folder does that starts.
func listen(t *testing.T, data, address string, given bool) (net.Listener, error) {
	t.Helper()
	p, err := readPorts(data)
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.listen("http", address, given, open, slog.New(slog.DiscardHandler))
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return l, err
}

func TestADefaultPortInUseIsMovedOnceAndStaysThere(t *testing.T) {
	data, usual := t.TempDir(), occupied(t)
	first, err := listen(t, data, usual, false)
	if err != nil {
		t.Fatal(err)
	}
	moved := first.Addr().String()
	if moved == usual {
		t.Fatal("is where another one listens")
	}
	_, err = listen(t, data, usual, false)
	if !contains(err, "--http", strconv.Itoa(port(first))) {
		t.Errorf("while the port it was moved to is in use: %v", err)
	}
	first.Close()
	second, err := listen(t, data, usual, false)
	if err != nil || second.Addr().String() != moved {
		t.Fatalf("later on: %v, %v, want %s", second, err, moved)
	}
	free := occupied(t)
	if _, err := listen(t, data, free, true); !contains(err, "--http", free) {
		t.Errorf("one that is given then counts: %v", err)
	}
}

func TestAGivenPortInUseIsFatal(t *testing.T) {
	data, usual := t.TempDir(), occupied(t)
	if _, err := listen(t, data, usual, true); !contains(err, "--http", usual) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(data, "ports.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was moved all the same: %v", err)
	}
}

func TestAFreePortIsTakenAsItIs(t *testing.T) {
	for _, given := range []bool{true, false} {
		data := t.TempDir()
		l, err := listen(t, data, "127.0.0.1:0", given)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		again, err := listen(t, data, l.Addr().String(), given)
		if err != nil || again.Addr().String() != l.Addr().String() {
			t.Errorf("given %t: %v, %v", given, again, err)
		}
	}
}

func TestDamagedPortsAreReported(t *testing.T) {
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "ports.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readPorts(data); !contains(err, "ports.json") {
		t.Errorf("got %v", err)
	}
}
