// Package keys makes, encodes and uses the keys of protocol version 3: the
// client's RSA-1024 pair and the AES-256 key that the server sends wrapped in it.
//
// On the wire a public key is an X.509 SubjectPublicKeyInfo (RFC 5280, 4.1) of
// exactly 160 bytes, and a wrapped key is RSAES-OAEP with SHA-1, MGF1-SHA-1 and
// an empty label (RFC 8017, 7.1), 128 bytes. In me.info a private key is PKCS#8
// (RFC 5208). The parameters are those of Crypto++ and PyCryptodome; RSA-1024 and
// SHA-1 are what the protocol fixes, not a recommendation.
//
// Every function may be called from any goroutine, and keys may be shared.
// crypto/rsa refuses 1024-bit keys under GODEBUG=fips140=only, and so do these
// functions then.
package keys

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

const (
	// Bits is the size of the RSA modulus.
	Bits = 1024
	// PublicKeySize is the size of an encoded public key in bytes.
	PublicKeySize = 160
	// WrappedKeySize is the size of a wrapped AES key in bytes.
	WrappedKeySize = 128
	// AESKeySize is the size of an AES key in bytes.
	AESKeySize = 32

	// exponent is Crypto++'s default. A larger one than 127 would not fit into
	// the 160 bytes of an encoded public key.
	exponent = 17
)

var (
	// ErrPublicKey says that a public key is not one of the protocol: not
	// PublicKeySize bytes of X.509 DER, not RSA, not 1024 bits, or no possible
	// modulus or exponent.
	ErrPublicKey = errors.New("keys: not a 160-byte X.509 RSA-1024 public key")
	// ErrPrivateKey says that a private key is neither PKCS#8 nor PKCS#1 DER of
	// a consistent RSA-1024 key.
	ErrPrivateKey = errors.New("keys: not a PKCS#8 RSA-1024 private key")
	// ErrUnwrap says that a wrapped key was not made for this private key, or
	// does not hold an AES-256 key.
	ErrUnwrap = errors.New("keys: wrapped key does not open")
)

// Generate makes an RSA-1024 key pair with public exponent 17. It takes some
// ten milliseconds of processor time.
//
// rsa.GenerateKey always uses 65537, which makes an encoded public key 162 bytes.
func Generate() (*rsa.PrivateKey, error) {
	e := big.NewInt(exponent)
	for {
		p, err := generatePrime(e)
		if err != nil {
			return nil, err
		}
		q, err := generatePrime(e)
		if err != nil {
			return nil, err
		}
		// rand.Prime sets the two top bits, so n has all 1024 bits. FIPS 186-5,
		// A.1.3 wants the primes apart in their upper hundred bits.
		if new(big.Int).Sub(p, q).BitLen() <= Bits/2-100 {
			continue
		}
		n := new(big.Int).Mul(p, q)

		// d = e^-1 mod lcm(p-1, q-1), as RFC 8017, 3.2 and Crypto++ have it.
		one := big.NewInt(1)
		p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
		lambda := new(big.Int).Mul(p1, q1)
		lambda.Div(lambda, new(big.Int).GCD(nil, nil, p1, q1))
		d := new(big.Int).ModInverse(e, lambda)
		// FIPS 186-5, A.1.1: d has more than half the bits of n. It practically
		// always has.
		if d.BitLen() <= Bits/2 {
			continue
		}

		key := &rsa.PrivateKey{
			PublicKey: rsa.PublicKey{N: n, E: exponent},
			D:         d,
			Primes:    []*big.Int{p, q},
		}
		key.Precompute()
		if err := key.Validate(); err != nil {
			return nil, fmt.Errorf("keys: generate: %w", err)
		}
		return key, nil
	}
}

// generatePrime returns a prime p of half the modulus with gcd(e, p-1) = 1.
func generatePrime(e *big.Int) (*big.Int, error) {
	one := big.NewInt(1)
	for {
		p, err := rand.Prime(rand.Reader, Bits/2)
		if err != nil {
			return nil, fmt.Errorf("keys: generate: %w", err)
		}
		p1 := new(big.Int).Sub(p, one)
		if p1.GCD(nil, nil, e, p1).Cmp(one) == 0 {
			return p, nil
		}
	}
}

