package client

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sealift/codec"
	"sealift/internal/infofile"
	"sealift/internal/printable"
)

// ErrSecret says that a file keeps who a client is: whoever has it can take the
// client's place. It is never sent.
var ErrSecret = errors.New("it is not sent")

// keeper is a store that keeps something in files.
type keeper interface {
	// keeps returns the paths of these files. They need not be there.
	keeps() []string
}

func (f *identityFile) keeps() []string {
	return []string{f.path, f.path + ".lock", f.path + ".pending", filepath.Join(filepath.Dir(f.path), infofile.PrivateKeyName), f.tlsKeyPath()}
}

// tlsKeyPath returns where the client's TLS key is, or would be.
func (f *identityFile) tlsKeyPath() string {
	file, err := infofile.Follow(f.path)
	if err != nil {
		file = f.path
	}
	return infofile.TLSKeyPath(file)
}

func (f knownServersFile) keeps() []string { return []string{string(f), string(f) + ".lock"} }

// checkSecret returns an error, an ErrSecret, if the file at path is one in
// which the stores of o keep something, by whatever path, has a name that such
// files have, or holds an identity or the client's TLS key under another name.
func (o *Options) checkSecret(path string, info fs.FileInfo) error {
	base := infofile.MeName
	if k, ok := o.Identity.(keeper); ok {
		base = filepath.Base(k.keeps()[0])
	}
	if n := filepath.Base(path); isSecretName(n, infofile.MeName) || isSecretName(n, base) {
		return fmt.Errorf("%s: %w: files of this name keep who a client is", printable.Path(path), ErrSecret)
	}
	for _, store := range []any{o.Identity, o.Known} {
		k, ok := store.(keeper)
		if !ok {
			continue
		}
		for _, kept := range k.keeps() {
			if there, err := os.Stat(kept); err == nil && os.SameFile(there, info) {
				return fmt.Errorf("%s: %w: it is %s, which sealift keeps for itself", printable.Path(path), ErrSecret, printable.Path(kept))
			}
		}
	}
	if f, ok := o.Identity.(*identityFile); ok && info.Size() <= maxIdentity && f.hasTLSKey(path) {
		return fmt.Errorf("%s: %w: it holds the client's TLS key", printable.Path(path), ErrSecret)
	}
	if size := info.Size(); size >= minIdentity && size <= maxIdentity {
		if _, err := infofile.ReadMe(path); err == nil {
			return fmt.Errorf("%s: %w: it holds the private key of a client", printable.Path(path), ErrSecret)
		}
	}
	return nil
}

// hasTLSKey reports whether the file at path holds the client's TLS key.
func (f *identityFile) hasTLSKey(path string) bool {
	held, err := infofile.ReadTLSKey(path)
	if err != nil {
		return false
	}
	own, err := infofile.ReadTLSKey(f.tlsKeyPath())
	return err == nil && held.Equal(own)
}

// The sizes, in bytes, between which a file may hold an identity: it has about
// 900, and may be padded.
const minIdentity, maxIdentity = 400, 8 << 10

// isSecretName reports whether a file is called as one that keeps an identity,
// me being the name of the one in use: itself, one that was replaced and has its
// id behind the name, its lock, its note of a key that no server has yet, one that
// is being written, or a private key.
func isSecretName(name, me string) bool {
	key := infofile.TLSKeyPath(me)
	if name == me || name == key || name == infofile.PrivateKeyName {
		return true
	}
	if strings.HasSuffix(name, ".tmp") && (strings.HasPrefix(name, "."+me+".") || strings.HasPrefix(name, "."+key+".")) {
		return true
	}
	rest, ok := strings.CutPrefix(name, me+".")
	if !ok {
		return false
	}
	id, err := hex.DecodeString(strings.ReplaceAll(rest, "-", ""))
	return rest == "lock" || rest == "pending" || err == nil && len(id) == codec.IDSize
}
