package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// expandKey generates the key schedules of both directions.
func expandKey() {
	TEXT("expandKey", NOSPLIT, "func(key *[32]byte, enc, dec *[240]byte)")
	Pragma("noescape")
	Doc(
		"expandKey sets enc to the round keys for encryption and dec to those for",
		"decryption, each in the order of use. It needs AES.",
	)
	key := Mem{Base: Load(Param("key"), GP64())}
	enc := Mem{Base: Load(Param("enc"), GP64())}
	dec := Mem{Base: Load(Param("dec"), GP64())}

	even, odd, t, s := vec(0, 16), vec(1, 16), vec(2, 16), vec(3, 16)
	store := func(i int, k reg.VecPhysical) {
		MOVOU(k, enc.Offset(16*i))
		if i != 0 && i != rounds {
			AESIMC(k, s)
			k = s
		}
		MOVOU(k, dec.Offset(16*(rounds-i)))
	}
	// mix adds the word that is in all of t to the running XOR of k's words.
	mix := func(k reg.VecPhysical) {
		for range 3 {
			MOVOA(k, s)
			PSLLDQ(U8(4), s)
			PXOR(s, k)
		}
		PXOR(t, k)
	}
	MOVOU(key, even)
	store(0, even)
	MOVOU(key.Offset(16), odd)
	store(1, odd)
	for i := 2; i <= rounds; i++ {
		if i%2 == 0 {
			AESKEYGENASSIST(U8(1<<(i/2-1)), odd, t)
			PSHUFD(U8(0xFF), t, t)
			mix(even)
			store(i, even)
		} else {
			AESKEYGENASSIST(U8(0), even, t)
			PSHUFD(U8(0xAA), t, t)
			mix(odd)
			store(i, odd)
		}
	}
	RET()
}

// encrypt generates the encryption of one stream, which nothing makes faster
// than the latency of 14 rounds a block: all else must stay off that path.
func encrypt() {
	TEXT("encryptBlocks", NOSPLIT, "func(keys *[240]byte, iv *[16]byte, dst, src []byte)")
	Pragma("noescape")
	Doc(
		"encryptBlocks encrypts src, a positive multiple of 16 bytes, into dst. It needs",
		"AES; its portable twin is the CBC of crypto/cipher.",
	)
	keys := Mem{Base: Load(Param("keys"), GP64())}
	iv := Mem{Base: Load(Param("iv"), GP64())}
	dst := Mem{Base: Load(Param("dst").Base(), GP64())}
	src := Mem{Base: Load(Param("src").Base(), GP64())}
	n := Load(Param("src").Len(), GP64())

	state, next, key, out := vec(0, 16), vec(1, 16), vec(2, 16), vec(3, 16)
	first, last := vec(4, 16), vec(5, 16)
	const held = 10 // round keys 1 to 10 stay in registers, the others are loaded
	MOVOU(keys, first)
	MOVOU(keys.Offset(16*rounds), last)
	for r := 1; r <= held; r++ {
		MOVOU(keys.Offset(16*r), vec(5+r, 16))
	}
	middle := func() {
		for r := 1; r < rounds; r++ {
			if r <= held {
				AESENC(vec(5+r, 16), state)
				continue
			}
			MOVOU(keys.Offset(16*r), out)
			AESENC(out, state)
		}
	}

	MOVOU(iv, state)
	MOVOU(src, next)
	PXOR(first, state)
	PXOR(next, state)
	SUBQ(U32(blockSize), n)
	JZ(LabelRef("last"))

	Label("block")
	Comment(
		"The next block and its first round key go into the last round key of this",
		"one: that saves the chaining XOR on the path from block to block.",
	)
	MOVOU(src.Offset(blockSize), next)
	PXOR(first, next)
	MOVOA(next, key)
	PXOR(last, key)
	middle()
	AESENCLAST(key, state)
	MOVOA(state, out)
	PXOR(next, out)
	MOVOU(out, dst)
	ADDQ(U32(blockSize), src.Base)
	ADDQ(U32(blockSize), dst.Base)
	SUBQ(U32(blockSize), n)
	JNZ(LabelRef("block"))

	Label("last")
	middle()
	AESENCLAST(last, state)
	MOVOU(state, dst)
	MOVOU(state, iv)
	RET()
}

// encryptLanes generates the encryption of some streams side by side: while one
// waits for its round, the others have theirs.
func encryptLanes(lanes int) {
	name := fmt.Sprintf("encrypt%dLanes", lanes)
	TEXT(name, NOSPLIT, "func(keys *[8]*[240]byte, ivs *[8]*[16]byte, dst, src *[8]*byte, blocks int)")
	Pragma("noescape")
	Doc(
		fmt.Sprintf("%s encrypts so many blocks, at least one, of the first %d streams. Two", name, lanes),
		"lanes may be the same stream: every block is read in all lanes before it is",
		"written in one. It needs AES; its portable twin is one call of crypto/cipher's",
		"CBC after the other.",
	)
	base := Load(Param("keys"), GP64())
	keys := make([]Mem, lanes)
	for i := range keys {
		keys[i] = Mem{Base: GP64()}
		MOVQ(Mem{Base: base, Disp: 8 * i}, keys[i].Base)
	}
	address := GP64()
	ivs := Load(Param("ivs"), GP64())
	for i := range lanes {
		MOVQ(Mem{Base: ivs, Disp: 8 * i}, address)
		MOVOU(Mem{Base: address}, vec(i, 16))
	}
	dst := Load(Param("dst"), GP64())
	src := Load(Param("src"), GP64())
	n := Load(Param("blocks"), GP64())
	at := GP64()
	XORQ(at, at)

	temp := func(i int) reg.VecPhysical { return vec(lanes+i, 16) }
	Label("block")
	for i := range lanes {
		MOVQ(Mem{Base: src, Disp: 8 * i}, address)
		MOVOU(Mem{Base: address, Index: at, Scale: 1}, temp(i))
		PXOR(temp(i), vec(i, 16))
		MOVOU(keys[i], temp(i))
		PXOR(temp(i), vec(i, 16))
	}
	for r := 1; r <= rounds; r++ {
		for i := range lanes {
			MOVOU(keys[i].Offset(16*r), temp(i))
			if r < rounds {
				AESENC(temp(i), vec(i, 16))
			} else {
				AESENCLAST(temp(i), vec(i, 16))
			}
		}
	}
	for i := range lanes {
		MOVQ(Mem{Base: dst, Disp: 8 * i}, address)
		MOVOU(vec(i, 16), Mem{Base: address, Index: at, Scale: 1})
	}
	ADDQ(U32(blockSize), at)
	SUBQ(U32(1), n)
	JNZ(LabelRef("block"))

	Load(Param("ivs"), dst)
	for i := range lanes {
		MOVQ(Mem{Base: dst, Disp: 8 * i}, address)
		MOVOU(vec(i, 16), Mem{Base: address})
	}
	RET()
}
