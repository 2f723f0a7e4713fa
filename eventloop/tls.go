package eventloop

import (
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"sealift/session"
)

// TLS and plain connections come to the same port. The first bytes of a connection say
// which it is (sniff). The hello of a TLS client, its first message, is gathered by the
// loop. Once it is whole, and the handshakes have a place, a goroutine does the
// handshake over memory (wire), and ends with it. From then on records are decrypted
// and made by whoever owns the connection: by its loop, or, while it is lent, by a
// worker (tls_records.go).

// protection is the TLS of one connection. It belongs to the connection's owner, but for
// wire during the handshake.
type protection struct {
	wire wire
	conn *tls.Conn // over wire, when the handshake is over
	step step      // the loop's
	over error     // nothing more comes from the client: io.EOF, or what is wrong
	key  string    // the fingerprint of the client's key, in short
	size int64     // bytes that are counted for it in Server.sealed. The loop's.
	seat seat      // among the handshakes
}

// step is how far the TLS of a connection has come. It only grows. Each may become
// abandoned when the connection ends.
type step uint8

const (
	// gathering: the hello is not whole. Queueing when it is.
	gathering step = iota
	// queueing: it waits for a place among the handshakes. ShakingHands when it has one.
	queueing
	// shakingHands: the handshake's goroutine runs. Protected when it has ended well.
	shakingHands
	// protected: records are decrypted and made.
	protected
	// abandoned: the connection ends, and nothing is decrypted or made any more. Final.
	abandoned
)

const (
	// maxHello is how many bytes a hello may take, with the headers of its records.
	maxHello = 16 << 10
	// handshakeTime is how long a handshake may take from the hello's first bytes on,
	// but for the time in line.
	handshakeTime = 10 * time.Second
	// DefaultMaxCertificate is TLS.MaxCertificate's default.
	DefaultMaxCertificate = 4 << 10
	// besideCertificate is how many bytes a client may send after its hello besides its
	// certificate: a signature by the largest RSA keys, and the headers of records.
	besideCertificate = 1 << 10
)

func (t *TLS) complete() error {
	if t.Config == nil {
		return errors.New("eventloop: TLS needs Config")
	}
	if t.MaxCertificate <= 0 {
		t.MaxCertificate = DefaultMaxCertificate
	}
	return nil
}

// kind is what the first bytes of a connection say about it.
type kind uint8

const (
	undecided kind = iota // they are too few
	plain
	hello
)

// sniffed is how many bytes decide at most.
const sniffed = 11

// sniff tells a TLS client from one of the plain protocol by the first bytes p. A hello
// is 16 03 xx LL LL 01 00 LL LL 03 0x: a record of type handshake (22), in it a
// ClientHello (1) of less than 64 KiB, which says TLS 1.2 or an older version. A header
// of the protocol begins with a client id: zeros, a UUID of version 4, whose byte 6 is
// 4x, or one of another server's, and sessions register none of those that looks so.
func sniff(p []byte) kind {
	for i, b := range p[:min(len(p), sniffed)] {
		agrees := true
		switch i {
		case 0:
			agrees = b == 0x16
		case 1, 9:
			agrees = b == 3
		case 5:
			agrees = b == 1
		case 6:
			agrees = b == 0
		case 10:
			agrees = b <= 4
		}
		if !agrees {
			return plain
		}
	}
	if len(p) < sniffed {
		return undecided
	}
	return hello
}

const (
	recordHeader    = 5
	typeHandshake   = 22 // of a record
	typeClientHello = 1  // of a handshake message
	maxPlaintext    = 16 << 10
	maxRecord       = recordHeader + maxPlaintext + 256
)

// whole reports whether the records in p have all of a ClientHello. It is true also
// where they can have none: crypto/tls says what is wrong, without waiting for more. Of
// one that is too large it never is: crypto/tls would wait for the rest.
func whole(p []byte) bool {
	var head [4]byte // of the message: its type, and its size
	got := 0
	for len(p) >= recordHeader {
		n := int(p[3])<<8 | int(p[4])
		if p[0] != typeHandshake || p[1] != 3 || n == 0 || n > maxRecord {
			return true
		}
		body := p[recordHeader:min(recordHeader+n, len(p))]
		if got < len(head) {
			copy(head[got:], body)
		}
		got += len(body)
		if got >= len(head) {
			size := int(head[1])<<16 | int(head[2])<<8 | int(head[3])
			if head[0] != typeClientHello || got >= len(head)+size {
				return true
			}
		}
		if len(body) < n {
			return false
		}
		p = p[recordHeader+n:]
	}
	return false
}

// greet finds out what the connection is.
func (c *conn) greet() {
	if c.lp.srv.draining.Load() {
		c.close("drained")
		return
	}
	p, _ := c.gc.Peek(-1)
	options, says := c.lp.srv.opts.TLS, undecided
	if options != nil {
		says = sniff(p)
	} else if len(p) > 0 {
		says = plain
	}
	switch says {
	case hello:
		c.tls = &protection{}
		c.resize(restingSize)
		c.welcome(shaking)
	case plain:
		if options == nil || !options.Require {
			c.welcome(open)
			return
		}
		c.lp.srv.unprotected.report(c.lp.srv.opts.Log, "plain connection refused", zap.String("remote", c.remote))
		c.Send(errorReply)
		c.enter(ending, "not protected by TLS")
	}
}

