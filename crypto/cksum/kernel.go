package cksum

// A kernel is one way to compute the checksum.
type kernel uint8

const portable kernel = 0

// active is the kernel of this process, chosen once; only tests change it.
var active = kernels()[0]

func update(crc uint32, p []byte) uint32 { return active.update(crc, p) }
