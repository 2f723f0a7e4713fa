package session

import (
	"context"
	"fmt"
	"runtime/debug"

	"sealift/codec"
	"sealift/transfer"
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
// [Loan.Take], for the part of a cipher block that came before it.
const Headroom = transfer.Headroom

// Loan is a session in the hands of a worker, from [Session.Lend] to
// [Loan.Return]. Until then Take, Expects and [Session.Client] are all that may be
// called, by the worker.
type Loan struct {
	s        *Session
	u        *upload       // whose content came last; its working is true
	part     transfer.Part // in the worker's buffer, during Take
	over     bool          // what comes next is not for Take
	finished bool          // the file is whole, and its incoming file closed
	err      error         // why the transfer ends
	lost     error         // of the decoder
}

// Lends tells the session whether its host lends the content of large files from
// now on. If so, Feed leaves such content, and Flowing reports true.
func (s *Session) Lends(yes bool) { s.lends = yes }

// Flowing reports whether what Feed left begins with content that the host may
// lend. If it does not, it has to tell so with Lends, and to call Feed again.
func (s *Session) Flowing() bool { return s.waitsForLoan() && s.uploads.incoming.idle() }

// waitsForLoan reports whether content is under way that Feed does not take,
// because it is to be lent as soon as no job of the transfer runs.
func (s *Session) waitsForLoan() bool {
	u := s.uploads.incoming
	return s.lends && u != nil && !s.stalled() && s.dec.InContent() && u.transfer.Place() == transfer.InOrder && u.large()
}

// idle reports whether the transfer has no job, and nothing for one.
func (u *upload) idle() bool {
	return !u.working && len(u.queue) == 0 && u.fill.Len() == 0 && !u.transfer.Behind()
}

// large reports whether the content of the transfer is lent.
func (u *upload) large() bool {
	plan := u.transfer.Plan()
	size := plan.Ciphertext
	if size < 0 { // each packet says what it has
		size = int64(plan.Total) * int64(u.claimed)
	}
	return size >= u.s.svc.lendFrom
}

// Lend gives the session to a worker, after Flowing has reported true.
func (s *Session) Lend() *Loan {
	u := s.uploads.incoming
	u.returnEmpty()
	u.working = true
	s.uploads.touched = u
	return &Loan{s: s, u: u}
}

// Expects tells the worker how many bytes Take wants: sure ones, which are
// content of the packet under way, and as many as are likely, up to the end of
// the file, if the client sends the packets of it in a row. Of bytes beyond the
// sure ones Take may leave some.
func (l *Loan) Expects() (sure, likely int64) {
	s, t := l.s, l.u.transfer
	sure = int64(s.dec.ContentLeft())
	packets := t.PacketsLeft() // behind the one under way
	if s.dec.InContent() && packets > 0 {
		packets--
	}
	likely = packets * (codec.RequestHeaderSize + codec.SendFileFieldsSize)
	if left, known := t.Left(); known { // the packet may be filled up behind that
		return min(sure, left), likely + left
	}
	return sure, likely + sure + packets*int64(l.u.claimed)
}

// Take takes n bytes that the client sent, which lie in buf behind Headroom free
// bytes, and stores what content of the file they have. It changes buf, and does
// not keep it. It returns how many bytes it took; the others go to Feed after the
// loan. more is false if the loan has to end, and true only if it took all.
func (l *Loan) Take(ctx context.Context, buf []byte, n int) (took int, more bool) {
	s := l.s
	l.err = errUnfinished // unless it comes to its end
	l.part = l.u.transfer.Part(buf)
	defer func() { l.part = transfer.Part{} }() // also after a panic: the buffer is not the session's
	p := buf[Headroom : Headroom+n]
	s.offered = max(s.offered, s.taken+uint64(n))
	var err error
	for took < n && !l.over && err == nil {
		var k int
		if s.dec.InContent() {
			k, err = l.takeContent(p[took:])
		} else {
			k, err = l.takeMessage(ctx, p[took:])
		}
		took += k
		s.taken += uint64(k)
	}
	if err == nil {
		err = l.store(ctx)
	}
	l.err = err
	return took, err == nil && !l.over && !l.u.checkpointDue()
}

// takeContent gathers what p has of the content under way. The loan is over where
// what comes next is not to be taken as it comes.
func (l *Loan) takeContent(p []byte) (n int, err error) {
	s, t := l.s, l.u.transfer
	if t.Place() == transfer.Padding {
		l.over = true
		return 0, nil
	}
	n = t.Fits(min(len(p), int(s.dec.ContentLeft())))
	if err := l.u.reserve(n); err != nil {
		return 0, err
	}
	if free := l.part.Free(); &free[0] != &p[0] { // else it lies where it belongs
		copy(free, p[:n])
	}
	err = t.Filled(&l.part, n)
	if s.dec.Passed(n) {
		s.uploads.incoming = nil
		l.over = l.over || t.Complete() || t.Behind()
	}
	return n, err
}

// takeMessage decodes what p has up to the content of the next packet. What is
// not the next packet of a large file waits for the end of the loan.
func (l *Loan) takeMessage(ctx context.Context, p []byte) (n int, err error) {
	s := l.s
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
	u, m := l.following(ev)
	if u == nil {
		s.pending = newMessage(ev, s.begins)
		l.over = true
		return n, nil
	}
	other := u != l.u
	if other {
		if err := l.pass(ctx, u); err != nil {
			// Its message is not lost: the loan ends with the transfer before it.
			s.pending = newMessage(ev, s.begins)
			return n, err
		}
		s.uploads.touched = u
	}
	u.later, u.claimed = ev.Header.Later, m.ContentSize
	u.transfer.Begin(uint32(m.Packet), ev.ContentSize, m.OrigSize)
	if other {
		l.part = u.transfer.Part(l.part.Buf())
	}
	s.uploads.incoming = u
	return n, nil
}

// following returns the transfer whose next packet ev is, if its content can be
// taken on the spot, or nil. It changes nothing.
func (l *Loan) following(ev codec.Event) (*upload, codec.SendFile) {
	s := l.s
	if ev.Header.Code != codec.CodeSendFile || ev.Header.ID != s.id || ev.ContentSize == 0 || s.svc.Faults != nil {
		return nil, codec.SendFile{}
	}
	raw, err := codec.ParseSendFile(ev.Payload)
	u := s.uploads.all[string(raw.FileName)]
	if err != nil || u == nil || u.tentative || !u.large() || u != l.u && !u.idle() {
		return nil, codec.SendFile{}
	}
	t := u.transfer
	if left, known := t.Left(); known && left == 0 {
		return nil, codec.SendFile{}
	}
	plan := t.Plan()
	m := plan.Read(raw)
	if turn, err := t.Turn(uint32(m.Packet), ev.ContentSize); err != nil || turn != transfer.Next || plan.Check(m, ev.ContentSize) != nil {
		return nil, codec.SendFile{}
	}
	return u, m
}

// pass stores what came for the transfer before, and goes on with u.
func (l *Loan) pass(ctx context.Context, u *upload) error {
	if err := l.store(ctx); err != nil {
		return err
	}
	l.u.working = false
	l.u, u.working = u, true
	return nil
}

// store decrypts and stores what has been gathered, and closes the file if that
// was the end of it. A panic ends the transfer and not the connection: the decoder
// is in step.
func (l *Loan) store(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: panic: %v\n%s", errUnfinished, p, debug.Stack())
		}
	}()
	t := l.u.transfer
	if l.part.Len() > 0 {
		err = t.Write(ctx, &l.part)
	}
	if err == nil && t.Complete() {
		err = t.Finish(ctx)
		l.finished = err == nil
	}
	return err
}

// Return gives the session back, on its own goroutine, after the worker's last
// Take. Feed comes next, with what Take left.
func (l *Loan) Return() {
	s := l.s
	l.u.goOn(l.finished, l.err)
	if l.lost != nil {
		s.messages++
		s.protocolError(l.lost)
	}
}
