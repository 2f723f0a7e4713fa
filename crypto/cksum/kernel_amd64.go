//go:build !purego

package cksum

import (
	"sealift/crypto/internal/vector"

	"golang.org/x/sys/cpu"
)

//go:generate go run -C ../../internal/asmgen ./cksum -out ../../crypto/cksum/kernel_amd64.s -stubs ../../crypto/cksum/stubs_amd64.go -pkg cksum

// Each kernel uses the ones before it for what is too short.
const (
	clmul kernel = iota + 1
	vpclmul256
	vpclmul512
)

// The shortest data that a kernel's assembly takes, in bytes.
const (
	leastCLMUL      = 16
	leastVPCLMUL256 = 256
	leastVPCLMUL512 = 512
)

// kernels returns what this machine can run, the fastest first.
func kernels() []kernel {
	list := []kernel{portable}
	if cpu.X86.HasPCLMULQDQ && cpu.X86.HasSSSE3 {
		list = append([]kernel{clmul}, list...)
		if vector.HasVPCLMULQDQ {
			list = append([]kernel{vpclmul256}, list...)
			if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW {
				list = append([]kernel{vpclmul512}, list...)
			}
		}
	}
	return list
}

func (k kernel) String() string {
	return [...]string{"portable", "pclmulqdq", "vpclmulqdq-256", "vpclmulqdq-512"}[k]
}

func (k kernel) update(crc uint32, p []byte) uint32 {
	whole := len(p) &^ 15
	switch {
	case k == portable:
		return updatePortable(crc, p)
	case k >= vpclmul512 && whole >= leastVPCLMUL512:
		crc = updateVPCLMUL512(crc, p[:whole], &foldTable)
	case k >= vpclmul256 && whole >= leastVPCLMUL256:
		crc = updateVPCLMUL256(crc, p[:whole], &foldTable)
	case whole >= leastCLMUL:
		crc = updateCLMUL(crc, p[:whole], &foldTable)
	}
	return stepAll(crc, p[whole:])
}
