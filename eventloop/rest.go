package eventloop

import (
	"sync"

	"sealift/session"
)

// rest is what came from a client and its session has not taken: it comes before
// what gnet has. Only some of it is kept between two looks at the socket, since
// what is not read stays in the kernel.
type rest struct {
	p    []byte
	buf  *[readBuffer]byte // of restBuffers, if p lies there
	kept int64             // what it takes of the budget, in bytes
}

// restBuffers are of the size that gnet reads at a time.
var restBuffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}

func newRest(size int, kept int64) rest {
	r := rest{kept: kept}
	if size <= readBuffer {
		r.buf = restBuffers.Get().(*[readBuffer]byte)
		r.p = r.buf[:0]
	} else {
		r.p = make([]byte, 0, size)
	}
	return r
}

// keepRest keeps p, which lies in a buffer of others. There is no rest yet.
func (c *conn) keepRest(p []byte) {
	if len(p) > 0 {
		c.lp.srv.budget.keep(int64(len(p)))
		c.rest = newRest(len(p), int64(len(p)))
		c.rest.p = append(c.rest.p, p...)
	}
}

// gatherRest puts what gnet has behind the rest. It returns false if there is
// nothing of either, or no room.
func (c *conn) gatherRest() bool {
	p, _ := c.gc.Peek(-1)
	if len(p) == 0 {
		return len(c.rest.p) > 0
	}
	size, kept := len(c.rest.p)+len(p), c.rest.kept+int64(len(p))
	if size > session.MaxBuffer-session.Headroom || !c.lp.srv.budget.mayKeep(int64(len(p))) {
		return false
	}
	r := newRest(size, kept)
	r.p = append(append(r.p, c.rest.p...), p...)
	c.lp.srv.budget.keep(int64(len(p)))
	c.rest.kept = 0 // goes over to r
	c.dropRest()
	c.rest = r
	_, _ = c.gc.Discard(len(p))
	return true
}

// dropRest gives the rest up.
func (c *conn) dropRest() {
	if c.rest.kept > 0 {
		c.lp.srv.budget.keep(-c.rest.kept)
	}
	if c.rest.buf != nil {
		restBuffers.Put(c.rest.buf)
	}
	c.rest = rest{}
}
