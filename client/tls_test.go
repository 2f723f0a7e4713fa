package client_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf16"

	"sealift/client"
	"sealift/codec"
	"sealift/crypto/tlskey"
	"sealift/internal/fakeserver"
	"sealift/internal/infofile"
)

// secured is a fake server behind TLS.
type secured struct {
	*fakeserver.Server
	key tlskey.Fingerprint

	mu    sync.Mutex
	shown []tls.ConnectionState // of each handshake that came to its end
	more  sync.Cond             // with mu: another has
}

// newSecured starts one with a key of its own. change, which may be nil, changes its
// configuration.
func newSecured(t *testing.T, change func(*tls.Config)) *secured {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return securedOn(t, ln, change)
}

func securedOn(t *testing.T, ln net.Listener, change func(*tls.Config)) *secured {
	t.Helper()
	s := new(secured)
	s.more.L = &s.mu
	s.Server, s.key = fakeserver.OverTLSOn(t, ln, func(c *tls.Config) {
		c.VerifyConnection = func(st tls.ConnectionState) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.shown = append(s.shown, st)
			s.more.Broadcast()
			return nil
		}
		if change != nil {
			change(c)
		}
	})
	return s
}

// handshakes returns what clients have shown, one for each handshake.
func (s *secured) handshakes() []tls.ConnectionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]tls.ConnectionState(nil), s.shown...)
}

// await waits until there were n of them: a client's handshake ends before the server's.
func (s *secured) await(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.shown) < n {
		s.more.Wait()
	}
}

// home is where a client keeps things.
type home struct{ dir, known, me, key string }

func newHome(t *testing.T) home {
	dir := t.TempDir()
	return home{dir, filepath.Join(dir, "known_servers"), filepath.Join(dir, "me.info"), filepath.Join(dir, "me.key")}
}

// options are those of a client that lives there.
func (h home) options(server string) client.Options {
	return client.Options{
		Server: server, Name: "Michael Jackson", Retries: -1,
		Known: client.KnownServersFile(h.known), Identity: client.IdentityFile(h.me),
	}
}

// put writes known_servers.
func (h home) put(t *testing.T, known string) {
	t.Helper()
	if err := os.WriteFile(h.known, []byte(known), 0o600); err != nil {
		t.Fatal(err)
	}
}

// has makes sure that known_servers holds that; "": it is not there.
func (h home) has(t *testing.T, known string) {
	t.Helper()
	got, err := os.ReadFile(h.known)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if string(got) != known {
		t.Errorf("known_servers holds %q, want %q", got, known)
	}
}

// run sends a small file in a Run of its own.
func run(t *testing.T, o client.Options, names ...string) error {
	t.Helper()
	dir := t.TempDir()
	var files []client.File
	for _, name := range append(names, "f") {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pattern(1000), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, client.File{Path: path})
	}
	_, err := client.Run(t.Context(), o, files, nil)
	return err
}

var anotherKey = tlskey.Fingerprint{1, 2, 3}

