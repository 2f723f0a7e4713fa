package cksum

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A kernel that reads a byte before or after its slice dies here.
func TestGuardPages(t *testing.T) {
	page := os.Getpagesize()
	m, err := unix.Mmap(-1, 0, 3*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	for _, guard := range [][]byte{m[:page], m[2*page:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	inner := m[page : 2*page]
	copy(inner, random(page))
	eachKernel(t, func(t *testing.T) {
		for n := range 1200 {
			for _, p := range [][]byte{inner[:n], inner[page-n:]} {
				if got, want := Checksum(p), bitwise(p); got != want {
					t.Fatalf("%d bytes: %d, want %d", n, got, want)
				}
			}
		}
	})
}
