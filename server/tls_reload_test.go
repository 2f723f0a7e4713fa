package server

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"sealift/crypto/tlskey"
	"sealift/session"
)

// testNow is when certificates are made.
var testNow = time.Now()

const (
	reloaded  = "the files of TLS were reloaded"
	notUsable = "the files of TLS cannot be used; those from before stay"
)

// said takes what the log has, and returns the messages.
func said(logged *observer.ObservedLogs) string {
	var all []string
	for _, e := range logged.TakeAll() {
		all = append(all, e.Message)
	}
	return strings.Join(all, ", ")
}

// Changed files are taken up by the next look. What is wrong with them is told once,
// at the second look that finds it, or at once to an operator who asks; meanwhile the
// certificate from before is served.
func TestReload(t *testing.T) {
	o, logged := tlsOptions(t.TempDir())
	first, second := selfSigned(t, "P-256", nil), selfSigned(t, "RSA", nil)
	given(t, &o, first)
	p := protect(t, o)
	logged.TakeAll()
	cert, key := o.TLS.Cert, o.TLS.Key
	spare := t.TempDir()
	put := func(path, content string) func() { return func() { write(t, "", path, content) } }
	var texts [2]struct{ cert, key string }
	for i, pair := range []struct{ cert, key string }{{cert, key}, {filepath.Join(spare, "cert"), filepath.Join(spare, "key")}} {
		if i == 1 {
			store(t, pair.cert, pair.key, second)
		}
		texts[i].cert, texts[i].key = read(t, pair.cert), read(t, pair.key)
	}
	known := [2]tlskey.Fingerprint{tlskey.Of(first.Leaf), tlskey.Of(second.Leaf)}
	for _, step := range []struct {
		name   string
		do     func()
		asked  bool
		serves int
		said   string
	}{
		{"nothing has changed", nil, false, 0, ""},
		{"the same, and asked", nil, true, 0, ""},
		{"half of another pair", put(cert, texts[1].cert), false, 0, ""},
		{"the other half", put(key, texts[1].key), false, 1, reloaded},
		{"nothing since", nil, true, 1, ""},
		{"a half again", put(cert, texts[0].cert), false, 1, ""},
		{"it stays", nil, false, 1, notUsable},
		{"told before", nil, false, 1, ""},
		{"asked", nil, true, 1, notUsable},
		{"told before", nil, false, 1, ""},
		{"rubbish", put(cert, "rubbish"), false, 1, ""},
		{"other rubbish", put(cert, "other rubbish"), false, 1, ""},
		{"it stays", nil, false, 1, notUsable},
		{"back as it was", put(cert, texts[1].cert), false, 1, ""},
		{"the same rubbish, asked", put(cert, "other rubbish"), true, 1, notUsable},
		{"told before", nil, false, 1, ""},
		{"away", func() { remove(t, "", cert) }, false, 1, ""},
		{"it stays away", nil, false, 1, notUsable},
		{"told before", nil, false, 1, ""},
		{"whole", func() { put(cert, texts[0].cert)(); put(key, texts[0].key)() }, true, 0, reloaded},
		{"the same pair written anew", put(cert, texts[0].cert), false, 0, ""},
	} {
		if step.do != nil {
			step.do()
		}
		told := p.look(step.asked)
		if got := said(logged); got != step.said || told != (got != "") {
			t.Errorf("%s: said %q, want %q, and look returns %v", step.name, got, step.said, told)
		}
		if got := shown(t, p); got != known[step.serves] {
			t.Errorf("%s: shown %v, want pair %d", step.name, got, step.serves)
		}
	}
}

// Authorities are followed as the certificate is.
func TestReloadOfAuthorities(t *testing.T) {
	o, logged := tlsOptions(t.TempDir())
	first, second := newAuthority(t), newAuthority(t)
	o.TLS.Mode, o.TLS.Clients, o.TLS.ClientCA = tlsRequire, clientsCA, filepath.Join(t.TempDir(), "ca")
	write(t, "", o.TLS.ClientCA, string(tlskey.EncodeCertificate(first.cert.Raw)))
	p := protect(t, o)
	logged.TakeAll()
	takes := func(by *authority) bool {
		_, _, err := handshake(t, p, anyServer(by.client("P-256", &x509.Certificate{Subject: pkix.Name{CommonName: "ada"}})))
		return err == nil
	}
	if !takes(first) || takes(second) {
		t.Error("at the start it takes others")
	}
	write(t, "", o.TLS.ClientCA, "rubbish")
	p.look(true)
	if got := said(logged); got != notUsable || !takes(first) || takes(second) {
		t.Errorf("with rubbish: said %q, or it takes others", got)
	}
	write(t, "", o.TLS.ClientCA, string(tlskey.EncodeCertificate(second.cert.Raw)))
	p.look(false)
	if got := said(logged); got != reloaded || takes(first) || !takes(second) {
		t.Errorf("with another: said %q, or it takes the first", got)
	}
}

