package testpeer

import (
	"fmt"
	"slices"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/keys"
)

// Dialect is a way to lay out a file, see DIALECTS in docs/PROTOCOL.md.
type Dialect string

// The dialects of the field.
const (
	Spec       Dialect = "spec"
	Single     Dialect = "single"
	Padded     Dialect = "padded"
	ZeroBased  Dialect = "zero-based"      // packets as padded
	ZeroSpec   Dialect = "zero-based spec" // packets as spec
	PerPacket  Dialect = "per-packet"
	PacketSize Dialect = "packet-size"
)

// Dialects are all of them.
var Dialects = []Dialect{Spec, Single, Padded, ZeroBased, ZeroSpec, PerPacket, PacketSize}

// File is a file that a peer has encrypted. A test may change any field before it
// cuts the file into packets.
type File struct {
	ID         codec.ClientID // under which it is sent
	Name       string
	Content    []byte
	Cksum      uint32 // of Content
	Ciphertext []byte // of Content, encrypted as one
	key        [keys.AESKeySize]byte
}

// Packet is a 1028.
type Packet struct {
	Head []byte // header and fields
	Body []byte // content; may alias the ciphertext of the file
}

// Bytes returns the packet whole, in a buffer of its own.
func (k Packet) Bytes() []byte { return slices.Concat(k.Head, k.Body) }

// Encrypt returns the ciphertext of content as one, under the key that the peer
// has.
func (p *Peer) Encrypt(content []byte) []byte { return encrypt(&p.Key, content) }

func encrypt(key *[keys.AESKeySize]byte, content []byte) []byte {
	out := make([]byte, aescbc.CiphertextSize(int64(len(content))))
	aescbc.NewEncrypter(key).Final(out, content)
	return out
}

// Count is how many packets the file has in that dialect, with size bytes in each:
// of ciphertext, or of content for PerPacket. It panics if they are more than the
// protocol can count.
func (f *File) Count(d Dialect, size int) int {
	n := 1
	switch d {
	case Single:
	case PerPacket:
		n = max(1, (len(f.Content)+size-1)/size)
	default:
		n = (len(f.Ciphertext) + size - 1) / size
	}
	if n > codec.MaxPackets {
		panic(fmt.Sprint(n, " packets"))
	}
	return n
}

// Packet is the packet with that index, from 0, of those that [File.Packets]
// returns.
func (f *File) Packet(d Dialect, size, index int) Packet {
	if d == Single {
		size = len(f.Ciphertext)
	}
	m := codec.SendFile{
		ContentSize: uint32(len(f.Ciphertext)), OrigSize: uint32(len(f.Content)),
		Packet: uint16(index + 1), Total: uint16(f.Count(d, size)), FileName: []byte(f.Name),
	}
	var body []byte
	if d == PerPacket {
		piece := cut(f.Content, size, index)
		body = encrypt(&f.key, piece)
		m.ContentSize, m.OrigSize = uint32(len(body)), uint32(len(piece))
	} else {
		body = cut(f.Ciphertext, size, index)
	}
	switch d {
	case Padded, ZeroBased:
		body = append(slices.Clone(body), make([]byte, size-len(body))...)
	case PacketSize:
		m.ContentSize = uint32(len(body))
	}
	if d == ZeroBased || d == ZeroSpec {
		m.Packet--
	}
	return Packet{m.Append(nil, f.ID, uint32(len(body))), body}
}

// cut is the piece with that index when b is cut every size bytes.
func cut(b []byte, size, index int) []byte {
	return b[index*size : min(len(b), (index+1)*size)]
}

// Packets are the packets of the file in that dialect, with size bytes in each but
// the last one.
func (f *File) Packets(d Dialect, size int) []Packet {
	all := make([]Packet, f.Count(d, size))
	for i := range all {
		all[i] = f.Packet(d, size, i)
	}
	return all
}
