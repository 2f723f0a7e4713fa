package eventloop

import (
	"container/list"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"

	"sealift/session"
)

const (
	// maxHandshakes is how many handshakes may be under way, each with a goroutine and
	// about 35 KiB of memory, and maxOfSource how many of one address, or IPv6 network of
	// 64 bits.
	maxHandshakes = 512
	maxOfSource   = maxHandshakes / 4
	// patience is how long a handshake may wait for its client while another waits for
	// its place.
	patience = time.Second
)

// handshakes gives places to handshakes whose hello is whole. Sources that wait for one
// have turns. Of the clients of one source the last comes first: it is the least likely
// to have left. A handshake that waits for its client keeps its place, but not longer
// than patience if there are others in line, so those that were begun and left hold
// nobody up. All methods may be called from any goroutine.
type handshakes struct {
	// computing has a token for each handshake that computes, and does not wait for its
	// client: a core is left to the others.
	computing chan struct{}

	mu      sync.Mutex
	free    int // places
	waiting int // connections in line
	from    map[netip.Addr]*party
	turns   list.List // of *party: those that have clients in line, and may have another place
}

// party is the clients of one source that have a place, or wait for one.
type party struct {
	places int
	line   list.List     // of *conn, the last to come in front
	turn   *list.Element // in turns, or nil
}

// seat is what the handshakes know of a connection. Under their lock.
type seat struct {
	place bool          // it has a place
	line  *list.Element // in its party's line, or nil
}

func newHandshakes() *handshakes {
	return &handshakes{
		computing: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		free:      maxHandshakes, from: make(map[netip.Addr]*party),
	}
}

// join puts a connection in line. When it has a place, its handshake begins.
func (h *handshakes) join(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.from[c.ip]
	if p == nil {
		p = &party{}
		h.from[c.ip] = p
	}
	c.tls.seat.line = p.line.PushFront(c)
	h.waiting++
	h.serve(p)
}

// leave takes a connection out of the line, if it is there.
func (h *handshakes) leave(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := c.tls.seat.line; e != nil {
		p := h.from[c.ip]
		p.line.Remove(e)
		h.waiting--
		c.tls.seat.line = nil
		h.serve(p)
		h.forget(c.ip)
	}
}

// done takes back the place of a connection.
func (h *handshakes) done(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.from[c.ip]
	c.tls.seat.place = false
	p.places--
	h.free++
	h.serve(p)
	h.forget(c.ip)
}

// serve sees whether p has a turn, and gives the places that are free to those that
// have. Holds mu.
func (h *handshakes) serve(p *party) {
	switch waits := p.line.Len() > 0 && p.places < maxOfSource; {
	case waits && p.turn == nil:
		p.turn = h.turns.PushBack(p)
	case !waits && p.turn != nil:
		h.turns.Remove(p.turn)
		p.turn = nil
	}
	for h.free > 0 && h.turns.Len() > 0 {
		next := h.turns.Remove(h.turns.Front()).(*party)
		next.turn = nil
		c := next.line.Remove(next.line.Front()).(*conn)
		c.tls.seat = seat{place: true}
		h.waiting--
		next.places++
		h.free--
		if next.line.Len() > 0 && next.places < maxOfSource {
			next.turn = h.turns.PushBack(next)
		}
		c.post(c.beginHandshake)
	}
}

// forget drops the party of a source that has none. Holds mu.
func (h *handshakes) forget(ip netip.Addr) {
	if p := h.from[ip]; p.places == 0 && p.line.Len() == 0 {
		delete(h.from, ip)
	}
}

// crowded reports whether another connection would have a place if one of ip left its
// own.
func (h *handshakes) crowded(ip netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.from[ip]
	return h.turns.Len() > 0 || p != nil && p.line.Len() > 0
}

// beginHandshake begins the handshake of a connection that has a place. On the loop.
func (c *conn) beginHandshake() {
	t, srv := c.tls, c.lp.srv
	if c.phase != shaking { // it has ended meanwhile
		srv.handshakes.done(c)
		return
	}
	t.step = shakingHands
	p, _ := c.gc.Peek(-1)
	t.wire.begin(c, append([]byte(nil), p...), srv.opts.TLS.MaxCertificate+besideCertificate)
	_, _ = c.gc.Discard(len(p))
	c.since = srv.now() // the time in line does not count
	srv.begin()
	go func() {
		conn, ch, err := t.handshake(srv)
		t.wire.end()
		srv.handshakes.done(c)
		c.finish(func() { c.shaken(conn, ch, err) })
	}()
}

var errPanic = errors.New("panic")

// handshake does the handshake, on a goroutine of its own.
func (t *protection) handshake(srv *Server) (conn *tls.Conn, ch session.Channel, err error) {
	computing := srv.handshakes.computing
	computing <- struct{}{}
	defer func() {
		<-computing
		if p := recover(); p != nil {
			srv.opts.Log.Error("panic in a handshake", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			err = errPanic
		}
	}()
	config, channel := srv.opts.TLS.Config()
	conn = tls.Server(&t.wire, config)
	if err := conn.HandshakeContext(srv.ctx); err != nil {
		return conn, ch, err
	}
	ch, err = channel(conn.ConnectionState())
	if err != nil {
		err = fmt.Errorf("the client is not served: %w", err)
		_ = conn.CloseWrite() // there is no better alert
	}
	return conn, ch, err
}
