package codec_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sealift/codec"
)

// document is docs/PROTOCOL.md, whose hex these tests hold to what it says.
func document(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../docs/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}

// block is a fenced block of the document: a message, or a key.
type block struct {
	kind string // "request", "reply", "private-key", "aes-key"
	text string
}

func blocks(t *testing.T) (bs []block) {
	var open *block
	for _, line := range document(t) {
		kind, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &block{kind: kind}
		case fence:
			bs = append(bs, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	return bs
}

// documentHex reads the document's notation: bytes in hex, "00*250" for many
// of one, and remarks behind a semicolon.
func documentHex(text string) (b []byte, err error) {
	for line := range strings.SplitSeq(text, "\n") {
		line, _, _ = strings.Cut(line, ";")
		for _, word := range strings.Fields(line) {
			digits, count, many := strings.Cut(word, "*")
			one, err := hex.DecodeString(digits)
			if err != nil || len(one) != 1 {
				return nil, fmt.Errorf("%q is not a byte", word)
			}
			n := 1
			if many {
				if n, err = strconv.Atoi(count); err != nil {
					return nil, err
				}
			}
			b = append(b, bytes.Repeat(one, n)...)
		}
	}
	return b, nil
}

// exampleMessages returns the wire bytes of the first example of each code.
func exampleMessages(t *testing.T) map[codec.Code][]byte {
	first := make(map[codec.Code][]byte)
	for _, b := range blocks(t) {
		if b.kind != "request" && b.kind != "reply" {
			continue
		}
		wire, err := documentHex(b.text)
		if err != nil || len(wire) < codec.ResponseHeaderSize {
			t.Fatalf("block:\n%s%v", b.text, err)
		}
		at := 1
		if b.kind == "request" {
			at = 17
		}
		code := codec.Code(wire[at]) | codec.Code(wire[at+1])<<8
		if first[code] == nil {
			first[code] = wire
		}
	}
	return first
}

// The session of section 13 is one that took place: each message decodes, is
// written again as it stands there, opens with the key that stands there, and
// the file has the checksum that stands there. So is that of section 15.9, in which
// the beginning of the file is from before.
func TestDocumentedSession(t *testing.T) {
	const fox = "The quick brown fox\n"
	var (
		priv    *rsa.PrivateKey
		aesKey  []byte // unwrapped, to be compared with the block that follows
		client  codec.ClientID
		plan    codec.Plan
		content []byte
		file    []byte
		offset  int // of the last 1608: what the next file is the rest of
		seen    = make(map[codec.Code]int)
	)
	request := func(wire []byte) {
		r := decodeRequests(t, wire)
		if r.err != nil || r.open || len(r.messages) != 1 || r.messages[0].err != nil {
			t.Fatalf("%x: %+v", wire, r)
		}
		m := r.messages[0]
		seen[m.header.Code]++
		again, err := rewriteRequest(nil, m.header, m.payload)
		if again = append(again, m.content...); err != nil || !bytes.Equal(again, wire) {
			t.Fatalf("%v: %v\ngot  %x\nwant %x", m.header.Code, err, again, wire)
		}
		if m.header.Code != codec.CodeRegister && m.header.ID != client {
			t.Fatalf("%v: id %v, registered was %v", m.header.Code, m.header.ID, client)
		}
		switch m.header.Code {
		case codec.CodePublicKey:
			k, _ := codec.ParsePublicKey(m.payload)
			if der, err := x509.MarshalPKIXPublicKey(&priv.PublicKey); err != nil || !bytes.Equal(k.Key, der) {
				t.Fatalf("the public key is not that of the private key: %v", err)
			}
		case codec.CodeSendFile:
			f, _ := codec.ParseSendFile(m.payload)
			body := uint32(len(m.content))
			if content == nil {
				if plan, err = codec.Infer(f, body); err != nil || plan.Scheme != codec.WholeFile {
					t.Fatalf("%+v, %v", plan, err)
				}
			}
			if err := plan.Check(f, body); err != nil {
				t.Fatal(err)
			}
			if content = append(content, m.content...); int64(len(content)) == plan.Ciphertext {
				if file = decryptCBC(t, aesKey, content); int64(len(file)) != plan.OrigSize {
					t.Fatalf("a file of %d bytes, not %d", len(file), plan.OrigSize)
				}
				content = nil
			}
		}
	}
	reply := func(wire []byte) {
		var d codec.ResponseDecoder
		r, n, ok, err := d.Next(wire)
		if !ok || n != len(wire) || err != nil {
			t.Fatalf("%x: %d bytes taken, %v", wire, n, err)
		}
		code := r.Header.Code
		seen[code]++
		if again, err := rewriteReply(nil, r); err != nil || !bytes.Equal(again, wire) {
			t.Fatalf("%v: %v\ngot  %x\nwant %x", code, err, again, wire)
		}
		switch code {
		case codec.CodeRegistered:
			client = codec.ClientID(r.Payload)
			if client[6]>>4 != 4 || client[8]>>6 != 2 {
				t.Errorf("%v is no UUID of version 4", client)
			}
		case codec.CodeAESKey, codec.CodeReconnected:
			m, _ := codec.ParseKeyReply(code, r.Payload)
			if aesKey, err = rsa.DecryptOAEP(sha1.New(), nil, priv, m.WrappedKey, nil); err != nil {
				t.Fatal(err)
			}
		case codec.CodeFileReceived:
			m, _ := codec.ParseFileReceived(r.Payload)
			whole := fox[:offset] + string(file)
			if whole != fox || m.Cksum != cksum([]byte(whole)) || int(m.ContentSize) != len(file) {
				t.Fatalf("%+v for %q, whose checksum is %d", m, whole, cksum([]byte(whole)))
			}
			offset = 0
		case codec.CodeContinued:
			m, _ := codec.ParseContinued(r.Payload)
			if m.Offset > uint64(len(fox)) || m.Cksum != cksum([]byte(fox[:m.Offset])) {
				t.Fatalf("%+v", m)
			}
			offset = int(m.Offset)
		}
		if len(r.Payload) > 0 && codec.ClientID(r.Payload[:16]) != client {
			t.Fatalf("%v is for %x", code, r.Payload[:16])
		}
	}
	for _, b := range blocks(t) {
		if b.kind == "private-key" {
			der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(b.text), ""))
			if err != nil {
				t.Fatal(err)
			}
			key, err := x509.ParsePKCS8PrivateKey(der)
			if err != nil {
				t.Fatal(err)
			}
			priv = key.(*rsa.PrivateKey)
			continue
		}
		wire, err := documentHex(b.text)
		if err != nil {
			t.Fatalf("block %q: %v", b.kind, err)
		}
		switch b.kind {
		case "request":
			request(wire)
		case "reply":
			reply(wire)
		case "aes-key":
			if !bytes.Equal(wire, aesKey) {
				t.Fatalf("AES key %x, unwrapped was %x", wire, aesKey)
			}
		default:
			t.Fatalf("a block of kind %q", b.kind)
		}
	}
	for _, v := range allVectors() {
		if seen[v.code] == 0 {
			t.Errorf("no example of %v", v.code)
		}
	}
}

