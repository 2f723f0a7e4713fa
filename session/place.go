package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// pathKey names a place: a client, and a path below its folder.
type pathKey struct {
	id   codec.ClientID
	path string
}

// place is where one client's file of one path is stored. One request or
// maintenance at a time has it, from coroutine.lock or Service.Exclusive to unlock: a
// change takes two steps, the row in the registry and the file on disk, and nobody
// else may act between them.
//
// Beside the lock it holds what the registry does not know, or was told a moment
// ago. It exists as long as it is locked or holds something.
type place struct {
	in  *places
	key pathKey

	// Under in.mu.
	locked bool
	turns  []func() // of those that wait for the lock, the first in line first

	// waits was recorded a moment ago and awaits its verdict, which mostly follows
	// at once: knowing it spares a question to the registry. If it is nil, such a
	// file may still be in the registry. It is nil where other servers share the registry.
	waits *storage.File
	// unsettled is a commit that the registry's rows may not tell: the content may be in
	// the place, and its row, if there is one, is about the file that was there
	// before. That is settled before anything else happens to the place, by whoever
	// has it next, maintenance included. After a restart, recovery sees to it. It is nil
	// where the store keeps versions: a commit moves nothing there, and the row tells it all.
	unsettled *commitment
	// lapsed: a version that had its 1603 went without being verified, and the
	// registry has no row to mark. The next version takes the mark into its own row. Another
	// server that shares the registry does not know of it.
	lapsed bool
}

// commitment is a commit that the registry does not know about.
type commitment struct {
	file *storage.File
	// outcome is what Files.Commit returned: nil, ErrPlaceNotDurable, or
	// errUnfinished if nobody knows how far it came.
	outcome error
}

const (
	// maxWaits bounds the places that hold a file that waits. When there are as
	// many, all forget it. Forgetting one costs a question to the registry.
	maxWaits = 16 << 10
	// freshFor is how long place.waits is trusted. Maintenance removes a file under
	// the lock of its place, clears waits by Service.Dropped, and never removes one
	// younger than MinUnverifiedTTL: so this holds even where it does not say so.
	freshFor = MinUnverifiedTTL / 2
	// maxLapsed bounds the places with a lapsed mark: some 3 MB. When there are as
	// many, any one is forgotten; a mark that must not be lost is in the registry.
	maxLapsed = 16 << 10
)

// MinUnverifiedTTL is the least age at which maintenance may remove a file that
// awaits its verdict while sessions are being served.
const MinUnverifiedTTL = time.Minute

// places are those of a server. The zero value is ready.
type places struct {
	versions bool // the store keeps versions, see place.unsettled

	mu     sync.Mutex
	all    map[pathKey]*place
	waits  int // how many hold a file that waits
	lapsed int // how many are marked
}

// lock returns the place, and whether the caller has it now. Otherwise the caller
// has it when turn runs: from the unlock of whoever has it before, on that
// goroutine.
func (ps *places) lock(k pathKey, turn func()) (p *place, now bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p = ps.at(k)
	if p.locked {
		p.turns = append(p.turns, turn)
		return p, false
	}
	p.locked = true
	return p, true
}

// at returns the place, under ps.mu. If the caller puts nothing into it, it calls
// tidy.
func (ps *places) at(k pathKey) *place {
	p := ps.all[k]
	if p == nil {
		p = &place{in: ps, key: k}
		if ps.all == nil {
			ps.all = make(map[pathKey]*place)
		}
		ps.all[k] = p
	}
	return p
}

// unlock passes the place on to the next in line.
func (p *place) unlock() {
	p.in.mu.Lock()
	if len(p.turns) == 0 {
		p.locked = false
		p.tidy()
		p.in.mu.Unlock()
		return
	}
	turn := p.turns[0]
	p.turns = p.turns[1:]
	p.in.mu.Unlock()
	turn()
}

// tidy ends the place if there is nothing to know about it, under in.mu.
func (p *place) tidy() {
	if !p.locked && p.waits == nil && p.unsettled == nil && !p.lapsed {
		delete(p.in.all, p.key)
	}
}

