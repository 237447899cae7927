//go:build linux

package local

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestWhatAnInstanceListensOnIsFoundOut(t *testing.T) {
	for _, c := range []struct {
		name, address string // PORT stands for the one it was given
		want          string // and TAKEN for the one it took
	}{
		{"its port", "127.0.0.1:PORT", ""},
		{"its port at all addresses", "0.0.0.0:PORT", ""},
		{"another port", "127.0.0.1:0", "listens on TAKEN, not on $PORT (PORT)"},
		{"its port at another address", "127.0.0.2:PORT", "listens on 127.0.0.2:PORT only, not on 127.0.0.1:PORT"},
		{"nothing", "", "listens on no port; $PORT is PORT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			port, err := freePort()
			if err != nil {
				t.Fatal(err)
			}
			names := []string{"$PORT", "$PORT", "PORT", strconv.Itoa(port)}
			cmd := exec.Command("sleep", "100")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if c.address != "" {
				l, err := net.Listen("tcp", strings.NewReplacer(names...).Replace(c.address))
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				f, err := l.(*net.TCPListener).File()
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				cmd.ExtraFiles = []*os.File{f}
				names = append(names, "TAKEN", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				killGroup(cmd.Process.Pid)
				_ = cmd.Wait()
			}()
			want := strings.NewReplacer(names...).Replace(c.want)
			if got := listening(cmd.Process.Pid, port); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}