func decryptCBC(t *testing.T, key, ciphertext []byte) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	plain := make([]byte, len(ciphertext))
	cipher.NewCBCDecrypter(block, make([]byte, 16)).CryptBlocks(plain, ciphertext)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > 16 || !bytes.HasSuffix(plain, bytes.Repeat([]byte{byte(pad)}, pad)) {
		t.Fatalf("padding of %x", plain)
	}
	return plain[:len(plain)-pad]
}

// cksum is POSIX cksum, a bit at a time, as section 6.4 has it.
func cksum(data []byte) uint32 {
	var crc uint32
	add := func(b byte) {
		crc ^= uint32(b) << 24
		for range 8 {
			carry := crc >> 31
			crc <<= 1
			if carry != 0 {
				crc ^= 0x04C11DB7
			}
		}
	}
	for _, b := range data {
		add(b)
	}
	for n := len(data); n > 0; n >>= 8 {
		add(byte(n))
	}
	return ^crc
}

var (
	messageHeading = regexp.MustCompile(`^### \d\.\d (\d{4}) `)
	fieldRow       = regexp.MustCompile("^\\| (\\d+) \\| (\\d+|Payload Size - 267) \\| [A-Za-z ]+ \\| (?:`([^`]*)`|see 13)")
	sizeRow        = regexp.MustCompile(`^\| (\d{4}) \| [A-Za-z ]+ \| (\d+)`)
	cksumRow       = regexp.MustCompile("^\\| (nothing|`([^`]*)`) \\| (\\d+) \\| `([^`]*)` \\|$")
)

