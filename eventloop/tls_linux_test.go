package eventloop

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/tlskey"
	"sealift/session"
)

// startTLS runs a server for both kinds of connections.
func startTLS(t testing.TB, change func(*Options, *session.Config)) *running {
	t.Helper()
	once(t)
	return start(t, func(o *Options, cfg *session.Config) {
		o.TLS = protects(t)
		if change != nil {
			change(o, cfg)
		}
	})
}

// once skips a test that is over TLS in any case when all tests are: it would do the same again.
func once(t testing.TB) {
	t.Helper()
	if overTLS {
		t.Skip("it is over TLS in any case, and has run")
	}
}

// secure is a TLS connection over which the handshake is done.
func (r *running) secure(over net.Conn) *tls.Conn {
	r.t.Helper()
	c := tls.Client(over, trusting())
	_ = c.SetDeadline(time.Now().Add(time.Minute)) // for servers that hang
	if err := c.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Time{})
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// fails asserts that a handshake fails, with an error that says what.
func (r *running) fails(cfg *tls.Config, what string) {
	r.t.Helper()
	c := tls.Client(r.tcp(), cfg)
	defer c.NetConn().Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	err := c.Handshake()
	if err == nil { // TLS 1.3: the client's part of it may be over before the server's
		_, err = c.Read(make([]byte, 1))
	}
	if err == nil || !strings.Contains(err.Error(), what) {
		r.t.Errorf("the handshake ends with %v, want %q", err, what)
	}
}

// ended stops the server and asserts that the connections that were closed had this
// reason, but for those that the client has closed.
func (r *running) ended(want string) {
	r.t.Helper()
	r.stop()
	if err := r.wait(); err != nil {
		r.t.Fatal(err)
	}
	n := 0
	for _, l := range r.logs.FilterMessage("connection closed").All() {
		switch got := fmt.Sprint(l.ContextMap()["reason"]); {
		case strings.Contains(got, want):
			n++
		case got != "by the client" && got != "drained":
			r.t.Errorf("the log says %q, want %q", got, want)
		}
	}
	if n == 0 {
		r.t.Errorf("no connection is closed for the reason %q: %v", want, r.logs.FilterMessage("connection closed").All())
	}
}

// theHello is what a client sends first.
func theHello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	go func() { _ = tls.Client(client, cfg).Handshake() }()
	p := make([]byte, 64<<10)
	n, err := server.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
	_ = client.Close()
	return p[:n]
}

func TestSniff(t *testing.T) {
	yes := []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}
	for n := range sniffed {
		if got := sniff(yes[:n]); got != undecided {
			t.Errorf("the first %d bytes of a hello: %d", n, got)
		}
	}
	if got := sniff(append(slices.Clone(yes), 0xff)); got != hello {
		t.Errorf("a hello: %d", got)
	}
	matters := map[int]bool{0: true, 1: true, 5: true, 6: true, 9: true, 10: true}
	for i := range yes {
		for b := range 256 {
			p := slices.Clone(yes)
			p[i] = byte(b)
			want := hello
			if matters[i] && p[i] != yes[i] && (i != 10 || b > 4) {
				want = plain
			}
			if got := sniff(p); got != want {
				t.Errorf("with %#x at %d: %d, want %d", b, i, got, want)
			}
			if got := sniff(p[:i+1]); want == plain && got != plain {
				t.Errorf("with %#x at the end of %d bytes: %d", b, i+1, got)
			}
		}
	}
}

// A message of the protocol is served as one, however much its id looks like the
// beginning of a hello, and wherever it is cut.
func TestAnIDLikeAHello(t *testing.T) {
	r := startTLS(t, nil)
	id := codec.ClientID{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}
	for i, b := range map[int]byte{0: 0x17, 1: 2, 5: 2, 6: 0x40, 9: 4, 10: 0x80} {
		like := id
		like[i] = b
		message := codec.Reconnect{Name: []byte("nobody")}.Append(nil, like)
		for cut := range 14 {
			c := r.tcp()
			_, _ = c.Write(message[:cut])
			_, _ = c.Write(message[cut:])
			reply := make([]byte, codec.ResponseHeaderSize)
			if _, err := io.ReadFull(c, reply); err != nil || bytes.Equal(reply, errorReply) {
				t.Errorf("with %#x at %d, cut at %d: % x, %v; want a 1606", b, i, cut, reply, err)
			}
			_ = c.Close()
		}
	}
}

