package eventloop

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"

	"sealift/client"
	"sealift/codec"
	"sealift/session"
)

// fields is a header of version 2.
func fields(command, family byte, rest ...byte) []byte {
	p := append(slices.Clone(proxyproto.SIGV2), command, family)
	p = binary.BigEndian.AppendUint16(p, uint16(len(rest)))
	return append(p, rest...)
}

// rest4 and rest6 are what a header says of a TCP connection, from 203.0.113.7 or
// 2001:db8::7, port 4711.
func rest4(tlvs ...byte) []byte {
	return append([]byte{203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x67, 4, 232}, tlvs...)
}

func rest6(tlvs ...byte) []byte {
	from, to := netip.MustParseAddr("2001:db8::7").As16(), netip.MustParseAddr("2001:db8::1").As16()
	return append(slices.Concat(from[:], to[:], []byte{0x12, 0x67, 4, 232}), tlvs...)
}

func tlv(kind byte, value ...byte) []byte {
	return append([]byte{kind, byte(len(value) >> 8), byte(len(value))}, value...)
}

const (
	cmdLocal, cmdProxy       = 0x20, 0x21
	unspec, tcp4, udp4, tcp6 = 0x00, 0x11, 0x12, 0x21
	unixStream               = 0x31
)

// headers are such of each kind. client is what one says: an address, "proxy" if the
// proxy's own counts, "itself" if it is the proxy's own connection; or else err is why it
// is refused, if not because of what proxyproto says.
var headers = map[string]struct {
	header []byte
	client string
	err    error
}{
	"1, IPv4":                  {header: []byte("PROXY TCP4 203.0.113.7 192.0.2.1 4711 1256\r\n"), client: "203.0.113.7:4711"},
	"1, IPv6":                  {header: []byte("PROXY TCP6 2001:db8::7 2001:db8::1 4711 1256\r\n"), client: "[2001:db8::7]:4711"},
	"1, mapped":                {header: []byte("PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.1 4711 1256\r\n"), client: "203.0.113.7:4711"},
	"1, of nginx":              {header: []byte("PROXY TCP6 203.0.113.7 2001:db8::1 4711 1256\r\n"), client: "203.0.113.7:4711"},
	"1, nobody":                {header: []byte("PROXY UNKNOWN\r\n"), client: "itself"},
	"1, nobody, with the rest": {header: []byte("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"), client: "itself"},
	"1, without a CR":          {header: []byte("PROXY TCP4 203.0.113.7 192.0.2.1 4711 1256\n")},
	"1, no address":            {header: []byte("PROXY TCP4 proxy.example 192.0.2.1 4711 1256\r\n")},
	"1, a port too large":      {header: []byte("PROXY TCP4 203.0.113.7 192.0.2.1 65536 1256\r\n")},
	"1, another family":        {header: []byte("PROXY TCP4 2001:db8::7 2001:db8::1 4711 1256\r\n")},
	"1, another transport":     {header: []byte("PROXY UDP4 203.0.113.7 192.0.2.1 4711 1256\r\n")},
	"1, too long":              {header: []byte("PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n"), err: errLongHeader},
	"1, without an end":        {header: []byte("PROXY TCP4 " + strings.Repeat("1", 200)), err: errLongHeader},
	"1, in small letters":      {header: []byte("proxy TCP4 203.0.113.7 192.0.2.1 4711 1256\r\n"), err: errNoHeader},
	"2, IPv4":                  {header: fields(cmdProxy, tcp4, rest4()...), client: "203.0.113.7:4711"},
	"2, IPv6":                  {header: fields(cmdProxy, tcp6, rest6()...), client: "[2001:db8::7]:4711"},
	"2, with what it likes":    {header: fields(cmdProxy, tcp4, rest4(tlv(2, []byte("files.example")...)...)...), client: "203.0.113.7:4711"},
	"2, with all it may":       {header: fields(cmdProxy, tcp6, rest6(tlv(0xE0, make([]byte, maxHeader-fieldsSize-36-3)...)...)...), client: "[2001:db8::7]:4711"},
	"2, with more":             {header: fields(cmdProxy, tcp6, rest6(tlv(0xE0, make([]byte, maxHeader-fieldsSize-36-2)...)...)...), err: errLongHeader},
	"2, its own":               {header: fields(cmdLocal, unspec), client: "itself"},
	"2, its own, with a rest":  {header: fields(cmdLocal, tcp4, 1, 2, 3), client: "itself"},
	"2, its own, with an IP":   {header: fields(cmdLocal, tcp4, rest4()...), client: "itself"},
	"2, nobody":                {header: fields(cmdProxy, unspec), client: "proxy"},
	"2, UNIX":                  {header: fields(cmdProxy, unixStream, append([]byte("/run/client"), make([]byte, 216-11)...)...), client: "proxy"},
	"2, UDP":                   {header: fields(cmdProxy, udp4, rest4()...), err: errNoStream},
	"2, half an address":       {header: fields(cmdProxy, tcp4, rest4()[:11]...)},
	"2, another version":       {header: fields(0x31, tcp4, rest4()...)},
	"2, another command":       {header: fields(0x22, tcp4, rest4()...)},
	"2, another family":        {header: fields(cmdProxy, 0x41, rest4()...)},
	"the plain protocol":       {header: codec.Register{Name: []byte("x")}.Append(nil), err: errNoHeader},
	"TLS":                      {header: []byte{0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3}, err: errNoHeader},
}

