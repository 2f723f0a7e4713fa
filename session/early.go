package session

// Bounds on what a connection keeps in memory of packets that came before their
// turn. What is beyond goes to the scratch room of the store, index and all.
const (
	maxAside  = 256 << 10 // bytes of content and index, of all its transfers
	entryCost = 64        // bytes that an entry of the index takes, map and all
)

// early holds the packets of a transfer that came before their turn. Some are in
// memory, as long as the connection's share of it lasts and Host.Hold grants it.
// The others are in the scratch room, with their index: in memory there is only
// the set of their numbers, which the session's goroutine owns like the rest.
// Spans point into the arena, whose content does not change.
type early struct {
	index map[uint32]earlyPacket // those in the arena
	arena []byte

	spilled numberSet // those in the scratch room, some of which may be replayed
	waiting uint32    // how many of them are not
	end     int64     // of what is in the scratch room

	total int64 // bytes of content that came early so far
	held  int   // bytes granted by Host.Hold
}

// earlyPacket is where the content of one packet is, and what its 1028 said.
type earlyPacket struct {
	inArena bool
	off     int64 // in the arena or the scratch room
	size    uint32
	orig    uint32
}

// putAside makes room for a packet that comes before its turn.
func (s *Session) putAside(u *upload, number, size, orig uint32) earlyPacket {
	e := &u.early
	e.total += int64(size)
	p := earlyPacket{size: size, orig: orig}
	if n := entryCost + int64(size); int64(s.aside)+n <= maxAside && s.host.Hold(int(n)) {
		s.aside += int(n)
		e.held += int(n)
		p.inArena, p.off = true, int64(len(e.arena))
		if e.index == nil {
			e.index = make(map[uint32]earlyPacket)
		}
		e.index[number] = p
		return p
	}
	if e.end == 0 {
		e.end = indexSize(u.plan.Total)
	}
	p.off = e.end
	e.end += int64(size)
	e.spilled.add(number)
	e.waiting++
	return p
}

// has reports whether that packet came early, or is coming in.
func (e *early) has(number uint32) bool {
	_, ok := e.index[number]
	return ok || e.spilled.has(number)
}

// count is how many packets wait for their turn.
func (e *early) count() uint32 { return uint32(len(e.index)) + e.waiting }

// emptyArena gives back the memory of packets that have all been replayed, so
// that others may have it. No job may use the spans any more.
func (s *Session) emptyArena(u *upload) {
	e := &u.early
	if len(e.index) > 0 || e.held == 0 {
		return
	}
	s.aside -= e.held
	s.host.Unhold(e.held)
	e.held, e.arena, e.index = 0, nil, nil
}

// forgetEarly gives up the packets of u that came early. No job may use the spans
// any more.
func (s *Session) forgetEarly(u *upload) {
	u.early.index = nil
	s.emptyArena(u)
	u.early = early{}
}

// numberSet is a set of packet numbers. It takes memory in steps of 512 bytes,
// as numbers come, and 8 KiB at most: so little that it is never refused.
type numberSet struct {
	pages *[16]*[64]uint64 // bit n%64 of word n/64%64 of page n/4096 is number n
}

func (s *numberSet) has(n uint32) bool {
	if s.pages == nil || n > 0xffff {
		return false
	}
	page := s.pages[n>>12]
	return page != nil && page[n>>6&63]>>(n&63)&1 != 0
}

// add puts n, at most 65,535, into the set.
func (s *numberSet) add(n uint32) {
	if s.pages == nil {
		s.pages = new([16]*[64]uint64)
	}
	page := &s.pages[n>>12]
	if *page == nil {
		*page = new([64]uint64)
	}
	(*page)[n>>6&63] |= 1 << (n & 63)
}
