package server

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/crypto/tlskey"
	"sealift/eventloop"
	"sealift/session"
)

// The most that a client's certificate message may have, in bytes. One that carries
// a key alone, with a claim, has about 600; a chain needs more.
const (
	maxKeyCertificate   = 4 << 10
	maxChainCertificate = 16 << 10
)

// protection is how a server protects connections. It makes the TLS configurations
// from files, and follows what changes in them.
type protection struct {
	o     TLS    // with the files that are read, also where they were made here
	own   bool   // the certificate is the one in the server's directory
	made  bool   // and its key was made by this start
	pair  []byte // the key and the certificate, where they come from no files
	log   *zap.Logger
	serve atomic.Pointer[identity] // with the next handshake
	every time.Duration            // between two looks at the files

	// What look found last, and what it has said about it.
	looking sync.Mutex
	bad     fileSum
	told    bool
}

// identity is what a server shows in handshakes, and asks of clients there. It is
// not changed.
type identity struct {
	sum         fileSum
	config      *tls.Config
	leaf        *x509.Certificate
	fingerprint tlskey.Fingerprint
	clients     string // TLS.Clients
}

// fileSum is the SHA-256 of all that was read.
type fileSum [sha256.Size]byte

// checkAuthorities reads the file of the authorities, if there is one.
func (t *TLS) checkAuthorities() error {
	if t.ClientCA == "" {
		return nil
	}
	text, err := readPEM(t.ClientCA)
	if err == nil {
		_, err = parseAuthorities(text)
	}
	if err != nil {
		return fmt.Errorf("--tls-client-ca %s: %w", t.ClientCA, err)
	}
	return nil
}

// openProtection returns the protection that o asks for, nil for none.
func openProtection(o *Options) (*protection, error) {
	if o.TLS.Mode == tlsOff {
		return nil, nil
	}
	p := &protection{o: o.TLS, log: o.Log, every: lookEvery}
	if p.o.Cert == "" {
		p.own = true
		p.o.Cert, p.o.Key = ownPair(o.Dir)
		var err error
		if p.made, err = makePair(o.Dir, time.Now()); err != nil {
			return nil, explainOwnPair(o.Dir, err)
		}
		if p.made {
			o.Log.Info("a TLS key was made", zap.String("file", p.o.Key))
		}
	}
	first, err := p.load()
	if err != nil {
		if p.own {
			err = explainOwnPair(o.Dir, err)
		}
		return nil, err
	}
	p.warnOfMode()
	p.use(first)
	p.log.Info("TLS key", zap.Stringer("fingerprint", first.fingerprint), zap.String("certificate", p.o.Cert))
	return p, nil
}

// options are what the event loops need to know.
func (p *protection) options() *eventloop.TLS {
	if p == nil {
		return nil
	}
	o := &eventloop.TLS{
		Config: func() (*tls.Config, func(tls.ConnectionState) (session.Channel, error)) {
			id := p.serve.Load()
			return id.config, id.channel
		},
		Require:        p.o.Mode == tlsRequire,
		MaxCertificate: maxKeyCertificate,
	}
	if p.o.Clients == clientsCA {
		o.MaxCertificate = maxChainCertificate
	}
	return o
}

// use has the next handshakes show id.
func (p *protection) use(id *identity) {
	p.serve.Store(id)
	if now := time.Now(); !p.own && (now.Before(id.leaf.NotBefore) || now.After(id.leaf.NotAfter)) {
		p.log.Warn("the TLS certificate is not valid at this time",
			zap.Time("not_before", id.leaf.NotBefore), zap.Time("not_after", id.leaf.NotAfter))
	}
}

// load reads the files. identity has the sum also with an error.
func (p *protection) load() (*identity, error) {
	hash := sha256.New()
	read := func(path string) ([]byte, error) {
		if path == "" {
			return nil, nil
		}
		text, err := readPEM(path)
		fmt.Fprintf(hash, "%d %v\n%s", len(text), err, text)
		return text, err
	}
	cert, key := p.pair, p.pair
	var err1, err2 error
	if p.pair == nil {
		cert, err1 = read(p.o.Cert)
		key, err2 = read(p.o.Key)
	}
	authorities, err3 := read(p.o.ClientCA)
	id := &identity{sum: fileSum(hash.Sum(nil)), clients: p.o.Clients}
	if err := cmp.Or(err1, err2, err3); err != nil {
		return id, err
	}
	pair, err := parsePair(cert, key)
	if err != nil {
		return id, fmt.Errorf("TLS certificate %s with key %s: %w", p.o.Cert, p.o.Key, err)
	}
	id.leaf, id.fingerprint = pair.Leaf, tlskey.Of(pair.Leaf)
	id.config = &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS13,
		// A client that offers other protocols only, such as a browser that was led
		// here, gets an alert. One that offers none is served. Of two that it offers
		// the first here is chosen.
		NextProtos:             []string{tlskey.ALPNContinue, tlskey.ALPN},
		SessionTicketsDisabled: true, // a resumed connection would show no certificate
	}
	switch id.clients {
	case clientsPin:
		id.config.ClientAuth = tls.RequestClientCert
	case clientsCA:
		id.config.ClientAuth = tls.RequireAndVerifyClientCert
		if id.config.ClientCAs, err = parseAuthorities(authorities); err != nil {
			return id, fmt.Errorf("TLS authorities %s: %w", p.o.ClientCA, err)
		}
	}
	return id, nil
}