// Each header says whose the connection is, or is refused, in whatever pieces it comes,
// and never before it is known to be wrong. What is behind it is not taken.
func TestHeaders(t *testing.T) {
	for name, h := range headers {
		for _, behind := range [][]byte{nil, []byte("PROXY TCP4 "), make([]byte, 100)} {
			stream := append(slices.Clone(h.header), behind...)
			in, err := readHeader(stream)
			if h.client == "" {
				if err == nil || h.err != nil && err != h.err {
					t.Errorf("%s: %+v, %v", name, in, err)
				}
				continue
			}
			if err != nil || in.size != len(h.header) {
				t.Fatalf("%s: %+v, %v", name, in, err)
			}
			got := "proxy"
			if in.client != nil {
				got = in.client.String()
			} else if in.itself {
				got = "itself"
			}
			if got != h.client {
				t.Errorf("%s: from %s, want %s", name, got, h.client)
			}
		}
		for n := range h.header {
			if in, err := readHeader(h.header[:n]); in.size != 0 || err != nil && h.client != "" {
				t.Errorf("%s, %d bytes of it: %+v, %v", name, n, in, err)
			}
		}
	}
}

// Nothing that an id of the plain protocol begins with, nor TLS, is a header.
func TestNothingLooksLikeAHeader(t *testing.T) {
	for name, h := range headers {
		if h.err == errNoHeader {
			continue
		}
		if h.header[6]&0xF0 == 0x40 || bytes.HasPrefix(h.header, make([]byte, 7)) {
			t.Errorf("%s may be the id of a client", name)
		}
		if sniff(h.header) != plain {
			t.Errorf("%s may be TLS", name)
		}
		if looksLikeHeader(h.header) != hello {
			t.Errorf("%s is not seen to be a header", name)
		}
	}
	for range 10_000 {
		id := random(16)
		copy(id, []byte(lineBegin)[:rand.IntN(7)])
		if rand.IntN(2) == 0 {
			copy(id, proxyproto.SIGV2[:rand.IntN(12)])
		}
		id[6] = id[6]&0x0F | 0x40
		if looksLikeHeader(id) != plain {
			t.Fatalf("% x is taken for a header", id)
		}
	}
}

