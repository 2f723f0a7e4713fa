package eventloop

// feedAll gives the session all that is there, but for content that is to be lent
// if lends is true, and sends what it answers.
func (c *conn) feedAll(lends bool) {
	c.sess.Lends(lends)
	c.blocked = !c.feedRest() || !c.feedArrived() || !c.readDirectly()
	c.flush()
}

// feed gives p to the session and returns what it left.
func (c *conn) feed(p []byte) (rest []byte) {
	n := c.sess.Feed(p)
	c.took(n)
	return p[n:]
}

// took notes that the session has taken n bytes.
func (c *conn) took(n int) {
	if n > 0 {
		c.read = c.lp.srv.now()
		c.got += int64(n)
	}
}

// feedRest gives the session what it left of an earlier read, no more at a time than
// gnet reads: the other connections of the loop come between, and while replies wait
// there are no more requests. It returns false if something is left.
func (c *conn) feedRest() bool {
	c.held = len(c.rest.p) > 0 && c.waiting() > enoughUnread && c.lp.poll.works()
	if c.held {
		return false
	}
	if len(c.rest.p) > 0 {
		p := c.rest.p[:min(len(c.rest.p), readBuffer)]
		left := len(c.feed(p))
		c.rest.p = c.rest.p[len(p)-left:]
		if len(c.rest.p) > 0 {
			if left == 0 {
				c.post(nil)
			}
			return false
		}
	}
	c.dropRest()
	return true
}

// feedArrived gives the session what gnet has read. It returns false if the
// session leaves some.
func (c *conn) feedArrived() bool {
	if c.tls != nil {
		return c.feedRecords()
	}
	p, _ := c.gc.Peek(-1)
	rest := p[c.sess.Gather(p):] // readDirectly comes next
	c.took(len(p) - len(rest))
	if len(rest) > 0 {
		rest = c.feed(rest)
	}
	if len(rest) < len(p) {
		_, _ = c.gc.Discard(len(p) - len(rest)) // Discard(0) would discard everything
	}
	return len(rest) == 0
}

// maxTurn is how many bytes a connection may read before the others on the loop
// have their turn.
const maxTurn = 512 << 10

// readDirectly reads content from the socket straight to where the session
// gathers it, and what follows it into a small buffer of the loop. It ends when
// the socket is empty, or when the session wants no content; then gnet reads
// on. It returns false if the session leaves bytes, or would.
func (c *conn) readDirectly() bool {
	if c.tls != nil { // what comes has to be decrypted
		return true
	}
	full := false
	turn := int(c.mayRead(maxTurn))
	for got := 0; got < turn && c.phase == open; {
		target := c.sess.Target()
		if target == nil {
			full = c.sess.Waiting()
			break
		}
		target = target[:min(len(target), turn-got)]
		n := readv(c.gc.Fd(), target, c.lp.scratch[:])
		if n <= 0 { // nothing there, or the end: gnet will see which
			break
		}
		got += n
		c.read = c.lp.srv.now()
		c.got += int64(min(n, len(target)))
		c.sess.Filled(min(n, len(target)))
		if n > len(target) {
			if rest := c.feed(c.lp.scratch[:n-len(target)]); len(rest) > 0 {
				c.keepRest(rest)
				return false
			}
		}
	}
	c.sess.Feed(nil)
	return !full
}
