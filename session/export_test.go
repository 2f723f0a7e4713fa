package session

import "sealift/codec"

// State tells a test in which row of the table of transitions s is.
func (s *Session) State() string { return s.state.String() }

// Held tells how many bytes of buffers count against the window of s.
func (s *Session) Held() int { return s.uploads.held }

// Uploads tells how many transfers s believes to be under way.
func (s *Session) Uploads() int { return len(s.uploads.all) }

// Locked tells how many paths are locked.
func (svc *Service) Locked() int {
	return svc.count(func(p *place) bool { return p.locked })
}

// Unrecorded tells how many files wait for the registry to record them.
func (svc *Service) Unrecorded() int {
	return svc.count(func(p *place) bool { return p.unsettled != nil })
}

// EmptyPlaces tells how many places are kept though they are not locked and hold
// nothing.
func (svc *Service) EmptyPlaces() int {
	return svc.count(func(p *place) bool { return !p.locked && p.waits == nil && p.unsettled == nil && !p.lapsed })
}

func (svc *Service) count(which func(*place) bool) (n int) {
	svc.places.mu.Lock()
	defer svc.places.mu.Unlock()
	for _, p := range svc.places.all {
		if which(p) {
			n++
		}
	}
	return n
}

// MaxLapsed bounds what LapsedPaths counts: paths without a row of which a
// version has lapsed.
const MaxLapsed = maxLapsed

func (svc *Service) LapsedPaths() int {
	return svc.count(func(p *place) bool { return p.lapsed })
}

// Resumed tells for how many clients resumptions are remembered.
func (svc *Service) Resumed() int {
	svc.resumed.mu.Lock()
	defer svc.resumed.mu.Unlock()
	return len(svc.resumed.clients)
}

// Bound tells how many clients are believed to have connections.
func (svc *Service) Bound() int { return len(svc.bound.ids()) }

// Unverified tells what counts of the client's unverified files and transfers, in
// bytes.
func (svc *Service) Unverified(id codec.ClientID) int64 {
	svc.unverified.mu.Lock()
	defer svc.unverified.mu.Unlock()
	return svc.unverified.bytes[id]
}

// Quiet tells how many kinds of lines about refusals are counted, and MaxQuiet bounds
// those of one address each.
func (svc *Service) Quiet() int {
	svc.quiet.mu.Lock()
	defer svc.quiet.mu.Unlock()
	return len(svc.quiet.all)
}

const MaxQuiet = maxQuiet

// LendFrom sets the least ciphertext, in bytes, that is lent.
func (svc *Service) LendFrom(size int64) { svc.lendFrom = size }

// Continues tells of how many names s remembers a 1608.
func (s *Session) Continues() int { return len(s.uploads.continues.list) }

// Claims tells how many partial files are believed to be a connection's, and BusyClaims how
// many of them are at work.
func (svc *Service) Claims() int {
	svc.claims.mu.Lock()
	defer svc.claims.mu.Unlock()
	return len(svc.claims.all)
}

func (svc *Service) BusyClaims() (n int) {
	svc.claims.mu.Lock()
	defer svc.claims.mu.Unlock()
	for _, c := range svc.claims.all {
		if c.busy && !c.underWay() {
			n++
		}
	}
	return n
}

// underWay reports whether a transfer under way has the claim.
func (c *claim) underWay() bool {
	for _, u := range c.s.uploads.all {
		if u.progress != nil && u.progress.claim == c {
			return true
		}
	}
	return false
}

// IdleCoroutines tells how many coroutines of the process wait for the next
// request, and MaxIdleCoroutines is the most.
func IdleCoroutines() int {
	idle.mu.Lock()
	defer idle.mu.Unlock()
	return len(idle.list)
}

const MaxIdleCoroutines = maxIdle
