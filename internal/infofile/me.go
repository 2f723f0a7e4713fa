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
	"strings"

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
// the Base64 may be broken over any number of lines or stand in PEM armour, and
// NULs may pad any line. A file that is missing gives an error that is
// fs.ErrNotExist, rubbish one that is ErrMalformed. The file is left alone.
func ReadMe(path string) (Me, error) {
	text, err := read(path)
	if err != nil {
		return Me{}, err
	}
	l := lines(text)
	if len(l) < 3 {
		return Me{}, malformed(path, "%d lines, not a name, an id and a private key", len(l))
	}
	me := Me{Name: l[0]}
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

// WriteMe writes a me.info that only its owner can read. It is whole or not
// there, also after a power cut: a temporary file beside it is synced and then
// renamed over it.
func WriteMe(path string, me Me) error {
	der, err := keys.MarshalPrivate(me.Key)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	text := fmt.Sprintf("%s\n%s\n%s\n", me.Name, me.ID, base64.StdEncoding.EncodeToString(der))
	return replace(path, []byte(text))
}

// CheckWritable returns an error where WriteMe could not create path, so that
// a client does not register under an id that it cannot keep.
func CheckWritable(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), tempPattern(path))
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func tempPattern(path string) string { return "." + filepath.Base(path) + ".*.tmp" }

// replace writes a file of mode 0600 atomically and durably.
func replace(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPattern(path)) // its mode is 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(content); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	// The rename itself is durable once the directory is. Where a directory
	// cannot be synced (Windows), the system has its own ways.
	if dir, openErr := os.Open(filepath.Dir(path)); openErr == nil {
		_ = dir.Sync()
		dir.Close()
	}
	return nil
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
	text, err := read(f.path)
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

// Update puts another key into the file, in the form that the old one had. A
// file that is gone by now stays away.
func (f *PrivateKeyFile) Update(key *rsa.PrivateKey) error {
	if _, err := os.Stat(f.path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	content, err := keys.MarshalPrivate(key)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if !f.binary {
		content = append(base64.StdEncoding.AppendEncode(nil, content), '\n')
	}
	return replace(f.path, content)
}
