package main_test

import (
	"crypto/tls"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/tlskey"
	"sealift/internal/fakeserver"
)

const otherKey = "SHA256:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// known is what known_servers of runs in dir holds.
func known(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(knownServers(dir))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

// The first contact without a terminal needs a flag, and the error says which; then the
// server is known, and no flag is needed. A changed key ends it, with both fingerprints and
// what to do.
func TestTLSServersAreRemembered(t *testing.T) {
	for _, first := range [][]string{{"--tls-trust-first"}, {"--tls-fingerprint", "KEY"}, {"--tls", "--tls-fingerprint", otherKey + ",KEY"}} {
		s, key := fakeserver.OverTLS(t, nil)
		dir := t.TempDir()
		put(t, dir, "file", "content")
		name := []string{"send", "--server", s.Addr, "--name", "n", "file"}
		run(t, dir, append(name, "--tls")...).
			failed(t, "the TLS key of "+s.Addr+" is not known yet; the server has "+key.String()+
				". If that is what sealiftd fingerprint prints there: --tls-fingerprint "+key.String()+"; to trust it unseen: --tls-trust-first")
		if got := known(t, dir); got != "" {
			t.Errorf("known_servers holds %q", got)
		}
		for _, flag := range first {
			name = append(name, strings.ReplaceAll(flag, "KEY", key.String()))
		}
		run(t, dir, name...).succeeded(t)
		send(t, s, dir, "file").succeeded(t)
		send(t, s, dir, "--tls", "file").succeeded(t)
		if got := known(t, dir); !strings.HasPrefix(got, s.Addr+" ") || !strings.Contains(got, " tls="+key.String()) {
			t.Errorf("known_servers holds %q", got)
		}

		if err := os.WriteFile(knownServers(dir), []byte(s.Addr+" tls="+otherKey+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		before := s.Sequence()
		for _, flags := range [][]string{nil, {"--tls"}, {"--tls-trust-first"}, {"--tls=false"}} {
			r := run(t, dir, append([]string{"send", "--server", s.Addr, "file"}, flags...)...).
				failed(t, "the TLS key of "+s.Addr+" has changed: it is "+key.String()+", and was "+otherKey)
			if want := "take tls=… out of the line of " + s.Addr + " in " + knownServers(dir) + ", and use --tls"; !strings.Contains(r.stderr, want) {
				t.Errorf("%q is not in %q", want, r.stderr)
			}
		}
		if got := strings.TrimPrefix(s.Sequence(), before); strings.ContainsAny(got, "0123456789") {
			t.Errorf("the server heard %q", got)
		}
		run(t, dir, "send", "--server", s.Addr, "--tls-fingerprint", key.String(), "file").succeeded(t)
		send(t, s, dir, "file").succeeded(t)
	}
}

// lineOne writes a transfer.info with that server.
func lineOne(t *testing.T, dir, server string) {
	t.Helper()
	put(t, dir, "transfer.info", server+"\nMichael Jackson\nfile\n")
}

// The batch client goes by line 1 of transfer.info alone.
func TestTLSInTransferInfo(t *testing.T) {
	s, key := fakeserver.OverTLS(t, nil)
	dir := t.TempDir()
	put(t, dir, "file", "content")
	lineOne(t, dir, "tls://"+s.Addr)
	run(t, dir).failed(t, "the server has "+key.String()+". If that is what sealiftd fingerprint prints there: tls://"+s.Addr+"#"+key.String()+" as line 1 of transfer.info")
	lineOne(t, dir, "tls://"+s.Addr+"#"+otherKey)
	run(t, dir).failed(t, "is "+key.String()+", and not "+otherKey+". Ask its operator which one is right. If it is the server's: tls://"+s.Addr+"#"+key.String())
	if got := s.Sequence(); strings.ContainsAny(got, "0123456789") {
		t.Errorf("the server heard %q", got)
	}
	lineOne(t, dir, "tls://"+s.Addr+"#"+key.String())
	run(t, dir).succeeded(t)
	lineOne(t, dir, "tls://"+s.Addr)
	run(t, dir).succeeded(t)
	if lines := strings.Count(read(t, dir, "me.info"), "\n"); lines != 3 {
		t.Errorf("me.info has %d lines", lines)
	}
	before := s.Sequence()
	lineOne(t, dir, s.Addr)
	run(t, dir).misused(t, "line 1 of transfer.info must be tls://"+s.Addr)
	if got := s.Sequence(); got != before {
		t.Errorf("the server heard %q", got)
	}

	// A plain line is a plain connection, whatever is in the environment.
	plain, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "file", "content")
	lineOne(t, dir, plain.Addr)
	for _, env := range []string{"SEALIFT_TLS=true", "SEALIFT_TLS_TRUST_FIRST=1", "SEALIFT_TLS_FINGERPRINT=" + otherKey} {
		runEnv(t, dir, []string{env}, nil...).misused(t, "with TLS it is tls://"+plain.Addr)
	}
	run(t, dir).succeeded(t)
	if got := plain.Sequence(); got != "conn 1025 1026 1028 1029" {
		t.Errorf("sequence %q", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "me.key")); err == nil {
		t.Error("there is a me.key")
	}
}

// A server that wants TLS, or another TLS key of the client, can say no more than 1607.
// What to do is said where that kept us from logging in.
func TestRefusalsAndTLS(t *testing.T) {
	for _, tc := range []struct {
		name    string
		refused codec.Code
		tls     bool
		batch   bool
		before  bool // the client has been there before
		says    string
	}{
		{"register", codec.CodeRegister, false, false, false, ". If it serves this client over TLS only: --tls"},
		{"register over TLS", codec.CodeRegister, true, false, false, ""},
		{"reconnect", codec.CodeReconnect, false, false, true, ". If it serves this client over TLS only: --tls"},
		{"reconnect over TLS", codec.CodeReconnect, true, false, true,
			". If this client is pinned to another TLS key than that in me.key, the operator can release it: sealiftd client unpin"},
		{"batch", codec.CodeReconnect, false, true, true, ". If it serves this client over TLS only: tls://ADDR as line 1 of transfer.info"},
		{"file", codec.CodeSendFile, false, false, false, ""},
		{"file over TLS", codec.CodeSendFile, true, false, true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel() // they wait between tries
			s, flags := fakeserver.New(t), []string(nil)
			if tc.tls {
				var key tlskey.Fingerprint
				s, key = fakeserver.OverTLS(t, nil)
				flags = []string{"--tls-fingerprint", key.String()}
			}
			var refusing atomic.Bool
			s.Answer = func(m fakeserver.Message, right []byte) []byte {
				if refusing.Load() && m.Code == tc.refused {
					return []byte{3, 0x47, 6, 0, 0, 0, 0}
				}
				return right
			}
			dir := t.TempDir()
			put(t, dir, "file", "content")
			args := append([]string{"send", "--server", s.Addr, "--codes", "1025", "--dialect", "spec", "--name", "Michael Jackson", "file"}, flags...)
			if tc.batch {
				lineOne(t, dir, s.Addr)
				args = []string{"--codes", "1025", "--dialect", "spec"}
			}
			if tc.before {
				run(t, dir, args...).succeeded(t)
			}
			refusing.Store(true)
			want := ". The server's log says why" + strings.ReplaceAll(tc.says, "ADDR", s.Addr) + "\n"
			if r := run(t, dir, args...).ended(t, 75, "(1607)"); !strings.HasSuffix(r.stderr, want) {
				t.Errorf("%q does not end with %q", r.stderr, want)
			}
		})
	}
}

// Where the configuration directory cannot be made, as that of a user of a service, the
// error says how to name another file. A me.key that is spoilt: what to do with it.
func TestWhereKeysAreKept(t *testing.T) {
	s, key := fakeserver.OverTLS(t, nil)
	dir := t.TempDir()
	put(t, dir, "file", "content")
	args := []string{"send", "--server", s.Addr, "--name", "n", "--tls-fingerprint", key.String(), "file"}
	nowhere := []string{"SEALIFT_KNOWN_SERVERS="}
	for _, v := range []string{"HOME", "XDG_CONFIG_HOME", "AppData"} {
		nowhere = append(nowhere, v+"="+filepath.Join(dir, "file", "home"))
	}
	runEnv(t, dir, nowhere, args...).failed(t, ". --known-servers FILE names another place for it")
	runEnv(t, dir, nowhere, append(args, "--known-servers", "known")...).succeeded(t)
	put(t, dir, "me.key", "rubbish")
	run(t, dir, args...).failed(t, "me.key: malformed: no Ed25519 private key in PEM: put the right one back, or move it away to have another made")
}

func TestTLSFlags(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "file", "content")
	put(t, dir, "empty.pem", "")
	for _, tc := range []struct {
		flags []string
		says  string
	}{
		{[]string{"--tls-fingerprint", "SHA256:x"}, "--tls-fingerprint: fingerprint"},
		{[]string{"--tls-fingerprint", otherKey, "--tls-trust-first"}, "want one of them"},
		{[]string{"--tls-ca", "system", "--tls-trust-first"}, "want one of them"},
		{[]string{"--tls-ca", "missing.pem"}, "--tls-ca: open missing.pem"},
		{[]string{"--tls-ca", "empty.pem"}, "--tls-ca: empty.pem: there is no certificate in it"},
		{[]string{"--server", "tls://h:1#" + otherKey, "--tls-trust-first"}, "other ways to know it"},
		{[]string{"--server", "h:1#" + otherKey}, "a fingerprint stands behind tls://HOST:PORT"},
	} {
		run(t, dir, append([]string{"send", "--server", "h:1", "--name", "n", "file"}, tc.flags...)...).misused(t, tc.says)
	}
}