// Whom a client trusts, what it remembers, and that an untrusted server hears nothing.
func TestTrust(t *testing.T) {
	yes := func(context.Context, string, client.Fingerprint) error { return nil }
	no := func(context.Context, string, client.Fingerprint) error { return errors.New("said no") }
	type settings = client.TLS
	const sent = "conn 1025 1026 1028 1029"
	for _, tc := range []struct {
		name  string
		tls   func(key client.Fingerprint) settings
		known string // of the server: KEY is its key, OTHER another one
		heard string // by the server; "": nothing but connections
		after string // in known_servers
		err   error
		says  string // the error
	}{
		{"known", func(client.Fingerprint) settings { return settings{} }, "KEY", sent, "KEY", nil, ""},
		{"known, and on", func(client.Fingerprint) settings { return settings{Mode: client.TLSOn} }, "KEY", sent, "KEY", nil, ""},
		{"known, and off", func(client.Fingerprint) settings { return settings{Mode: client.TLSOff} }, "KEY", "", "KEY", client.ErrProtected, "known with TLS"},
		{"changed", func(client.Fingerprint) settings { return settings{} }, "OTHER", "", "OTHER", client.ErrServerKey, "has changed: it is KEY, and was OTHER"},
		{"changed, trust first", func(client.Fingerprint) settings { return settings{TrustFirst: true} }, "OTHER", "", "OTHER", client.ErrServerKey, "has changed"},
		{"changed, and asked", func(client.Fingerprint) settings { return settings{Ask: yes} }, "OTHER", "", "OTHER", client.ErrServerKey, "has changed"},
		{"changed, with the new key", func(k client.Fingerprint) settings {
			return settings{Fingerprints: []client.Fingerprint{k}}
		}, "OTHER", sent, "KEY", nil, ""},
		{"known, with another key", func(client.Fingerprint) settings {
			return settings{Fingerprints: []client.Fingerprint{anotherKey}}
		}, "KEY", "", "KEY", client.ErrServerKey, "is KEY, and not OTHER"},
		{"new", func(client.Fingerprint) settings { return settings{Mode: client.TLSOn} }, "", "", "", client.ErrServerKey, "not known yet; the server has KEY"},
		{"new, trust first", func(client.Fingerprint) settings { return settings{TrustFirst: true} }, "", "conn " + sent, "KEY", nil, ""},
		{"new, and asked", func(client.Fingerprint) settings { return settings{Mode: client.TLSOn, Ask: yes} }, "", "conn " + sent, "KEY", nil, ""},
		{"new, and refused", func(client.Fingerprint) settings { return settings{Mode: client.TLSOn, Ask: no} }, "", "", "", client.ErrServerKey, "not trusted: said no"},
		{"new, with its key", func(k client.Fingerprint) settings {
			return settings{Fingerprints: []client.Fingerprint{anotherKey, k}}
		}, "", sent, "KEY", nil, ""},
		{"new, with another key", func(client.Fingerprint) settings {
			return settings{Fingerprints: []client.Fingerprint{anotherKey}}
		}, "", "", "", client.ErrServerKey, "is KEY, and not OTHER"},
		{"rubbish", func(client.Fingerprint) settings { return settings{} }, "SHA256:x", "", "SHA256:x", nil, "cannot be told"},
		{"two ways", func(k client.Fingerprint) settings {
			return settings{Fingerprints: []client.Fingerprint{k}, TrustFirst: true}
		}, "", "", "", nil, "TLS takes one of"},
		{"settings, and off", func(client.Fingerprint) settings {
			return settings{Mode: client.TLSOff, TrustFirst: true}
		}, "", "", "", nil, "TLS is off"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, h := newSecured(t, nil), newHome(t)
			names := strings.NewReplacer("KEY", s.key.String(), "OTHER", anotherKey.String())
			file := func(key string) string {
				if key == "" {
					return ""
				}
				return fmt.Sprintf("# mine\nother:1 codes=825\n%s x=y tls=%s\n", s.Addr, names.Replace(key))
			}
			h.put(t, file(tc.known))
			if tc.known == "" {
				h.put(t, fmt.Sprintf("# mine\nother:1 codes=825\n%s x=y\n", s.Addr))
			}
			o := h.options(s.Addr)
			o.TLS = tc.tls(s.key)
			err := run(t, o)
			if got := s.Sequence(); got != tc.heard && (tc.heard != "" || strings.ContainsAny(got, "0123456789")) {
				t.Errorf("the server heard %q, want %q", got, tc.heard)
			}
			if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), names.Replace(tc.says))) {
				t.Errorf("%v, want %q", err, names.Replace(tc.says))
			}
			if tc.err != nil && !errors.Is(err, tc.err) || client.Temporary(err) {
				t.Errorf("%v, want %v, for good", err, tc.err)
			}
			if tc.after == "" {
				h.has(t, fmt.Sprintf("# mine\nother:1 codes=825\n%s x=y\n", s.Addr))
			} else {
				h.has(t, file(tc.after))
			}
		})
	}
}

