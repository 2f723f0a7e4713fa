package session

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// maxLines is how many lines about refusals and failures the log gets of one address
	// for one reason, or step, in linesTime. What is left out is counted.
	maxLines  = 20
	linesTime = 10 * time.Second
	// maxQuiet bounds what a quiet remembers: some 500 KB.
	maxQuiet = 4 << 10
)

// quiet limits the lines about refusals and failures for each [Source] and reason, or
// step, so that nobody fills the log. A count that is not told with the next line gets a line of its own from
// [Service.Tick], which forgets the entries whose time is over. While the map is full, new
// addresses share one entry for each reason.
type quiet struct {
	mu  sync.Mutex
	all map[lineKind]*lineCount
}

// lineKind is which lines count together.
type lineKind struct {
	addr   netip.Addr   // zero: all that have no entry of their own
	reason fmt.Stringer // a Reason or a Step
	level  zapcore.Level
}

// lineCount is what the log had of a kind since began, and what it had not.
type lineCount struct {
	began   time.Time
	logged  int
	leftOut int // refusals or failures
}

// admit reports whether a line about so many refusals may be logged now. If so, leftOut
// is how many were left out before it, for the caller to tell.
func (q *quiet) admit(now time.Time, l lineKind, refusals int) (leftOut int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e, own := q.entry(now, l)
	if now.Sub(e.began) >= linesTime {
		e.began, e.logged = now, 0
		if own { // else it is about others as well: Tick tells it
			leftOut, e.leftOut = e.leftOut, 0
		}
	}
	if e.logged >= maxLines {
		e.leftOut += refusals
		return 0, false
	}
	e.logged++
	return leftOut, true
}

// entry returns that of l, or of all that have none if there are too many. own is
// whether it is of l alone.
func (q *quiet) entry(now time.Time, l lineKind) (e *lineCount, own bool) {
	e, own = q.all[l], l.addr.IsValid()
	if e == nil && len(q.all) >= maxQuiet {
		l.addr, own = netip.Addr{}, false
		e = q.all[l]
	}
	if e != nil {
		return e, own
	}
	if q.all == nil {
		q.all = make(map[lineKind]*lineCount)
	}
	e = &lineCount{began: now}
	q.all[l] = e
	return e, own
}

// tell logs how many refusals were left out.
func (e *lineCount) tell(log *zap.Logger, l lineKind) {
	address := "others"
	if l.addr.IsValid() {
		address = l.addr.String()
	}
	log.Log(l.level, "refusals left out", zap.String("address", address), zap.Stringer("kind", l.reason), zap.Int("left_out", e.leftOut))
}

// Tick logs what was left out of the log since more than linesTime. The host calls it about twice a
// second, on any goroutine.
func (svc *Service) Tick(now time.Time) {
	svc.quiet.end(svc.Log, func(e *lineCount) bool { return now.Sub(e.began) >= linesTime })
}

// End logs what was left out of the log since the last Tick. The host calls it when all
// sessions have ended.
func (svc *Service) End() {
	svc.quiet.end(svc.Log, func(*lineCount) bool { return true })
}

// end forgets the entries that are over, and tells what they left out. Sessions that are
// refused something do not wait for those lines.
func (q *quiet) end(log *zap.Logger, over func(*lineCount) bool) {
	ended := make(map[lineKind]*lineCount)
	q.mu.Lock()
	for l, e := range q.all {
		if !over(e) {
			continue
		}
		delete(q.all, l)
		if e.leftOut > 0 {
			ended[l] = e
		}
	}
	q.mu.Unlock()
	for l, e := range ended {
		e.tell(log, l)
	}
}

// logs reports whether the log may have a line of that level about so many refusals of
// the client. left tells, in that line, what was left out before it.
func (s *Session) logs(level zapcore.Level, reason fmt.Stringer, refusals int) (left zap.Field, ok bool) {
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
