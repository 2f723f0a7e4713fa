package server

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sealift/crypto/keys"
	"sealift/crypto/tlskey"
	"sealift/session"
)

// tlsOptions are those of a server in dir that protects connections, and its log.
func tlsOptions(dir string) (Options, *observer.ObservedLogs) {
	core, logged := observer.New(zap.DebugLevel)
	o := options(dir)
	o.TLS.Mode, o.Log = tlsAllow, zap.New(core)
	return o, logged
}

// protect is what a server with o protects its connections with.
func protect(t *testing.T, o Options) *protection {
	t.Helper()
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	p, err := openProtection(&o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// handshake has a client and a server shake hands, and returns what each knows then.
// err is why the server ended it.
func handshake(t *testing.T, p *protection, client *tls.Config) (seen tls.ConnectionState, ch session.Channel, err error) {
	t.Helper()
	config, channel := p.options().Config()
	seen, state, err := shake(config, client)
	if err == nil {
		ch, err = channel(state)
	}
	return seen, ch, err
}

// shake returns what the client and the server know once they have shaken hands, and
// why the server has not.
func shake(config, client *tls.Config) (seen, state tls.ConnectionState, err error) {
	a, b := net.Pipe()
	server := tls.Server(a, config)
	ended := make(chan tls.ConnectionState)
	go func() {
		defer b.Close()
		c := tls.Client(b, client)
		if c.Handshake() == nil {
			_, _ = c.Read(make([]byte, 1)) // the server may end it after that
		}
		ended <- c.ConnectionState()
	}()
	if err = server.Handshake(); err == nil {
		state = server.ConnectionState()
	}
	_ = server.Close()
	_ = a.Close()
	return <-ended, state, err
}

// anyServer is a client that takes any server.
func anyServer(certs ...tls.Certificate) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, Certificates: certs}
}

// shown is the fingerprint of the certificate that a client was shown.
func shown(t *testing.T, p *protection) tlskey.Fingerprint {
	t.Helper()
	seen, ch, err := handshake(t, p, anyServer())
	if err != nil {
		t.Fatal(err)
	}
	if got := tlskey.Of(seen.PeerCertificates[0]); got != ch.Server {
		t.Fatalf("the client was shown %v, the session was told %v", got, ch.Server)
	}
	return ch.Server
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  crypto.Signer
}

// newKey makes a key of that kind.
func newKey(t *testing.T, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "P-224":
		key, err = ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "Ed25519":
		key, err = tlskey.Generate()
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t, "P-256")}
	a.cert = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, a.key).Leaf
	return a
}

