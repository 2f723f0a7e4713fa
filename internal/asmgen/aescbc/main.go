// Aescbc generates the amd64 kernels of sealift/crypto/aescbc.
//
// The instructions, the key expansion and the order of the round keys are those
// of S. Gueron, "Intel Advanced Encryption Standard (AES) New Instructions Set"
// (Intel white paper 323641, 2010), with the equivalent inverse cipher for
// decryption (FIPS 197, 5.3.5).
package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/reg"
)

const (
	blockSize = 16
	rounds    = 14 // of AES-256; there is one round key more
)

func main() {
	ConstraintExpr("!purego")
	expandKey()
	encrypt()
	encryptLanes(4)
	encryptLanes(8)
	for _, d := range []decrypter{
		{name: "decryptAESNI", width: 16, needs: "AES"},
		{name: "decryptVAES256", width: 32, needs: "AVX2 and VAES"},
		{name: "decryptVAES512", width: 64, needs: "AVX-512 F, BMI2 and VAES"},
	} {
		d.generate()
	}
	Generate()
}

// vec is vector register i in a width of 16, 32 or 64 bytes.
func vec(i, width int) reg.VecPhysical {
	x := []reg.VecPhysical{
		reg.X0, reg.X1, reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7,
		reg.X8, reg.X9, reg.X10, reg.X11, reg.X12, reg.X13, reg.X14, reg.X15,
		reg.X16, reg.X17, reg.X18, reg.X19, reg.X20, reg.X21, reg.X22, reg.X23,
		reg.X24, reg.X25, reg.X26, reg.X27, reg.X28, reg.X29, reg.X30, reg.X31,
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
