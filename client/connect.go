package client

import (
	"context"
	"errors"
	"net"
	"time"
)

// connect makes a connection if there is none that can be used.
func (c *Client) connect(ctx context.Context) error {
	if c.conn != nil {
		err := c.conn.usable()
		if err == nil || isForGood(err) {
			return err
		}
		c.log.Debug("new connection", "because", err)
		c.drop()
	}
	if c.peer.guard.mustMeet() {
		if err := c.meet(ctx); err != nil {
			return c.notMade(err)
		}
	}
	dialling, cancel := context.WithTimeout(ctx, c.opts.DialTimeout)
	defer cancel()
	defer c.notice("a connection to "+c.address, c.opts.DialTimeout).Stop()
	began := time.Now()
	who := c.certified(dialling)
	nc, err := c.open(dialling, who)
	if err != nil {
		return c.notMade(err)
	}
	c.log.Debug("connected", "server", nc.RemoteAddr(), "tls", c.peer.guard != nil)
	c.peer.warnPlain(nc)
	c.conn = newConn(nc)
	c.conn.claims = who.ID
	if p, ok := nc.(*protected); ok {
		c.peer.negotiated(p.ConnectionState().NegotiatedProtocol)
	}
	if !c.line.wary || c.opts.RetryFor <= 0 {
		return nil
	}
	defer context.AfterFunc(ctx, c.conn.close)()
	err = c.conn.unasked(min(max(unasked, 2*time.Since(began)), maxUnasked))
	if err == nil {
		return nil
	}
	c.drop()
	if errors.Is(err, ErrReply) {
		return err // whatever that is, it does not speak the protocol
	}
	return c.unreachable(err)
}

// meet makes the first contact with a server whose TLS key is not known. Afterwards it
// is, or the error says why not.
func (c *Client) meet(ctx context.Context) error {
	key, err := c.look(ctx)
	if err != nil {
		return err
	}
	return c.peer.guard.trust(ctx, key)
}

func (c *Client) look(ctx context.Context) (Fingerprint, error) {
	dialling, cancel := context.WithTimeout(ctx, c.opts.DialTimeout)
	defer cancel()
	defer c.notice("a connection to "+c.address, c.opts.DialTimeout).Stop()
	return c.peer.guard.look(dialling, c.opts.DialContext)
}

// certified returns who our certificate is for: who we are, or shall be after the login.
func (c *Client) certified(ctx context.Context) Identity {
	if !c.peer.guard.shows() || c.identity.Key != nil {
		return c.identity
	}
	kept, err := within(ctx, func() (*Identity, error) { return c.identities().Load() }, nil)
	if err != nil || kept == nil {
		return Identity{} // the login says what is wrong with it
	}
	return *kept
}

// open makes a connection, which is protected if those to the server are.
func (c *Client) open(ctx context.Context, who Identity) (net.Conn, error) {
	if c.peer.guard == nil {
		return c.opts.DialContext(ctx, "tcp", c.address)
	}
	return c.peer.guard.dial(ctx, c.opts.DialContext, who)
}

// notMade returns the error of a connection that was not made because of err.
func (c *Client) notMade(err error) error {
	if isForGood(err) {
		return err
	}
	return c.unreachable(err)
}

// isForGood reports whether err is about the protection of connections: all others
// would fail as this one did.
func isForGood(err error) bool {
	return errors.Is(err, ErrTLS) || errors.Is(err, ErrServerKey) || errors.Is(err, ErrKeyNotKept)
}

func (c *Client) unreachable(err error) error {
	if c.line.away.IsZero() {
		c.line.away = time.Now()
	}
	c.line.outages++
	return unreachable{c.address, err}
}

// Dialer returns how connections to o.Server are made without a [Client], protected as
// o.TLS says, and whether they are protected. The first contact with a server whose TLS
// key is not known is made now. Of o, Server, TLS, Identity, Known, DialTimeout and
// DialContext count.
func Dialer(ctx context.Context, o Options) (dial func(context.Context) (net.Conn, error), tls bool, err error) {
	o.setDefaults()
	at, err := ParseServer(o.Server)
	if err != nil {
		return nil, false, err
	}
	g, err := newGuard(ctx, &o, at)
	if err != nil {
		return nil, false, err
	}
	c := &Client{opts: o, address: at.Address, log: o.Logger, quiet: true, peer: &peer{guard: g}}
	if g.mustMeet() {
		if err := c.meet(ctx); err != nil {
			return nil, true, c.notMade(err)
		}
	}
	return func(ctx context.Context) (net.Conn, error) { return c.open(ctx, c.identity) }, g != nil, nil
}
