package load

import (
	"testing"

	"sealift/crypto/keys"
)

func TestUnwrap(t *testing.T) {
	for range 5 {
		k, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		pub, err := keys.ParsePublic(k.Public[:])
		if err != nil {
			t.Fatalf("the server would not take the key: %v", err)
		}
		want, err := keys.NewAESKey()
		if err != nil {
			t.Fatal(err)
		}
		wrapped, err := keys.Wrap(pub, &want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.Unwrap(wrapped[:])
		if err != nil || got != want {
			t.Fatalf("Unwrap = %x, %v; want %x", got, err, want)
		}
		wrapped[100] ^= 1
		if _, err := k.Unwrap(wrapped[:]); err == nil {
			t.Error("a damaged wrapped key opens")
		}
	}
}

func BenchmarkUnwrap(b *testing.B) {
	k, err := NewKey()
	if err != nil {
		b.Fatal(err)
	}
	pub, err := keys.ParsePublic(k.Public[:])
	if err != nil {
		b.Fatal(err)
	}
	var key [keys.AESKeySize]byte
	wrapped, err := keys.Wrap(pub, &key)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := k.Unwrap(wrapped[:]); err != nil {
			b.Fatal(err)
		}
	}
}
