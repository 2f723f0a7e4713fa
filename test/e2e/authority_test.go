//go:build unix

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates of clients.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("authority", nil)
	return a
}

// sign makes NAME.pem and NAME.key, signed by the authority, or by itself if that is being made.
func (a *authority) sign(name string, by *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		IsCA:        by == nil, BasicConstraintsValid: true,
	}
	signer := a.key
	if by == nil {
		by, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		a.file(name + ".pem"): {Type: "CERTIFICATE", Bytes: der}, a.file(name + ".key"): {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// A server that wants certificates of an authority serves the client whose name is in
// one, and nobody else.
func TestClientsOfAnAuthority(t *testing.T) {
	t.Parallel()
	a, stranger := newAuthority(t), newAuthority(t)
	a.sign("alice", a.cert)
	stranger.sign("alice", stranger.cert)
	d := serve(t, "--tls", "require", "--tls-clients", "ca", "--tls-client-ca", a.file("authority.pem"))
	content := []byte("with a certificate")
	for _, tc := range []struct {
		what, name string
		of         *authority
		served     bool
	}{
		{"a certificate for the name", "alice", a, true},
		{"a certificate for another name", "bob", a, false},
		{"a certificate of another authority", "alice", stranger, false},
		{"no certificate of an authority", "alice", nil, false},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"send", "--server", d.addr, "--name", tc.name, "--tls-trust-first", "--retry-for", "1s"}
		if tc.of != nil {
			args = append(args, "--tls-cert", tc.of.file("alice.pem"), "--tls-key", tc.of.file("alice.key"))
		}
		r := run(t, dir, sealift, append(args, "f")...)
		if (r.status == 0) != tc.served {
			t.Errorf("%s: status %d: %s%s", tc.what, r.status, r.stdout, r.stderr)
		}
		if _, err := os.Stat(filepath.Join(dir, "me.key")); tc.of != nil && err == nil {
			t.Errorf("%s: there is a me.key, which is of no use", tc.what)
		}
	}
	if all := d.clients(); len(all) != 1 || all[0].Name != "alice" || all[0].TLSKey != "" {
		t.Errorf("on record are %+v", all)
	}
}
