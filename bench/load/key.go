package load

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"math/bits"

	"sealift/crypto/keys"
	"sealift/internal/testpeer"
)

// Key is an RSA-1024 key pair whose modulus has sixteen primes of 64 bits. To a
// server it is a key like any other; opening what it wraps takes a tenth of the
// time that two primes take, because each prime fits a machine word, so that a
// generator of many thousand clients costs less than the server. It would resist
// nobody, and is for measuring only.
//
// A Key may be used by many goroutines.
type Key struct {
	Public [keys.PublicKeySize]byte // X.509, as it goes over the wire
	n      *big.Int
	parts  []keyPart
}

// keyPart is what one prime contributes (RFC 8017, 3.2; the Chinese remainder
// theorem in Gauss's form).
type keyPart struct {
	p, d  uint64   // the prime, and the private exponent modulo p-1
	coeff *big.Int // 1 modulo p, 0 modulo all other primes
}

const (
	keyPrimes   = 16
	keyExponent = 17
)

// NewKey makes a key in some milliseconds.
func NewKey() (*Key, error) {
	one, e := big.NewInt(1), big.NewInt(keyExponent)
	k := &Key{n: big.NewInt(1)}
	for len(k.parts) < keyPrimes {
		p, err := rand.Prime(rand.Reader, keys.Bits/keyPrimes)
		if err != nil {
			return nil, fmt.Errorf("making a key: %w", err)
		}
		d := new(big.Int).ModInverse(e, new(big.Int).Sub(p, one))
		// Sixteen primes of at least 0xf6 << 56 have a product of all 1024 bits.
		if d == nil || p.Uint64()>>56 < 0xf6 || new(big.Int).Mod(k.n, p).Sign() == 0 {
			continue
		}
		k.n.Mul(k.n, p)
		k.parts = append(k.parts, keyPart{p: p.Uint64(), d: d.Uint64()})
	}
	for i := range k.parts {
		part := &k.parts[i]
		p := new(big.Int).SetUint64(part.p)
		rest := new(big.Int).Div(k.n, p)
		part.coeff = new(big.Int).ModInverse(rest, p)
		part.coeff.Mul(part.coeff, rest)
	}
	var err error
	k.Public, err = keys.MarshalPublic(&rsa.PublicKey{N: k.n, E: keyExponent})
	return k, err
}

// newPairs makes n keys for peers.
func newPairs(n int) ([]*testpeer.Pair, error) {
	all := make([]*testpeer.Pair, n)
	for i := range all {
		k, err := NewKey()
		if err != nil {
			return nil, err
		}
		all[i] = &testpeer.Pair{Public: k.Public, Unwrap: k.Unwrap}
	}
	return all, nil
}

var errUnwrap = errors.New("the wrapped AES key does not open")

// Unwrap opens the AES key of a 1602 or 1605.
func (k *Key) Unwrap(wrapped []byte) (key [keys.AESKeySize]byte, err error) {
	if len(wrapped) != keys.WrappedKeySize {
		return key, errUnwrap
	}
	m, r := new(big.Int), new(big.Int)
	for i := range k.parts {
		part := &k.parts[i]
		c := uint64(0)
		for at := 0; at < len(wrapped); at += 8 {
			c = bits.Rem64(c, binary.BigEndian.Uint64(wrapped[at:]), part.p)
		}
		m.Add(m, r.Mul(r.SetUint64(power(c, part.d, part.p)), part.coeff))
	}
	var block [keys.WrappedKeySize]byte
	m.Mod(m, k.n).FillBytes(block[:])
	plain, ok := oaepOpen(block[:])
	if !ok || len(plain) != len(key) {
		return key, errUnwrap
	}
	copy(key[:], plain)
	return key, nil
}

// power is b to the e, modulo p. b is less than p.
func power(b, e, p uint64) uint64 {
	r := uint64(1)
	for ; e > 0; e >>= 1 {
		if e&1 == 1 {
			hi, lo := bits.Mul64(r, b)
			r = bits.Rem64(hi, lo, p)
		}
		hi, lo := bits.Mul64(b, b)
		b = bits.Rem64(hi, lo, p)
	}
	return r
}

// oaepOpen takes the padding off an encoded message (RFC 8017, 7.1.2 step 3),
// SHA-1 and an empty label. It works in place.
func oaepOpen(em []byte) (message []byte, ok bool) {
	seed, db := em[1:1+sha1.Size], em[1+sha1.Size:]
	mask(seed, db)
	mask(db, seed)
	label := sha1.Sum(nil)
	if em[0] != 0 || !bytes.HasPrefix(db, label[:]) {
		return nil, false
	}
	rest := bytes.TrimLeft(db[sha1.Size:], "\x00")
	if len(rest) == 0 || rest[0] != 1 {
		return nil, false
	}
	return rest[1:], true
}

// mask adds MGF1 of seed to b (RFC 8017, B.2.1).
func mask(b, seed []byte) {
	in := make([]byte, len(seed)+4)
	copy(in, seed)
	for i := uint32(0); len(b) > 0; i++ {
		binary.BigEndian.PutUint32(in[len(seed):], i)
		sum := sha1.Sum(in)
		n := min(len(b), len(sum))
		for j := range n {
			b[j] ^= sum[j]
		}
		b = b[n:]
	}
}
