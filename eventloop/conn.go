package eventloop

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"go.uber.org/zap"

	"sealift/session"
)

// conn is one connection. It is its session's [session.Host]. Who may touch it
// follows from owner; a field with another rule says so. The acceptor has it until
// OnOpen.
type conn struct {
	lp     *loop            // that took it, nil before OnOpen; then it stays
	gc     gnet.Conn        // as lp; of no use once closed, but for its Fd
	sess   *session.Session // nil before shaking and open
	tls    *protection      // nil for a plain connection. The owner's.
	remote string
	ip     netip.Addr // see source. As remote the proxy's until the phase is sniffing, if it comes by one.

	since  time.Time // when the phase began. As phase, which stands below.
	reason string    // why the connection ends, "" while it is open, and where the log says nothing. As phase.

	owner atomic.Uint32 // an owner
	noted atomic.Bool   // there are notes
	notes []func()      // for the end of the loan. The loop's.
	loan  *session.Loan // while lent. The owner's.

	out     []byte   // replies that the session made and that are not written yet
	late    [][]byte // replies held back by Options.ReplyDelay
	rest    rest
	phase   phase // only enter changes it. The loop's, also while lent.
	blocked bool  // the session left bytes
	held    bool  // rest waits until replies are out
	watch   watch // what the loop is woken for
	needs   bool  // it stands in the budget's line. See wants.
	via     via   // how it has come
	place   place // Under the census's lock.

	read     time.Time // when bytes came last, or the server was busy with them
	wrote    time.Time // when replies began to wait, or last got fewer
	unread   int       // bytes of replies that gnet had not sent when watchUnread looked
	begun    time.Time // when the message under way began, zero without one
	messages uint64    // that had come when begun was looked at

	pacing  *pacing       // nil: no rate has been kept since it was opened
	weighed time.Time     // when weigh was called last
	got     int64         // bytes since rate was measured
	sending time.Duration // time that the client had for them
	rate    atomic.Int64  // bytes a second, over slowTime. Any goroutine reads it.

	// Of the budget, under its lock; needs as well.
	wants   int64 // bytes that it stands in the budget's line for
	granted int64 // bytes set aside for it
}

// newConn makes a connection that no loop has taken yet.
func newConn(remote *net.TCPAddr) *conn {
	c := &conn{phase: arriving, remote: remote.String(), ip: source(remote)}
	c.rate.Store(math.MaxInt64) // until it is known
	return c
}

// phase is how far a connection has come. It only grows.
type phase uint8

const (
	// arriving: the acceptor hands it to a loop. Sniffing when OnOpen runs, or introducing
	// where there are proxies. If the hand-over fails it stays arriving.
	arriving phase = iota
	// introducing: a header says whose connection it is, or must not come, see via. Then
	// sniffing. Ending when the header is not as it should be, its client is refused, or a
	// timer runs out. Closed as sniffing.
	introducing
	// sniffing: nothing has come, or the first bytes do not say yet whether it is protected
	// by TLS. Then shaking, or else open, or ending where plain connections are refused.
	// Ending when a timer runs out. Closed when the client hangs up, or the server drains.
	sniffing
	// shaking: the TLS handshake, see step. Open when it is over. Ending when it fails, or a
	// timer runs out. Closed as sniffing.
	shaking
	// open: the session is served. Ending when the session hangs up, a timer runs out, the
	// server drains and nothing is left to do, or close is called. Closed when the client
	// hangs up.
	open
	// ending: what arrives is discarded, and the last replies are on their way. Lingering
	// when they are out. Closed when the client hangs up, leaves them unread for
	// IdleTimeout, or close is called.
	ending
	// lingering: the sending side is shut down, and what arrives is discarded. Closed when
	// the client hangs up or after lingerTime.
	lingering
	// closed: gnet has closed the socket. Final.
	closed
)

// enter begins a phase. It returns false, and changes nothing, if the connection has
// come so far already. reason is why it ends; the first one counts. On the loop.
func (c *conn) enter(p phase, reason string) bool {
	if p <= c.phase {
		return false
	}
	c.lp.srv.phases.move(c.phase, p)
	c.phase, c.since = p, c.lp.srv.now()
	if c.reason == "" {
		c.reason = reason
	}
	return true
}

// owner is who may touch a connection, its session and its socket: one goroutine at a
// time. The loop sees at any time whether it is the owner, since only the loop gives a
// connection away, and only a task of the loop takes it back.
type owner uint32

const (
	// byLoop: its loop has it. In line by lend.
	byLoop owner = iota
	// inLine: it is lent, and waits for a bulk slot. The worker's when its turn comes, the
	// loop's if something comes up for it before.
	inLine
	// byWorker: a worker of the bulk lane has it. In line when its turn is over and more
	// content may be there; otherwise the loop's, by a task that the worker posts.
	byWorker
)

// pass gives the connection to another owner, if it is from's. Only from may call it,
// or, if that is inLine, a worker whose turn it is, or the loop.
func (c *conn) pass(from, to owner) bool {
	return c.owner.CompareAndSwap(uint32(from), uint32(to))
}

