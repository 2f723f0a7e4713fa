package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"sealift/codec"
	"sealift/crypto/keys"
)

// Login is what [Client.Login] did.
type Login struct {
	Identity   Identity
	Registered bool // now, and not earlier
	Rejected   bool // the identity that was kept, with 1606
}

// Login brings the client to where it can send files. An identity in
// Options.Identity reconnects (1027), or sends its public key (1026) if no server
// has acknowledged that yet. Where there is none, the client registers under
// Options.Name, without blanks at its ends, and exchanges a key.
//
// Where the server rejects the identity (1606), the client registers under the
// same name; the old identity stays until the new one is kept. If the name is
// taken (1601), it sends the public key under the id that the 1606 offers, if
// that is another, and then under its own: the server may know the id and lack
// the key. If nothing of that works, the identity stays as it was, and the error
// is an ErrRejected and an ErrNameTaken.
//
// Several processes may log in with one identity at once: one of them registers,
// and the others use what it has got.
func (c *Client) Login(ctx context.Context) (Login, error) {
	unlock, err := c.lock(ctx)
	if err != nil {
		return Login{}, err
	}
	defer unlock()
	kept, err := c.identities().Load()
	if err != nil {
		return Login{}, err
	}
	if kept == nil {
		id, err := c.makeIdentity(ctx, strings.TrimSpace(c.opts.Name), nil)
		if err != nil {
			return Login{}, err
		}
		unlock()
		return c.enter(ctx, Login{Identity: id, Registered: true})
	}
	unlock()
	return c.comeBack(ctx, *kept)
}

func (c *Client) identities() IdentityStore {
	if c.opts.Identity == nil {
		return noIdentity{}
	}
	return c.opts.Identity
}

// lockGrace is how long a connection is held while another process has the lock
// of the identity. A server may serve one connection at a time: ours must not
// keep it from that process.
const lockGrace = 100 * time.Millisecond

// lock takes the lock of the identity. unlock may be called again.
func (c *Client) lock(ctx context.Context) (unlock func(), err error) {
	if c.conn != nil {
		defer time.AfterFunc(lockGrace, c.conn.close).Stop()
	}
	defer c.noticeEndless("another process that makes or replaces the identity").Stop()
	unlock, err = c.identities().Lock(ctx)
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(unlock), nil
}

// makeIdentity registers under name and keeps who we are, in the place of old.
// The caller holds the lock.
func (c *Client) makeIdentity(ctx context.Context, name string, old *Identity) (Identity, error) {
	if err := CheckUserName(name); err != nil {
		return Identity{}, err
	}
	key, err := keys.Generate()
	if err != nil {
		return Identity{}, err
	}
	if err := c.identities().Reserve(Identity{Name: name, Key: key, KeyPending: true}, old); err != nil {
		return Identity{}, fmt.Errorf("the identity could not be kept, so nothing was registered: %w", err)
	}
	id, err := c.registerKey(ctx, name, key)
	if err != nil {
		return Identity{}, err
	}
	return id, c.keep(id, old)
}

func (c *Client) keep(id Identity, old *Identity) error {
	if err := c.identities().Save(id, old); err != nil {
		return fmt.Errorf("%q is registered as %v, but that could not be kept: %w", id.Name, id.ID, err)
	}
	return nil
}

// maxReplaced is how often a client takes another identity in the place of one
// that the server rejects: one that another process has put there, or a new one.
const maxReplaced = 5

// comeBack brings the client to where it can send files as id, or as who takes
// its place if the server rejects it.
func (c *Client) comeBack(ctx context.Context, id Identity) (Login, error) {
	return c.enter(ctx, Login{Identity: id})
}

// enter is comeBack for who has logged in so far as l says.
func (c *Client) enter(ctx context.Context, l Login) (Login, error) {
	for n := 0; ; n++ {
		refused, err := c.rejoin(ctx, l.Identity, l.Registered)
		if !errors.Is(err, ErrRejected) || n == maxReplaced {
			return l, err
		}
		fresh := l.Registered
		l, err = c.replace(ctx, l.Identity)
		if fresh && refused != nil && errors.Is(err, ErrNameTaken) {
			// It is the server that has just given the id: it lacks the key alone,
			// and may take it later.
			l.Registered = true
			return l, refused
		}
		if err != nil || c.hasKey {
			return l, err
		}
	}
}

