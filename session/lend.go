package session

import (
	"context"
	"fmt"
	"runtime/debug"

	"sealift/codec"
)

// The content of a large file is lent. While it flows, a worker of the host owns
// the session, as the host's goroutine does at other times: it reads from the
// network into a buffer of its own, and Take decrypts and stores what came, on
// the spot. So content changes hands once for a whole row of reads, and nothing
// of it is kept between two of them.

// lendFrom is the least ciphertext, in bytes, that is lent. Less of it costs
// less than the two hand-overs.
const lendFrom = 24 << 10

// Headroom is how many bytes must be free before the content in a buffer for
// [Session.Take], for the part of a cipher block that came before it.
const Headroom = headroom

// loan is what a worker leaves for the end of a loan.
type loan struct {
	u        *upload // whose content came last; its running is true
	over     bool    // what comes next is not for Take
	finished bool    // the file is whole, and its Incoming closed
	err      error   // why the transfer ends
	lost     error   // of the decoder
}

// Lends tells the session whether its host lends the content of large files from
// now on. If so, Feed leaves such content, and Flowing reports true.
func (s *Session) Lends(yes bool) { s.lends = yes }

// Flowing reports whether what Feed left begins with content that the host may
// lend. If it does not, it has to tell so with Lends, and to call Feed again.
func (s *Session) Flowing() bool { return s.waitsForLoan() && s.pkt.u.idle() }

// waitsForLoan reports whether content is under way that Feed does not take,
// because it is to be lent as soon as no job of the transfer runs.
func (s *Session) waitsForLoan() bool {
	u := s.pkt.u
	return s.lends && !s.busy && !s.forgetting && s.leave == "" && !s.hungUp && s.pending == nil &&
		u != nil && s.pkt.early == nil && s.dec.InContent() && u.left() != 0 && s.large(u)
}

// idle reports whether the transfer has no job, and nothing for one.
func (u *upload) idle() bool {
	return !u.running && len(u.queue) == 0 && u.fill.n == 0 && !u.replaying()
}

// large reports whether the content of the transfer is lent.
func (s *Session) large(u *upload) bool {
	size := u.plan.Ciphertext
	if size < 0 { // each packet says what it has
		size = int64(u.plan.Total) * int64(u.claimed)
	}
	return size >= s.svc.lendFrom
}

// Lend gives the session to a worker, after Flowing has reported true. Until the
// host calls Returned, Take, Expects and Client are all that may be called, by
// the worker.
func (s *Session) Lend() {
	u := s.pkt.u
	s.returnEmpty(u)
	u.running = true
	s.touched = u
	s.loan = &loan{u: u}
}

// Expects tells the worker how many bytes Take wants: sure ones, which are
// content of the packet under way, and as many as are likely, up to the end of
// the file, if the client sends the packets of it in a row. Of bytes beyond the
// sure ones Take may leave some.
func (s *Session) Expects() (sure, likely int64) {
	u := s.loan.u
	sure = int64(s.dec.ContentLeft())
	packets := int64(u.plan.Last()) - int64(u.next) // behind the one under way
	if !s.dec.InContent() {
		packets++
	}
	packets = max(0, packets)
	likely = packets * (codec.RequestHeaderSize + codec.SendFileFieldsSize)
	if left := u.left(); left >= 0 { // the packet may be filled up behind that
		return min(sure, left), likely + left
	}
	return sure, likely + sure + packets*int64(u.claimed)
}

// Take takes n bytes that the client sent, which lie in buf behind Headroom free
// bytes, and stores what content of the file they have. It changes buf, and does
// not keep it. It returns how many bytes it took; the others go to Feed after the
// loan. more is false if the loan has to end, and true only if it took all.
func (s *Session) Take(ctx context.Context, buf []byte, n int) (took int, more bool) {
	l := s.loan
	l.err = errUnfinished // unless it comes to its end
	l.u.fill = chunk{buf: buf, spill: -1}
	defer func() { l.u.fill = chunk{} }() // also after a panic: the buffer is not the session's
	p := buf[headroom : headroom+n]
	s.offered = max(s.offered, s.taken+uint64(n))
	var err error
	for took < n && !l.over && err == nil {
		var k int
		if s.dec.InContent() {
			k, err = s.takeContent(p[took:])
		} else {
			k, err = s.takeMessage(ctx, p[took:])
		}
		took += k
		s.taken += uint64(k)
	}
	if err == nil {
		err = l.store(ctx)
	}
	l.err = err
	return took, err == nil && !l.over
}

