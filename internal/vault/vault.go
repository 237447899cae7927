// Package vault seals credentials, so that the state holds none in clear.
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
)

// Vault seals with AES-256-GCM and a key in a file that only the server's user can read.
type Vault struct{ aead cipher.AEAD }

const keySize = 32

// Open reads the key, or makes one where there is none yet.
func Open(file string) (*Vault, error) {
	key, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(file)
	}
	if err != nil {
		return nil, fmt.Errorf("the key of the vault: %w", err)
	}
	if len(key) != keySize {
		return nil, dayfly.Errorf(dayfly.CodeInternal, "the key of the vault, %s, is damaged: restore it, or remove it and give the tokens again", file)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &Vault{aead}, nil
}

// makeKey writes a new key under another name first, so that a crash leaves none
// that is half written.
func makeKey(file string) ([]byte, error) {
	key := make([]byte, keySize)
	rand.Read(key) // never fails, see crypto/rand
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(key)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	crash.Point("before the key is whole")
	defer crash.Point("after the key is whole")
	return key, os.Rename(f.Name(), file)
}

// Seal encrypts a secret.
func (v *Vault) Seal(s dayfly.Secret) ([]byte, error) {
	return v.aead.Seal(nil, nil, []byte(s.Reveal()), nil), nil
}

// Unseal decrypts what Seal made.
func (v *Vault) Unseal(sealed []byte) (dayfly.Secret, error) {
	plain, err := v.aead.Open(nil, nil, sealed, nil)
	if err != nil {
		return dayfly.Secret{}, dayfly.Errorf(dayfly.CodeInternal, "a stored credential was sealed with another key: give it again")
	}
	return dayfly.NewSecret(string(plain)), nil
}
