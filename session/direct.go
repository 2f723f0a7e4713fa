package session

// Target is for a host that can read from the network to any place: it returns
// where the next bytes from the client belong, if they are content of a
// transfer, so that nobody has to copy them. The host reads no more than fits
// and reports it to [Session.Filled] at once; it may also read nothing. nil
// means that the bytes go to Feed, or have to wait: see [Session.Waiting].
func (s *Session) Target() []byte {
	s.waiting = false
	u := s.pkt.u
	switch {
	case s.busy || s.forgetting || s.leave != "" || s.hungUp || s.pending != nil || u == nil || !s.dec.InContent():
		return nil
	case s.pkt.early != nil && s.pkt.early.inArena:
		return nil
	case s.pkt.early == nil && u.left() == 0: // padding
		return nil
	case s.waitsForLoan():
		s.waiting = !u.idle()
		return nil
	}
	room := s.room(int(min(s.dec.ContentLeft(), MaxBuffer)))
	if room == 0 {
		s.waiting = true
		return nil
	}
	if s.pkt.u == nil { // the transfer was refused for what is to come
		return nil
	}
	return u.fill.free()[:room]
}

// Waiting reports whether the last Target returned nil because there was no
// room: until there is, Feed would take no content either.
func (s *Session) Waiting() bool { return s.waiting }

// Filled takes the first n bytes of what Target returned. What has been
// gathered is passed on by the next Feed, which may be one of no bytes.
func (s *Session) Filled(n int) {
	if n == 0 {
		return
	}
	u := s.pkt.u
	s.gathered(u, n)
	if s.dec.Passed(n) {
		s.endPacket(u)
	}
}
