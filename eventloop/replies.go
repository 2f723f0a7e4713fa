package eventloop

import (
	"time"

	"go.uber.org/zap"
)

const (
	// enoughUnread is how many bytes of replies may be held back, see
	// Options.ReplyDelay, before the server reads no more of the requests.
	enoughUnread = 4 << 10
	// maxUnread is how many bytes may wait where reading cannot be paused. More end
	// the connection.
	maxUnread = 256 << 10
)

// flush writes the replies that the session made. It may close the connection.
func (c *conn) flush() {
	out := c.out
	if c.out = nil; c.tls != nil {
		out = c.tls.seal(out)
	}
	if len(out) == 0 || c.phase == closed {
		return
	}
	unsent := c.gc.OutboundBuffered() > 0
	_, err := c.gc.Write(out)            // copies what the socket does not take
	if err != nil || c.phase == closed { // gnet has closed it
		return
	}
	c.watchUnread()
	if c.unread > maxUnread {
		c.close("replies not read")
		return
	}
	if !unsent && c.unread > 0 { // gnet waits for room, and reads
		c.watch = reads
	}
}

// waiting is how many bytes of replies are not sent.
func (c *conn) waiting() int {
	n := c.gc.OutboundBuffered()
	for _, reply := range c.late {
		n += len(reply)
	}
	return n
}

// watchUnread notes whether the client takes its replies.
func (c *conn) watchUnread() {
	n := c.gc.OutboundBuffered()
	if n < c.unread || c.unread == 0 {
		c.wrote = c.lp.srv.now()
	}
	c.unread = n
}

// sendLater sends a reply after d. Replies keep their order: each timer lets the
// oldest go.
func (c *conn) sendLater(reply []byte, d time.Duration) {
	c.late = append(c.late, reply)
	c.lp.srv.begin()
	time.AfterFunc(d, func() {
		c.post(func() {
			defer c.lp.srv.finish()
			c.out = append(c.out, c.late[0]...)
			c.late = c.late[1:]
		})
	})
}

// watch is what the loop is woken for. The end of a connection that was reset wakes
// it whatever this is.
type watch uint8

const (
	reads watch = iota // what the client sends, and room for what is unsent
	sends              // room for what is unsent. When all is sent, gnet makes it reads.
	rests              // nothing
)

// wanted is what the loop should be woken for.
//
// While the session is busy with what came, nothing is sent either: gnet reads again
// when it has sent all, and a client that has shut down its side, and only waits for
// the answer, must not be seen to have done so: gnet closes the connection then.
func (c *conn) wanted() watch {
	held := enoughUnread // bytes of replies
	if c.phase != open {
		held = 0
	}
	switch {
	case c.phase == open && (c.blocked && !c.held || c.paced() || c.sess.Busy()):
		return rests
	case c.phase == shaking && c.tls.wire.hungry().IsZero():
		return rests
	case c.gc.OutboundBuffered() > 0:
		return sends
	case c.waiting() > held, c.phase == open && c.halfClosed():
		return rests
	}
	return reads
}

// setWatch has the loop be woken for what is wanted, where that can be chosen. If it
// cannot, although it should, the connection is closed.
func (c *conn) setWatch() {
	w := c.wanted()
	if c.watch == sends && c.gc.OutboundBuffered() == 0 {
		c.watch = reads
	}
	if w == c.watch || !c.lp.poll.works() {
		return
	}
	if err := c.lp.poll.arm(c.gc.Fd(), w == reads, w == sends); err != nil {
		c.lp.srv.opts.Log.Error("pausing a connection", zap.String("remote", c.remote), zap.Error(err))
		c.close("cannot be paused")
		return
	}
	c.watch = w
}
