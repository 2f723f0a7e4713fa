package aescbc

// A kernel is one way to run the cipher on this machine.
type kernel struct {
	name         string
	newEncrypter func(key *[KeySize]byte) engine
	newDecrypter func(key *[KeySize]byte) engine
}

// An engine is one direction of the cipher under one key, with the chaining
// block. CryptBlocks gets arguments that checkBlocks has seen.
type engine interface {
	CryptBlocks(dst, src []byte)
	Reset()
}

// active is the kernel of this process, chosen once; only tests change it.
var active = kernels()[0]