// In each table of fields the sizes add up to the offsets and to the message,
// and the examples are those of section 13.
func TestDocumentedFields(t *testing.T) {
	examples := exampleMessages(t)
	var what string
	var message []byte // what the table under the heading describes
	offset, checked := 0, make(map[string]bool)
	end := func() {
		if offset > 0 && offset != len(message) {
			t.Errorf("%s: the fields have %d bytes, the message %d", what, offset, len(message))
		}
		message, offset = nil, 0
	}
	for _, line := range document(t) {
		if strings.HasPrefix(line, "#") {
			end()
			what = line
			switch m := messageHeading.FindStringSubmatch(line); {
			case strings.HasPrefix(line, "### 3.1 "):
				message = examples[codec.CodeSendFile][:codec.RequestHeaderSize]
			case strings.HasPrefix(line, "### 3.2 "):
				message = examples[codec.CodeFileReceived][:codec.ResponseHeaderSize]
			case m != nil:
				n, _ := strconv.Atoi(m[1])
				if message = examples[codec.Code(n)][codec.ResponseHeaderSize:]; n < 1600 {
					message = examples[codec.Code(n)][codec.RequestHeaderSize:]
				}
			}
			continue
		}
		m := fieldRow.FindStringSubmatch(line)
		if m == nil || message == nil {
			continue
		}
		at, _ := strconv.Atoi(m[1])
		size, err := strconv.Atoi(m[2])
		if err != nil {
			size = len(message) - at
		}
		if at != offset || at+size > len(message) {
			t.Errorf("%s: %s: the fields before it have %d bytes", what, line, offset)
		}
		offset += size
		field := message[at : at+size]
		head, tail, cut := strings.Cut(m[3], "…")
		a, errA := documentHex(head)
		b, errB := documentHex(tail)
		if errA != nil || errB != nil || !bytes.HasPrefix(field, a) || !bytes.HasSuffix(field, b) || !cut && m[3] != "" && len(a) != size {
			t.Errorf("%s: %s: the example is %x", what, line, field)
		}
		checked[what] = true
	}
	end()
	if len(checked) != 14 {
		t.Errorf("%d tables of fields, want 14: %v", len(checked), checked)
	}
}

func TestDocumentedSizes(t *testing.T) {
	codes := make(map[codec.Code]bool)
	for _, line := range document(t) {
		m := sizeRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		n, _ := strconv.Atoi(m[1])
		size, ok := codec.RequestPayloadSize(codec.Code(n))
		if !ok {
			size, ok = codec.ResponsePayloadSize(codec.Code(n))
		}
		if !ok || m[2] != strconv.Itoa(int(size)) {
			t.Errorf("%s: want %d", line, size)
		}
		codes[codec.Code(n)] = true
	}
	if len(codes) != len(allVectors()) {
		t.Errorf("%d codes with a size, want %d", len(codes), len(allVectors()))
	}
}

func TestDocumentedChecksums(t *testing.T) {
	rows := 0
	for _, line := range document(t) {
		m := cksumRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		rows++
		sum := cksum([]byte(m[2]))
		wire, err := documentHex(m[4])
		if err != nil || m[3] != strconv.FormatUint(uint64(sum), 10) ||
			!bytes.Equal(wire, []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)}) {
			t.Errorf("%s: want %d", line, sum)
		}
	}
	if rows != 3 {
		t.Errorf("%d test values, want 3", rows)
	}
}