// A key is not overlooked because its line is odd, or is not the first one.
func TestKeysInOddLines(t *testing.T) {
	key, other := "tls="+tlskey.Fingerprint{7}.String(), "tls="+anotherKey.String()
	for _, tc := range []struct {
		file string
		says string // "": the key is known
		none bool
	}{
		{"h:1 " + key + "\n", "", false},
		{"h:1 " + key + " # told by phone\n", "", false},
		{"\ufeffH:1 " + key + " codes\r\n", "", false},
		{"h:1 codes=825\nh:1 " + key, "", false},
		{"h:1 " + key + " " + other, "several keys", false},
		{"h:1 " + key + "\nh:1 " + other, "several keys", false},
		{"h:1 tls=", "tls=: fingerprint", false},
		{"h:1 tls", "tls=: fingerprint", false},
		{utf16File("h:1 " + key + "\r\n"), "", false},
		{utf16File("h:1 " + key + "\r\n")[2:], "", false},
		{"#h:1 " + key + "\n# h:1 " + key + "\nh:2 " + key + "\nh:1 xtls=" + key, "", true},
	} {
		h := newHome(t)
		h.put(t, tc.file)
		got, err := client.KnownServersFile(h.known).(client.KnownKeys).LoadKey("h:1")
		if tc.says == "" && (err != nil || got.IsZero() != tc.none) || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%q: %v, %v, want %q", tc.file, got, err, tc.says)
		}
	}
}

// utf16File is a file as shells and editors of Windows write it.
func utf16File(text string) string {
	b := []byte{0xff, 0xfe}
	for _, c := range utf16.Encode([]rune(text)) {
		b = append(b, byte(c), byte(c>>8))
	}
	return string(b)
}

// The address alone says that connections are protected, and by which key.
func TestTLSByAddress(t *testing.T) {
	s, h := newSecured(t, nil), newHome(t)
	if err := run(t, h.options("tls://"+s.Addr)); !errors.Is(err, client.ErrServerKey) {
		t.Error(err)
	}
	if err := run(t, h.options("tls://"+s.Addr+"#"+anotherKey.String())); !errors.Is(err, client.ErrServerKey) {
		t.Error(err)
	}
	h.has(t, "")
	host, port, _ := net.SplitHostPort(s.Addr)
	for _, server := range []string{"tls://" + s.Addr + "#" + s.key.String(), "tls://" + s.Addr, "TLS://" + s.Addr, s.Addr, host + ":0" + port} {
		if err := run(t, h.options(server)); err != nil {
			t.Errorf("%s: %v", server, err)
		}
		h.has(t, fmt.Sprintf("%s tls=%v\n", s.Addr, s.key))
	}
	for _, bad := range []string{"tls://", "tls://h:1#", "tls://h:1#x", "h:1#" + s.key.String(), "tls://h:1/x"} {
		if at, err := client.ParseServer(bad); err == nil {
			t.Errorf("%s is read as %+v", bad, at)
		}
	}
}

// At a first contact nothing is sent, and no certificate shown, before the key is kept.
func TestKeyIsKeptFirst(t *testing.T) {
	s, h := newSecured(t, nil), newHome(t)
	for _, tc := range []struct {
		what  string
		known client.KnownServers
		tls   client.TLS
		says  string
	}{
		{"nowhere, trust first", nil, client.TLS{TrustFirst: true}, "keeps no keys"},
		{"in a file that keeps nothing", client.KnownServersFile(os.DevNull), client.TLS{TrustFirst: true}, "keeps nothing"},
		{"below a file", client.KnownServersFile(filepath.Join(os.Args[0], "known")), client.TLS{TrustFirst: true}, "cannot be kept"},
		{"below a file, with the key", client.KnownServersFile(filepath.Join(os.Args[0], "known")), client.TLS{Fingerprints: []client.Fingerprint{s.key}}, "cannot be kept"},
	} {
		o := h.options(s.Addr)
		o.Known, o.TLS = tc.known, tc.tls
		if err := run(t, o); err == nil || !strings.Contains(err.Error(), tc.says) || client.Temporary(err) {
			t.Errorf("%s: %v, want %q", tc.what, err, tc.says)
		}
	}
	if got := s.Sequence(); strings.ContainsAny(got, "0123456789") {
		t.Errorf("the server heard %q", got)
	}
	for _, known := range []client.KnownServers{nil, client.KnownServersFile(os.DevNull)} {
		o := h.options(s.Addr)
		o.Known, o.TLS.Fingerprints = known, []client.Fingerprint{s.key}
		if err := run(t, o); err != nil {
			t.Error(err) // the key need not be kept: it is told each time
		}
	}
}

