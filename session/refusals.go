package session

import (
	"fmt"

	"go.uber.org/zap"

	"sealift/codec"
)

var (
	errTooMany    = &offence{ReasonTransfers, "too many transfers under way on the connection"}
	errGoingDown  = &offence{ReasonDraining, "the server is going down"}
	errUnverified = &offence{ReasonUnverified, "what the client has without a verdict is more than --max-unverified allows"}
	errTooDeep    = &offence{ReasonPath, "the file name has more than 16 folders"}
)

// clientsDoing reports whether err is about what the client did or asked for, and not
// about a failure of the server's.
func clientsDoing(err error) bool {
	_, ok := reasonOf(err)
	return ok
}

// subject is what a 1607 is about: a request, or an attempt to send a file.
type subject struct {
	code    codec.Code
	id      codec.ClientID // in its header, for the log; zero: not told
	attempt *attempt       // nil for all but a 1028
}

// request is any request but a 1028.
func request(code codec.Code) subject { return subject{code: code} }

// of is a request with that id in its header.
func (about subject) of(id codec.ClientID) subject {
	about.id = id
	return about
}

// attempt is an attempt to send a file that ends with a 1607.
type attempt struct {
	refusal         // remembered, so that packets that still come are passed over
	unnoted  bool   // it is not to be remembered
	answered bool   // the transfer had its 1607 before: nothing is sent or logged
	began    uint64 // where in the stream
	number   uint32 // of the packet at fault
}

// refuse answers with 1607 what the client did wrong. The connection stays.
func (s *Session) refuse(about subject, reason error) {
	if about.attempt != nil {
		s.uploads.turned(about.attempt, reason, false)
		return
	}
	if left, ok := s.logs(zap.WarnLevel, s.svc.counts.refuse(reason), 1); ok {
		s.log().Warn("request refused", s.fieldsOf(about.id, zap.Uint16("code", uint16(about.code)), zap.String("reason", reason.Error()), left)...)
	}
	s.send(ErrorReply())
}

// fail answers with 1607 what the server could not do: that step failed. The
// connection stays.
func (s *Session) fail(about subject, step Step, err error) {
	if about.attempt != nil {
		s.uploads.turned(about.attempt, &stepError{step, fmt.Errorf("%v: %w", step, err)}, true)
		return
	}
	s.svc.counts.fail(step)
	if left, ok := s.logs(zap.ErrorLevel, step, 1); ok {
		s.log().Error("request failed", s.fieldsOf(about.id, zap.Uint16("code", uint16(about.code)), zap.Stringer("step", step), zap.Error(err), left)...)
	}
	s.send(ErrorReply())
}

// answer answers an attempt that came to its end by err.
func (a *attempt) answer(s *Session, err error) { s.uploads.turned(a, err, !clientsDoing(err)) }

// turned remembers not to answer the packets behind an attempt, and answers it with
// 1607, unless that was done often enough.
func (us *uploads) turned(a *attempt, err error, failed bool) {
	s := us.s
	if s.closed || a.unnoted {
		a.came.free(s.host)
	} else if !a.answered {
		us.refused.note(s.host, a.refusal)
		if a.id == s.id && overtakes(err) {
			us.overtake(a.name)
		}
	}
	if !s.closed && !a.answered {
		us.told.attempt(a, err, failed)
	}
}

// overtakes reports whether an attempt that ended by err was one to send a newer version.
// A packet that makes no sense is none: some clients send one more than a file has.
func overtakes(err error) bool {
	switch reason, _ := reasonOf(err); reason {
	case ReasonPacket, ReasonContent, ReasonProtocol:
		return false
	case ReasonDraining: // begin has decided
		return false
	}
	return true
}

// end ends a transfer with a 1607. number is that of the packet at fault.
func (u *upload) end(number uint32, err error) {
	u.endAt(number, u.transfer.Plan().Total, err)
}

// endAt is end for a packet whose Total Packets may differ from the transfer's. The
// packets after it carry the same total.
func (u *upload) endAt(number uint32, total uint16, err error) {
	s, plan := u.s, u.transfer.Plan()
	a := &attempt{began: u.began, number: number}
	a.id, a.name, a.total, a.swapped = s.id, u.name, total, plan.Swapped
	// If packet 0 comes after packet 1 was taken for the first, then the client
	// counts from 0, and when the file comes again that is known.
	a.zero = number < uint32(plan.First) || plan.First == 0 && number <= plan.Last()
	ok := a.came.add(s.host, number)
	for n := range u.transfer.Came() {
		ok = ok && a.came.add(s.host, n)
	}
	if s.uploads.incoming == u {
		ok = ok && a.came.add(s.host, u.transfer.Number())
	}
	a.unnoted = !ok
	u.dropAs(u.fateBy(err))
	if clientsDoing(err) && !aboutClient(err) {
		err = fmt.Errorf("read as %v: %w", plan, err)
	}
	a.answer(s, err)
}

