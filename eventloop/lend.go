package eventloop

import (
	"context"

	"sealift/session"
)

// A connection belongs to its loop. While the content of a large file flows it is
// lent: a worker of the bulk lane owns session and socket, and the loop's epoll does
// not watch the socket. Between two turns of the worker it stands in line. lend and
// takeBack, both on the loop, are the only ways out of its hands and back. What comes
// up for a connection that a worker has is a note; one that stands in line is taken
// out of it for that.
//
// When it is given back, the kernel may have no room for it in the epoll: registrations
// are counted for each user (max_user_watches), and another process may have taken the
// one that lend freed. Then the connection is closed, and its client sends again. The
// registration can't be kept meanwhile: the end of a connection wakes an epoll whatever
// it is asked to watch, and gnet would close the socket that a worker reads from.

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

// run calls f now, or, if a worker has the connection, after takeBack. On the loop.
func (c *conn) run(f func()) {
	if !c.lent() {
		c.lp.guard(c, f)
		return
	}
	c.notes = append(c.notes, f)
	c.noted.Store(true) // before pass: either that succeeds, or the worker sees the note
	if c.pass(inLine, byLoop) {
		c.lp.srv.endLoan()
		c.lp.guard(c, func() { c.takeBack(true) })
		c.lp.srv.finish()
	}
}

// lend gives the connection to a worker if content flows that its session leaves
// for one. It returns false if the loop has to go on itself. Nothing is lent while
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
	c.loan = c.sess.Lend()
	c.standInLine(byLoop)
	return true
}

// standInLine has the connection wait for its turn with a worker. For each time that
// it is called, work is called once, and has at most one turn. So a connection that
// was taken out of the line and is lent again keeps its old place, and a call of work
// that finds no connection in line has come too late for the turn that it was meant
// for.
func (c *conn) standInLine(from owner) {
	who := c.turn() // as long as it is from's
	c.hand(from, inLine)
	c.lp.srv.bulk.submit(who, c.work)
}

// work is a worker's turn with the connection, if that still waits for one.
func (c *conn) work() {
	if !c.pass(inLine, byWorker) {
		return
	}
	srv := c.lp.srv
	again, ended := false, false
	srv.work(func(ctx context.Context) { again, ended = c.receive(ctx), true })
	if again {
		c.standInLine(byWorker)
		if !c.noted.Load() || !c.pass(inLine, byWorker) {
			return
		}
	}
	srv.endLoan()
	c.lp.post(func() {
		defer srv.finish()
		c.lp.guard(c, func() {
			c.hand(byWorker, byLoop)
			c.takeBack(ended)
		})
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
	turn := c.mayRead(turnSize)
	for got := 0; ; n = 0 {
		m := 0
		if limit := min(c.expects(len(room)), n+int(turn)-got); limit > n {
			m, n = c.readSocket(room, n, limit)
			got += m
		}
		took, more := 0, true
		if n > 0 {
			took, more = c.loan.Take(ctx, buf, n)
			c.got += int64(took) // the rest counts when the session takes it
		} else if m == 0 { // nothing there, or the end: gnet will see which
			return false
		}
		switch {
		case !more:
			c.keepRest(room[took:n])
			return false
		case turn < turnSize && got >= int(turn): // it is charged first
			return false
		case c.noted.Load() || ctx.Err() != nil, c.tls != nil && c.tls.needsLoop():
			return false
		case got >= turnSize, got >= turnBesideSmall && srv.small.Load() > 0:
			return true
		}
	}
}

// readSocket reads into room, from n up to about limit. got is how many bytes it has read
// from the socket, and end where what there is for the session ends.
func (c *conn) readSocket(room []byte, n, limit int) (got, end int) {
	if c.tls != nil {
		got, end = c.tls.readRecords(c.gc.Fd(), room, n, limit)
	} else {
		got = max(0, read(c.gc.Fd(), room[n:limit]))
		end = n + got
	}
	if got > 0 {
		c.read = c.lp.srv.now()
	}
	return got, end
}

// expects is how many bytes to read, at most room. Beyond the packet under way
// they may be for nobody yet, and have to be kept.
func (c *conn) expects(room int) int {
	sure, likely := c.loan.Expects()
	ahead := max(readTail, min(likely-sure, c.lp.srv.budget.ahead()))
	return int(min(sure+ahead, int64(room)))
}

// takeBack does what is due when the connection is the loop's again. whole is false if
// the worker did not come to its end: then what it has read is lost.
func (c *conn) takeBack(whole bool) {
	c.noted.Store(false)
	notes := c.notes
	c.notes = nil
	c.weighed = c.lp.srv.now()
	gone := c.phase == closed // by gnet, when the server ends
	var err error
	if !gone {
		c.watch = reads
		err = c.lp.poll.put(c.gc.Fd())
	}
	loan := c.loan
	c.loan = nil
	c.lp.guard(c, loan.Return) // whatever it does, the notes have their turn
	switch {
	case err != nil:
		c.close("cannot be watched: " + err.Error())
	case !whole:
		c.close("panic")
	}
	for _, f := range notes {
		c.run(f) // one of them may lend the connection again
	}
	if gone {
		c.gone()
	}
	if !c.lent() {
		c.pump()
	}
}
