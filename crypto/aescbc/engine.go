//go:build !purego && (amd64 || arm64)

package aescbc

// schedule holds the 15 round keys of AES-256 in the order of use.
type schedule = [15 * BlockSize]byte

type decryptFunc func(keys *schedule, iv *[BlockSize]byte, dst, src []byte)

// aesDecrypter runs on one of the decryption kernels.
type aesDecrypter struct {
	schedule schedule
	iv       [BlockSize]byte // the last block of ciphertext
	decrypt  decryptFunc
}

func newAESDecrypter(key *[KeySize]byte, decrypt decryptFunc) engine {
	d := &aesDecrypter{decrypt: decrypt}
	var forEncryption schedule
	expandKey(key, &forEncryption, &d.schedule)
	return d
}

func (d *aesDecrypter) CryptBlocks(dst, src []byte) { d.decrypt(&d.schedule, &d.iv, dst, src) }

func (d *aesDecrypter) Reset() { d.iv = [BlockSize]byte{} }

// aesEncrypter runs on encryptBlocks, and in EncryptStreams on other kernels
// where the processor has them.
type aesEncrypter struct {
	schedule schedule
	iv       [BlockSize]byte // the last block of ciphertext
}

func newAESEncrypter(key *[KeySize]byte) engine {
	e := new(aesEncrypter)
	var forDecryption schedule
	expandKey(key, &e.schedule, &forDecryption)
	return e
}

func (e *aesEncrypter) CryptBlocks(dst, src []byte) { encryptBlocks(&e.schedule, &e.iv, dst, src) }

func (e *aesEncrypter) Reset() { e.iv = [BlockSize]byte{} }
