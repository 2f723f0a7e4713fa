package client

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sealift/codec"
	"sealift/crypto/keys"
)

// Client talks to one server as one user. One goroutine at a time may use it.
type Client struct {
	opts     Options
	address  string
	log      *slog.Logger
	conn     *conn // nil while there is none
	identity Identity
	aesKey   [keys.AESKeySize]byte
	hasKey   bool
	mix      *mixer // shared with the other Clients of a Run, or nil
	peer     *peer  // shared with the other Clients of a Run

	quiet   bool           // says nothing while it waits
	slowest time.Duration  // the longest that a reply to anything but a file took
	attempt int            // of the message under way: 1, 2, …
	offered codec.ClientID // in the last 1606; zero if there was none, or it was ours
	line    line           // what the last connections came to

	advanced bool // the server has more of the file than when it was asked last: failures before do not count
}

// Dial returns a Client with a connection to o.Server. It tries as often as
// for any message; the error is an [Error] then, and a plain one where the
// options make no sense.
func Dial(ctx context.Context, o Options) (*Client, error) { return dial(ctx, o, nil) }

// dial is Dial for a server of which p is known; nil: what o.Known has.
func dial(ctx context.Context, o Options, p *peer) (*Client, error) {
	o.setDefaults()
	at, err := ParseServer(o.Server)
	if err != nil {
		return nil, err
	}
	address := at.Address
	if int(o.Dialect) >= len(dialectNames) {
		return nil, fmt.Errorf("unknown dialect %d", o.Dialect)
	}
	if int(o.Codes) >= len(codesNames) {
		return nil, fmt.Errorf("unknown codes %d", o.Codes)
	}
	if o.PacketSize < 0 || int64(o.PacketSize) > maxBody {
		return nil, fmt.Errorf("packet size %d: want 1 to %d bytes", o.PacketSize, int64(maxBody))
	}
	if o.PacketSize > 0 && o.Dialect == Single {
		return nil, errors.New("the single dialect has one packet: it takes no packet size")
	}
	if p == nil {
		p = newPeer(ctx, &o, address)
		if p.guard, err = newGuard(ctx, &o, at); err != nil {
			return nil, err
		}
	}
	c := &Client{opts: o, address: address, log: o.Logger, peer: p}
	if err := c.retry(ctx, 0, func(*conn) error { return nil }); err != nil {
		return nil, err
	}
	return c, nil
}

// Close ends the connection. It never fails; the error is there for io.Closer.
func (c *Client) Close() error {
	c.drop()
	return nil
}

// Identity returns who the client is; the zero value before it has registered
// or reconnected.
func (c *Client) Identity() Identity { return c.identity }

// Register asks for an id under name (1025) and makes a new key pair for it.
// The identity should be kept at once: the name cannot be registered again. A
// server that refuses the name gives ErrNameTaken.
//
// When a connection is lost between the server's registering and its answer,
// the second try finds the name taken by the first. Nothing in the protocol
// can tell; the error says that it may be so.
func (c *Client) Register(ctx context.Context, name string) (Identity, error) {
	if err := CheckUserName(name); err != nil {
		return Identity{}, err
	}
	key, err := keys.Generate()
	if err != nil {
		return Identity{}, err
	}
	return c.registerKey(ctx, name, key)
}

// registerKey is Register for a key that is there already.
func (c *Client) registerKey(ctx context.Context, name string, key *rsa.PrivateKey) (Identity, error) {
	tries := 0
	var id codec.ClientID
	err := c.retry(ctx, codec.CodeRegister, func(cn *conn) error {
		tries++
		r, err := c.exchange(ctx, cn, codec.CodeRegister, codec.Register{Name: []byte(name)}.Append(nil))
		if err != nil {
			return err
		}
		switch r.code {
		case codec.CodeRegistered:
			c.peer.answered(ctx)
			rep, err := codec.ParseIDReply(r.code, r.payload)
			id = rep.ID
			return err
		case codec.CodeRegisterFailed:
			c.peer.answered(ctx)
			if tries > 1 {
				return fmt.Errorf("%w; an earlier try whose answer was lost may have registered it for us: choose another name", ErrNameTaken)
			}
			return ErrNameTaken
		}
		return c.wrong(r, codec.CodeRegistered)
	})
	if err != nil {
		return Identity{}, err
	}
	c.identity, c.hasKey = Identity{Name: name, ID: id, Key: key, KeyPending: true}, false
	return c.identity, nil
}

// ExchangeKey sends the public key (1026) and takes the AES key of the answer.
func (c *Client) ExchangeKey(ctx context.Context) error {
	if c.identity.Key == nil {
		return ErrNotLoggedIn
	}
	msg, err := c.publicKey()
	if err != nil {
		return err
	}
	return c.retry(ctx, codec.CodePublicKey, func(cn *conn) error {
		r, err := c.exchange(ctx, cn, codec.CodePublicKey, msg)
		if err != nil {
			return err
		}
		if err := c.takeKey(cn, r, codec.CodeAESKey); err != nil {
			return err
		}
		c.peer.answered(ctx)
		return nil
	})
}

