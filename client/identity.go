package client

import (
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
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

	// KeyPending: no server has acknowledged the public key yet (1602). A client
	// begins with a 1026 then.
	KeyPending bool
}

// is reports whether both are the same client with the same key.
func (id Identity) is(other Identity) bool {
	return id.Name == other.Name && id.ID == other.ID && id.Key.Equal(other.Key)
}

// ErrIdentityChanged says that what an IdentityStore keeps is not what it had when it was
// loaded. The new identity is kept elsewhere; the error says where.
var ErrIdentityChanged = errors.New("the identity was changed meanwhile")

// IdentityStore keeps an Identity between runs. [IdentityFile] is one. Several
// Clients, and several processes, may use what it keeps at the same time.
type IdentityStore interface {
	// Lock keeps others from loading, making and replacing the identity until
	// unlock is called. It waits for them until ctx ends. A Client holds the lock
	// while it loads, and while it registers, and never while it sends files.
	Lock(ctx context.Context) (unlock func(), err error)
	// Load returns the identity, or nil if none is kept.
	Load() (*Identity, error)
	// Reserve makes certain that Save can keep id in the place of old, before
	// id is asked for: a name can be registered once only. Its ID is not known
	// yet. Save or unlock ends the reservation. The caller holds the lock.
	Reserve(id Identity, old *Identity) error
	// Save keeps id, durably, in the place of old, which Load has returned. It
	// is called as soon as the server has given the id. The old one is kept as
	// well, somewhere else. Where another than old is found, it stays, and id is
	// kept somewhere else: an ErrIdentityChanged. The caller holds the lock.
	Save(id Identity, old *Identity) error
	// Confirm notes that a server has acknowledged the public key of id, whose
	// KeyPending is false from now on. It may be called without the lock.
	Confirm(id Identity) error
}

// IdentityFile keeps an identity in a me.info: three lines with the name, the
// id in 32 hex digits and the private key as PKCS#8 in Base64, readable by its
// owner only. Files of other implementations are read as well; one that makes
// no sense is an error and stays as it is. Where path is a symbolic link, the
// file that it leads to is meant.
//
// Beside the file stand: me.info.lock, which is locked and empty; me.info.pending
// while no server has acknowledged the public key; and each identity that was
// replaced, as me.info.<its id>. The key for TLS connections is in me.key, and is made
// at the first of them. A priv.key beside path that holds the same key
// follows when the key changes.
func IdentityFile(path string) IdentityStore {
	return &identityFile{path: path, held: make(chan struct{}, 1)}
}

type identityFile struct {
	path string
	held chan struct{} // holds an element while a Client of this process has the lock

	// What follows belongs to whoever has the lock.
	unlocked error // why there is no lock: then nothing may be made or replaced
	room     *room // nil: none is reserved
}

// room is what Reserve has made ready.
type room struct {
	me    *infofile.Reservation    // nil: used
	kept  string                   // the copy of what is to be replaced, if it was made now
	copy  *infofile.PrivateKeyFile // priv.key, if it is to follow
	key   *infofile.Reservation    // of priv.key, or nil
	saved bool                     // an identity was
}

