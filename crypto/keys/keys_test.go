package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"math/big"
	"testing"
)

func generate(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestGenerate(t *testing.T) {
	seen := make(map[string]bool)
	for range 5 {
		key := generate(t)
		if key.N.BitLen() != 1024 || key.E != 17 {
			t.Errorf("%d bits, exponent %d, want 1024 and 17", key.N.BitLen(), key.E)
		}
		if seen[key.N.String()] {
			t.Error("the same modulus twice")
		}
		seen[key.N.String()] = true

		der, err := MarshalPublic(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := ParsePublic(der[:])
		if err != nil || !pub.Equal(&key.PublicKey) {
			t.Errorf("public key comes back as %v, %v", pub, err)
		}
		private, err := MarshalPrivate(key)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParsePrivate(private)
		if err != nil || !back.Equal(key) {
			t.Errorf("private key comes back different: %v", err)
		}
	}
}

func TestWrap(t *testing.T) {
	priv := generate(t)
	key, err := NewAESKey()
	if err != nil {
		t.Fatal(err)
	}
	if other, _ := NewAESKey(); key == other || key == [AESKeySize]byte{} {
		t.Error("NewAESKey repeats itself, or gives zeros")
	}
	wrapped, err := Wrap(&priv.PublicKey, &key)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := Wrap(&priv.PublicKey, &key); wrapped == again {
		t.Error("two wraps of a key are equal: OAEP has lost its seed")
	}
	if got, err := Unwrap(priv, wrapped[:]); err != nil || got != key {
		t.Errorf("Unwrap = %x, %v, want %x", got, err, key)
	}
}

func TestUnwrapRefuses(t *testing.T) {
	priv, other := generate(t), generate(t)
	var key [AESKeySize]byte
	wrapped, err := Wrap(&priv.PublicKey, &key)
	if err != nil {
		t.Fatal(err)
	}
	oaep := func(plain []byte, label []byte) []byte {
		out, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, &priv.PublicKey, plain, label)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	sha256OAEP, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &priv.PublicKey, key[:], nil)
	if err != nil {
		t.Fatal(err)
	}
	damaged := wrapped
	damaged[64] ^= 1
	cases := map[string][]byte{
		"empty":         nil,
		"short":         wrapped[:127],
		"long":          append(wrapped[:], 0),
		"damaged":       damaged[:],
		"zeros":         make([]byte, 128),
		"ones":          bytes.Repeat([]byte{0xFF}, 128),
		"16-byte key":   oaep(make([]byte, 16), nil),
		"33-byte key":   oaep(make([]byte, 33), nil),
		"with a label":  oaep(key[:], []byte("label")),
		"OAEP, SHA-256": sha256OAEP,
	}
	for name, in := range cases {
		if got, err := Unwrap(priv, in); !errors.Is(err, ErrUnwrap) || got != [AESKeySize]byte{} {
			t.Errorf("%s: %x, %v, want ErrUnwrap", name, got, err)
		}
	}
	if _, err := Unwrap(other, wrapped[:]); !errors.Is(err, ErrUnwrap) {
		t.Errorf("with another private key: %v, want ErrUnwrap", err)
	}
}

// spki encodes an RSA public key without any check of its own.
func spki(t *testing.T, n *big.Int, e int) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: e})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestParsePublicRefuses(t *testing.T) {
	n := generate(t).N
	good := spki(t, n, 17)
	if _, err := ParsePublic(good); err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKIXPublicKey(&ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	// 1016 bits and an exponent of two bytes: 160 bytes as well.
	smaller := new(big.Int).Rsh(n, 8)
	smaller.SetBit(smaller, 0, 1)
	damaged := func(i int) []byte {
		p := bytes.Clone(good)
		p[i] ^= 1
		return p
	}
	cases := map[string][]byte{
		"empty":                 nil,
		"zeros":                 make([]byte, PublicKeySize),
		"short":                 good[:PublicKeySize-1],
		"trailing byte":         append(bytes.Clone(good), 0),
		"exponent 65537":        spki(t, n, 65537),
		"even exponent":         spki(t, n, 16),
		"exponent 1":            spki(t, n, 1),
		"even modulus":          spki(t, new(big.Int).Sub(n, big.NewInt(1)), 17),
		"smaller modulus":       spki(t, smaller, 257),
		"other algorithm":       append(ecDER, make([]byte, PublicKeySize-len(ecDER))...),
		"unknown algorithm":     damaged(12),
		"damaged outer length":  damaged(2),
		"damaged string header": damaged(20),
		"damaged key header":    damaged(25),
	}
	for name, der := range cases {
		if pub, err := ParsePublic(der); !errors.Is(err, ErrPublicKey) {
			t.Errorf("%s: %v, %v, want ErrPublicKey", name, pub, err)
		}
	}
}

func TestMarshalPublicRefuses(t *testing.T) {
	n := generate(t).N
	cases := map[string]*rsa.PublicKey{
		"nil":            nil,
		"no modulus":     {E: 17},
		"exponent 65537": {N: n, E: 65537},
		"negative":       {N: new(big.Int).Neg(n), E: 17},
		"2048 bits":      {N: new(big.Int).Mul(n, n), E: 17},
	}
	for name, pub := range cases {
		if _, err := MarshalPublic(pub); !errors.Is(err, ErrPublicKey) {
			t.Errorf("%s: %v, want ErrPublicKey", name, err)
		}
		if name == "exponent 65537" {
			continue // fit for wrapping, only too long for the wire
		}
		if _, err := Wrap(pub, new([AESKeySize]byte)); !errors.Is(err, ErrPublicKey) {
			t.Errorf("Wrap, %s: %v, want ErrPublicKey", name, err)
		}
	}
}

func TestParsePrivate(t *testing.T) {
	key := generate(t)
	pkcs8, err := MarshalPrivate(key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PrivateKey(key)
	usual, err := rsa.GenerateKey(rand.Reader, 1024) // exponent 65537
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"PKCS#8": pkcs8, "PKCS#1": pkcs1, "exponent 65537": x509.MarshalPKCS1PrivateKey(usual),
	} {
		if _, err := ParsePrivate(der); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	large, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	// The private exponent does not belong to the modulus any more.
	damaged := bytes.Clone(pkcs1)
	damaged[200] ^= 1
	public, err := MarshalPublic(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"empty": nil, "truncated": pkcs8[:len(pkcs8)-1], "trailing byte": append(bytes.Clone(pkcs8), 0),
		"2048 bits": x509.MarshalPKCS1PrivateKey(large), "EC": ecDER, "inconsistent": damaged,
		"public key": public[:],
	} {
		if _, err := ParsePrivate(der); !errors.Is(err, ErrPrivateKey) {
			t.Errorf("%s: %v, want ErrPrivateKey", name, err)
		}
	}
	for name, priv := range map[string]*rsa.PrivateKey{"nil": nil, "empty": {}, "2048 bits": large} {
		if _, err := MarshalPrivate(priv); !errors.Is(err, ErrPrivateKey) {
			t.Errorf("MarshalPrivate, %s: %v, want ErrPrivateKey", name, err)
		}
	}
}

// What ParsePublic accepts is what MarshalPublic makes, and fit for Wrap.
func FuzzParsePublic(f *testing.F) {
	der, err := MarshalPublic(&generate(f).PublicKey)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der[:])
	f.Add(der[:100])
	f.Add(make([]byte, PublicKeySize))
	f.Fuzz(func(t *testing.T, in []byte) {
		pub, err := ParsePublic(in)
		if err != nil {
			if !errors.Is(err, ErrPublicKey) {
				t.Errorf("error %v", err)
			}
			return
		}
		if out, err := MarshalPublic(pub); err != nil || !bytes.Equal(out[:], in) {
			t.Errorf("comes back as %x, %v", out, err)
		}
		if _, err := Wrap(pub, new([AESKeySize]byte)); err != nil {
			t.Errorf("Wrap: %v", err)
		}
	})
}

// What ParsePrivate accepts survives a round through PKCS#8 and can unwrap.
func FuzzParsePrivate(f *testing.F) {
	key := generate(f)
	der, err := MarshalPrivate(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add(x509.MarshalPKCS1PrivateKey(key))
	f.Add(der[:200])
	f.Fuzz(func(t *testing.T, in []byte) {
		priv, err := ParsePrivate(in)
		if err != nil {
			if !errors.Is(err, ErrPrivateKey) {
				t.Errorf("error %v", err)
			}
			return
		}
		out, err := MarshalPrivate(priv)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParsePrivate(out)
		if err != nil || !back.Equal(priv) {
			t.Fatalf("comes back different: %v", err)
		}
		if again, err := MarshalPrivate(back); err != nil || !bytes.Equal(again, out) {
			t.Errorf("encodes differently the second time: %v", err)
		}
		Unwrap(priv, make([]byte, WrappedKeySize))
	})
}

func BenchmarkKeys(b *testing.B) {
	priv := generate(b)
	var key [AESKeySize]byte
	wrapped, err := Wrap(&priv.PublicKey, &key)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("generate", func(b *testing.B) {
		for b.Loop() {
			generate(b)
		}
	})
	b.Run("wrap", func(b *testing.B) {
		for b.Loop() {
			Wrap(&priv.PublicKey, &key)
		}
	})
	b.Run("unwrap", func(b *testing.B) {
		for b.Loop() {
			Unwrap(priv, wrapped[:])
		}
	})
}