func TestFilesOverTLS(t *testing.T) {
	r := startTLS(t, nil)
	b := r.rawPeer(r.secure(r.tcp()), "protected")
	for _, tc := range []struct{ size, packet int }{{100, 100}, {20_000, 5_000}, {3 << 20, 1 << 20}, {3<<20 + 1, 50_000}} {
		content := random(tc.size)
		b.write(slices.Concat(b.packets("f", content, tc.packet)...))
		b.received("f", content)
		r.stored(b.ID, "f", content)
	}
	r.wasLent()
}

// What the handshake has shown is what the session is told, and the log.
func TestTheClientsKey(t *testing.T) {
	told := make(chan session.Channel, 1)
	r := startTLS(t, func(o *Options, _ *session.Config) {
		config := o.TLS.Config
		o.TLS.Config = func() (*tls.Config, func(tls.ConnectionState) (session.Channel, error)) {
			cfg, channel := config()
			return cfg, func(cs tls.ConnectionState) (session.Channel, error) {
				ch, err := channel(cs)
				told <- ch
				return ch, err
			}
		}
	})
	cfg := trusting()
	cfg.Certificates = []tls.Certificate{certificate(t, "client")}
	key := tlskey.Of(cfg.Certificates[0].Leaf)
	r.rawPeer(tls.Client(r.tcp(), cfg), "with a key")
	if ch := <-told; ch.Client != key {
		t.Errorf("the key %v, want %v", ch.Client, key)
	}
	if l := r.logs.FilterMessage("protected").All(); len(l) != 1 || l[0].ContextMap()["key"] != key.String()[:short] {
		t.Errorf("the log says %v", l)
	}
}

func TestOnlyTLS(t *testing.T) {
	r := startTLS(t, func(o *Options, _ *session.Config) { o.TLS.Require = true })
	for range 3 {
		c := r.tcp()
		_, _ = c.Write(codec.Register{Name: []byte("plain")}.Append(nil))
		if got := readAll(t, c); !bytes.Equal(got, errorReply) {
			t.Errorf("got % x, want a 1607", got)
		}
		_ = c.Close()
	}
	protected := r.rawPeer(r.secure(r.tcp()), "protected")
	_ = protected.Close()
	if n := r.logs.FilterMessage("plain connection refused").Len(); n == 0 || n > 2 {
		t.Errorf("%d lines about three connections", n)
	}
	r.ended("not protected by TLS")
}

// A client whose key, or version of TLS, does not do gets an alert, and the others go on.
func TestHandshakesThatFail(t *testing.T) {
	old := trusting()
	old.MaxVersion = tls.VersionTLS12
	large := trusting()
	cert := certificate(t, strings.Repeat("x", 60))
	for range 20 {
		cert.Certificate = append(cert.Certificate, cert.Certificate[0])
	}
	large.Certificates = []tls.Certificate{cert}
	for _, tc := range []struct {
		name   string
		cfg    *tls.Config
		change func(*TLS)
		fails  string
		reason string
	}{
		{"TLS 1.2", old, nil, "protocol version", "tls: client offered only unsupported versions"},
		{"a large certificate", large, nil, "", errLargeHandshake.Error()},
		{"a large certificate, and room for it", large, func(o *TLS) { o.MaxCertificate = 16 << 10 }, "internal error", "tls: more than one"},
		{"a client that is not served", trusting(), func(o *TLS) {
			config := o.Config
			o.Config = func() (*tls.Config, func(tls.ConnectionState) (session.Channel, error)) {
				cfg, _ := config()
				return cfg, func(tls.ConnectionState) (session.Channel, error) { return session.Channel{}, errors.New("the reason") }
			}
		}, "EOF", "the client is not served: the reason"},
		{"a panic", trusting(), func(o *TLS) {
			o.Config = func() (*tls.Config, func(tls.ConnectionState) (session.Channel, error)) { panic("the test") }
		}, "EOF", "tls: panic"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := startTLS(t, func(o *Options, _ *session.Config) {
				if tc.change != nil {
					tc.change(o.TLS)
				}
			})
			if tc.name == "a large certificate, and room for it" {
				r.rawPeer(tls.Client(r.tcp(), tc.cfg), "large")
				return
			}
			r.fails(tc.cfg, tc.fails)
			another := r.rawPeer(&plainly{r.tcp()}, "another")
			_ = another.Close()
			if r.logs.FilterMessage("handshake failed").Len() != 1 {
				t.Error("the log does not say once that a handshake failed")
			}
			r.ended(tc.reason)
		})
	}
}

