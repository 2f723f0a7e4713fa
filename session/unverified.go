package session

import (
	"sync"

	"sealift/codec"
	"sealift/storage"
)

// unverified counts what each client has in the store that is not verified: files
// that await their verdict, and transfers under way on all its connections.
type unverified struct {
	mu    sync.Mutex
	bytes map[codec.ClientID]int64 // an entry is above zero
}

// countStep is the unit in which a file counts.
const countStep = 4 << 10 // bytes

// Occupies is what a file of size bytes counts for Config.MaxUnverified: whole
// steps of 4 KiB, and one for an empty file.
func Occupies(size int64) int64 {
	return max(1, (size+countStep-1)/countStep) * countStep
}

// Waiting adds bytes, which may be negative, to what counts of the client's
// unverified files. Sessions count what they store and judge themselves. Recovery,
// which finds such files at the start, calls it with what [Occupies] returns for each.
// Where other servers share the registry it is not to be called: who judges a file may be
// another server, so only transfers under way count. Any goroutine may call it.
func (svc *Service) Waiting(id codec.ClientID, bytes int64) {
	svc.unverified.add(id, bytes, 1<<62)
}

// settled takes back what counted of f, which no longer awaits a verdict.
func (svc *Service) settled(f *storage.File) {
	if !svc.Shared {
		svc.Waiting(f.ID, -Occupies(f.Size))
	}
}

// add reports whether bytes could be added without passing the limit.
func (u *unverified) add(id codec.ClientID, bytes, limit int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.bytes[id] + bytes
	if bytes > 0 && n > limit {
		return false
	}
	if n <= 0 {
		delete(u.bytes, id)
		return true
	}
	if u.bytes == nil {
		u.bytes = make(map[codec.ClientID]int64)
	}
	u.bytes[id] = n
	return true
}

// reserve counts n more bytes of content of u. It fails if the client has too much
// that is not verified.
func (u *upload) reserve(n int) error {
	more := Occupies(u.transfer.Arrived()+int64(n)) - u.counted
	if more <= 0 {
		return nil
	}
	if svc := u.s.svc; !svc.unverified.add(u.s.id, more, svc.limits.Load().MaxUnverified) {
		return errUnverified
	}
	u.counted += more
	return nil
}

// uncount takes back what was counted of a transfer.
func (u *upload) uncount() {
	if u.counted > 0 {
		u.s.svc.Waiting(u.s.id, -u.counted)
		u.counted = 0
	}
}
