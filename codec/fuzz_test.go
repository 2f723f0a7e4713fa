package codec_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sealift/codec"
)

// requestRecord is what a RequestDecoder made of a stream, with the pieces of content put
// together. It stands for the same bytes however they were split.
type requestRecord struct {
	messages []requestMessage
	err      error // the last one, if it ended the stream
	open     bool  // in the middle of a message
}

type requestMessage struct {
	header  codec.RequestHeader
	payload []byte
	content []byte
	end     int // where in the stream the payload ended
	err     error
}

func (r requestRecord) equal(s requestRecord) bool {
	same := func(a, b error) bool { return (a == nil) == (b == nil) && (a == nil || a.Error() == b.Error()) }
	return same(r.err, s.err) && r.open == s.open &&
		slices.EqualFunc(r.messages, s.messages, func(a, b requestMessage) bool {
			return a.header == b.header && a.end == b.end && same(a.err, b.err) &&
				bytes.Equal(a.payload, b.payload) && bytes.Equal(a.content, b.content)
		})
}

// decodeRequests feeds a copy of each part, which ends where the part ends, so that
// reading past it panics.
func decodeRequests(t *testing.T, parts ...[]byte) (r requestRecord) {
	var d codec.RequestDecoder
	at := 0
	for _, part := range parts {
		p := slices.Clip(bytes.Clone(part))
		for {
			ev, n, err := d.Next(p)
			if n > len(p) {
				t.Fatalf("took %d of %d bytes", n, len(p))
			}
			p, at = p[n:], at+n
			var e *codec.Error
			switch {
			case errors.As(err, &e) && e.InStep:
				r.messages = append(r.messages, requestMessage{err: err, end: at})
				continue
			case err != nil:
				r.err = err
				return r
			case ev.Kind == codec.Message:
				r.messages = append(r.messages, requestMessage{header: ev.Header, payload: bytes.Clone(ev.Payload), end: at})
				continue
			case ev.Kind == codec.Content:
				m := &r.messages[len(r.messages)-1]
				m.content = append(m.content, ev.Content...)
				if whole := len(m.content) == int(m.header.PayloadSize-codec.SendFileFieldsSize); ev.End != whole {
					t.Fatalf("End is %v, the content is whole: %v", ev.End, whole)
				}
				continue
			}
			if len(p) > 0 {
				t.Fatalf("wants more, %d bytes left", len(p))
			}
			break
		}
	}
	r.open = d.InMessage() || d.InContent()
	return r
}

func singleBytes(b []byte) [][]byte { return slices.Collect(slices.Chunk(b, 1)) }

func FuzzRequests(f *testing.F) {
	f.Add(wireOf(requestStream()), uint(100))
	f.Fuzz(func(t *testing.T, wire []byte, cut uint) {
		whole := decodeRequests(t, wire)
		at := cut % uint(len(wire)+1)
		if two := decodeRequests(t, wire[:at], wire[at:]); !two.equal(whole) {
			t.Fatalf("cut at %d: %+v, want %+v", at, two, whole)
		}
		if single := decodeRequests(t, singleBytes(wire)...); !single.equal(whole) {
			t.Fatalf("one byte at a time: %+v, want %+v", single, whole)
		}
		for _, m := range whole.messages {
			if m.err != nil {
				continue
			}
			again, err := rewriteRequest(nil, m.header, m.payload)
			if err != nil {
				if !errors.Is(err, codec.ErrName) {
					t.Fatalf("%v: %v", m.header.Code, err)
				}
				continue
			}
			if want := canonicalRequest(wire[:m.end], len(m.payload)); !bytes.Equal(again, want) {
				t.Fatalf("%v:\ngot  %x\nwant %x", m.header.Code, again, want)
			}
		}
	})
}

// canonicalRequest returns the message that ends wire the way Append writes it: nulls
// behind the name's null, this edition's code, and no id in a 1025.
func canonicalRequest(wire []byte, payload int) []byte {
	m := bytes.Clone(wire[len(wire)-payload-23:])
	code := uint16(m[17]) | uint16(m[18])<<8
	if now, ok := laterCodes[code]; ok {
		code = uint16(now)
		m[17], m[18] = byte(code), byte(code>>8)
	}
	name := m[23 : 23+255]
	switch code {
	case 1025:
		clear(m[:16])
	case 1028:
		name = m[23+12:]
	}
	clear(name[bytes.IndexByte(name, 0):])
	return m
}

func FuzzReplies(f *testing.F) {
	var stream []byte
	for _, v := range replyVectors {
		stream = append(stream, v.wire()...)
	}
	f.Add(stream, uint(100))
	f.Fuzz(func(t *testing.T, wire []byte, cut uint) {
		whole := decodeReplies(t, wire)
		at := cut % uint(len(wire)+1)
		for _, parts := range [][][]byte{{wire[:at], wire[at:]}, singleBytes(wire)} {
			if got := decodeReplies(t, parts...); got != whole {
				t.Fatalf("in %d parts:\n%s\nwant\n%s", len(parts), got, whole)
			}
		}
	})
}