// With --tls-ca a chain and the host name count, and no key is kept.
func TestTLSAuthority(t *testing.T) {
	key, err := tlskey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tlskey.SelfSigned(key, "localhost", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s, _ := fakeserver.OverTLS(t, func(c *tls.Config) { c.Certificates = []tls.Certificate{cert} })
	dir := t.TempDir()
	put(t, dir, "file", "content")
	put(t, dir, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
	_, port, _ := strings.Cut(s.Addr, ":")
	run(t, dir, "send", "--server", "localhost:"+port, "--name", "n", "--tls-ca", "ca.pem", "file").succeeded(t)
	run(t, dir, "send", "--server", s.Addr, "--tls-ca", "ca.pem", "file").failed(t, "its certificate is not good: x509: cannot validate certificate for 127.0.0.1")
	run(t, dir, "send", "--server", "localhost:"+port, "--tls-ca", "system", "file").failed(t, "its certificate is not good: x509: certificate signed by unknown authority")
	if got := known(t, dir); strings.Contains(got, "tls=") {
		t.Errorf("known_servers holds %q", got)
	}
}

// Conform goes over TLS with the same flags.
func TestConformOverTLS(t *testing.T) {
	s, key := fakeserver.OverTLS(t, nil)
	dir := t.TempDir()
	run(t, dir, "conform", "--timeout", "100ms", "tls://"+s.Addr).failed(t, "--tls-fingerprint "+key.String())
	run(t, dir, "conform", "--timeout", "100ms", "--tls-fingerprint", otherKey, s.Addr).failed(t, "and not "+otherKey)
	if got := s.Sequence(); strings.ContainsAny(got, "0123456789") {
		t.Errorf("the server heard %q", got)
	}
}
