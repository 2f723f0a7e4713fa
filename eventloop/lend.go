package eventloop

import (
	"context"

	"sealift/session"
)

// A connection belongs to its loop. While the content of a large file flows it is
// lent: a worker of the bulk lane owns session and socket, and the loop's epoll does
// not watch the socket. lend and takeBack, both on the loop, are the only ways from
// one owner to the other, and lent, which only they change, says who it is. The loop
// touches nothing of a connection that is lent but lent, notes and noted: what comes
// up for it meanwhile is a note.

const (
	// turnSize is how many bytes a worker reads from one connection before the
	// others have their turn, and turnBesideSmall the same while small work is
	// under way.
	turnSize        = 4 << 20
	turnBesideSmall = 1 << 20
	// readTail is how many bytes a worker reads behind the content of a packet, for
	// the header of the next: little enough to be kept if they are for nobody yet.
	readTail = 1 << 10
)

// run calls f now, or, while the connection is lent, after takeBack. On the loop.
func (c *conn) run(f func()) {
	if c.lent {
		c.notes = append(c.notes, f)
		c.noted.Store(true)
		return
	}
	c.lp.guard(c, f)
}

// lend gives the connection to a worker if content flows that its session leaves
// for one. It returns false if the loop has to go on itself. Nobody lends while
// replies wait: when they are out, gnet arms the socket by itself.
func (c *conn) lend() bool {
	if c.gc.OutboundBuffered() > 0 || c.waiting() > enoughUnread || !c.gatherRest() {
		return false
	}
	srv := c.lp.srv
	if !srv.beginLoan() {
		return false
	}
	if err := c.lp.poll.take(c.gc.Fd()); err != nil {
		srv.endLoan()
		srv.finish()
		return false
	}
	c.lent, c.loan, c.fd = true, c.sess.Lend(), c.gc.Fd()
	srv.bulk.submit(c.turn(), c.work)
	return true
}

// work is a worker's turn with the connection.
func (c *conn) work() {
	srv := c.lp.srv
	again, ended := false, false
	srv.work(func(ctx context.Context) { again, ended = c.receive(ctx), true })
	if again {
		srv.bulk.submit(c.turn(), c.work)
		return
	}
	srv.endLoan()
	c.lp.post(func() {
		defer srv.finish()
		c.lp.guard(c, func() { c.takeBack(ended) })
	})
}

// receive reads from the socket and gives the session what came, until nothing
// more is there, or what comes is for the loop. It returns true if there may be
// more, and the turn is over.
func (c *conn) receive(ctx context.Context) (again bool) {
	srv := c.lp.srv
	if ctx.Err() != nil { // the server ends, and waits for all that are in line
		return false
	}
	buf := srv.budget.slot()
	defer srv.budget.putSlot(buf)
	room := buf[session.Headroom:]
	n := copy(room, c.rest.p)
	c.dropRest()
	for got := 0; ; n = 0 {
		if limit := c.expects(len(room)); limit > n {
			if m := read(c.fd, room[n:limit]); m > 0 {
				n += m
				got += m
				c.read = srv.now()
			}
		}
		if n == 0 { // nothing there, or the end: gnet will see which
			return false
		}
		took, more := c.loan.Take(ctx, buf, n)
		c.got += int64(took) // the rest counts when the session takes it
		switch {
		case !more:
			c.keepRest(room[took:n])
			return false
		case c.noted.Load() || ctx.Err() != nil:
			return false
		case got >= turnSize, got >= turnBesideSmall && srv.small.Load() > 0:
			return true
		}
	}
}

// expects is how many bytes to read, at most room. Beyond the packet under way
// they may be for nobody yet, and have to be kept.
func (c *conn) expects(room int) int {
	sure, likely := c.loan.Expects()
	ahead := max(readTail, min(likely-sure, c.lp.srv.budget.ahead()))
	return int(min(sure+ahead, int64(room)))
}

// takeBack makes the connection the loop's again. whole is false if the worker did
// not come to its end: then what it has read is lost.
func (c *conn) takeBack(whole bool) {
	c.lent = false
	c.noted.Store(false)
	notes := c.notes
	c.notes = nil
	c.weighed = c.lp.srv.now()
	closed := c.gc == nil // by gnet, when the server ends
	var err error
	if !closed {
		c.watch = reads
		err = c.lp.poll.put(c.fd)
	}
	loan := c.loan
	c.loan = nil
	c.lp.guard(c, loan.Return) // whatever it does, others wait for the notes
	switch {
	case err != nil:
		c.close("cannot be watched: " + err.Error())
	case !whole:
		c.close("panic")
	}
	for _, f := range notes {
		c.run(f) // one of them may lend the connection again
	}
	if closed {
		c.gone()
	}
	if !c.lent {
		c.pump()
	}
}
