//go:build !purego

package cksum

import "golang.org/x/sys/cpu"

const pmull kernel = 1

// leastPMULL is the shortest data that foldPMULL takes, in bytes.
const leastPMULL = 64

// kernels returns what this machine can run, the fastest first.
func kernels() []kernel {
	if cpu.ARM64.HasPMULL {
		return []kernel{pmull, portable}
	}
	return []kernel{portable}
}

func (k kernel) String() string { return [...]string{"portable", "pmull"}[k] }

func (k kernel) update(crc uint32, p []byte) uint32 {
	if k == portable || len(p) < leastPMULL {
		return updatePortable(crc, p)
	}
	whole := len(p) &^ 15
	var folded [16]byte
	foldPMULL(crc, p[:whole], &foldTable, &folded)
	return stepAll(stepAll(0, folded[:]), p[whole:])
}

// foldPMULL sets folded to 16 bytes that lead a register of 0 to where p leads
// the register crc. len(p) must be a multiple of 16 and at least 64. It needs
// PMULL; its portable twin is updatePortable.
//
//go:noescape
func foldPMULL(crc uint32, p []byte, table *[7][2]uint64, folded *[16]byte)
