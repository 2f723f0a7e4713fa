package eventloop

import (
	"sync"

	"sealift/session"
)

// rest is what came from a client and its session has not taken: it comes before
// what gnet has. Only little of it is kept between two reads from the socket, since
// what is not read stays in the kernel.
type rest struct {
	p    []byte
	buf  *[readBuffer]byte // of restBuffers, if p lies there
	kept int64             // bytes of the budget, as long as the rest lives
}

// restBuffers are of the size that gnet reads at a time.
var restBuffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}

// newRest makes an empty rest with room for size bytes, and counts them.
func (c *conn) newRest(size int) rest {
	c.lp.srv.budget.keep(int64(size))
	r := rest{kept: int64(size)}
	if size <= readBuffer {
		r.buf = restBuffers.Get().(*[readBuffer]byte)
		r.p = r.buf[:0]
	} else {
		r.p = make([]byte, 0, size)
	}
	return r
}

// keepRest keeps a copy of p. There is no rest yet.
func (c *conn) keepRest(p []byte) {
	if len(p) > 0 {
		c.rest = c.newRest(len(p))
		c.rest.p = append(c.rest.p, p...)
	}
}

// gatherRest moves what gnet has to the end of the rest. It returns false if there is
// nothing of either, or no room.
func (c *conn) gatherRest() bool {
	if c.tls != nil {
		return c.gatherRecords()
	}
	p, _ := c.gc.Peek(-1)
	if len(p) == 0 {
		return len(c.rest.p) > 0
	}
	size := len(c.rest.p) + len(p)
	if size > session.MaxBuffer-session.Headroom || !c.lp.srv.budget.mayKeep(int64(len(p))) {
		return false
	}
	r := c.newRest(size)
	r.p = append(append(r.p, c.rest.p...), p...)
	c.dropRest()
	c.rest = r
	_, _ = c.gc.Discard(len(p))
	return true
}

// dropRest gives up the rest, if there is one.
func (c *conn) dropRest() {
	if c.rest.kept > 0 {
		c.lp.srv.budget.keep(-c.rest.kept)
	}
	if c.rest.buf != nil {
		restBuffers.Put(c.rest.buf)
	}
	c.rest = rest{}
}
