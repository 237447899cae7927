package app

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/dns"
)

func TestOneAddressOfEachFamilyIsToldAPrivateOneFirst(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      "[127.0.0.1]",
		"127.0.0.1 ::1 fe80::1 169.254.1.1":     "[127.0.0.1]",
		"127.0.0.1 192.0.2.1 10.0.0.1 10.0.0.2": "[10.0.0.1]",
		"192.0.2.1 192.0.2.2 2001:db8::1 fd00::1 fe80::1": "[192.0.2.1 fd00::1]",
		"::1 2001:db8::1": "[2001:db8::1]",
	} {
		var all []netip.Addr
		for a := range strings.FieldsSeq(in) {
			all = append(all, netip.MustParseAddr(a))
		}
		if got := fmt.Sprint(reachable(all)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestPublicNamesLeadToWhereThePublicListenerIsReached(t *testing.T) {
	for _, c := range []struct {
		about, domain, advertise, listens string
		given                             bool
		want                              string
	}{
		{"the domain is local", "localhost", "10.0.0.9", "10.0.0.1", true, "[127.0.0.1]"},
		{"below a local one", "dev.localhost", "127.0.0.1", "127.0.0.1", false, "[127.0.0.1]"},
		{"it is said", "example.org", "10.0.0.9", "10.0.0.1", true, "[10.0.0.9]"},
		{"it is said with a port", "example.org", "10.0.0.9:80", "10.0.0.1", true, "[10.0.0.9]"},
		{"it is said for IPv6", "example.org", "[fd00::9]", "10.0.0.1", true, "[fd00::9]"},
		{"a name is said", "example.org", "host.example.org", "10.0.0.1", true, "[10.0.0.1]"},
		{"it is not said", "example.org", "127.0.0.1", "10.0.0.1", false, "[10.0.0.1]"},
		{"it listens everywhere", "example.org", "127.0.0.1", "::", false, fmt.Sprint(reachable(dns.HostAddresses()))},
		{"it listens nowhere", "example.org", "127.0.0.1", "", false, fmt.Sprint(reachable(dns.HostAddresses()))},
	} {
		a := &App{config: Config{Domain: c.domain, Advertise: c.advertise, Given: map[string]bool{"advertise": c.given}}, log: slog.New(slog.DiscardHandler)}
		if c.listens != "" {
			a.public = listener{address: net.TCPAddr{IP: net.ParseIP(c.listens), Port: 80}}
		}
		if got := fmt.Sprint(a.publicAddresses()()); got != c.want {
			t.Errorf("%s: %s, want %s", c.about, got, c.want)
		}
	}
}

// listener has an address of a host that this need not be.
type listener struct {
	net.Listener
	address net.TCPAddr
}

func (l listener) Addr() net.Addr { return &l.address }
