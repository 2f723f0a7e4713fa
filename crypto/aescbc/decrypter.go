package aescbc

// A Decrypter decrypts one stream at a time. Make one with NewDecrypter.
type Decrypter struct {
	engine engine
}

// NewDecrypter returns a Decrypter at the start of a stream. It copies what it
// needs of key.
func NewDecrypter(key *[KeySize]byte) *Decrypter {
	return &Decrypter{engine: active.newDecrypter(key)}
}

// Reset goes back to the start of a stream: same key, IV of zeros.
func (d *Decrypter) Reset() { d.engine.Reset() }

// BlockSize returns 16.
func (d *Decrypter) BlockSize() int { return BlockSize }

// CryptBlocks decrypts src into dst and remembers the last block of src for the
// next call. len(src) must be a multiple of 16, dst at least as long, and the two
// must start at the same byte or not overlap; CryptBlocks panics otherwise. It
// does not allocate.
func (d *Decrypter) CryptBlocks(dst, src []byte) {
	checkBlocks(dst, src)
	if len(src) > 0 {
		d.engine.CryptBlocks(dst, src)
	}
}

// Final decrypts src, the last blocks of a stream, into dst and checks the
// padding. It returns the number of plaintext bytes in dst, len(src)-16 to
// len(src)-1.
//
// dst must be at least as long as src and must either start where src starts
// or not overlap it; Final panics otherwise, as CryptBlocks does. All of
// dst[:len(src)] is written, also when ErrPadding is returned. A src whose
// length no ciphertext can have gives ErrLength and leaves dst and the state
// as they were. After Final, call Reset before another stream.
func (d *Decrypter) Final(dst, src []byte) (int, error) {
	if len(src) == 0 || len(src)%BlockSize != 0 {
		return 0, ErrLength
	}
	d.CryptBlocks(dst, src)
	pad := int(dst[len(src)-1])
	if pad == 0 || pad > BlockSize {
		return 0, ErrPadding
	}
	for _, b := range dst[len(src)-pad : len(src)] {
		if int(b) != pad {
			return 0, ErrPadding
		}
	}
	return len(src) - pad, nil
}
