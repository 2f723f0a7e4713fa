package aescbc

import (
	"crypto/aes"
	"crypto/cipher"
)

// portable is the standard library's CBC, one block after the other.
var portable = kernel{
	name: "portable",
	newEncrypter: func(key *[KeySize]byte) engine {
		return newPortableEngine(key, cipher.NewCBCEncrypter)
	},
	newDecrypter: func(key *[KeySize]byte) engine {
		return newPortableEngine(key, cipher.NewCBCDecrypter)
	},
}

type portableEngine struct {
	cipher.BlockMode
	block   cipher.Block
	newMode func(block cipher.Block, iv []byte) cipher.BlockMode
}

func newPortableEngine(key *[KeySize]byte, newMode func(cipher.Block, []byte) cipher.BlockMode) engine {
	block, err := aes.NewCipher(key[:])
	if err != nil { // only for keys of other sizes
		panic("aescbc: " + err.Error())
	}
	e := &portableEngine{block: block, newMode: newMode}
	e.Reset()
	return e
}

func (e *portableEngine) Reset() { e.BlockMode = e.newMode(e.block, make([]byte, BlockSize)) }
