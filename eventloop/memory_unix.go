//go:build unix && !race

package eventloop

import "golang.org/x/sys/unix"

// allocate returns a buffer of size bytes, a multiple of the page size as a
// rule, that is no part of Go's heap.
func allocate(size int) []byte {
	buf, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil { // too many mappings, or a limit of the address space
		return make([]byte, size)
	}
	return buf
}

// release gives the buffer back to the system. One that is of the heap after
// all, which Munmap knows from its own, is left to the collector.
func release(buf []byte) { _ = unix.Munmap(buf) }
