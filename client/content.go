package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
)

const (
	// maxChunk is the most content that is written at once, in bytes. A packet
	// up to that size goes out in one write with its header.
	maxChunk = 256 << 10
	// chunkBuffers is how many chunks of a transfer exist: one is encrypted
	// while another is written, and the rest even out the two.
	chunkBuffers = 4

	packetHeader = codec.RequestHeaderSize + codec.SendFileFieldsSize
)

// errAborted ends a producer whose chunks nobody wants any more.
var errAborted = errors.New("aborted")

// producer reads, sums and encrypts a file and cuts it into packets, on a
// goroutine of its own, ahead of who writes them. The chunks it hands out are
// given back through free.
type producer struct {
	chunks chan chunk  // closed at the end; then err and sum are set
	free   chan []byte // buffers, at most chunkBuffers
	stop   chan struct{}
	once   sync.Once // closes stop

	err error
	sum prefix // of the file, up to where the transfer ends
}

// chunk is what is written at once: a packet, or a part of one.
type chunk struct {
	b     []byte
	plain int64 // bytes of the file in all chunks up to here

	packetEnd bool // it ends a packet
	last      bool // it ends the file
}

// header is what all packets of a file have in common.
type header struct {
	id    codec.ClientID
	name  string
	codes Codes
}

// produce starts a producer. Who calls it reads chunks until they are closed,
// or calls abort. The content is encrypted beside that of other transfers if
// there is a mixer.
func produce(l layout, r io.ReaderAt, at part, h header, key *[aescbc.KeySize]byte, m *mixer) *producer {
	p := &producer{
		chunks: make(chan chunk, chunkBuffers),
		free:   make(chan []byte, chunkBuffers),
		stop:   make(chan struct{}),
	}
	size := packetHeader + int(min(l.packet(0).body, maxChunk))
	for range chunkBuffers {
		p.free <- make([]byte, 0, size)
	}
	go func() {
		defer close(p.chunks)
		enc := aescbc.NewEncrypter(key)
		encrypt := func(b []byte) { enc.CryptBlocks(b, b) }
		if m != nil {
			encrypt = m.stream(enc)
		}
		p.err = p.run(l, r, at, h, enc, encrypt)
	}()
	return p
}

// cancel has the producer stop after what it is doing. It may be called again.
func (p *producer) cancel() { p.once.Do(func() { close(p.stop) }) }