// welcome makes the session of a client that has said something, and enters the next
// phase.
func (c *conn) welcome(next phase) {
	c.sess = session.New(c.lp.srv.opts.Service, c, c.remote)
	c.enter(next, "")
}

// shake brings the handshake on.
func (c *conn) shake() {
	if c.lp.srv.draining.Load() {
		c.close("drained")
		return
	}
	t, srv := c.tls, c.lp.srv
	c.blocked = false
	p, _ := c.gc.Peek(-1)
	if t.step < shakingHands {
		switch {
		case len(p) > maxHello:
			c.enter(ending, "tls: the hello is too large")
		case t.step == gathering && whole(p) && srv.sealed.Load() <= srv.maxSealed.Load():
			t.step = queueing
			srv.handshakes.join(c)
		}
		return
	}
	if n := t.wire.take(p); n > 0 {
		_, _ = c.gc.Discard(n)
		p = p[n:]
	}
	c.blocked = len(p) > 0
	c.flush()
	if c.phase == shaking {
		c.setWatch()
	}
}

// shaken is the end of the handshake. On the loop.
func (c *conn) shaken(conn *tls.Conn, ch session.Channel, err error) {
	if c.phase != shaking { // it was given up
		return
	}
	t, srv := c.tls, c.lp.srv
	if err != nil {
		srv.unshaken.report(srv.opts.Log, "handshake failed", zap.String("remote", c.remote), zap.Error(err))
		c.enter(ending, tlsReason(err))
		return
	}
	t.step, t.conn = protected, conn
	srv.shaken.Add(1)
	srv.protected.Add(1)
	if !ch.Client.IsZero() {
		t.key = ch.Client.String()[:short]
	}
	c.sess.Protect(ch)
	srv.opts.Log.Info("protected", append(t.fields(), zap.String("remote", c.remote))...)
	c.enter(open, "")
	c.read = c.since
}

// tlsReason is what the log says about a connection that err has ended.
func tlsReason(err error) string { return "tls: " + strings.TrimPrefix(err.Error(), "tls: ") }

// short is how much of a fingerprint the log has: SHA256: and 12 characters.
const short = len("SHA256:") + 12

// fields is what a line in the log says about the protection.
func (t *protection) fields() []zap.Field {
	fs := []zap.Field{zap.Bool("tls", true)}
	if t.key != "" {
		fs = append(fs, zap.String("key", t.key))
	}
	return fs
}

// halfClosed reports whether the client has ended its side with a close_notify.
func (c *conn) halfClosed() bool { return c.tls != nil && c.tls.over == io.EOF }

// endOfRecords ends a connection from which nothing more comes by TLS. A client that has
// only ended its side gets the replies that it is owed before. It returns true if the
// connection ends.
func (c *conn) endOfRecords() bool {
	switch {
	case c.tls == nil || c.tls.over == nil:
		return false
	case c.tls.over != io.EOF:
		c.enter(ending, tlsReason(c.tls.over))
		return true
	case c.blocked || c.sess.Working() || len(c.out) > 0 || c.waiting() > 0:
		return false
	}
	c.enter(ending, byClient)
	return true
}

// farewell sends close_notify, once, unless another alert was the last. Nothing can be
// sent afterwards.
func (c *conn) farewell() {
	if t := c.tls; t != nil && t.step == protected && (t.over == nil || c.halfClosed()) {
		_ = t.conn.CloseWrite()
		c.flush()
	}
}

// abandonHandshake gives up a handshake that is not over.
func (c *conn) abandonHandshake() {
	t := c.tls
	if t == nil || t.step >= protected {
		return
	}
	t.step = abandoned
	c.lp.srv.handshakes.leave(c)
	t.wire.close()
}

// unprotect gives up all that TLS takes. Nothing is sent or decrypted afterwards.
func (c *conn) unprotect() {
	if c.tls != nil {
		c.abandonHandshake()
		if c.tls.step == protected {
			c.lp.srv.protected.Add(-1)
		}
		c.tls.step, c.tls.conn = abandoned, nil
		c.resize(0)
	}
}

// tally counts events that the log has one line a second of, at most.
type tally struct {
	mu    sync.Mutex
	count int       // since told
	all   uint64    // so far
	told  time.Time // when the log had the last line
}

func (t *tally) total() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all
}

// report writes a line about the last of the events, unless there was one just now.
func (t *tally) report(log *zap.Logger, message string, fields ...zap.Field) {
	t.mu.Lock()
	t.count++
	t.all++
	count, now := t.count, time.Now()
	tell := now.Sub(t.told) >= time.Second
	if tell {
		t.told, t.count = now, 0
	}
	t.mu.Unlock()
	if tell {
		log.Warn(message, append(fields, zap.Int("count", count))...)
	}
}
