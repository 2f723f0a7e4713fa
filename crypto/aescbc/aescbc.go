// Package aescbc encrypts and decrypts file content as protocol version 3 wants
// it: AES-256 in CBC mode (NIST SP 800-38A, 6.2) with an IV of zeros, and PKCS#7
// padding (RFC 5652, 6.3) behind the last byte of the file only.
//
// Both directions stream. An [Encrypter] or [Decrypter] carries the chaining
// block from one call to the next, so a file may pass through in pieces of any
// multiple of 16 bytes; the last piece goes through Final, which adds or checks
// the padding:
//
//	d := aescbc.NewDecrypter(&key)
//	d.CryptBlocks(buf, buf)          // as often as there are whole pieces
//	n, err := d.Final(last, last)    // the end of the ciphertext: last[:n] is plaintext
//
// Nothing here authenticates the content, and the constant IV reveals which
// files begin alike: both are properties of the protocol.
//
// A value belongs to one goroutine at a time. Different values are independent.
package aescbc

import (
	"crypto/cipher"
	"errors"
	"unsafe"
)

const (
	// BlockSize is the AES block size in bytes.
	BlockSize = 16
	// KeySize is the size of an AES-256 key in bytes.
	KeySize = 32
)

var (
	// ErrPadding says that the end of a ciphertext does not decrypt to PKCS#7
	// padding: wrong key, damaged or foreign content.
	ErrPadding = errors.New("aescbc: bad PKCS#7 padding")
	// ErrLength says that the end of a ciphertext is empty or no multiple of
	// BlockSize bytes.
	ErrLength = errors.New("aescbc: ciphertext length is not a positive multiple of 16")
)

var (
	_ cipher.BlockMode = (*Decrypter)(nil)
	_ cipher.BlockMode = (*Encrypter)(nil)
)

// CiphertextSize returns how many bytes n bytes of plaintext become. Padding is
// always added, so it is more than n by 1 to 16 bytes. n must not be negative.
func CiphertextSize(n int64) int64 {
	return (n/BlockSize + 1) * BlockSize
}

// checkBlocks holds callers to the contract of cipher.BlockMode.
func checkBlocks(dst, src []byte) {
	if len(src)%BlockSize != 0 {
		panic("aescbc: input not full blocks")
	}
	if len(dst) < len(src) {
		panic("aescbc: output smaller than input")
	}
	if len(src) == 0 {
		return
	}
	d, s := uintptr(unsafe.Pointer(&dst[0])), uintptr(unsafe.Pointer(&src[0]))
	if n := uintptr(len(src)); d != s && d < s+n && s < d+n {
		panic("aescbc: invalid buffer overlap")
	}
}