// abort cancels the producer and waits until it has let go of the file. It
// returns false if ctx ends before that: then the producer still waits for a
// read of the file, and nothing of it may be looked at.
func (p *producer) abort(ctx context.Context) (ended bool) {
	p.cancel()
	for {
		select {
		case _, more := <-p.chunks:
			if !more {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

func (p *producer) run(l layout, r io.ReaderAt, at part, h header, enc *aescbc.Encrypter, encrypt func([]byte)) error {
	sum := &at.before.sum
	src := encryptingReader{r: r, offset: at.before.n, end: at.before.n + l.size, enc: enc, encrypt: encrypt, sum: sum}
	for i := range l.total {
		pkt := l.packet(i)
		if l.dialect == PerPacket {
			enc.Reset()
			begin := at.before.n + pkt.offset
			src = encryptingReader{r: r, offset: begin, end: begin + pkt.plain, enc: enc, encrypt: encrypt, sum: sum}
		}
		pkt.fields.FileName = []byte(h.name)
		begin := true
		for sent := int64(0); sent < pkt.body; begin = false {
			var buf []byte
			select {
			case buf = <-p.free:
			case <-p.stop:
				return errAborted
			}
			b := buf[:0]
			if begin {
				b = pkt.fields.Append(b, h.id, uint32(pkt.body))
				h.codes.put(b, codec.CodeSendFile)
			}
			n := min(pkt.body-sent, maxChunk, int64(cap(b)-len(b)))
			ciphertext := max(0, min(n, pkt.content-sent))
			body := b[len(b) : len(b)+int(n)]
			if _, err := io.ReadFull(&src, body[:ciphertext]); err != nil {
				return err
			}
			clear(body[ciphertext:])
			sent += n
			c := chunk{b: b[:len(b)+int(n)], plain: src.offset, packetEnd: sent == pkt.body}
			c.last = c.packetEnd && i == l.total-1
			if c.last {
				if err := at.checkEnd(r, src.offset); err != nil {
					return err
				}
				p.sum = prefix{src.offset, *sum}
			}
			select {
			case p.chunks <- c:
			case <-p.stop:
				return errAborted
			}
		}
	}
	return nil
}

// part says which part of a file a transfer carries.
type part struct {
	before prefix // of the file: what comes before it
	file   int64  // bytes of the file
}

// checkEnd makes sure that the file ends where it did when the transfer began, if that
// is where the part ends.
func (at part) checkEnd(r io.ReaderAt, end int64) error {
	if end < at.file {
		return nil
	}
	var more [1]byte
	switch n, err := r.ReadAt(more[:], end); {
	case n > 0:
		return fmt.Errorf("%w: it had %d bytes and has grown", ErrChanged, end)
	case err != nil && err != io.EOF:
		return err
	}
	return nil
}

// encryptingReader reads the bytes from offset to end of r as AES-CBC with
// PKCS#7 padding, and sums them. It encrypts where its caller wants the bytes,
// without a copy.
type encryptingReader struct {
	r           io.ReaderAt
	offset, end int64
	enc         *aescbc.Encrypter
	encrypt     func(b []byte) // whole blocks, in place, with enc
	sum         *cksum.Hash

	rest    []byte // ciphertext of a block that was split
	block   [aescbc.BlockSize]byte
	padding bool // has been read: the end
}

func (e *encryptingReader) Read(p []byte) (int, error) {
	if len(e.rest) > 0 {
		n := copy(p, e.rest)
		e.rest = e.rest[n:]
		return n, nil
	}
	if e.padding {
		return 0, io.EOF
	}
	if len(p) < aescbc.BlockSize {
		if _, err := e.blocks(e.block[:]); err != nil {
			return 0, err
		}
		e.rest = e.block[:]
		return e.Read(p)
	}
	return e.blocks(p[:len(p)/aescbc.BlockSize*aescbc.BlockSize])
}

// blocks fills p, whole blocks, as far as there is ciphertext.
func (e *encryptingReader) blocks(p []byte) (int, error) {
	n := int(min(int64(len(p)), e.end-e.offset))
	got, err := e.r.ReadAt(p[:n], e.offset)
	if got < n {
		if err == io.EOF {
			err = fmt.Errorf("%w: it ends after %d bytes", ErrChanged, e.offset+int64(got))
		}
		return 0, err
	}
	_, _ = e.sum.Write(p[:n])
	e.offset += int64(n)
	if n == len(p) {
		e.encrypt(p)
		return n, nil
	}
	e.padding = true
	return e.enc.Final(p, p[:n]), nil
}

// Packets returns the messages (1028, header and payload) in which a Client
// would send content: for tools that test servers and have a use for single
// packets. [Auto] is [Spec] here, and the packets are numbered 1028. It is all in
// memory.
func Packets(d Dialect, packetSize int, id codec.ClientID, name string, key *[aescbc.KeySize]byte, content []byte) ([][]byte, error) {
	if err := CheckFileName(name); err != nil {
		return nil, err
	}
	l, err := plan(d, packetSize, int64(len(content)))
	if err != nil {
		return nil, err
	}
	p := produce(l, bytes.NewReader(content), part{file: l.size}, header{id: id, name: name}, key, nil)
	var messages [][]byte
	begin := true
	for c := range p.chunks {
		if begin {
			messages = append(messages, nil)
		}
		last := &messages[len(messages)-1]
		*last = append(*last, c.b...)
		begin = c.packetEnd
		p.free <- c.b
	}
	return messages, p.err
}