// decodeReplies lists the replies in hex and how the stream ended, and checks that each
// is written again as it was read.
func decodeReplies(t *testing.T, parts ...[]byte) string {
	var d codec.ResponseDecoder
	var list strings.Builder
	stream := bytes.Join(parts, nil)
	at := 0
	for _, part := range parts {
		p := slices.Clip(bytes.Clone(part))
		for {
			r, n, ok, err := d.Next(p)
			if n > len(p) {
				t.Fatalf("took %d of %d bytes", n, len(p))
			}
			p, at = p[n:], at+n
			if err != nil {
				fmt.Fprintf(&list, "error %v\n", err)
				return list.String()
			}
			if !ok {
				if len(p) > 0 {
					t.Fatalf("wants more, %d bytes left", len(p))
				}
				break
			}
			fmt.Fprintf(&list, "%v %x\n", r.Header, r.Payload)
			again, err := rewriteReply(nil, r)
			if err != nil {
				if !errors.Is(err, codec.ErrName) {
					t.Fatal(err)
				}
				continue
			}
			want := bytes.Clone(stream[at-len(r.Payload)-7 : at])
			switch r.Header.Code {
			case codec.CodeFileReceived:
				name := want[7+20 : 7+20+255]
				clear(name[bytes.IndexByte(name, 0):])
			case codec.CodeContinued:
				name := want[7+16 : 7+16+255]
				clear(name[bytes.IndexByte(name, 0):])
			}
			if !bytes.Equal(again, want) {
				t.Fatalf("got  %x\nwant %x", again, want)
			}
		}
	}
	return list.String()
}

func FuzzInfer(f *testing.F) {
	f.Add(uint32(2048), uint32(2047), uint16(1), uint16(2), uint32(1024))
	f.Add(uint32(2048), uint32(2047), uint16(2), uint16(1), uint32(1024))
	f.Add(uint32(16), uint32(0), uint16(1), uint16(0), uint32(16))
	f.Fuzz(func(t *testing.T, content, orig uint32, packet, total uint16, body uint32) {
		m := codec.SendFile{ContentSize: content, OrigSize: orig, Packet: packet, Total: total}
		p, err := codec.Infer(m, body)
		w := (uint64(orig)/16 + 1) * 16
		if err == nil { // see what it says with the numbers in their own fields
			if p.Swapped && (total != 1 || packet < 2 || p.Scheme == codec.PerPacket) {
				t.Fatalf("%+v, %d bytes: %+v", m, body, p)
			}
			m = p.Read(m)
			if m.Total == 0 && orig == 0 && p.Scheme == codec.WholeFile {
				m.Total = 1
			}
			packet, total = m.Packet, m.Total
		}
		spec := uint64(content) == w && packet <= total &&
			(total == 1 && uint64(body) >= w || total > 1 && body > 0 && uint64(body) < w)
		if err != nil {
			wantError(t, "Infer", err, codec.ErrPacket)
			if spec {
				t.Fatalf("%+v, %d bytes: %v", m, body, err)
			}
			return
		}
		if spec != (p.Scheme == codec.WholeFile) {
			t.Fatalf("%+v, %d bytes: %v", m, body, p.Scheme)
		}
		if err := p.Check(m, body); err != nil {
			t.Fatalf("%+v, %d bytes: its own plan refuses it: %v", m, body, err)
		}
		if p.Total != total || packet < p.First || uint32(packet) > p.Last() || p.First > 1 {
			t.Fatalf("%+v: %+v", m, p)
		}
		if p.Scheme == codec.PerPacket {
			w, orig = ^uint64(0), 0
			if p.OrigSize != -1 {
				t.Fatalf("%+v", p)
			}
		} else if p.OrigSize != int64(orig) {
			t.Fatalf("%+v: OrigSize %d", m, p.OrigSize)
		}
		if p.Ciphertext != int64(w) {
			t.Fatalf("%+v: Ciphertext %d", m, p.Ciphertext)
		}
	})
}

// seed reads the bytes of a corpus entry, whose first line names the format and
// whose second is a []byte in Go's syntax.
func seed(t *testing.T, target, name string) []byte {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", "fuzz", target, name))
	if err != nil {
		t.Errorf("a seed is missing: %v", err)
		return nil
	}
	lines := strings.Split(string(file), "\n")
	quoted := strings.TrimSuffix(strings.TrimPrefix(lines[1], "[]byte("), ")")
	b, err := strconv.Unquote(quoted)
	if err != nil {
		t.Fatalf("%s/%s: %v", target, name, err)
	}
	return []byte(b)
}

// Fuzzing finds its way into a message only from a whole one: there must be a
// seed for each, accepted as what its file name says.
func TestFuzzSeedsExist(t *testing.T) {
	for _, v := range requestVectors {
		name := strconv.Itoa(int(v.code))
		if got := seed(t, "FuzzRequests", name); !bytes.Equal(got, v.wire()) {
			t.Errorf("FuzzRequests/%s: %x, want %s", name, got, v.name)
		}
	}
	for later, code := range laterCodes {
		name := strconv.Itoa(int(later))
		want := requestVectors[code-codec.CodeRegister].wire()
		want[17], want[18] = byte(later), byte(later>>8)
		if got := seed(t, "FuzzRequests", name); !bytes.Equal(got, want) {
			t.Errorf("FuzzRequests/%s: %x", name, got)
		}
	}
	for _, v := range replyVectors {
		name := strconv.Itoa(int(v.code))
		if got := seed(t, "FuzzReplies", name); !bytes.Equal(got, v.wire()) {
			t.Errorf("FuzzReplies/%s: %x, want %s", name, got, v.name)
		}
	}
	for name, want := range map[string]error{
		"unknown-code": codec.ErrCode, "version": codec.ErrVersion, "size": codec.ErrSize,
	} {
		var d codec.RequestDecoder
		if _, _, err := d.Next(seed(t, "FuzzRequests", name)); !errors.Is(err, want) {
			t.Errorf("FuzzRequests/%s: %v, want %v", name, err, want)
		}
	}
}
