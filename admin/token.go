package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
)

// What a token may have, in bytes.
const (
	minToken = 16
	maxToken = 4 << 10
)

// Token is the secret in a file, which whoever asks has to show.
type Token struct {
	path string
	sum  atomic.Pointer[[sha256.Size]byte]
}

// ReadToken reads a token from the file at path: its text, without white space around it.
// A file that everybody may read, or write, is refused.
func ReadToken(path string) (*Token, error) {
	t := &Token{path: path}
	_, err := t.Reload()
	return t, err
}

// Reload reads the file again, and reports whether there is another token in it. After an
// error the token that was counts. Any goroutine may call it.
func (t *Token) Reload() (changed bool, err error) {
	text, err := readToken(t.path)
	if err != nil {
		return false, fmt.Errorf("--admin-token-file %s: %w", t.path, err)
	}
	sum := sha256.Sum256([]byte(text))
	was := t.sum.Swap(&sum)
	return was != nil && *was != sum, nil
}

// version is one value until another token is read.
func (t *Token) version() any {
	if t == nil {
		return nil
	}
	return *t.sum.Load()
}

func readToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("want a regular file") // to open a pipe would wait for who writes to it
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 && runtime.GOOS != "windows" {
		return "", fmt.Errorf("everybody may use the file, its mode is %04o: want 0600, or 0640", mode)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	switch {
	case len(text) > maxToken:
		return "", fmt.Errorf("want %d bytes at most", maxToken)
	case len(token) < minToken:
		return "", fmt.Errorf("the token has %d bytes: want %d or more, as from: openssl rand -hex 32", len(token), minToken)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("want ASCII without white space in the token")
	}
	return token, nil
}

// shown reports whether r shows the token: as "Authorization: Bearer TOKEN", or as the
// password of basic authentication, with any user name, unless only a bearer counts. It
// takes as long for a wrong token as for the right one.
func (t *Token) shown(r *http.Request, bearer bool) bool {
	if t == nil {
		return false
	}
	given, ok := "", false
	if scheme, rest, found := strings.Cut(r.Header.Get("Authorization"), " "); found && strings.EqualFold(scheme, "Bearer") {
		given, ok = strings.TrimSpace(rest), true
	} else if !bearer {
		_, given, ok = r.BasicAuth()
	}
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], t.sum.Load()[:]) == 1 && ok
}
