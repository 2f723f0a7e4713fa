package session

import (
	"testing"
	"unsafe"
)

// A Session takes 512 bytes at most: one more, and the allocator takes 576 for each
// connection.
func TestSizeOfASession(t *testing.T) {
	if size := unsafe.Sizeof(Session{}); size > 512 {
		t.Errorf("%d bytes", size)
	}
}