// plainly is a connection that is plain whatever the other tests do.
type plainly struct{ net.Conn }

func TestHellos(t *testing.T) {
	good := theHello(t, trusting())
	split := func(p []byte, size int) (all []byte) { // into records of so many bytes each
		p = p[recordHeader:]
		for part := range slices.Chunk(p, size) {
			all = append(append(all, 0x16, 3, 1, byte(len(part)>>8), byte(len(part))), part...)
		}
		return all
	}
	for _, size := range []int{1 << 14, 100, 11, 6} {
		p := split(good, size)
		for n := range p {
			if whole(p[:n]) {
				t.Fatalf("in records of %d bytes, %d of %d bytes are whole", size, n, len(p))
			}
		}
		if !whole(p) || !whole(append(slices.Clone(p), 1)) {
			t.Errorf("in records of %d bytes it is not whole", size)
		}
	}
	r := startTLS(t, nil)
	for _, size := range []int{1 << 14, 100, 11, 6} {
		c := r.tcp()
		_, _ = c.Write(split(good, size))
		if _, err := io.ReadFull(c, make([]byte, 1000)); err != nil {
			t.Errorf("in records of %d bytes there is no answer: %v", size, err)
		}
		_ = c.Close()
	}
	for _, size := range []byte{0x40, 0x41, 0xff} { // of the message, times 256
		endless := append(split(good, 1<<14)[:sniffed], make([]byte, 2*maxHello)...)
		endless[3], endless[4] = 0x40, 0 // a record of 16 KiB
		endless[7], endless[8] = size, 0
		endless[16<<10+recordHeader] = 0x16
		endless[16<<10+recordHeader+1] = 3
		endless[16<<10+recordHeader+3] = 0x40
		for _, n := range []int{sniffed, maxHello} {
			if whole(endless[:n]) { // a goroutine would wait for the rest
				t.Errorf("%d bytes of a hello of %d are whole", n, int(size)<<8)
			}
		}
		c := r.tcp()
		_, _ = c.Write(endless)
		if got := readAll(t, c); len(got) > 0 {
			t.Errorf("the answer to a large hello is % x", got)
		}
		_ = c.Close()
	}
	r.ended("tls: the hello is too large")
}

// A handshake that does not come to its end is ended, whatever it waits for.
func TestHandshakesHaveTheirTime(t *testing.T) {
	all := theHello(t, trusting())
	for _, tc := range []struct {
		name   string
		sends  []byte
		reason string
	}{
		{"a byte", all[:1], "timeout: no registration"},
		{"a part of the hello", all[:50], "timeout: TLS handshake"},
		{"the hello", all, "timeout: TLS handshake"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := startTLS(t, func(o *Options, _ *session.Config) { o.HandshakeTimeout = time.Second })
			c := r.tcp()
			_, _ = c.Write(tc.sends)
			readAll(t, c)
			_ = c.Close()
			r.ended(tc.reason)
		})
	}
}

// A drain ends connections whose handshake is not over, and those that are silent, these
// with a close_notify.
func TestDrainWithTLS(t *testing.T) {
	r := startTLS(t, nil)
	silent, begun := r.tcp(), r.tcp()
	_, _ = begun.Write(theHello(t, trusting()))
	if _, err := io.ReadFull(begun, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	b := r.rawPeer(r.secure(r.tcp()), "idle")
	r.stop()
	for _, c := range []net.Conn{silent, begun, b.Net} { // to the end of each, which a close_notify tells of the last
		readAll(t, c)
		_ = c.Close()
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	if n := r.sealed.Load(); n != 0 {
		t.Errorf("%d bytes are counted", n)
	}
}
