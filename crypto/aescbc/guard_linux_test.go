package aescbc

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// guarded returns memory of so many pages between two that nobody may touch.
func guarded(t *testing.T, pages int) []byte {
	t.Helper()
	page := os.Getpagesize()
	m, err := unix.Mmap(-1, 0, (pages+2)*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(m) })
	for _, guard := range [][]byte{m[:page], m[len(m)-page:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return m[page : len(m)-page]
}

// A kernel that reads or writes a byte before or after its slices dies here.
func TestGuardPages(t *testing.T) {
	src, dst := guarded(t, 1), guarded(t, 1)
	eachKernel(t, func(t *testing.T) {
		for n := 0; n <= 1104; n += BlockSize {
			for _, d := range modes(random(n)) {
				// Against the guard page after the buffers, and the one before.
				for _, at := range []int{len(src) - n, 0} {
					s, o := src[at:at+n], dst[at:at+n]
					copy(s, d.in)
					d.open().CryptBlocks(o, s)
					if !bytes.Equal(o, d.want) {
						t.Fatalf("%s %d bytes at %d: differs", d.name, n, at)
					}
					d.open().CryptBlocks(s, s)
					if !bytes.Equal(s, d.want) {
						t.Fatalf("%s %d bytes in place at %d: differs", d.name, n, at)
					}
				}
			}
		}
	})
}

func TestGuardPagesStreams(t *testing.T) {
	for _, count := range []int{2, 3, 5, 8} {
		sizes := make([]int, count)
		for i := range sizes {
			sizes[i] = (i + 1) * 3 * BlockSize
		}
		s := newStreamSet(sizes)
		for i, b := range s.bufs {
			m := guarded(t, 1)
			at := 0
			if i%2 == 0 {
				at = len(m) - len(b)
			}
			s.bufs[i] = m[at : at+len(b)]
			copy(s.bufs[i], b)
		}
		whole := s.between(0, 1<<20)
		EncryptStreams(s.streams, whole, whole)
		for i := range s.want {
			if !bytes.Equal(s.bufs[i], s.want[i]) {
				t.Fatalf("stream %d of %d differs", i, count)
			}
		}
	}
}
