//go:build unix

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"testing"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// state is what a connection can be in, see docs/PROTOCOL.md section 8.
type state int

const (
	fresh state = iota
	named
	ready
)

func (s state) String() string { return [...]string{"fresh", "named", "ready"}[s] }

// inState returns a peer, of d's test, whose connection is in that state. In
// fresh it has been here before: its id has an AES key, and a file is stored.
func inState(d *daemon, s state, name string) *peer {
	p := connect(d.t, d, name)
	p.signUp()
	if s == named {
		return p
	}
	p.exchange()
	p.upload("stored", []byte("stored"))
	if s == fresh {
		p.dial()
	}
	return p
}

// goesOn makes sure that the connection is as good as it was in that state.
func (p *peer) goesOn(s state) {
	p.t.Helper()
	switch s {
	case fresh:
		p.rejoin()
	case named:
		p.exchange()
	}
	p.upload("goes on", []byte(p.t.Name()))
}

// refusal is a request that gets 1607.
type refusal struct {
	what    string
	in      []state
	request func(p *peer) []byte
	ends    bool // the connection: nobody knows where the next message begins

	undecryptable bool // that is found by decrypting, which ends a connection that resumed
}

var (
	everywhere = []state{fresh, named, ready}
	bound      = []state{named, ready}
)

// as makes a request for another peer than the connection's.
func as(change func(p *peer), request func(*peer) []byte) func(*peer) []byte {
	return func(p *peer) []byte {
		q := *p
		change(&q)
		return request(&q)
	}
}

func noID(p *peer)      { p.ID = codec.ClientID{} }
func otherID(p *peer)   { p.ID[7] ^= 1 }
func wrongName(p *peer) { p.Name += " II" }

// outOfOrder are the rows of the state table that are errors, and requests that
// are right in themselves but not from this client.
func outOfOrder() []refusal {
	file := func(p *peer) []byte { return cut(p.File("f", []byte("hello")), 0)[0].Bytes() }
	verdict := func(code codec.Code, name string) func(p *peer) []byte {
		return func(p *peer) []byte { return p.Verdict(code, name) }
	}
	withKey := func(key []byte) func(p *peer) []byte {
		return func(p *peer) []byte {
			return p.OtherPublicKey(key)
		}
	}
	all := []refusal{
		{what: "1025", in: bound, request: as(wrongName, (*peer).Register)},
		{what: "1025 of the same name", in: bound, request: (*peer).Register},
		{what: "1026 under another name", in: everywhere, request: as(wrongName, (*peer).PublicKey)},
		{what: "1026 of zeros", in: everywhere, request: withKey(make([]byte, codec.PublicKeySize))},
		{what: "1028", in: []state{named}, request: file},
		{what: "1029", in: []state{named}, request: verdict(codec.CodeCRCOK, "stored")},
		{what: "1029 about no file", in: everywhere, request: verdict(codec.CodeCRCOK, "no such file")},
		{what: "1030", in: []state{named}, request: verdict(codec.CodeCRCBad, "stored")},
		{what: "1031", in: []state{named}, request: verdict(codec.CodeAbort, "stored")},
	}
	for _, r := range []refusal{
		{what: "1026", in: everywhere, request: (*peer).PublicKey},
		{what: "1027", in: bound, request: (*peer).Reconnect}, // in fresh: 1606
		{what: "1028", in: everywhere, request: file},
		{what: "1029", in: everywhere, request: verdict(codec.CodeCRCOK, "stored")},
		{what: "1030", in: everywhere, request: verdict(codec.CodeCRCBad, "stored")},
		{what: "1031", in: everywhere, request: verdict(codec.CodeAbort, "stored")},
	} {
		all = append(all,
			refusal{what: r.what + " under another id", in: r.in, request: as(otherID, r.request)},
			refusal{what: r.what + " without an id", in: r.in, request: as(noID, r.request)})
	}
	return all
}

// malformed are messages that are wrong in themselves.
func malformed() []refusal {
	raw := func(version uint8, code uint16, size uint32, payload int) func(*peer) []byte {
		return func(p *peer) []byte {
			h := codec.RequestHeader{ID: p.ID, Version: version, Code: codec.Code(code), PayloadSize: size}
			return append(h.Append(nil), make([]byte, payload)...)
		}
	}
	all := []refusal{
		{what: "version 2", in: everywhere, request: raw(2, 1027, 255, 255)},
		{what: "version 0 without payload", in: everywhere, request: raw(0, 1029, 0, 0)},
		{what: "version 4 in a 1028", in: everywhere, request: raw(4, 1028, 5000, 5000)},
		{what: "code 0", in: everywhere, request: raw(3, 0, 0, 0)},
		{what: "code 1024", in: everywhere, request: raw(3, 1024, 255, 255)},
		{what: "code 1032", in: everywhere, request: raw(3, 1032, 65_536, 65_536)},
		{what: "a reply's code", in: everywhere, request: raw(3, 1604, 16, 16)},
		// These end the connection. Much more than the server reads lies behind
		// them, unread when it closes.
		{what: "code 1032 with 64 KiB and 1", in: everywhere, request: raw(3, 1032, 65_537, 1<<20), ends: true},
		{what: "version 2 with 4 GiB", in: everywhere, request: raw(2, 1028, 1<<32-1, 1<<20), ends: true},
		{what: "1025 with 254", in: everywhere, request: raw(3, 1025, 254, 254), ends: true},
		{what: "1026 with 415 and 2", in: everywhere, request: raw(3, 1026, 417, 417), ends: true},
		{what: "1027 with 4 GiB", in: everywhere, request: raw(3, 1027, 1<<32-1, 1<<20), ends: true},
		{what: "1028 with 266", in: everywhere, request: raw(3, 1028, 266, 266), ends: true},
		{what: "1028 with 0", in: everywhere, request: raw(3, 1028, 0, 0), ends: true},
		{what: "1029 with 256", in: everywhere, request: raw(3, 1029, 256, 1<<20), ends: true},
		{what: "HTTP", in: everywhere, ends: true, request: func(*peer) []byte {
			return []byte("GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\r\n")
		}},
		{what: "TLS", in: bound, ends: true, request: func(*peer) []byte { return spoiltHello() }},
	}
	for _, code := range []uint16{1025, 1026, 1027, 1028, 1029, 1030, 1031} {
		size, at := 255, 0
		switch code {
		case 1026:
			size = 415
		case 1028:
			size, at = 267+16, 12
		}
		for what, name := range map[string]string{
			"empty": "", "without an end": string(bytes.Repeat([]byte("n"), 255)),
			"not printable": "a\nb", "not UTF-8": "caf\xe9",
		} {
			all = append(all, refusal{
				what: fmt.Sprintf("%d with a name that is %s", code, what), in: everywhere,
				request: func(p *peer) []byte {
					b := raw(3, code, uint32(size), size)(p)
					copy(b[codec.RequestHeaderSize+at:], name)
					return b
				},
			})
		}
	}
	return all
}

