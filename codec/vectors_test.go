package codec_test

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"sealift/codec"
)

// A vector is one message as it stands on the wire, written by hand from the
// tables of docs/PROTOCOL.md, and what it means.
type vector struct {
	name   string
	code   codec.Code
	header []field
	fields []field
	body   string // content of a 1028, hex

	message  any // what parse gives
	parse    func(payload []byte) (any, error)
	appended func() []byte // the message, by Append
}

type field struct{ name, hex string }

func (v vector) wire() []byte {
	return unhex(v.headerHex() + v.payloadHex() + v.body)
}

func (v vector) headerHex() string  { return join(v.header) }
func (v vector) payloadHex() string { return join(v.fields) }

func join(fields []field) string {
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(f.hex)
	}
	return b.String()
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// fill is n times the byte 00.
func fill(n int) string { return strings.Repeat("00", n) }

const (
	idHex  = "a0a1a2a3 a4a5a6a7 a8a9aaab acadaeaf"
	alice  = "616c696365"           // "alice": 250 nulls follow
	report = "7265706f72742e747874" // "report.txt": 245 nulls follow
)

var (
	id = codec.ClientID{
		0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
		0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
	}
	keyHex     = strings.Repeat("3081", 80) // stands for a key: the codec does not look inside
	wrappedHex = strings.Repeat("c0de", 64)
)

var requestVectors = []vector{
	{
		name: "1025 register",
		code: codec.CodeRegister,
		header: []field{
			{"Client ID", fill(16)},
			{"Version", "03"},
			{"Code", "0104"},
			{"Payload Size", "ff000000"},
		},
		fields: []field{
			{"Name", alice + fill(250)},
		},
		message:  codec.Register{Name: []byte("alice")},
		parse:    func(p []byte) (any, error) { return codec.ParseRegister(p) },
		appended: func() []byte { return codec.Register{Name: []byte("alice")}.Append(nil) },
	},
	{
		name: "1026 public key",
		code: codec.CodePublicKey,
		header: []field{
			{"Client ID", idHex},
			{"Version", "03"},
			{"Code", "0204"},
			{"Payload Size", "9f010000"},
		},
		fields: []field{
			{"Name", alice + fill(250)},
			{"Public Key", keyHex},
		},
		message: codec.PublicKey{Name: []byte("alice"), Key: unhex(keyHex)},
		parse:   func(p []byte) (any, error) { return codec.ParsePublicKey(p) },
		appended: func() []byte {
			return codec.PublicKey{Name: []byte("alice"), Key: unhex(keyHex)}.Append(nil, id)
		},
	},
	{
		name: "1027 reconnect",
		code: codec.CodeReconnect,
		header: []field{
			{"Client ID", idHex},
			{"Version", "03"},
			{"Code", "0304"},
			{"Payload Size", "ff000000"},
		},
		fields: []field{
			{"Name", alice + fill(250)},
		},
		message:  codec.Reconnect{Name: []byte("alice")},
		parse:    func(p []byte) (any, error) { return codec.ParseReconnect(p) },
		appended: func() []byte { return codec.Reconnect{Name: []byte("alice")}.Append(nil, id) },
	},
	{
		name: "1028 send file",
		code: codec.CodeSendFile,
		header: []field{
			{"Client ID", idHex},
			{"Version", "03"},
			{"Code", "0404"},
			{"Payload Size", "1b010000"}, // 267 + 16
		},
		fields: []field{
			{"Content Size", "40302010"},
			{"Orig File Size", "3f302010"},
			{"Packet Number", "0102"},
			{"Total Packets", "0304"},
			{"File Name", report + fill(245)},
		},
		body: "00112233445566778899aabbccddeeff",
		message: codec.SendFile{
			ContentSize: 0x10203040, OrigSize: 0x1020303f,
			Packet: 0x0201, Total: 0x0403, FileName: []byte("report.txt"),
		},
		parse: func(p []byte) (any, error) { return codec.ParseSendFile(p) },
		appended: func() []byte {
			b := codec.SendFile{
				ContentSize: 0x10203040, OrigSize: 0x1020303f,
				Packet: 0x0201, Total: 0x0403, FileName: []byte("report.txt"),
			}.Append(nil, id, 16)
			return append(b, unhex("00112233445566778899aabbccddeeff")...)
		},
	},
	verdictVector("1029 checksum verified", codec.CodeCRCOK, "0504"),
	verdictVector("1030 checksum mismatch", codec.CodeCRCBad, "0604"),
	verdictVector("1031 abort", codec.CodeAbort, "0704"),
	{
		name: "1032 continue",
		code: codec.CodeContinue,
		header: []field{
			{"Client ID", idHex},
			{"Version", "03"},
			{"Code", "0804"},
			{"Payload Size", "07010000"}, // 263
		},
		fields: []field{
			{"File Name", report + fill(245)},
			{"Total Size", "8877665544332211"},
		},
		message: codec.Continue{FileName: []byte("report.txt"), TotalSize: 0x1122334455667788},
		parse:   func(p []byte) (any, error) { return codec.ParseContinue(p) },
		appended: func() []byte {
			return codec.Continue{FileName: []byte("report.txt"), TotalSize: 0x1122334455667788}.Append(nil, id)
		},
	},
}