// channel tells what the handshake has shown about the client. An error is the
// client's doing.
func (id *identity) channel(cs tls.ConnectionState) (session.Channel, error) {
	ch := session.Channel{TLS: true, Server: id.fingerprint}
	if len(cs.PeerCertificates) == 0 {
		return ch, nil
	}
	leaf := cs.PeerCertificates[0]
	var err error
	switch id.clients {
	case clientsPin:
		// Another kind of certificate is served, and pins nothing.
		if _, ok := leaf.PublicKey.(ed25519.PublicKey); ok {
			ch.Client = tlskey.Of(leaf)
			ch.Claim, err = tlskey.ClaimOf(leaf)
		}
	case clientsCA:
		ch.Name, err = nameIn(leaf)
	}
	return ch, err
}

// nameIn returns the user name in a client's certificate: the common name of its
// subject, or without one the first of its DNS names.
func nameIn(leaf *x509.Certificate) (string, error) {
	name := leaf.Subject.CommonName
	if name == "" && len(leaf.DNSNames) > 0 {
		name = leaf.DNSNames[0]
	}
	if err := codec.CheckName(name); err != nil {
		return "", fmt.Errorf("the name in the client's certificate: %w", err)
	}
	return name, nil
}

// maxPEM bounds what is read of a file, in bytes. The bundle of all authorities that
// Debian trusts has 220 KiB.
const maxPEM = 4 << 20

// readPEM reads a file, or what a link leads to. A pipe is not waited for.
func readPEM(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: want a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxPEM {
		return nil, fmt.Errorf("%s: want %d bytes at most", path, maxPEM)
	}
	return text, nil
}

// parsePair reads a chain and the key of its first certificate, and looks whether
// they can be used in TLS 1.3. No error quotes what is in the files: those of crypto/tls
// quote the types of blocks, so it is not asked where there is no block to use.
func parsePair(cert, key []byte) (tls.Certificate, error) {
	if _, err := firstCertificate(cert); err != nil {
		return tls.Certificate{}, err
	}
	if _, err := parseKey(key); err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return pair, err
	}
	hello := &tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{
		tls.PSSWithSHA256, tls.ECDSAWithP256AndSHA256, tls.Ed25519,
		tls.PSSWithSHA384, tls.PSSWithSHA512, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512,
	}}
	return pair, hello.SupportsCertificate(&pair)
}

// parseAuthorities reads certificates, at least one.
func parseAuthorities(text []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	n := 0
	for cert, err := range certificates(text) {
		if err != nil {
			return nil, err
		}
		pool.AddCert(cert)
		n++
	}
	if n == 0 {
		return nil, errNoCertificate
	}
	return pool, nil
}

// firstCertificate reads the certificate that comes first.
func firstCertificate(text []byte) (*x509.Certificate, error) {
	for cert, err := range certificates(text) {
		return cert, err
	}
	return nil, errNoCertificate
}

var errNoCertificate = errors.New("there is no certificate in PEM in it")

// certificates reads all certificates in PEM, and skips other blocks.
func certificates(text []byte) iter.Seq2[*x509.Certificate, error] {
	return func(yield func(*x509.Certificate, error) bool) {
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "CERTIFICATE" && !yield(x509.ParseCertificate(block.Bytes)) {
				return
			}
		}
	}
}

// warnOfMode warns of a private key that others can get at. The group may where the
// operator has made the file: it often is that of all who serve TLS.
func (p *protection) warnOfMode() {
	info, err := os.Stat(p.o.Key)
	if err != nil || runtime.GOOS == "windows" {
		return
	}
	private := os.FileMode(0o007)
	if p.own {
		private = 0o077
	}
	if mode := info.Mode().Perm(); mode&private != 0 {
		p.log.Warn("the file of the TLS key is open to others", zap.String("file", p.o.Key), zap.Stringer("mode", mode))
	}
}