// setWaits notes that f has been recorded, or with nil that nothing is known. The
// caller has the place.
func (p *place) setWaits(f *storage.File) {
	ps := p.in
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if f != nil && ps.waits >= maxWaits {
		for _, other := range ps.all {
			other.waits = nil
			other.tidy()
		}
		ps.waits = 0
	}
	if p.waits != nil {
		ps.waits--
	}
	if p.waits = f; f != nil {
		ps.waits++
	}
}

// takeWaits returns the file that is known to await its verdict, or nil, and
// forgets it. The caller has the place.
func (p *place) takeWaits(now time.Time) *storage.File {
	p.in.mu.Lock()
	f := p.waits
	p.in.mu.Unlock()
	if f == nil {
		return nil
	}
	p.setWaits(nil)
	if now.Sub(f.Received) > freshFor {
		return nil
	}
	return f
}

// lapse marks the place, under mu.
func (ps *places) lapse(p *place) {
	if p.lapsed {
		return
	}
	if ps.lapsed >= maxLapsed {
		for _, other := range ps.all {
			if other.lapsed {
				other.lapsed = false
				other.tidy()
				ps.lapsed--
				break
			}
		}
	}
	p.lapsed = true
	ps.lapsed++
}

// setLapsed sets or takes away the mark and reports whether the place had it. The
// caller has the place.
func (p *place) setLapsed(lapsed bool) (had bool) {
	ps := p.in
	ps.mu.Lock()
	defer ps.mu.Unlock()
	had = p.lapsed
	switch {
	case lapsed:
		ps.lapse(p)
	case had:
		p.lapsed = false
		ps.lapsed--
	}
	return had
}

// Exclusive runs do while no session changes the file of client id at path. It
// waits for those that do, so no session's goroutine may call it.
func (svc *Service) Exclusive(id codec.ClientID, path string, do func()) {
	turn := make(chan struct{})
	p, now := svc.places.lock(pathKey{id, path}, func() { close(turn) })
	if !now {
		<-turn
	}
	defer p.unlock()
	do()
}

// Dropped tells the service that maintenance has dropped the unverified file f
// from the registry. The caller is inside of Exclusive for the file. marked is
// DropFile.Marked.
func (svc *Service) Dropped(f *storage.File, marked bool) { svc.maintained(f, !marked) }

// Finished tells the service that maintenance has recorded f as verified: it was in
// its place since a commit that went unrecorded. The caller is inside of Exclusive for
// the file.
func (svc *Service) Finished(f *storage.File) {
	if svc.maintained(f, false) {
		svc.counts.verifiedFile(f)
	}
}

// Forgotten tells the service that maintenance has forgotten the verified file f, which
// was marked as Lapsed, and that no row has the mark now. The caller is inside of
// Exclusive for the file.
func (svc *Service) Forgotten(f *storage.File) {
	ps := &svc.places
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.lapse(ps.at(pathKey{f.ID, f.Path}))
}

// maintained notes that f is not an unverified file any more, and with lapses that
// there is no row to mark. It reports whether a session's commit was unsettled.
func (svc *Service) maintained(f *storage.File, lapses bool) (unsettled bool) {
	svc.settled(f)
	ps := &svc.places
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.at(pathKey{f.ID, f.Path})
	if p.waits != nil {
		p.waits = nil
		ps.waits--
	}
	unsettled = p.unsettled != nil
	p.unsettled = nil // it was about f: nothing is recorded in the place before that is settled
	if lapses {
		ps.lapse(p)
	}
	p.tidy()
	return unsettled
}

// settle has the registry record what is in the place, if a commit went
// unrecorded, whatever the client is pinned to: the client was let in when that commit
// began. The caller has the place, as in the methods below.
func (p *place) settle(co *coroutine) error {
	c := p.unsettled
	switch {
	case c == nil:
		return nil
	case c.outcome == nil || errors.Is(c.outcome, storage.ErrPlaceNotDurable):
		return p.record(co, *c, own)
	default:
		return p.findOut(co, c.file)
	}
}

