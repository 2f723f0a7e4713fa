package session

import (
	"math"
	"sync/atomic"
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

// Limits are what clients may do. They may change while sessions are served, see
// [Service.Limit]. Zero means the default.
type Limits struct {
	// MaxFileSize is the largest file taken, in bytes. Default: codec.MaxFileSize, which is what one
	// transfer can carry; larger ones come in segments. Most: math.MaxInt64 / 2.
	MaxFileSize int64
	// MaxUnverified is how many bytes one client may have in the store that are
	// not verified, in files that await their verdict and in transfers under way,
	// each as Occupies counts it. Beyond that content gets 1607. Default: room for
	// four files of MaxFileSize.
	MaxUnverified int64
	// Quota bounds what one client may have in the store, unless it has a quota of its
	// own. What a file would add to more gets 1607. 0 is no bound.
	Quota storage.Quota
	// MaxUploads is how many transfers one connection may have under way.
	// Default 16.
	MaxUploads int
	// RegisterRate is how many clients a second may register from one address,
	// after a burst of 20 seconds' worth; the next gets 1607. 0 is no bound.
	RegisterRate float64
	KeyPolicy    KeyPolicy
	// Closed: only clients whose name was added register, see storage.AddName.
	Closed bool
}

// complete sets what is zero and has a default.
func (l *Limits) complete() {
	if l.MaxFileSize <= 0 {
		l.MaxFileSize = codec.MaxFileSize
	}
	l.MaxFileSize = min(l.MaxFileSize, math.MaxInt64/2)
	if l.MaxUnverified <= 0 {
		// Room for four of the largest files, as what they are counted for.
		l.MaxUnverified = 4 * Occupies(aescbc.CiphertextSize(min(l.MaxFileSize, math.MaxInt64/8)))
	}
	if l.MaxUploads <= 0 {
		l.MaxUploads = DefaultMaxUploads
	}
}

// Config is what all sessions of a server share. Files, Registry and Log are
// needed; for the numbers zero means the default.
type Config struct {
	Files storage.Files
	// Registry is asked by way of the host, see Service.Queue. A host that has
	// another way needs none.
	Registry storage.Registry
	Log      *zap.Logger
	Limits
	// Window is how many bytes of received content a connection may have in
	// buffers that no worker has finished with. Default 2 MiB.
	Window int
	// Received, unless it is nil, is called for each 1603 with the time since the first
	// packet of the transfer, on the goroutines of the sessions.
	Received func(took time.Duration)
	// Boot names the boot of the machine, see storage.Partial; "" if it is not known.
	Boot string
	// Kept, unless it is nil, is called when what came of a file was kept as a partial file: its
	// transfer was cut off, or it is a segment. On the goroutines of the sessions.
	Kept func()
	// KeepFrom is the least plaintext, in bytes, that is kept when a transfer is cut off, and
	// CheckpointEvery how much comes between two checkpoints. Default 1 MiB and 64 MiB, or
	// 16 MiB where Files is Sealed.
	KeepFrom, CheckpointEvery int64
	// Shared: other servers use the registry at the same time. Then it is asked also where
	// this server would know the answer if it were alone.
	Shared bool
	// Server names this server in leases, see storage.Lease.
	Server string
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
	Config     // but for Limits, which are in limits
	limits     atomic.Pointer[Limits]
	alike      alike
	claims     claims
	bookings   bookings
	bound      bound
	counts     counters
	quiet      quiet
	places     places
	resumed    resumptions
	unverified unverified
	rate       *registrationRate
	lendFrom   int64 // in bytes; tests set another than the constant
	keeping    storage.Keeping
}

// NewService completes cfg with the defaults.
func NewService(cfg Config) *Service {
	if cfg.Window <= 0 {
		cfg.Window = DefaultWindow
	}
	cfg.Window = max(cfg.Window, 2*MaxBuffer)
	if cfg.KeepFrom <= 0 {
		cfg.KeepFrom = keepFrom
	}
	svc := &Service{rate: newRegistrationRate(cfg.RegisterRate), lendFrom: lendFrom}
	if cfg.Files != nil {
		svc.keeping = cfg.Files.Keeping()
	}
	if cfg.CheckpointEvery <= 0 {
		cfg.CheckpointEvery = checkpointEvery
		if svc.keeping.Sealed {
			cfg.CheckpointEvery = checkpointSealed
		}
	}
	svc.Config, svc.places.versions = cfg, svc.keeping.Versions
	if cfg.Faults != nil && cfg.Faults.cut > 0 {
		svc.lendFrom = math.MaxInt64 // lent content would pass the place of the cut
	}
	svc.Limit(cfg.Limits)
	return svc
}

// Limit has other limits from the next request on. Transfers under way keep those of
// their beginning, but for MaxUnverified.
func (svc *Service) Limit(l Limits) {
	l.complete()
	svc.limits.Store(&l)
	svc.rate.set(l.RegisterRate)
}

// newID makes a client id: a UUID of version 4.
func newID() codec.ClientID { return codec.ClientID(uuid.New()) }

// beginsTLS reports whether a connection that begins with id would be taken for one over
// TLS (PROTOCOL.md 14.1). An id that newID makes never is.
func beginsTLS(id codec.ClientID) bool {
	return id[0] == 0x16 && id[1] == 3 && id[5] == 1 && id[6] == 0 && id[9] == 3 && id[10] <= 4
}
