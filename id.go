package dayfly

import (
	"crypto/rand"
	"encoding/base32"
	"strings"
)

// NewID gives a random identifier of 16 lower-case letters and digits (80
// bits). Whatever an environment makes on a host is named by one, never by a
// name that a user chose.
func NewID() string {
	var b [10]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}
