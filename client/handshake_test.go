package client_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sealift/client"
	"sealift/crypto/tlskey"
	"sealift/internal/fakeserver"
)

// peer starts a server that does that with each connection, and returns its address and
// how many connections there were.
func peer(t *testing.T, serve func(nc net.Conn)) (addr string, count *atomic.Int32) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	count = new(atomic.Int32)
	over := make(chan struct{})
	t.Cleanup(func() { close(over); ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			go func() {
				defer nc.Close()
				serve(nc)
			}()
			context.AfterFunc(t.Context(), func() { nc.Close() })
		}
	}()
	return ln.Addr().String(), count
}

// hello reads the beginning of what a client sends.
func hello(nc net.Conn) { _, _ = io.ReadFull(nc, make([]byte, 100)) }

// What can answer a ClientHello instead of a handshake, whether it is asked again, and
// what the error says. Nothing ever goes out in the clear.
func TestHandshakesThatFail(t *testing.T) {
	old := func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS12 }
	demanding := func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool() }
	otherProtocol := func(c *tls.Config) { c.NextProtos = []string{"h2"} }
	for _, tc := range []struct {
		name  string
		serve func(nc net.Conn)
		tls   func(*tls.Config)
		again bool // it is asked again, as often as Options says
		says  string
	}{
		{"closes", func(nc net.Conn) { hello(nc) }, nil, true, "the server ends the connection in the TLS handshake; does it speak TLS?"},
		{"closes at once", func(nc net.Conn) {}, nil, true, "the server ends the connection in the TLS handshake; does it speak TLS?"},
		{"1607", func(nc net.Conn) { nc.Write(fakeserver.GeneralError); hello(nc) }, nil, true, "a plain 1607: it is full, or does not speak TLS"},
		{"another reply", func(nc net.Conn) { nc.Write([]byte{3, 0x41, 6, 0, 0, 0, 0}); hello(nc) }, nil, false, "the server does not speak TLS"},
		{"text", func(nc net.Conn) { nc.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n")); hello(nc) }, nil, false, "the server does not speak TLS"},
		{"silence", func(nc net.Conn) { io.Copy(io.Discard, nc) }, nil, true, "no answer to the TLS handshake; does the server speak TLS?"},
		{"TLS 1.2", nil, old, false, "the server does not speak TLS 1.3"},
		{"a protocol of its own", nil, otherProtocol, false, `the server refuses it with "no application protocol"`},
		{"wants a certificate of an authority", nil, demanding, false, `refuses our certificate with "`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHome(t)
			var addr string
			var count *atomic.Int32
			key := anotherKey
			if tc.serve != nil {
				addr, count = peer(t, tc.serve)
			} else {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				counting := &countingListener{Listener: ln}
				s := securedOn(t, counting, tc.tls)
				addr, count, key = s.Addr, &counting.n, s.key
			}
			o := h.options(addr)
			o.TLS.Fingerprints = []client.Fingerprint{key}
			o.Retries, o.Backoff, o.DialTimeout = 2, func(int) time.Duration { return 0 }, 10*time.Second
			if tc.name == "silence" {
				o.DialTimeout = 50 * time.Millisecond
			}
			err := run(t, o)
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("%v, want %q", err, tc.says)
			}
			want := int32(1)
			if tc.again {
				want = 3
			}
			if n := count.Load(); n != want {
				t.Errorf("%d connections, want %d", n, want)
			}
			if client.Temporary(err) != tc.again || errors.Is(err, client.ErrTLS) == tc.again {
				t.Errorf("temporary %t, ErrTLS %t: %v", client.Temporary(err), errors.Is(err, client.ErrTLS), err)
			}
			if strings.Contains(tc.name, "authority") {
				return // a client hears of that after the handshake
			}
			h.has(t, "")
		})
	}
}

// countingListener counts connections.
type countingListener struct {
	net.Listener
	n atomic.Int32
}

