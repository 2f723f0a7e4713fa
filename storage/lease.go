package storage

import (
	"context"
	"errors"
	"time"
)

// ErrNoLease is what content is refused with whose lease ran out and was taken away: it may
// have been swept.
var ErrNoLease = errors.New("the lease of the upload is gone")

// Lease is content on its way into a store that several servers may share: a row of the
// table leases. As long as it is there, no sweep touches the content.
type Lease struct {
	Upload Uploaded
	Server string    // who stores the content
	Ends   time.Time // by the clock of the registry
}

// Leases is the part of a Registry that keeps leases. A lease is recorded before the first
// byte of the content goes to the store. It ends when the file is recorded (PutFile with Leased
// set), when the content was discarded, or when it ran out long ago: then nothing can be
// recorded any more, unless there is a partial file of that key, and content of which nothing
// is on record may be removed ([FindUpload]).
//
// The changes are operations: [LeaseUpload], [RenewLeases], [EndLease], [ReapLeases]. All
// are the server's own, and At stays zero. Times are by the registry's clock: that of its
// database, where it has one.
type Leases interface {
	// EachLease calls yield for each lease, in any order, until yield returns an error, which
	// it then returns. yield may not call the registry.
	EachLease(ctx context.Context, yield func(Lease) error) error
}

type (
	// LeaseUpload records a lease that ends in For. One with that key it renews, and it is
	// Server's from now on. With Again, something must be on record of the content, as for
	// FindUpload: else the content may be gone. Err: ErrNoLease.
	LeaseUpload struct {
		Outcome
		Upload Uploaded
		Server string
		For    time.Duration
		Again  bool // the content came in before, and is gone on with
	}

	// RenewLeases has all leases of Server whose keys are in Keys end in For from now.
	RenewLeases struct {
		Outcome
		Server string
		Keys   []string
		For    time.Duration
		Lost   []string // result: those of Keys of which Server has no lease
	}

	// EndLease forgets a lease. It is no error if there is none.
	EndLease struct {
		Outcome
		Key string
	}

	// ReapLeases forgets the leases that ran out at least so long ago, up to Limit of them.
	ReapLeases struct {
		Outcome
		Ago    time.Duration
		Limit  int
		Reaped []Lease // result
	}

	// FindUpload finds out at one moment whether anything is on record of content: a lease of
	// its key, or a file or partial file with it in its place. It only reads.
	FindUpload struct {
		Outcome
		Upload Uploaded
		Found  bool // result
	}
)

// Locker is a Registry with locks that one server at a time has. They go with the server's
// process, at the latest soon after.
type Locker interface {
	// TryLock takes the lock of that name until unlock. ok is false where another server has
	// it. lost is closed if the lock is lost before unlock: then another server may get it.
	TryLock(ctx context.Context, name string) (lost <-chan struct{}, unlock func(), ok bool, err error)
}

// Secrets is a Registry that keeps what servers share and nobody else is to know.
type Secrets interface {
	// Secret returns what is kept under name. If there is nothing, it keeps what fresh makes;
	// where several servers do that at once, all return the same.
	Secret(ctx context.Context, name string, fresh func() ([]byte, error)) ([]byte, error)
}