// findOut is settle where it is not known whether the content of f was moved to
// the place.
func (p *place) findOut(co *coroutine, f *storage.File) error {
	files := co.s.svc.Files
	err := co.do(Storage, func(ctx context.Context) error {
		_, err := files.Size(ctx, f.Uploaded())
		if err == nil {
			return errNotMoved
		}
		if errors.Is(err, storage.ErrNotStored) {
			return files.Commit(ctx, f)
		}
		return err
	})
	switch {
	case err == nil || errors.Is(err, storage.ErrPlaceNotDurable):
		return p.record(co, commitment{f, err}, own)
	case errors.Is(err, errNotMoved) || errors.Is(err, storage.ErrNotStored):
		p.setUnsettled(nil)
		return nil
	default:
		return err
	}
}

// errNotMoved says that a file is still among the incoming ones.
var errNotMoved = errors.New("the incoming file was not moved")

// record has the registry write down what a commit did, with that outcome to begin
// with. Until that has succeeded, the place is unsettled. If the registry has no such file, an earlier try, whose
// result was lost, did it; at the first try somebody else took the file away.
//
// Where the store keeps versions, nothing is unsettled by it, and the content of the version
// that was is removed.
func (p *place) record(co *coroutine, c commitment, o storage.Outcome) error {
	first := p.unsettled == nil
	p.setUnsettled(&c)
	op := &storage.VerifyFile{
		Outcome: o, ID: p.key.id, Path: p.key.path,
		Incoming: c.file.Incoming, Missing: c.outcome != nil, Versions: co.s.svc.keeping.Versions,
	}
	err := co.apply(op)
	if err != nil && (first || !errors.Is(err, storage.ErrNoFile)) {
		return err
	}
	p.setUnsettled(nil)
	co.s.svc.settled(c.file)
	if op.Replaced != nil {
		co.remove(op.Replaced.Stored())
	}
	if !op.Missing {
		co.s.svc.counts.verifiedFile(c.file)
	}
	return nil
}

func (p *place) setUnsettled(c *commitment) {
	if p.in.versions {
		return
	}
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.unsettled = c
}

// put has the registry record a file that awaits its verdict.
func (p *place) put(co *coroutine, op *storage.PutFile) error {
	op.File.Lapsed = p.setLapsed(false)
	if err := co.apply(op); err != nil {
		if op.File.Lapsed {
			p.setLapsed(true)
		}
		if errors.Is(err, storage.ErrQuota) {
			co.s.facts.set(ownQuota, true)
		}
		return err
	}
	if !co.s.svc.Shared {
		co.s.svc.Waiting(op.File.ID, Occupies(op.File.Size))
		p.setWaits(&op.File)
	}
	return nil
}

// drop has the registry forget the unverified file f, and then removes its content.
// The mark that a version has lapsed is recorded before the content goes. If the registry has
// no such file, it is gone, or another server has had it verified.
func (p *place) drop(co *coroutine, f *storage.File, o storage.Outcome, why storage.Why) error {
	err := p.forget(co, f, o, why)
	if co.s.svc.mayDiscard(err) {
		co.discard(f.Uploaded())
	}
	if errors.Is(err, storage.ErrNoFile) {
		return nil
	}
	return err
}

// mayDiscard reports whether content may be removed of which the registry was to drop the row,
// and answered err. Where a sweep removes what has no row, it stays unless that is certain: the
// row may be another server's, or have become that of a verified file.
func (svc *Service) mayDiscard(err error) bool {
	return err == nil || errors.Is(err, storage.ErrNoFile) && !svc.swept()
}

// swept reports whether a sweep removes content that nothing on record names.
func (svc *Service) swept() bool { return svc.keeping.Leases }

// forget is drop, but for the content.
func (p *place) forget(co *coroutine, f *storage.File, o storage.Outcome, why storage.Why) error {
	s := co.s
	op := &storage.DropFile{Outcome: o, ID: f.ID, Path: f.Path, Incoming: f.Incoming, Why: why}
	err := co.apply(op)
	if err == nil {
		s.svc.settled(f)
		if !op.Marked {
			p.setLapsed(true)
		}
	}
	return err
}
