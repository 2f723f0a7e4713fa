package client

import (
	"fmt"
	"math"
	"strings"

	"sealift/codec"
	"sealift/crypto/aescbc"
)

// Dialect is how a file is laid out in packets. The protocol's documents leave
// room, and servers in the field differ; sealiftd takes all of these.
type Dialect uint8

const (
	// Spec encrypts the file as a whole and cuts the ciphertext into packets
	// numbered 1…N, the last one short. Content Size is the whole ciphertext.
	Spec Dialect = iota
	// Single is Spec with everything in one packet, 1 of 1.
	Single
	// Padded is Spec with packets of one size, the last filled up with zeros.
	Padded
	// ZeroBased is Padded with the packets numbered 0…N-1.
	ZeroBased
	// PerPacket encrypts each packet on its own, from the zero IV and with its
	// own padding; both sizes are those of the packet.
	PerPacket
	// PacketSize is Spec, but Content Size is that of the packet.
	PacketSize
	// ZeroBasedShort is Spec with the packets numbered 0…N-1, the last one short.
	ZeroBasedShort
	// Auto is the dialect that Options.Known remembers, or else Spec; and if that
	// fails, it finds out which one the server takes. Only Options have it.
	Auto
)

var dialectNames = [...]string{"spec", "single", "padded", "zero-based", "per-packet", "packet-size", "zero-based-short", "auto"}

// Dialects returns all dialects, without Auto.
func Dialects() []Dialect {
	return []Dialect{Spec, Single, Padded, ZeroBased, ZeroBasedShort, PerPacket, PacketSize}
}

// String returns the name that ParseDialect takes.
func (d Dialect) String() string {
	if int(d) < len(dialectNames) {
		return dialectNames[d]
	}
	return fmt.Sprintf("Dialect(%d)", uint8(d))
}

// ParseDialect returns the dialect called name.
func ParseDialect(name string) (Dialect, error) {
	for i, n := range dialectNames {
		if n == name {
			return Dialect(i), nil
		}
	}
	return 0, fmt.Errorf("unknown dialect %q: there are %s", name, strings.Join(dialectNames[:], ", "))
}

// Sizes of packets where Options have none, in bytes.
const (
	defaultBody      = 64 << 10
	defaultPadded    = 1024
	defaultPerPacket = 4096
)

// maxBody is the most content that the Payload Size of one 1028 can state.
const maxBody = math.MaxUint32 - codec.SendFileFieldsSize

// layout is how one file goes into packets.
type layout struct {
	dialect    Dialect
	size       int64 // bytes of the file
	ciphertext int64 // bytes of its ciphertext; not for PerPacket
	unit       int64 // bytes of ciphertext in each packet but the last; of plaintext for PerPacket
	total      int   // how many packets, 1…65,535
}

// MaxFileSize is the largest file that the protocol carries, in bytes.
const MaxFileSize = codec.MaxFileSize

// plan lays out a file of size bytes. packetSize 0 means the dialect's default.
// A file that does not fit gives an ErrTooLarge.
func plan(d Dialect, packetSize int, size int64) (layout, error) {
	if size > MaxFileSize {
		return layout{}, fmt.Errorf("%w: %d bytes, the protocol carries at most %d", ErrTooLarge, size, int64(MaxFileSize))
	}
	l := layout{dialect: d, size: size, ciphertext: aescbc.CiphertextSize(size), unit: int64(packetSize)}
	whole, largest := l.ciphertext, int64(maxBody)
	if d == PerPacket {
		whole, largest = size, (maxBody/16-1)*16
	}
	switch {
	case d == Single:
		l.unit = whole
	case packetSize == 0:
		l.unit = defaultUnit(d, whole)
	}
	if l.unit > largest {
		return layout{}, fmt.Errorf("%w for one packet: %d bytes, a packet carries at most %d", ErrTooLarge, l.unit, largest)
	}
	packets := max(1, (whole+l.unit-1)/l.unit)
	if packets > codec.MaxPackets {
		return layout{}, fmt.Errorf("%w for packets of %d bytes: it would take %d, at most %d can be numbered; choose packets of %d bytes or more",
			ErrTooLarge, l.unit, packets, codec.MaxPackets, needed(whole))
	}
	l.total = int(packets)
	return l, nil
}

// defaultUnit is the usual size of the dialect, or what 65,535 packets need.
func defaultUnit(d Dialect, whole int64) int64 {
	usual := int64(defaultBody)
	switch d {
	case Padded, ZeroBased:
		usual = defaultPadded
	case PerPacket:
		usual = defaultPerPacket
	}
	return max(usual, needed(whole))
}

// needed is the least packet size, a multiple of 16, that makes at most 65,535
// packets of whole bytes.
func needed(whole int64) int64 {
	least := (whole + codec.MaxPackets - 1) / codec.MaxPackets
	return (least + 15) / 16 * 16
}

// packet describes packet i, 0…total-1.
type packet struct {
	fields  codec.SendFile // all but the name
	body    int64          // bytes of content on the wire
	content int64          // bytes of ciphertext in it; the rest of body is zeros
	offset  int64          // PerPacket: where its part of the file begins
	plain   int64          // PerPacket: how many bytes of the file it has
}

func (l layout) packet(i int) packet {
	p := packet{fields: codec.SendFile{
		ContentSize: uint32(l.ciphertext),
		OrigSize:    uint32(l.size),
		Packet:      uint16(i + 1),
		Total:       uint16(l.total),
	}}
	if l.dialect == PerPacket {
		p.offset = int64(i) * l.unit
		p.plain = min(l.unit, l.size-p.offset)
		p.content = aescbc.CiphertextSize(p.plain)
		p.body = p.content
		p.fields.ContentSize, p.fields.OrigSize = uint32(p.content), uint32(p.plain)
		return p
	}
	p.content = min(l.unit, l.ciphertext-int64(i)*l.unit)
	p.body = p.content
	if l.dialect == Padded || l.dialect == ZeroBased {
		p.body = l.unit
	}
	if l.dialect == ZeroBased || l.dialect == ZeroBasedShort {
		p.fields.Packet--
	}
	if l.dialect == PacketSize {
		p.fields.ContentSize = uint32(p.content)
	}
	return p
}