// takeContent gathers what p has of the content under way.
func (s *Session) takeContent(p []byte) (n int, err error) {
	l := s.loan
	u := l.u
	left := u.left()
	if left == 0 { // padding
		l.over = true
		return 0, nil
	}
	if left > 0 {
		p = p[:min(int64(len(p)), left)]
	}
	p = p[:min(len(p), int(s.dec.ContentLeft()))]
	if !s.reserve(u, len(p)) {
		return 0, errUnverified
	}
	if free := u.fill.free(); &free[0] != &p[0] { // else it lies where it belongs
		copy(free, p)
	}
	s.gathered(u, len(p))
	if s.dec.Passed(len(p)) {
		err = s.passPacket(u)
	}
	return len(p), err
}

// passPacket goes on to the next packet of u. The loan is over if that is not to
// be taken as it comes.
func (s *Session) passPacket(u *upload) error {
	if u.plan.Scheme == codec.PerPacket {
		u.fill.ends = append(u.fill.ends, end{u.fill.n, int64(s.pkt.orig)})
	}
	u.next++
	s.pkt = packet{}
	switch {
	case u.next > u.plan.Last() && u.left() > 0:
		return errNotWhole
	case u.next > u.plan.Last():
		u.complete, s.loan.over = true, true
	case u.replaying():
		s.loan.over = true
	}
	return nil
}

// takeMessage decodes what p has up to the content of the next packet. What is
// not the next packet of a large file waits for the end of the loan.
func (s *Session) takeMessage(ctx context.Context, p []byte) (n int, err error) {
	l := s.loan
	ev, n, err := s.dec.Next(p)
	if err != nil {
		l.lost, l.over = err, true
		return n, nil
	}
	if ev.Kind != codec.Message {
		return n, nil
	}
	s.messages++
	s.last, s.begins = s.host.Now(), s.taken+uint64(n)
	u, m := s.following(ev)
	if u == nil {
		s.pending = &message{ev.Header, append([]byte(nil), ev.Payload...), ev.ContentSize, s.begins}
		l.over = true
		return n, nil
	}
	if u != l.u {
		if err := l.pass(ctx, u); err != nil {
			// Its message is not lost: the loan ends with the transfer before it.
			s.pending = &message{ev.Header, append([]byte(nil), ev.Payload...), ev.ContentSize, s.begins}
			return n, err
		}
		s.touched = u
	}
	u.later, u.claimed = ev.Header.Later, m.ContentSize
	s.pkt = packet{u: u, number: uint32(m.Packet), orig: m.OrigSize}
	return n, nil
}

// following returns the transfer whose next packet ev is, if its content can be
// taken on the spot, or nil. It changes nothing.
func (s *Session) following(ev codec.Event) (*upload, codec.SendFile) {
	if ev.Header.Code != codec.CodeSendFile || ev.Header.ID != s.id || ev.ContentSize == 0 || s.svc.Faults != nil {
		return nil, codec.SendFile{}
	}
	raw, err := codec.ParseSendFile(ev.Payload)
	u := s.uploads[string(raw.FileName)]
	if err != nil || u == nil || u.tentative || u.left() == 0 || !s.large(u) {
		return nil, codec.SendFile{}
	}
	m := u.plan.Read(raw)
	if !u.based || uint32(m.Packet) != u.next || u.plan.Check(m, ev.ContentSize) != nil {
		return nil, codec.SendFile{}
	}
	if u != s.loan.u && !u.idle() {
		return nil, codec.SendFile{}
	}
	return u, m
}

// pass stores what came for the transfer before, and goes on with u in the rest of
// the buffer.
func (l *loan) pass(ctx context.Context, u *upload) error {
	buf := l.u.fill.buf
	if err := l.store(ctx); err != nil {
		return err
	}
	l.u.fill, l.u.running = chunk{}, false
	l.u, u.running = u, true
	u.fill = chunk{buf: buf, spill: -1}
	return nil
}

// store decrypts and stores what has been gathered, and closes the file if that
// was the end of it. A panic ends the transfer and not the connection: the decoder
// is in step.
func (l *loan) store(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: panic: %v\n%s", errUnfinished, p, debug.Stack())
		}
	}()
	u := l.u
	if u.fill.n > 0 {
		err = u.sink.take(ctx, &u.fill)
	}
	if err == nil && u.complete {
		err = u.sink.finish(ctx)
		l.finished = err == nil
	}
	return err
}

// Returned takes the session back, on its own goroutine, after the worker's last
// Take. Feed comes next, with what Take left.
func (s *Session) Returned() {
	l := s.loan
	s.loan = nil
	l.u.running = false
	then := s.pump
	if l.finished {
		then = s.store
	}
	s.worked(l.u, l.err, then)
	if l.lost != nil {
		s.messages++
		s.protocolError(l.lost)
	}
}
