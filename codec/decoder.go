package codec

import (
	"fmt"
	"math/bits"
)

// maxSkip is the largest payload of a refused message that a decoder passes
// over to stay in step. A larger one is taken for garbage.
const maxSkip = 1 << 16

// EventKind says what a decoder found.
type EventKind uint8

const (
	// NeedMore: all bytes were taken and the message is not whole yet.
	NeedMore EventKind = iota
	// Message: Header and Payload are set. For a 1028 Payload holds the
	// SendFileFieldsSize bytes before the content, and Content events for
	// ContentSize bytes follow, none if that is 0.
	Message
	// Content: a piece of the content of the 1028 that came last.
	Content
)

// Event is what [RequestDecoder.Next] found. Payload and Content alias either
// the bytes given to Next or the decoder, and are valid until its next call.
type Event struct {
	Kind    EventKind
	Header  RequestHeader // of a Message; Code is never one of the later edition
	Payload []byte
	Content []byte
	// ContentSize is, of a 1028's Message, how many bytes of content follow.
	ContentSize uint32
	// End reports that a Content event is the last of its packet.
	End bool
}

// assembler collects a field that the network may have split. It has a buffer only
// from the first piece of such a field to the next call: most fields come whole,
// and most connections wait for one that has not begun.
type assembler struct {
	buf  *fieldBuffer
	have int // bytes in buf
}

// fieldBuffer has room for the longest fixed payload.
type fieldBuffer [NameSize + PublicKeySize]byte

// fieldBuffers are those that no field is in. More than that are left to the
// garbage collector.
var fieldBuffers = make(chan *fieldBuffer, 64)

func getFieldBuffer() *fieldBuffer {
	select {
	case b := <-fieldBuffers:
		return b
	default:
		return new(fieldBuffer)
	}
}

func putFieldBuffer(b *fieldBuffer) {
	select {
	case fieldBuffers <- b:
	default:
	}
}

// take returns the next need bytes and how many of them came from p. The field
// is nil while bytes are missing; then all of p was kept. A field that lies
// whole in p is not copied. It is valid until the next call.
func (a *assembler) take(p []byte, need int) (field []byte, n int) {
	if a.have == 0 {
		if a.buf != nil && (len(p) == 0 || len(p) >= need) {
			putFieldBuffer(a.buf)
			a.buf = nil
		}
		if len(p) >= need {
			return p[:need:need], need
		}
		if len(p) == 0 {
			return nil, 0
		}
		if a.buf == nil {
			a.buf = getFieldBuffer()
		}
	}
	n = copy(a.buf[a.have:need], p)
	a.have += n
	if a.have < need {
		return nil, n
	}
	a.have = 0
	return a.buf[:need:need], n
}

type stage uint8

const (
	atHeader stage = iota
	atPayload
	atContent
	atSkip
	broken
)

// RequestDecoder decodes what a client sends. It is a plain value of about
// 80 bytes; the zero value is ready. One goroutine at a time may use it.
//
// It allocates nothing but the errors it returns, holds no more than the longest
// fixed payload (415 bytes), that only while a field comes in pieces, and gives the
// same events for any split of the same bytes, but for where the pieces of content
// are cut. It must not be copied once it is in use.
type RequestDecoder struct {
	assembler
	stage stage
	hdr   RequestHeader
	left  uint32 // bytes of content, or of a payload to skip
	err   *Error // once broken
}

// Next decodes from p and returns what it found and how many bytes of p that
// took; the caller goes on with p[n:]. It may be called with an empty p.
//
// An error is an [*Error]. If it is InStep, the decoder passes over the
// payload of that message and goes on with the next one. Otherwise the stream
// is lost and each further call returns the same error.
//
// A payload size that is wrong for its code is found before any of the payload
// is read.
func (d *RequestDecoder) Next(p []byte) (ev Event, n int, err error) {
	for {
		switch d.stage {
		case atHeader:
			field, took := d.take(p[n:], RequestHeaderSize)
			n += took
			if field == nil {
				return Event{}, n, nil
			}
			if err := d.header(parseRequestHeader(field)); err != nil {
				return Event{}, n, err
			}
		case atPayload:
			fixed, _ := RequestPayloadSize(d.hdr.Code)
			field, took := d.take(p[n:], int(fixed))
			n += took
			if field == nil {
				return Event{}, n, nil
			}
			ev = Event{Kind: Message, Header: d.hdr, Payload: field}
			d.stage = atHeader
			if d.hdr.Code == CodeSendFile {
				ev.ContentSize = d.hdr.PayloadSize - fixed
				if ev.ContentSize > 0 {
					d.stage, d.left = atContent, ev.ContentSize
				}
			}
			return ev, n, nil
		case atContent:
			piece := d.pass(p[n:])
			n += len(piece)
			if len(piece) == 0 {
				return Event{}, n, nil
			}
			return Event{Kind: Content, Content: piece, End: d.stage == atHeader}, n, nil
		case atSkip:
			n += len(d.pass(p[n:]))
			if d.stage == atSkip {
				return Event{}, n, nil
			}
		case broken:
			return Event{}, n, d.err
		}
	}
}

// pass takes what p has of the d.left bytes and goes back to atHeader behind
// the last of them.
func (d *RequestDecoder) pass(p []byte) []byte {
	if uint64(len(p)) > uint64(d.left) {
		p = p[:d.left:d.left]
	}
	d.left -= uint32(len(p))
	if d.left == 0 {
		d.stage = atHeader
	}
	return p
}

