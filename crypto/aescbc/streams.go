package aescbc

// EncryptStreams does streams[i].CryptBlocks(dst[i], src[i]) for every i, with
// the streams side by side. One stream waits for the latency of the cipher at
// every block; where the processor has AES instructions, four streams take about
// the time of one, and eight one and a half times that. The lengths may differ.
//
// The streams must be different ones. Their buffers obey the rules of CryptBlocks,
// and those of one stream must not overlap those of another. Each stream belongs
// to the caller's goroutine for the time. EncryptStreams panics if the three
// slices have different lengths. It does not allocate.
func EncryptStreams(streams []*Encrypter, dst, src [][]byte) {
	if len(dst) != len(streams) || len(src) != len(streams) {
		panic("aescbc: streams, dst and src differ in number")
	}
	for i := range streams {
		checkBlocks(dst[i], src[i])
	}
	encryptStreams(streams, dst, src)
}
