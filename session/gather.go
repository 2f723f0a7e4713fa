package session

import (
	"math/bits"

	"sealift/transfer"
)

// Content is gathered in the host's buffers as it comes, and written by jobs: that of
// small files, and of all files where the host does not lend. Feed copies it into the
// buffer. A host that can read from the network to any place reads it there itself
// (Target, Filled).

// destination is where the next content of the packet under way goes. There is a
// type for each.
type destination interface {
	// room returns how many of n bytes can go there now; 0: they have to wait.
	room(n int) (int, error)
	// take takes p, as many bytes as there was room for. It does not keep p.
	take(p []byte) error
}

type (
	passedOver struct{}            // nowhere: the packet belongs to no transfer
	padding    struct{ u *upload } // nowhere: the ciphertext has ended, and it is only looked at
	kept       struct{ u *upload } // into the memory of the transfer, until its turn comes
	gathered   struct{ u *upload } // into a buffer, in order or before its turn
)

func (us *uploads) destination() destination {
	u := us.incoming
	if u == nil {
		return passedOver{}
	}
	switch u.transfer.Place() {
	case transfer.Padding:
		return padding{u}
	case transfer.Kept:
		return kept{u}
	default:
		return gathered{u}
	}
}

func (passedOver) room(n int) (int, error) { return n, nil }
func (passedOver) take([]byte) error       { return nil }

func (padding) room(n int) (int, error) { return n, nil }
func (d padding) take(p []byte) error   { return d.u.transfer.CheckPadding(p) }

func (d kept) room(n int) (int, error) { return n, d.u.reserve(n) }
func (d kept) take(p []byte) error {
	d.u.transfer.Keep(p)
	return nil
}

func (d gathered) room(n int) (int, error) {
	u, t := d.u, d.u.transfer
	n = t.Fits(n)
	if err := u.reserve(n); err != nil {
		return n, err
	}
	if u.fill.Buf() != nil {
		if t.Follows(&u.fill) {
			return min(n, len(u.fill.Free())), nil
		}
		u.push()
		u.pump()
	}
	// While a job runs there is time to gather more; else what is there goes at once.
	// The whole of a small file goes in one piece, though not all of it may be there yet.
	size := int64(MaxBuffer)
	if left, known := t.Left(); known && t.Place() == transfer.InOrder {
		size = min(size, left+Headroom)
	}
	if !u.working && size > lendFrom+Headroom {
		size = min(size, int64(n+Headroom))
	}
	size = 1 << bits.Len64(uint64(max(size, MinBuffer)-1))
	s := u.s
	if s.uploads.held+int(size) > s.svc.Window {
		return 0, nil
	}
	buf := s.host.Buffer(int(size))
	if buf == nil {
		return 0, nil
	}
	s.uploads.held += len(buf)
	u.fill = t.Part(buf)
	return min(n, len(u.fill.Free())), nil
}

func (d gathered) take(p []byte) error {
	u := d.u
	return u.transfer.Filled(&u.fill, copy(u.fill.Free(), p))
}

// room returns how many of the n bytes of content at hand can be taken now; 0
// means wait. If they end the transfer, there is room for them, and they are passed
// over.
func (us *uploads) room(n int) int {
	u := us.incoming
	n, err := us.destination().room(n)
	if err != nil {
		u.end(u.transfer.Number(), err)
	}
	return n
}

// took ends the packet under way if that was its last content, and its transfer if
// err says what is wrong with it.
func (us *uploads) took(last bool, err error) {
	u := us.incoming
	if last {
		us.incoming = nil
	}
	if err != nil {
		u.end(u.transfer.Number(), err)
	}
}

// Target is for a host that can read from the network to any place: it returns
// where the next bytes from the client belong, if they are content of a
// transfer, so that nobody has to copy them. The host reads no more than fits
// and reports it to [Session.Filled] at once; it may also read nothing. nil
// means that the bytes go to Feed, or have to wait: see [Session.Waiting].
func (s *Session) Target() []byte {
	s.waiting = false
	if s.stalled() || !s.dec.InContent() {
		return nil
	}
	d, ok := s.uploads.destination().(gathered)
	if !ok {
		return nil
	}
	if s.waitsForLoan() {
		s.waiting = !d.u.idle()
		return nil
	}
	room := s.uploads.room(int(min(s.dec.ContentLeft(), MaxBuffer)))
	if room == 0 {
		s.waiting = true
		return nil
	}
	if s.uploads.incoming == nil { // what is to come has ended the transfer
		return nil
	}
	return d.u.fill.Free()[:room]
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
	u := s.uploads.incoming
	err := u.transfer.Filled(&u.fill, n)
	s.uploads.took(s.dec.Passed(n), err)
}

// push puts the buffer that is being filled into the queue.
func (u *upload) push() {
	if u.fill.Len() > 0 {
		u.queue = append(u.queue, u.fill)
		u.fill = transfer.Part{}
	}
}

// pop takes the first buffer out of the queue.
func (u *upload) pop() transfer.Part {
	part := u.queue[0]
	if u.queue = u.queue[1:]; len(u.queue) == 0 {
		u.queue = nil
	}
	return part
}

// flush passes on what has been gathered of the transfer that content came for
// last. A buffer in which nothing has been gathered goes back: a client that
// stops in the middle of a packet must not keep it from the others.
func (us *uploads) flush() {
	u := us.touched
	if u == nil {
		return
	}
	u.pump()
	u.returnEmpty()
}

// returnEmpty gives back the buffer that is being filled if there is nothing in
// it.
func (u *upload) returnEmpty() {
	if buf := u.fill.Buf(); buf != nil && u.fill.Len() == 0 {
		u.s.uploads.held -= len(buf)
		u.s.host.Release(buf)
		u.fill = transfer.Part{}
	}
}

// maxAside bounds what a connection keeps in memory of packets that came before
// their turn, content and index, in all its transfers. What is beyond goes to the
// scratch room of the store.
const maxAside = 256 << 10 // bytes

// Hold is transfer.Memory's, for all transfers of the connection.
func (us *uploads) Hold(n int) bool {
	if us.aside+n > maxAside || !us.s.host.Hold(n) {
		return false
	}
	us.aside += n
	return true
}

// Unhold is transfer.Memory's.
func (us *uploads) Unhold(n int) {
	us.aside -= n
	us.s.host.Unhold(n)
}
