package session

import (
	"go.uber.org/zap"

	"sealift/codec"
)

// told is what a client was told about the refused transfers under one name. It
// keeps a client that repeats itself, or numbers all packets alike, from getting
// a 1607 and a line in the log for each packet: every repetition is an attempt of
// its own, and is looked at like the first, but only some of those that fail are
// answered.
//
//   - An attempt that begins in bytes that were here when the last 1607 was sent is
//     no reaction to it. It gets none of its own.
//   - A client that waits for its 1607 sends the file again up to three times
//     (PROTOCOL.md, 10). So many more are answered at once.
//   - After that an answer is owed: the next [Session.Tick] sends it, one for all
//     attempts since the last.
//
// So a client that waits for the reply before it tries again always gets one,
// however often it tries, and one that does not wait gets a handful.
type told struct {
	id     codec.ClientID // as in the headers
	name   string         // of the file, as the client sent it
	times  int            // how many 1607s it got
	at     uint64         // Session.offered when the last of them was sent
	owed   bool           // one more is due at the next Tick
	passed int            // attempts that were refused since, without a line in the log
	calm   bool           // none was refused since the last Tick

	// Of the last attempt.
	number uint32
	err    error
}

const (
	// retries is how often a client sends a file again after a 1607, at most.
	retries = 3
	// maxTold is the most names that are remembered. The oldest goes first: then
	// the client may get some 1607s more.
	maxTold = 16
)

// tellings are a session's, the oldest first.
type tellings []*told

func (s *Session) toldOf(id codec.ClientID, name string) *told {
	for _, t := range s.told {
		if t.id == id && t.name == name {
			return t
		}
	}
	if len(s.told) >= maxTold {
		if oldest := s.told[0]; oldest.owed {
			s.tell(oldest)
		}
		s.forgetTold(s.told[0])
	}
	t := &told{id: id, name: name}
	s.told = append(s.told, t)
	return t
}

// sayFailed answers an attempt to send a file that failed with 1607, unless that
// was done often enough. began is where in the stream the attempt began, number
// that of the packet at fault.
func (s *Session) sayFailed(id codec.ClientID, name string, began uint64, number uint32, err error) {
	if s.closed {
		return
	}
	t := s.toldOf(id, name)
	t.calm, t.number, t.err = false, number, err
	switch {
	case t.times > 0 && began <= t.at:
		t.passed++
	case t.times > retries:
		t.passed++
		t.owed = true
	default:
		s.tell(t)
	}
}

// tell sends the 1607 and logs why.
func (s *Session) tell(t *told) {
	fields := s.fields(zap.String("file", t.name), zap.Uint32("packet", t.number))
	if t.passed > 0 {
		fields = append(fields, zap.Int("times", t.passed))
	}
	if refusedFor(t.err) {
		s.log().Warn("transfer refused", append(fields, zap.String("reason", t.err.Error()))...)
	} else {
		s.log().Error("transfer failed", append(fields, zap.Error(t.err))...)
	}
	s.sendError()
	t.times++
	t.at, t.owed, t.passed = s.offered, false, 0
}

// Tick sends the 1607s that are owed. The host calls it about twice a second, on
// the session's goroutine, between two calls of other methods.
func (s *Session) Tick() {
	for i := len(s.told) - 1; i >= 0; i-- {
		switch t := s.told[i]; {
		case t.owed:
			s.tell(t)
		case t.calm:
			s.forgetTold(t)
		}
	}
	for _, t := range s.told {
		t.calm = true
	}
}

// owes reports whether a 1607 waits for the next Tick.
func (s *Session) owes() bool {
	for _, t := range s.told {
		if t.owed {
			return true
		}
	}
	return false
}

// forgetTold forgets t, and logs how many attempts came to no 1607.
func (s *Session) forgetTold(t *told) {
	if t.passed > 0 {
		s.log().Warn("transfer refused repeatedly", s.fields(zap.String("file", t.name),
			zap.Int("times", t.passed), zap.String("reason", t.err.Error()))...)
	}
	kept := s.told[:0]
	for _, other := range s.told {
		if other != t {
			kept = append(kept, other)
		}
	}
	clear(s.told[len(kept):])
	if s.told = kept; len(kept) == 0 {
		s.told = nil
	}
}

// served forgets what the client was told about a file that has gone through.
func (s *Session) served(name string) {
	for _, t := range s.told {
		if t.id == s.id && t.name == name {
			s.forgetTold(t)
			return
		}
	}
}

func (s *Session) forgetAllTold() {
	for len(s.told) > 0 {
		s.forgetTold(s.told[len(s.told)-1])
	}
}
