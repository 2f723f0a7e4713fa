//go:build !purego

#include "textflag.h"

// The instructions are those of the Arm Architecture Reference Manual, A-profile,
// C7.2: AESE adds the round key before SubBytes and ShiftRows, AESMC mixes the
// columns, AESD and AESIMC are their inverses. The last round key is an EOR.

// Round keys 0 to 14 are in V16 to V30.
#define LOAD_KEYS(p) \
	VLD1.P 64(p), [V16.B16, V17.B16, V18.B16, V19.B16] \
	VLD1.P 64(p), [V20.B16, V21.B16, V22.B16, V23.B16] \
	VLD1.P 64(p), [V24.B16, V25.B16, V26.B16, V27.B16] \
	VLD1   (p), [V28.B16, V29.B16, V30.B16]

#define ENC(k, x) \
	AESE  k.B16, x.B16 \
	AESMC x.B16, x.B16

#define DEC(k, x) \
	AESD   k.B16, x.B16 \
	AESIMC x.B16, x.B16

#define DEC_ALL(k) \
	DEC(k, V0) \
	DEC(k, V1) \
	DEC(k, V2) \
	DEC(k, V3) \
	DEC(k, V4) \
	DEC(k, V5) \
	DEC(k, V6) \
	DEC(k, V7)

// func subWord(w uint32) uint32
TEXT ·subWord(SB), NOSPLIT, $0-12
	MOVWU w+0(FP), R0
	// With four equal columns ShiftRows changes nothing.
	VDUP  R0, V0.S4
	VEOR  V1.B16, V1.B16, V1.B16
	AESE  V1.B16, V0.B16
	VMOV  V0.S[0], R0
	MOVW  R0, ret+8(FP)
	RET

// func invertKeys(enc, dec *schedule)
TEXT ·invertKeys(SB), NOSPLIT, $0-16
	MOVD enc+0(FP), R0
	MOVD dec+8(FP), R1
	ADD  $(14*16), R1
	MOVD $13, R2

	VLD1.P 16(R0), [V0.B16]
	VST1   [V0.B16], (R1)

middle:
	SUB    $16, R1
	VLD1.P 16(R0), [V0.B16]
	AESIMC V0.B16, V0.B16
	VST1   [V0.B16], (R1)
	SUBS   $1, R2
	BNE    middle

	SUB  $16, R1
	VLD1 (R0), [V0.B16]
	VST1 [V0.B16], (R1)
	RET

// func encryptBlocks(keys *schedule, iv *[16]byte, dst, src []byte)
TEXT ·encryptBlocks(SB), NOSPLIT, $0-64
	MOVD keys+0(FP), R0
	MOVD iv+8(FP), R1
	MOVD dst_base+16(FP), R2
	MOVD src_base+40(FP), R3
	MOVD src_len+48(FP), R4
	LOAD_KEYS(R0)

	// V0 is a block before its last round key. That key, the first one of the
	// next block and the next block itself go into one round key, which keeps
	// them off the path from block to block.
	VLD1 (R1), [V0.B16]
	VEOR V30.B16, V0.B16, V0.B16
	VEOR V30.B16, V16.B16, V16.B16

block:
	VLD1.P 16(R3), [V1.B16]
	VEOR   V16.B16, V1.B16, V1.B16
	ENC(V1, V0)
	ENC(V17, V0)
	ENC(V18, V0)
	ENC(V19, V0)
	ENC(V20, V0)
	ENC(V21, V0)
	ENC(V22, V0)
	ENC(V23, V0)
	ENC(V24, V0)
	ENC(V25, V0)
	ENC(V26, V0)
	ENC(V27, V0)
	ENC(V28, V0)
	AESE   V29.B16, V0.B16
	VEOR   V30.B16, V0.B16, V2.B16
	VST1.P [V2.B16], 16(R2)
	SUBS   $16, R4
	BNE    block

	VST1 [V2.B16], (R1)
	RET

// func decryptBlocks(keys *schedule, iv *[16]byte, dst, src []byte)
TEXT ·decryptBlocks(SB), NOSPLIT, $0-64
	MOVD keys+0(FP), R0
	MOVD iv+8(FP), R1
	MOVD dst_base+16(FP), R2
	MOVD src_base+40(FP), R3
	MOVD src_len+48(FP), R4
	LOAD_KEYS(R0)
	VLD1 (R1), [V31.B16] // the ciphertext block before

eight:
	CMP    $128, R4
	BLO    one
	MOVD   R3, R5
	VLD1.P 64(R3), [V0.B16, V1.B16, V2.B16, V3.B16]
	VLD1.P 64(R3), [V4.B16, V5.B16, V6.B16, V7.B16]
	VLD1.P 64(R5), [V8.B16, V9.B16, V10.B16, V11.B16]
	VLD1   (R5), [V12.B16, V13.B16, V14.B16, V15.B16]
	DEC_ALL(V16)
	DEC_ALL(V17)
	DEC_ALL(V18)
	DEC_ALL(V19)
	DEC_ALL(V20)
	DEC_ALL(V21)
	DEC_ALL(V22)
	DEC_ALL(V23)
	DEC_ALL(V24)
	DEC_ALL(V25)
	DEC_ALL(V26)
	DEC_ALL(V27)
	DEC_ALL(V28)
	AESD   V29.B16, V0.B16
	AESD   V29.B16, V1.B16
	AESD   V29.B16, V2.B16
	AESD   V29.B16, V3.B16
	AESD   V29.B16, V4.B16
	AESD   V29.B16, V5.B16
	AESD   V29.B16, V6.B16
	AESD   V29.B16, V7.B16
	VEOR   V30.B16, V31.B16, V31.B16
	VEOR   V31.B16, V0.B16, V0.B16
	VMOV   V15.B16, V31.B16
	VEOR   V30.B16, V8.B16, V8.B16
	VEOR   V30.B16, V9.B16, V9.B16
	VEOR   V30.B16, V10.B16, V10.B16
	VEOR   V30.B16, V11.B16, V11.B16
	VEOR   V30.B16, V12.B16, V12.B16
	VEOR   V30.B16, V13.B16, V13.B16
	VEOR   V30.B16, V14.B16, V14.B16
	VEOR   V8.B16, V1.B16, V1.B16
	VEOR   V9.B16, V2.B16, V2.B16
	VEOR   V10.B16, V3.B16, V3.B16
	VEOR   V11.B16, V4.B16, V4.B16
	VEOR   V12.B16, V5.B16, V5.B16
	VEOR   V13.B16, V6.B16, V6.B16
	VEOR   V14.B16, V7.B16, V7.B16
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R2)
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R2)
	SUB    $128, R4
	B      eight

one:
	CBZ    R4, done
	VLD1.P 16(R3), [V0.B16]
	VMOV   V0.B16, V8.B16
	DEC(V16, V0)
	DEC(V17, V0)
	DEC(V18, V0)
	DEC(V19, V0)
	DEC(V20, V0)
	DEC(V21, V0)
	DEC(V22, V0)
	DEC(V23, V0)
	DEC(V24, V0)
	DEC(V25, V0)
	DEC(V26, V0)
	DEC(V27, V0)
	DEC(V28, V0)
	AESD   V29.B16, V0.B16
	VEOR   V30.B16, V31.B16, V31.B16
	VEOR   V31.B16, V0.B16, V0.B16
	VMOV   V8.B16, V31.B16
	VST1.P [V0.B16], 16(R2)
	SUB    $16, R4
	B      one

done:
	VST1 [V31.B16], (R1)
	RET
