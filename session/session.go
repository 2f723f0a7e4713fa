package session

import (
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/storage"
)

// Session is the server's side of one connection. It takes the bytes that the
// client sent, decides, and answers through its [Host]. All methods are called
// on the session's goroutine; while it is lent, only its [Loan] and Client are used,
// by the worker that has it, and View.
type Session struct {
	svc     *Service
	host    Host
	remote  string // address of the client, for the log
	channel *Channel

	dec       codec.RequestDecoder
	state     state
	id        codec.ClientID // bound unless state is fresh
	settled   moment         // since when it is bound, 0: it is not, or is about to be. For Service.bound.
	name      string         // of the client
	key       aesKey
	resumedAs *codec.ClientID // for which leaveResumption is due

	uploads  uploads         // its transfers
	rejected *codec.ClientID // of the last 1606 on this connection, nil: there was none
	// In Service.bound: the connections of the same client. Under its lock, as settled.
	before, next *Session
	// ousted is why the session may not go on for its client, nil: it may. It is about to
	// be told. Any goroutine sets it.
	ousted atomic.Pointer[error]

	pending  *message // decoded, but to be done later
	opened   time.Time
	last     time.Time // of the last request
	recorded time.Time // LastSeen as the registry has it

	messages uint64 // that have come, refused ones too

	// Places in the stream, in bytes that came by Feed and Loan.Take.
	taken   uint64 // as far as it was taken
	offered uint64 // as far as the host has had it
	begins  uint64 // of the request that is being done: behind its fields, before its content

	guarded  bool // the id is all that the client showed for key
	busy     bool // a request waits for a worker or the registry
	draining bool
	// forgetting is true while the registry forgets a key: then the session ends.
	forgetting bool
	facts      facts  // known of the client
	leave      string // why the next Feed hangs up, if it does
	waiting    bool   // Target found no room
	lends      bool   // see Lends
	hungUp     bool
	closed     bool
}

// message is a request whose turn has not come.
type message struct {
	header  codec.RequestHeader
	payload []byte
	content uint32
	begins  uint64 // see Session.begins
}

// newMessage keeps ev, which began there, for later.
func newMessage(ev codec.Event, begins uint64) *message {
	return &message{ev.Header, append([]byte(nil), ev.Payload...), ev.ContentSize, begins}
}

// New makes the session of a connection that has just been accepted. remote is
// the address of the client.
func New(svc *Service, host Host, remote string) *Session {
	now := host.Now()
	s := &Session{svc: svc, host: host, remote: remote, channel: &plainChannel, opened: now, last: now, recorded: now}
	s.uploads.s, s.uploads.told.s = s, s
	svc.Faults.watch(s)
	return s
}

// Feed takes bytes from the client and returns how many it took. It takes fewer than
// len(p) when it must first wait for work or memory, or when the rest begins with
// content that is to be lent (see Flowing). The package comment says when the host
// calls Feed again. It does not keep p.
func (s *Session) Feed(p []byte) (n int) {
	n = s.Gather(p)
	for {
		s.uploads.flush()
		// What was left may have waited for the transfer that has just failed.
		if !s.uploads.ended || s.busy || s.forgetting {
			return n
		}
		n += s.Gather(p[n:])
	}
}

// Gather is Feed that does not pass content on to a worker as long as there is room for
// more: for a host that reads on, see Target, and calls Feed before it waits for
// anything. So a small file is one piece of work, however it was read.
func (s *Session) Gather(p []byte) (n int) {
	s.offered = max(s.offered, s.taken+uint64(len(p)))
	s.uploads.ended = false
	return s.consume(p)
}

// consume is Feed but for what has been gathered: flush passes that on.
func (s *Session) consume(p []byte) (n int) {
	for !s.busy && !s.forgetting {
		if s.leave != "" && !s.hungUp {
			s.hungUp, s.pending = true, nil
			s.host.Hangup(s.leave)
		}
		if s.hungUp {
			n = len(p)
			break
		}
		if m := s.pending; m != nil {
			s.pending, s.begins = nil, m.begins
			if !s.dispatch(m.header, m.payload, m.content) {
				s.pending = m
				break
			}
			continue
		}
		q := p[n:]
		if len(q) == 0 {
			break
		}
		if s.dec.InContent() {
			if s.waitsForLoan() {
				break
			}
			room := s.uploads.room(len(q))
			if room == 0 {
				break
			}
			q = q[:room]
		}
		ev, took, err := s.dec.Next(q)
		n += took
		s.taken += uint64(took)
		if err != nil {
			s.messages++
			s.protocolError(err)
			continue
		}
		switch ev.Kind {
		case codec.Message:
			s.messages++
			s.last, s.begins = s.host.Now(), s.taken
			if !s.dispatch(ev.Header, ev.Payload, ev.ContentSize) {
				s.pending = newMessage(ev, s.begins)
			}
		case codec.Content:
			s.uploads.took(ev.End, s.uploads.destination().take(ev.Content))
		}
	}
	return n
}

