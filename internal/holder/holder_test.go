//go:build linux

package holder

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "hold" {
		if err := Run(context.Background(), os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func command(t *testing.T) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{exe, "hold"}
}

func find(t *testing.T, dir string) *Holder {
	t.Helper()
	h, err := Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func tcp(address string) (net.Listener, error) { return net.Listen("tcp", address) }

// longFolder is one whose path is too long for the address of a socket.
func longFolder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestARequestWaitsForTheNextServer(t *testing.T) {
	dir := longFolder(t)
	first := find(t, dir)
	l, err := first.Listen("http", "127.0.0.1:0", tcp)
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := first.Hold(command(t)); err != nil {
		t.Fatal(err)
	}
	for round := range 2 { // the second holder of the sockets is as good as the first
		// What a killed process leaves: its files are closed, nothing is said.
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("round %d: refused while no server is there: %v", round, err)
		}
		if _, err := io.WriteString(client, "hello"); err != nil {
			t.Fatal(err)
		}
		if err := client.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		next := find(t, dir)
		opened := false
		l, err = next.Listen("http", map[int]string{0: "127.0.0.1:0", 1: address}[round], func(a string) (net.Listener, error) {
			opened = true
			return tcp(a)
		})
		if err != nil || opened || l.Addr().String() != address {
			t.Fatalf("round %d: not taken over: opened anew %v, %v", round, opened, err)
		}
		if err := next.Hold(command(t)); err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
			t.Errorf("round %d: received %q, %v", round, got, err)
		}
		conn.Close()
		client.Close()
		defer first.done.Wait()
		first = next
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("the address takes connections after the release")
	}
	if _, err := os.Stat(filepath.Join(dir, socketName)); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestAHeldListenerCanBeClosedWhileItWaits(t *testing.T) {
	h := find(t, t.TempDir())
	l, err := h.Listen("http", "127.0.0.1:0", tcp)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Hold(command(t)); err != nil {
		t.Fatal(err)
	}
	first, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	accepted, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = c.Close()
		}
		accepted <- err
		_, err = l.Accept()
		ended <- err
	}()
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("a closed listener accepted something")
	}
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestAnotherAddressUnderTheSameNameReplacesTheHeldOne(t *testing.T) {
	dir := t.TempDir()
	first := find(t, dir)
	defer first.done.Wait()
	l, err := first.Listen("http", "127.0.0.1:0", tcp)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Hold(command(t)); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	first.Close()
	next := find(t, dir)
	// The same port on all addresses: in use for as long as the old socket is open.
	l, err = next.Listen("http", "0.0.0.0:"+port, tcp)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := next.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestNobodyIsWaitedForForever(t *testing.T) {
	dir := t.TempDir()
	l, err := listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), l, dir, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, socketName)); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	// A socket that nobody serves is no obstacle.
	if err := os.WriteFile(filepath.Join(dir, socketName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := find(t, dir)
	if err := h.Hold(command(t)); err != nil {
		t.Fatal(err)
	}
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestThePlaceOfAHolderThatCannotStartIsSaid(t *testing.T) {
	h := find(t, t.TempDir())
	if err := h.Hold([]string{"/nonexistent"}); err == nil {
		t.Error("no error")
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}