// FuzzHeader: of whatever bytes, the answer is the same whether they come at once or in
// pieces; a header is bounded, and what proxyproto reads is what was taken off.
func FuzzHeader(f *testing.F) {
	for _, h := range headers {
		f.Add(h.header, uint16(1))
		f.Add(append(slices.Clone(h.header), "behind"...), uint16(20))
	}
	f.Fuzz(func(t *testing.T, p []byte, step uint16) {
		whole, wholeErr := readHeader(p)
		for n := 0; ; n = min(n+1+int(step), len(p)) {
			in, err := readHeader(p[:n])
			switch {
			case in.size > min(n, maxHeader), in.size == 0 && in.client != nil, err != nil && in.size > 0:
				t.Fatalf("of %d bytes: %+v, %v", n, in, err)
			case in.size == 0 && err == nil && n < len(p):
				continue
			case in.size != whole.size, (err == nil) != (wholeErr == nil), fmt.Sprint(in.client) != fmt.Sprint(whole.client):
				t.Fatalf("of %d bytes: %+v, %v; of all: %+v, %v", n, in, err, whole, wholeErr)
			}
			return
		}
	})
}

// loopback is where the tests' own connections come from.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func behindProxy(o *Options, _ *session.Config) { o.Proxies = loopback }

// by has a client connect as a proxy does for it.
func by(header []byte) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if _, err := c.Write(header); err != nil {
			return nil, err
		}
		return wrapped(c), nil
	}
}

// lineFor is a header for a client with that address.
func lineFor(ip string, port int) []byte {
	family, to := "TCP4", "192.0.2.1"
	if strings.Contains(ip, ":") {
		family, to = "TCP6", "2001:db8::1"
	}
	return fmt.Appendf(nil, "PROXY %s %s %s %d 1256\r\n", family, ip, to, port)
}

// dialBy is dial, by a proxy.
func (r *running) dialBy(header []byte, name string) (*client.Client, error) {
	c, err := client.Dial(context.Background(), client.Options{
		Server: r.Addr().String(), Name: name, Retries: -1, DialContext: by(header),
	})
	if err == nil {
		_, err = c.Login(context.Background())
	}
	return c, err
}

// The client's address is that in the header, for the log, the page and the limits.
func TestClientsBehindAProxy(t *testing.T) {
	r := start(t, behindProxy)
	content := random(300_000)
	for name, h := range headers {
		if h.client == "" {
			continue
		}
		c, err := r.dialBy(h.header, "client "+name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := c.Send(context.Background(), "f", bytes.NewReader(content), int64(len(content))); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r.stored(c.Identity().ID, "f", content)
		seen, err := r.Observe(context.Background(), Query{Client: c.Identity().ID})
		if err != nil || len(seen.Views) != 1 {
			t.Fatalf("%s: %+v, %v", name, seen, err)
		}
		want := h.client
		if !strings.Contains(want, ":") {
			want = "127.0.0.1:"
		}
		if remote := seen.Views[0].Remote; !strings.HasPrefix(remote, want) {
			t.Errorf("%s: the page says %s, want %s", name, remote, want)
		}
		_ = c.Close()
		line := r.closedLine(c.Identity().ID.String())
		if !strings.HasPrefix(fmt.Sprint(line["remote"]), want) || !strings.HasPrefix(fmt.Sprint(line["proxy"]), "127.0.0.1:") {
			t.Errorf("%s: the log says %v, want %s", name, line, want)
		}
	}
}

// closedLine waits for the line that says that a client's connection was closed.
func (r *running) closedLine(id string) map[string]any {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, l := range r.logs.FilterMessage("connection closed").All() {
			if l.ContextMap()["client"] == id {
				return l.ContextMap()
			}
		}
	}
	r.t.Fatalf("the connection of %s is not closed", id)
	return nil
}

// trickle writes p byte by byte, as far as the other end lets it.
func trickle(c net.Conn, p []byte) {
	for i := range p {
		if _, err := c.Write(p[i : i+1]); err != nil {
			return
		}
	}
}

// A header may come byte by byte, or together with what follows it.
func TestHeaderInPieces(t *testing.T) {
	if overTLS {
		t.Skip("the bytes behind the header are plain ones here")
	}
	r := start(t, behindProxy)
	register := codec.Register{Name: []byte("cut")}.Append(nil)
	for i, header := range [][]byte{headers["1, IPv6"].header, headers["2, with what it likes"].header} {
		register := bytes.Replace(register, []byte("cut"), fmt.Appendf(nil, "c%d.", i), 1)
		c := r.tcp()
		trickle(c, append(slices.Clone(header), register...))
		if reply := readReply(t, c); reply != codec.CodeRegistered {
			t.Errorf("byte by byte: %d", reply)
		}
		c = r.tcp()
		_, _ = c.Write(append(slices.Clone(header), bytes.Replace(register, []byte("."), []byte("!"), 1)...))
		if reply := readReply(t, c); reply != codec.CodeRegistered {
			t.Errorf("at once: %d", reply)
		}
	}
}

