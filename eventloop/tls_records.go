package eventloop

import (
	"cmp"
	"errors"
	"slices"

	"sealift/session"
)

// Records come in two ways: the loop decrypts what gnet has read, and a worker that has
// the connection what it reads from the socket. What the session does not take is the
// rest, decrypted. A record that has come in part is in the tls.Conn.

const (
	// recordRoom is how many bytes a tls.Conn may return at once that it was not given
	// just before: the begun record.
	recordRoom = maxRecord
)

// next reads the content of the next record into p, which has room for maxPlaintext
// bytes or more. It returns 0 if there is none, or, with over set, if nothing more comes.
func (t *protection) next(p []byte) int {
	if t.over != nil {
		return 0
	}
	n, err := t.conn.Read(p)
	if n > 0 {
		t.wire.barren = 0
	}
	if err != nil && !errors.Is(err, errDrained) {
		t.over = err
	}
	return n
}

// records decrypts what gnet has read, and gives f the content of each record, until f
// returns false. It returns false if f did. f may use the content until it returns.
func (c *conn) records(f func(p []byte) bool) bool {
	t, w := c.tls, &c.tls.wire
	plain := c.lp.plaintext()
	each := func() bool {
		for len(w.in) > 0 && t.over == nil {
			if n := t.next(plain); n > 0 && !f(plain[:n]) {
				return false
			}
		}
		return true
	}
	if !each() { // what came behind the handshake
		return false
	}
	p, _ := c.gc.Peek(-1)
	if len(p) == 0 {
		return true
	}
	w.in = p
	all := each()
	n := len(p) - len(w.in)
	if w.in = nil; t.over != nil {
		n = len(p)
	}
	if n > 0 {
		_, _ = c.gc.Discard(n)
		if c.sess.Phase() == session.InUpload { // a record may take its time
			c.read = c.lp.srv.now()
		}
	}
	return all
}

// feedRecords gives the session what gnet has read, decrypted. It returns false if the
// session leaves some.
func (c *conn) feedRecords() bool {
	fed := false
	all := c.records(func(p []byte) bool {
		fed = true
		rest := c.feed(p)
		c.keepRest(rest)
		return len(rest) == 0 && c.phase == open
	})
	if !fed { // a request may wait for that
		c.feed(nil)
	}
	if c.tls.wire.largest > fewBytes && c.tls.size == restingSize {
		c.resize(bulkSize)
	}
	return all
}

// gatherRecords is gatherRest for a protected connection: what gnet has is decrypted.
func (c *conn) gatherRecords() bool {
	w := &c.tls.wire
	p, _ := c.gc.Peek(-1)
	size := len(w.in) + len(p)
	if size == 0 {
		return len(c.rest.p) > 0
	}
	if w.body > 0 {
		size += recordRoom
	}
	if len(c.rest.p)+size > session.MaxBuffer/2 || !c.lp.srv.budget.mayKeep(int64(size)) {
		return false
	}
	r := c.newRest(len(c.rest.p) + size)
	r.p = append(r.p, c.rest.p...)
	c.dropRest()
	c.records(func(p []byte) bool {
		r.p = append(r.p, p...)
		return true
	})
	c.rest = r
	if len(r.p) == 0 {
		c.dropRest()
	}
	return len(r.p) > 0
}

// readRecords reads from the socket and decrypts, into room from n on, about as much as
// fits before limit. got is how many bytes it has read, and end where the content ends.
// By a worker that has the connection.
//
// The records lie behind where their content goes, in the same buffer: a record is longer
// than its content, but for one of which a part has come before.
//
// What is behind much that has to be answered stays in the socket: the answers to a
// megabyte of KeyUpdates take half a megabyte.
func (t *protection) readRecords(fd int, room []byte, n, limit int) (got, end int) {
	from := min(n+recordRoom, len(room))
	want := limit - n
	want += want>>9 + 64 // what records take besides their content
	p := room[from:min(from+want, len(room))]
	got = peek(fd, p)
	if got <= 0 {
		return 0, n
	}
	t.wire.in = p[:got]
	for len(t.wire.in) > 0 && !t.needsLoop() {
		n += t.next(room[n:min(n+maxPlaintext, len(room))])
	}
	if t.over == nil {
		got -= len(t.wire.in)
	}
	t.wire.in = nil
	skip(fd, p[:got])
	return got, n
}

// needsLoop reports whether a worker has to give the connection back: nothing more
// comes, or there is much to send.
func (t *protection) needsLoop() bool {
	return t.over != nil || len(t.wire.out) > enoughUnread
}

// seal makes records of p, and returns all that is to be sent.
func (t *protection) seal(p []byte) []byte {
	if len(p) > 0 && t.step == protected {
		_, _ = t.conn.Write(p) // into memory; it fails only when nothing is to be sent any more
	}
	return t.wire.unsent()
}

// plaintext is a buffer of the loop's, for one record.
func (lp *loop) plaintext() []byte {
	if lp.plain == nil {
		lp.plain = make([]byte, maxPlaintext)
	}
	return lp.plain
}

const (
	// restingSize is about what a protected connection takes more than a plain one, in
	// bytes, and bulkSize what it takes once records of more than fewBytes have come:
	// crypto/tls keeps the buffer for them.
	restingSize = 16 << 10
	bulkSize    = 40 << 10
	fewBytes    = 2 << 10
	// minSealed is what protected connections may take together however few there may
	// be: a server of few is not to close those that do nothing but wait.
	minSealed = 16 << 20
)

// resize counts the connection as one of n bytes. On the loop.
func (c *conn) resize(n int64) {
	c.lp.srv.sealed.Add(n - c.tls.size)
	c.tls.size = n
}

// relieve closes protected connections that have carried large records, while all
// protected ones together take too much memory: those that are idle, the longest idle
// first, and then those that are too slow to keep their place, see slowRate.
func (lp *loop) relieve() {
	srv := lp.srv
	if srv.sealed.Load() <= srv.maxSealed.Load() {
		return
	}
	var idle, slow []*conn
	for c := range lp.conns {
		switch {
		case c.lent() || c.phase != open || c.tls == nil || c.tls.size != bulkSize:
		case c.sess.Phase() == session.Idle && c.finished():
			idle = append(idle, c)
		case c.rate.Load() < slowRate:
			slow = append(slow, c)
		}
	}
	slices.SortFunc(idle, func(a, b *conn) int { return a.read.Compare(b.read) })
	slices.SortFunc(slow, func(a, b *conn) int { return cmp.Compare(a.rate.Load(), b.rate.Load()) })
	for i, c := range append(idle, slow...) {
		if srv.sealed.Load() <= srv.maxSealed.Load() {
			return
		}
		lp.guard(c, func() {
			if i < len(idle) {
				c.enter(ending, "made room: idle")
				c.pump()
			} else {
				c.close("made room: too slow")
			}
		})
	}
}
