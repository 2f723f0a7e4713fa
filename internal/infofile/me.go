package infofile

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sealift/codec"
	"sealift/crypto/keys"
)

// Me is what a me.info holds: who a client is to its server.
type Me struct {
	Name string
	ID   codec.ClientID
	Key  *rsa.PrivateKey
}

// ReadMe reads a me.info: the name, the id in 32 hex digits, and the private
// key as PKCS#8 (or PKCS#1) in Base64. The id may be upper-case or have dashes,
// the Base64 may be broken over any number of lines or stand in PEM armour,
// blanks may stand at the ends of any line, and NULs may pad it. A file that is missing gives an error that is
// fs.ErrNotExist, rubbish one that is ErrMalformed. The file is left alone.
func ReadMe(path string) (Me, error) {
	text, err := readRegular(path)
	if err != nil {
		return Me{}, err
	}
	l := lines(text)
	if len(l) < 3 {
		return Me{}, malformed(path, "%d lines, not a name, an id and a private key", len(l))
	}
	me := Me{Name: strings.TrimSpace(l[0])}
	if err := codec.CheckName(me.Name); err != nil {
		return Me{}, malformed(path, "line 1 is no user name: %v", err)
	}
	id, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(l[1]), "-", ""))
	if err != nil || len(id) != codec.IDSize {
		return Me{}, malformed(path, "line 2 is no client id of 32 hex digits: %.60q", l[1])
	}
	me.ID = codec.ClientID(id)
	if me.Key, err = parseKeyText(l[2:]); err != nil {
		return Me{}, malformed(path, "the private key: %v", err)
	}
	return me, nil
}

// parseKeyText reads a private key from lines of Base64.
func parseKeyText(lines []string) (*rsa.PrivateKey, error) {
	var b strings.Builder
	for _, line := range lines {
		if !strings.HasPrefix(line, "-----") {
			b.WriteString(strings.Join(strings.Fields(line), ""))
		}
	}
	der, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(b.String(), "="))
	if err != nil {
		return nil, err
	}
	return keys.ParsePrivate(der)
}

// Text is the content of a me.info.
func (me Me) Text() ([]byte, error) {
	der, err := keys.MarshalPrivate(me.Key)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s\n%s\n%s\n", me.Name, me.ID, base64.StdEncoding.EncodeToString(der)), nil
}

// A client whose public key no server has acknowledged has a file beside its
// me.info, path.pending, with its id.

// MarkPending notes, durably, that the client with that id beside path has yet
// to send its public key.
func MarkPending(path string, id codec.ClientID) error {
	return Replace(pendingPath(path), []byte(id.String()+"\n"), 0o600)
}

// IsPending reports whether that is noted of id, and not of another.
func IsPending(path string, id codec.ClientID) bool {
	text, err := readRegular(pendingPath(path))
	return err == nil && strings.TrimSpace(text) == id.String()
}

// ClearPending takes the note about id away. A note about another id stays.
func ClearPending(path string, id codec.ClientID) error {
	if !IsPending(path, id) {
		return nil
	}
	return os.Remove(pendingPath(path))
}

func pendingPath(path string) string { return path + ".pending" }

// Replaced returns the paths of the identities that were kept beside the me.info
// at path when others took its place, the latest first.
func Replaced(path string) []string {
	entries, err := os.ReadDir(folder(path))
	if err != nil {
		return nil
	}
	at := map[string]time.Time{}
	var paths []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), filepath.Base(path)+".") {
			continue
		}
		kept := filepath.Join(folder(path), e.Name())
		info, err := e.Info()
		if err != nil {
			continue
		}
		if _, err := ReadMe(kept); err == nil {
			at[kept] = info.ModTime()
			paths = append(paths, kept)
		}
	}
	slices.SortFunc(paths, func(a, b string) int { return at[b].Compare(at[a]) })
	return paths
}

// PrivateKeyFile is a priv.key that some clients keep beside me.info, as text
// or as DER. It is never created, only kept in step.
type PrivateKeyFile struct {
	path   string
	binary bool
}

// FindPrivateKeyFile returns the priv.key in the directory of the me.info at
// mePath, if it is there and holds key; nil otherwise.
func FindPrivateKeyFile(mePath string, key *rsa.PrivateKey) *PrivateKeyFile {
	f := &PrivateKeyFile{path: filepath.Join(filepath.Dir(mePath), PrivateKeyName)}
	text, err := readRegular(f.path)
	if err != nil {
		return nil
	}
	held, err := keys.ParsePrivate([]byte(text))
	f.binary = err == nil
	if err != nil {
		held, err = parseKeyText(lines(text))
	}
	if err != nil || !held.Equal(key) {
		return nil
	}
	return f
}

// Reserve makes room for another key. It returns nil if the file is gone by
// now: it stays away then.
func (f *PrivateKeyFile) Reserve(key *rsa.PrivateKey) (*Reservation, error) {
	path, err := Follow(f.path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	content, err := f.Content(key)
	if err != nil {
		return nil, err
	}
	return Reserve(path, content)
}

// Content is what the file holds with that key, in the form that the old one
// had.
func (f *PrivateKeyFile) Content(key *rsa.PrivateKey) ([]byte, error) {
	content, err := keys.MarshalPrivate(key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	if !f.binary {
		content = append(base64.StdEncoding.AppendEncode(nil, content), '\n')
	}
	return content, nil
}