// readReply returns the code of the next reply.
func readReply(t *testing.T, c net.Conn) codec.Code {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	var head [3]byte
	for got := 0; got < len(head); {
		n, err := c.Read(head[got:])
		if got += n; err != nil {
			t.Fatal(err)
		}
	}
	return codec.Code(binary.LittleEndian.Uint16(head[1:]))
}

// What does not begin with a header, or with one that makes no sense, gets 1607 if it is
// a proxy's, and what begins with one if it is not. The log says so, once a second.
func TestHeadersThatAreRefused(t *testing.T) {
	wrong := func(t *testing.T, r *running, header []byte) {
		t.Helper()
		c := r.tcp()
		_, _ = c.Write(header)
		if got := readAll(t, c); !bytes.Equal(got, errorReply) {
			t.Errorf("%q: got % x, want a 1607", header[:min(20, len(header))], got)
		}
		_ = c.Close()
	}
	t.Run("by a proxy", func(t *testing.T) {
		r := start(t, behindProxy)
		n := 0
		for _, h := range headers {
			if h.client == "" {
				wrong(t, r, h.header)
				n++
			}
		}
		r.toldOfHeaders(n)
	})
	t.Run("by a stranger", func(t *testing.T) {
		r := start(t, func(o *Options, _ *session.Config) {
			o.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("::1/128")}
		})
		n := 0
		for _, h := range headers {
			if h.err != errNoHeader {
				wrong(t, r, h.header)
				n++
			}
		}
		r.toldOfHeaders(n)
		c := r.client("a stranger") // who says nothing of the kind is served
		if _, err := c.Send(context.Background(), "f", bytes.NewReader([]byte("x")), 1); err != nil {
			t.Error(err)
		}
	})
	t.Run("without proxies", func(t *testing.T) {
		if overTLS || waits {
			t.Skip("it is about the plain protocol alone")
		}
		r := start(t, nil)
		wrong(t, r, append(slices.Clone(headers["1, IPv4"].header), make([]byte, 100)...))
		if n := r.logs.FilterMessage("PROXY header refused").Len(); n != 0 || r.Stats().Unintroduced != 0 {
			t.Error("somebody looked for a header")
		}
	})
}

// toldOfHeaders asserts that n headers were counted, and the log has fewer lines about
// them, of which none is about a connection that is closed.
func (r *running) toldOfHeaders(n int) {
	r.t.Helper()
	if st := r.Stats(); st.Unintroduced != uint64(n) {
		r.t.Errorf("%d headers were refused, want %d", st.Unintroduced, n)
	}
	lines := r.logs.FilterMessage("PROXY header refused").Len()
	if lines < 1 || lines > n/2 {
		r.t.Errorf("%d lines for %d headers", lines, n)
	}
	r.noLineOfClosed()
}

// noLineOfClosed asserts, when the connections have left that were refused, that the log has
// no line about one that is closed.
func (r *running) noLineOfClosed() {
	r.t.Helper()
	r.eventually("nothing is left", func(st Stats) bool { return st.Ending+st.Lingering == 0 })
	if closed := r.logs.FilterMessage("connection closed").Len(); closed > 0 {
		r.t.Errorf("%d lines about connections that are closed", closed)
	}
}

// A connection whose header does not come in time gets 1607.
func TestHeaderThatIsLate(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) {
		o.Proxies, o.HandshakeTimeout = loopback, time.Millisecond
	})
	c := r.tcp()
	_, _ = c.Write(headers["1, IPv4"].header[:20])
	if got := readAll(t, c); !bytes.Equal(got, errorReply) {
		t.Errorf("got % x, want a 1607", got)
	}
	if st := r.Stats(); st.Unintroduced != 1 {
		t.Errorf("%+v", st)
	}
}

