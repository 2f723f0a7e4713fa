package codec

import "fmt"

// Scheme is how the content of a transfer's packets makes up the file. The
// documents leave it open, and clients in the field settled on three ways.
type Scheme uint8

const (
	// WholeFile: the file is encrypted as one and cut into packets. Content
	// Size and Orig File Size are those of the whole. Past Content Size the
	// last packet may be filled up with zeros.
	WholeFile Scheme = iota
	// PerPacket: each packet is encrypted on its own, with its own padding,
	// from the zero IV; both sizes are those of the packet.
	PerPacket
	// PacketSize: as WholeFile, but Content Size is that of the packet.
	PacketSize
)

func (s Scheme) String() string {
	switch s {
	case WholeFile:
		return "whole-file"
	case PerPacket:
		return "per-packet"
	case PacketSize:
		return "packet-size"
	}
	return fmt.Sprintf("Scheme(%d)", uint8(s))
}

// Plan is how one transfer is laid out: what [Infer] made of its first packet.
// It holds for the whole transfer.
type Plan struct {
	Scheme     Scheme
	First      uint16 // number of the first packet: 1, or 0 for clients that count from zero
	Total      uint16 // how many packets
	Ciphertext int64  // bytes of the whole ciphertext; -1 for PerPacket, where nobody says
	OrigSize   int64  // bytes of the whole file; -1 for PerPacket
	// Swapped: Packet Number and Total Packets stand in each other's fields.
	Swapped bool
}

// Infer reads from the packet of a transfer that arrived first, and from the
// size of its body, how the client lays out its packets. With
// W = CiphertextSize(OrigSize):
//
//	Content Size  Total  body            scheme
//	W             1      >= W            WholeFile
//	W             > 1    < W             WholeFile
//	W             > 1    = W             PerPacket
//	not W         > 1    = Content Size  PacketSize, if body < W
//
// Everything else is a contradiction: an [*Error] that wraps ErrPacket. No
// packet as the documents describe it (WholeFile) fits another row.
//
// A first packet numbered 0 means that the client counts from zero. Total
// Packets 0 is 1 for an empty file that is all in this packet: clients that
// divide the size of the file by that of a packet send it.
//
// A Packet Number N from 2 with a Total Packets of 1 means that the client has
// the two fields swapped, if the sizes are those of packet 1 of N. In a
// PerPacket transfer they cannot tell that from a wrong number of a file in one
// packet, so that is an error.
func Infer(m SendFile, body uint32) (Plan, error) {
	if m.Total != 1 || m.Packet < 2 {
		return infer(m, body)
	}
	p, err := infer(m.swap(), body)
	if err != nil || p.Scheme == PerPacket {
		return Plan{}, packetError("packet %d of %d: the number is wrong, or the two are swapped in a dialect that has no packet 1 of %d with Content Size %d, Orig File Size %d and %d bytes",
			m.Packet, m.Total, m.Packet, m.ContentSize, m.OrigSize, body)
	}
	p.Swapped = true
	return p, nil
}

// MaybeSwapped reports whether m may be the first packet of a client that has
// Packet Number and Total Packets in each other's place, be it served or not.
func (m SendFile) MaybeSwapped(body uint32) bool {
	if m.Total != 1 || m.Packet < 2 {
		return false
	}
	_, err := infer(m.swap(), body)
	return err == nil
}

// infer is Infer where the number and the total are in their own fields.
func infer(m SendFile, body uint32) (Plan, error) {
	w, content, b := CiphertextSize(m.OrigSize), int64(m.ContentSize), int64(body)
	if m.Total == 0 && m.Packet <= 1 && m.OrigSize == 0 && content == w && b >= w {
		m.Total = 1
	}
	p := Plan{First: 1, Total: m.Total, Ciphertext: w, OrigSize: int64(m.OrigSize)}
	if m.Packet == 0 {
		p.First = 0
	}
	switch {
	case m.Total == 0:
		return Plan{}, packetError("Total Packets is 0")
	case !p.numbered(m.Packet):
		return Plan{}, packetError("packet %d of %d", m.Packet, m.Total)
	case w > MaxCiphertext:
		return Plan{}, packetError("a file of %d bytes does not fit", m.OrigSize)
	case b == 0:
		return Plan{}, packetError("a packet without content")
	case content == w && (m.Total == 1 && b >= w || m.Total > 1 && b < w):
		p.Scheme = WholeFile
	case content == w && m.Total > 1 && b == w:
		p.Scheme, p.Ciphertext, p.OrigSize = PerPacket, -1, -1
	case content != w && m.Total > 1 && b == content && b < w:
		p.Scheme = PacketSize
	default:
		return Plan{}, packetError("%s: Content Size %d, Orig File Size %d (ciphertext %d), packet %d of %d with %d bytes",
			contradiction(m, w, b), m.ContentSize, m.OrigSize, w, m.Packet, m.Total, body)
	}
	return p, nil
}

// contradiction names the reading that may have led to sizes that fit no scheme.
// w is the size of the ciphertext of Orig File Size, body that of the content.
func contradiction(m SendFile, w, body int64) string {
	switch content := int64(m.ContentSize); {
	case content == int64(m.OrigSize):
		return "Content Size is the size before encryption"
	case content == body+SendFileFieldsSize:
		return "Content Size is the Payload Size"
	case content == w && m.Total == 1:
		return "the only packet is not the whole file"
	case content == w:
		return "one of several packets has more than the whole file, or is filled up behind a ciphertext of its own"
	case m.Total == 1:
		return "Content Size is not the ciphertext of Orig File Size"
	case content < body:
		return "Content Size is the packet's, and the packet is filled up"
	}
	return "Content Size is neither the file's nor the packet's"
}

// Read returns m with Packet Number and Total Packets in their own fields, as
// the transfer has them.
func (p Plan) Read(m SendFile) SendFile {
	if p.Swapped {
		return m.swap()
	}
	return m
}

func (m SendFile) swap() SendFile {
	m.Packet, m.Total = m.Total, m.Packet
	return m
}

// Check reports whether m, with a body of that many bytes, can belong to the
// transfer: whether it would have led to the same plan, had it been the first
// to arrive. m is as [Plan.Read] returns it. An error is an [*Error] that wraps
// ErrPacket.
func (p Plan) Check(m SendFile, body uint32) error {
	q, err := infer(m, body)
	if err != nil {
		return err
	}
	q.First, q.Swapped = p.First, p.Swapped // a later packet does not tell
	if q != p {
		return packetError("Content Size %d, Orig File Size %d, %d packets, %d bytes: not of the %v transfer under way",
			m.ContentSize, m.OrigSize, m.Total, body, p.Scheme)
	}
	if !p.numbered(m.Packet) {
		return packetError("packet %d of %d, counted from %d", m.Packet, m.Total, p.First)
	}
	return nil
}

// String names the reading: "whole-file from 0", "packet-size, number and total
// swapped".
func (p Plan) String() string {
	text := p.Scheme.String()
	if p.First == 0 {
		text += " from 0"
	}
	if p.Swapped {
		text += ", number and total swapped"
	}
	return text
}

// Last is the number of the last packet.
func (p Plan) Last() uint32 { return uint32(p.First) + uint32(p.Total) - 1 }

func (p Plan) numbered(packet uint16) bool {
	return packet >= p.First && uint32(packet) <= p.Last()
}

func packetError(format string, args ...any) error {
	return &Error{Code: CodeSendFile, Err: ErrPacket, Detail: fmt.Sprintf(format, args...), InStep: true}
}
