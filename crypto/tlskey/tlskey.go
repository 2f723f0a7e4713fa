// Package tlskey is about the keys that protect a connection by TLS 1.3: the server's,
// which clients remember, and a client's Ed25519 key, which the server pins to its id.
//
// Both are known by their [Fingerprint]. Their certificates are self-signed, and only
// carry the key: no name, time or usage in them is looked at. A client's may also carry
// a [Claim]: who has the RSA key of a client id says that the Ed25519 key is of the
// same client.
//
// Every function may be called from any goroutine.
package tlskey

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// ALPN names the protocol inside of TLS (RFC 7301). A client that names none gets it all
// the same.
const ALPN = "sealift/3"

// ALPNContinue names the protocol with 1032 and 1608 (PROTOCOL.md 15). A server that has
// them prefers it.
const ALPNContinue = "sealift/3c"

// Fingerprint names a public key: the SHA-256 of its SubjectPublicKeyInfo (RFC 5280,
// 4.1) in DER. The zero value is no key.
type Fingerprint [sha256.Size]byte

const prefix = "SHA256:"

// Of returns the fingerprint of the key in a certificate.
func Of(cert *x509.Certificate) Fingerprint { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// IsZero reports whether f names no key.
func (f Fingerprint) IsZero() bool { return f == Fingerprint{} }

// String writes f as ssh does: SHA256: and unpadded base64.
func (f Fingerprint) String() string { return prefix + base64.RawStdEncoding.EncodeToString(f[:]) }

// ParseFingerprint reads what String writes.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	rest, ok := strings.CutPrefix(s, prefix)
	b, err := base64.RawStdEncoding.Strict().DecodeString(rest)
	if !ok || err != nil || len(b) != len(f) || Fingerprint(b).IsZero() {
		return f, fmt.Errorf("fingerprint %q: want %s and 43 characters of base64", s, prefix)
	}
	return Fingerprint(b), nil
}

// Generate makes a key for a client.
func Generate() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

// FingerprintOf returns the fingerprint of a private key's public half.
func FingerprintOf(key crypto.Signer) (Fingerprint, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	return sha256.Sum256(der), err
}

// Types of the blocks in PEM files.
const (
	pemKey  = "PRIVATE KEY" // PKCS#8 (RFC 7468, 10)
	pemCert = "CERTIFICATE" // RFC 7468, 5
)

// EncodeKey writes a private key of any kind as PEM.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// EncodeCertificate writes a certificate, DER, as PEM.
func EncodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der})
}

// ErrKey says that a file does not hold an Ed25519 key as [EncodeKey] writes it.
var ErrKey = errors.New("no Ed25519 private key in PEM")

// ParseKey reads what EncodeKey writes of an Ed25519 key.
func ParseKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemKey {
		return nil, ErrKey
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, ErrKey
	}
	return key, nil
}

// SelfSigned makes a certificate that carries key and, unless it is nil, a claim.
// It is valid from an hour before now for a hundred years: who has the key is all
// that counts.
func SelfSigned(key crypto.Signer, name string, claim *Claim, now time.Time) (tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(100, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if claim != nil {
		value, err := asn1.Marshal(claimDER{claim.ID[:], claim.Signature})
		if err != nil {
			return tls.Certificate{}, err
		}
		template.ExtraExtensions = []pkix.Extension{{Id: claimOID, Value: value}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// Claim is how a client that has a key on record says that its TLS key is of the same
// client: the RSA key signs both, and the server's key, so that no server can show it
// to another one.
type Claim struct {
	ID        [16]byte // client id
	Signature []byte   // RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, 8.2) of the statement
}

// claimOID is where a certificate has its claim: an OID under a UUID (ITU-T X.667),
// which nobody assigns.
var claimOID = asn1.ObjectIdentifier{2, 25, 1740812963, 1}

// claimDER is the value of the extension.
type claimDER struct {
	ID        []byte
	Signature []byte
}

// statement is the hash of what a claim's signature is about.
func statement(id [16]byte, server, client Fingerprint) [sha256.Size]byte {
	text := fmt.Appendf(nil, "sealift: the TLS key of a client\n%x\n%v\n%v\n", id, server, client)
	return sha256.Sum256(text)
}

// NewClaim signs that the client of id has the TLS key client, for the server with
// the key server.
func NewClaim(key *rsa.PrivateKey, id [16]byte, server, client Fingerprint) (*Claim, error) {
	hash := statement(id, server, client)
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, hash[:])
	if err != nil {
		return nil, err
	}
	return &Claim{id, signature}, nil
}

// ErrClaim says that a claim is not of the owner of the RSA key, or about other keys.
var ErrClaim = errors.New("the claim to the client id is not signed by its key")

// Verify returns nil if the owner of the RSA key on record has signed that the client of
// c.ID has the TLS key client, for the server with the key server; otherwise ErrClaim.
func (c *Claim) Verify(key *rsa.PublicKey, server, client Fingerprint) error {
	hash := statement(c.ID, server, client)
	if rsa.VerifyPKCS1v15(key, crypto.SHA256, hash[:], c.Signature) != nil {
		return ErrClaim
	}
	return nil
}

// ClaimOf returns the claim in a certificate, nil if there is none. A claim that
// makes no sense is an error.
func ClaimOf(cert *x509.Certificate) (*Claim, error) {
	for _, e := range cert.Extensions {
		if !e.Id.Equal(claimOID) {
			continue
		}
		var v claimDER
		rest, err := asn1.Unmarshal(e.Value, &v)
		if err != nil || len(rest) > 0 || len(v.ID) != 16 {
			return nil, errors.New("the claim in the certificate makes no sense")
		}
		return &Claim{[16]byte(v.ID), v.Signature}, nil
	}
	return nil, nil
}
