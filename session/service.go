package session

import (
	"context"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/storage"
)

// KeyPolicy says what becomes of a 1026 that brings another public key for a
// client that has one.
type KeyPolicy uint8

const (
	// PinKey refuses it: the first key stays. A client id travels in the clear,
	// and must not be enough to take an account over.
	PinKey KeyPolicy = iota
	// ReplaceKey takes it.
	ReplaceKey
)

// Config is what all sessions of a server share. Files and Log are needed; for
// the numbers zero means the default.
type Config struct {
	Files     storage.Files
	Log       *zap.Logger
	KeyPolicy KeyPolicy
	// MaxFileSize is the largest file taken, in bytes. Default and most:
	// codec.MaxFileSize.
	MaxFileSize int64
	// MaxUnverified is how many bytes one client may have in the store that are
	// not verified, in files that await their verdict and in transfers under way,
	// each as Occupies counts it. Beyond that content gets 1607. Default: room for
	// four files of MaxFileSize.
	MaxUnverified int64
	// MaxUploads is how many transfers one connection may have under way.
	// Default 16.
	MaxUploads int
	// Window is how many bytes of received content a connection may have in
	// buffers that no worker has finished with. Default 2 MiB.
	Window int
	// RegisterRate is how many clients a second may register from one address,
	// after a burst of 20 seconds' worth; the next gets 1607. 0 is no bound.
	RegisterRate float64
	// Faults, if there are any, are for testing clients.
	Faults *Faults
}

// Defaults of Config.
const (
	DefaultMaxUploads = 16
	DefaultWindow     = 2 << 20
)

// Service is what the sessions of one server have in common. Its methods may
// be called from any goroutine.
type Service struct {
	Config
	alike      alike
	places     places
	resumed    resumptions
	unverified unverified
	rate       *registrationRate
	lendFrom   int64 // bytes; tests set others than the constant
}

// NewService completes cfg with the defaults.
func NewService(cfg Config) *Service {
	if cfg.MaxFileSize <= 0 || cfg.MaxFileSize > codec.MaxFileSize {
		cfg.MaxFileSize = codec.MaxFileSize
	}
	if cfg.MaxUnverified <= 0 {
		// Room for four of the largest files, as what they are counted for.
		cfg.MaxUnverified = 4 * Occupies(aescbc.CiphertextSize(cfg.MaxFileSize))
	}
	if cfg.MaxUploads <= 0 {
		cfg.MaxUploads = DefaultMaxUploads
	}
	if cfg.Window <= 0 {
		cfg.Window = DefaultWindow
	}
	cfg.Window = max(cfg.Window, 2*MaxBuffer)
	return &Service{Config: cfg, rate: newRegistrationRate(cfg.RegisterRate), lendFrom: lendFrom}
}

// newID makes a client id: a UUID of version 4.
func newID() codec.ClientID { return codec.ClientID(uuid.New()) }

// Lane says what a piece of work needs, so that short computations do not
// queue behind slow disks.
type Lane uint8

const (
	Compute Lane = iota // RSA: some hundred microseconds at most
	Storage             // decrypts, writes, syncs: as long as the disk takes
)

// MinBuffer and MaxBuffer bound what [Host.Buffer] is asked for, in bytes. Each
// buffer is handed to a worker, and the hand-over costs as much as 64 KiB of
// content: hence so large.
const (
	MinBuffer = 4 << 10
	MaxBuffer = 1 << 20
)

// Host is what a session needs of the transport that drives it. A transport
// runs each session on one goroutine at a time, "the session's" below; the
// event loop has one goroutine for many. None of them is locked to a thread:
// sessions take over each other's coroutines, and the runtime allows no switch
// between such goroutines. The session calls these methods on
// that goroutine, but for Do and Release. The transport calls [Session.Tick] about
// twice a second.
type Host interface {
	// Send sends one whole reply. It copies what it cannot send at once.
	Send(reply []byte)

	// Do runs work on another goroutine and then done on the session's, also if
	// the connection has closed meanwhile or work has panicked; neither before Do
	// returns. ctx ends when the server gives up waiting for what is under way.
	// Either function may be nil. Any goroutine may call it: another session
	// does when it leaves a path for which this one waits.
	Do(lane Lane, work func(ctx context.Context), done func())

	// Apply puts op into the next batch for the registry and then runs done on
	// the session's goroutine, also if the connection has closed meanwhile, and
	// not before Apply returns. err
	// is op's own, or that of the whole batch. done may be nil.
	Apply(op storage.Operation, done func(err error))

	// Buffer returns a buffer of at least size bytes, which is a power of two from
	// MinBuffer to MaxBuffer, or nil if the memory of the process is spent. Then
	// the session stops consuming, and the host calls Feed again when there is
	// memory. A longer buffer counts against the window as a whole.
	Buffer(size int) []byte
	// Release takes back what Buffer returned. Any goroutine may call it.
	Release(buf []byte)

	// Hold asks for n bytes to be kept for as long as a transfer lasts, for
	// packets that came before their turn, or until Closed, for the numbers of
	// packets of a transfer that was refused. It never waits: false means no,
	// and then packets wait in a file, and numbers are forgotten.
	Hold(n int) bool
	// Unhold gives back n bytes of what Hold granted.
	Unhold(n int)

	// Hangup ends the connection for that reason, after what was sent has
	// reached the client. Feed is not called again.
	Hangup(reason string)

	// Now is the time.
	Now() time.Time
}