// Each client behind a proxy has its own share of the connections.
func TestLimitsBehindAProxy(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.Proxies, o.MaxPerIP = loopback, 2 })
	for i := range 3 {
		ip := fmt.Sprintf("203.0.113.%d", i)
		for j := range 2 {
			c, err := r.dialBy(lineFor(ip, 1000+j), fmt.Sprintf("%d.%d", i, j))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		c := r.tcp()
		_, _ = c.Write(lineFor(ip, 2000))
		if got := readAll(t, c); !bytes.Equal(got, errorReply) {
			t.Errorf("a third connection of %s: got % x, want a 1607", ip, got)
		}
	}
	if st := r.Stats(); st.Served != 6 || st.Refused != 3 || st.Admitted != 6 {
		t.Errorf("%+v", st)
	}
}

// And its own rate of registrations.
func TestRegistrationsBehindAProxy(t *testing.T) {
	r := start(t, func(o *Options, c *session.Config) {
		o.Proxies = loopback
		c.Limits.RegisterRate = 1e-9
	})
	registers := func(ip, name string) bool {
		c, err := r.dialBy(lineFor(ip, 1), name)
		if err == nil {
			_ = c.Close()
		} else if !errors.Is(err, client.ErrServer) {
			t.Fatal(err)
		}
		return err == nil
	}
	n := 0
	for n < 100 && registers("203.0.113.1", fmt.Sprint("a", n)) {
		n++
	}
	if n == 0 || n == 100 {
		t.Fatalf("one address registers %d clients", n)
	}
	if !registers("203.0.113.2", "b") {
		t.Error("another address may not register")
	}
}

// A look at the server leaves no line in the log, and takes nobody's place: whoever
// connects and closes, with or without a header that says that it is the proxy's own.
func TestHealthChecks(t *testing.T) {
	looks := map[string][]byte{
		"nothing": nil, "version 1": headers["1, nobody"].header, "version 2": headers["2, its own"].header,
		"for a client": headers["1, IPv4"].header,
	}
	for name, proxies := range map[string][]netip.Prefix{"by a proxy": loopback, "by a stranger": {netip.MustParsePrefix("192.0.2.1/32")}, "without": nil} {
		t.Run(name, func(t *testing.T) {
			var accepts, looked atomic.Int64 // an accept begins when the connection before has been counted
			r := start(t, func(o *Options, c *session.Config) {
				o.Proxies, o.MaxConnections = proxies, 500
				failingAccept(func() error { accepts.Add(1); return nil })(o, c)
			})
			for what, header := range looks {
				if header != nil && name != "by a proxy" {
					continue
				}
				before := r.Stats()
				for i := range 50 {
					looked.Add(1)
					c := r.tcp().(*net.TCPConn)
					_, _ = c.Write(header)
					if i%2 == 0 {
						_ = c.SetLinger(0) // a reset, as HAProxy does it
					}
					_ = c.Close()
				}
				r.eventually("they have gone", func(st Stats) bool {
					r.census.mu.Lock()
					defer r.census.mu.Unlock()
					return accepts.Load() == looked.Load()+1 && st.Served+r.census.awaiting == 0
				})
				for _, l := range r.logs.All() {
					if l.Level > zap.DebugLevel {
						t.Fatalf("%s: the log says %s: %v", what, l.Message, l.ContextMap())
					}
				}
				if st := r.Stats(); name == "by a proxy" && what != "for a client" && st.Admitted != before.Admitted || st.Refused > 0 {
					t.Errorf("%s: %+v", what, st)
				}
			}
		})
	}
}

