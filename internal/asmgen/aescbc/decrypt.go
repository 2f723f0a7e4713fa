package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// A decrypter decrypts many blocks at a time, which CBC allows: a plaintext
// block is the decryption of its ciphertext block plus the ciphertext block
// before. It reads all the ciphertext of a step, twice, before it writes any
// plaintext, so that both may be in the same place.
type decrypter struct {
	name  string
	needs string
	width int // bytes in a register

	keys, src, dst Mem
	n              reg.Register
}

// Vector registers; 0 to 7 are the blocks of a step.
const (
	before = 8  // the ciphertext one block before that of register 0
	carry  = 9  // the ciphertext before that of register 0; only its top lane counts
	newIV  = 10 // the last block of ciphertext
	key    = 11 // a round key in each lane
	held   = 16 // with AVX-512: this and the 14 after it are all round keys
)

func (d decrypter) generate() {
	TEXT(d.name, NOSPLIT, "func(keys *[240]byte, iv *[16]byte, dst, src []byte)")
	Pragma("noescape")
	Doc(
		fmt.Sprintf("%s decrypts src, a positive multiple of 16 bytes, into dst.", d.name),
		fmt.Sprintf("It needs %s; its portable twin is the CBC of crypto/cipher.", d.needs),
	)
	d.keys = Mem{Base: Load(Param("keys"), GP64())}
	iv := Mem{Base: Load(Param("iv"), GP64())}
	d.dst = Mem{Base: Load(Param("dst").Base(), GP64())}
	d.src = Mem{Base: Load(Param("src").Base(), GP64())}
	d.n = Load(Param("src").Len(), GP64())

	d.broadcast(iv, carry)
	if d.width == 64 {
		for r := range rounds + 1 {
			d.broadcast(d.keys.Offset(16*r), held+r)
		}
	}
	end := Mem{Base: d.src.Base, Index: d.n, Scale: 1, Disp: -blockSize}
	d.load(end, newIV, 16)

	for _, registers := range []int{8, 4, 1} {
		d.step(registers)
	}
	switch d.width {
	case 32:
		d.lastBlock()
	case 64:
		d.lastBlocks()
	}
	d.store(newIV, iv, 16)
	if d.width > 16 {
		VZEROUPPER()
	}
	RET()
}

// step generates a loop over so many registers of data.
func (d decrypter) step(registers int) {
	size := registers * d.width
	loop, done := fmt.Sprintf("by%d", size), fmt.Sprintf("under%d", size)
	Label(loop)
	CMPQ(d.n, U32(size))
	JB(LabelRef(done))
	for i := range registers {
		d.load(d.src.Offset(i*d.width), i, d.width)
	}
	d.shiftIn()
	d.load(d.src.Offset((registers-1)*d.width), carry, d.width)
	d.rounds(registers)
	d.xor(before, 0)
	for i := 1; i < registers; i++ {
		d.xorMem(d.src.Offset(i*d.width-blockSize), i)
	}
	for i := range registers {
		d.store(i, d.dst.Offset(i*d.width), d.width)
	}
	ADDQ(U32(size), d.src.Base)
	ADDQ(U32(size), d.dst.Base)
	SUBQ(U32(size), d.n)
	JMP(LabelRef(loop))
	Label(done)
}

// lastBlock generates the 16 bytes that two lanes leave.
func (d decrypter) lastBlock() {
	TESTQ(d.n, d.n)
	JZ(LabelRef("done"))
	VMOVDQU(d.src, vec(0, 16))
	VEXTRACTI128(U8(1), vec(carry, 32), vec(before, 16))
	for r := range rounds + 1 {
		VMOVDQU(d.keys.Offset(16*r), vec(key, 16))
		switch r {
		case 0:
			VPXOR(vec(key, 16), vec(0, 16), vec(0, 16))
		case rounds:
			VAESDECLAST(vec(key, 16), vec(0, 16), vec(0, 16))
		default:
			VAESDEC(vec(key, 16), vec(0, 16), vec(0, 16))
		}
	}
	VPXOR(vec(before, 16), vec(0, 16), vec(0, 16))
	VMOVDQU(vec(0, 16), d.dst)
	Label("done")
}