func verdictVector(name string, code codec.Code, codeHex string) vector {
	m := codec.Verdict{Code: code, FileName: []byte("report.txt")}
	return vector{
		name: name,
		code: code,
		header: []field{
			{"Client ID", idHex},
			{"Version", "03"},
			{"Code", codeHex},
			{"Payload Size", "ff000000"},
		},
		fields: []field{
			{"File Name", report + fill(245)},
		},
		message:  m,
		parse:    func(p []byte) (any, error) { return codec.ParseVerdict(code, p) },
		appended: func() []byte { return m.Append(nil, id) },
	}
}

var replyVectors = []vector{
	idReplyVector("1600 registered", codec.CodeRegistered, "4006"),
	emptyReplyVector("1601 registration failed", codec.CodeRegisterFailed, "4106"),
	keyReplyVector("1602 AES key", codec.CodeAESKey, "4206"),
	{
		name: "1603 file received",
		code: codec.CodeFileReceived,
		header: []field{
			{"Version", "03"},
			{"Code", "4306"},
			{"Payload Size", "17010000"}, // 279
		},
		fields: []field{
			{"Client ID", idHex},
			{"Content Size", "3f302010"},
			{"File Name", report + fill(245)},
			{"Cksum", "efbeadde"},
		},
		message: codec.FileReceived{
			ID: id, ContentSize: 0x1020303f, FileName: []byte("report.txt"), Cksum: 0xdeadbeef,
		},
		parse: func(p []byte) (any, error) { return codec.ParseFileReceived(p) },
		appended: func() []byte {
			return codec.FileReceived{
				ID: id, ContentSize: 0x1020303f, FileName: []byte("report.txt"), Cksum: 0xdeadbeef,
			}.Append(nil)
		},
	},
	idReplyVector("1604 acknowledged", codec.CodeAck, "4406"),
	keyReplyVector("1605 reconnected", codec.CodeReconnected, "4506"),
	idReplyVector("1606 reconnect rejected", codec.CodeReconnectRejected, "4606"),
	emptyReplyVector("1607 server error", codec.CodeError, "4706"),
	{
		name: "1608 continued",
		code: codec.CodeContinued,
		header: []field{
			{"Version", "03"},
			{"Code", "4806"},
			{"Payload Size", "1b010000"}, // 283
		},
		fields: []field{
			{"Client ID", idHex},
			{"File Name", report + fill(245)},
			{"Offset", "8070605040302010"},
			{"Cksum", "efbeadde"},
		},
		message: codec.Continued{
			ID: id, FileName: []byte("report.txt"), Offset: 0x1020304050607080, Cksum: 0xdeadbeef,
		},
		parse: func(p []byte) (any, error) { return codec.ParseContinued(p) },
		appended: func() []byte {
			return codec.Continued{
				ID: id, FileName: []byte("report.txt"), Offset: 0x1020304050607080, Cksum: 0xdeadbeef,
			}.Append(nil)
		},
	},
}

func idReplyVector(name string, code codec.Code, codeHex string) vector {
	m := codec.IDReply{Code: code, ID: id}
	return vector{
		name: name,
		code: code,
		header: []field{
			{"Version", "03"},
			{"Code", codeHex},
			{"Payload Size", "10000000"},
		},
		fields: []field{
			{"Client ID", idHex},
		},
		message:  m,
		parse:    func(p []byte) (any, error) { return codec.ParseIDReply(code, p) },
		appended: func() []byte { return m.Append(nil) },
	}
}

func emptyReplyVector(name string, code codec.Code, codeHex string) vector {
	m := codec.EmptyReply{Code: code}
	return vector{
		name: name,
		code: code,
		header: []field{
			{"Version", "03"},
			{"Code", codeHex},
			{"Payload Size", "00000000"},
		},
		message:  m,
		parse:    func([]byte) (any, error) { return m, nil },
		appended: func() []byte { return m.Append(nil) },
	}
}

