package client

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"sealift/codec"
)

// maxOddPayload is the largest wrong Payload Size that is put up with: servers
// in the field send 255, the size of a name field, for everything.
const maxOddPayload = 1024

// reply is what a server sent: a whole message.
type reply struct {
	code    codec.Code
	payload []byte // the size that the code implies; nil for a 1604 or 1606 without
	raw     []byte // header and payload as they came

	// odd says in what the header was wrong. Then it is a little uncertain
	// where the next reply begins.
	odd string
}

// readReply reads one reply. It goes by the payload size that the code implies:
// there are servers whose headers say 0 or 255 while 16 bytes follow. nc is the
// connection under r; nil: what r has is all there is.
func readReply(r *bufio.Reader, nc net.Conn) (reply, error) {
	raw := make([]byte, codec.ResponseHeaderSize, 64)
	if n, err := io.ReadFull(r, raw); err != nil {
		return reply{}, lost(readError(err, raw[:n]))
	}
	h, _ := codec.ParseResponseHeader(raw)
	rep := reply{code: h.Code, raw: raw}
	want, known := codec.ResponsePayloadSize(h.Code)
	switch {
	case h.Version != codec.Version:
		return rep, outOfStep(raw, "its version is %d", h.Version)
	case !known:
		return rep, outOfStep(raw, "its code %v is no reply", h.Code)
	case h.PayloadSize == want:
	case !mayBeOdd(h.Code) || h.PayloadSize > maxOddPayload:
		return rep, outOfStep(raw, "its payload size is %d, a %v has %d", h.PayloadSize, h.Code, want)
	case h.Code == codec.CodeReconnectRejected:
		// Whether an id follows cannot be known, and it is not needed.
		want = 0
		fallthrough
	case h.Code == codec.CodeAck && h.PayloadSize == 0 && !followed(r, nc):
		want = 0
		fallthrough
	default:
		rep.odd = fmt.Sprintf("its payload size is %d", h.PayloadSize)
	}
	raw = append(raw, make([]byte, want)...)
	n, err := io.ReadFull(r, raw[codec.ResponseHeaderSize:])
	if err == io.EOF && h.Code == codec.CodeReconnectRejected {
		rep.odd, want, raw, err = "its payload is missing", 0, raw[:codec.ResponseHeaderSize], nil
	}
	if err != nil {
		return rep, lost(readError(err, raw[:codec.ResponseHeaderSize+n]))
	}
	if rep.odd != "" && h.PayloadSize > want {
		// Either the size is true, and the rest has come with what was read, or
		// nothing more follows.
		_, _ = r.Discard(min(r.Buffered(), int(h.PayloadSize-want)))
	}
	rep.raw = raw
	if want > 0 {
		rep.payload = raw[codec.ResponseHeaderSize:]
	}
	return rep, nil
}

// lookAtFirst returns a better error for the first reply on a connection where a
// server of another protocol sent it.
func lookAtFirst(rep reply, err error, r *bufio.Reader) error {
	if e := (*ReplyError)(nil); !errors.As(err, &e) || len(rep.raw) == 0 || rep.raw[0] == codec.Version {
		return err
	}
	more, _ := r.Peek(min(r.Buffered(), shownBytes))
	line, _, _ := strings.Cut(string(rep.raw)+string(more), "\n")
	if s := strangerOf([]byte(strings.TrimRight(line, "\r"))); s != nil {
		return s
	}
	return err
}

// bareGrace is how long the id of a 1604 that announces none may take.
const bareGrace = 250 * time.Millisecond

// followed reports whether a payload follows a header that says there is none.
// What follows may also be the next reply.
func followed(r *bufio.Reader, nc net.Conn) bool {
	if nc != nil && r.Buffered() < codec.ResponseHeaderSize {
		_ = nc.SetReadDeadline(time.Now().Add(bareGrace))
		defer nc.SetReadDeadline(time.Time{})
	}
	next, _ := r.Peek(codec.ResponseHeaderSize)
	if len(next) < codec.ResponseHeaderSize {
		return len(next) > 0
	}
	h, _ := codec.ParseResponseHeader(next)
	want, known := codec.ResponsePayloadSize(h.Code)
	return h.Version != codec.Version || !known || h.PayloadSize != want
}

// mayBeOdd reports whether a wrong payload size leaves no doubt about what the
// payload is.
func mayBeOdd(c codec.Code) bool {
	switch c {
	case codec.CodeRegistered, codec.CodeRegisterFailed, codec.CodeAck, codec.CodeReconnectRejected, codec.CodeError:
		return true
	}
	return false
}

// readError says what a connection had sent when it ended.
func readError(err error, got []byte) error {
	switch {
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		return err
	case len(got) > 0:
		return fmt.Errorf("the server closed it in the middle of a reply, after % x", got)
	}
	return errClosed
}

var errClosed = errors.New("the server closed it")

func outOfStep(raw []byte, format string, args ...any) error {
	return &ReplyError{Problem: fmt.Sprintf(format, args...), Raw: bytes.Clone(raw), OutOfStep: true}
}

func (r reply) surprise(format string, args ...any) error {
	return &ReplyError{Problem: fmt.Sprintf(format, args...), Raw: r.raw}
}

// checkID makes sure that a reply is for us.
func (r reply) checkID(got, ours codec.ClientID) error {
	if got != ours {
		return r.surprise("a %v for client %v, we are %v", r.code, got, ours)
	}
	return nil
}
