package eventloop

import (
	"testing"
	"unsafe"
)

// A conn takes 416 bytes at most: one more, and the allocator takes 448 for each
// connection.
func TestSizeOfAConn(t *testing.T) {
	if size := unsafe.Sizeof(conn{}); size > 416 {
		t.Errorf("%d bytes", size)
	}
}
