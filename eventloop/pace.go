package eventloop

import (
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// All connections together may send Limits.Rate bytes a second. A connection reads for a
// turn, the bytes that its session took are charged to the pacer, and it is paused until
// they, and all that others were charged before, have had their time. So connections that
// send without a pause have turns, one after the other, and what comes in between waits no
// longer than a turn of each of them.

const (
	// paceShare is which part of a second's bytes the turns of all that wait may have
	// together, and what may come at once after a time in which little came.
	paceShare = 16
	// minPaced is the least turn, in bytes: what gnet reads at a time.
	minPaced = readBuffer
	// minPause is the shortest pause that is worth a timer. What is owed beyond it counts
	// with the next bytes.
	minPause = 2 * time.Millisecond
)

// pacer divides a rate. Any goroutine may use it.
type pacer struct {
	limiter *rate.Limiter
	share   int64        // bytes, see paceShare
	paused  atomic.Int64 // connections
}

func newPacer(bytesPerSecond int64) *pacer {
	share := max(bytesPerSecond/paceShare, minPaced)
	return &pacer{limiter: rate.NewLimiter(rate.Limit(bytesPerSecond), int(share)), share: share}
}

// turn is how many bytes a connection may read before it is charged.
func (p *pacer) turn() int64 { return max(p.share/max(1, p.paused.Load()), minPaced) }

// charge returns how long nobody who was charged n bytes may read.
func (p *pacer) charge(n int64, now time.Time) (pause time.Duration) {
	for n > 0 {
		part := min(n, p.share)
		pause = p.limiter.ReserveN(now, int(part)).DelayFrom(now)
		n -= part
	}
	return pause
}

// setRate has all connections together send that many bytes a second from now on; 0: as
// many as they like.
func (s *Server) setRate(bytesPerSecond int64) {
	old := s.pacer.Load()
	switch {
	case bytesPerSecond <= 0:
		s.pacer.Store(nil)
	case old == nil || old.limiter.Limit() != rate.Limit(bytesPerSecond):
		s.pacer.Store(newPacer(bytesPerSecond))
	}
}

// pacing is what a pacer has to do with a connection. The owner's.
type pacing struct {
	by      *pacer // which has paused it; nil: it is not paused
	charged int64  // of conn.got
}

// pace charges what the connection has brought since the last time, and pauses it if need
// be. By its loop.
func (c *conn) pace() {
	p := c.lp.srv.pacer.Load()
	if p == nil && c.pacing == nil {
		return
	}
	if c.pacing == nil {
		c.pacing = new(pacing)
	}
	g := c.pacing
	n := c.got - g.charged
	g.charged = c.got
	if p == nil || n == 0 {
		return
	}
	pause := p.charge(n, time.Now())
	if pause < minPause || g.by != nil {
		return
	}
	g.by = p
	p.paused.Add(1)
	time.AfterFunc(pause, func() {
		c.post(func() {
			if g.by == p {
				g.end()
			}
		})
	})
}

// paced reports whether the connection is paused by a pacer.
func (c *conn) paced() bool { return c.pacing != nil && c.pacing.by != nil }

// end ends the pause, if there is one.
func (g *pacing) end() {
	if g != nil && g.by != nil {
		g.by.paused.Add(-1)
		g.by = nil
	}
}

// measured notes that conn.got, which is n, begins anew.
func (g *pacing) measured(n int64) {
	if g != nil {
		g.charged -= n
	}
}

// mayRead is how many bytes the connection may read from the socket before it is charged,
// at most n. By its owner.
func (c *conn) mayRead(n int64) int64 {
	p := c.lp.srv.pacer.Load()
	switch {
	case c.paced():
		return 0
	case p == nil:
		return n
	}
	return min(n, p.turn())
}
