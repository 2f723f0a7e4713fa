package transfer

import (
	"iter"
	"math/bits"
)

// entryCost is how many bytes an entry of early.index takes, map and all.
const entryCost = 64

// early holds the packets of a transfer that came before their turn. Some are in
// memory, as far as Memory grants it. The others are in the scratch room, with
// their index: in memory there is only the set of their numbers. The owner has all
// of it. Spans point into the arena, whose content does not change.
type early struct {
	index map[uint32]earlyPacket // those in the arena
	arena []byte

	spilled numberSet // those in the scratch room, some of which may have had their turn
	waiting uint32    // how many of them have not
	end     int64     // of what is in the scratch room

	total int64 // bytes of content that came early so far
	held  int   // bytes granted by Memory
}

// earlyPacket is where the content of one packet is, and what its 1028 said.
type earlyPacket struct {
	kept bool  // in the arena
	off  int64 // in the arena or the scratch room
	size uint32
	orig uint32
}

// setAside makes room for a packet that comes before its turn.
func (t *Transfer) setAside(number, size, orig uint32) *earlyPacket {
	e := &t.early
	e.total += int64(size)
	p := &earlyPacket{size: size, orig: orig}
	if n := entryCost + int(size); t.memory.Hold(n) {
		e.held += n
		p.kept, p.off = true, int64(len(e.arena))
		if e.index == nil {
			e.index = make(map[uint32]earlyPacket)
		}
		e.index[number] = *p
		return p
	}
	if e.end == 0 {
		e.end = indexSize(t.plan.Total)
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

// numbers yields those of the packets that came early. Some of them may have had
// their turn.
func (e *early) numbers() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for n := range e.index {
			if !yield(n) {
				return
			}
		}
		for n := range e.spilled.all() {
			if !yield(n) {
				return
			}
		}
	}
}

// count is how many packets wait for their turn.
func (e *early) count() uint32 { return uint32(len(e.index)) + e.waiting }

// empty gives back the memory of packets that have all had their turn, so that
// others may have it. The worker may not use the spans any more.
func (t *Transfer) empty() {
	e := &t.early
	if len(e.index) > 0 || e.held == 0 {
		return
	}
	t.memory.Unhold(e.held)
	e.held, e.arena, e.index = 0, nil, nil
}

// Forget gives up the packets that came early. Only what is written is left then.
// The worker is not at work.
func (t *Transfer) Forget() {
	t.early.index = nil
	t.empty()
	t.early = early{}
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

// all yields the numbers in the set.
func (s *numberSet) all() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		if s.pages == nil {
			return
		}
		for i, page := range s.pages {
			if page == nil {
				continue
			}
			for j, word := range page {
				for ; word != 0; word &= word - 1 {
					if !yield(uint32(i<<12 | j<<6 | bits.TrailingZeros64(word))) {
						return
					}
				}
			}
		}
	}
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