// MarshalPublic encodes pub for the wire. A key that does not fit (another
// size, or an exponent over 127) gives ErrPublicKey.
func MarshalPublic(pub *rsa.PublicKey) ([PublicKeySize]byte, error) {
	var out [PublicKeySize]byte
	if !validPublic(pub) {
		return out, ErrPublicKey
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil || len(der) != PublicKeySize {
		return out, ErrPublicKey
	}
	copy(out[:], der)
	return out, nil
}

// ParsePublic decodes a public key off the wire. It accepts exactly what
// MarshalPublic gives, and ErrPublicKey for everything else. That a key is
// accepted does not mean that anyone has its private half.
func ParsePublic(der []byte) (*rsa.PublicKey, error) {
	if len(der) != PublicKeySize {
		return nil, ErrPublicKey
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, ErrPublicKey
	}
	pub, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, ErrPublicKey
	}
	// One key, one encoding: what is pinned by its bytes is pinned by its value.
	again, err := MarshalPublic(pub)
	if err != nil || !bytes.Equal(again[:], der) {
		return nil, ErrPublicKey
	}
	return pub, nil
}

func validPublic(pub *rsa.PublicKey) bool {
	return pub != nil && pub.N != nil && pub.N.Sign() > 0 && pub.N.BitLen() == Bits && pub.N.Bit(0) == 1 &&
		pub.E >= 3 && pub.E%2 == 1
}

// MarshalPrivate encodes priv as PKCS#8 DER. A key that is not a consistent
// RSA-1024 key gives ErrPrivateKey.
func MarshalPrivate(priv *rsa.PrivateKey) ([]byte, error) {
	if !validPrivate(priv) {
		return nil, ErrPrivateKey
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, ErrPrivateKey
	}
	return der, nil
}

// ParsePrivate decodes a private key in PKCS#8 DER, or in PKCS#1 DER, which is
// PyCryptodome's default. Its public exponent may be any; only with one up to
// 127 does MarshalPublic take its public half. Anything else gives
// ErrPrivateKey.
func ParsePrivate(der []byte) (*rsa.PrivateKey, error) {
	// x509.ParsePKCS8PrivateKey overlooks what follows the key.
	var whole asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &whole); err != nil || len(rest) != 0 {
		return nil, ErrPrivateKey
	}
	var priv *rsa.PrivateKey
	if parsed, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		priv, _ = parsed.(*rsa.PrivateKey)
	} else if priv, err = x509.ParsePKCS1PrivateKey(der); err != nil {
		return nil, ErrPrivateKey
	}
	if !validPrivate(priv) {
		return nil, ErrPrivateKey
	}
	return priv, nil
}

func validPrivate(priv *rsa.PrivateKey) bool {
	return priv != nil && validPublic(&priv.PublicKey) && len(priv.Primes) == 2 && priv.Validate() == nil
}

// NewAESKey returns a fresh AES-256 key from the system's random source.
func NewAESKey() ([AESKeySize]byte, error) {
	var key [AESKeySize]byte
	if _, err := rand.Read(key[:]); err != nil {
		return key, fmt.Errorf("keys: AES key: %w", err)
	}
	return key, nil
}

// Wrap encrypts key for the owner of pub. It fails with ErrPublicKey for a pub
// that ParsePublic would not return, and where crypto/rsa refuses to work.
func Wrap(pub *rsa.PublicKey, key *[AESKeySize]byte) ([WrappedKeySize]byte, error) {
	var out [WrappedKeySize]byte
	if !validPublic(pub) {
		return out, ErrPublicKey
	}
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, key[:], nil)
	if err != nil {
		return out, fmt.Errorf("keys: wrap: %w", err)
	}
	copy(out[:], wrapped)
	return out, nil
}

// Unwrap decrypts a wrapped key. Anything but WrappedKeySize bytes that open to
// an AES-256 key gives ErrUnwrap. It takes a quarter of a millisecond.
func Unwrap(priv *rsa.PrivateKey, wrapped []byte) ([AESKeySize]byte, error) {
	var key [AESKeySize]byte
	if len(wrapped) != WrappedKeySize {
		return key, ErrUnwrap
	}
	plain, err := rsa.DecryptOAEP(sha1.New(), nil, priv, wrapped, nil)
	if err != nil || len(plain) != AESKeySize {
		return key, ErrUnwrap
	}
	copy(key[:], plain)
	return key, nil
}