func (d *RequestDecoder) header(h RequestHeader) error {
	if code, ok := laterEdition[h.Code]; ok {
		h.Code, h.Later = code, true
	}
	want, known := RequestPayloadSize(h.Code)
	switch {
	case h.Version != Version:
		return d.refuse(h, ErrVersion, fmt.Sprintf("it is %d", h.Version))
	case !known:
		return d.unknown(h)
	case h.Code == CodeContinue && h.PayloadSize != want:
		return d.refuse(h, ErrCode, "") // somebody else's extension: such are passed over
	case h.PayloadSize < want, h.PayloadSize > want && h.Code != CodeSendFile:
		d.err = &Error{Code: h.Code, Err: ErrSize, Detail: fmt.Sprintf("%d declared, %d wanted", h.PayloadSize, want)}
		d.stage = broken
		return d.err
	}
	d.hdr, d.stage = h, atPayload
	return nil
}

// unknown refuses a code that is no request's. If the header is one with its
// numbers in big-endian, the error says so and names the code as the client
// meant it. The payload size is then meant in the same way, and the decoder has
// lost its step, unless it is right as it is.
func (d *RequestDecoder) unknown(h RequestHeader) error {
	meant := Code(bits.ReverseBytes16(uint16(h.Code)))
	code, later := laterEdition[meant]
	if !later {
		code = meant
	}
	want, known := RequestPayloadSize(code)
	if !known {
		return d.refuse(h, ErrCode, "")
	}
	h.Code = meant
	size := bits.ReverseBytes32(h.PayloadSize)
	if size == want || size > want && code == CodeSendFile {
		d.err = &Error{Code: h.Code, Err: ErrByteOrder}
		d.stage = broken
		return d.err
	}
	return d.refuse(h, ErrByteOrder, "")
}

// refuse turns down a message by its header and arranges for its payload to be
// passed over, if it is small enough to be believed.
func (d *RequestDecoder) refuse(h RequestHeader, cause error, detail string) error {
	err := &Error{Code: h.Code, Err: cause, Detail: detail, InStep: h.PayloadSize <= maxSkip}
	switch {
	case !err.InStep:
		d.stage, d.err = broken, err
	case h.PayloadSize > 0:
		d.stage, d.left = atSkip, h.PayloadSize
	}
	return err
}

// InMessage reports whether a message has begun and is not whole; the content
// of a 1028 does not count. A server ends a connection that stays so for long.
func (d *RequestDecoder) InMessage() bool {
	return d.have > 0 || d.stage == atPayload || d.stage == atSkip
}

// InContent reports whether the content of a 1028 is under way.
func (d *RequestDecoder) InContent() bool { return d.stage == atContent }

// ContentLeft is how many bytes of the content under way are still to come.
func (d *RequestDecoder) ContentLeft() uint32 {
	if d.stage != atContent {
		return 0
	}
	return d.left
}

// Passed tells the decoder that the next n bytes of content, at most
// ContentLeft, were read without it, straight to where they belong. It reports
// whether the packet ends with them.
func (d *RequestDecoder) Passed(n int) (end bool) {
	d.left -= uint32(n)
	if d.left == 0 {
		d.stage = atHeader
	}
	return d.stage == atHeader
}

// Reply is what [ResponseDecoder.Next] found: a whole reply. Payload aliases
// either the bytes given to Next or the decoder, and is valid until its next
// call.
type Reply struct {
	Header  ResponseHeader
	Payload []byte
}

// ResponseDecoder decodes what a server sends. The zero value is ready. One
// goroutine at a time may use it. It allocates nothing but the errors it
// returns.
type ResponseDecoder struct {
	assembler
	stage stage
	hdr   ResponseHeader
	err   *Error
}

// Next decodes from p and returns how many bytes of p it took. ok is false
// while the reply is not whole; then all of p was taken. An error is an
// [*Error] and final: a client does not guess where the next reply begins.
func (d *ResponseDecoder) Next(p []byte) (r Reply, n int, ok bool, err error) {
	if d.stage == broken {
		return Reply{}, 0, false, d.err
	}
	if d.stage == atHeader {
		field, took := d.take(p, ResponseHeaderSize)
		n += took
		if field == nil {
			return Reply{}, n, false, nil
		}
		d.hdr = parseResponseHeader(field)
		want, known := ResponsePayloadSize(d.hdr.Code)
		switch {
		case d.hdr.Version != Version:
			return Reply{}, n, false, d.fail(ErrVersion, fmt.Sprintf("it is %d", d.hdr.Version))
		case !known:
			return Reply{}, n, false, d.fail(ErrCode, "")
		case d.hdr.PayloadSize != want:
			return Reply{}, n, false, d.fail(ErrSize, fmt.Sprintf("%d declared, %d wanted", d.hdr.PayloadSize, want))
		}
		d.stage = atPayload
	}
	field, took := d.take(p[n:], int(d.hdr.PayloadSize))
	n += took
	if field == nil {
		return Reply{}, n, false, nil
	}
	d.stage = atHeader
	return Reply{Header: d.hdr, Payload: field}, n, true, nil
}

func (d *ResponseDecoder) fail(cause error, detail string) error {
	d.stage = broken
	d.err = &Error{Code: d.hdr.Code, Err: cause, Detail: detail}
	return d.err
}