// rejoin takes an AES key as id: by a 1026 if the server may have no key of it,
// or else by a 1027. If the 1026 is refused, a 1027 shows whether the server, which
// may be another by now, knows the id. Where a refusal is final (without
// Options.RetryFor), one that has just registered does not ask. refused is the
// error of a 1026 that was refused.
func (c *Client) rejoin(ctx context.Context, id Identity, registered bool) (refused, err error) {
	if !id.KeyPending {
		return nil, c.Reconnect(ctx, id)
	}
	c.identity, c.hasKey = id, false
	err = c.ExchangeKey(ctx)
	if err == nil || !isRefusal(err) || registered && c.opts.RetryFor <= 0 {
		return nil, err
	}
	c.log.Warn("the server takes no key under our id: reconnecting", "id", id.ID, "because", err)
	return err, c.Reconnect(ctx, id)
}

// isRefusal reports whether the server has answered, and not with what was
// asked for.
func isRefusal(err error) bool {
	return errors.Is(err, ErrServer) || errors.Is(err, ErrReply) && !errors.Is(err, ErrConnection)
}

// replace is for an identity that the server has just rejected. It returns who is
// in its place: whom another process has put there, or who has registered now. The
// client has no key yet then, or it has one if it was a matter of the key alone.
func (c *Client) replace(ctx context.Context, old Identity) (Login, error) {
	offered := c.offered
	l := Login{Identity: old, Rejected: true}
	unlock, err := c.lock(ctx)
	if err != nil {
		return l, err
	}
	defer unlock()
	now, err := c.identities().Load()
	if err != nil {
		return l, err
	}
	if now != nil && !now.is(old) {
		c.log.Warn("the server rejected the reconnect (1606), and another process has registered again since", "name", now.Name, "id", now.ID)
		return Login{Identity: *now}, nil
	}
	c.log.Warn("the server rejected the reconnect (1606): registering again", "name", old.Name, "id", old.ID)
	id, err := c.makeIdentity(ctx, old.Name, now)
	if err == nil {
		l.Identity, l.Registered = id, true
		return l, nil
	}
	if !errors.Is(err, ErrNameTaken) {
		return l, err
	}
	id, err = c.claim(ctx, old, now, offered, err)
	l.Identity, l.Registered = id, err == nil && id.ID != old.ID
	return l, err
}

// claim is for a rejected identity whose name is taken. The server may have
// registered the name under the id that it has offered in its 1606, or know our
// id and lack our key: a 1026 shows it. The key is the kept one, so whichever
// reply is lost, it is on our disk. now is what is kept. The caller holds the
// lock. The error wraps taken.
func (c *Client) claim(ctx context.Context, old Identity, now *Identity, offered codec.ClientID, taken error) (Identity, error) {
	for _, under := range []codec.ClientID{offered, old.ID} {
		if under.IsZero() || under == old.ID && old.KeyPending {
			continue // no id, or it was tried before
		}
		id := old
		id.ID = under
		c.log.Warn("the name is taken (1601): sending our public key", "name", id.Name, "id", id.ID)
		c.identity, c.hasKey = id, false
		err := c.ExchangeKey(ctx)
		if err == nil && id.ID != old.ID {
			err = c.keep(id, now)
		}
		if err == nil {
			return c.identity, nil
		}
		if !isRefusal(err) {
			c.identity = old
			return old, err
		}
		c.log.Debug("the server takes no key under an id", "id", under, "because", err)
	}
	c.identity = old
	return old, &Error{Code: codec.CodeReconnect, Attempts: 1, Err: fmt.Errorf(
		"%w under id %v, and %w. The identity stays as it was. Is this the server that it is from? "+
			"If so, ask its operator about the name; else use another identity file, and another name", ErrRejected, old.ID, taken)}
}
