//go:build unix

package e2e

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/crypto/keys"
)

// rsaKey is the key of every peer: making one takes a while.
var rsaKey = sync.OnceValues(keys.Generate)

// otherKey is nobody's.
var otherKey = sync.OnceValues(keys.Generate)

// publicKey is a key as it goes over the wire.
func publicKey(t testing.TB, key func() (*rsa.PrivateKey, error)) []byte {
	t.Helper()
	priv, err := key()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := keys.MarshalPublic(&priv.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return pub[:]
}

// peer is a client of which the test decides every byte: it sends what it is
// told to, and the test says what has to come back. Its methods end the test
// where something else comes.
type peer struct {
	t    testing.TB
	addr string // of the server
	name string
	id   codec.ClientID
	key  [keys.AESKeySize]byte

	conn     net.Conn
	dec      codec.ResponseDecoder
	in       []byte // received and not decoded
	bytewise bool   // each byte in a write of its own
}

// connect returns a peer with a connection, and without an id.
func connect(t testing.TB, d *daemon, name string) *peer {
	t.Helper()
	p := &peer{t: t, addr: d.addr, name: name}
	p.dial()
	return p
}

// login returns a peer that can send files.
func login(t testing.TB, d *daemon, name string) *peer {
	t.Helper()
	p := connect(t, d, name)
	p.register()
	p.exchange()
	return p
}

// dial makes a new connection, in the place of the old one if there is one.
func (p *peer) dial() {
	p.t.Helper()
	if p.conn != nil {
		p.conn.Close()
	}
	conn, err := net.DialTimeout("tcp", p.addr, patience)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	p.conn, p.dec, p.in = conn, codec.ResponseDecoder{}, nil
}

// send writes the messages, each at once.
func (p *peer) send(messages ...[]byte) {
	p.t.Helper()
	if err := p.trySend(messages...); err != nil {
		p.t.Fatalf("%s: sending: %v", p.name, err)
	}
}

func (p *peer) trySend(messages ...[]byte) error {
	_ = p.conn.SetWriteDeadline(time.Now().Add(patience))
	for _, m := range messages {
		if !p.bytewise {
			if _, err := p.conn.Write(m); err != nil {
				return err
			}
			continue
		}
		for i := range m {
			if _, err := p.conn.Write(m[i : i+1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// reply is a whole reply of the server.
type reply struct {
	code    codec.Code
	payload []byte
}

// tryReply reads a reply. io.EOF says that the server has ended the connection
// in good order, between two replies.
func (p *peer) tryReply() (reply, error) {
	buf := make([]byte, 4096)
	for partial := false; ; {
		r, n, ok, err := p.dec.Next(p.in)
		p.in = p.in[n:]
		if ok || err != nil {
			return reply{r.Header.Code, bytes.Clone(r.Payload)}, err
		}
		partial = partial || n > 0
		_ = p.conn.SetReadDeadline(time.Now().Add(patience))
		n, err = p.conn.Read(buf)
		p.in = append(p.in, buf[:n]...)
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) && partial {
				err = io.ErrUnexpectedEOF
			}
			return reply{}, err
		}
	}
}

// expect reads a reply, which must have that code.
func (p *peer) expect(code codec.Code) []byte {
	p.t.Helper()
	r, err := p.tryReply()
	if err != nil {
		p.t.Fatalf("%s: %v where a %v was due", p.name, err, code)
	}
	if r.code != code {
		p.t.Fatalf("%s: a %v came where a %v was due", p.name, r.code, code)
	}
	return r.payload
}

// expectID reads a reply with a client id, which must be the peer's own.
func (p *peer) expectID(code codec.Code) {
	p.t.Helper()
	if r, err := codec.ParseIDReply(code, p.expect(code)); err != nil || r.ID != p.id {
		p.t.Fatalf("%s: a %v with id %v, %v; want %v", p.name, code, r.ID, err, p.id)
	}
}

// expectEnd makes sure that the server ends the connection, and not by a reset.
// Then it hangs up as well: the server waits for that, a while.
func (p *peer) expectEnd() {
	p.t.Helper()
	if r, err := p.tryReply(); err != io.EOF {
		p.t.Fatalf("%s: a %v, %v; want the end of the connection", p.name, r.code, err)
	}
	p.conn.Close()
}

// The requests of this peer, as bytes.

func (p *peer) msgRegister() []byte { return codec.Register{Name: []byte(p.name)}.Append(nil) }

func (p *peer) msgPublicKey() []byte {
	return codec.PublicKey{Name: []byte(p.name), Key: publicKey(p.t, rsaKey)}.Append(nil, p.id)
}

func (p *peer) msgReconnect() []byte {
	return codec.Reconnect{Name: []byte(p.name)}.Append(nil, p.id)
}

func (p *peer) msgVerdict(code codec.Code, file string) []byte {
	return codec.Verdict{Code: code, FileName: []byte(file)}.Append(nil, p.id)
}

func (p *peer) register() {
	p.t.Helper()
	p.send(p.msgRegister())
	r, err := codec.ParseIDReply(codec.CodeRegistered, p.expect(codec.CodeRegistered))
	if err != nil || r.ID.IsZero() {
		p.t.Fatalf("registered as %v, %v", r.ID, err)
	}
	p.id = r.ID
}

func (p *peer) exchange() {
	p.t.Helper()
	p.send(p.msgPublicKey())
	p.takeKey(codec.CodeAESKey)
}

func (p *peer) reconnect() {
	p.t.Helper()
	p.send(p.msgReconnect())
	p.takeKey(codec.CodeReconnected)
}

func (p *peer) takeKey(code codec.Code) {
	p.t.Helper()
	r, err := codec.ParseKeyReply(code, p.expect(code))
	if err != nil || r.ID != p.id {
		p.t.Fatalf("%v for %v, %v", code, r.ID, err)
	}
	priv, err := rsaKey()
	if err != nil {
		p.t.Fatal(err)
	}
	if p.key, err = keys.Unwrap(priv, r.WrappedKey); err != nil {
		p.t.Fatal(err)
	}
}

// file is a file that a peer has encrypted.
type file struct {
	name       string
	content    []byte
	sum        uint32
	ciphertext []byte
}

// encrypt encrypts a file under the AES key that the peer has now.
func (p *peer) encrypt(name string, content []byte) *file {
	f := &file{name: name, content: content, sum: cksum.Checksum(content)}
	f.ciphertext = make([]byte, aescbc.CiphertextSize(int64(len(content))))
	aescbc.NewEncrypter(&p.key).Final(f.ciphertext, content)
	return f
}

// packet is a 1028. Its body is a part of the file's ciphertext, and not a copy.
type packet struct{ head, body []byte }

func (k packet) bytes() []byte { return slices.Concat(k.head, k.body) }

// packets cuts a file into packets with size bytes of content each, the last
// one short; 0 is all in one.
func (p *peer) packets(f *file, size int) []packet {
	if size == 0 {
		size = len(f.ciphertext)
	}
	total := (len(f.ciphertext) + size - 1) / size
	all := make([]packet, 0, total)
	for body := range slices.Chunk(f.ciphertext, size) {
		m := codec.SendFile{
			ContentSize: uint32(len(f.ciphertext)), OrigSize: uint32(len(f.content)),
			Packet: uint16(len(all) + 1), Total: uint16(total), FileName: []byte(f.name),
		}
		all = append(all, packet{m.Append(nil, p.id, uint32(len(body))), body})
	}
	return all
}

// sendPackets sends packets without copying them.
func (p *peer) sendPackets(packets []packet) {
	p.t.Helper()
	if p.bytewise {
		for _, k := range packets {
			p.send(k.bytes())
		}
		return
	}
	for part := range slices.Chunk(packets, 512) {
		var b net.Buffers
		for _, k := range part {
			b = append(b, k.head, k.body)
		}
		_ = p.conn.SetWriteDeadline(time.Now().Add(patience))
		if _, err := b.WriteTo(p.conn); err != nil {
			p.t.Fatalf("%s: sending %q: %v", p.name, packets[0].head[35:60], err)
		}
	}
}

// expectReceived reads the 1603 of f, which must have the right checksum.
func (p *peer) expectReceived(f *file) {
	p.t.Helper()
	p.checkReceived(p.expect(codec.CodeFileReceived), f)
}

func (p *peer) checkReceived(payload []byte, f *file) {
	p.t.Helper()
	r, err := codec.ParseFileReceived(payload)
	if err != nil {
		p.t.Fatal(err)
	}
	got := fmt.Sprintf("%v %q %d bytes, cksum %d", r.ID, r.FileName, r.ContentSize, r.Cksum)
	want := fmt.Sprintf("%v %q %d bytes, cksum %d", p.id, f.name, len(f.content), f.sum)
	if got != want {
		p.t.Fatalf("received %s, want %s", got, want)
	}
}

// confirm sends a 1029 and waits for the 1604.
func (p *peer) confirm(name string) {
	p.t.Helper()
	p.send(p.msgVerdict(codec.CodeCRCOK, name))
	p.expectID(codec.CodeAck)
}

// upload sends a file in one packet and has it stored.
func (p *peer) upload(name string, content []byte) {
	p.t.Helper()
	f := p.encrypt(name, content)
	p.sendPackets(p.packets(f, 0))
	p.expectReceived(f)
	p.confirm(name)
}

// settle returns when the server has dealt with all that was sent: a 1031 about
// a file that nobody has is answered, and in its turn.
func (p *peer) settle() {
	p.t.Helper()
	p.send(p.msgVerdict(codec.CodeAbort, "no such file"))
	p.expectID(codec.CodeAck)
}

// orders are the ways in which packets may be put on the wire.
var orders = []struct {
	name string
	put  func([]packet)
}{
	{"in order", func([]packet) {}},
	{"shuffled", func(p []packet) {
		rand.New(rand.NewPCG(1, uint64(len(p)))).Shuffle(len(p), func(i, j int) { p[i], p[j] = p[j], p[i] })
	}},
	{"reversed", slices.Reverse[[]packet]},
}