// Lock takes the lock. Where the lock cannot be had, in a folder that cannot be
// written or on a full disk, an identity can still be loaded, and not be made.
func (f *identityFile) Lock(ctx context.Context) (func(), error) {
	select {
	case f.held <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	unlock := func() {}
	file, err := infofile.Follow(f.path)
	if err == nil {
		var u func()
		if u, err = infofile.Lock(ctx, file); err == nil {
			unlock = u
			if _, missing := os.Lstat(file); errors.Is(missing, fs.ErrNotExist) {
				infofile.Recover(file)
			}
		}
	}
	if err != nil && ctx.Err() != nil {
		<-f.held
		return nil, context.Cause(ctx)
	}
	f.unlocked = err
	return func() {
		f.release()
		unlock()
		<-f.held
	}, nil
}

// release gives back what is reserved.
func (f *identityFile) release() {
	if f.room == nil {
		return
	}
	for _, r := range []*infofile.Reservation{f.room.me, f.room.key} {
		if r != nil {
			r.Discard()
		}
	}
	if f.room.kept != "" && !f.room.saved {
		os.Remove(f.room.kept) // what it is a copy of has stayed
	}
	f.room = nil
}

func (f *identityFile) Load() (*Identity, error) {
	file, err := infofile.Follow(f.path)
	if err != nil {
		return nil, err
	}
	return load(file)
}

func load(file string) (*Identity, error) {
	me, err := infofile.ReadMe(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &Identity{Name: me.Name, ID: me.ID, Key: me.Key, KeyPending: infofile.IsPending(file, me.ID)}, nil
}

func (f *identityFile) Reserve(id Identity, old *Identity) (err error) {
	if f.unlocked != nil {
		return f.unlocked
	}
	file, err := infofile.Follow(f.path)
	if err != nil {
		return err
	}
	f.release()
	infofile.Recover(file)
	f.room = new(room)
	defer func() {
		if err != nil {
			f.release()
		}
	}()
	if old != nil {
		kept, made, err := infofile.Keep(file, old.ID.String())
		if err != nil {
			return err
		}
		if made {
			f.room.kept = kept
		}
		if f.room.copy = infofile.FindPrivateKeyFile(f.path, old.Key); f.room.copy != nil {
			if f.room.key, err = f.room.copy.Reserve(id.Key); err != nil {
				return err
			}
		}
	}
	text, err := infofile.Me{Name: id.Name, ID: id.ID, Key: id.Key}.Text()
	if err != nil {
		return err
	}
	f.room.me, err = infofile.Reserve(file, text)
	return err
}

func (f *identityFile) Save(id Identity, old *Identity) error {
	if f.room == nil {
		if err := f.Reserve(id, old); err != nil {
			return err
		}
	}
	file, err := infofile.Follow(f.path)
	if err != nil {
		return err
	}
	text, err := infofile.Me{Name: id.Name, ID: id.ID, Key: id.Key}.Text()
	if err != nil {
		return err
	}
	me := f.room.me
	f.room.me, f.room.saved = nil, true // even if it fails: the server has given the id
	if now, err := load(file); err != nil || now != nil && (old == nil || !now.is(*old)) {
		elsewhere := file + "." + id.ID.String()
		me.Redirect(elsewhere)
		if commitErr := me.Commit(text); commitErr != nil {
			return fmt.Errorf("%w: %s: %w", ErrIdentityChanged, f.path, commitErr)
		}
		return fmt.Errorf("%w: %s stays as it is, and the new one is in %s", ErrIdentityChanged, f.path, elsewhere)
	}
	if id.KeyPending {
		// Without this note the client begins with a 1027. The 1606 to that leads to
		// the same 1026, so a note that cannot be written is no reason to end.
		_ = infofile.MarkPending(file, id.ID)
	}
	if err := me.Commit(text); err != nil {
		return err
	}
	if f.room.key != nil {
		return f.follow(id.Key)
	}
	return nil
}

// follow puts the key into priv.key.
func (f *identityFile) follow(key *rsa.PrivateKey) error {
	r := f.room.key
	f.room.key = nil
	content, err := f.room.copy.Content(key)
	if err == nil {
		err = r.Commit(content)
	}
	return err
}

func (f *identityFile) Confirm(id Identity) error {
	file, err := infofile.Follow(f.path)
	if err != nil {
		return err
	}
	return infofile.ClearPending(file, id.ID)
}

// TLSKey returns the key in me.key, which is made if it is missing.
func (f *identityFile) TLSKey(ctx context.Context) (ed25519.PrivateKey, error) {
	file, err := infofile.Follow(f.path)
	if err != nil {
		return nil, err
	}
	return infofile.LoadTLSKey(ctx, file)
}

// noIdentity keeps nothing.
type noIdentity struct{}

func (noIdentity) Lock(context.Context) (func(), error) { return func() {}, nil }
func (noIdentity) Load() (*Identity, error)             { return nil, nil }
func (noIdentity) Reserve(Identity, *Identity) error    { return nil }
func (noIdentity) Save(Identity, *Identity) error       { return nil }
func (noIdentity) Confirm(Identity) error               { return nil }
