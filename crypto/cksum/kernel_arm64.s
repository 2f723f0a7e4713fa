//go:build !purego

#include "textflag.h"

// Rows of foldTable, as offsets in bytes.
#define FOLD128 0
#define FOLD512 32

// Puts the first byte of data on top of the register.
#define SWAP(x) \
	VREV64 x.B16, x.B16       \
	VEXT   $8, x.B16, x.B16, x.B16

// Moves acc on by the distance of the constants c and adds next. out may be acc.
#define FOLD(acc, c, next, out) \
	VPMULL2 c.D2, acc.D2, V8.Q1    \
	VPMULL  c.D1, acc.D1, V9.Q1    \
	VEOR    V8.B16, next.B16, V8.B16 \
	VEOR    V8.B16, V9.B16, out.B16

// The amd64 kernels do the same; V. Gopal et al., "Fast CRC Computation for
// Generic Polynomials Using PCLMULQDQ Instruction" (Intel, 2009), has the method.

// func foldPMULL(crc uint32, p []byte, table *[7][2]uint64, folded *[16]byte)
TEXT ·foldPMULL(SB), NOSPLIT, $0-48
	MOVWU crc+0(FP), R0
	MOVD  p_base+8(FP), R1
	MOVD  p_len+16(FP), R2
	MOVD  table+32(FP), R3
	MOVD  folded+40(FP), R4

	ADD  $FOLD128, R3, R5
	VLD1 (R5), [V16.D2]
	ADD  $FOLD512, R3, R5
	VLD1 (R5), [V17.D2]

	// The first 64 bytes fill the accumulators, the old register goes on top.
	VLD1.P 64(R1), [V0.B16, V1.B16, V2.B16, V3.B16]
	SWAP(V0)
	SWAP(V1)
	SWAP(V2)
	SWAP(V3)
	VEOR   V10.B16, V10.B16, V10.B16
	VMOV   R0, V10.S[3]
	VEOR   V10.B16, V0.B16, V0.B16
	SUB    $64, R2
	CMP    $64, R2
	BLO    combine

stride:
	VLD1.P 64(R1), [V4.B16, V5.B16, V6.B16, V7.B16]
	SWAP(V4)
	SWAP(V5)
	SWAP(V6)
	SWAP(V7)
	FOLD(V0, V17, V4, V0)
	FOLD(V1, V17, V5, V1)
	FOLD(V2, V17, V6, V2)
	FOLD(V3, V17, V7, V3)
	SUB    $64, R2
	CMP    $64, R2
	BHS    stride

combine:
	FOLD(V0, V16, V1, V1)
	FOLD(V1, V16, V2, V2)
	FOLD(V2, V16, V3, V3)

blocks:
	CBZ    R2, done
	VLD1.P 16(R1), [V4.B16]
	SWAP(V4)
	FOLD(V3, V16, V4, V3)
	SUB    $16, R2
	B      blocks

done:
	SWAP(V3)
	VST1 [V3.B16], (R4)
	RET
