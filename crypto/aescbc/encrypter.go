package aescbc

// An Encrypter encrypts one stream at a time. Make one with NewEncrypter.
type Encrypter struct {
	engine engine

	// last is the padded block in Final; on the stack it would escape through
	// the engine.
	last [BlockSize]byte
}

// NewEncrypter returns an Encrypter at the start of a stream. It copies what it
// needs of key.
func NewEncrypter(key *[KeySize]byte) *Encrypter {
	return &Encrypter{engine: active.newEncrypter(key)}
}

// Reset goes back to the start of a stream: same key, IV of zeros.
func (e *Encrypter) Reset() { e.engine.Reset() }

// BlockSize returns 16.
func (e *Encrypter) BlockSize() int { return BlockSize }

// CryptBlocks encrypts src into dst and remembers the last block of dst for the
// next call. len(src) must be a multiple of 16, dst at least as long, and the two
// must start at the same byte or not overlap; CryptBlocks panics otherwise. It
// does not allocate.
func (e *Encrypter) CryptBlocks(dst, src []byte) {
	checkBlocks(dst, src)
	if len(src) > 0 {
		e.engine.CryptBlocks(dst, src)
	}
}

// Final pads src, the last bytes of a stream (any number of them, also none),
// encrypts them into dst and returns how many bytes that made:
// CiphertextSize(len(src)).
//
// dst must have that length, or at least that capacity; Final panics otherwise.
// It may start where src starts, as in e.Final(buf[:n], buf[:n]) with a buf
// that has room for the padding, or not overlap it at all. After Final, call
// Reset before another stream.
func (e *Encrypter) Final(dst, src []byte) int {
	whole := len(src) / BlockSize * BlockSize
	total := whole + BlockSize
	dst = dst[:total]

	n := copy(e.last[:], src[whole:])
	for i := n; i < BlockSize; i++ {
		e.last[i] = byte(BlockSize - n)
	}
	e.CryptBlocks(dst[:whole], src[:whole])
	e.CryptBlocks(dst[whole:], e.last[:])
	return total
}
