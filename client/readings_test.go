package client_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"sealift/client"
	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/internal/fakeserver"
)

// readings is how one server reads the documents.
type readings struct {
	codes    string // "1025", "825" or "both"
	unknown  string // what it does about what it does not take
	dialect  string // of takesDialect
	size1603 string // what Content Size is in the 1603: "file", "ciphertext", "packet"
	rejected string // "", or what a 1606 does for a client that was forgotten: "refuses", "registers"
	empty    bool   // 1604 without payload
	ends     bool   // the connection, after each 1604
	acks1030 bool
	byteWise bool
	size     int // of the file, in bytes
}

// wire is a network in memory with one listener. Its connections wait without a
// socket, so that synctest's clock runs while a client waits for a server.
type wire struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newWire() *wire { return &wire{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (w *wire) dial() (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case w.conns <- far:
		return near, nil
	case <-w.closed:
		return nil, syscall.ECONNREFUSED
	}
}

func (w *wire) dialContext(context.Context, string, string) (net.Conn, error) { return w.dial() }

func (w *wire) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

// Addr is one that a client can be told to connect to.
func (w *wire) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1256} }

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func randomReadings(r *rand.Rand) readings {
	coin := func() bool { return r.IntN(2) == 0 }
	var dialects []string
	for _, d := range takesDialect {
		dialects = append(dialects, d.name)
	}
	return readings{
		codes: pick(r, "1025", "825", "both"), unknown: pick(r, answer1607, closeIt, sayNothing), dialect: pick(r, dialects...),
		size1603: pick(r, "file", "ciphertext", "packet"), rejected: pick(r, "", "refuses", "registers"),
		empty: coin(), ends: coin(), acks1030: coin(), byteWise: coin(),
		size: pick(r, 0, 1, 16, 500, 4000, 10_001, 65_536),
	}
}

// Fields of a packet, and its content.
func contentSize(m []byte) int { return int(binary.LittleEndian.Uint32(m[23:])) }
func origSize(m []byte) int    { return int(binary.LittleEndian.Uint32(m[27:])) }
func total(m []byte) uint16    { return binary.LittleEndian.Uint16(m[33:]) }
func body(m []byte) int        { return len(m) - 23 - 267 }

// whole reports whether Content Size is that of the whole ciphertext.
func whole(m []byte) bool { return contentSize(m) == int(aescbc.CiphertextSize(int64(origSize(m)))) }

// takesDialect has the packets that servers take. The last takes none.
var takesDialect = []struct {
	name  string
	takes func(m []byte) bool
}{
	{"spec", func(m []byte) bool { return number(m) > 0 && whole(m) && body(m) <= contentSize(m) }},
	{"spec, small packets", func(m []byte) bool { return number(m) > 0 && whole(m) && body(m) <= min(1024, contentSize(m)) }},
	{"single", func(m []byte) bool { return number(m) == 1 && total(m) == 1 && body(m) == contentSize(m) && whole(m) }},
	{"padded", func(m []byte) bool { return number(m) > 0 && whole(m) && body(m) == 1024 }},
	{"zero-based", func(m []byte) bool { return number(m) < total(m) && whole(m) && body(m) == 1024 }},
	{"zero-based-short", func(m []byte) bool {
		return number(m) < total(m) && whole(m) && (number(m) < total(m)-1 || body(m) != 1024)
	}},
	{"per-packet", func(m []byte) bool { return number(m) > 0 && whole(m) && body(m) == contentSize(m) }},
	{"packet-size", func(m []byte) bool { return number(m) > 0 && contentSize(m) == body(m) }},
	{"none", func([]byte) bool { return false }},
}

// play starts such a server. The client reaches it by outer; whoever dials inner
// is taken at his word.
func (r readings) play(t *testing.T, outer, inner *wire) (*fakeserver.Server, *picky) {
	s := fakeserver.On(t, inner)
	s.ByteWise, s.CloseAfterAck, s.Ack1030, s.RegisterAt1606 = r.byteWise, r.ends, r.acks1030, r.rejected == "registers"
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		switch {
		case m.Code == codec.CodeSendFile && r.size1603 != "file":
			size := uint32(m.Body)
			if r.size1603 == "ciphertext" {
				size = uint32(aescbc.CiphertextSize(int64(binary.LittleEndian.Uint32(right[23:]))))
			}
			binary.LittleEndian.PutUint32(right[23:], size)
		case r.empty && codec.Code(binary.LittleEndian.Uint16(right[1:])) == codec.CodeAck:
			return []byte{codec.Version, 0x44, 0x06, 0, 0, 0, 0}
		}
		return right
	}
	takesCode := map[string]func([]byte) bool{"1025": first, "825": later, "both": both}[r.codes]
	takes := takesDialect[0].takes
	for _, d := range takesDialect {
		if d.name == r.dialect {
			takes = d.takes
		}
	}
	return s, newPickyOn(t, outer, inner.dial, func(m []byte) bool { return takesCode(m) && (!isPacket(m) || takes(m)) }, r.unknown)
}

// check sends a file as a new client and as one that comes back, or that the
// server has forgotten, and is told nothing about the server.
func (r readings) check(t *testing.T) error {
	outer, inner := newWire(), newWire()
	s, p := r.play(t, outer, inner)
	bystander := options(s) // so that ids that are given out later are others than ours
	bystander.Name, bystander.DialContext = "bystander", inner.dialContext
	login(t, bystander).Close()
	o := adaptive(p, t.TempDir())
	o.DialContext = outer.dialContext
	for run := range 2 {
		if run == 1 && r.rejected != "" {
			s.ForgetClients()
			s.ForgetName(o.Name)
		}
		content := pattern(r.size + run)
		err := sendAll(o, content)
		if r.dialect == "none" {
			if !errors.Is(err, client.ErrNoDialect) {
				return fmt.Errorf("%v, want what tells that it takes no dialect", err)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("run %d: %w", run+1, err)
		}
		if got, _ := s.Stored("f"); !bytes.Equal(got, content) {
			return fmt.Errorf("run %d: another content was stored", run+1)
		}
	}
	return nil
}

// A server that combines readings that each are met is served without options.
// One that takes no dialect is refused, and the reason says so.
func TestCombinationsOfReadings(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 0))
	for i := range 200 {
		r := randomReadings(random)
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if err := r.check(t); err != nil {
					t.Errorf("%+v: %v", r, err)
				}
			})
		})
	}
}
