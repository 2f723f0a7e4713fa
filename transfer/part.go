package transfer

import "sealift/codec"

// Headroom is how many bytes are left free before the content in a Part, for the
// bytes of a cipher block that the content before it ended in.
const Headroom = 16

// Part is content of a transfer in one buffer of its caller's, on its way to Write.
// All of it is in order, or all of it goes to the scratch room. The zero Part has no
// buffer.
type Part struct {
	buf  []byte // the content begins at Headroom
	n    int    // bytes of content
	ends []end  // of the ciphertexts that end in it, ascending; of content in order
	// aside is where content goes that came before its turn; nil for content in order.
	aside *stretch
}

// end is where a ciphertext ends: the place in the content, and the size that the
// client claims for the plaintext of it.
type end struct {
	at   int
	orig int64
}

// stretch is a part of the scratch room, where packets that came early lie one
// behind the other.
type stretch struct {
	off   int64
	marks []mark // the packets that begin in it
}

// mark is a packet whose content begins in a stretch.
type mark struct {
	number uint32
	at     earlyPacket
}

// marksPer is how many bytes of its buffer a Part has for each mark or end: so what
// they take is no more than a fraction of the buffer.
const marksPer = 128

// Part makes an empty Part in buf, for content whose Place is InOrder or Aside and
// that comes next. buf has more than Headroom bytes and is the Part's until the
// caller is done with it.
func (t *Transfer) Part(buf []byte) Part {
	p := Part{buf: buf}
	if t.packet.early != nil {
		p.aside = &stretch{off: t.packet.early.off + int64(t.packet.done)}
	}
	return p
}

// Follows reports whether the content that comes next can go behind what is in p, a
// Part with a buffer.
func (t *Transfer) Follows(p *Part) bool {
	marks := len(p.ends)
	if p.aside != nil {
		marks = len(p.aside.marks)
	}
	// What comes early follows what came early before: the scratch room is filled from
	// one end to the other.
	return len(p.Free()) > 0 && (p.aside != nil) == (t.packet.early != nil) && marks*marksPer < len(p.buf)
}

// Free is the part of the buffer that is not filled yet.
func (p *Part) Free() []byte { return p.buf[Headroom+p.n:] }

// Buf is the buffer, or nil.
func (p *Part) Buf() []byte { return p.buf }

// InOrder reports whether the content is in order, and not for the scratch room.
func (p *Part) InOrder() bool { return p.aside == nil }

// Len is how many bytes of content the Part has.
func (p *Part) Len() int { return p.n }

// Filled says that the next n bytes of content, as many as Fits said or fewer, were
// put into Free of p.
func (t *Transfer) Filled(p *Part, n int) error {
	if a := p.aside; a != nil {
		if t.packet.done == 0 {
			a.marks = append(a.marks, mark{t.packet.number, *t.packet.early})
		}
	}
	p.n += n
	t.arrived += int64(n)
	t.packet.done += uint32(n)
	if p.aside != nil {
		t.endEarly()
		return nil
	}
	t.offset += int64(n)
	if left, known := t.Left(); known && left == 0 {
		p.ends = append(p.ends, end{p.n, t.plan.OrigSize})
	}
	if t.plan.Scheme == codec.PerPacket && t.packet.done == t.packet.size {
		p.ends = append(p.ends, end{p.n, int64(t.packet.orig)})
	}
	return t.endInOrder()
}
