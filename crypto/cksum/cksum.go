// Package cksum computes the checksum that POSIX defines for the cksum utility,
// as a streaming [hash.Hash32].
//
// It is the CRC-32 with polynomial 0x04C11DB7, most significant bit first,
// initial value 0, over the data followed by its length (least significant
// byte first, no leading zeros, nothing for an empty input), complemented at
// the end. See IEEE Std 1003.1, cksum, "EXTENDED DESCRIPTION". It detects
// accidents, not tampering.
package cksum

import (
	"encoding/binary"
	"hash"
)

const (
	// Size is the size of a checksum in bytes.
	Size = 4
	// BlockSize is the size of input that Write handles best, in bytes; any
	// other size is as correct.
	BlockSize = 64
)

// Polynomial is the generator, most significant bit first, without x^32.
const Polynomial = 0x04C11DB7

// A Hash is a running checksum. The zero value is ready for use. It belongs to
// one goroutine at a time, and no method allocates.
type Hash struct {
	crc    uint32 // the CRC register: no complement, most significant bit first
	length uint64 // bytes written so far
}

var _ hash.Hash32 = (*Hash)(nil)

// New returns a Hash over no data yet.
func New() *Hash { return new(Hash) }

// Resume returns a Hash over length bytes, whose State was state.
func Resume(state uint32, length uint64) Hash { return Hash{state, length} }

// State returns what Resume needs, besides the number of bytes written so far.
func (h *Hash) State() uint32 { return h.crc }

// Write adds p. It takes all of p, does not keep it, and never fails.
func (h *Hash) Write(p []byte) (int, error) {
	h.crc = update(h.crc, p)
	h.length += uint64(len(p))
	return len(p), nil
}

// Sum32 returns the checksum of everything written so far. More may be written
// afterwards.
func (h *Hash) Sum32() uint32 {
	crc := h.crc
	for n := h.length; n != 0; n >>= 8 {
		crc = step(crc, byte(n))
	}
	return ^crc
}

// Sum appends the checksum to b, most significant byte first.
func (h *Hash) Sum(b []byte) []byte { return binary.BigEndian.AppendUint32(b, h.Sum32()) }

// Reset forgets everything written.
func (h *Hash) Reset() { *h = Hash{} }

// Size returns 4.
func (h *Hash) Size() int { return Size }

// BlockSize returns the preferred size of a Write in bytes.
func (h *Hash) BlockSize() int { return BlockSize }

// Checksum returns the checksum of p, the first number that cksum prints.
func Checksum(p []byte) uint32 {
	h := Hash{crc: update(0, p), length: uint64(len(p))}
	return h.Sum32()
}
