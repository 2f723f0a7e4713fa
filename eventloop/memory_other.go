//go:build !unix || race

package eventloop

// allocate returns a buffer of size bytes. The race detector watches Go's heap
// only, so that is where it is then.
func allocate(size int) []byte { return make([]byte, size) }

func release([]byte) {}
