package infofile

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sealift/codec"
	"sealift/crypto/tlskey"
)

// The suffixes of an identity's file and of its TLS key.
const (
	infoSuffix = ".info"
	keySuffix  = ".key"
)

// TLSKeyPath returns where the TLS key of the identity at mePath is: beside it, me.key
// for me.info and who.key for who. An identity that was replaced and is kept as
// me.info.<id> goes on with the key that it had, me.key.
func TLSKeyPath(mePath string) string {
	dir, base := filepath.Split(keyOwner(mePath))
	key := strings.TrimSuffix(base, infoSuffix) + keySuffix
	if key == PrivateKeyName || key == keySuffix {
		key = base + keySuffix // priv.key is the RSA key of some clients
	}
	return dir + key
}

// keyOwner returns the identity file that an identity file is a kept copy of: itself
// in most cases.
func keyOwner(mePath string) string {
	dir, base := filepath.Split(mePath)
	if i := strings.LastIndexByte(base, '.'); i > 0 && isNumber(base[i+1:]) {
		base = base[:i]
	}
	i := strings.LastIndexByte(base, '.')
	if i <= 0 {
		return mePath
	}
	if id, err := hex.DecodeString(base[i+1:]); err != nil || len(id) != codec.IDSize {
		return mePath
	}
	return dir + base[:i]
}

// isNumber reports whether s is what Keep puts behind the second copy of a name.
func isNumber(s string) bool { return len(s) > 0 && len(s) < 4 && strings.Trim(s, "0123456789") == "" }

// ReadTLSKey returns the key at path. A file that is missing gives an error that is
// fs.ErrNotExist, one without a key an ErrMalformed, and it stays as it is.
func ReadTLSKey(path string) (ed25519.PrivateKey, error) {
	text, err := readRegular(path)
	if err != nil {
		return nil, err
	}
	key, err := tlskey.ParseKey([]byte(text))
	if err != nil {
		return nil, malformed(path, "%v: put the right one back, or move it away to have another made", err)
	}
	return key, nil
}

// LoadTLSKey returns the TLS key of the identity at mePath. Where there is none, it
// makes one and writes it, durably and for its owner alone, under the lock of the
// identity, for which it waits until ctx ends.
func LoadTLSKey(ctx context.Context, mePath string) (ed25519.PrivateKey, error) {
	path, err := Follow(TLSKeyPath(mePath))
	if err != nil {
		return nil, err
	}
	key, err := ReadTLSKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	unlock, err := Lock(ctx, keyOwner(mePath))
	if err != nil {
		return nil, fmt.Errorf("%s cannot be made: %w", path, err)
	}
	defer unlock()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return ReadTLSKey(path) // another process has made it
	}
	Recover(path) // what an end of the process has left of a key that nobody used
	if key, err = tlskey.Generate(); err != nil {
		return nil, err
	}
	text, err := tlskey.EncodeKey(key)
	if err == nil {
		err = Replace(path, text, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be made: %w", path, err)
	}
	return key, nil
}
