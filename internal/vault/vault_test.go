package vault

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
)

func open(t *testing.T, file string) *Vault {
	t.Helper()
	v, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWhatIsSealedComesBackAndIsNotInTheClear(t *testing.T) {
	v := open(t, filepath.Join(t.TempDir(), "key"))
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.StringN(8, 200, -1).Draw(t, "plain")
		sealed, err := v.Seal(dayfly.NewSecret(plain))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(sealed, []byte(plain)) {
			t.Fatalf("%q is in the clear in %q", plain, sealed)
		}
		again, err := v.Seal(dayfly.NewSecret(plain))
		if err != nil || bytes.Equal(sealed, again) {
			t.Fatalf("sealed twice it looks the same (%v)", err)
		}
		back, err := v.Unseal(sealed)
		if err != nil || back.Reveal() != plain {
			t.Fatalf("gives %q (%v), want %q", back.Reveal(), err, plain)
		}
	})
}

func TestNothingSealedIsNothingUnsealed(t *testing.T) {
	v := open(t, filepath.Join(t.TempDir(), "key"))
	sealed, err := v.Seal(dayfly.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	if back, err := v.Unseal(sealed); err != nil || !back.IsZero() {
		t.Errorf("gives %q (%v)", back.Reveal(), err)
	}
}

func TestAnyChangedOrMissingByteIsNoticed(t *testing.T) {
	v := open(t, filepath.Join(t.TempDir(), "key"))
	sealed, err := v.Seal(dayfly.NewSecret("ghp_something"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if _, err := v.Unseal(changed); dayfly.ErrorCode(err) != dayfly.CodeInternal {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := v.Unseal(sealed[:i]); err == nil {
			t.Errorf("the first %d bytes alone are taken", i)
		}
	}
	if _, err := v.Unseal(append(bytes.Clone(sealed), 0)); err == nil {
		t.Error("one byte more is taken")
	}
}

func TestAnotherKeyOpensNothing(t *testing.T) {
	dir := t.TempDir()
	sealed, err := open(t, filepath.Join(dir, "one")).Seal(dayfly.NewSecret("ghp_something"))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := open(t, filepath.Join(dir, "two")).Unseal(sealed)
	if dayfly.ErrorCode(err) != dayfly.CodeInternal || !secret.IsZero() {
		t.Errorf("gives %q (%v)", secret.Reveal(), err)
	}
}

func TestTheKeyIsMadeOnceForItsUserAlone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	sealed, err := open(t, file).Seal(dayfly.NewSecret("ghp_something"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("its mode is %v", info.Mode())
	}
	key, err := os.ReadFile(file)
	if err != nil || len(key) != keySize || bytes.Equal(key, make([]byte, keySize)) {
		t.Errorf("the key is %x (%v)", key, err)
	}
	back, err := open(t, file).Unseal(sealed)
	if err != nil || back.Reveal() != "ghp_something" {
		t.Errorf("the next one gives %q (%v)", back.Reveal(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("the folder has %v (%v)", left, err)
	}
}

func TestAKeyThatIsDamagedIsRefusedAndKept(t *testing.T) {
	for _, size := range []int{0, keySize - 1, keySize + 1} {
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(file)
		if dayfly.ErrorCode(err) != dayfly.CodeInternal {
			t.Errorf("%d bytes: %v", size, err)
		}
		if info, err := os.Stat(file); err != nil || info.Size() != int64(size) {
			t.Errorf("%d bytes: it was written over: %v (%v)", size, info, err)
		}
	}
}

func TestAFolderThatIsNotThereIsAnError(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "gone", "key")); err == nil {
		t.Error("a key was made in a folder that is not there")
	}
}
