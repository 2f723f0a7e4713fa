//go:build !purego

package aescbc

import (
	"sealift/crypto/internal/vector"

	"golang.org/x/sys/cpu"
)

//go:generate go run -C ../../internal/asmgen ./aescbc -out ../../crypto/aescbc/kernel_amd64.s -stubs ../../crypto/aescbc/stubs_amd64.go -pkg aescbc

// kernels returns what this machine can run, the fastest first. Encryption is
// one block after the other whatever the width, so all share one encrypter.
func kernels() []kernel {
	list := []kernel{portable}
	add := func(name string, decrypt decryptFunc) {
		list = append([]kernel{{
			name:         name,
			newEncrypter: newAESEncrypter,
			newDecrypter: func(key *[KeySize]byte) engine { return newAESDecrypter(key, decrypt) },
		}}, list...)
	}
	if cpu.X86.HasAES {
		add("aes-ni", decryptAESNI)
		if vector.HasVAES {
			add("vaes-256", decryptVAES256)
			if cpu.X86.HasAVX512F && cpu.X86.HasBMI2 {
				add("vaes-512", decryptVAES512)
			}
		}
	}
	return list
}
