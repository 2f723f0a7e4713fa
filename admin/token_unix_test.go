//go:build unix

package admin

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// A pipe in the place of the token's file is an error, and nobody waits for it.
func TestTokenFileThatIsAPipe(t *testing.T) {
	path := tokenFile(t, secret, 0o600)
	token, err := ReadToken(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := token.Reload(); changed || err == nil || !strings.Contains(err.Error(), "want a regular file") {
		t.Errorf("%v, %v", changed, err)
	}
}
