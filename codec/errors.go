package codec

import (
	"errors"
	"fmt"
)

// What can be wrong with the bytes of a message. A decoder and the Parse
// functions wrap one of these in an [Error].
var (
	ErrVersion = errors.New("the version is not 3")
	ErrCode    = errors.New("unknown code")
	// ErrByteOrder is a header that would be one with its numbers in big-endian.
	ErrByteOrder = errors.New("the header is big-endian, which is not served")
	ErrSize      = errors.New("the payload size is wrong for the code")
	ErrName      = errors.New("the name cannot be taken")
	ErrPacket    = errors.New("the sizes and numbers of the packet contradict each other")
)

// Error is a message that breaks the protocol. The answer to it is a 1607.
type Error struct {
	Code   Code   // of the message, as in an Event; 0 if it is about no message
	Detail string // what was found, for the log
	Err    error  // one of the sentinels above

	// InStep reports whether the decoder still knows where the next message
	// begins. Where it does not, the connection has to end.
	InStep bool
}

func (e *Error) Error() string {
	text := e.Err.Error()
	if e.Code != 0 {
		text = fmt.Sprintf("message %d: %s", uint16(e.Code), text)
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }
