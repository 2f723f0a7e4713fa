package codec_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"sealift/codec"
)

// A step is what one message of a stream must turn into: a message, with its
// content if it has any, or an error that leaves the stream in step.
type step struct {
	wire    []byte
	header  codec.RequestHeader
	payload []byte
	content []byte
	err     error // a sentinel: header, payload and content are empty then
}

// requestStream is a session of a client that does everything once, with
// messages in between that are turned down and passed over.
func requestStream() []step {
	var steps []step
	for _, v := range requestVectors {
		steps = append(steps, stepOf(v))
	}
	unknown := unhex(idHex + "03 0f27 05000000 0102030405")
	unknownEmpty := unhex(idHex + "03 ffff 00000000")
	version := slices.Concat(unhex(idHex+"02 0104 ff000000"), bytes.Repeat([]byte{3}, 255))
	send := requestVectors[3]
	noContent := stepOf(send)
	noContent.wire = slices.Concat(noContent.wire[:19], unhex("0b010000"), noContent.wire[23:23+267])
	noContent.header.PayloadSize, noContent.content = 267, nil
	later := stepOf(send)
	later.wire[17], later.wire[18], later.header.Later = 0x3c, 0x03, true // 828
	return slices.Concat(
		steps[:2],
		[]step{{wire: unknown, err: codec.ErrCode}},
		steps[2:4],
		[]step{stepOf(send), noContent, {wire: unknownEmpty, err: codec.ErrCode}, later},
		steps[4:6],
		[]step{{wire: version, err: codec.ErrVersion}},
		steps[6:],
	)
}

func stepOf(v vector) step {
	wire, payload := v.wire(), unhex(v.payloadHex())
	h := codec.RequestHeader{ID: id, Version: 3, Code: v.code, PayloadSize: uint32(len(wire) - 23)}
	if v.code == codec.CodeRegister {
		h.ID = codec.ClientID{}
	}
	return step{wire: wire, header: h, payload: payload, content: unhex(v.body)}
}

func wireOf(steps []step) []byte {
	var b []byte
	for _, s := range steps {
		b = append(b, s.wire...)
	}
	return b
}

// A reader feeds a RequestDecoder and compares what comes out with the steps.
// The bytes of each feed are in a buffer that is spoilt afterwards, as the
// network's are.
type reader struct {
	t      *testing.T
	what   string
	dec    codec.RequestDecoder
	steps  []step
	inside int // bytes of the current step's content that have come
	begun  bool
	buf    []byte
}

func (r *reader) feed(p []byte) {
	r.buf = append(r.buf[:0], p...)
	b := r.buf[:len(p):len(p)]
	for {
		ev, n, err := r.dec.Next(b)
		if n > len(b) {
			r.t.Fatalf("%s: took %d of %d bytes", r.what, n, len(b))
		}
		r.event(ev, err)
		taken := b[:n]
		b = b[n:]
		if err == nil && ev.Kind == codec.NeedMore {
			if len(b) > 0 {
				r.t.Fatalf("%s: wants more, %d bytes left", r.what, len(b))
			}
			spoil(taken)
			return
		}
		spoil(taken)
	}
}

func spoil(b []byte) {
	for i := range b {
		b[i] = 0xee
	}
}

func (r *reader) event(ev codec.Event, err error) {
	if err == nil && ev.Kind == codec.NeedMore {
		return
	}
	if len(r.steps) == 0 {
		r.t.Fatalf("%s: kind %d, error %v behind the last message", r.what, ev.Kind, err)
	}
	s, whole := r.steps[0], false
	switch {
	case err != nil:
		var e *codec.Error
		if !errors.As(err, &e) || s.err == nil || !errors.Is(err, s.err) || !e.InStep {
			r.t.Fatalf("%s: error %v, want %v", r.what, err, s.err)
		}
		whole = true
	case s.err != nil:
		r.t.Fatalf("%s: kind %d, want %v", r.what, ev.Kind, s.err)
	case ev.Kind == codec.Message:
		if r.begun || ev.Header != s.header || !bytes.Equal(ev.Payload, s.payload) || int(ev.ContentSize) != len(s.content) {
			r.t.Fatalf("%s: %+v with %d bytes of content to come, payload %x; want %+v", r.what, ev.Header, ev.ContentSize, ev.Payload, s.header)
		}
		if cap(ev.Payload) > len(ev.Payload) {
			r.t.Fatalf("%s: an append to the payload would write on what follows it", r.what)
		}
		r.begun, whole = true, len(s.content) == 0
	case ev.Kind == codec.Content:
		if cap(ev.Content) > len(ev.Content) {
			r.t.Fatalf("%s: an append to the content would write on what follows it", r.what)
		}
		rest := s.content[r.inside:]
		r.inside += len(ev.Content)
		whole = ev.End
		if !r.begun || len(ev.Content) == 0 || !bytes.HasPrefix(rest, ev.Content) || ev.End != (r.inside == len(s.content)) {
			r.t.Fatalf("%s: content %x (end %v), want %x", r.what, ev.Content, ev.End, rest)
		}
	}
	if whole {
		r.steps, r.begun, r.inside = r.steps[1:], false, 0
	}
}