// dispatch does one request. It returns false if its turn has not come.
func (s *Session) dispatch(h codec.RequestHeader, payload []byte, content uint32) bool {
	if h.Code == codec.CodeSendFile {
		s.uploads.incoming = nil // until receive says otherwise the content is passed over
	}
	if s.state != fresh && h.ID != s.id {
		s.refuse(s.about(h, payload), &offence{ReasonState, "the client id is not the connection's: " + h.ID.String()})
		return true
	}
	if s.sabotage(h, payload) {
		return true
	}
	switch s.state.next(h.Code) {
	case register:
		s.register(payload)
	case exchange:
		s.exchange(h.ID, payload)
	case rejoin:
		s.rejoin(h.ID, payload)
	case recall:
		s.recall(h, payload, content)
	case receive:
		taken := s.uploads.receive(h.Later, payload, content)
		if taken {
			s.uploads.forgetFound()
		}
		return taken
	case proceed:
		s.uploads.judged(h.Code, payload)
		return s.proceed(payload)
	case confirm, again, abort:
		s.uploads.judged(h.Code, payload)
		return s.verdict(h.Code, payload)
	default:
		s.refuse(s.about(h, payload), &offence{ReasonState, "not in state " + s.state.String()})
	}
	return true
}

// stalled reports whether Feed takes nothing, whatever comes.
func (s *Session) stalled() bool {
	return s.Busy() || s.leave != "" || s.hungUp
}

// Working reports whether the server owes the client something, so that its
// silence is not the client's fault.
func (s *Session) Working() bool {
	if s.Busy() {
		return true
	}
	for _, u := range s.uploads.all {
		if u.working || u.transfer.Complete() {
			return true
		}
	}
	return false
}

// Busy reports whether a request waits for a worker, the registry or a transfer
// that is all in: Feed will take nothing until that is done.
func (s *Session) Busy() bool { return s.busy || s.forgetting || s.pending != nil }

// Phase says what a session waits for, so that its host can tell how long it
// may do so.
type Phase uint8

const (
	Handshake Phase = iota // a client that says who it is
	InMessage              // the rest of a message
	InUpload               // more of a file
	Idle                   // the next request
)

// Messages is how many messages have come from the client, refused ones too.
func (s *Session) Messages() uint64 { return s.messages }

// Phase tells what the session waits for from the client.
func (s *Session) Phase() Phase {
	switch {
	case s.dec.InMessage():
		return InMessage
	case s.state == fresh:
		return Handshake
	case s.dec.InContent() || s.uploads.underWay() > 0:
		return InUpload
	}
	return Idle
}

// Drain tells the session that the server is going down: no new transfer
// begins, those that are under way may end. The host hangs up when Done.
func (s *Session) Drain() { s.draining = true }

// Done reports whether no transfer is under way and no verdict is awaited.
func (s *Session) Done() bool {
	for _, r := range s.uploads.received {
		if !r.settled {
			return false
		}
	}
	return !s.Busy() && s.uploads.underWay() == 0 && !s.uploads.told.owes()
}

// Closed tells the session that the connection is gone. Transfers whose record
// is not on its way to the registry yet are removed; work that is under way
// still runs its done.
func (s *Session) Closed() {
	s.closed, s.hungUp = true, true
	s.pending = nil
	s.uploads.forgetFound()
	s.uploads.cutOff()
	s.leaveResumption()
	if s.state == fresh {
		return
	}
	s.svc.bound.leave(s.id, s)
	if s.last.After(s.recorded) && s.ousted.Load() == nil {
		s.host.Apply(&storage.Seen{Outcome: s.outcome(), ID: s.id}, nil)
	}
}

// Client is whose connection it is. ok is false as long as nobody knows.
func (s *Session) Client() (id codec.ClientID, ok bool) { return s.id, s.state != fresh }

// Summary gives what a log line about the end of the connection should say.
func (s *Session) Summary() []zap.Field {
	return s.fields(zap.Duration("open_seconds", s.host.Now().Sub(s.opened)))
}

func (s *Session) log() *zap.Logger { return s.svc.Log }

func (s *Session) fields(more ...zap.Field) []zap.Field {
	fs := make([]zap.Field, 0, 3+len(more))
	fs = append(fs, zap.String("remote", s.remote))
	if s.state != fresh {
		fs = append(fs, zap.String("client", s.id.String()), zap.String("name", s.name))
	}
	return append(fs, more...)
}

// fieldsOf is fields for what came under id, which may be that of no client.
func (s *Session) fieldsOf(id codec.ClientID, more ...zap.Field) []zap.Field {
	if s.state == fresh && !id.IsZero() {
		more = append(more, zap.String("client", id.String()))
	}
	return s.fields(more...)
}

// outcome stamps an operation with the time of the request that asks for it, and with
// what the client has shown.
func (s *Session) outcome() storage.Outcome {
	s.recorded = s.last
	return storage.Outcome{At: s.last, By: s.by()}
}

func (s *Session) send(reply []byte) {
	if !s.closed {
		s.host.Send(reply)
	}
}

// protocolError answers a message that the codec refused. If the codec lost
// its step, the connection has to end.
func (s *Session) protocolError(err error) {
	var e *codec.Error
	if !errors.As(err, &e) {
		e = &codec.Error{Err: err}
	}
	s.refuse(request(e.Code), e)
	if !e.InStep {
		s.hungUp = true
		s.host.Hangup("out of step")
	}
}
