//go:build purego || !amd64

package aescbc

func encryptStreams(streams []*Encrypter, dst, src [][]byte) {
	for i, e := range streams {
		e.CryptBlocks(dst[i], src[i])
	}
}