func (r *reader) done() {
	if len(r.steps) > 0 {
		r.t.Fatalf("%s: %d messages did not come out", r.what, len(r.steps))
	}
}

func read(t *testing.T, what string, steps []step, cuts ...int) {
	wire := wireOf(steps)
	r := reader{t: t, what: what, steps: steps}
	from := 0
	for _, cut := range append(cuts, len(wire)) {
		r.feed(wire[from:cut])
		from = cut
	}
	r.done()
}

func TestWholeSessionInOneCall(t *testing.T) {
	read(t, "one call", requestStream())
}

func TestOneByteAtATime(t *testing.T) {
	steps := requestStream()
	wire := wireOf(steps)
	r := reader{t: t, what: "one byte at a time", steps: steps}
	for i := range wire {
		r.feed(wire[i : i+1])
		r.feed(nil) // a call without bytes changes nothing
	}
	r.done()
}

func TestEverySplit(t *testing.T) {
	steps := requestStream()
	for cut := range len(wireOf(steps)) + 1 {
		read(t, "split", steps, cut)
	}
}

// Two splits far apart are no more than two single ones, for what a decoder
// keeps ends with a message: pairs of splits inside one message are all there
// is, with a message in front of it and one behind.
func TestEveryPairOfSplits(t *testing.T) {
	steps := requestStream()
	for i := range steps {
		around := steps[max(i-1, 0):min(i+2, len(steps))]
		from := 0
		if i > 0 {
			from = len(steps[i-1].wire)
		}
		to := from + len(steps[i].wire)
		for a := from; a <= to; a++ {
			for b := a; b <= to; b++ {
				read(t, "pair of splits", around, a, b)
			}
		}
	}
}

// A server has to know whether a client stopped in the middle of a message.
func TestInMessageAndInContent(t *testing.T) {
	steps := requestStream()
	wire := wireOf(steps)
	at := 0
	for _, s := range steps {
		for k := range len(s.wire) {
			var d codec.RequestDecoder
			for p := wire[:at+k]; len(p) > 0; {
				_, n, _ := d.Next(p)
				p = p[n:]
			}
			content := len(s.content) > 0 && k >= 23+267
			if d.InContent() != content || d.InMessage() != (k > 0 && !content) {
				t.Errorf("code %d, %d of %d bytes: InMessage %v, InContent %v",
					uint16(s.header.Code), k, len(s.wire), d.InMessage(), d.InContent())
			}
		}
		at += len(s.wire)
	}
}

// readReplies decodes wire cut at the places given and compares.
func readReplies(t *testing.T, want []vector, wire []byte, cuts ...int) {
	t.Helper()
	var d codec.ResponseDecoder
	from, buf := 0, []byte(nil)
	for _, cut := range append(cuts, len(wire)) {
		buf = append(buf[:0], wire[from:cut]...)
		from = cut
		p := buf
		for {
			r, n, ok, err := d.Next(p)
			if err != nil || n > len(p) {
				t.Fatalf("cuts %v: took %d of %d bytes, error %v", cuts, n, len(p), err)
			}
			if !ok {
				if n < len(p) {
					t.Fatalf("cuts %v: wants more, %d bytes left", cuts, len(p)-n)
				}
				spoil(p)
				break
			}
			if len(want) == 0 || r.Header.Code != want[0].code || !bytes.Equal(r.Payload, unhex(want[0].payloadHex())) {
				t.Fatalf("cuts %v: %+v, payload %x", cuts, r.Header, r.Payload)
			}
			want = want[1:]
			spoil(p[:n])
			p = p[n:]
		}
	}
	if len(want) > 0 {
		t.Fatalf("cuts %v: %d replies did not come out", cuts, len(want))
	}
}

func TestRepliesAtEverySplit(t *testing.T) {
	var wire []byte
	for _, v := range replyVectors {
		wire = append(wire, v.wire()...)
	}
	var every []int
	for cut := range len(wire) + 1 {
		readReplies(t, replyVectors, wire, cut)
		every = append(every, cut)
	}
	readReplies(t, replyVectors, wire)
	readReplies(t, replyVectors, wire, every...)
	for i, v := range replyVectors {
		one := v.wire()
		around := append(bytes.Clone(one), replyVectors[0].wire()...)
		for a := range len(one) + 1 {
			for b := a; b <= len(one); b++ {
				readReplies(t, []vector{replyVectors[i], replyVectors[0]}, around, a, b)
			}
		}
	}
}
