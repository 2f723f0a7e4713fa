package session

import "math/bits"

// Content is gathered in buffers of the host's, as it comes and where there is
// room, and passed on to the jobs of its transfer.

// room returns how many of the n bytes of content at hand can be taken now;
// 0 means wait.
func (s *Session) room(n int) int {
	u := s.pkt.u
	if u == nil {
		return n
	}
	p := s.pkt.early
	if left := u.left(); p == nil && left == 0 {
		return n // padding, which is only looked at
	} else if p == nil && left > 0 {
		n = int(min(int64(n), left))
	}
	if !s.reserve(u, n) {
		s.fail(u, s.pkt.number, errUnverified)
		return n // which is passed over
	}
	switch {
	case p == nil:
		return s.fillRoom(u, n, -1)
	case p.inArena:
		return n
	}
	return s.fillRoom(u, n, p.off+int64(s.pkt.done))
}

// left is how many bytes of ciphertext are still to come, -1 if nobody says.
func (u *upload) left() int64 {
	if u.plan.Ciphertext < 0 {
		return -1
	}
	return u.plan.Ciphertext - u.offset
}

// fillRoom makes sure that there is a buffer for content that goes to spill,
// or to be decrypted if spill is -1, and returns how much of n fits.
func (s *Session) fillRoom(u *upload, n int, spill int64) int {
	if f := &u.fill; f.buf != nil {
		follows := spill < 0 && f.spill < 0 || spill >= 0 && f.spill >= 0 && spill == f.spill+int64(f.n)
		if follows && len(f.free()) > 0 && len(f.marks) < len(f.buf)/marksPer {
			return min(n, len(f.free()))
		}
		u.push()
		s.pump(u)
	}
	// Behind a job that runs there is time to gather; else this will do.
	size := int64(MaxBuffer)
	if left := u.left(); left >= 0 && spill < 0 {
		size = min(size, left+headroom)
	}
	if !u.running {
		size = min(size, int64(n+headroom))
	}
	size = 1 << bits.Len64(uint64(max(size, MinBuffer)-1))
	if s.held+int(size) > s.svc.Window {
		return 0
	}
	buf := s.host.Buffer(int(size))
	if buf == nil {
		return 0
	}
	s.held += len(buf)
	u.fill = chunk{buf: buf, spill: spill}
	return min(n, len(u.fill.free()))
}

// free is the part of the buffer that is not filled yet.
func (c *chunk) free() []byte { return c.buf[headroom+c.n:] }

// push puts the buffer that is being filled into the queue.
func (u *upload) push() {
	if u.fill.n > 0 {
		u.queue = append(u.queue, u.fill)
		u.fill = chunk{}
	}
}

// content takes a piece of the packet under way, no more than room allowed.
// last says that the packet ends with it.
func (s *Session) content(piece []byte, last bool) {
	u := s.pkt.u
	if u == nil {
		return
	}
	switch p := s.pkt.early; {
	case p != nil && p.inArena:
		u.early.arena = append(u.early.arena, piece...)
		u.arrived += int64(len(piece))
	case p == nil && u.left() == 0:
		if !allZero(piece) || s.pkt.number != u.plan.Last() {
			s.fail(u, s.pkt.number, errNotZero)
			return
		}
	default:
		s.gathered(u, copy(u.fill.free(), piece))
	}
	if last {
		s.endPacket(u)
	}
}

// gathered notes that n bytes of content have been put into the buffer that is
// being filled.
func (s *Session) gathered(u *upload, n int) {
	if p := s.pkt.early; p != nil && s.pkt.done == 0 {
		u.fill.marks = append(u.fill.marks, mark{s.pkt.number, *p})
	}
	u.fill.n += n
	u.arrived += int64(n)
	s.pkt.done += uint32(n)
	if s.pkt.early != nil {
		return
	}
	u.offset += int64(n)
	if u.left() == 0 {
		u.fill.ends = append(u.fill.ends, end{u.fill.n, u.plan.OrigSize})
	}
}

// flush passes on what has been gathered of the transfer that content came for
// last. A buffer in which nothing has been gathered goes back: a client that
// stops in the middle of a packet must not keep it from the others.
func (s *Session) flush() {
	u := s.touched
	if u == nil {
		return
	}
	s.pump(u)
	s.returnEmpty(u)
}

// returnEmpty gives back the buffer that is being filled if there is nothing in
// it.
func (s *Session) returnEmpty(u *upload) {
	if u.fill.buf != nil && u.fill.n == 0 {
		s.held -= len(u.fill.buf)
		s.host.Release(u.fill.buf)
		u.fill = chunk{}
	}
}
