package eventloop

import (
	"context"
	"math"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
	"weak"

	"github.com/panjf2000/gnet/v2"
	"go.uber.org/zap"

	"sealift/codec"
	"sealift/session"
	"sealift/storage"
)

const (
	// lingerTime is how long a connection that is being ended may still send,
	// to nobody. Closed at once, with data unread, the kernel would reset it and
	// destroy the last reply on its way.
	lingerTime = 2 * time.Second
	// enoughUnread is how many bytes of replies may be held back, see
	// Options.ReplyDelay, before the server reads no more of the requests.
	enoughUnread = 4 << 10
	// maxUnread is how many may wait where reading cannot be paused. More end the
	// connection.
	maxUnread = 256 << 10
)

// conn is one connection. It is its session's [session.Host]. Its fields belong
// to the loop's goroutine unless they say otherwise, and to the acceptor's until
// OnOpen.
type conn struct {
	lp     *loop
	gc     gnet.Conn // nil once closed
	sess   *session.Session
	remote string
	ip     netip.Addr // see source
	out    []byte     // replies that the session made and that were not written yet
	late   [][]byte   // replies held back by Options.ReplyDelay
	rest   rest

	lent  bool          // see lend.go
	loan  *session.Loan // while lent
	notes []func()      // to be called when it is lent no more
	noted atomic.Bool   // there are some. The worker reads it.
	fd    int           // of the socket, for the worker

	opened     time.Time
	read       time.Time // of the last bytes
	wrote      time.Time // when replies began to wait, or last got shorter
	unread     int       // bytes of replies that wait
	begun      time.Time // of the message that is not whole, zero if there is none
	messages   uint64    // that had come when begun was looked at
	reason     string    // why the connection ends, once it does
	lingerFrom time.Time // since when it only lets the client go
	watch      watch     // what the loop is woken for
	blocked    bool      // the session left bytes
	held       bool      // rest waits until replies are out
	entered    bool      // a loop has taken it
	weighed    time.Time // when weigh was called last

	got     int64         // bytes since rate was measured
	sending time.Duration // time that the client had for them
	rate    atomic.Int64  // bytes a second, over slowTime. Any goroutine reads it.
	evicted bool          // it makes room for another. Under the census's lock.

	// Of the budget, under its lock.
	inLine  bool
	wants   int64
	granted int64
}

// newConn makes a connection that no loop has taken yet.
func newConn(remote *net.TCPAddr) *conn {
	c := &conn{remote: remote.String(), ip: source(remote)}
	c.rate.Store(math.MaxInt64) // until it is known
	return c
}

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

// pump gives the session what has arrived, sends what it answers, and pauses or
// resumes the connection accordingly.
func (c *conn) pump() {
	if c.gc == nil {
		return
	}
	if c.reason != "" {
		c.dropRest()
		_, _ = c.gc.Discard(-1)
		return
	}
	c.weigh(c.lp.srv.now()) // before content is lent, when nobody weighs
	c.feedAll(c.lp.poll.works())
	if c.blocked && c.gc != nil && c.sess.Flowing() {
		if c.lend() {
			return
		}
		c.feedAll(false)
	}
	if c.gc == nil {
		return
	}
	c.begun = c.beginning()
	switch {
	case c.reason != "":
		c.linger()
	case c.lp.srv.draining.Load() && c.finished():
		if c.lp.srv.now().Sub(c.read) > time.Second {
			c.close("drained") // nothing is on its way in either direction
		} else {
			c.end("drained")
		}
	default:
		// A busy session reads on when it has answered. Until then the FIN of a
		// client that only waits for the answer must not be seen: gnet would
		// close the connection at once.
		busy := c.blocked && !c.held || c.sess.Busy()
		c.pause(busy || c.gc.OutboundBuffered() > 0 || c.waiting() > enoughUnread, busy)
	}
}

// feedAll gives the session all that is there, but for content that is to be lent
// if lends is true, and sends what it answers.
func (c *conn) feedAll(lends bool) {
	c.sess.Lends(lends)
	c.blocked = !c.feedRest() || !c.feedPeeked() || !c.readDirectly()
	c.lp.srv.budget.settle(c)
	c.flush()
}

