package session

import (
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// maxLines is how many lines about refusals the log gets of one address for one
	// reason in linesTime. What is left out is counted.
	maxLines  = 20
	linesTime = 10 * time.Second
	// maxQuiet bounds what a quiet remembers: some 500 KB.
	maxQuiet = 4 << 10
)

// quiet limits the lines about refusals for each [Source] and reason, so that nobody
// fills the log. A count that is not told with the next line gets a line of its own from
// [Service.Tick], which forgets the entries whose time is over. While the map is full, new
// addresses share one entry for each reason.
type quiet struct {
	mu  sync.Mutex
	all map[lineKind]*lineCount
}

// lineKind is which lines count together.
type lineKind struct {
	addr   netip.Addr // zero: all that have no entry of their own
	reason Reason
	level  zapcore.Level
}

// lineCount is what the log had of a kind since began, and what it had not.
type lineCount struct {
	began   time.Time
	logged  int
	leftOut int // refusals
}

// admit reports whether a line about so many refusals may be logged now. If so, leftOut
// is how many were left out before it, for the caller to tell.
func (q *quiet) admit(now time.Time, l lineKind, refusals int) (leftOut int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.entry(now, l)
	if now.Sub(e.began) >= linesTime {
		leftOut = e.leftOut
		*e = lineCount{began: now}
	}
	if e.logged >= maxLines {
		e.leftOut += refusals
		return 0, false
	}
	e.logged++
	return leftOut, true
}

// entry returns that of l, or of all that have none if there are too many.
func (q *quiet) entry(now time.Time, l lineKind) *lineCount {
	e := q.all[l]
	if e == nil && len(q.all) >= maxQuiet {
		l.addr = netip.Addr{}
		e = q.all[l]
	}
	if e != nil {
		return e
	}
	if q.all == nil {
		q.all = make(map[lineKind]*lineCount)
	}
	e = &lineCount{began: now}
	q.all[l] = e
	return e
}

// tell logs how many refusals were left out, if any.
func (e *lineCount) tell(log *zap.Logger, l lineKind) {
	if e.leftOut == 0 {
		return
	}
	address := "others"
	if l.addr.IsValid() {
		address = l.addr.String()
	}
	log.Log(l.level, "refusals left out", zap.String("address", address), zap.Stringer("kind", l.reason), zap.Int("left_out", e.leftOut))
}

// Tick logs what was left out of the log since more than linesTime. The host calls it about twice a
// second, on any goroutine.
func (svc *Service) Tick(now time.Time) {
	q := &svc.quiet
	q.mu.Lock()
	defer q.mu.Unlock()
	for l, e := range q.all {
		if now.Sub(e.began) >= linesTime {
			e.tell(svc.Log, l)
			delete(q.all, l)
		}
	}
}

// End logs what was left out of the log since the last Tick. The host calls it when all
// sessions have ended.
func (svc *Service) End() {
	q := &svc.quiet
	q.mu.Lock()
	defer q.mu.Unlock()
	for l, e := range q.all {
		e.tell(svc.Log, l)
	}
	q.all = nil
}

// logs reports whether the log may have a line of that level about so many refusals of
// the client. left tells, in that line, what was left out before it.
func (s *Session) logs(level zapcore.Level, reason Reason, refusals int) (left zap.Field, ok bool) {
	if !s.log().Core().Enabled(level) {
		return zap.Skip(), false
	}
	ap, _ := netip.ParseAddrPort(s.remote) // an address that does not parse is the zero one
	n, ok := s.svc.quiet.admit(s.host.Now(), lineKind{Source(ap.Addr()), reason, level}, refusals)
	if n == 0 {
		return zap.Skip(), ok
	}
	return zap.Int("left_out", n), ok
}
