// Cksum generates the amd64 kernels of sealift/crypto/cksum.
//
// They fold the data by carry-less multiplication as V. Gopal et al. describe
// in "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction"
// (Intel, 2009). POSIX cksum is not bit-reflected, so a byte swap on load makes
// the first bit of the data the top bit of the register, and no constant is
// reflected either.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Rows of the table that the kernels get, 16 bytes each: see constants.go of
// the package.
const (
	fold128 = iota
	fold256
	fold512
	fold2048
	fold4096
	reduce
	barrett
	rows
)

func main() {
	ConstraintExpr("!purego")
	swap := GLOBL("byteSwap", RODATA|NOPTR) // the PSHUFB mask that reverses 16 bytes
	DATA(0, U64(0x08090A0B0C0D0E0F))
	DATA(8, U64(0x0001020304050607))

	for _, k := range []kernel{
		{name: "updateCLMUL", width: 16, accumulators: 4, stride: fold512, single: fold128,
			needs: "PCLMULQDQ and SSSE3"},
		{name: "updateVPCLMUL256", width: 32, accumulators: 8, stride: fold2048, single: fold256,
			needs: "AVX2 and VPCLMULQDQ"},
		{name: "updateVPCLMUL512", width: 64, accumulators: 8, stride: fold4096, single: fold512,
			needs: "AVX-512 F and BW and VPCLMULQDQ"},
	} {
		k.swap = swap
		k.generate()
	}
	Generate()
}

// A kernel has a number of accumulators of one width. Each 128-bit lane of an
// accumulator holds a polynomial that is congruent, modulo the generator, to
// all the data of that lane so far.
type kernel struct {
	name         string
	needs        string
	width        int // bytes in a register
	accumulators int
	stride       int // row that moves a lane on by width*accumulators bytes
	single       int // row that moves a lane on by width bytes

	swap, table Mem
}

// Vector registers; 0 to 7 are the accumulators.
const (
	data  = 8  // what has just been loaded
	temp  = 9  // inside fold and reduce
	crc   = 10 // the old CRC register, at the very top
	blend = 11 // one lane, or the constants of reduce
	swap  = 13 // the byte swap mask in each lane
	fold  = 14 // the constants of the current distance in each lane
	one   = 15 // those of 16 bytes
)

func (k kernel) generate() {
	TEXT(k.name, NOSPLIT, fmt.Sprintf("func(crc uint32, p []byte, table *[%d][2]uint64) uint32", rows))
	Pragma("noescape")
	Doc(
		fmt.Sprintf("%s adds p to the CRC register. len(p) must be a multiple of 16 and", k.name),
		fmt.Sprintf("at least %d. It needs %s; its portable twin is updatePortable.", k.least(), k.needs),
	)
	p := Load(Param("p").Base(), GP64())
	n := Load(Param("p").Len(), GP64())
	k.table = Mem{Base: Load(Param("table"), GP64())}
	k.loadRegister()
	k.loadRow(k.swap, swap, k.width)
	k.loadRow(k.row(fold128), one, 16)

	// advance goes on in p.
	advance := func(size int) {
		ADDQ(U32(size), p)
		SUBQ(U32(size), n)
	}
	step := k.width * k.accumulators
	last := k.accumulators - 1

	if k.width == 16 {
		CMPQ(n, U32(step))
		JB(LabelRef("short"))
	}
	Comment(fmt.Sprintf("The first %d bytes fill the accumulators, the old register goes on top.", step))
	for i := range k.accumulators {
		k.load(Mem{Base: p, Disp: i * k.width}, i, k.width)
	}
	k.xor(crc, 0, k.width)
	k.loadRow(k.row(k.stride), fold, k.width)
	advance(step)
	CMPQ(n, U32(step))
	JB(LabelRef("combine"))

	Label("stride")
	for i := range k.accumulators {
		k.load(Mem{Base: p, Disp: i * k.width}, data, k.width)
		k.fold(i, fold, data, k.width)
	}
	advance(step)
	CMPQ(n, U32(step))
	JAE(LabelRef("stride"))

	Label("combine")
	Comment("All accumulators into the last one.")
	k.loadRow(k.row(k.single), fold, k.width)
	for i := range last {
		k.fold(i, fold, i+1, k.width)
		k.move(i, i+1, k.width)
	}

	if k.width > 16 {
		Label("single")
		CMPQ(n, U32(k.width))
		JB(LabelRef("lanes"))
		k.load(Mem{Base: p}, data, k.width)
		k.fold(last, fold, data, k.width)
		advance(k.width)
		JMP(LabelRef("single"))
		Label("lanes")
		Comment("All lanes into one.")
	}
	k.move(last, 0, 16)
	for lane := 1; lane < k.width/16; lane++ {
		k.extract(lane, last, blend)
		k.fold(0, one, blend, 16)
	}
	if k.width == 16 {
		JMP(LabelRef("blocks"))
		Label("short")
		k.load(Mem{Base: p}, 0, 16)
		k.xor(crc, 0, 16)
		advance(16)
	}

	Label("blocks")
	CMPQ(n, U32(16))
	JB(LabelRef("reduce"))
	k.load(Mem{Base: p}, data, 16)
	k.fold(0, one, data, 16)
	advance(16)
	JMP(LabelRef("blocks"))

	Label("reduce")
	k.reduce()
	if k.vex() {
		VZEROUPPER()
	}
	RET()
}

