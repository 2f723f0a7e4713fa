package cksum

import "testing"

// generator is P with its x^32.
const generator = 1<<32 | Polynomial

// powerOfX returns x^n mod P by long division.
func powerOfX(n int) uint64 {
	r := uint64(1)
	for range n {
		r <<= 1
		if r>>32 != 0 {
			r ^= generator
		}
	}
	return r
}

// quotient returns floor(x^64/P) by long division.
func quotient() (q uint64) {
	r := uint64(0) // the remainder so far, below x^32
	for i := 64; i >= 0; i-- {
		r <<= 1
		if i == 64 {
			r |= 1
		}
		q <<= 1
		if r>>32 != 0 {
			r ^= generator
			q |= 1
		}
	}
	return q
}

func TestFoldTable(t *testing.T) {
	want := [7][2]uint64{
		5: {powerOfX(96), powerOfX(64)},
		6: {quotient(), generator},
	}
	for i, bits := range []int{128, 256, 512, 2048, 4096} {
		want[i] = [2]uint64{powerOfX(bits), powerOfX(bits + 64)}
	}
	for i := range want {
		if foldTable[i] != want[i] {
			t.Errorf("row %d is %#x, want %#x", i, foldTable[i], want[i])
		}
	}
}
