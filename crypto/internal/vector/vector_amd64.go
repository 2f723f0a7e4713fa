//go:build !purego

// Package vector knows the vector forms of AES and carry-less multiplication
// that golang.org/x/sys/cpu reports for processors with AVX-512 only.
package vector

import "golang.org/x/sys/cpu"

//go:generate go run -C ../../../internal/asmgen ./vector -out ../../crypto/internal/vector/leaf7_amd64.s -stubs ../../crypto/internal/vector/stubs_amd64.go -pkg vector

// VAES and VPCLMULQDQ on 256 bits. The operating system keeps those registers.
var (
	HasVAES       = has(9)
	HasVPCLMULQDQ = has(10)
)

// has tests a bit of ECX of CPUID leaf 7 (Intel SDM volume 2A, CPUID). AVX2 is
// announced in the same leaf, and x/sys/cpu asks the operating system for it.
func has(bit int) bool { return cpu.X86.HasAVX2 && leaf7()>>bit&1 == 1 }