// feed gives p to the session and returns what it left.
func (c *conn) feed(p []byte) (rest []byte) {
	n := c.sess.Feed(p)
	if n > 0 {
		c.read = c.lp.srv.now()
		c.got += int64(n)
	}
	return p[n:]
}

// feedRest gives the session what it left of an earlier read, no more at a time than
// gnet reads: the others on the loop come between, and while replies wait there are
// no more requests. It returns false if something is left.
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

// feedPeeked gives the session what gnet has read. It returns false if the
// session leaves some.
func (c *conn) feedPeeked() bool {
	p, _ := c.gc.Peek(-1)
	rest := c.feed(p)
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
	full := false
	for got := 0; got < maxTurn && c.reason == ""; {
		target := c.sess.Target()
		if target == nil {
			full = c.sess.Waiting()
			break
		}
		n := readv(c.gc.Fd(), target, c.lp.scratch[:])
		if n <= 0 { // nothing there, or the end: gnet will see it
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

// beginning is when the message that is under way began.
func (c *conn) beginning() time.Time {
	before := c.messages
	c.messages = c.sess.Messages()
	switch {
	case c.sess.Phase() != session.InMessage:
		return time.Time{}
	case c.begun.IsZero() || c.messages != before: // it is not the one that was under way
		return c.read
	}
	return c.begun
}

// finished reports whether the connection may be closed now that the server is
// going down.
func (c *conn) finished() bool {
	return c.sess.Done() && c.gc.OutboundBuffered() == 0
}

// flush writes the replies that the session made.
func (c *conn) flush() {
	if len(c.out) == 0 {
		return
	}
	unsent := c.gc.OutboundBuffered() > 0
	_, err := c.gc.Write(c.out) // copies what the socket does not take
	c.out = nil
	if err != nil || c.gc == nil { // gnet has closed it
		return
	}
	c.watchUnread()
	if c.unread > maxUnread {
		c.close("replies not read")
		return
	}
	if !unsent && c.unread > 0 { // gnet waits for room now, and reads
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

// watch is what the loop is woken for.
type watch uint8

const (
	reads watch = iota // what the client sends, and room for what is unsent
	sends              // room for what is unsent. When all is sent, gnet makes it reads.
	rests              // nothing
)

// pause stops or resumes reading from the connection. While the session has more
// to do with what came, nothing is sent either: gnet reads again when it has sent
// all, and closes the connection when it finds that the client has nothing more to
// say, although that waits for an answer.
func (c *conn) pause(stop, busy bool) {
	unsent := c.gc != nil && c.gc.OutboundBuffered() > 0
	if c.watch == sends && !unsent {
		c.watch = reads
	}
	w := reads
	switch {
	case stop && busy:
		w = rests
	case stop && unsent:
		w = sends
	case stop:
		w = rests
	}
	if w == c.watch || !c.lp.poll.works() {
		return
	}
	if err := c.lp.poll.arm(c.gc.Fd(), w == reads, w != rests && unsent); err != nil {
		c.lp.srv.opts.Log.Error("pausing a connection", zap.String("remote", c.remote), zap.Error(err))
		c.close("cannot be paused")
		return
	}
	c.watch = w
}

// drain lets what is under way finish and nothing more begin.
func (c *conn) drain() {
	c.sess.Drain()
	c.pump()
}

// end finishes the connection in good order: what was sent reaches the client.
func (c *conn) end(reason string) {
	if c.gc != nil && c.reason == "" {
		c.reason = reason
		c.linger()
	}
}

// linger shuts down the sending side once everything is sent. From then on what
// the client sends is discarded, until it hangs up or its time is over.
func (c *conn) linger() {
	c.pause(false, false)
	if c.gc == nil || !c.lingerFrom.IsZero() || c.gc.OutboundBuffered() > 0 || len(c.late) > 0 {
		return
	}
	c.lingerFrom = c.lp.srv.now()
	_, _ = c.gc.Discard(-1)
	if err := shutdownWrite(c.gc.Fd()); err != nil {
		c.close(c.reason)
	}
}

// close ends the connection at once.
func (c *conn) close(reason string) {
	if c.gc == nil {
		return
	}
	if c.reason == "" {
		c.reason = reason
	}
	_ = c.lp.el.Close(c.gc) // calls OnClose
}

// remind lets the session send what it put off, and go on if replies that it waited
// for are out.
func (c *conn) remind() {
	if c.gc != nil && c.reason == "" && c.sess != nil {
		if c.sess.Tick(); len(c.out) > 0 || c.held && c.waiting() <= enoughUnread {
			c.pump()
		}
	}
}

// overdue names the timer that has run out, if one has.
func (c *conn) overdue(now time.Time) string {
	o := &c.lp.srv.opts
	c.watchUnread()
	after := func(t time.Time, d time.Duration) bool { return now.Sub(t) > d }
	switch {
	case !c.lingerFrom.IsZero():
		if after(c.lingerFrom, lingerTime) {
			return c.reason
		}
	case c.unread > 0:
		if after(c.wrote, o.IdleTimeout) {
			return "timeout: replies not read"
		}
	case c.reason != "":
		c.linger()
	case c.blocked || c.sess.Working():
		c.read = now // the server's own time does not count
	case !c.begun.IsZero():
		if after(c.begun, o.HandshakeTimeout) {
			return "timeout: message not completed"
		}
	case c.sess.Phase() == session.Handshake:
		if after(c.opened, o.HandshakeTimeout) {
			return "timeout: no registration"
		}
	case after(c.read, o.IdleTimeout):
		if c.sess.Phase() == session.InUpload {
			return "timeout: upload stopped"
		}
		return "timeout: idle"
	}
	return ""
}

// weigh measures how fast the client is. Time in which the server keeps it
// waiting does not count.
func (c *conn) weigh(now time.Time) {
	if !c.blocked && !c.sess.Working() {
		c.sending += now.Sub(c.weighed)
	}
	c.weighed = now
	if c.sending >= c.lp.srv.opts.slowTime {
		c.rate.Store(int64(float64(c.got) / c.sending.Seconds()))
		c.got, c.sending = 0, 0
	}
}

// expire ends a connection whose time is up.
func (c *conn) expire(reason string) {
	if !c.lingerFrom.IsZero() || c.unread > 0 {
		c.close(reason)
		return
	}
	c.end(reason)
}

// The rest is session.Host.

var errorReply = codec.EmptyReply{Code: codec.CodeError}.Append(nil)

// Send implements [session.Host].
func (c *conn) Send(reply []byte) {
	if d := c.lp.srv.opts.ReplyDelay; d > 0 {
		c.sendLater(reply, d)
		return
	}
	c.out = append(c.out, reply...)
}

// sendLater keeps replies in their order: each timer lets the oldest go.
func (c *conn) sendLater(reply []byte, d time.Duration) {
	c.late = append(c.late, reply)
	c.lp.srv.begin()
	time.AfterFunc(d, func() {
		c.post(func() {
			defer c.lp.srv.finish()
			c.out = append(c.out, c.late[0]...)
			c.late = c.late[1:]
			if c.gc != nil && c.reason != "" { // the end waits for it, and pump sends nothing any more
				c.flush()
				c.linger()
			}
		})
	})
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
func (c *conn) Apply(op storage.Operation, done func(err error)) {
	srv := c.lp.srv
	srv.begin()
	srv.beginSmall()
	srv.registry.Submit(op, func(err error) {
		srv.finishSmall()
		if done == nil {
			srv.finish()
			return
		}
		c.post(func() {
			defer srv.finish()
			done(err)
		})
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
func (c *conn) Hangup(reason string) {
	if c.reason == "" {
		c.reason = reason
	}
}

// Now implements [session.Host].
func (c *conn) Now() time.Time { return c.lp.srv.now() }
