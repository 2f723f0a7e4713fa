//go:build !purego

package aescbc

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/cpu"
)

// kernels returns what this machine can run, the fastest first.
func kernels() []kernel {
	if !cpu.ARM64.HasAES {
		return []kernel{portable}
	}
	aes := kernel{
		name:         "aes",
		newEncrypter: newAESEncrypter,
		newDecrypter: func(key *[KeySize]byte) engine { return newAESDecrypter(key, decryptBlocks) },
	}
	return []kernel{aes, portable}
}

// expandKey sets enc to the round keys for encryption and dec to those for
// decryption, each in the order of use (FIPS 197, 5.2 and 5.3.5).
func expandKey(key *[KeySize]byte, enc, dec *schedule) {
	const perKey = KeySize / 4 // words
	copy(enc[:], key[:])
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(enc[4*i:]) }
	rcon := uint32(1)
	for i := perKey; i < len(enc)/4; i++ {
		w := word(i - 1)
		switch i % perKey {
		case 0:
			w = bits.RotateLeft32(subWord(w), -8) ^ rcon
			rcon <<= 1
		case 4:
			w = subWord(w)
		}
		binary.LittleEndian.PutUint32(enc[4*i:], word(i-perKey)^w)
	}
	invertKeys(enc, dec)
}

// subWord puts each byte of w through the S-box, in constant time.
//
//go:noescape
func subWord(w uint32) uint32

// invertKeys sets dec to the round keys of the equivalent inverse cipher.
//
//go:noescape
func invertKeys(enc, dec *schedule)

// encryptBlocks encrypts src, a positive multiple of 16 bytes, into dst. It needs
// AES; its portable twin is the CBC of crypto/cipher.
//
//go:noescape
func encryptBlocks(keys *schedule, iv *[BlockSize]byte, dst, src []byte)

// decryptBlocks decrypts src, a positive multiple of 16 bytes, into dst. It needs
// AES; its portable twin is the CBC of crypto/cipher.
//
//go:noescape
func decryptBlocks(keys *schedule, iv *[BlockSize]byte, dst, src []byte)
