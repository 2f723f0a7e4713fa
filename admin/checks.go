package admin

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// checkEvery is how long a check is taken for what is so now.
	checkEvery = time.Second
	// checkTime is how long a check may take before it is called hanging, and how long
	// whoever asks waits for it.
	checkTime = 2 * time.Second
	// closeTime is how long close waits for a check.
	closeTime = time.Second
)

// checks asks for the condition of a server, one call at a time, and keeps the answer for
// a short time. All methods may be called from any goroutine.
type checks struct {
	ask func() Condition

	mu     sync.Mutex
	last   Condition
	at     time.Time     // of last; zero: none yet
	begun  time.Time     // of the call under way
	done   chan struct{} // closed when that has ended; nil: there is none
	closed bool
}

func newChecks(ask func() Condition) *checks {
	return &checks{ask: ask, last: unknown}
}

var unknown = Condition{Free: -1, Reserve: -1}

// latest waits for a condition that is no older than checkEvery, but not for one that
// takes longer than checkTime: then that is a reason, too.
func (c *checks) latest(ctx context.Context) Condition {
	if done, left := c.begin(); done != nil {
		timer := time.NewTimer(left)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return c.known()
}

// known is the last condition that was found. It does not wait.
func (c *checks) known() Condition {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.last
	if c.done != nil && time.Since(c.begun) >= checkTime {
		last.Reasons = append([]Reason{{Reason: NoAnswer, Detail: "the disk or the registry has not answered since " + c.begun.UTC().Format(time.RFC3339)}}, last.Reasons...)
	}
	return last
}

// begin has the condition looked at, unless that was done just now. It returns what is
// closed when that is over, and how long it is worth waiting for; nil if there is
// nothing to wait for.
func (c *checks) begin() (done <-chan struct{}, left time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.done != nil:
		return c.done, max(0, checkTime-time.Since(c.begun))
	case c.closed, !c.at.IsZero() && time.Since(c.at) < checkEvery:
		return nil, 0
	}
	over := c.start()
	return over, checkTime
}

// start begins to look. Holds mu.
func (c *checks) start() <-chan struct{} {
	done := make(chan struct{})
	c.done, c.begun = done, time.Now()
	go func() {
		found := c.look()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.last, c.at, c.done = found, time.Now(), nil
		close(done)
	}()
	return done
}

// look is ask. A panic is an answer, too.
func (c *checks) look() (found Condition) {
	defer func() {
		if p := recover(); p != nil {
			found = unknown
			found.Reasons = []Reason{{Reason: StoreFails, Detail: fmt.Sprint("panic: ", p)}}
		}
	}()
	return c.ask()
}

// close begins no more checks, and waits for the one under way, but not for a disk that
// hangs.
func (c *checks) close() {
	c.mu.Lock()
	c.closed = true
	done := c.done
	c.mu.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-time.After(closeTime):
	}
}
