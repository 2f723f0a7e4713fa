package server

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sealift/crypto/tlskey"
	"sealift/internal/infofile"
)

// The TLS key of a server that is given none, and its certificate, in a folder of the
// server's directory.
const (
	pairFolder = "tls"
	pairKey    = "key.pem"
	pairCert   = "cert.pem"
)

// certificateName is the name in the certificate that a server makes. Nobody looks
// at it; that of the machine is nobody's business.
const certificateName = "sealift"

// ownPair is where the pair of a server in dir is.
func ownPair(dir string) (cert, key string) {
	return filepath.Join(dir, pairFolder, pairCert), filepath.Join(dir, pairFolder, pairKey)
}

var (
	errNoPair  = errors.New("there is no TLS key yet")
	errKeyLost = errors.New("there is a certificate without its key")
	errKeyKind = errors.New("want a private key in PEM, without a passphrase")
)

// makePair makes a key for the server in dir and a certificate for it, unless they
// are there. The caller has dir for itself.
//
// The key comes first: clients know the server by it, and a certificate can be made
// for it at any time. So what a process leaves that is killed on the way is a key
// without a certificate, which gets one at the next start, or a temporary file, which
// is removed. What is in the place of either file is not changed. made is whether
// there is a new key.
func makePair(dir string, now time.Time) (made bool, err error) {
	folder := filepath.Join(dir, pairFolder)
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	if err := removeTemporary(folder); err != nil {
		return false, err
	}
	cert, key := ownPair(dir)
	switch _, err := readKey(cert, key); {
	case err == nil:
	case errors.Is(err, errNoPair):
		// Of the folder's name, too: a process that made it may have been killed.
		if err := syncFolder(dir); err != nil {
			return false, err
		}
		if err := makeKey(key); err != nil {
			return false, err
		}
		made = true
	default:
		return false, err
	}
	if _, err := os.Lstat(cert); !errors.Is(err, fs.ErrNotExist) {
		return made, err
	}
	if err := makeCertificate(cert, key, now); err != nil {
		return made, err
	}
	return made, syncFolder(folder)
}

// makeKey makes a key in the file at path. It is on the curve P-256, which every
// TLS 1.3 must know (RFC 8446, 9.1).
func makeKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	text, err := tlskey.EncodeKey(key)
	if err != nil {
		return err
	}
	return infofile.Replace(path, text, 0o600)
}

// makeCertificate makes the file cert, a certificate for the key in the file key.
func makeCertificate(cert, key string, now time.Time) error {
	signer, err := readKey(cert, key)
	if err != nil {
		return err
	}
	pair, err := tlskey.SelfSigned(signer, certificateName, nil, now)
	if err != nil {
		return err
	}
	return infofile.Replace(cert, tlskey.EncodeCertificate(pair.Certificate[0]), 0o600)
}

// readKey reads the key of the pair cert and key: errNoPair if there is neither, and
// errKeyLost if there is only cert.
func readKey(cert, key string) (crypto.Signer, error) {
	text, err := readPEM(key)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(cert); err == nil {
			return nil, fmt.Errorf("%s: %w", cert, errKeyLost)
		}
		if _, err := os.Lstat(key); err == nil {
			return nil, fmt.Errorf("%s: %w", key, fs.ErrNotExist) // a link to a key that is away
		}
		return nil, errNoPair
	}
	if err != nil {
		return nil, err
	}
	signer, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return signer, nil
}

// parseKey reads what makeKey writes, and the other forms that crypto/tls takes.
func parseKey(text []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue // the parameters of a curve, or a certificate
		}
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
		}
		if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			return key, nil
		}
		if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
			return key, nil
		}
		break
	}
	return nil, errKeyKind
}

// removeTemporary removes what processes left that were killed while they wrote.
func removeTemporary(folder string) error {
	for _, name := range []string{pairKey, pairCert} {
		left, err := filepath.Glob(filepath.Join(folder, "."+name+".*.tmp"))
		if err != nil {
			return err
		}
		for _, path := range left {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// explainOwnPair says what can be done about the pair in dir, which is err.
func explainOwnPair(dir string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return &Hinted{Err: err, Hint: "Run this as the user that the server runs as."}
	}
	return &Hinted{Err: err, Hint: fmt.Sprintf("Clients know the server by its key: put %s back from a backup. "+
		"To make another key, which they will refuse until they are told of it, move that folder away.", filepath.Join(dir, pairFolder))}
}

// Fingerprint returns what clients know the server in dir by, which may run or not. It
// makes nothing.
func Fingerprint(dir string) (tlskey.Fingerprint, error) {
	if err := checkDir(dir); err != nil {
		return tlskey.Fingerprint{}, err
	}
	cert, key := ownPair(dir)
	signer, err := readKey(cert, key)
	if errors.Is(err, errNoPair) {
		return tlskey.Fingerprint{}, &Hinted{
			Err:  fmt.Errorf("%s: %w", filepath.Join(dir, pairFolder), err),
			Hint: "The server makes it at its first start with TLS. Of one that is given a certificate: sealiftd fingerprint --tls-cert FILE",
		}
	}
	var sum tlskey.Fingerprint
	if err == nil {
		sum, err = tlskey.FingerprintOf(signer)
	}
	var shown tlskey.Fingerprint
	if err == nil {
		shown, err = FingerprintOfFile(cert)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && !sum.IsZero():
		return sum, nil // the certificate is made at the next start
	case err != nil:
		return tlskey.Fingerprint{}, explainOwnPair(dir, err)
	case shown != sum:
		return tlskey.Fingerprint{}, explainOwnPair(dir, fmt.Errorf("%s is not a certificate for %s", cert, key))
	}
	return sum, nil
}

// FingerprintOfFile returns what clients know a server by that has the certificate
// in the file at path: that of the first key in it.
func FingerprintOfFile(path string) (tlskey.Fingerprint, error) {
	text, err := readPEM(path)
	if err != nil {
		return tlskey.Fingerprint{}, err
	}
	cert, err := firstCertificate(text)
	if err != nil {
		return tlskey.Fingerprint{}, fmt.Errorf("%s: %w", path, err)
	}
	return tlskey.Of(cert), nil
}
