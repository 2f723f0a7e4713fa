package client

import (
	"context"
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
}

// Dial returns a Client with a connection to o.Server. It tries as often as
// for any message; the error is an [Error] then, and a plain one where the
// options make no sense.
func Dial(ctx context.Context, o Options) (*Client, error) { return dial(ctx, o, nil) }

// dial is Dial for a server of which p is known; nil: what o.Known has.
func dial(ctx context.Context, o Options, p *peer) (*Client, error) {
	o.setDefaults()
	address, err := ServerAddress(o.Server)
	if err != nil {
		return nil, err
	}
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
	tries := 0
	var id codec.ClientID
	err = c.ask(ctx, codec.CodeRegister, func(cn *conn) error {
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
	c.identity, c.hasKey = Identity{Name: name, ID: id, Key: key}, false
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
	return c.ask(ctx, codec.CodePublicKey, func(cn *conn) error {
		r, err := c.exchange(ctx, cn, codec.CodePublicKey, msg)
		if err != nil {
			return err
		}
		return c.takeKey(cn, r, codec.CodeAESKey)
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
	c.identity, c.hasKey = id, false
	msg := codec.Reconnect{Name: []byte(id.Name)}.Append(nil, id.ID)
	return c.ask(ctx, codec.CodeReconnect, func(cn *conn) error {
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
	return nil
}

// Login is what [Client.Login] did.
type Login struct {
	Identity   Identity
	Registered bool // now, and not earlier
	Rejected   bool // the identity that was kept, with 1606; implies Registered
}

// Login brings the client to where it can send files. An identity in
// Options.Identity reconnects; where there is none, or the server rejects it,
// the client registers, under the name of the rejected one or Options.Name, and
// exchanges a key. A server that has rejected it with a new id has registered
// the name under that: the client takes the id, and registers only if the
// server then wants no key for it.
func (c *Client) Login(ctx context.Context) (Login, error) {
	store := c.identities()
	kept, err := store.Load()
	if err != nil {
		return Login{}, err
	}
	if kept == nil {
		return c.register(ctx, c.opts.Name)
	}
	if err := c.Reconnect(ctx, *kept); !errors.Is(err, ErrRejected) {
		return Login{Identity: *kept}, err
	}
	return c.registerAnew(ctx, *kept)
}

func (c *Client) identities() IdentityStore {
	if c.opts.Identity == nil {
		return noIdentity{}
	}
	return c.opts.Identity
}

// register registers under name, keeps who we are, and exchanges a key.
func (c *Client) register(ctx context.Context, name string) (Login, error) {
	id, err := c.Register(ctx, name)
	if err != nil {
		return Login{Identity: id}, err
	}
	l := Login{Identity: id, Registered: true}
	if err := c.keep(id); err != nil {
		return l, err
	}
	return l, c.ExchangeKey(ctx)
}

func (c *Client) keep(id Identity) error {
	if err := c.identities().Save(id); err != nil {
		return fmt.Errorf("%q is registered as %v, but that could not be kept: %w", id.Name, id.ID, err)
	}
	return nil
}

// registerAnew is for an identity that the server has just rejected.
func (c *Client) registerAnew(ctx context.Context, old Identity) (Login, error) {
	c.log.Warn("the server rejected the reconnect (1606): registering again", "name", old.Name, "id", old.ID)
	if err := c.identities().Delete(); err != nil {
		return Login{Identity: old, Rejected: true}, err
	}
	l, err := Login{}, error(nil)
	adopted := false
	if !c.offered.IsZero() && c.conn != nil {
		l, adopted, err = c.adopt(ctx, old.Name, c.offered)
	}
	if err == nil && !adopted {
		l, err = c.register(ctx, old.Name)
	}
	l.Rejected = true
	return l, err
}

// adopt takes an id that came in a 1606: it sends a new public key under it, on
// the same connection and once. ok is false if the server does not take that.
func (c *Client) adopt(ctx context.Context, name string, offered codec.ClientID) (l Login, ok bool, err error) {
	key, err := keys.Generate()
	if err != nil {
		return l, false, err
	}
	id := Identity{Name: name, ID: offered, Key: key}
	if err := c.keep(id); err != nil {
		return l, false, err
	}
	c.identity, c.hasKey = id, false
	msg, err := c.publicKey()
	if err != nil {
		return l, false, err
	}
	r, err := c.exchange(ctx, c.conn, codec.CodePublicKey, msg)
	if err == nil {
		err = c.takeKey(c.conn, r, codec.CodeAESKey)
	}
	if err == nil {
		return Login{Identity: id, Registered: true}, true, nil
	}
	if ctx.Err() != nil {
		c.drop()
		return l, false, &Error{Code: codec.CodePublicKey, Attempts: 1, Err: context.Cause(ctx)}
	}
	c.log.Warn("the server takes no key under the id of its 1606", "id", offered, "because", err)
	if !errors.Is(err, ErrServer) && (r.code != codec.CodeReconnectRejected || r.odd != "") {
		c.drop() // it is uncertain who we are there
	}
	return l, false, c.identities().Delete()
}

// sharesIdentity reports whether other Clients of a Run may get an AES key for
// the identity at any time. A connection of this one that only resumes then goes
// on with another key than its own.
func (c *Client) sharesIdentity() bool { return c.mix != nil }

// drop ends the connection, if there is one.
func (c *Client) drop() {
	if c.conn != nil {
		c.conn.close()
		c.conn = nil
	}
}

// connect makes a connection if there is none that can be used.
func (c *Client) connect(ctx context.Context) error {
	if c.conn != nil {
		err := c.conn.usable()
		if err == nil {
			return nil
		}
		c.log.Debug("new connection", "because", err)
		c.drop()
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.DialTimeout)
	defer cancel()
	defer c.notice("a connection to "+c.address, c.opts.DialTimeout).Stop()
	nc, err := c.opts.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return unreachable{c.address, err}
	}
	c.log.Debug("connected", "server", nc.RemoteAddr())
	c.conn = newConn(nc)
	return nil
}

// retry runs try on a usable connection until it succeeds or has failed too
// often, as the protocol wants it after a 1607 and a lost connection. Other
// errors end it at once. code is the message that try sends.
func (c *Client) retry(ctx context.Context, code codec.Code, try func(*conn) error) error {
	for attempt := 1; ; attempt++ {
		err := c.connect(ctx)
		if err == nil {
			c.attempt = attempt
			err = try(c.conn)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			c.drop()
			return &Error{Code: code, Attempts: attempt, Err: context.Cause(ctx)}
		}
		if e := (*Error)(nil); errors.As(err, &e) {
			return e // of a message that try needed first, with its own retries
		}
		if isFirst(code) && c.otherCodes(ctx, err, attempt) {
			attempt = 0
			continue
		}
		if errors.Is(err, ErrConnection) {
			c.drop()
		} else if !errors.Is(err, ErrServer) {
			return &Error{Code: code, Attempts: attempt, Err: err}
		}
		if attempt > c.opts.Retries {
			return &Error{Code: code, Attempts: attempt, Err: err}
		}
		wait := c.opts.Backoff(attempt)
		c.log.Warn("trying again", "message", step(code), "retry", attempt, "of", c.opts.Retries, "because", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// otherCodes finds out, if it is time for that, whether a first message has
// failed because the server numbers its requests otherwise.
func (c *Client) otherCodes(ctx context.Context, err error, attempt int) bool {
	last := attempt > c.opts.Retries
	if errors.Is(err, errOtherCodes) {
		c.drop()
		return true
	}
	if errors.As(err, new(unreachable)) || !errors.Is(err, ErrServer) && !errors.Is(err, ErrConnection) || !c.peer.mayFindCodes(last || isSilence(err) && attempt > 1) {
		return false
	}
	c.drop() // the server may serve one connection at a time
	return c.findCodes(ctx, errors.Is(err, ErrServer), false)
}

// ask is retry for a message that one reply answers.
func (c *Client) ask(ctx context.Context, code codec.Code, try func(*conn) error) error {
	return c.retry(ctx, code, func(cn *conn) error {
		cn.acked = false
		return try(cn)
	})
}

// exchange sends msg and returns the reply to it. A 1607 is an ErrServer.
func (c *Client) exchange(ctx context.Context, cn *conn, code codec.Code, msg []byte) (reply, error) {
	defer context.AfterFunc(ctx, cn.close)()
	codes := c.peer.number()
	codes.put(msg, code)
	c.log.Debug("sent", "message", code, "bytes", len(msg))
	var r reply
	began := time.Now()
	err := c.write(cn, msg)
	if err == nil {
		r, err = c.await(ctx, cn, code, c.opts.ReplyTimeout)
	} else {
		r, err = cn.afterFailedWrite(ctx, err)
	}
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
		c.log.Debug("the server's reply has a wrong header, taken for what its code says", "message", r.code, "because", r.odd)
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
