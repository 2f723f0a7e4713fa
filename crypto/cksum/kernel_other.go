//go:build purego || (!amd64 && !arm64)

package cksum

// kernels returns what this machine can run, the fastest first.
func kernels() []kernel { return []kernel{portable} }

func (kernel) String() string { return "portable" }

func (kernel) update(crc uint32, p []byte) uint32 { return updatePortable(crc, p) }
