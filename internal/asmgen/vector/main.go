// Vector generates the CPUID query of sealift/crypto/internal/vector.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("!purego")

	TEXT("leaf7", NOSPLIT, "func() uint32")
	Doc("leaf7 returns ECX of CPUID leaf 7, subleaf 0. The processor must have that leaf.")
	MOVL(U32(7), reg.EAX)
	XORL(reg.ECX, reg.ECX)
	CPUID()
	Store(reg.ECX, ReturnIndex(0))
	RET()

	Generate()
}
