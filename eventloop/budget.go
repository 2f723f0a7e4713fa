package eventloop

import (
	"math/bits"
	"sync"

	"sealift/session"
)

// budget hands out buffers and keeps the sum of their sizes below a limit.
// Connections that find it spent stand in line. All methods may be called from
// any goroutine.
type budget struct {
	mu    sync.Mutex
	free  int64
	early int64 // what Hold may still grant
	rests int64 // what keep may still take; it may take a little more
	slots int64 // bytes for the buffers of slot together
	line  []*conn
	cache cache
}

// newBudget makes the budget of limit bytes, of which so many slots of MaxBuffer
// bytes are set aside. A quarter comes on top for what is kept: packets before
// their turn, and a quarter of it for rests.
func newBudget(limit int64, slots int) *budget {
	set := int64(slots) * session.MaxBuffer
	return &budget{
		free: limit - set, slots: set,
		early: earlyOf(limit), rests: restsOf(limit),
		cache: cache{limit: limit},
	}
}

// earlyOf and restsOf are what comes on top of a budget of limit bytes.
func earlyOf(limit int64) int64 { return limit / 4 * 3 / 4 }
func restsOf(limit int64) int64 { return limit / 4 / 4 }

// class is the class of buffers that hold size bytes, and their size.
func class(size int) (index, rounded int) {
	index = bits.Len(uint(max(size, session.MinBuffer)-1)) - bits.Len(uint(session.MinBuffer-1))
	return index, session.MinBuffer << index
}

// get returns a buffer of at least size bytes for c. If there is no memory, or
// others wait for some, c stands in line and get returns nil: c is pumped when
// there is memory, which is then set aside for it.
func (b *budget) get(c *conn, size int) []byte {
	index, rounded := class(size)
	b.mu.Lock()
	switch {
	case c.granted >= int64(rounded):
		b.free += c.granted - int64(rounded)
		c.granted = 0
	case len(b.line) == 0 && b.free+c.granted >= int64(rounded):
		b.free += c.granted - int64(rounded)
		c.granted = 0
	default:
		b.free += c.granted
		c.granted = 0
		if !c.needs {
			c.needs, c.wants = true, int64(rounded)
			b.line = append(b.line, c)
		}
		b.serve()
		if c.granted < int64(rounded) {
			b.mu.Unlock()
			return nil
		}
		b.free += c.granted - int64(rounded) // its turn has come already
		c.granted = 0
	}
	buf := b.cache.get(index)
	b.serve()
	b.mu.Unlock()
	return buf
}

// put takes a buffer back.
func (b *budget) put(buf []byte) {
	index, rounded := class(len(buf))
	b.mu.Lock()
	b.cache.put(index, buf)
	b.free += int64(rounded)
	b.serve()
	b.mu.Unlock()
}

// serve sets memory aside for the connections in line, in their order, as long as there
// is enough, and lets them go on. Holds mu.
func (b *budget) serve() {
	for len(b.line) > 0 && b.free >= b.line[0].wants {
		c := b.line[0]
		b.line[0] = nil
		b.line = b.line[1:]
		b.free -= c.wants
		c.granted, c.needs = c.wants, false
		c.post(nil)
	}
	if len(b.line) == 0 {
		b.line = nil
	}
}

// settle takes back what was set aside for c and not used.
func (b *budget) settle(c *conn) {
	b.mu.Lock()
	if c.granted > 0 {
		b.free += c.granted
		c.granted = 0
		b.serve()
	}
	b.mu.Unlock()
}

// leave takes a connection that ends out of the line, and takes back what was set
// aside for it.
func (b *budget) leave(c *conn) {
	b.mu.Lock()
	if c.needs {
		for i := range b.line {
			if b.line[i] == c {
				b.line = append(b.line[:i], b.line[i+1:]...)
				break
			}
		}
		c.needs = false
	}
	b.free += c.granted
	c.granted = 0
	b.serve()
	b.mu.Unlock()
}

// trim gives buffers that nobody needed since the last trim back to the system.
func (b *budget) trim() {
	b.mu.Lock()
	b.cache.trim()
	b.mu.Unlock()
}

// hold and unhold are for session.Host.
func (b *budget) hold(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.early < int64(n) {
		return false
	}
	b.early -= int64(n)
	return true
}

func (b *budget) unhold(n int) {
	b.mu.Lock()
	b.early += int64(n)
	b.mu.Unlock()
}

// slot returns a buffer of MaxBuffer bytes for a worker that has a connection. It is
// set aside: there are no more such workers than slots.
func (b *budget) slot() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cache.get(classes - 1)
}

func (b *budget) putSlot(buf []byte) {
	b.mu.Lock()
	b.cache.put(classes-1, buf)
	b.mu.Unlock()
}

// mayKeep reports whether there is room for n bytes of rest.
func (b *budget) mayKeep(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rests >= n
}

// ahead is how many bytes each worker may read that may have to be kept as a rest,
// so that there is room for all if all do.
func (b *budget) ahead() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(0, b.rests) * session.MaxBuffer / b.slots
}

// keep counts n bytes of rest, or gives them back if n is negative. It never refuses:
// a caller that is about to read what it may have to keep asks mayKeep or ahead.
func (b *budget) keep(n int64) {
	b.mu.Lock()
	b.rests -= n
	b.mu.Unlock()
}