// A full server is there, and the proxy's look at it costs nobody a place.
func TestHealthCheckOfAFullServer(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) {
		o.Proxies, o.MaxConnections = loopback, 1
		o.tick, o.slowTime = 10*time.Millisecond, 10*time.Millisecond
	})
	c, err := r.dialBy(headers["1, IPv4"].header, "served")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r.eventually("it is slow", func(Stats) bool {
		slow := true
		_ = r.ask(context.Background(), func(lp *loop) func() {
			for c := range lp.conns {
				slow = c.rate.Load() < slowRate
			}
			return func() {}
		})
		return slow
	})
	for _, header := range [][]byte{nil, headers["1, nobody"].header, headers["2, its own"].header} {
		nc := r.tcp()
		_, _ = nc.Write(header)
		r.eventually("it is there", func(st Stats) bool { return st.Introducing == 1 })
		_ = nc.Close()
		r.eventually("it has gone", func(st Stats) bool { return st.Introducing == 0 })
	}
	if _, err := c.Send(context.Background(), "f", bytes.NewReader([]byte("x")), 1); err != nil {
		t.Fatal(err)
	}
	if st := r.Stats(); st.Admitted != 1 || st.Refused != 0 {
		t.Errorf("%+v", st)
	}
}

// However many one client has refused, the others behind the proxy are served.
func TestRefusedBehindAProxy(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.Proxies, o.MaxPerIP = loopback, 1 })
	first, err := r.dialBy(lineFor("203.0.113.1", 1), "first")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	var all []net.Conn
	for i := range 3 * maxRefused {
		c := r.tcp()
		_, _ = c.Write(lineFor("203.0.113.1", i+2))
		all = append(all, c)
	}
	r.eventually("they are refused", func(st Stats) bool { return st.Refused == 3*maxRefused })
	r.eventually("a few linger", func(st Stats) bool { return st.Introducing == 0 && st.Ending+st.Lingering <= maxRefused })
	other, err := r.dialBy(lineFor("203.0.113.2", 1), "other")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, c := range all {
		if got := readAll(t, c); !bytes.Equal(got, errorReply) {
			t.Fatalf("got % x, want a 1607", got)
		}
		_ = c.Close()
	}
	r.noLineOfClosed()
	if n := len(r.acceptor.refusing); n != 0 {
		t.Errorf("%d places of those who linger are taken", n)
	}
}

// Proxies that are added or taken away while the server runs count for the next
// connection.
func TestProxiesThatAreChanged(t *testing.T) {
	r := start(t, nil)
	before := r.client("direct")
	limits := *r.limits.Load()
	limits.Proxies = loopback
	r.Limit(limits)
	if _, err := before.Send(context.Background(), "f", bytes.NewReader([]byte("x")), 1); err != nil {
		t.Error(err)
	}
	behind, err := r.dialBy(headers["2, IPv4"].header, "behind")
	if err != nil {
		t.Fatal(err)
	}
	defer behind.Close()
	limits.Proxies = nil
	r.Limit(limits)
	r.client("direct again")
	if _, err := behind.Send(context.Background(), "f", bytes.NewReader([]byte("x")), 1); err != nil {
		t.Error(err)
	}
}

// Of one proxy a bounded number of connections wait for their header. One more ends the
// first to come, which is not counted twice.
func TestFewAwaitTheirHeader(t *testing.T) {
	n := censusOf(10_000, 0)
	var all []*conn
	for range maxAwaited {
		c := from("192.0.2.1")
		if ok, victim := n.await(c); !ok || victim != nil {
			t.Fatalf("after %d: %v, %v", len(all), ok, victim)
		}
		all = append(all, c)
	}
	if ok, victim := n.await(from("192.0.2.2")); !ok || victim != nil {
		t.Fatal("another proxy has no share of its own")
	}
	ok, victim := n.await(from("192.0.2.1"))
	if !ok || victim != all[0] {
		t.Fatalf("%v, %v; want the first to make room", ok, victim)
	}
	if ok, _ := n.introduce(victim, netip.MustParseAddr("203.0.113.1"), time.Now()); ok {
		t.Error("it is served although it makes room")
	}
	for range maxEvicting - 1 {
		if ok, victim := n.await(from("192.0.2.1")); !ok || victim == nil {
			t.Fatalf("%v, %v", ok, victim)
		}
	}
	if ok, _ := n.await(from("192.0.2.1")); ok {
		t.Error("more are on their way out than may be")
	}
	n.leave(victim)
	if ok, _ := n.await(from("192.0.2.1")); !ok {
		t.Error("nobody makes room any more")
	}
}