// firstPacket is an attempt that ends with the packet m, which belongs to no transfer
// under way. size is that of its content.
func (us *uploads) firstPacket(id codec.ClientID, m codec.SendFile, size uint32) *attempt {
	s := us.s
	a := &attempt{began: s.begins}
	if a.answered = us.refused.passOver(s.host, id, m); a.answered {
		return a
	}
	a.id, a.name = id, string(m.FileName)
	if a.swapped = m.MaybeSwapped(size); a.swapped {
		m = a.read(m)
	}
	if a.total = m.Total; m.Total == 0 && m.Packet > 1 {
		a.of = m.Packet
	}
	a.number = uint32(m.Packet)
	// A number past Total is of no transfer: one that is right may follow.
	a.unnoted = m.Total > 0 && m.Packet > m.Total || !a.came.add(s.host, a.number)
	return a
}

// about is a message that the session does not look into.
func (s *Session) about(h codec.RequestHeader, payload []byte) subject {
	if h.Code != codec.CodeSendFile {
		return request(h.Code).of(h.ID)
	}
	m, _ := codec.ParseSendFile(payload) // with a bad name it is empty, and the number is there
	return subject{h.Code, h.ID, s.uploads.firstPacket(h.ID, m, h.PayloadSize-codec.SendFileFieldsSize)}
}

// refusal remembers a transfer that was answered with 1607. The rest of its
// packets, which the client sent before it could know, is passed over without
// another 1607. A packet that comes a second time is of the next attempt, as is
// one with another Total Packets; whether that gets a 1607, see told.
type refusal struct {
	id    codec.ClientID // as in the headers
	name  string         // of the file, as the client sent it
	total uint16
	came  packetSet
	zero  bool // the client turned out to count from 0
	// swapped: the client has number and total in each other's place. total and
	// came have them where they belong.
	swapped bool
	// of is the Packet Number of a first packet whose Total Packets was 0. If the client
	// has the two swapped and counts from 0, all its packets have that number.
	of uint16
}

// packetSet is a set of packet numbers: bit n%64 of word n/64 is number n.
type packetSet []uint64

func (p packetSet) has(n uint32) bool {
	return int(n/64) < len(p) && p[n/64]>>(n%64)&1 != 0
}

// add puts n into the set. It returns false if the host has no memory for it.
func (p *packetSet) add(host Host, n uint32) bool {
	if more := int(n/64) + 1 - len(*p); more > 0 {
		if !host.Hold(8 * more) {
			return false
		}
		*p = append(*p, make([]uint64, more)...)
	}
	(*p)[n/64] |= 1 << (n % 64)
	return true
}

func (p *packetSet) free(host Host) {
	if len(*p) > 0 {
		host.Unhold(8 * len(*p))
	}
	*p = nil
}

// refusals are a session's, the latest last.
type refusals []refusal

// maxRefused is the most transfers that are remembered. The oldest go first:
// then the client gets a 1607 more.
const maxRefused = 16

func (r refusals) find(id codec.ClientID, name string) *refusal {
	for i := range r {
		if r[i].id == id && r[i].name == name {
			return &r[i]
		}
	}
	return nil
}

// passOver reports whether a packet belongs to a transfer that was refused.
func (r *refusals) passOver(host Host, id codec.ClientID, m codec.SendFile) bool {
	f := r.covering(id, m)
	if f == nil {
		return false
	}
	if !f.came.add(host, uint32(f.read(m).Packet)) {
		r.forget(host, id, f.name)
		return false
	}
	return true
}

// covering is the refused transfer that a packet belongs to, or nil.
func (r refusals) covering(id codec.ClientID, m codec.SendFile) *refusal {
	f := r.find(id, string(m.FileName))
	if f == nil {
		return nil
	}
	if f.of > 0 && m.Packet == f.of && m.Total > 0 && m.Total < f.of {
		return f
	}
	if m = f.read(m); f.total != m.Total || f.came.has(uint32(m.Packet)) {
		return nil
	}
	return f
}

func (f *refusal) read(m codec.SendFile) codec.SendFile {
	return codec.Plan{Swapped: f.swapped}.Read(m)
}

// note puts a transfer into the list.
func (r *refusals) note(host Host, f refusal) {
	r.forget(host, f.id, f.name)
	if len(*r) >= maxRefused {
		oldest := (*r)[0]
		r.forget(host, oldest.id, oldest.name)
	}
	*r = append(*r, f)
}

func (r *refusals) forget(host Host, id codec.ClientID, name string) {
	kept := (*r)[:0]
	for _, f := range *r {
		if f.id == id && f.name == name {
			f.came.free(host)
		} else {
			kept = append(kept, f)
		}
	}
	clear((*r)[len(kept):])
	*r = kept
}

func (r *refusals) clear(host Host) {
	for i := range *r {
		(*r)[i].came.free(host)
	}
	*r = nil
}
