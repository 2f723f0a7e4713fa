package session

import (
	"context"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// Operation is what a session asks of the registry, see [Host].Apply.
type Operation = storage.Operation

// Queue returns the Submit of a new [storage.Queue] in front of the registry, for
// hosts to apply operations with. Batches are applied with ctx.
func (svc *Service) Queue(ctx context.Context) (submit func(op Operation, done func(error))) {
	return storage.NewQueue(ctx, svc.Registry).Submit
}

// ErrorReply is a 1607, for a host that refuses a connection before it has a
// session.
func ErrorReply() []byte {
	return codec.EmptyReply{Code: codec.CodeError}.Append(make([]byte, 0, codec.ResponseHeaderSize))
}

// Lane says what a piece of work needs, so that short computations do not
// queue behind slow disks.
type Lane uint8

const (
	Compute Lane = iota // RSA: some hundred microseconds at most
	Storage             // decrypts, writes, syncs: as long as the disk takes
)

// MinBuffer and MaxBuffer bound what [Host.Buffer] is asked for, in bytes. Handing a
// buffer to a worker costs as much as processing 64 KiB, so MaxBuffer is well above
// that.
const (
	MinBuffer = 4 << 10
	MaxBuffer = 1 << 20
)

// Host is what a session needs of the transport that drives it. The package comment
// lists the transport's duties, and shows its loop. The session calls these methods
// on its own goroutine, but for Do and Release.
type Host interface {
	// Send sends one whole reply. It copies what it cannot send at once.
	Send(reply []byte)

	// Do runs work, as a rule on another goroutine, and then done on the session's, also if
	// the connection has closed meanwhile or work has panicked; neither before Do
	// returns. ctx ends when the server gives up waiting for what is under way.
	// Either function may be nil. Any goroutine may call it: another session
	// does when it unlocks a place that this one waits for.
	Do(lane Lane, work func(ctx context.Context), done func())

	// Apply puts op into the next batch for the registry and then runs done on
	// the session's goroutine, also if the connection has closed meanwhile, and
	// not before Apply returns. err is op's own, or that of the whole batch. done
	// may be nil. Any goroutine may call it: work that was given to Do does.
	Apply(op Operation, done func(err error))

	// Buffer returns a buffer of at least size bytes, or nil if the memory of the
	// process is spent. size is a power of two from MinBuffer to MaxBuffer. The
	// buffer is the session's until Release. A longer one counts against
	// Config.Window as a whole. After a nil the session takes no content, and the
	// host calls Feed again when there is memory.
	Buffer(size int) []byte
	// Release takes back what Buffer returned, whole. Any goroutine may call it.
	Release(buf []byte)

	// Hold reports whether the session may keep n more bytes on Go's heap: packets
	// that came before their turn, as long as their transfer lasts, or the numbers
	// of packets of a refused transfer, until Closed at the latest. It never waits.
	// After false, packets wait in a file, and numbers are forgotten.
	Hold(n int) bool
	// Unhold gives back n bytes of what Hold granted.
	Unhold(n int)

	// Hangup ends the connection for that reason, after what was sent has
	// reached the client. Feed is not called again.
	Hangup(reason string)

	// Now is the time.
	Now() time.Time
}
