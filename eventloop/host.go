package eventloop

import (
	"context"
	"time"
	"weak"

	"sealift/session"
)

// This file is a connection as its session sees it.

var _ session.Host = (*conn)(nil)

var errorReply = session.ErrorReply()

// Send implements [session.Host].
func (c *conn) Send(reply []byte) {
	if d := c.lp.srv.opts.ReplyDelay; d > 0 {
		c.sendLater(reply, d)
		return
	}
	c.out = append(c.out, reply...)
}

// Do implements [session.Host].
func (c *conn) Do(l session.Lane, work func(ctx context.Context), done func()) {
	srv := c.lp.srv
	srv.begin()
	switch {
	case work == nil:
		c.finish(done)
	case l == session.Compute && srv.small.Load() == 0:
		// An RSA wrap takes no more processor time than the way to a worker and back, and
		// as long as no small work is under way it keeps nobody waiting.
		c.finish(func() {
			srv.work(work)
			if done != nil {
				done()
			}
		})
	default:
		srv.beginSmall()
		srv.lanes[l].submit(c.turn(), func() {
			srv.work(work)
			srv.finishSmall()
			c.finish(done)
		})
	}
}

// finish runs done, if not nil, on the loop, and ends what begin has counted. Any
// goroutine may call it.
func (c *conn) finish(done func()) {
	srv := c.lp.srv
	if done == nil {
		srv.finish()
		return
	}
	c.post(func() {
		defer srv.finish()
		done()
	})
}

// turn is in whose turn the work of this connection is done.
func (c *conn) turn() turn {
	if id, ok := c.sess.Client(); ok {
		return turn{id: id}
	}
	return turn{c: weak.Make(c)}
}

// Apply implements [session.Host].
func (c *conn) Apply(op session.Operation, done func(err error)) {
	srv := c.lp.srv
	srv.begin()
	srv.beginSmall()
	srv.submit(op, func(err error) {
		srv.finishSmall()
		if done == nil {
			c.finish(nil)
			return
		}
		c.finish(func() { done(err) })
	})
}

// Buffer implements [session.Host].
func (c *conn) Buffer(size int) []byte { return c.lp.srv.budget.get(c, size) }

// Release implements [session.Host].
func (c *conn) Release(buf []byte) { c.lp.srv.budget.put(buf) }

// Hold implements [session.Host].
func (c *conn) Hold(n int) bool { return c.lp.srv.budget.hold(n) }

// Unhold implements [session.Host].
func (c *conn) Unhold(n int) { c.lp.srv.budget.unhold(n) }

// Hangup implements [session.Host].
func (c *conn) Hangup(reason string) { c.enter(ending, reason) }

// Reset ends the connection at once, as a network would: with a reset. Only faults ask
// for that.
func (c *conn) Reset(reason string) {
	_ = c.gc.SetLinger(0)
	c.post(func() { c.close(reason) }) // the session is in the middle of something
}

// Now implements [session.Host].
func (c *conn) Now() time.Time { return c.lp.srv.now() }