// hand is pass where from can only be the owner.
func (c *conn) hand(from, to owner) {
	if !c.pass(from, to) {
		panic(fmt.Sprintf("owner %d hands a connection of owner %d to owner %d", from, c.owner.Load(), to))
	}
}

// lent reports whether the loop has given the connection away. On the loop.
func (c *conn) lent() bool { return owner(c.owner.Load()) != byLoop }

// post runs f, if not nil, on the loop, and then lets the connection go on.
// Any goroutine may call it.
func (c *conn) post(f func()) {
	c.lp.post(func() {
		c.run(func() {
			if f != nil {
				f()
			}
			c.pump()
		})
	})
}

// pump lets the connection go on: it serves the session, or brings the connection
// nearer to its end. Afterwards it may be lent, or closed.
func (c *conn) pump() {
	if c.phase < open {
		c.begin()
	}
	if c.phase == open {
		c.serve()
	}
	if c.phase == ending || c.phase == lingering {
		c.windUp()
	}
}

// begin brings the connection nearer to being served.
func (c *conn) begin() {
	if c.phase == introducing {
		c.introduce()
	}
	if c.phase == sniffing {
		c.greet()
	}
	if c.phase == shaking {
		c.shake()
	}
}

// serve gives the session what has arrived, sends what it answers, and pauses or
// resumes the connection accordingly.
func (c *conn) serve() {
	c.weigh(c.lp.srv.now()) // before content is lent: a connection is not weighed meanwhile
	c.pace()                // what a worker has read
	if c.take() {
		return
	}
	if c.phase != open || c.endOfRecords() {
		return
	}
	c.begun = c.beginning()
	if c.lp.srv.draining.Load() && c.finished() {
		if c.lp.srv.now().Sub(c.read) > time.Second {
			c.farewell()
			c.close("drained") // nothing is on its way in either direction
		} else {
			c.enter(ending, "drained")
		}
		return
	}
	c.setWatch()
}

// take gives the session what has arrived, or lends it to a worker: then it returns true.
//
// Memory that was set aside for the connection is for content that could not be lent, too:
// it is given back only after both. Otherwise connections that wait for memory would hand
// it on to each other, each before it has used it, for as long as no content can be lent.
func (c *conn) take() (lent bool) {
	c.feedAll(c.lp.poll.works())
	c.pace()
	if c.phase == open && c.blocked && !c.paced() && c.sess.Flowing() {
		if lent = c.lend(); !lent {
			c.feedAll(false)
		}
	}
	c.lp.srv.budget.settle(c)
	return lent
}

// windUp discards what has arrived, writes the last replies, and shuts the sending
// side down once they are out.
//
// As long as replies wait, nothing is read, as in the phase before: a client that has
// shut down its own side may read late, and gnet closes a connection when it reads
// the end.
func (c *conn) windUp() {
	c.abandonHandshake()
	c.dropRest()
	c.lp.srv.budget.leave(c)
	_, _ = c.gc.Discard(-1)
	if c.phase == lingering {
		return
	}
	c.flush()
	if c.waiting() == 0 {
		c.farewell()
	}
	if c.phase == ending {
		c.setWatch()
	}
	if c.phase != ending || c.waiting() > 0 {
		return
	}
	c.unprotect()
	c.enter(lingering, "")
	if err := shutdownWrite(c.gc.Fd()); err != nil {
		c.close(c.reason)
	}
}

// close ends the connection at once, whatever waits to be sent.
func (c *conn) close(reason string) {
	if c.phase == closed {
		return
	}
	c.enter(ending, reason)
	_ = c.lp.el.Close(c.gc) // calls OnClose
}

// gone is the end of a connection that gnet has closed and that is not lent.
func (c *conn) gone() {
	s := c.lp.srv
	delete(c.lp.conns, c)
	c.pacing.end()
	fields := c.summary()
	if c.tls != nil {
		c.unprotect()
	}
	c.dropRest()
	if c.sess != nil {
		c.lp.guard(c, c.sess.Closed)
	}
	s.budget.leave(c)
	if c.reason != "" {
		s.opts.Log.Info("connection closed", append(fields, zap.String("reason", c.reason))...)
	}
	if c.via == turnedAway {
		<-s.acceptor.refusing
	}
	s.leave(c)
}

// summary is what the log says about a connection that ends, but for the reason.
func (c *conn) summary() (fields []zap.Field) {
	if c.sess == nil { // nothing has come since it was opened, or little
		fields = []zap.Field{zap.String("remote", c.remote), zap.Duration("open_seconds", c.lp.srv.now().Sub(c.read))}
	} else {
		fields = c.sess.Summary()
	}
	if c.tls != nil {
		fields = append(fields, c.tls.fields()...)
	}
	if c.via >= byProxy && c.gc.RemoteAddr() != nil {
		fields = append(fields, zap.Stringer("proxy", c.gc.RemoteAddr()))
	}
	return fields
}

// drain lets what is under way finish and nothing more begin.
func (c *conn) drain() {
	if c.sess != nil {
		c.sess.Drain()
	}
	c.pump()
}

// finished reports whether the connection may be closed when the server goes down.
func (c *conn) finished() bool {
	return c.sess.Done() && c.waiting() == 0
}
