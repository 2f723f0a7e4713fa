package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sealift/codec"
)

// What can go wrong for good. [Error] wraps these.
var (
	// ErrConnection: the connection could not be made, was lost, or the server
	// was silent for too long; or its bytes made no sense any more.
	ErrConnection = errors.New("the connection is lost")
	// ErrServer: the server answered 1607.
	ErrServer = errors.New("the server answered with a general error (1607)")
	// ErrNameTaken: the server answered a registration with 1601.
	ErrNameTaken = errors.New("the server refused the name (1601): it is taken, or none that its operator admits")
	// ErrRejected: the server answered a reconnect with 1606.
	ErrRejected = errors.New("the server does not know this client (1606)")
	// ErrReply: the server sent something that has no place here. A [*ReplyError]
	// has the details.
	ErrReply = errors.New("unexpected reply")
	// ErrKey: the AES key that the server sent does not open with our private
	// key.
	ErrKey = errors.New("the server's AES key does not open with our private key")
	// ErrChecksum: the server's checksum was wrong four times.
	ErrChecksum = errors.New("the server's checksum is wrong")
	// ErrNoDialect: the server takes a file in none of the dialects, as far as they
	// could be tried.
	ErrNoDialect = errors.New("the server takes files in none of the dialects that were tried")
	// ErrChanged: the file changed while it was sent: its size, its times, its
	// content, or another took its place.
	ErrChanged = errors.New("the file changed while it was sent")
	// ErrSize: the file has more content than its size says, or less. So it is with
	// files that the system makes up when they are read, as in /proc.
	ErrSize = errors.New("its size is not that of its content")
	// ErrTooLarge: the file does not fit the protocol, or not the dialect and
	// packet size.
	ErrTooLarge = errors.New("the file is too large")
	// ErrName: a user name or file name that the protocol cannot carry.
	ErrName = errors.New("the name cannot be sent")
	// ErrNotLoggedIn: there is no identity or no AES key yet.
	ErrNotLoggedIn = errors.New("not logged in")
)

// Temporary reports whether err may pass by itself: the same call may succeed
// later, with nothing changed on this side. So it is where the connection could
// not be made or was lost, where the server failed (1607) after all retries, and
// at a limit of the server, which answers with the same 1607. It is not so where
// the name is taken, the server does not know the client, its TLS key is not trusted or
// it speaks no TLS, the checksum or the dialect is wrong, an option, a name or a file is at fault, or the context ended.
func Temporary(err error) bool {
	if !errors.Is(err, ErrConnection) && !errors.Is(err, ErrServer) {
		return false
	}
	// An error may have several reasons. One that stays decides.
	for _, stays := range []error{
		ErrNameTaken, ErrRejected, ErrReply, ErrKey, ErrChecksum, ErrNoDialect, ErrChanged, ErrTooLarge, ErrName, ErrNotLoggedIn,
		ErrServerKey, ErrTLS, ErrProtected,
		context.Canceled,
	} {
		if errors.Is(err, stays) {
			return false
		}
	}
	return true
}

// Error says at which message a client gave up, and why.
type Error struct {
	Code     codec.Code // the message that did not succeed; 0 while connecting
	File     string     // the name sent, where it was about a file
	Attempts int        // how often the message was sent, or the connection tried
	Err      error      // wraps one of the sentinels above, or is the context's error
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Code != 0 {
		fmt.Fprintf(&b, "message %v", e.Code)
		if e.File != "" {
			fmt.Fprintf(&b, " of %q", e.File)
		}
		b.WriteString(": ")
	}
	fmt.Fprint(&b, e.Err)
	if e.Attempts > 1 {
		fmt.Fprintf(&b, "; tried %d times", e.Attempts)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// ReplyError is a reply that has no place where it came, or whose bytes make no
// sense.
type ReplyError struct {
	Problem string
	Raw     []byte // what came, header first, as far as it was read

	// OutOfStep reports that nobody knows where the next reply would begin.
	// The client takes that as a lost connection.
	OutOfStep bool
}

// shownBytes is how much of a reply an error message quotes. It reaches into
// the file name of a 1603, the longest reply.
const shownBytes = 64

func (e *ReplyError) Error() string {
	if len(e.Raw) <= shownBytes {
		return fmt.Sprintf("%v: %s; received % x", ErrReply, e.Problem, e.Raw)
	}
	return fmt.Sprintf("%v: %s; received % x … (%d bytes)", ErrReply, e.Problem, e.Raw[:shownBytes], len(e.Raw))
}

// Is makes every ReplyError an ErrReply, and one that is OutOfStep an
// ErrConnection too.
func (e *ReplyError) Is(target error) bool {
	return target == ErrReply || e.OutOfStep && target == ErrConnection
}

// lost makes err an ErrConnection that says why. An ErrTLS is none: another connection
// would come to the same.
func lost(err error) error {
	if errors.Is(err, ErrTLS) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrConnection, err)
}
