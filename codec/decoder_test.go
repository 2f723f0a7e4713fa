package codec_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"sealift/codec"
)

// requestHeader builds a header by hand.
func requestHeader(version byte, code uint16, size uint32) []byte {
	return slices.Concat(id[:], []byte{
		version,
		byte(code), byte(code >> 8),
		byte(size), byte(size >> 8), byte(size >> 16), byte(size >> 24),
	})
}

func responseHeader(version byte, code uint16, size uint32) []byte {
	return requestHeader(version, code, size)[16:]
}

// A wrong size is found in the header: no byte of the payload is needed, and
// none is believed to be a message.
func TestWrongSizeIsRefusedBeforeThePayload(t *testing.T) {
	right := map[uint16]uint32{1025: 255, 1026: 415, 1027: 255, 1028: 267, 1029: 255, 1030: 255, 1031: 255}
	for later, code := range laterCodes {
		right[later] = right[uint16(code)]
	}
	for code, size := range right {
		wrong := []uint32{0, 1, size - 1}
		if size != 267 { // 1028 and 828 have content on top
			wrong = append(wrong, size+1, size+256, 1<<31, 1<<32-1)
		}
		for _, w := range wrong {
			header := requestHeader(3, code, w)
			var d codec.RequestDecoder
			if _, n, err := d.Next(header[:22]); err != nil || n != 22 {
				t.Fatalf("%d: error %v before the header is whole", code, err)
			}
			_, n, err := d.Next(header[22:])
			wantError(t, "first call", err, codec.ErrSize)
			if n != 1 {
				t.Errorf("%d with size %d: took %d bytes", code, w, n)
			}
			again, n, err2 := d.Next(requestVectors[0].wire())
			if again.Kind != codec.NeedMore || n != 0 || !errors.Is(err2, codec.ErrSize) {
				t.Errorf("%d with size %d goes on: kind %d, %d bytes taken, error %v", code, w, again.Kind, n, err2)
			}
		}
	}
	for _, v := range replyVectors {
		size := uint32(len(unhex(v.payloadHex())))
		for _, w := range []uint32{0, size - 1, size + 1, size + 256, 255, 1<<32 - 1} {
			if w == size {
				continue
			}
			var d codec.ResponseDecoder
			_, n, ok, err := d.Next(responseHeader(3, uint16(v.code), w))
			wantError(t, v.name, err, codec.ErrSize)
			if _, _, _, err2 := d.Next(replyVectors[0].wire()); ok || n != 7 || err2 != err {
				t.Errorf("%s with size %d: ok %v, %d bytes taken, then %v", v.name, w, ok, n, err2)
			}
		}
	}
}

// The largest 1028 there can be is taken, without room being made for it.
func TestLargestContent(t *testing.T) {
	var d codec.RequestDecoder
	wire := append(requestHeader(3, 1028, 1<<32-1), unhex(requestVectors[3].payloadHex())...)
	ev, _, err := d.Next(wire)
	if err != nil || ev.Kind != codec.Message || ev.ContentSize != 1<<32-1-267 {
		t.Fatalf("kind %d, ContentSize %d, error %v", ev.Kind, ev.ContentSize, err)
	}
	piece := make([]byte, 1<<20)
	for left := int64(1<<32 - 1 - 267); left > 0; {
		ev, n, err := d.Next(piece)
		left -= int64(n)
		if err != nil || ev.Kind != codec.Content || len(ev.Content) != n || n == 0 || ev.End != (left == 0) {
			t.Fatalf("%d bytes left: kind %d, %d of %d bytes, end %v, error %v", left, ev.Kind, len(ev.Content), n, ev.End, err)
		}
	}
	if d.InContent() || d.InMessage() {
		t.Error("the message goes on behind its last byte")
	}
}

// A message that is not understood is passed over if its size is believable;
// otherwise the stream is lost, which the error says.
func TestUnknownCodeAndWrongVersion(t *testing.T) {
	register := requestVectors[0].wire()
	cases := []struct {
		what    string
		version byte
		code    uint16
		size    uint32
		cause   error
		inStep  bool
	}{
		{"unknown code, no payload", 3, 1033, 0, codec.ErrCode, true},
		{"somebody else's 1032, no payload", 3, 1032, 0, codec.ErrCode, true},
		{"somebody else's 1032, a byte short", 3, 1032, 262, codec.ErrCode, true},
		{"somebody else's 1032, a byte more", 3, 1032, 264, codec.ErrCode, true},
		{"somebody else's 1032, more than is passed over", 3, 1032, 65537, codec.ErrCode, false},
		{"1032 in big-endian, the size is not", 3, 0x0804, 263, codec.ErrByteOrder, true},
		{"unknown code", 3, 1024, 255, codec.ErrCode, true},
		{"unknown code, the most that is passed over", 3, 0, 65536, codec.ErrCode, true},
		{"unknown code, more than that", 3, 0, 65537, codec.ErrCode, false},
		{"unknown code, 4 GiB", 3, 65535, 1<<32 - 1, codec.ErrCode, false},
		{"a reply's code", 3, 1607, 0, codec.ErrCode, true},
		{"next to the later edition's codes", 3, 829, 7, codec.ErrCode, true},
		{"a code in big-endian, the size is not", 3, 0x3903, 255, codec.ErrByteOrder, true},
		{"a code in big-endian, without a size", 3, 0x0704, 0, codec.ErrByteOrder, true},
		{"version 2", 2, 1025, 255, codec.ErrVersion, true},
		{"version 0, no payload", 0, 1025, 0, codec.ErrVersion, true},
		{"version 4, a size that v3 does not have", 4, 1029, 1000, codec.ErrVersion, true},
		{"version 51, as text has it", '3', 1028, 1 << 20, codec.ErrVersion, false},
		{"version before code", 1, 9, 9, codec.ErrVersion, true},
	}
	for _, c := range cases {
		var d codec.RequestDecoder
		wire := slices.Concat(requestHeader(c.version, c.code, c.size), make([]byte, min(c.size, 1<<17)), register)
		_, n, err := d.Next(wire)
		var e *codec.Error
		if !errors.As(err, &e) || !errors.Is(err, c.cause) || e.InStep != c.inStep || n != 23 ||
			c.cause != codec.ErrByteOrder && uint16(e.Code) != c.code {
			t.Errorf("%s: took %d bytes, error %+v", c.what, n, err)
			continue
		}
		ev, _, err := d.Next(wire[n:])
		if c.inStep && (err != nil || ev.Kind != codec.Message || ev.Header.Code != codec.CodeRegister) {
			t.Errorf("%s: then kind %d, %v, error %v; want the next message", c.what, ev.Kind, ev.Header, err)
		}
		if !c.inStep && err != e {
			t.Errorf("%s: then %v, want the same error again", c.what, err)
		}
	}
	for _, c := range []struct {
		header []byte
		cause  error
	}{
		{responseHeader(3, 1599, 0), codec.ErrCode},
		{responseHeader(3, 1609, 0), codec.ErrCode},
		{responseHeader(3, 1608, 0), codec.ErrSize},
		{responseHeader(3, 1025, 255), codec.ErrCode},
		{responseHeader(2, 1601, 0), codec.ErrVersion},
		{[]byte("HTTP/1."), codec.ErrVersion},
	} {
		var d codec.ResponseDecoder
		_, _, ok, err := d.Next(c.header)
		if _, _, _, again := d.Next(nil); ok || !errors.Is(err, c.cause) || again != err {
			t.Errorf("%x: ok %v, error %v, then %v", c.header, ok, err, again)
		}
	}
}

// A field that came whole is handed on where it lies.
func TestWholeFieldsAreNotCopied(t *testing.T) {
	wire := requestVectors[3].wire()
	var d codec.RequestDecoder
	ev, n, _ := d.Next(wire)
	if &ev.Payload[0] != &wire[23] {
		t.Error("the payload was copied")
	}
	if ev, _, _ = d.Next(wire[n:]); &ev.Content[0] != &wire[n] {
		t.Error("the content was copied")
	}
	m, _ := codec.ParseSendFile(wire[23 : 23+267])
	if &m.FileName[0] != &wire[23+12] {
		t.Error("the name was copied")
	}
}

// A decoder belongs to a connection, and there are tens of thousands of them:
// 512 bytes is a size class of Go's allocator, and 415 of them are the longest
// payload that has to be kept.
func TestDecoderIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(codec.RequestDecoder{}); size > 512 {
		t.Errorf("a RequestDecoder has %d bytes, want at most 512", size)
	}
}

// The messages of a session, decoded, parsed and written, without garbage.
func TestNoAllocationPerMessage(t *testing.T) {
	var requests, replies []byte
	for _, v := range requestVectors {
		requests = append(requests, v.wire()...)
	}
	for _, v := range replyVectors {
		replies = append(replies, v.wire()...)
	}
	out := make([]byte, 0, 1024)
	var reqs codec.RequestDecoder
	var resps codec.ResponseDecoder
	for _, chunk := range []int{1, 7, 100, 1 << 20} {
		messages := 0
		allocs := testing.AllocsPerRun(10, func() {
			for part := range slices.Chunk(requests, chunk) {
				for len(part) > 0 {
					ev, n, err := reqs.Next(part)
					if err == nil && ev.Kind == codec.Message {
						out, err = rewriteRequest(out[:0], ev.Header, ev.Payload)
						messages++
					}
					if err != nil {
						t.Fatal(err)
					}
					part = part[n:]
				}
			}
			for part := range slices.Chunk(replies, chunk) {
				for len(part) > 0 {
					r, n, ok, err := resps.Next(part)
					if ok {
						out, err = rewriteReply(out[:0], r)
						messages++
					}
					if err != nil {
						t.Fatal(err)
					}
					part = part[n:]
				}
			}
		})
		if allocs != 0 || messages != 11*(len(requestVectors)+len(replyVectors)) {
			t.Errorf("in pieces of %d bytes: %v allocations, %d messages", chunk, allocs, messages)
		}
	}
}

// rewriteRequest parses a message and writes it again, without its content.
func rewriteRequest(b []byte, h codec.RequestHeader, payload []byte) ([]byte, error) {
	switch h.Code {
	case codec.CodeRegister:
		m, err := codec.ParseRegister(payload)
		return m.Append(b), err
	case codec.CodePublicKey:
		m, err := codec.ParsePublicKey(payload)
		if err != nil {
			return b, err
		}
		return m.Append(b, h.ID), nil
	case codec.CodeReconnect:
		m, err := codec.ParseReconnect(payload)
		return m.Append(b, h.ID), err
	case codec.CodeSendFile:
		m, err := codec.ParseSendFile(payload)
		return m.Append(b, h.ID, h.PayloadSize-codec.SendFileFieldsSize), err
	case codec.CodeContinue:
		m, err := codec.ParseContinue(payload)
		return m.Append(b, h.ID), err
	default:
		m, err := codec.ParseVerdict(h.Code, payload)
		return m.Append(b, h.ID), err
	}
}

func rewriteReply(b []byte, r codec.Reply) ([]byte, error) {
	switch code := r.Header.Code; code {
	case codec.CodeRegisterFailed, codec.CodeError:
		return codec.EmptyReply{Code: code}.Append(b), nil
	case codec.CodeAESKey, codec.CodeReconnected:
		m, err := codec.ParseKeyReply(code, r.Payload)
		if err != nil {
			return b, err
		}
		return m.Append(b), nil
	case codec.CodeFileReceived:
		m, err := codec.ParseFileReceived(r.Payload)
		return m.Append(b), err
	case codec.CodeContinued:
		m, err := codec.ParseContinued(r.Payload)
		return m.Append(b), err
	default:
		m, err := codec.ParseIDReply(code, r.Payload)
		return m.Append(b), err
	}
}

// The text of an error stands in the server's log and on a client's terminal.
func TestErrorText(t *testing.T) {
	var d codec.RequestDecoder
	_, _, err := d.Next(requestHeader(3, 1026, 1))
	if got, want := err.Error(), "message 1026: the payload size is wrong for the code: 1 declared, 415 wanted"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	err = codec.CheckName("")
	if got, want := err.Error(), "the name cannot be taken: it is empty"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

var sink int

func BenchmarkDecodeSmall(b *testing.B) {
	one := requestVectors[4].wire()
	p := bytes.Repeat(one, 200)
	messages := 0
	b.ReportAllocs()
	var d codec.RequestDecoder
	for b.Loop() {
		for q := p; len(q) > 0; {
			ev, n, err := d.Next(q)
			if err != nil {
				b.Fatal(err)
			}
			m, err := codec.ParseVerdict(ev.Header.Code, ev.Payload)
			if err != nil {
				b.Fatal(err)
			}
			sink += len(m.FileName)
			messages++
			q = q[n:]
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(messages), "ns/msg")
}

// Content in packets of 1024 bytes and of 64 KiB, as a socket gives it: 64 KiB
// at a time.
func BenchmarkDecodeContent(b *testing.B) {
	for _, packet := range []struct {
		name string
		size uint32
	}{{"packets=1024", 1024}, {"packets=65536", 65536}} {
		b.Run(packet.name, func(b *testing.B) {
			m := codec.SendFile{ContentSize: 1 << 30, OrigSize: 1<<30 - 1, Packet: 1, Total: 9, FileName: []byte("f")}
			one := append(m.Append(nil, id, packet.size), make([]byte, packet.size)...)
			p := bytes.Repeat(one, (1<<22)/len(one)+1)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			var d codec.RequestDecoder
			for b.Loop() {
				for part := range slices.Chunk(p, 1<<16) {
					for len(part) > 0 {
						ev, n, err := d.Next(part)
						if err != nil {
							b.Fatal(err)
						}
						if ev.Kind == codec.Message {
							if _, err := codec.ParseSendFile(ev.Payload); err != nil {
								b.Fatal(err)
							}
						}
						sink += len(ev.Content)
						part = part[n:]
					}
				}
			}
		})
	}
}

// A header in big-endian is told from an unknown code, and the decoder does not
// believe its size. 1028 is not among them: its code is the same in both orders.
func TestBigEndianHeader(t *testing.T) {
	for code, size := range map[uint16]uint32{
		1025: 255, 1026: 415, 1027: 255, 1029: 255, 1030: 255, 1031: 255,
		825: 255, 826: 415, 827: 255, 828: 1 << 24, 900: 255, 901: 255, 902: 255,
	} {
		h := requestHeader(3, code, size)
		slices.Reverse(h[17:19])
		slices.Reverse(h[19:23])
		var d codec.RequestDecoder
		_, _, err := d.Next(h)
		var e *codec.Error
		if !errors.As(err, &e) || !errors.Is(err, codec.ErrByteOrder) || e.InStep || uint16(e.Code) != code {
			t.Errorf("%d: error %+v", code, err)
		}
		if !strings.Contains(err.Error(), "big-endian") {
			t.Errorf("%d: %q", code, err)
		}
	}
}
