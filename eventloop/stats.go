package eventloop

import (
	"sync/atomic"

	"sealift/session"
)

// Stats is what the loops, the acceptor and the lanes know at a moment. Its parts are
// read one after the other, so they may differ by what happened meanwhile. Totals count
// from the start.
type Stats struct {
	// The connections that loops have, by how far they have come: their PROXY header is
	// awaited, their first bytes are, they do the handshake of TLS, are served, get their last
	// replies, and are about to be closed.
	Introducing, Sniffing, Shaking, Open, Ending, Lingering int64

	Lent      int    // connections of which a worker has the content, or that wait for one
	Loans     int    // the total of these
	Protected int64  // connections over TLS, after their handshake
	Served    int    // connections that count for MaxConnections
	Limit     int    // MaxConnections
	Admitted  uint64 // the total of connections that were served
	Refused   uint64 // the total of those that were refused because of a limit

	Unintroduced uint64 // the total of connections that were refused because of their PROXY header
	Unprotected  uint64 // the total of plain connections that were refused, see TLS.Require
	Handshakes   Handshakes

	Compute, Storage, Bulk LaneStats
	Memory                 MemoryStats
}

// Handshakes are those of TLS.
type Handshakes struct {
	Waiting, UnderWay int
	Succeeded, Failed uint64 // totals
}

// LaneStats is how a lane of workers is doing. What waits in the bulk lane are turns of
// connections; some of these may not be needed any more when they come.
type LaneStats struct {
	Waiting int // pieces of work
	Busy    int // pieces of work that run
	Size    int // as many may run at once
}

// MemoryStats is memory in bytes.
type MemoryStats struct {
	Budget      int64 // for content in buffers, Options.MemoryBudget
	Used        int64 // of it
	Waiting     int   // connections that stand in line for some
	EarlyBudget int64 // for packets that came before their turn, on top of Budget
	Early       int64 // of it
	Rests       int64 // what was read and is for the loop
	Sealed      int64 // what protected connections take, about
}

// Stats takes a snapshot. Any goroutine may call it, at any time. It keeps nobody waiting
// for longer than it takes to copy some numbers.
func (s *Server) Stats() Stats {
	st := Stats{
		Introducing: s.phases[introducing].Load(),
		Sniffing:    s.phases[sniffing].Load(), Shaking: s.phases[shaking].Load(), Open: s.phases[open].Load(),
		Ending: s.phases[ending].Load(), Lingering: s.phases[lingering].Load(),
		Protected: s.protected.Load(), Limit: s.limits.Load().MaxConnections,
		Unintroduced: s.unintroduced.total(),
		Unprotected:  s.unprotected.total(), Handshakes: s.handshakes.stats(),
		Compute: s.lanes[session.Compute].stats(), Storage: s.lanes[session.Storage].stats(), Bulk: s.bulk.stats(),
		Memory: s.budget.stats(),
	}
	st.Served, st.Admitted, st.Refused = s.census.stats()
	st.Handshakes.Succeeded, st.Handshakes.Failed = s.shaken.Load(), s.unshaken.total()
	st.Memory.Sealed = s.sealed.Load()
	st.Memory.Used += int64(st.Bulk.Busy) * session.MaxBuffer
	s.mu.Lock()
	st.Lent, st.Loans = s.lent, s.loans
	s.mu.Unlock()
	return st
}

// phases counts the connections that loops have, by phase. Those that arrive or are
// closed are not counted.
type phases [closed + 1]atomic.Int64

// move counts a connection that goes from one phase to another.
func (n *phases) move(from, to phase) {
	if from != arriving {
		n[from].Add(-1)
	}
	if to != closed {
		n[to].Add(1)
	}
}

func (n *census) stats() (served int, admitted, refused uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.served, n.admitted, n.turnedAway
}

func (h *handshakes) stats() Handshakes {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Handshakes{Waiting: h.waiting, UnderWay: maxHandshakes - h.free}
}

func (l *lane) stats() LaneStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return LaneStats{Waiting: l.waiting, Busy: l.running, Size: l.size}
}

// stats says what the budget knows: of Used all but the buffers of workers.
func (b *budget) stats() MemoryStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	limit := b.cache.limit
	return MemoryStats{
		Budget: limit, Used: limit - b.slots - b.free, Waiting: len(b.line),
		EarlyBudget: earlyOf(limit), Early: earlyOf(limit) - b.early, Rests: restsOf(limit) - b.rests,
	}
}
