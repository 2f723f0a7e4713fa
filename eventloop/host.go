package eventloop

import (
	"context"
	"time"
	"weak"

	"sealift/codec"
	"sealift/session"
)

// This file is a connection as its session sees it.

var _ session.Host = (*conn)(nil)

var errorReply = codec.EmptyReply{Code: codec.CodeError}.Append(nil)

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
	if work == nil {
		srv.begin()
		c.post(func() {
			defer srv.finish()
			done()
		})
		return
	}
	srv.begin()
	srv.beginSmall()
	srv.lanes[l].submit(c.turn(), func() {
		srv.work(work)
		srv.finishSmall()
		if done == nil {
			srv.finish()
			return
		}
		c.post(func() {
			defer srv.finish()
			done()
		})
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
	b := srv.writes
	if session.Reads(op) {
		b = srv.reads
	}
	srv.beginSmall()
	b.submit(srv.ctx, request{op, func(err error) {
		srv.finishSmall()
		if done == nil {
			srv.finish()
			return
		}
		c.post(func() {
			defer srv.finish()
			done(err)
		})
	}})
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

// Now implements [session.Host].
func (c *conn) Now() time.Time { return c.lp.srv.now() }
