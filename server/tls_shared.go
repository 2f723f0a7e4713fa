package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"sealift/crypto/tlskey"
	"sealift/internal/infofile"
	"sealift/storage"
)

// sharedSecret is the name of the TLS key among the secrets of servers that share a registry:
// the key and its certificate, in PEM.
const sharedSecret = "tls"

// sharedCert is the file, in pairFolder, with the certificate of that key, for whoever wants to
// know the server by it.
const sharedCert = "shared.pem"

// openOwnProtection is openProtection for a server that is given no key.
func (s *Server) openOwnProtection(ctx context.Context) (*protection, error) {
	if secrets, ok := s.registry.(storage.Secrets); ok && s.o.Storage.shared() {
		return openSharedProtection(ctx, &s.o, secrets)
	}
	return openProtection(&s.o)
}

// openSharedProtection is openProtection for a server that is given no key and has its stores
// together with others: they all show the same key, or a client would refuse all but one.
func openSharedProtection(ctx context.Context, o *Options, secrets storage.Secrets) (*protection, error) {
	if o.TLS.Mode == tlsOff {
		return nil, nil
	}
	pair, err := sharedPair(ctx, o.Dir, secrets)
	if err != nil {
		return nil, err
	}
	p := &protection{o: o.TLS, own: true, pair: pair, log: o.Log, every: lookEvery}
	folder := filepath.Join(o.Dir, pairFolder)
	p.o.Cert = filepath.Join(folder, sharedCert)
	first, err := p.load()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	if err := infofile.Replace(p.o.Cert, tlskey.EncodeCertificate(first.leaf.Raw), 0o600); err != nil {
		return nil, err
	}
	if own, err := Fingerprint(o.Dir); err == nil && own != first.fingerprint {
		p.log.Warn("the TLS key in the directory is not used: servers that share their stores show another", zap.Stringer("fingerprint", own))
	}
	p.use(first)
	p.log.Info("TLS key", zap.Stringer("fingerprint", first.fingerprint), zap.String("certificate", p.o.Cert))
	return p, nil
}

// sharedPair returns the key and the certificate of all servers that have secrets together. The
// first of them brings the pair in its directory along, if there is one: it was alone before, and
// clients know it by that key.
func sharedPair(ctx context.Context, dir string, secrets storage.Secrets) ([]byte, error) {
	return secrets.Secret(ctx, sharedSecret, func() ([]byte, error) {
		certFile, keyFile := ownPair(dir)
		signer, err := readKey(certFile, keyFile)
		if errors.Is(err, errNoPair) {
			signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		}
		if err != nil {
			return nil, explainOwnPair(dir, err)
		}
		key, err := tlskey.EncodeKey(signer)
		if err != nil {
			return nil, err
		}
		pair, err := tlskey.SelfSigned(signer, certificateName, nil, time.Now())
		if err != nil {
			return nil, err
		}
		return append(key, tlskey.EncodeCertificate(pair.Certificate[0])...), nil
	})
}