func (l *countingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return nc, err
}

// A handshake that never ends is over with the context, at the first contact too.
func TestHandshakeEndsWithItsContext(t *testing.T) {
	for _, first := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		addr, _ := peer(t, func(nc net.Conn) {
			hello(nc)
			cancel()
			io.Copy(io.Discard, nc)
		})
		o := newHome(t).options(addr)
		if first {
			o.TLS.TrustFirst = true
		} else {
			o.TLS.Fingerprints = []client.Fingerprint{anotherKey}
		}
		if _, err := client.Dial(ctx, o); !errors.Is(err, context.Canceled) {
			t.Errorf("first contact %t: %v", first, err)
		}
	}
}

// While somebody is asked about a key no connection is open, and the wait ends with the
// context.
func TestAskEndsWithItsContext(t *testing.T) {
	s, h := newSecured(t, nil), newHome(t)
	stuck := newStuck(t)
	o := h.options(s.Addr)
	o.TLS.Mode = client.TLSOn
	o.TLS.Ask = func(context.Context, string, client.Fingerprint) error { stuck.wait(); return nil }
	cancelled(t, stuck, func(ctx context.Context) error {
		_, err := client.Dial(ctx, o)
		return err
	})
	h.has(t, "")
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue makes a certificate for a server at ip or with that name.
func (a *authority) issue(t *testing.T, name string, ip net.IP) tls.Certificate {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if name != "" {
		template.DNSNames = []string{name}
	}
	if ip != nil {
		template.IPAddresses = []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// With authorities the chain and the host name count, no key is remembered, and one that
// is remembered says nothing.
func TestAuthorities(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	loopback := net.IPv4(127, 0, 0, 1)
	for _, tc := range []struct {
		name   string
		cert   tls.Certificate
		says   string // "": it works
		config *tls.Config
	}{
		{"right", ours.issue(t, "", loopback), "", nil},
		{"another host", ours.issue(t, "files.example.org", nil), "its certificate is not good: x509: cannot validate certificate for 127.0.0.1", nil},
		{"another authority", other.issue(t, "", loopback), "its certificate is not good: x509: certificate signed by unknown authority", nil},
		{"a configuration of the caller's", ours.issue(t, "files.example.org", nil), "", &tls.Config{RootCAs: ours.pool(), ServerName: "files.example.org"}},
		{"a configuration that refuses", ours.issue(t, "files.example.org", nil), "wrong day", &tls.Config{
			RootCAs: ours.pool(), ServerName: "files.example.org",
			VerifyConnection: func(tls.ConnectionState) error { return errors.New("wrong day") },
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, h := newSecured(t, func(c *tls.Config) { c.Certificates = []tls.Certificate{tc.cert} }), newHome(t)
			known := s.Addr + " tls=" + anotherKey.String() + "\n"
			h.put(t, known)
			o := h.options(s.Addr)
			o.TLS.Roots = ours.pool()
			if tc.config != nil {
				o.TLS.Roots, o.TLS.Config = nil, tc.config
			}
			err := run(t, o)
			if tc.says == "" && err != nil || tc.says != "" && (!errors.Is(err, client.ErrTLS) || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("%v, want %q", err, tc.says)
			}
			if got := s.Sequence(); tc.says != "" && strings.ContainsAny(got, "0123456789") {
				t.Errorf("the server heard %q", got)
			}
			h.has(t, known)
			if tc.says != "" {
				return
			}
			if err := run(t, o); err != nil { // as who is registered
				t.Fatal(err)
			}
			shown := s.handshakes()
			cert, err := x509.ParseCertificate(tc.cert.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			checkClaim(t, h, shown[len(shown)-1], tlskey.Of(cert))
		})
	}
}

// checkClaim makes sure that a client that lives in h has claimed its id at a server.
func checkClaim(t *testing.T, h home, st tls.ConnectionState, server client.Fingerprint) {
	t.Helper()
	if len(st.PeerCertificates) != 1 {
		t.Fatalf("%d certificates", len(st.PeerCertificates))
	}
	claim, err := tlskey.ClaimOf(st.PeerCertificates[0])
	if err != nil || claim == nil {
		t.Fatalf("claim %v, %v", claim, err)
	}
	me, err := client.IdentityFile(h.me).Load()
	if err != nil {
		t.Fatal(err)
	}
	if err := claim.Verify(&me.Key.PublicKey, server, tlskey.Of(st.PeerCertificates[0])); err != nil || claim.ID != me.ID {
		t.Errorf("claim for %v: %v", claim.ID, err)
	}
}

// clogged is a connection that can be made to take nothing more.
type clogged struct {
	net.Conn
	full, closed chan struct{}
	once         *sync.Once
}

func (c clogged) Write(b []byte) (int, error) {
	select {
	case <-c.full:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return c.Conn.Write(b)
	}
}

func (c clogged) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A close does not wait for a server that takes nothing more.
func TestCloseDoesNotWait(t *testing.T) {
	s, o := newSecured(t, nil), client.Options{}
	full := make(chan struct{})
	o.Server, o.TLS.Fingerprints = s.Addr, []client.Fingerprint{s.key}
	o.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, address)
		return clogged{nc, full, make(chan struct{}), new(sync.Once)}, err
	}
	c, err := client.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	close(full)
	c.Close()
}

// reading counts what is read.
type reading struct {
	net.Conn
	n int
}

func (r *reading) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.n += n
	return n, err
}

// The end of a connection is told to the server (close_notify), so that it is none that
// was cut.
func TestCloseIsTold(t *testing.T) {
	key, err := tlskey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tlskey.SelfSigned(key, "server", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	shaken, ends := make(chan int, 1), make(chan int, 1)
	addr, _ := peer(t, func(nc net.Conn) {
		r := &reading{Conn: nc}
		tc := tls.Server(r, &tls.Config{Certificates: []tls.Certificate{cert}})
		if err := tc.Handshake(); err != nil {
			t.Error(err)
		}
		shaken <- r.n
		if _, err := tc.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the server reads %v", err)
		}
		ends <- r.n
	})
	o := newHome(t).options(addr)
	o.TLS.Fingerprints = []client.Fingerprint{tlskey.Of(cert.Leaf)}
	c, err := client.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	before := <-shaken
	c.Close()
	if more := <-ends - before; more == 0 {
		t.Error("the server hears nothing of the end")
	}
}

// elsewhere is a connection that seems to go from one address to another.
type elsewhere struct {
	net.Conn
	from, to string
}

func (e elsewhere) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.ParseIP(e.from), Port: 1} }
func (e elsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(e.to), Port: 2} }

// A plain connection to another machine is told of, once.
func TestPlainConnectionsAreToldOf(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		tls      bool
		told     int
	}{
		{"192.0.2.1", "192.0.2.2", false, 1},
		{"192.0.2.1", "192.0.2.2", true, 0},
		{"192.0.2.1", "192.0.2.1", false, 0},
		{"127.0.0.1", "127.0.0.1", false, 0},
		{"::1", "::1", false, 0},
	} {
		var s *fakeserver.Server
		var log strings.Builder
		o := client.Options{Name: "n"}
		if tc.tls {
			secured := newSecured(t, nil)
			s, o.TLS.Fingerprints = secured.Server, []client.Fingerprint{secured.key}
		} else {
			s = fakeserver.New(t)
		}
		s.CloseAfterAck = true
		o.Server = s.Addr
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		o.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, address)
			return elsewhere{nc, tc.from, tc.to}, err
		}
		if err := run(t, o, "a", "b"); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(log.String(), "the connection is not protected"); n != tc.told {
			t.Errorf("%+v: told %d times: %s", tc, n, &log)
		}
	}
}
