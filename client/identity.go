package client

import (
	"crypto/rsa"
	"errors"
	"io/fs"
	"os"

	"sealift/codec"
	"sealift/internal/infofile"
)

// Identity is who a client is to a server: what registration gives, and what a
// later reconnect needs.
type Identity struct {
	Name string
	ID   codec.ClientID
	Key  *rsa.PrivateKey // its public half is with the server
}

// IdentityStore keeps an Identity between runs. [IdentityFile] is one.
type IdentityStore interface {
	// Load returns the identity, or nil if none is kept. It fails early where
	// Save could not succeed: a name can be registered once only.
	Load() (*Identity, error)
	// Save keeps id, durably, in the place of any other. It is called as soon
	// as the server has given the id.
	Save(id Identity) error
	// Delete forgets the identity, because the server has rejected it.
	Delete() error
}

// IdentityFile keeps an identity in a me.info: three lines with the name, the
// id in 32 hex digits and the private key as PKCS#8 in Base64, readable by its
// owner only. Files of other implementations are read as well; one that makes
// no sense is an error and stays as it is. A priv.key beside it that holds the
// same key follows when the key changes.
func IdentityFile(path string) IdentityStore { return &identityFile{path: path} }

type identityFile struct {
	path string
	copy *infofile.PrivateKeyFile
}

func (f *identityFile) Load() (*Identity, error) {
	me, err := infofile.ReadMe(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, infofile.CheckWritable(f.path)
	}
	if err != nil {
		return nil, err
	}
	f.copy = infofile.FindPrivateKeyFile(f.path, me.Key)
	return &Identity{Name: me.Name, ID: me.ID, Key: me.Key}, nil
}

func (f *identityFile) Save(id Identity) error {
	err := infofile.WriteMe(f.path, infofile.Me{Name: id.Name, ID: id.ID, Key: id.Key})
	if err != nil || f.copy == nil {
		return err
	}
	return f.copy.Update(id.Key)
}

func (f *identityFile) Delete() error { return os.Remove(f.path) }

// noIdentity keeps nothing.
type noIdentity struct{}

func (noIdentity) Load() (*Identity, error) { return nil, nil }
func (noIdentity) Save(Identity) error      { return nil }
func (noIdentity) Delete() error            { return nil }