// lastBlocks generates the 16, 32 or 48 bytes that four lanes leave, under a
// mask that keeps the processor from touching anything after them.
func (d decrypter) lastBlocks() {
	TESTQ(d.n, d.n)
	JZ(LabelRef("done"))
	Comment("One bit of the mask for each 8 bytes.")
	mask := GP32()
	SHRQ(U8(3), d.n)
	MOVL(U32(0xFF), mask)
	BZHIL(d.n.(reg.GP).As32(), mask, mask)
	KMOVW(mask, reg.K1)
	VMOVDQU64_Z(d.src, reg.K1, vec(0, 64))
	d.shiftIn()
	d.rounds(1)
	d.xor(before, 0)
	VMOVDQU64(vec(0, 64), reg.K1, d.dst)
	Label("done")
}

// rounds generates the cipher on registers 0 and up.
func (d decrypter) rounds(registers int) {
	for r := range rounds + 1 {
		k := key
		switch d.width {
		case 64:
			k = held + r
		default:
			d.broadcast(d.keys.Offset(16*r), key)
		}
		for i := range registers {
			d.round(r, k, i)
		}
	}
}

func (d decrypter) round(r, k, i int) {
	kv, v := vec(k, d.width), vec(i, d.width)
	switch {
	case r == 0:
		d.xor(k, i)
	case d.width == 16 && r == rounds:
		AESDECLAST(kv, v)
	case d.width == 16:
		AESDEC(kv, v)
	case r == rounds:
		VAESDECLAST(kv, v, v)
	default:
		VAESDEC(kv, v, v)
	}
}

// shiftIn sets before to the lanes of register 0 moved up by one, with the top
// lane of carry at the bottom.
func (d decrypter) shiftIn() {
	b, c, v := vec(before, d.width), vec(carry, d.width), vec(0, d.width)
	switch d.width {
	case 16:
		MOVOA(c, b)
	case 32:
		VPERM2I128(U8(0x21), v, c, b)
	default:
		VALIGNQ(U8(6), c, v, b)
	}
}

// broadcast loads 16 bytes into every lane.
func (d decrypter) broadcast(m Mem, dst int) {
	switch d.width {
	case 16:
		MOVOU(m, vec(dst, 16))
	case 32:
		VBROADCASTI128(m, vec(dst, 32))
	default:
		VBROADCASTI32X4(m, vec(dst, 64))
	}
}

func (d decrypter) load(m Mem, dst, width int) {
	switch {
	case d.width == 16:
		MOVOU(m, vec(dst, width))
	case width == 64:
		VMOVDQU64(m, vec(dst, width))
	default:
		VMOVDQU(m, vec(dst, width))
	}
}

func (d decrypter) store(src int, m Mem, width int) {
	switch {
	case d.width == 16:
		MOVOU(vec(src, width), m)
	case width == 64:
		VMOVDQU64(vec(src, width), m)
	default:
		VMOVDQU(vec(src, width), m)
	}
}

func (d decrypter) xor(src, dst int) {
	s, v := vec(src, d.width), vec(dst, d.width)
	switch d.width {
	case 16:
		PXOR(s, v)
	case 32:
		VPXOR(s, v, v)
	default:
		VPXORD(s, v, v)
	}
}

// xorMem adds unaligned memory, which PXOR can't.
func (d decrypter) xorMem(m Mem, dst int) {
	v := vec(dst, d.width)
	switch d.width {
	case 16:
		MOVOU(m, vec(key, 16))
		PXOR(vec(key, 16), v)
	case 32:
		VPXOR(m, v, v)
	default:
		VPXORD(m, v, v)
	}
}