// badPackets are files whose packets contradict themselves or each other. Each
// has a name of its own: what else comes of a file that was refused is passed
// over in silence.
func badPackets() []refusal {
	in := []state{fresh, ready} // fresh: the client resumes, and then is refused
	one := func(change func(m *codec.SendFile, body *[]byte)) func(*peer) []byte {
		return func(p *peer) []byte {
			f := p.File(p.t.Name(), []byte("hello"))
			m := codec.SendFile{ContentSize: 16, OrigSize: 5, Packet: 1, Total: 1, FileName: []byte(p.t.Name())}
			body := slices.Clone(f.Ciphertext)
			change(&m, &body)
			return p.Packet(m, body).Bytes()
		}
	}
	// two sends a file in two packets, of which the second is changed.
	two := func(change func(m *codec.SendFile, body *[]byte)) func(*peer) []byte {
		return func(p *peer) []byte {
			f := p.File(p.t.Name(), randomBytes(100, 1))
			m := codec.SendFile{ContentSize: 112, OrigSize: 100, Packet: 1, Total: 2, FileName: []byte(p.t.Name())}
			b := append(m.Append(nil, p.ID, 64), f.Ciphertext[:64]...)
			m.Packet = 2
			body := slices.Clone(f.Ciphertext[64:])
			change(&m, &body)
			return append(m.Append(b, p.ID, uint32(len(body))), body...)
		}
	}
	return []refusal{
		{what: "no packets", in: in, request: one(func(m *codec.SendFile, _ *[]byte) { m.Total = 0 })},
		{what: "packet 2 of 1", in: in, request: one(func(m *codec.SendFile, _ *[]byte) { m.Packet = 2 })},
		{what: "a packet without content", in: in, request: one(func(_ *codec.SendFile, b *[]byte) { *b = nil })},
		{what: "Content Size 0", in: in, request: one(func(m *codec.SendFile, _ *[]byte) { m.ContentSize = 0 })},
		{what: "Content Size 32", in: in, request: one(func(m *codec.SendFile, _ *[]byte) { m.ContentSize = 32 })},
		{what: "Content Size 17", in: in, request: one(func(m *codec.SendFile, b *[]byte) { m.ContentSize = 17; *b = append(*b, 0) })},
		{what: "Orig File Size 4", in: in, undecryptable: true, request: one(func(m *codec.SendFile, _ *[]byte) { m.OrigSize = 4 })},
		{what: "Orig File Size 4 GiB", in: in, request: one(func(m *codec.SendFile, _ *[]byte) { m.OrigSize = 1<<32 - 1 })},
		{what: "another key", in: in, undecryptable: true, request: one(func(_ *codec.SendFile, b *[]byte) { (*b)[3] ^= 1 })},
		{what: "something behind the ciphertext", in: in, request: one(func(_ *codec.SendFile, b *[]byte) { *b = append(*b, 1) })},
		{what: "another Total in packet 2", in: in, request: two(func(m *codec.SendFile, _ *[]byte) { m.Total = 3 })},
		{what: "packet 3 of 2", in: in, request: two(func(m *codec.SendFile, _ *[]byte) { m.Packet = 3 })},
		{what: "another Content Size in packet 2", in: in, request: two(func(m *codec.SendFile, _ *[]byte) { m.ContentSize = 128 })},
		{what: "another Orig File Size in packet 2", in: in, request: two(func(m *codec.SendFile, _ *[]byte) { m.OrigSize = 99 })},
		{what: "packets that are too short", in: in, request: two(func(_ *codec.SendFile, b *[]byte) { *b = (*b)[1:] })},
		{what: "a spoiled second packet", in: in, undecryptable: true, request: two(func(_ *codec.SendFile, b *[]byte) { clear(*b) })},
		{what: "1029 in the middle of the file", in: in, request: func(p *peer) []byte {
			first := cut(p.File(p.t.Name(), randomBytes(100, 1)), 64)[0].Bytes()
			return append(first, p.Verdict(codec.CodeCRCOK, p.t.Name())...)
		}},
	}
}

// spoiltHello begins as a ClientHello does.
func spoiltHello() []byte {
	return append([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), randomBytes(506, 1)...)
}

// What begins a connection as TLS does and makes no sense gets an alert, and without
// TLS a 1607. Others go on.
func TestAHelloThatMakesNoSense(t *testing.T) {
	t.Parallel()
	d := serve(t)
	bystander := login(t, d, "bystander")
	p := connectOver(t, d, "no client", nil)
	p.send(spoiltHello())
	// An alert is 15 03 0x 00 02, its level and what it says (RFC 8446, 6).
	if got, err := io.ReadAll(p.Net); err != nil || len(got) != 7 || got[0] != 0x15 || got[1] != 3 {
		t.Errorf("the answer is % x, %v", got, err)
	}
	p.Close()
	bystander.settle()

	off := connectOver(t, serve(t, "--tls", "off"), "no client", nil)
	off.send(spoiltHello())
	off.expect(codec.CodeError)
	off.expectEnd()
}

