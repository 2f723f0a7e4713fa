package session

import (
	"errors"
	"sync"

	"sealift/storage"
)

// A partial file belongs to the last 1032 for it, on whatever connection. The registry has
// that as a generation, which each 1032 raises. A server knows besides which of its own
// connections is at work on the content: a 1032 ends that, and waits until it is recorded,
// before it raises the generation. So nobody writes to content of an older generation.

// claims are the partial files that a connection is at work on, or may go on with. The zero
// value is ready.
type claims struct {
	mu  sync.Mutex
	all map[string]*claim // by Files key
}

// claim is what a connection has of a partial file: it alone may change the content. There
// is one for each transfer that was recorded as a partial file so far, and for each file of
// which a 1608 spoke.
type claim struct {
	s    *Session
	file storage.Uploaded

	// Under claims.mu.
	busy     bool     // a transfer, or other work, has the content
	lost     bool     // another connection has it, or is about to. Final.
	replaced bool     // its row went, or may have; it may have been put back
	turns    []func() // of those that wait until it is not busy
}

// Alive reports whether a transfer on an open connection has the partial file with that
// key, or may go on with it. Any goroutine may call it.
func (svc *Service) Alive(incoming string) bool {
	svc.claims.mu.Lock()
	defer svc.claims.mu.Unlock()
	return svc.claims.all[incoming] != nil
}

// enter makes a claim of the session on file. Nobody has one.
func (cs *claims) enter(s *Session, file storage.Uploaded, busy bool) *claim {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.add(s, file, busy)
}

// add is enter under mu.
func (cs *claims) add(s *Session, file storage.Uploaded, busy bool) *claim {
	c := &claim{s: s, file: file, busy: busy}
	if cs.all == nil {
		cs.all = make(map[string]*claim)
	}
	cs.all[file.Key] = c
	return c
}

// begin has the claim be busy. It returns false if it is lost.
func (cs *claims) begin(c *claim) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c.lost {
		return false
	}
	c.busy = true
	return true
}

// isLost reports whether another connection has what c was a claim on.
func (cs *claims) isLost(c *claim) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return c.lost
}

// rename has the claim be on other content: that of its partial file has another key now.
func (cs *claims) rename(c *claim, file storage.Uploaded) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.all[c.file.Key] == c {
		delete(cs.all, c.file.Key)
		cs.all[file.Key] = c
	}
	c.file = file
}

// isBusy reports whether a transfer, or other work, has the content.
func (cs *claims) isBusy(c *claim) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return c.busy
}

// restClaim ends the work of a claim, which stays unless somebody waits for it.
func (s *Session) restClaim(c *claim) {
	s.svc.claims.mu.Lock()
	c.busy = false
	lost := c.lost
	s.svc.claims.mu.Unlock()
	if lost || s.closed {
		s.leaveClaim(c)
	}
}

// leaveClaim gives up a claim whose content is to stay, unless it has no row any more.
func (s *Session) leaveClaim(c *claim) {
	if s.svc.claims.leave(c) {
		s.start(func(co *coroutine) { co.discardOrphan(c.file) })
	}
}

// leave ends a claim, and its work. A second time it does nothing. replaced reports whether the
// row went to another file, at some time: see discardOrphan.
func (cs *claims) leave(c *claim) (replaced bool) {
	cs.mu.Lock()
	replaced, c.replaced = c.replaced, false
	if cs.all[c.file.Key] == c {
		delete(cs.all, c.file.Key)
	}
	c.busy, c.lost = false, true
	turns := c.turns
	c.turns = nil
	cs.mu.Unlock()
	for _, turn := range turns {
		turn()
	}
	return replaced
}

// doubt has the row be looked for when the claim is left: maintenance may have dropped it,
// and left the content to whoever had the claim.
func (cs *claims) doubt(c *claim) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.replaced = true
}

// take takes a partial file away from the connection that has a claim on it, for one that
// has locked its place. It returns nil if nobody has one now. Otherwise it returns a claim that is
// busy: the caller sees to it that its session hears of that, and tries again when turn runs, on any goroutine.
func (cs *claims) take(key string, turn func()) *claim {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.all[key]
	if c == nil {
		return nil
	}
	c.lost = true
	if !c.busy {
		delete(cs.all, key)
		return nil
	}
	c.turns = append(c.turns, turn)
	return c
}

