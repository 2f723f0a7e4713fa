package session

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// What a client may have in the store the registry decides, in the step that records a
// file, see storage.PutFile. Here a file that would be refused there is refused at its
// first packet, as far as its size is known then: by what the client has, and what its
// transfers under way on all connections will add.

// bookings are what transfers under way will add to what their clients have. The zero value
// is ready. Where no quota stands it is not touched.
type bookings struct {
	mu  sync.Mutex
	all map[codec.ClientID]map[string]*booking // by path
	// told is when an event last told that a client had come to its quota.
	told map[codec.ClientID]time.Time
}

// booking is that of all transfers to one place: one of them will be stored there.
type booking struct {
	adds      storage.Usage // the most of them
	transfers int
}

// enter books room for a file of size bytes. usage is about its place. The caller calls
// leave once.
func (bs *bookings) enter(k pathKey, size int64, usage *storage.GetUsage, all storage.Quota) (leave func(), err error) {
	quota := usage.Own.Or(all)
	adds := usage.Here.With(size).Sub(usage.Here)
	if !quota.Bounds() || adds == (storage.Usage{}) {
		return nil, nil
	}
	bs.mu.Lock()
	defer bs.mu.Unlock()
	used := usage.Used
	for path, c := range bs.all[k.id] {
		if path != k.path {
			used = used.Add(c.adds)
		}
	}
	if err := quota.Refuses(used, usage.Here, size); err != nil {
		return nil, err
	}
	if bs.all == nil {
		bs.all = make(map[codec.ClientID]map[string]*booking)
	}
	of := bs.all[k.id]
	if of == nil {
		of = make(map[string]*booking)
		bs.all[k.id] = of
	}
	c := of[k.path]
	if c == nil {
		c = new(booking)
		of[k.path] = c
	}
	c.transfers++
	c.adds = storage.Usage{Bytes: max(c.adds.Bytes, adds.Bytes), Files: max(c.adds.Files, adds.Files)}
	return func() { bs.leave(k) }, nil
}

func (bs *bookings) leave(k pathKey) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	of := bs.all[k.id]
	if c := of[k.path]; c.transfers > 1 {
		c.transfers--
		return
	}
	if delete(of, k.path); len(of) == 0 {
		delete(bs.all, k.id)
	}
}

const (
	// quotaTellEvery is how often an event tells that a client has come to its quota: a
	// client may try all files of a folder, and again.
	quotaTellEvery = time.Hour
	// maxQuotaTold bounds the clients of whom that is remembered. Beyond it, an event more
	// may come.
	maxQuotaTold = 16 << 10
)

// tells reports whether an event is to tell that client id has come to its quota.
func (bs *bookings) tells(id codec.ClientID, now time.Time) bool {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if at, ok := bs.told[id]; ok && now.Sub(at) < quotaTellEvery {
		return false
	}
	if bs.told == nil || len(bs.told) >= maxQuotaTold {
		bs.told = make(map[codec.ClientID]time.Time)
	}
	bs.told[id] = now
	return true
}

// tellQuota has an event tell that a file was refused with err, if that is a QuotaError.
func (s *Session) tellQuota(name string, err error) {
	q := (*storage.QuotaError)(nil)
	if s.closed || !errors.As(err, &q) || !s.svc.bookings.tells(s.id, s.host.Now()) {
		return
	}
	path, _ := storage.CleanPath(name)
	s.host.Apply(&storage.RaiseEvent{Outcome: own, Event: storage.Event{
		Kind: storage.EventQuota, Client: s.id, FileName: name, Path: path, Size: q.Size,
	}}, nil)
}

// asksUsage reports whether a quota stands for the client, or may.
func (s *Session) asksUsage() bool {
	return s.svc.limits.Load().Quota.Bounds() || s.facts.has(ownQuota)
}

// learnUsage reads what the client has, before the transfer of f begins. Whether the
// client may act at all, the record of the file finds out, as where no quota stands.
func (f *found) learnUsage(co *coroutine, path string) {
	op := &storage.GetUsage{Outcome: own, ID: co.s.id, Path: path}
	switch err := co.apply(op); {
	case err == nil:
		f.usage = op
		co.s.facts.set(ownQuota, op.Own != storage.Quota{})
	case !errors.Is(err, storage.ErrNoClient):
		f.err = &stepError{StepRegistry, fmt.Errorf("registry: %w", err)}
	}
}

// book books room for a file of size bytes; less than 0: its size is not known.
func (f *found) book(s *Session, path string, size int64) (leave func(), err error) {
	if f.usage == nil {
		return nil, nil
	}
	return s.svc.bookings.enter(pathKey{s.id, path}, max(size, 0), f.usage, s.svc.limits.Load().Quota)
}

// unbook gives up what u has booked: from now on the registry counts it, or nobody.
func (u *upload) unbook() {
	if u.leaveBooking != nil {
		u.leaveBooking()
		u.leaveBooking = nil
	}
}
