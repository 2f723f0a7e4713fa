package session

import (
	"fmt"

	"go.uber.org/zap"

	"sealift/codec"
)

// told is what a client was told about its refused or failed transfers under one
// name. It keeps a client that repeats itself, or numbers all packets alike, from
// getting a 1607 and a line in the log for each packet: every repetition is an
// attempt of its own and examined like the first, but only some of those that fail
// are answered.
//
//   - An attempt that begins in bytes that had arrived when the last 1607 was sent
//     does not react to it. It gets none of its own.
//   - A client that waits for its 1607 sends the file again up to three times
//     (PROTOCOL.md, 10). Three more attempts are answered at once.
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
	failed bool // by the server's doing, not the client's
}

const (
	// retries is how often a client sends a file again after a 1607, at most.
	retries = 3
	// maxTold is the most names that are remembered. The oldest goes first: then
	// the client may get some 1607s more.
	maxTold = 16
)

// tellings are what the client of a session was told.
type tellings struct {
	s    *Session
	list []*told // the oldest first
}

func (ts *tellings) of(id codec.ClientID, name string) *told {
	for _, t := range ts.list {
		if t.id == id && t.name == name {
			return t
		}
	}
	if len(ts.list) >= maxTold {
		if oldest := ts.list[0]; oldest.owed {
			ts.tell(oldest)
		}
		ts.forget(ts.list[0])
	}
	t := &told{id: id, name: name}
	ts.list = append(ts.list, t)
	return t
}

// attempt answers a with 1607, unless that was done often enough. failed says whose
// doing err is.
func (ts *tellings) attempt(a *attempt, err error, failed bool) {
	t := ts.of(a.id, a.name)
	t.calm, t.number, t.err, t.failed = false, a.number, err, failed
	switch {
	case t.times > 0 && a.began <= t.at:
		t.passed++
	case t.times > retries:
		t.passed++
		t.owed = true
	default:
		ts.tell(t)
	}
}

// tell sends the 1607 and logs why.
func (ts *tellings) tell(t *told) {
	s := ts.s
	refusals := t.passed
	if !t.owed { // else the last attempt is among those
		refusals++
	}
	if t.failed {
		step := stepOf(t.err)
		s.svc.counts.fail(step)
		if left, ok := s.logs(zap.ErrorLevel, step, refusals); ok {
			s.log().Error("transfer failed", t.fields(s, zap.Error(t.err), left)...)
		}
	} else if left, ok := s.logs(zap.WarnLevel, s.svc.counts.refuse(t.err), refusals); ok {
		s.log().Warn("transfer refused", t.fields(s, zap.String("reason", t.err.Error()), left)...)
	}
	s.tellQuota(t.name, t.err)
	s.send(ErrorReply())
	t.times++
	t.at, t.owed, t.passed = s.offered, false, 0
}

// kind is what the log counts the lines by.
func (t *told) kind() fmt.Stringer {
	if t.failed {
		return stepOf(t.err)
	}
	reason, _ := reasonOf(t.err)
	return reason
}

// fields are what a line about a transfer says.
func (t *told) fields(s *Session, more ...zap.Field) []zap.Field {
	fields := s.fieldsOf(t.id, zap.String("file", t.name), zap.Uint32("packet", t.number))
	if t.passed > 0 {
		fields = append(fields, zap.Int("times", t.passed))
	}
	return append(fields, more...)
}

// Tick sends the 1607s that are owed. The host calls it about twice a second, on
// the session's goroutine, between two calls of other methods.
func (s *Session) Tick() { s.uploads.told.tick() }

func (ts *tellings) tick() {
	for i := len(ts.list) - 1; i >= 0; i-- {
		switch t := ts.list[i]; {
		case t.owed:
			ts.tell(t)
		case t.calm:
			ts.forget(t)
		}
	}
	for _, t := range ts.list {
		t.calm = true
	}
}

// owes reports whether a 1607 waits for the next Tick.
func (ts *tellings) owes() bool {
	for _, t := range ts.list {
		if t.owed {
			return true
		}
	}
	return false
}

// forget forgets t, and logs how many attempts got no 1607 and no line of their own.
func (ts *tellings) forget(t *told) {
	if s := ts.s; t.passed > 0 {
		if left, ok := s.logs(zap.WarnLevel, t.kind(), t.passed); ok {
			s.log().Warn("transfer refused repeatedly", s.fields(zap.String("file", t.name),
				zap.Int("times", t.passed), zap.String("reason", t.err.Error()), left)...)
		}
	}
	kept := ts.list[:0]
	for _, other := range ts.list {
		if other != t {
			kept = append(kept, other)
		}
	}
	clear(ts.list[len(kept):])
	if ts.list = kept; len(kept) == 0 {
		ts.list = nil
	}
}

// served forgets what the client was told about a file that has gone through.
func (ts *tellings) served(name string) {
	for _, t := range ts.list {
		if t.id == ts.s.id && t.name == name {
			ts.forget(t)
			return
		}
	}
}

func (ts *tellings) forgetAll() {
	for len(ts.list) > 0 {
		ts.forget(ts.list[len(ts.list)-1])
	}
}
