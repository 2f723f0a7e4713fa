package session

// Bounds on what a transfer keeps in memory of packets that came before their
// turn. What is beyond goes to the scratch room of the store.
const (
	maxArena  = 256 << 10 // bytes of content
	entryCost = 64        // bytes that an entry of the index takes, map and all
)

// early holds the packets of a transfer that came before their turn. The
// session's goroutine owns the index, and appends to the arena; spans point
// into the arena and the scratch room, whose contents do not change.
type early struct {
	index map[uint32]earlyPacket
	arena []byte
	total int64 // bytes of content that came early so far
	used  int64 // bytes of these that went to the scratch room
	held  int   // bytes granted by Host.Hold
}

// earlyPacket is where the content of one packet is.
type earlyPacket struct {
	inArena bool
	off     int64
	size    uint32
	orig    uint32
}

// add makes room for a packet. ok is false if the memory for it is refused.
func (e *early) add(host Host, number uint32, size, orig uint32) (p earlyPacket, ok bool) {
	if !host.Hold(entryCost) {
		return earlyPacket{}, false
	}
	e.held += entryCost
	p = earlyPacket{size: size, orig: orig}
	if int64(len(e.arena))+int64(size) <= maxArena && host.Hold(int(size)) {
		e.held += int(size)
		p.inArena, p.off = true, int64(len(e.arena))
	} else {
		p.off = e.used
		e.used += int64(size)
	}
	if e.index == nil {
		e.index = make(map[uint32]earlyPacket)
	}
	e.index[number] = p
	e.total += int64(size)
	return p, true
}

func (e *early) has(number uint32) bool {
	_, ok := e.index[number]
	return ok
}

// free gives the memory back. No job may use the spans any more.
func (e *early) free(host Host) {
	if e.held > 0 {
		host.Unhold(e.held)
	}
	*e = early{}
}