// sign makes a certificate for key, with what is set in template. The chain ends at a.
func (a *authority) sign(template *x509.Certificate, key crypto.Signer) tls.Certificate {
	a.t.Helper()
	template.SerialNumber = big.NewInt(1)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	parent := a.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// client makes a certificate for a client, over a key of that kind.
func (a *authority) client(kind string, template *x509.Certificate) tls.Certificate {
	a.t.Helper()
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.sign(template, newKey(a.t, kind))
}

// store writes the pair to two files.
func store(t *testing.T, certFile, keyFile string, pair tls.Certificate) {
	t.Helper()
	text, err := tlskey.EncodeKey(pair.PrivateKey.(crypto.Signer))
	if err == nil {
		err = os.WriteFile(keyFile, text, 0o600)
	}
	if err == nil {
		err = os.WriteFile(certFile, encode(pair), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func encode(pair tls.Certificate) (text []byte) {
	for _, der := range pair.Certificate {
		text = append(text, tlskey.EncodeCertificate(der)...)
	}
	return text
}

// given sets o to a pair in a folder of its own.
func given(t *testing.T, o *Options, pair tls.Certificate) {
	t.Helper()
	dir := t.TempDir()
	o.TLS.Cert, o.TLS.Key = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	store(t, o.TLS.Cert, o.TLS.Key, pair)
}

func selfSigned(t *testing.T, kind string, claim *tlskey.Claim) tls.Certificate {
	t.Helper()
	pair, err := tlskey.SelfSigned(newKey(t, kind), "name", claim, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// Each kind of key that TLS 1.3 has a signature for is served, in each form that
// other programs write it in, and the whole chain with it.
func TestGivenPairs(t *testing.T) {
	for _, kind := range []string{"RSA", "P-256", "P-384", "Ed25519"} {
		t.Run(kind, func(t *testing.T) {
			a := newAuthority(t)
			o, logged := tlsOptions(t.TempDir())
			pair := a.sign(&x509.Certificate{DNSNames: []string{"example.org"}}, newKey(t, kind))
			pair.Certificate = append(pair.Certificate, a.cert.Raw)
			given(t, &o, pair)
			p := protect(t, o)
			roots := x509.NewCertPool()
			roots.AddCert(a.cert)
			seen, ch, err := handshake(t, p, &tls.Config{RootCAs: roots, ServerName: "example.org"})
			want := session.Channel{TLS: true, Server: tlskey.Of(pair.Leaf)}
			if err != nil || len(seen.VerifiedChains) == 0 || len(seen.PeerCertificates) != 2 || ch != want {
				t.Errorf("shaken hands: %v, %d certificates, %+v, want %+v", err, len(seen.PeerCertificates), ch, want)
			}
			if got, err := FingerprintOfFile(o.TLS.Cert); got != want.Server || err != nil {
				t.Errorf("FingerprintOfFile: %v, %v", got, err)
			}
			told := logged.FilterMessage("TLS key").FilterField(zap.Stringer("fingerprint", want.Server))
			if told.Len() != 1 || logged.FilterLevelExact(zap.WarnLevel).Len() != 0 {
				t.Errorf("logged %v", logged.All())
			}
			if _, err := os.Stat(filepath.Join(o.Dir, pairFolder)); err == nil {
				t.Error("a pair was made beside the one that is given")
			}
		})
	}
}

// One file may hold both, and a key may be written as OpenSSL writes it.
func TestGivenPairInOtherForms(t *testing.T) {
	key := newKey(t, "P-256").(*ecdsa.PrivateKey)
	pair, err := tlskey.SelfSigned(key, "name", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	o, _ := tlsOptions(t.TempDir())
	text := append(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), encode(pair)...)
	write(t, o.Dir, "both.pem", string(text))
	o.TLS.Cert = filepath.Join(o.Dir, "both.pem")
	o.TLS.Key = o.TLS.Cert
	if got := shown(t, protect(t, o)); got != tlskey.Of(pair.Leaf) {
		t.Errorf("shown: %v", got)
	}
	// The same in the server's own folder.
	own, _ := tlsOptions(t.TempDir())
	write(t, own.Dir, "tls/key.pem", string(text))
	if got := shown(t, protect(t, own)); got != tlskey.Of(pair.Leaf) {
		t.Errorf("shown: %v", got)
	}
}

// Files that make no sense are refused before anything is made, by name.
func TestGivenPairsWithoutSense(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, o *Options)
		want  string
	}{
		{"no certificate", func(t *testing.T, o *Options) { remove(t, "", o.TLS.Cert) }, "cert: no such file"},
		{"no key", func(t *testing.T, o *Options) { remove(t, "", o.TLS.Key) }, "key: no such file"},
		{"a folder", func(t *testing.T, o *Options) { o.TLS.Key = t.TempDir() }, "want a regular file"},
		{"rubbish", func(t *testing.T, o *Options) { write(t, "", o.TLS.Cert, "rubbish") }, errNoCertificate.Error()},
		{"a key with a passphrase", func(t *testing.T, o *Options) {
			block := &pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("nothing that we can read")}
			write(t, "", o.TLS.Key, string(pem.EncodeToMemory(block)))
		}, "without a passphrase"},
		{"the key of another", func(t *testing.T, o *Options) {
			store(t, filepath.Join(t.TempDir(), "cert"), o.TLS.Key, selfSigned(t, "P-256", nil))
		}, "private key does not match public key"},
		{"exchanged", func(t *testing.T, o *Options) { o.TLS.Cert, o.TLS.Key = o.TLS.Key, o.TLS.Cert }, errNoCertificate.Error()},
		{"a kind that TLS 1.3 has no signature for", func(t *testing.T, o *Options) { given(t, o, selfSigned(t, "P-224", nil)) }, "unsupported"},
		{"too large", func(t *testing.T, o *Options) { write(t, "", o.TLS.Cert, strings.Repeat(" ", maxPEM+1)) }, "want 4194304 bytes at most"},
		{"authorities that are rubbish", func(t *testing.T, o *Options) {
			o.TLS.Mode, o.TLS.Clients, o.TLS.ClientCA = tlsRequire, clientsCA, filepath.Join(t.TempDir(), "ca")
			write(t, "", o.TLS.ClientCA, "rubbish")
		}, "there is no certificate in PEM"},
		{"authorities that are rubbish, with a pair of its own", func(t *testing.T, o *Options) {
			o.TLS = TLS{Mode: tlsRequire, Clients: clientsCA, ClientCA: filepath.Join(t.TempDir(), "ca")}
			write(t, "", o.TLS.ClientCA, "rubbish")
		}, "ca: there is no certificate in PEM"},
		{"no authorities", func(t *testing.T, o *Options) {
			o.TLS = TLS{Mode: tlsRequire, Clients: clientsCA, ClientCA: filepath.Join(t.TempDir(), "ca")}
		}, "ca: no such file"},
		{"an authority that is rubbish", func(t *testing.T, o *Options) {
			o.TLS.Mode, o.TLS.Clients, o.TLS.ClientCA = tlsRequire, clientsCA, filepath.Join(t.TempDir(), "ca")
			text := append(encode(selfSigned(t, "P-256", nil)), tlskey.EncodeCertificate([]byte("rubbish"))...)
			write(t, "", o.TLS.ClientCA, string(text))
		}, "x509: malformed certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, _ := tlsOptions(t.TempDir())
			given(t, &o, selfSigned(t, "P-256", nil))
			tc.spoil(t, &o)
			if s, err := Open(t.Context(), o); s != nil || err == nil || !strings.Contains(err.Error(), tc.want) || Hint(err) != "" {
				t.Errorf("Open: %v, %v, want %q; hint %q", s, err, tc.want, Hint(err))
			}
			if made, err := os.ReadDir(o.Dir); len(made) != 0 || err != nil {
				t.Errorf("made %v, %v", made, err)
			}
		})
	}
}

// A certificate out of its time, and a key that others can read, are served with a
// warning.
func TestGivenPairWithWarnings(t *testing.T) {
	o, logged := tlsOptions(t.TempDir())
	key := newKey(t, "P-256")
	a := &authority{t: t, key: key}
	given(t, &o, a.sign(&x509.Certificate{NotAfter: time.Now().Add(-time.Hour)}, key))
	if err := os.Chmod(o.TLS.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	shown(t, protect(t, o))
	if logged.FilterMessage("the TLS certificate is not valid at this time").Len() != 1 {
		t.Errorf("logged %v", logged.All())
	}
	if n := logged.FilterMessage("the file of the TLS key is open to others").Len(); n != 1 && runtime.GOOS != "windows" {
		t.Errorf("logged %v", logged.All())
	}
}

// TLS 1.3 alone is spoken, without tickets, and inside of it Sealift's protocol alone,
// to clients that name it or none.
func TestHandshakes(t *testing.T) {
	o, _ := tlsOptions(t.TempDir())
	p := protect(t, o)
	for _, tc := range []struct {
		name   string
		client func(c *tls.Config)
		alpn   string
		failed string // why
	}{
		{"without a protocol", func(*tls.Config) {}, "", ""},
		{"with ours", func(c *tls.Config) { c.NextProtos = []string{tlskey.ALPN} }, tlskey.ALPN, ""},
		{"with the one that continues files", func(c *tls.Config) { c.NextProtos = []string{tlskey.ALPNContinue} }, tlskey.ALPNContinue, ""},
		{"with both, ours first", func(c *tls.Config) { c.NextProtos = []string{tlskey.ALPN, tlskey.ALPNContinue} }, tlskey.ALPNContinue, ""},
		{"with ours among others", func(c *tls.Config) { c.NextProtos = []string{"h2", tlskey.ALPN} }, tlskey.ALPN, ""},
		{"with others", func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }, "", "unsupported application protocols"},
		{"TLS 1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, "", "unsupported versions"},
		{"an old curve", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := anyServer()
			tc.client(c)
			seen, ch, err := handshake(t, p, c)
			if tc.failed != "" {
				if err == nil || !strings.Contains(err.Error(), tc.failed) {
					t.Errorf("shaken hands: %v, want %q", err, tc.failed)
				}
				return
			}
			if err != nil || seen.Version != tls.VersionTLS13 || seen.NegotiatedProtocol != tc.alpn || ch != (session.Channel{TLS: true, Server: p.serve.Load().fingerprint}) {
				t.Errorf("shaken hands: %v, version %x, protocol %q, %+v", err, seen.Version, seen.NegotiatedProtocol, ch)
			}
			if c.CurvePreferences == nil && seen.CurveID != tls.X25519MLKEM768 {
				t.Errorf("the keys were exchanged by %v", seen.CurveID)
			}
		})
	}
	cache := &tickets{}
	c := anyServer()
	c.ClientSessionCache, c.ServerName = cache, "name"
	if _, _, err := handshake(t, p, c); err != nil || cache.got {
		t.Errorf("shaken hands: %v; the client got a ticket: %v", err, cache.got)
	}
}

// tickets notes whether there is one.
type tickets struct{ got bool }

func (*tickets) Get(string) (*tls.ClientSessionState, bool)    { return nil, false }
func (s *tickets) Put(_ string, state *tls.ClientSessionState) { s.got = s.got || state != nil }

// What is in a client's certificate reaches the session as --tls-clients says.
func TestClientCertificates(t *testing.T) {
	rsaKey, err := keys.Generate()
	if err != nil {
		t.Fatal(err)
	}
	claim, err := tlskey.NewClaim(rsaKey, [16]byte{1}, tlskey.Fingerprint{1}, tlskey.Fingerprint{2})
	if err != nil {
		t.Fatal(err)
	}
	plain, claiming, curve := selfSigned(t, "Ed25519", nil), selfSigned(t, "Ed25519", claim), selfSigned(t, "P-256", nil)
	a, stranger := newAuthority(t), newAuthority(t)
	cn := func(name string) *x509.Certificate { return &x509.Certificate{Subject: pkix.Name{CommonName: name}} }
	nonsense := a.client("Ed25519", &x509.Certificate{ExtraExtensions: []pkix.Extension{{Id: []int{2, 25, 1740812963, 1}, Value: []byte("x")}}})
	for _, tc := range []struct {
		clients, name string
		cert          *tls.Certificate
		want          session.Channel // without Server and TLS
		failed        string
	}{
		{clientsPin, "no certificate", nil, session.Channel{}, ""},
		{clientsPin, "an Ed25519 key", &plain, session.Channel{Client: tlskey.Of(plain.Leaf)}, ""},
		{clientsPin, "with a claim", &claiming, session.Channel{Client: tlskey.Of(claiming.Leaf), Claim: claim}, ""},
		{clientsPin, "a key of another kind", &curve, session.Channel{}, ""},
		{clientsPin, "a claim that is nonsense", &nonsense, session.Channel{}, "makes no sense"},
		{clientsAny, "an Ed25519 key", &plain, session.Channel{}, ""},
		{clientsAny, "no certificate", nil, session.Channel{}, ""},
		{clientsCA, "no certificate", nil, session.Channel{}, "didn't provide a certificate"},
		{clientsCA, "self-signed", &plain, session.Channel{}, "signed by unknown authority"},
		{clientsCA, "a common name", new(a.client("RSA", cn("Ada Lovelace"))), session.Channel{Name: "Ada Lovelace"}, ""},
		{clientsCA, "a common name over an Ed25519 key", new(a.client("Ed25519", cn("ada"))), session.Channel{Name: "ada"}, ""},
		{clientsCA, "a DNS name", new(a.client("P-256", &x509.Certificate{DNSNames: []string{"ada", "b"}})), session.Channel{Name: "ada"}, ""},
		{clientsCA, "both names", new(a.client("P-256", &x509.Certificate{
			Subject: pkix.Name{CommonName: "ada"}, DNSNames: []string{"b"},
		})), session.Channel{Name: "ada"}, ""},
		{clientsCA, "no name", new(a.client("P-256", &x509.Certificate{})), session.Channel{}, "the name in the client's certificate"},
		{clientsCA, "of another authority", new(stranger.client("P-256", cn("ada"))), session.Channel{}, "unknown authority"},
		{clientsCA, "out of its time", new(a.client("P-256", &x509.Certificate{
			Subject: pkix.Name{CommonName: "ada"}, NotAfter: time.Now().Add(-time.Minute),
		})), session.Channel{}, "expired"},
	} {
		t.Run(tc.clients+", "+tc.name, func(t *testing.T) {
			o, _ := tlsOptions(t.TempDir())
			o.TLS.Mode, o.TLS.Clients = tlsRequire, tc.clients
			most := maxKeyCertificate
			if tc.clients == clientsCA {
				o.TLS.ClientCA, most = filepath.Join(t.TempDir(), "ca"), maxChainCertificate
				write(t, "", o.TLS.ClientCA, string(tlskey.EncodeCertificate(a.cert.Raw)))
			}
			p := protect(t, o)
			if got := p.options(); !got.Require || got.MaxCertificate != most {
				t.Errorf("options %+v", got)
			}
			client := anyServer()
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if tc.cert == nil {
					return new(tls.Certificate), nil
				}
				return tc.cert, nil
			}
			_, ch, err := handshake(t, p, client)
			if tc.failed != "" {
				if err == nil || !strings.Contains(err.Error(), tc.failed) {
					t.Errorf("shaken hands: %v, want %q", err, tc.failed)
				}
				return
			}
			tc.want.TLS, tc.want.Server = true, p.serve.Load().fingerprint
			if got, want := fmt.Sprintf("%+v", deref(ch)), fmt.Sprintf("%+v", deref(tc.want)); err != nil || got != want {
				t.Errorf("shaken hands: %v\n%s, want\n%s", err, got, want)
			}
		})
	}
}

// deref is ch for printing: with the claim in the place of its address.
func deref(ch session.Channel) any {
	var claim tlskey.Claim
	if ch.Claim != nil {
		claim = *ch.Claim
	}
	ch.Claim = nil
	return []any{ch, claim}
}

// TLS that is off makes nothing, and tells the loops nothing.
func TestOff(t *testing.T) {
	o := options(t.TempDir())
	s := open(t, o)
	if s.tls != nil || s.tls.options() != nil {
		t.Error("a server without TLS protects connections")
	}
	if _, err := os.Stat(filepath.Join(o.Dir, pairFolder)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a folder tls: %v", err)
	}
}