// publicKey makes the 1026 of the client.
func (c *Client) publicKey() ([]byte, error) {
	pub, err := keys.MarshalPublic(&c.identity.Key.PublicKey)
	if err != nil {
		return nil, err
	}
	return codec.PublicKey{Name: []byte(c.identity.Name), Key: pub[:]}.Append(nil, c.identity.ID), nil
}

// Reconnect comes back as id (1027) and takes the AES key of the answer. A
// server that does not know the client, or has no public key of it, gives
// ErrRejected; the client has to register again then.
func (c *Client) Reconnect(ctx context.Context, id Identity) error {
	if id.Key == nil {
		return ErrNotLoggedIn
	}
	if err := codec.CheckName(id.Name); err != nil {
		return nameError("user", id.Name, err)
	}
	if c.conn != nil && c.peer.guard.shows() && c.conn.claims != id.ID {
		c.drop() // the next one has a certificate for this id
	}
	c.identity, c.hasKey = id, false
	msg := codec.Reconnect{Name: []byte(id.Name)}.Append(nil, id.ID)
	return c.retry(ctx, codec.CodeReconnect, func(cn *conn) error {
		r, err := c.exchange(ctx, cn, codec.CodeReconnect, msg)
		if err != nil {
			return err
		}
		if r.code == codec.CodeReconnectRejected {
			c.peer.answered(ctx)
			c.rejected(r)
			return ErrRejected
		}
		if err := c.takeKey(cn, r, codec.CodeReconnected); err != nil {
			return err
		}
		c.peer.answered(ctx)
		return nil
	})
}

// rejected looks at a 1606. Some servers put another id than ours into it, or
// none.
func (c *Client) rejected(r reply) {
	c.offered = codec.ClientID{}
	if r.payload != nil && codec.ClientID(r.payload) != c.identity.ID {
		c.offered = codec.ClientID(r.payload)
		c.log.Debug("the server rejects us under another id than ours", "id", c.offered)
	}
	if r.odd != "" {
		c.drop()
	}
}

// takeKey reads a 1602 or 1605, whichever is due, that came over cn.
func (c *Client) takeKey(cn *conn, r reply, due codec.Code) error {
	if r.code != due {
		return c.wrong(r, due)
	}
	k, err := codec.ParseKeyReply(r.code, r.payload)
	if err != nil {
		return err
	}
	if err := r.checkID(k.ID, c.identity.ID); err != nil {
		return err
	}
	key, err := keys.Unwrap(c.identity.Key, k.WrappedKey)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	c.aesKey, c.hasKey, cn.keyed = key, true, true
	c.confirmed()
	return nil
}

// confirmed notes that the server has our public key.
func (c *Client) confirmed() {
	if !c.identity.KeyPending {
		return
	}
	c.identity.KeyPending = false
	if err := c.identities().Confirm(c.identity); err != nil {
		// The next run begins with a 1026 once more, which does no harm.
		c.log.Debug("that the server has our public key could not be noted", "because", err)
	}
}

// drop ends the connection, if there is one.
func (c *Client) drop() {
	if c.conn != nil {
		c.conn.close()
		c.conn = nil
	}
}

// exchange sends msg and returns the reply to it. A 1607 is an ErrServer.
func (c *Client) exchange(ctx context.Context, cn *conn, code codec.Code, msg []byte) (reply, error) {
	return c.exchangeWithin(ctx, cn, code, msg, c.opts.ReplyTimeout)
}

// exchangeWithin is exchange for a reply that may take that long.
func (c *Client) exchangeWithin(ctx context.Context, cn *conn, code codec.Code, msg []byte, limit time.Duration) (reply, error) {
	defer context.AfterFunc(ctx, cn.close)()
	codes := c.peer.number()
	codes.put(msg, code)
	c.log.Debug("sent", "message", code, "bytes", len(msg))
	var r reply
	began := time.Now()
	err := c.write(cn, msg)
	if err == nil {
		r, err = c.await(ctx, cn, code, limit)
	} else {
		r, err = cn.afterFailedWrite(ctx, err)
	}
	c.noted(cn, r, err)
	if err != nil {
		return reply{}, err
	}
	c.slowest = max(c.slowest, time.Since(began))
	return r, c.heard(r)
}

// heard logs a reply, and makes an error of a 1607.
func (c *Client) heard(r reply) error {
	c.log.Debug("received", "message", r.code, "bytes", len(r.raw))
	if r.odd != "" {
		c.log.Debug("reply header is wrong; payload read by its code", "message", r.code, "because", r.odd)
	}
	if r.code != codec.CodeError {
		return nil
	}
	if r.odd != "" {
		c.drop()
	}
	return ErrServer
}

// wrong makes an error of a reply whose code has no place here.
func (c *Client) wrong(r reply, due codec.Code) error {
	return r.surprise("a %v came where a %v was due", r.code, due)
}
