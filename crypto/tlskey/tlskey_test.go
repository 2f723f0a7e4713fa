package tlskey_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sealift/crypto/keys"
	"sealift/crypto/tlskey"
)

func TestFingerprint(t *testing.T) {
	key, err := tlskey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tlskey.SelfSigned(key, "sealift", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f := tlskey.Of(cert.Leaf)
	if same, err := tlskey.FingerprintOf(key); err != nil || same != f {
		t.Errorf("the key has fingerprint %v, its certificate %v (%v)", same, f, err)
	}
	if again, err := tlskey.ParseFingerprint(f.String()); err != nil || again != f {
		t.Errorf("%v is read as %v (%v)", f, again, err)
	}
	s := f.String()
	for _, bad := range []string{"", "SHA256:", s[7:], "MD5:" + s[7:], s + "=", s[:len(s)-1], s + "A", s[:49] + "*", "SHA256:" + strings.Repeat("A", 43)} {
		if f, err := tlskey.ParseFingerprint(bad); err == nil {
			t.Errorf("%q is read as %v", bad, f)
		}
	}
}

func TestKeyInPEM(t *testing.T) {
	key, err := tlskey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	text, err := tlskey.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := tlskey.ParseKey(text); err != nil || !again.Equal(key) {
		t.Errorf("another key comes back (%v)", err)
	}
	for _, bad := range []string{"", "x", string(text[:len(text)/2]), strings.Replace(string(text), "PRIVATE", "PUBLIC", 2)} {
		if _, err := tlskey.ParseKey([]byte(bad)); !errors.Is(err, tlskey.ErrKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A claim holds for the id, the server and the TLS key that were signed, and for the
// RSA key that signed them, and for nothing else.
func TestClaim(t *testing.T) {
	owner, err := keys.Generate()
	if err != nil {
		t.Fatal(err)
	}
	other, err := keys.Generate()
	if err != nil {
		t.Fatal(err)
	}
	key, err := tlskey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	client, err := tlskey.FingerprintOf(key)
	if err != nil {
		t.Fatal(err)
	}
	server, id := tlskey.Fingerprint{1}, [16]byte{2}
	claim, err := tlskey.NewClaim(owner, id, server, client)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tlskey.SelfSigned(key, "client", claim, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	got, err := tlskey.ClaimOf(cert.Leaf)
	if err != nil || got == nil || got.ID != id {
		t.Fatalf("claim %v (%v)", got, err)
	}
	if err := got.Verify(&owner.PublicKey, server, client); err != nil {
		t.Error(err)
	}
	anotherID := &tlskey.Claim{ID: [16]byte{3}, Signature: got.Signature}
	for what, err := range map[string]error{
		"another RSA key": got.Verify(&other.PublicKey, server, client),
		"another server":  got.Verify(&owner.PublicKey, tlskey.Fingerprint{9}, client),
		"another TLS key": got.Verify(&owner.PublicKey, server, tlskey.Fingerprint{9}),
		"another id":      anotherID.Verify(&owner.PublicKey, server, client),
	} {
		if !errors.Is(err, tlskey.ErrClaim) {
			t.Errorf("%s: %v", what, err)
		}
	}
	plain, err := tlskey.SelfSigned(key, "client", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if c, err := tlskey.ClaimOf(plain.Leaf); c != nil || err != nil {
		t.Errorf("claim %v (%v) in a certificate without one", c, err)
	}
}
