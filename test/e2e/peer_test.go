//go:build unix

package e2e

import (
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// otherKey is a public key that no peer sends by itself.
func otherKey() []byte { return testpeer.SharedPair(1).Public[:] }

// peer is a client of which the test decides every byte: it sends what it is
// told to, and the test says what has to come back. Its methods end the test
// where something else comes.
type peer struct {
	testpeer.Conn
	t        testing.TB
	addr     string        // of the server
	tls      *testpeer.TLS // nil: plain
	bytewise bool          // each byte in a write of its own
}

// bytewise is a connection that sends each byte in a write of its own.
type bytewise struct{ net.Conn }

func (c bytewise) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		_, err = c.Conn.Write(p[n : n+1])
		n++
	}
	return n, err
}

// connect returns a peer with a connection, and without an id.
func connect(t testing.TB, d *daemon, name string) *peer {
	t.Helper()
	return connectOver(t, d, name, testpeer.Switched())
}

func connectOver(t testing.TB, d *daemon, name string, tls *testpeer.TLS) *peer {
	t.Helper()
	p := &peer{t: t, addr: d.addr, tls: tls}
	p.Name, p.Pair = name, testpeer.SharedPair(0)
	p.dial()
	return p
}

// loginWithoutKey is login for a client that the server cannot pin.
func loginWithoutKey(t testing.TB, d *daemon, name string) *peer {
	t.Helper()
	var tls *testpeer.TLS
	if testpeer.OverTLS() {
		tls = &testpeer.TLS{AnyServer: true}
	}
	p := connectOver(t, d, name, tls)
	p.signUp()
	p.exchange()
	return p
}

// login returns a peer that can send files.
func login(t testing.TB, d *daemon, name string) *peer {
	t.Helper()
	p := connect(t, d, name)
	p.signUp()
	p.exchange()
	return p
}

// dial makes a new connection, in the place of the old one if there is one.
func (p *peer) dial() {
	p.t.Helper()
	if p.Net != nil {
		p.Close()
	}
	conn, err := net.DialTimeout("tcp", p.addr, patience)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	if p.bytewise {
		conn = bytewise{conn}
	}
	p.must(p.UseTLS(conn, p.tls))
}

// turnedAway makes sure that the server answers one more connection with a 1607 and ends
// it.
func turnedAway(t testing.TB, d *daemon) {
	t.Helper()
	if !testpeer.OverTLS() {
		p := connect(t, d, "one too many")
		p.expect(codec.CodeError)
		p.expectEnd()
		return
	}
	conn, err := net.DialTimeout("tcp", d.addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := new(testpeer.Conn).UseTLS(conn, testpeer.Switched()); !testpeer.Refused(err, codec.CodeError) {
		t.Errorf("one too many: %v", err)
	}
}

// must ends the test if there is an error.
func (p *peer) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%s: %v", p.Name, err)
	}
}

// send writes the messages, each at once.
func (p *peer) send(messages ...[]byte) {
	p.t.Helper()
	p.must(p.Send(messages...))
}

// expect reads a reply, which must have that code.
func (p *peer) expect(code codec.Code) []byte {
	p.t.Helper()
	payload, err := p.Want(code)
	p.must(err)
	return payload
}

// expectID reads a reply with a client id, which must be the peer's own.
func (p *peer) expectID(code codec.Code) {
	p.t.Helper()
	p.must(p.WantID(code))
}

// expectEnd makes sure that the server ends the connection, and not by a reset.
// Then it hangs up as well: the server waits for that, a while.
func (p *peer) expectEnd() {
	p.t.Helper()
	if code, _, err := p.Read(); err != io.EOF {
		p.t.Fatalf("%s: a %v, %v; want the end of the connection", p.Name, code, err)
	}
	p.Close()
}

func (p *peer) signUp()   { p.t.Helper(); p.must(p.SignUp()) }
func (p *peer) exchange() { p.t.Helper(); p.must(p.Exchange()) }
func (p *peer) rejoin()   { p.t.Helper(); p.must(p.Rejoin()) }

// cut cuts a file into packets with size bytes of content each, the last
// one short; 0 is all in one.
func cut(f *testpeer.File, size int) []testpeer.Packet {
	if size == 0 {
		return f.Packets(testpeer.Single, 0)
	}
	return f.Packets(testpeer.Spec, size)
}

// sendPackets sends packets without copying them.
func (p *peer) sendPackets(packets []testpeer.Packet) {
	p.t.Helper()
	p.must(p.SendPackets(packets))
}

// expectReceived reads the 1603 of f, which must have the right checksum.
func (p *peer) expectReceived(f *testpeer.File) {
	p.t.Helper()
	p.must(p.Received(f))
}

// confirm sends a 1029 and waits for the 1604.
func (p *peer) confirm(name string) {
	p.t.Helper()
	p.must(p.Confirm(name))
}

// upload sends a file in one packet and has it stored.
func (p *peer) upload(name string, content []byte) {
	p.t.Helper()
	f := p.File(name, content)
	p.must(p.Upload(f, len(f.Ciphertext)))
}

// settle returns when the server has dealt with all that was sent: a 1031 about
// a file that nobody has is answered, and in its turn.
func (p *peer) settle() {
	p.t.Helper()
	p.send(p.Verdict(codec.CodeAbort, "no such file"))
	p.expectID(codec.CodeAck)
}

// orders are the ways in which packets may be put on the wire.
var orders = []struct {
	name string
	put  func([]testpeer.Packet)
}{
	{"in order", func([]testpeer.Packet) {}},
	{"shuffled", func(p []testpeer.Packet) {
		rand.New(rand.NewPCG(1, uint64(len(p)))).Shuffle(len(p), func(i, j int) { p[i], p[j] = p[j], p[i] })
	}},
	{"reversed", slices.Reverse[[]testpeer.Packet]},
}
