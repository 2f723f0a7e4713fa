package eventloop

import (
	"runtime"
	"time"

	"sealift/session"
)

// slotsFor is how many connections may be worked on at once whose content flows, in
// a process with so many bytes of memory for content: one for each core. Each has a
// buffer of its own, and these take half of the memory at most.
func slotsFor(memory int64) int {
	return int(max(1, min(int64(runtime.GOMAXPROCS(0)), memory/(2*session.MaxBuffer))))
}

// beginSmall and finishSmall count what a client waits for. As long as there is any,
// content has one slot, so that it leaves the other cores alone. Any goroutine may
// call them.
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

// beginLoan and endLoan count the connections that workers have. Any goroutine may
// call them. What the end of the server waits for includes the way back to the
// loop, which is over at finish. When work has been given up there is no loan more,
// and beginLoan returns false: so none begins after awaitLoans.
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

// awaitLoans waits until workers have no connection any more, but not for a disk
// that hangs. Afterwards gnet may close the sockets.
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