// The first contact shows nothing of the client; then it shows its key, the same each
// time, and once it is registered a claim that holds for this server alone.
func TestClientCertificate(t *testing.T) {
	s, h := newSecured(t, nil), newHome(t)
	o := h.options(s.Addr)
	o.TLS.TrustFirst = true
	for range 2 {
		if err := run(t, o); err != nil {
			t.Fatal(err)
		}
	}
	key, err := infofile.ReadTLSKey(h.key)
	if err != nil {
		t.Fatal(err)
	}
	own, err := tlskey.FingerprintOf(key)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(h.key); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	me, err := infofile.ReadMe(h.me)
	if err != nil {
		t.Fatal(err)
	}
	shown := s.handshakes()
	if len(shown) != 3 {
		t.Fatalf("%d handshakes", len(shown))
	}
	if n := len(shown[0].PeerCertificates); n != 0 {
		t.Errorf("the first contact shows %d certificates", n)
	}
	for i, st := range shown[1:] {
		if len(st.PeerCertificates) != 1 || tlskey.Of(st.PeerCertificates[0]) != own {
			t.Fatalf("handshake %d shows %d certificates, or another key", i+1, len(st.PeerCertificates))
		}
		if st.Version != tls.VersionTLS13 || st.NegotiatedProtocol != tlskey.ALPN || st.DidResume {
			t.Errorf("handshake %d: %x, %q", i+1, st.Version, st.NegotiatedProtocol)
		}
	}
	if c, err := tlskey.ClaimOf(shown[1].PeerCertificates[0]); c != nil || err != nil {
		t.Errorf("claim %v, %v before it has registered", c, err)
	}
	c, err := tlskey.ClaimOf(shown[2].PeerCertificates[0])
	if err != nil || c == nil || c.ID != me.ID {
		t.Fatalf("claim %v, %v; want one for %v", c, err, me.ID)
	}
	if err := c.Verify(&me.Key.PublicKey, s.key, own); err != nil {
		t.Error(err)
	}
	if err := c.Verify(&me.Key.PublicKey, anotherKey, own); err == nil {
		t.Error("the claim holds for another server")
	}
}

