package storage

import (
	"errors"
	"fmt"
	"time"

	"sealift/codec"
)

// ErrQuota is a file that would take a client beyond its quota. The error is a *QuotaError.
var ErrQuota = errors.New("the client's quota is used up")

// Usage is what a client has in the store: bytes of how many files.
//
// A place counts once, with the most that it may hold whatever verdict comes next: the
// verified file, unless it is Missing, or the one that waits, if that is larger. So a file
// can be replaced by one of its size without room for both, and no verdict takes a client
// beyond its quota. Files that were taken or deleted count until their content is gone.
// Partial files do not count.
type Usage struct{ Bytes, Files int64 }

// Add returns u and v together.
func (u Usage) Add(v Usage) Usage { return Usage{u.Bytes + v.Bytes, u.Files + v.Files} }

// Sub returns u without v.
func (u Usage) Sub(v Usage) Usage { return Usage{u.Bytes - v.Bytes, u.Files - v.Files} }

// With returns what a place that counts as u counts as when a file of size bytes waits
// there, too.
func (u Usage) With(size int64) Usage { return Usage{max(u.Bytes, size), 1} }

// Quota bounds a Usage. As that of all clients, 0 is no bound. As a client's own, 0 is what
// all have, and Unlimited no bound.
type Quota struct{ Bytes, Files int64 }

// Unlimited is a client's own bound that is none. As its KeepFor it is for ever.
const Unlimited = -1

// Or returns what a client goes by that has q of its own, where all have that.
func (q Quota) Or(all Quota) Quota {
	return Quota{bound(q.Bytes, all.Bytes), bound(q.Files, all.Files)}
}

func bound(own, all int64) int64 {
	switch {
	case own == 0:
		return max(all, 0)
	case own < 0:
		return 0
	}
	return own
}

// Bounds reports whether q, as that of all clients, bounds anything.
func (q Quota) Bounds() bool { return q.Bytes > 0 || q.Files > 0 }

// Refuses returns a *QuotaError if a client that has used may not have a file of size bytes
// in a place that counts as here, by q as Or returns it. Where nothing is added, a client
// may have more than its quota: that was lowered.
func (q Quota) Refuses(used, here Usage, size int64) error {
	more := here.With(size).Sub(here)
	if q.Bytes > 0 && more.Bytes > 0 && more.Bytes > q.Bytes-used.Bytes ||
		q.Files > 0 && more.Files > 0 && more.Files > q.Files-used.Files {
		return &QuotaError{Quota: q, Used: used, More: more, Size: size}
	}
	return nil
}

// ExpiredAt reports whether the client's time is over at t.
func (c *Client) ExpiredAt(t time.Time) bool { return !c.Expires.IsZero() && !c.Expires.After(t) }

// KeepsFor is how long the client's verified files are kept, where those of all are kept
// for that; 0: for ever.
func (c *Client) KeepsFor(all time.Duration) time.Duration {
	return time.Duration(bound(int64(c.KeepFor), int64(all)))
}

// QuotaError is an ErrQuota that says how much there is.
type QuotaError struct {
	Quota      Quota
	Used, More Usage
	Size       int64 // of the file
}

func (e *QuotaError) Error() string {
	of := func(n int64) string {
		if n == 0 {
			return "any number"
		}
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%v: %d bytes in %d files, %d and %d more; allowed are %s and %s",
		ErrQuota, e.Used.Bytes, e.Used.Files, e.More.Bytes, e.More.Files, of(e.Quota.Bytes), of(e.Quota.Files))
}

// Unwrap makes it an ErrQuota.
func (e *QuotaError) Unwrap() error { return ErrQuota }

type (
	// SetQuota sets one or both bounds of a client's own quota; nil leaves a bound as it
	// is. It counts what the client has anew. It is the server's own. Err: ErrNoClient.
	SetQuota struct {
		Outcome
		ID           codec.ClientID
		Bytes, Files *int64
	}

	// SetKeepFor sets Client.KeepFor. It is the server's own. Err: ErrNoClient.
	SetKeepFor struct {
		Outcome
		ID      codec.ClientID
		KeepFor time.Duration // whole seconds
	}

	// SetExpires sets Client.Expires. It is the server's own. Err: ErrNoClient.
	SetExpires struct {
		Outcome
		ID      codec.ClientID
		Expires time.Time // zero: never
	}

	// FindExpired finds the clients whose Expires is not after Now. At stays zero.
	FindExpired struct {
		Outcome
		Now time.Time
		IDs []codec.ClientID // result
	}

	// ExpireClient disables a client whose Expires is not after Now, and clears Expires. It
	// is the server's own. Err: ErrNoClient, also where the time has not come.
	ExpireClient struct {
		Outcome
		ID  codec.ClientID
		Now time.Time
	}

	// GetUsage reads what a client has, and what its place under Path counts as. Err:
	// ErrNoClient.
	GetUsage struct {
		Outcome
		ID      codec.ClientID
		Path    string
		Recount bool  // count the files, too
		Own     Quota // result: the client's own
		Counted bool  // result: what the client has is kept count of, since a quota stands
		Used    Usage // result, of the count that is kept; zero where none is
		Here    Usage // result
		Actual  Usage // result, with Recount: what the files themselves add up to
	}
)
