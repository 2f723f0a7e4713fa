package eventloop

import (
	"runtime"
	"time"

	"sealift/session"
)

// slotsFor is how many connections that are lent may be worked on at once, with so many
// bytes of memory for content: one for each core. Each slot has a buffer of its own, and
// these take half of the memory at most.
func slotsFor(memory int64) int {
	return int(max(1, min(int64(runtime.GOMAXPROCS(0)), memory/(2*session.MaxBuffer))))
}

// beginSmall and finishSmall count the jobs and operations that clients wait for. As long
// as there are any, content has one slot, and leaves the other cores to them. Any
// goroutine may call them.
func (s *Server) beginSmall() {
	if s.small.Add(1) == 1 {
		s.bulk.resize(s.bulkSize)
	}
}

func (s *Server) finishSmall() {
	if s.small.Add(-1) == 0 {
		s.bulk.resize(s.bulkSize)
	}
}

func (s *Server) bulkSize() int {
	if s.small.Load() > 0 {
		return 1
	}
	return s.slots
}

// beginLoan and endLoan count the connections that are lent. Any goroutine may call
// them. The end of the server waits also for their way back to the loop, which is over
// at finish. beginLoan returns false once work has been given up, so that no loan begins
// after awaitLoans.
func (s *Server) beginLoan() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.pending++
	s.lent++
	s.loans++
	return true
}

func (s *Server) endLoan() {
	s.mu.Lock()
	if s.lent--; s.lent == 0 {
		s.changed.Broadcast()
	}
	s.mu.Unlock()
}

// awaitLoans waits until no connection is lent, but not for a disk that hangs.
// Afterwards gnet may close the sockets.
func (s *Server) awaitLoans() {
	late := false
	timer := time.AfterFunc(stopTime, func() {
		s.mu.Lock()
		late = true
		s.changed.Broadcast()
		s.mu.Unlock()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.lent > 0 && !late {
		s.changed.Wait()
	}
}
