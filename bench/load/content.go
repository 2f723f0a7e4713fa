package load

import (
	"cmp"
	"crypto/aes"
	"io"
	"math/rand/v2"
	"net"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/crypto/keys"
)

// The server chooses a new AES key for every connection, so a ciphertext cannot
// be kept from one run to the next, and CBC encrypts serially, at a fraction of
// what a server takes. But any bytes are the ciphertext of something: the
// generator sends the same pattern again and again, and only the last block is
// encrypted, so that the padding is right. What the file is follows by
// decryption, which is fast, and gives the checksum to expect. So a file of 4 GiB
// needs no more memory than one of 4 MiB, and the clock times no encryption.

// patternSize is the period of a ciphertext in bytes: several times the second
// level cache, as the buffers of a sending program are.
const patternSize = 8 << 20

// pattern is what ciphertexts are made of. It is the same in every run, and
// nobody changes it.
var pattern = newPattern()

func newPattern() []byte {
	p := make([]byte, patternSize)
	var seed [32]byte
	copy(seed[:], "sealift")
	_, _ = rand.NewChaCha8(seed).Read(p) // never fails
	return p
}

// packetBody is how many bytes of content a 1028 carries, unless the load says
// otherwise, or the file needs more packets than there are numbers.
const packetBody = 64 << 10

// file is a file as its client sees it: a name, the ciphertext and the checksum
// of what that decrypts to.
type file struct {
	name       string
	size       int64 // bytes, decrypted
	ciphertext int64 // bytes
	last       [aescbc.BlockSize]byte
	cksum      uint32
	body       int64 // bytes of content of each packet but the last
	packets    int
}

// newFile makes the file of size bytes that the pattern is under key, in packets of
// body bytes of content, 0: packetBody. scratch is room to work in, at best some
// 64 KiB.
func newFile(name string, size, body int64, key *[keys.AESKeySize]byte, scratch []byte) *file {
	f := &file{name: name, size: size, ciphertext: aescbc.CiphertextSize(size)}
	f.layOut(body)

	// The last block: zeros for the end of the file, then the padding.
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the size of the key is right
	}
	inLast := int(size % aescbc.BlockSize)
	for i := inLast; i < len(f.last); i++ {
		f.last[i] = byte(aescbc.BlockSize - inLast)
	}
	whole := f.ciphertext - aescbc.BlockSize
	if whole > 0 {
		before := pattern[(whole-aescbc.BlockSize)%patternSize:]
		for i := range f.last {
			f.last[i] ^= before[i]
		}
	}
	block.Encrypt(f.last[:], f.last[:])

	var sum cksum.Hash
	dec := aescbc.NewDecrypter(key)
	for at := int64(0); at < whole; {
		in := piece(at, min(whole-at, int64(len(scratch)&^(aescbc.BlockSize-1))))
		out := scratch[:len(in)]
		dec.CryptBlocks(out, in)
		_, _ = sum.Write(out)
		at += int64(len(in))
	}
	var zeros [aescbc.BlockSize]byte
	_, _ = sum.Write(zeros[:inLast])
	f.cksum = sum.Sum32()
	return f
}

// layOut cuts the ciphertext into packets.
func (f *file) layOut(body int64) {
	f.body = max(cmp.Or(body, packetBody), (f.ciphertext+codec.MaxPackets-1)/codec.MaxPackets)
	f.packets = int((f.ciphertext + f.body - 1) / f.body)
}

// piece is the part of the endless ciphertext at offset at: n bytes, or as many
// as lie side by side.
func piece(at, n int64) []byte {
	from := at % patternSize
	return pattern[from:min(from+n, patternSize)]
}

// wire makes the messages of a file, a few packets at a time.
type wire struct {
	f    *file
	id   codec.ClientID
	next int // packet to come, from 0
	head []byte
	bufs net.Buffers
}

// perWrite is how many packets go into one system call, which takes 1,024 pieces.
func (f *file) perWrite() int { return int(min(max(16, 1<<20/f.body), 512)) }

func (w *wire) more() bool { return w.next < w.f.packets }

// gather returns the next packets, for one net.Buffers.WriteTo.
func (w *wire) gather() *net.Buffers {
	w.bufs = w.bufs[:0]
	if w.head == nil { // it must not move while bufs points into it
		n := min(w.f.perWrite(), w.f.packets)
		w.head = make([]byte, 0, n*(codec.RequestHeaderSize+codec.SendFileFieldsSize))
	}
	w.head = w.head[:0]
	for range w.f.perWrite() {
		if !w.more() {
			break
		}
		at := int64(w.next) * w.f.body
		n := min(w.f.body, w.f.ciphertext-at)
		w.next++
		start := len(w.head)
		w.head = codec.SendFile{
			ContentSize: uint32(w.f.ciphertext), OrigSize: uint32(w.f.size),
			Packet: uint16(w.next), Total: uint16(w.f.packets), FileName: []byte(w.f.name),
		}.Append(w.head, w.id, uint32(n))
		w.bufs = append(w.bufs, w.head[start:])
		w.content(at, n)
	}
	b := w.bufs
	return &b
}

// content adds n bytes of ciphertext from offset at.
func (w *wire) content(at, n int64) {
	end := at + n
	for limit := min(end, w.f.ciphertext-aescbc.BlockSize); at < limit; {
		p := piece(at, limit-at)
		w.bufs = append(w.bufs, p)
		at += int64(len(p))
	}
	if at < end {
		last := w.f.ciphertext - aescbc.BlockSize
		w.bufs = append(w.bufs, w.f.last[at-last:end-last])
	}
}

// size is how many bytes the whole file makes on the wire.
func (w *wire) size() int64 {
	return w.f.ciphertext + int64(w.f.packets)*(codec.RequestHeaderSize+codec.SendFileFieldsSize)
}

// WriteContent writes a file of size bytes, the same in every run.
func WriteContent(w io.Writer, size int64) error {
	for at := int64(0); at < size; {
		n, err := w.Write(piece(at, min(size-at, 1<<20)))
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}
