package eventloop

import (
	"errors"
	"time"

	"sealift/session"
)

const (
	// tickTime is how often timers are looked at.
	tickTime = 500 * time.Millisecond
	// lingerTime is how long an ending connection stays open while what it sends is
	// discarded. If it were closed with unread data, the kernel would send a reset and
	// destroy the last reply on its way.
	lingerTime = 2 * time.Second
)

// Reasons for which connections end, for the log.
const (
	byClient       = "by the client"
	noRegistration = "timeout: no registration"
)

// startTicks looks at the timers now and then, on a goroutine of its own, until
// stop is called, which waits for it.
func (s *Server) startTicks() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(s.opts.tick)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				s.tick()
			case <-quit:
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// tick has each loop look at its connections, and sees whether all answer.
func (s *Server) tick() {
	tick := s.ticks.Add(1)
	s.budget.trim()
	now := s.now()
	s.census.report(s.opts.Log, now)
	s.opts.Service.Tick(now)
	s.mu.Lock()
	stuck, alive := false, true
	for _, lp := range s.loops {
		if lp.asked.CompareAndSwap(0, tick) {
			lp.post(func() {
				lp.asked.Store(0)
				lp.tick(now)
			})
		} else {
			alive = false
			stuck = stuck || tick-lp.asked.Load() >= s.opts.patience
		}
	}
	s.mu.Unlock()
	switch {
	case stuck || s.acceptor.stuck(tick):
		s.fail(errors.New("an event loop does not answer"))
	case alive && s.opts.Alive != nil:
		s.opts.Alive()
	}
}

// tick looks at the connections that the loop has.
func (lp *loop) tick(now time.Time) {
	for c := range lp.conns {
		if !c.lent() {
			lp.guard(c, func() { c.tick(now) })
		}
	}
	lp.relieve()
}

// tick sends what the session put off, lets the connection go on if replies that it
// waited for are out, and ends it if its time is up.
func (c *conn) tick(now time.Time) {
	if c.sess != nil {
		c.weigh(now)
	} else {
		c.weighAs(false, now)
	}
	if c.paced() && c.pacing.by != c.lp.srv.pacer.Load() { // another rate, or none
		c.pacing.end()
		c.pump()
	}
	switch c.phase {
	case open:
		c.sess.Tick()
		if len(c.out) > 0 || c.held && c.waiting() <= enoughUnread || c.halfClosed() {
			c.pump()
		}
	case ending, shaking:
		c.pump()
	}
	if c.phase == closed || c.lent() {
		return
	}
	c.watchUnread()
	if c.unread == 0 && c.sess != nil && c.keptWaiting() {
		c.read = now // the server's own time does not count
	}
	c.expire(now)
}

// expire ends the connection if its time is up.
func (c *conn) expire(now time.Time) {
	at, reason := c.deadline()
	switch {
	case at.IsZero() || !now.After(at):
	case c.phase == introducing && c.via == byProxy:
		c.refuseHeader(errLateHeader)
		c.pump()
	case c.phase <= open && c.unread == 0:
		c.enter(ending, reason)
		c.pump()
	default:
		c.close(reason)
	}
}

// keptWaiting reports whether the client waits for the server, and not the other way
// round.
func (c *conn) keptWaiting() bool { return c.blocked || c.paced() || c.sess.Working() }

// deadline is when the connection ends unless something happens, and what the log
// says then. It is zero while the client waits for the server. It changes nothing.
func (c *conn) deadline() (at time.Time, reason string) {
	o := c.lp.srv.limits.Load()
	switch {
	case c.phase == lingering:
		return c.since.Add(lingerTime), c.reason
	case c.phase == introducing:
		return c.introductionEnds(o.HandshakeTimeout)
	case c.phase == sniffing:
		return c.since.Add(o.HandshakeTimeout), noRegistration
	case c.phase == shaking:
		return c.shakingEnds()
	case c.unread > 0:
		return c.wrote.Add(o.IdleTimeout), "timeout: replies not read"
	case c.phase == ending, c.keptWaiting():
		return time.Time{}, ""
	case !c.begun.IsZero():
		return c.begun.Add(o.HandshakeTimeout), "timeout: message not completed"
	case c.sess.Phase() == session.Handshake:
		return c.since.Add(o.HandshakeTimeout), noRegistration
	case c.sess.Phase() == session.InUpload:
		return c.read.Add(o.IdleTimeout), "timeout: upload stopped"
	}
	return c.read.Add(o.IdleTimeout), "timeout: idle"
}

// shakingEnds is deadline during the TLS handshake.
func (c *conn) shakingEnds() (at time.Time, reason string) {
	t, srv := c.tls, c.lp.srv
	at, reason = c.since.Add(min(srv.opts.shakeTime, srv.limits.Load().HandshakeTimeout)), "timeout: TLS handshake"
	switch t.step {
	case queueing:
		return time.Time{}, ""
	case shakingHands:
		if since := t.wire.hungry(); !since.IsZero() && srv.handshakes.crowded(c.ip) {
			return since.Add(patience), "made room: TLS handshake"
		}
	}
	return at, reason
}

// beginning is when the message that is under way began, zero if there is none.
func (c *conn) beginning() time.Time {
	before := c.messages
	c.messages = c.sess.Messages()
	switch {
	case c.sess.Phase() != session.InMessage:
		return time.Time{}
	case c.begun.IsZero() || c.messages != before: // another message than before
		return c.read
	}
	return c.begun
}

// weigh measures how fast the client is. Time in which the server keeps it
// waiting does not count.
func (c *conn) weigh(now time.Time) { c.weighAs(c.keptWaiting(), now) }

// weighAs is weigh of a connection that is kept waiting, or not.
func (c *conn) weighAs(waiting bool, now time.Time) {
	if !waiting {
		c.sending += now.Sub(c.weighed)
	}
	c.weighed = now
	if c.sending >= c.lp.srv.opts.slowTime {
		c.rate.Store(int64(float64(c.got) / c.sending.Seconds()))
		c.pacing.measured(c.got)
		c.got, c.sending = 0, 0
	}
}