// reduce stores register 0, times x^32, modulo the generator.
func (k kernel) reduce() {
	const constants = blend
	k.loadRow(k.row(reduce), constants, 16)
	Comment("128 bits and 32 zeros after them to 96 bits: the upper half times x^96.")
	k.multiply(0x01, constants, 0, temp, 16)
	k.lowerTimes32(0)
	k.xor(temp, 0, 16)
	Comment("To 64 bits: the upper 32 times x^64.")
	k.multiply(0x11, constants, 0, temp, 16)
	k.xor(temp, 0, 16)
	Comment("Barrett: upper 32 bits * floor(x^64/P) / x^32 is the quotient.")
	k.loadRow(k.row(barrett), constants, 16)
	k.shiftRight32(0, temp)
	k.multiply(0x00, constants, temp, temp, 16)
	k.shiftRight32(temp, temp)
	k.multiply(0x10, constants, temp, temp, 16)
	k.xor(temp, 0, 16)
	out := GP32()
	if k.vex() {
		VMOVD(reg.X0, out)
	} else {
		MOVD(reg.X0, out)
	}
	Store(out, ReturnIndex(0))
}

// least is the shortest data that a kernel takes. Only the narrow one has a way
// for less than a stride; the others leave that to it.
func (k kernel) least() int {
	if k.width == 16 {
		return 16
	}
	return k.width * k.accumulators
}

func (k kernel) vex() bool { return k.width > 16 }

func (k kernel) row(i int) Mem { return k.table.Offset(16 * i) }

// vec is vector register i in a width of 16, 32 or 64 bytes.
func vec(i, width int) reg.VecPhysical {
	x := []reg.VecPhysical{
		reg.X0, reg.X1, reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7,
		reg.X8, reg.X9, reg.X10, reg.X11, reg.X12, reg.X13, reg.X14, reg.X15,
	}[i]
	switch width {
	case 16:
		return x
	case 32:
		return x.AsY().(reg.VecPhysical)
	default:
		return x.AsZ().(reg.VecPhysical)
	}
}

// loadRegister puts the old CRC register on top of 12 zero bytes. The rest of a
// wider register becomes zero.
func (k kernel) loadRegister() {
	old := Load(Param("crc"), GP32())
	x := vec(crc, 16)
	if k.vex() {
		VMOVD(old, x)
		VPSLLDQ(U8(12), x, x)
		return
	}
	MOVD(old, x)
	PSLLDQ(U8(12), x)
}

// loadRow loads 16 bytes into every lane.
func (k kernel) loadRow(m Mem, dst, width int) {
	switch {
	case width == 64:
		VBROADCASTI32X4(m, vec(dst, 64))
	case width == 32:
		VBROADCASTI128(m, vec(dst, 32))
	case k.vex():
		VMOVDQU(m, vec(dst, 16))
	default:
		MOVOU(m, vec(dst, 16))
	}
}

// load loads data with its first byte on top of each lane.
func (k kernel) load(m Mem, dst, width int) {
	d := vec(dst, width)
	switch {
	case width == 64:
		VMOVDQU64(m, d)
		VPSHUFB(vec(swap, width), d, d)
	case k.vex():
		VMOVDQU(m, d)
		VPSHUFB(vec(swap, width), d, d)
	default:
		MOVOU(m, d)
		PSHUFB(vec(swap, width), d)
	}
}

// fold moves acc on by the distance of the constants c and adds next.
func (k kernel) fold(acc, c, next, width int) {
	k.multiply(0x11, c, acc, temp, width)
	k.multiply(0x00, c, acc, acc, width)
	if width == 64 {
		VPTERNLOGD(U8(0x96), vec(temp, width), vec(next, width), vec(acc, width)) // three-way XOR
		return
	}
	k.xor(temp, acc, width)
	k.xor(next, acc, width)
}

// multiply sets dst to a half of c times a half of src, chosen as PCLMULQDQ
// does: bit 4 is the half of c, bit 0 that of src.
func (k kernel) multiply(halves uint8, c, src, dst, width int) {
	if k.vex() {
		VPCLMULQDQ(U8(halves), vec(c, width), vec(src, width), vec(dst, width))
		return
	}
	k.move(src, dst, width)
	PCLMULQDQ(U8(halves), vec(c, width), vec(dst, width))
}

func (k kernel) xor(src, dst, width int) {
	s, d := vec(src, width), vec(dst, width)
	switch {
	case width == 64:
		VPXORD(s, d, d)
	case k.vex():
		VPXOR(s, d, d)
	default:
		PXOR(s, d)
	}
}

func (k kernel) move(src, dst, width int) {
	s, d := vec(src, width), vec(dst, width)
	switch {
	case src == dst:
	case width == 64:
		VMOVDQA64(s, d)
	case k.vex():
		VMOVDQA(s, d)
	default:
		MOVOA(s, d)
	}
}

func (k kernel) extract(lane, src, dst int) {
	if k.width == 64 {
		VEXTRACTI32X4(U8(lane), vec(src, 64), vec(dst, 16))
		return
	}
	VEXTRACTI128(U8(lane), vec(src, 32), vec(dst, 16))
}

// lowerTimes32 keeps the lower 64 bits only, and multiplies them by x^32.
func (k kernel) lowerTimes32(x int) {
	v := vec(x, 16)
	if k.vex() {
		VPSLLDQ(U8(8), v, v)
		VPSRLDQ(U8(4), v, v)
		return
	}
	PSLLDQ(U8(8), v)
	PSRLDQ(U8(4), v)
}

// shiftRight32 shifts both 64-bit halves.
func (k kernel) shiftRight32(src, dst int) {
	if k.vex() {
		VPSRLQ(U8(32), vec(src, 16), vec(dst, 16))
		return
	}
	k.move(src, dst, 16)
	PSRLQ(U8(32), vec(dst, 16))
}