func keyReplyVector(name string, code codec.Code, codeHex string) vector {
	m := codec.KeyReply{Code: code, ID: id, WrappedKey: unhex(wrappedHex)}
	return vector{
		name: name,
		code: code,
		header: []field{
			{"Version", "03"},
			{"Code", codeHex},
			{"Payload Size", "90000000"}, // 16 + 128
		},
		fields: []field{
			{"Client ID", idHex},
			{"Encrypted AES Key", wrappedHex},
		},
		message:  m,
		parse:    func(p []byte) (any, error) { return codec.ParseKeyReply(code, p) },
		appended: func() []byte { return m.Append(nil) },
	}
}

func allVectors() []vector {
	return append(append([]vector(nil), requestVectors...), replyVectors...)
}

func TestAppendWritesTheWire(t *testing.T) {
	for _, v := range allVectors() {
		if got, want := v.appended(), v.wire(); !bytes.Equal(got, want) {
			t.Errorf("%s:\ngot  %x\nwant %x", v.name, got, want)
		}
	}
}

func TestParseReadsTheWire(t *testing.T) {
	for _, v := range allVectors() {
		got, err := v.parse(unhex(v.payloadHex()))
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
		} else if !reflect.DeepEqual(got, v.message) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", v.name, got, v.message)
		}
	}
}

// A Parse function is public: a payload of another size must be an error.
func TestParseRefusesAnotherSize(t *testing.T) {
	for _, v := range allVectors() {
		payload := unhex(v.payloadHex())
		if len(payload) == 0 {
			continue
		}
		for _, p := range [][]byte{nil, payload[:len(payload)-1], append(bytes.Clone(payload), 0)} {
			_, err := v.parse(p)
			wantError(t, v.name, err, codec.ErrSize)
		}
	}
}

// What a decoder makes of each message as a whole, the header included.
func TestDecodersReadTheWire(t *testing.T) {
	for _, v := range requestVectors {
		wire := v.wire()
		var d codec.RequestDecoder
		ev, n, err := d.Next(wire)
		if err != nil || ev.Kind != codec.Message {
			t.Fatalf("%s: kind %d, error %v", v.name, ev.Kind, err)
		}
		h := codec.RequestHeader{ID: id, Version: 3, Code: v.code, PayloadSize: uint32(len(wire) - 23)}
		if v.code == codec.CodeRegister {
			h.ID = codec.ClientID{}
		}
		if ev.Header != h {
			t.Errorf("%s: header %+v, want %+v", v.name, ev.Header, h)
		}
		if want := unhex(v.payloadHex()); !bytes.Equal(ev.Payload, want) || n != 23+len(want) {
			t.Errorf("%s: payload %x of %d bytes taken", v.name, ev.Payload, n)
		}
		if int(ev.ContentSize) != len(unhex(v.body)) {
			t.Errorf("%s: ContentSize %d", v.name, ev.ContentSize)
		}
	}
	for _, v := range replyVectors {
		wire := v.wire()
		var d codec.ResponseDecoder
		r, n, ok, err := d.Next(wire)
		if err != nil || !ok || n != len(wire) {
			t.Fatalf("%s: ok %v, %d of %d bytes taken, error %v", v.name, ok, n, len(wire), err)
		}
		h := codec.ResponseHeader{Version: 3, Code: v.code, PayloadSize: uint32(len(wire) - 7)}
		if r.Header != h || !bytes.Equal(r.Payload, wire[7:]) {
			t.Errorf("%s: %+v, payload %x", v.name, r.Header, r.Payload)
		}
	}
}

// The later edition of the assignment has other request numbers and nothing
// else that differs; it has none for 1032.
func TestLaterEdition(t *testing.T) {
	for later, code := range laterCodes {
		v := requestVectors[code-codec.CodeRegister]
		wire := v.wire()
		wire[17], wire[18] = byte(later), byte(later>>8)
		var d codec.RequestDecoder
		ev, _, err := d.Next(wire)
		if err != nil || ev.Kind != codec.Message || ev.Header.Code != code {
			t.Errorf("%d: kind %d, code %v, error %v; want a message with code %v", later, ev.Kind, ev.Header.Code, err, code)
			continue
		}
		if m, err := v.parse(ev.Payload); err != nil || !reflect.DeepEqual(m, v.message) {
			t.Errorf("%d: %+v, %v; want %+v", later, m, err, v.message)
		}
	}
}

var laterCodes = map[uint16]codec.Code{
	825: codec.CodeRegister,
	826: codec.CodePublicKey,
	827: codec.CodeReconnect,
	828: codec.CodeSendFile,
	900: codec.CodeCRCOK,
	901: codec.CodeCRCBad,
	902: codec.CodeAbort,
}