// free reports whether nobody but s has a claim on the partial file with that key, and ends
// that of s if it is not busy. busy reports whether it is.
func (cs *claims) free(key string, s *Session) (free, busy bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch c := cs.all[key]; {
	case c == nil:
		return true, false
	case c.s != s || c.busy:
		return false, c.busy
	default:
		c.lost = true
		delete(cs.all, key)
		return true, false
	}
}

// replace makes a claim, which is busy, on a partial file whose row has gone. It returns nil if
// there is one: its session sees to the content.
func (cs *claims) replace(s *Session, file storage.Uploaded) *claim {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c := cs.all[file.Key]; c != nil {
		c.replaced = true
		return nil
	}
	return cs.add(s, file, true)
}

// claim takes the partial file with that key away from the connection that has it. The caller
// has its place. If it returns false, the connection that has it was told to end its work, and has ended it meanwhile; the
// caller has given up the place, and begins again.
func (co *coroutine) claim(p *place, key string) bool {
	s := co.s
	c := s.svc.claims.take(key, func() { s.host.Do(Compute, nil, co.resumed) })
	if c == nil {
		return true
	}
	p.unlock()
	co.wait(func() { c.s.host.Do(Compute, nil, func() { c.s.surrender(c) }) })
	return false
}

// enter makes a busy claim on a file that waits for its verdict. It waits while somebody looks
// whether its content is anybody's.
func (co *coroutine) enter(file storage.Uploaded) *claim {
	s := co.s
	for s.svc.claims.take(file.Key, func() { s.host.Do(Compute, nil, co.resumed) }) != nil {
		co.wait(func() {})
	}
	return s.svc.claims.enter(s, file, true)
}

// surrender ends the transfer that has the claim: its file is continued elsewhere. One of
// which all packets are in comes to its end by itself.
func (s *Session) surrender(c *claim) {
	for _, u := range s.uploads.all {
		if u.progress != nil && u.progress.claim == c && !u.transfer.AllIn() {
			u.end(u.transfer.Current(), errTaken)
			return
		}
	}
}

// errTaken says that a 1032 on another connection has taken the partial file.
var errTaken = &offence{ReasonSuperseded, "another connection goes on with the file"}

// discardReplaced removes the content of a partial file whose row went to another file,
// unless a connection is at work on it: that one sees to its content itself. p may be nil.
func (co *coroutine) discardReplaced(p *storage.Partial) {
	if p != nil {
		co.discardOrphan(p.Uploaded())
	}
}

// discardOrphan removes the content of a partial file if there is no row for it any more, and
// nobody has a claim on it. Whoever had a claim may have put the row back after it was replaced.
func (co *coroutine) discardOrphan(file storage.Uploaded) {
	s := co.s
	for again := true; again; {
		c := s.svc.claims.replace(s, file)
		if c == nil {
			return
		}
		again = co.discardUnrecorded(c)
	}
}

// discardUnrecorded removes the content of a partial file if it has no row, and ends the claim
// on it. It returns true if the row was replaced meanwhile.
func (co *coroutine) discardUnrecorded(c *claim) (again bool) {
	s, file := co.s, c.file
	defer func() { again = s.svc.claims.leave(c) }()
	if s.svc.keeping.Leases { // another server may be at work on it
		find := &storage.FindUpload{Outcome: own, Upload: file}
		if err := co.apply(find); err == nil && !find.Found {
			co.discard(file)
		}
		return
	}
	get := &storage.GetFile{Outcome: own, ID: file.ID, Path: file.Path, WithPartial: true}
	if err := co.apply(get); err != nil && !errors.Is(err, storage.ErrNoFile) {
		return // it goes at the next start
	}
	if get.Partial != nil && get.Partial.Incoming == file.Key || is(get.Unverified, file.Key) || is(get.Verified, file.Key) {
		return
	}
	co.discard(file)
	return
}

// is reports whether f is the file with that key.
func is(f *storage.File, key string) bool { return f != nil && f.Incoming == key }
