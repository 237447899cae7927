//go:build linux

package local

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxNamed is how many addresses a message names.
const maxNamed = 5

// listening says what an instance listens on when that is not its port: most of the
// services that never get healthy do not know $PORT. It gives "" where the port is taken,
// or where that cannot be told.
func listening(leader, port int) string {
	found, err := listeners(leader)
	if err != nil {
		return ""
	}
	var others, elsewhere []string
	for _, a := range found {
		switch {
		case int(a.Port()) != port:
			others = append(others, strconv.Itoa(int(a.Port())))
		case a.Addr().IsUnspecified() || a.Addr().Unmap() == netip.AddrFrom4([4]byte{127, 0, 0, 1}):
			return ""
		default:
			elsewhere = append(elsewhere, a.String())
		}
	}
	others = slices.Compact(others)
	if len(others) > maxNamed {
		others = append(others[:maxNamed], "…")
	}
	switch {
	case len(elsewhere) > 0:
		return fmt.Sprintf("listens on %s only, not on 127.0.0.1:%d", strings.Join(elsewhere, ", "), port)
	case len(others) > 0:
		return fmt.Sprintf("listens on %s, not on $PORT (%d)", strings.Join(others, ", "), port)
	}
	return fmt.Sprintf("listens on no port; $PORT is %d", port)
}

// listeners gives the addresses at which the processes of a session take TCP
// connections, in the order of their ports.
func listeners(leader int) ([]netip.AddrPort, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	sockets := map[string]bool{}
	for _, stat := range stats {
		b, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(fields) < 4 || string(fields[3]) != strconv.Itoa(leader) {
			continue
		}
		descriptors, err := filepath.Glob(filepath.Join(filepath.Dir(stat), "fd", "*"))
		if err != nil {
			return nil, err
		}
		for _, fd := range descriptors {
			target, err := os.Readlink(fd)
			if inode, ok := strings.CutPrefix(target, "socket:["); ok && err == nil {
				sockets[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	var found []netip.AddrPort
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", leader, table))
		if os.IsNotExist(err) && table == "tcp6" {
			continue // a host without IPv6
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			// Number, local address, remote address, state (0A = it listens), …, inode.
			fields := strings.Fields(lines.Text())
			if len(fields) < 10 || fields[3] != "0A" || !sockets[fields[9]] {
				continue
			}
			if a, ok := parseAddress(fields[1]); ok {
				found = append(found, a)
			}
		}
		err = lines.Err()
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(found, func(a, b netip.AddrPort) int { return int(a.Port()) - int(b.Port()) })
	return found, nil
}

// parseAddress reads an address as the kernel shows it: words of four bytes in the order
// of the host's, which is little-endian wherever we run, and the port.
func parseAddress(s string) (netip.AddrPort, bool) {
	text, portText, ok := strings.Cut(s, ":")
	port, err := strconv.ParseUint(portText, 16, 16)
	raw, hexErr := hex.DecodeString(text)
	if !ok || err != nil || hexErr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(port)), ok
}
