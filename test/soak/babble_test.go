//go:build linux

package soak

import (
	"encoding/binary"
	"strings"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// The victim's files are called "precious …". That whoever knows an id can send
// noise under it, and that one in 256 pieces of noise decrypts, is a weakness of
// the protocol (docs/SECURITY.md): babblers do not use these names in a 1028.
var babbledNames = []string{
	"a", "A", "b", "folder/a", `folder\b`, "folder", "precious 1", "precious 2", "..", "../../x", "../defensive.db",
	"/etc/passwd", `C:\x`, ".", "/", "", strings.Repeat("n", codec.MaxName), strings.Repeat("d/", 120) + "f", "\x01", "name\xff",
}

// field is a name field; what follows the null is anything, and now and then
// there is no null.
func (g *babbler) field(name string) []byte {
	b := make([]byte, codec.NameSize)
	for i := range b {
		b[i] = byte(g.rng.Uint32())
	}
	n := copy(b, name)
	if n < len(b) && g.rng.IntN(50) > 0 {
		b[n] = 0
	}
	return b
}

func (g *babbler) name() string { return babbledNames[g.rng.IntN(len(babbledNames))] }

func (g *babbler) userName(p *peer) string {
	switch g.rng.IntN(8) {
	case 0:
		return g.victim.Name
	case 1:
		return g.name()
	}
	return p.Name
}

func (g *babbler) id(p *peer) codec.ClientID {
	switch g.rng.IntN(10) {
	case 0:
		return g.victim.ID
	case 1:
		return codec.ClientID{}
	case 2:
		return codec.ClientID(pattern(g.rng.Uint64(), codec.IDSize))
	}
	return p.ID
}

// size is a number that a field may have, rather a critical one.
func (g *babbler) size() uint32 {
	critical := []uint32{0, 1, 15, 16, 17, 255, 256, 1024, 65535, 65536, 1 << 31, 1<<32 - 16, 1<<32 - 1}
	if g.rng.IntN(2) == 0 {
		return critical[g.rng.IntN(len(critical))]
	}
	return g.rng.Uint32N(4096)
}

// message is one message, or what might be taken for one.
func (g *babbler) message(p *peer) []byte {
	b := g.meant(p)
	switch g.rng.IntN(12) {
	case 0: // damaged
		b[g.rng.IntN(len(b))] ^= 1 << g.rng.IntN(8)
		g.spare(b)
	case 1: // cut short: what follows is out of step
		if g.rng.IntN(4) == 0 {
			b = b[:g.rng.IntN(len(b))]
		}
	}
	return b
}

// spare makes a message that damage has turned against the victim harmless.
func (g *babbler) spare(b []byte) {
	if codec.ClientID(b[:codec.IDSize]) == g.victim.ID && len(b) > codec.RequestHeaderSize+12 {
		copy(b[:codec.IDSize], make([]byte, codec.IDSize))
	}
}

func (g *babbler) meant(p *peer) []byte {
	id := g.id(p)
	header := func(code codec.Code, size int) []byte {
		return codec.RequestHeader{ID: id, Version: codec.Version, Code: code, PayloadSize: uint32(size)}.Append(nil)
	}
	switch g.rng.IntN(10) {
	case 0:
		return append(header(codec.CodeRegister, codec.NameSize), g.field(g.userName(p))...)
	case 1:
		b := append(header(codec.CodePublicKey, codec.NameSize+codec.PublicKeySize), g.field(g.userName(p))...)
		key := testpeer.SharedPair(1 + g.rng.IntN(3)).Public
		if g.rng.IntN(3) == 0 {
			key[g.rng.IntN(len(key))] ^= 1 << g.rng.IntN(8)
		}
		return append(b, key[:]...)
	case 2:
		return append(header(codec.CodeReconnect, codec.NameSize), g.field(g.userName(p))...)
	case 3, 4:
		code := []codec.Code{codec.CodeCRCOK, codec.CodeCRCOK, codec.CodeCRCBad, codec.CodeAbort}[g.rng.IntN(4)]
		return append(header(code, codec.NameSize), g.field(g.name())...)
	case 5: // no message at all
		b := pattern(g.rng.Uint64(), codec.RequestHeaderSize+g.rng.IntN(300))
		g.spare(b)
		if g.rng.IntN(2) == 0 {
			b[16] = codec.Version
			binary.LittleEndian.PutUint16(b[17:], uint16(1020+g.rng.IntN(16)))
			binary.LittleEndian.PutUint32(b[19:], g.size())
		}
		return b
	case 6: // a packet of anything
		name := g.harmless(id)
		m := codec.SendFile{
			ContentSize: g.size(), OrigSize: g.size(), Packet: uint16(g.size()), Total: uint16(g.size()), FileName: []byte(name),
		}
		body := pattern(g.rng.Uint64(), g.rng.IntN(3000))
		if g.rng.IntN(10) == 0 {
			return append(m.Append(nil, id, g.size()&^(1<<31)), body...) // another size than it says
		}
		return append(m.Append(nil, id, uint32(len(body))), body...)
	default: // packets of a file, as they should be or nearly
		content := pattern(g.rng.Uint64(), g.rng.IntN(3000))
		name := g.harmless(id)
		f := p.File(name, content)
		f.ID = id
		size := max(1, len(f.Ciphertext)/(1+g.rng.IntN(4)))
		var b []byte
		for _, n := range g.rng.Perm(f.Count(testpeer.Spec, size)) {
			if g.rng.IntN(20) > 0 {
				b = append(b, packet(f, size, n+1)...)
			}
		}
		if len(b) == 0 || g.rng.IntN(2) == 0 {
			b = append(b, codec.Verdict{Code: codec.CodeCRCOK, FileName: []byte(name)}.Append(nil, id)...)
		}
		return b
	}
}

// harmless is a file name for a 1028 under id.
func (g *babbler) harmless(id codec.ClientID) string {
	name := g.name()
	if id == g.victim.ID && strings.HasPrefix(name, "precious") {
		return "a"
	}
	return name
}
