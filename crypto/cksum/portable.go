package cksum

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"sync"
)

// table holds the register after one byte, for a register of 0.
var table = makeTable()

func makeTable() (t [256]uint32) {
	for i := range t {
		crc := uint32(i) << 24
		for range 8 {
			carry := crc >> 31
			crc = crc<<1 ^ carry*Polynomial
		}
		t[i] = crc
	}
	return t
}

// step adds one byte to the register.
func step(crc uint32, b byte) uint32 { return crc<<8 ^ table[byte(crc>>24)^b] }

// stepAll adds p to the register byte by byte: for the few bytes that are not
// worth more.
func stepAll(crc uint32, p []byte) uint32 {
	for _, b := range p {
		crc = step(crc, b)
	}
	return crc
}

// reversedSize is small enough to stay in the first-level cache with the
// input, and large enough for hash/crc32 to reach its full speed.
const reversedSize = 4096

// hash/crc32 lets its argument escape, so the reversed bytes can't be on the
// stack.
var reversedPool = sync.Pool{New: func() any { return new([reversedSize]byte) }}

// updatePortable adds p to the register with hash/crc32. That package's IEEE
// polynomial is ours with the least significant bit first, so it gives our
// register, mirrored and complemented, when every byte of the input is
// mirrored. Mirroring eight bytes in one word plus its PCLMULQDQ (or the CRC32
// instructions of other processors) is faster than tables.
func updatePortable(crc uint32, p []byte) uint32 {
	if len(p) >= 64 {
		buf := reversedPool.Get().(*[reversedSize]byte)
		mirrored := ^bits.Reverse32(crc)
		for len(p) >= 8 {
			n := min(len(p)&^7, reversedSize)
			reverseBits(buf[:n], p[:n])
			mirrored = crc32.Update(mirrored, crc32.IEEETable, buf[:n])
			p = p[n:]
		}
		reversedPool.Put(buf)
		crc = bits.Reverse32(^mirrored)
	}
	return stepAll(crc, p)
}

// reverseBits writes src to dst with the bits of each byte in reverse order.
// Both have the same length, a multiple of 8.
func reverseBits(dst, src []byte) {
	// Four words at a time keep the adders and shifters of the processor busy.
	for len(src) >= 32 && len(dst) >= 32 {
		d, s := (*[32]byte)(dst), (*[32]byte)(src)
		w0 := reverseWord(binary.LittleEndian.Uint64(s[0:]))
		w1 := reverseWord(binary.LittleEndian.Uint64(s[8:]))
		w2 := reverseWord(binary.LittleEndian.Uint64(s[16:]))
		w3 := reverseWord(binary.LittleEndian.Uint64(s[24:]))
		binary.LittleEndian.PutUint64(d[0:], w0)
		binary.LittleEndian.PutUint64(d[8:], w1)
		binary.LittleEndian.PutUint64(d[16:], w2)
		binary.LittleEndian.PutUint64(d[24:], w3)
		dst, src = dst[32:], src[32:]
	}
	for len(src) >= 8 && len(dst) >= 8 {
		binary.LittleEndian.PutUint64(dst, reverseWord(binary.LittleEndian.Uint64(src)))
		dst, src = dst[8:], src[8:]
	}
}

// reverseWord reverses the bits of each byte of x: neighbours, pairs, nibbles.
// The sums have no carries; on amd64 they compile to one LEA each.
func reverseWord(x uint64) uint64 {
	const (
		ones    = 0x5555555555555555
		pairs   = 0x3333333333333333
		nibbles = 0x0F0F0F0F0F0F0F0F
	)
	x = x>>1&ones + x&ones*2
	x = x>>2&pairs + x&pairs*4
	return x>>4&nibbles | x&nibbles<<4
}