// Whatever is wrong gets one 1607, which arrives also where the connection ends
// after it, and harms nobody else.
func TestRefusals(t *testing.T) {
	t.Parallel()
	d := serve(t)
	bystander := login(t, d, "bystander")
	peers := map[state]*peer{} // refusals do them no harm, so one of each will do
	count := 0
	try := func(r refusal, s state) {
		t.Run(fmt.Sprintf("%v/%s", s, r.what), func(t *testing.T) {
			p := peers[s]
			if p == nil || s == named {
				count++
				p = inState(d, s, fmt.Sprint("client ", count))
			}
			peers[s] = nil
			p.t, bystander.t = t, t
			if s == fresh {
				p.dial()
			}
			p.send(r.request(p))
			p.expect(codec.CodeError)
			ends := r.ends || r.undecryptable && s == fresh
			if ends {
				p.expectEnd()
				p.dial()
				switch s {
				case named: // its connection was all it had
					p.Name += " again"
					p.signUp()
				case ready:
					p.rejoin()
				}
			}
			p.goesOn(s)
			bystander.settle()
			if s != named {
				checkFile(t, d.stored(p.ID, "stored"), bytes.NewReader([]byte("stored")))
			}
			if !ends {
				peers[s] = p
			}
		})
	}
	for _, r := range slices.Concat(outOfOrder(), malformed(), badPackets()) {
		for _, s := range r.in {
			try(r, s)
		}
	}
	// Another key, once there is one.
	for _, s := range []state{fresh, ready} {
		try(refusal{what: "1026 with another key", request: func(p *peer) []byte {
			return p.OtherPublicKey(otherKey())
		}}, s)
	}
	// A client that registered and never sent its key has nothing to resume.
	for _, request := range []func(*peer) []byte{
		func(p *peer) []byte { return cut(p.File("f", nil), 0)[0].Bytes() },
		func(p *peer) []byte { return p.Verdict(codec.CodeCRCOK, "f") },
		func(p *peer) []byte { return p.Verdict(codec.CodeCRCBad, "f") },
		func(p *peer) []byte { return p.Verdict(codec.CodeAbort, "f") },
	} {
		count++
		p := connect(t, d, fmt.Sprint("client ", count))
		p.signUp()
		p.dial()
		p.send(request(p))
		p.expect(codec.CodeError)
		p.goesOn(named)
	}
	bystander.t = t
	bystander.upload("file", []byte("content"))
	run(t, d.dir, sealiftd, "verify", "--dir", d.dir).succeeded(t)
	if p := peers[ready]; p != nil {
		p.Close() // it has a file under way
	}
	eventually(t, "nothing is left behind", func() bool {
		return len(d.incoming()) == 0
	})
}

// The limits that the flags set.
func TestLimits(t *testing.T) {
	d := serve(t, "--max-file-size", "1000", "--max-uploads-per-connection", "2", "--max-connections", "3")
	p := login(t, d, "n")
	p.upload("1000", make([]byte, 1000))
	p.sendPackets(cut(p.File("1001", make([]byte, 1001)), 100)[:1])
	p.expect(codec.CodeError) // to the first packet already

	var begun []*testpeer.File
	for i := range 3 {
		f := p.File(fmt.Sprint(i), make([]byte, 100))
		begun = append(begun, f)
		p.sendPackets(cut(f, 50)[:1])
	}
	p.expect(codec.CodeError) // the third
	for _, f := range begun[:2] {
		p.sendPackets(cut(f, 50)[1:])
		p.expectReceived(f)
		p.confirm(f.Name)
	}

	others := []*peer{connect(t, d, "a"), connect(t, d, "b")}
	turnedAway(t, d)
	for _, o := range others {
		o.signUp()
	}
	p.upload("goes on", nil)
}
