package cksum

// foldTable holds what the folding kernels multiply by, two 64-bit constants a
// row, as polynomials with the most significant bit first. Moving 128 bits of
// data on by d bits multiplies their lower half by x^d and their upper half by
// x^(d+64), modulo the generator P.
//
// The method and the names of the last two rows are those of V. Gopal et al.,
// "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction"
// (Intel, 2009). A test derives every number.
var foldTable = [7][2]uint64{
	{0xE8A45605, 0xC5B9CD4C},   // x^128 mod P, x^192 mod P: on by 16 bytes
	{0x75BE46B7, 0x569700E5},   // x^256 mod P, x^320 mod P: on by 32 bytes
	{0xE6228B11, 0x8833794C},   // x^512 mod P, x^576 mod P: on by 64 bytes
	{0x88FE2237, 0xCBCF3BCB},   // x^2048 mod P, x^2112 mod P: on by 256 bytes
	{0x0E857E71, 0x10D44E4E},   // x^4096 mod P, x^4160 mod P: on by 512 bytes
	{0xF200AA66, 0x490D678D},   // x^96 mod P, x^64 mod P: to 96 and 64 bits
	{0x104D101DF, 0x104C11DB7}, // floor(x^64/P), P: Barrett
}
