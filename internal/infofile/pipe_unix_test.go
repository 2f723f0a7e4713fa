//go:build unix

package infofile

import (
	"path/filepath"
	"syscall"
	"testing"

	"sealift/codec"
	"sealift/crypto/keys"
)

// A pipe in the place of a file that stands beside me.info is not waited for.
func TestPipesAreNotWaitedFor(t *testing.T) {
	me := filepath.Join(t.TempDir(), MeName)
	for _, path := range []string{me, pendingPath(me), filepath.Join(filepath.Dir(me), PrivateKeyName)} {
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key, err := keys.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if FindPrivateKeyFile(me, key) != nil || IsPending(me, codec.ClientID{1}) {
		t.Error("something was read")
	}
	if _, err := ReadMe(me); err == nil {
		t.Error("a pipe was read as a me.info")
	}
}