// Whatever comes in whatever order: there are never more connections than there are
// descriptors for, and at the end nothing is counted.
func TestCensusAtRandom(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 2))
		n := censusOf(1+rng.IntN(30), rng.IntN(5))
		var waiting, all []*conn
		now := time.Now()
		took := func(victim *conn) {
			if victim != nil && rng.IntN(2) == 0 {
				n.leave(victim)
				all = slices.DeleteFunc(all, func(c *conn) bool { return c == victim })
			}
		}
		for range 2000 {
			now = now.Add(time.Second)
			ip := fmt.Sprintf("203.0.113.%d", rng.IntN(8))
			c := from(ip)
			c.rate.Store(int64(rng.IntN(2 * slowRate)))
			switch rng.IntN(5) {
			case 0:
				ok, victim := n.enter(c, now)
				if ok {
					all = append(all, c)
				}
				took(victim)
			case 1:
				ok, victim := n.await(c)
				if ok {
					all, waiting = append(all, c), append(waiting, c)
				}
				took(victim)
			case 2:
				if len(waiting) > 0 {
					c := waiting[0]
					waiting = waiting[1:]
					ok, victim := n.introduce(c, netip.MustParseAddr(ip), now)
					if !ok && c.place == nowhere {
						all = slices.DeleteFunc(all, func(x *conn) bool { return x == c })
					}
					took(victim)
				}
			default:
				if len(all) > 0 {
					i := rng.IntN(len(all))
					n.leave(all[i])
					all = slices.Delete(all, i, i+1)
				}
			}
			if len(all) > n.max+maxEvicting || n.served > n.max || n.served+n.awaiting+n.evicting != len(all) {
				t.Fatalf("seed %d: %d are there, %d served, %d awaited, %d on their way out, at most %d", seed, len(all), n.served, n.awaiting, n.evicting, n.max)
			}
		}
		for _, c := range all {
			n.leave(c)
		}
		if n.served+n.awaiting+n.evicting+len(n.from)+len(n.awaited) != 0 {
			t.Fatalf("seed %d: left: %+v", seed, n)
		}
	}
}

// Connections of proxies that come all at once, with their header late, cut or wrong, and
// those that leave meanwhile, cost no other its place, and leave nothing.
func TestManyByAProxy(t *testing.T) {
	r := start(t, behindProxy)
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 3))
			for j := range 20 {
				c := r.tcp()
				header := lineFor(fmt.Sprintf("203.0.113.%d", i), j+1)
				switch rng.IntN(4) {
				case 0:
					_, _ = c.Write(header[:rng.IntN(len(header))])
				case 1:
					_, _ = c.Write(append(header, random(rng.IntN(100))...))
				case 2:
					trickle(c, header)
				case 3:
					_, _ = c.Write(random(50))
				}
				_ = c.Close()
			}
			c, err := r.dialBy(lineFor(fmt.Sprintf("203.0.113.%d", i), 99), fmt.Sprint("client", i))
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.Close()
		})
	}
	clients.Wait()
	r.eventually("nothing is left", func(st Stats) bool {
		return st.Served == 0 && st.Introducing+st.Sniffing+st.Shaking+st.Open+st.Ending+st.Lingering == 0
	})
	r.census.mu.Lock()
	defer r.census.mu.Unlock()
	if r.census.awaiting != 0 || len(r.census.awaited) != 0 || r.census.evicting != 0 {
		t.Errorf("left: %d awaited", r.census.awaiting)
	}
}

// A proxy has less time for its header than a client has to say whose it is.
func TestTimeForAHeader(t *testing.T) {
	for how, want := range map[via]time.Duration{stranger: time.Minute, byProxy: headerTime, itself: time.Minute} {
		c := &conn{via: how, since: time.Now()}
		if at, _ := c.introductionEnds(time.Minute); at != c.since.Add(want) {
			t.Errorf("%d: %v, want %v", how, at.Sub(c.since), want)
		}
	}
}