// While files are reloaded again and again, each handshake is told of the key that
// its own client was shown.
func TestReloadBesideHandshakes(t *testing.T) {
	o, _ := tlsOptions(t.TempDir())
	pairs := []struct{ cert, key string }{{}, {}}
	for i, pair := 0, selfSigned(t, "Ed25519", nil); i < 2; i, pair = i+1, selfSigned(t, "Ed25519", nil) {
		given(t, &o, pair)
		pairs[i].cert, pairs[i].key = read(t, o.TLS.Cert), read(t, o.TLS.Key)
	}
	p := protect(t, o)
	var done atomic.Bool
	var both sync.Map
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			for !done.Load() {
				seen, ch, err := handshake(t, p, anyServer())
				if err != nil || ch.Server != tlskey.Of(seen.PeerCertificates[0]) {
					t.Errorf("shaken hands: %v, told %v", err, ch.Server)
					return
				}
				both.Store(ch.Server, true)
			}
		})
	}
	for i := range 200 {
		write(t, "", o.TLS.Cert, pairs[i%2].cert)
		write(t, "", o.TLS.Key, pairs[i%2].key)
		p.look(true)
	}
	done.Store(true)
	clients.Wait()
	n := 0
	both.Range(func(any, any) bool { n++; return true })
	if n != 2 {
		t.Errorf("%d keys were shown, want both", n)
	}
}

// What belongs to one handshake stays so when a reload comes before its end.
func TestReloadInTheMiddleOfAHandshake(t *testing.T) {
	o, _ := tlsOptions(t.TempDir())
	first, second := selfSigned(t, "P-256", nil), selfSigned(t, "P-256", nil)
	given(t, &o, first)
	p := protect(t, o)
	config, channel := p.options().Config()
	store(t, o.TLS.Cert, o.TLS.Key, second)
	p.look(true)
	_, state, err := shake(config, anyServer())
	if err != nil {
		t.Fatal(err)
	}
	ch, err := channel(state)
	if want := (session.Channel{TLS: true, Server: tlskey.Of(first.Leaf)}); ch != want || err != nil {
		t.Errorf("told %+v, %v, want %+v", ch, err, want)
	}
	if got := shown(t, p); got != tlskey.Of(second.Leaf) {
		t.Errorf("the next is shown %v", got)
	}
}

// A server that runs looks at its files when it is asked to, says what came of it,
// and ends as ever. One without TLS has none.
func TestReloadOfAServer(t *testing.T) {
	for _, mode := range []string{tlsAllow, tlsOff} {
		t.Run(mode, func(t *testing.T) {
			o, told := toldOptions(t)
			o.TLS.Mode = mode
			s := open(t, o)
			stop := run(t, s)
			if s.Reread() {
				t.Error("said something about files that have not changed")
			}
			if mode == tlsAllow {
				another(t, o.Dir)
				if !s.Reread() {
					t.Error("said nothing about files that have changed")
				}
				await(t, told, reloaded)
				if f, err := Fingerprint(o.Dir); err != nil || shown(t, s.tls) != f {
					t.Errorf("the key that took the place of the first is not shown: %v", err)
				}
			}
			stop()
		})
	}
}

// Files are also read without a signal, and what is wrong is told within a minute.
func TestReloadByItself(t *testing.T) {
	o, told := toldOptions(t)
	p := protect(t, o)
	if p.every != lookEvery || 2*lookEvery > time.Minute {
		t.Errorf("files are read every %v", p.every)
	}
	p.every = time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.follow(ctx)
	}()
	another(t, o.Dir)
	await(t, told, reloaded)
	remove(t, o.Dir, "tls/key.pem")
	await(t, told, notUsable)
	stop()
	<-ended
}

// toldOptions are tlsOptions in a folder of their own, of which the messages come out
// of told.
func toldOptions(t *testing.T) (o Options, told <-chan string) {
	t.Helper()
	c := make(chan string, 1000) // more than are logged
	o, _ = tlsOptions(t.TempDir())
	o.Log = o.Log.WithOptions(zap.Hooks(func(e zapcore.Entry) error {
		c <- e.Message
		return nil
	}))
	return o, c
}

// await waits for a message.
func await(t *testing.T, told <-chan string, message string) {
	t.Helper()
	var others []string
	for late := time.After(time.Minute); ; {
		select {
		case m := <-told:
			if m == message {
				return
			}
			others = append(others, m)
		case <-late:
			t.Fatalf("%q is not logged, but %q", message, others)
		}
	}
}

// another replaces the pair of the server in dir, each file at once.
func another(t *testing.T, dir string) {
	t.Helper()
	other := t.TempDir()
	if _, err := makePair(other, testNow); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tls/key.pem", "tls/cert.pem"} {
		if err := os.Rename(filepath.Join(other, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}