// A client that has to register again goes on with its key, and claims the new id on the
// next connection. So does one that is told by hand who it is.
func TestClaimOfTheIdentityInUse(t *testing.T) {
	s, h := newSecured(t, nil), newHome(t)
	s.CloseAfterAck = true
	o := h.options(s.Addr)
	o.TLS.Fingerprints = []client.Fingerprint{s.key}
	o.Retries = 1 // the end of the first connection may come after the second file has been begun
	old := login(t, o).Identity()
	s.ForgetClients()
	s.ForgetName(old.Name)
	c := login(t, o)
	now := c.Identity()
	if now.ID == old.ID {
		t.Fatal("it has not registered again")
	}
	if got, want := s.Sequence(), "conn 1025 1026 conn 1027 1025 1026"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
	for range 2 {
		if _, err := send(c, "f", pattern(1000)); err != nil {
			t.Fatal(err)
		}
	}
	byHand := h.options(s.Addr)
	byHand.TLS = o.TLS
	byHand.Identity = client.IdentityFile(filepath.Join(h.dir, "who.info"))
	d, err := client.Dial(t.Context(), byHand)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s.await(4)
	if err := d.Reconnect(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	var claims []string
	for _, st := range s.handshakes() {
		c, err := tlskey.ClaimOf(st.PeerCertificates[0])
		switch {
		case err != nil:
			t.Error(err)
		case c == nil:
			claims = append(claims, "none")
		case c.ID == old.ID:
			claims = append(claims, "old")
		case c.ID == now.ID:
			claims = append(claims, "new")
		}
	}
	if got, want := strings.Join(claims, " "), "none old new none new"; got != want {
		t.Errorf("claims %q, want %q", got, want)
	}
	if _, err := os.Stat(filepath.Join(h.dir, "who.key")); err != nil {
		t.Error(err)
	}
}

// A me.key that is no key, or cannot be read, is an error, and stays as it is; the
// server hears nothing.
func TestOwnKeyThatIsNone(t *testing.T) {
	s := newSecured(t, nil)
	for what, spoil := range map[string]func(path string) error{
		"empty":    func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"rubbish":  func(path string) error { return os.WriteFile(path, []byte("rubbish\n"), 0o600) },
		"a folder": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		h := newHome(t)
		if err := spoil(h.key); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(h.key)
		o := h.options(s.Addr)
		o.TLS.Fingerprints = []client.Fingerprint{s.key}
		if err := run(t, o); err == nil || !strings.Contains(err.Error(), "the client's TLS key: "+h.key) || client.Temporary(err) {
			t.Errorf("%s: %v", what, err)
		}
		if after, _ := os.ReadFile(h.key); !bytes.Equal(before, after) {
			t.Errorf("%s: it holds %q", what, after)
		}
	}
	if got := s.Sequence(); got != "" {
		t.Errorf("the server heard %q", got)
	}
}

// Clients that start at once make one key.
func TestOneKeyForAll(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	made := make([]ed25519.PrivateKey, 8)
	for i := range made {
		wg.Go(func() {
			store := client.IdentityFile(filepath.Join(dir, "me.info")).(client.TLSKeyStore)
			key, err := store.TLSKey(t.Context())
			if err != nil {
				t.Error(err)
			}
			made[i] = key
		})
	}
	wg.Wait()
	for _, key := range made {
		if !key.Equal(made[0]) {
			t.Error("two keys")
		}
	}
}

// All connections are protected: those beside the first, and those in the place of one
// that is lost.
func TestEveryConnectionIsProtected(t *testing.T) {
	s, h := newSecured(t, nil), newHome(t)
	s.CloseAfterAck = true
	o := h.options(s.Addr)
	o.TLS.Fingerprints = []client.Fingerprint{s.key}
	o.Parallel = 3
	if err := run(t, o, "a", "b", "c", "d", "e"); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.Names(), " "); got != "a b c d e f" {
		t.Errorf("stored %q", got)
	}
	if n := strings.Count(s.Sequence(), "conn"); n < 4 || n != len(s.handshakes()) {
		t.Errorf("%d connections, %d handshakes", n, len(s.handshakes()))
	}
}

// So are those that find out how the server numbers requests.
func TestProbesAreProtected(t *testing.T) {
	s, h := newSecured(t, nil), newHome(t)
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodeRegister && m.N == 1 {
			s.ForgetName(m.Name)
			return nil
		}
		return right
	}
	o := h.options(s.Addr)
	o.TLS.Fingerprints = []client.Fingerprint{s.key}
	o.Codes, o.Retries = client.AutoCodes, 3
	if err := run(t, o); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Sequence(), "conn 1025 conn 1027 conn 1025 1026 1028 1029"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
}

// A server that comes back with another key in the middle of a Run ends it: nothing more
// is sent to it, and no other file is tried.
func TestKeyThatChangesInARun(t *testing.T) {
	otherKey, err := tlskey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	other, err := tlskey.SelfSigned(otherKey, "other", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var connections atomic.Int32
	s := newSecured(t, func(c *tls.Config) {
		first := c.Certificates[0]
		c.Certificates = nil
		c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if connections.Add(1) == 1 {
				return &first, nil
			}
			return &other, nil
		}
	})
	s.CloseAfterAck = true
	h := newHome(t)
	o := h.options(s.Addr)
	o.TLS.Fingerprints = []client.Fingerprint{s.key}
	o.RetryFor = time.Hour
	err = run(t, o, "a", "b", "c")
	var files *client.FilesError
	if !errors.As(err, &files) || !errors.Is(err, client.ErrServerKey) || files.NotTried != 2 || client.Temporary(err) {
		t.Errorf("%v", err)
	}
	if got, want := s.Sequence(), "conn 1025 1026 1028 1029 conn"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
	h.has(t, fmt.Sprintf("%s tls=%v\n", s.Addr, s.key))
}
