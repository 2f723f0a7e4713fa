package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"sealift/codec"
)

// line is what the last connections came to. It is over at the first answer.
type line struct {
	// wary: the last connection ended, or was refused, before it had an answer.
	// The next one is listened to before anything is asked: a server that is
	// going down, or has too many connections, says so unasked.
	wary bool
	// away is since when no connection could be made; zero: the last could.
	away time.Time
	told string // the last reason for that which was logged

	outages int // how often a connection could not be made; it only grows
}

// unasked is how long a connection is listened to in that case, at least. A
// server that is further away gets as long as two dials take.
const (
	unasked    = 250 * time.Millisecond
	maxUnasked = 2 * time.Second
)

// noted notes what a request over cn has led to.
func (c *Client) noted(cn *conn, r reply, err error) {
	switch {
	case err == nil && (r.code != codec.CodeError || cn.answered):
		cn.answered = true
		c.line = line{outages: c.line.outages}
	case !cn.answered:
		c.line.wary = true
	}
}

// failures are those of one message.
type failures struct {
	attempts int // all tries
	counted  int // that the protocol's number of retries is about
	lost     int // after which a connection was lost; not counted, with RetryFor
	since    time.Time
	last     *int   // which of them the last one is in, if the server may not have read the message
	told     string // the last reason that was logged
}

// add takes err, of a message that was sent or of a connection that could not be
// made, into account. With patience only what the server has said is counted, or
// what makes no sense.
func (f *failures) add(err error, patient, unread bool) {
	f.attempts++
	switch {
	case !patient:
		f.counted++
	case errors.As(err, new(unreachable)):
		if f.last != nil { // it was about the server, and not about the message
			*f.last--
			f.last = nil
		}
	case isLoss(err):
		if f.lost++; f.lost == 1 {
			f.since = time.Now()
		}
		f.last = &f.lost
	default:
		f.counted++
		f.last = &f.counted
	}
	if !unread {
		f.last = nil
	}
}

// isLoss reports whether err is the loss of a connection, and no nonsense that
// came over it.
func isLoss(err error) bool { return errors.Is(err, ErrConnection) && !errors.Is(err, ErrReply) }

// sent is how often the message has failed, and not the connection.
func (f *failures) sent() int { return f.counted + f.lost }

// before is the error of a message that the one that is tried needs first. Both are tried
// together.
type before struct {
	code codec.Code
	error
}

func (b before) Unwrap() error { return b.error }

// retry runs try on a usable connection until it succeeds or has failed too
// often. code is the message that try sends.
//
// Without Options.RetryFor the protocol's number of retries is for everything
// that a 1607 or a lost connection can be. With it that number is for 1607s and
// for what makes no sense; a connection that cannot be made, or is lost, is
// retried for that time, and one that is lost after the message was sent at
// least as often as the protocol wants it. Other errors end it at once.
func (c *Client) retry(ctx context.Context, code codec.Code, try func(*conn) error) error {
	var f failures
	for {
		err := c.connect(ctx)
		if err == nil {
			c.attempt = f.sent() + 1
			err = try(c.conn)
		}
		if err == nil {
			c.advanced = false
			return nil
		}
		if c.advanced {
			f, c.advanced = failures{}, false
		}
		if ctx.Err() != nil {
			c.drop()
			return &Error{Code: code, Attempts: f.attempts + 1, Err: context.Cause(ctx)}
		}
		failed := code
		if first := (before{}); errors.As(err, &first) {
			failed, err = first.code, first.error
		}
		if e := (*Error)(nil); errors.As(err, &e) {
			return e // of a message that try needed first, with its own retries
		}
		f.add(err, c.opts.RetryFor > 0, c.line.wary)
		if isForGood(err) {
			c.drop()
			return &Error{Code: failed, Attempts: f.attempts, Err: err}
		}
		if isFirst(code) && c.otherCodes(ctx, err, f.sent()) {
			f = failures{}
			continue
		}
		if errors.Is(err, ErrConnection) {
			c.drop()
		} else if !errors.Is(err, ErrServer) {
			return &Error{Code: failed, Attempts: f.attempts, Err: err}
		}
		left, more := c.timeLeft(&f, err)
		if !more {
			c.line = line{outages: c.line.outages} // the caller may try again, at any time
			return &Error{Code: failed, Attempts: f.attempts, Err: err}
		}
		c.tellRetry(failed, &f, err, left)
		wait := c.opts.Backoff(f.attempts)
		if left > 0 {
			wait = min(wait, left)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// timeLeft reports whether there is another try after err, and how much time is
// left for more; 0 where it is not time that is counted.
func (c *Client) timeLeft(f *failures, err error) (left time.Duration, more bool) {
	switch {
	case f.counted > c.opts.Retries:
		return 0, false
	case c.opts.RetryFor <= 0:
		return 0, true
	case errors.As(err, new(unreachable)):
		left = c.opts.RetryFor - time.Since(c.line.away)
		return left, left > 0
	case isLoss(err):
		left = c.opts.RetryFor - time.Since(f.since)
		return max(left, 0), left > 0 || f.lost <= c.opts.Retries
	}
	return 0, true
}

// tellRetry logs that a message is sent again. Where time is counted, a reason
// that is the same as before is not told again.
func (c *Client) tellRetry(code codec.Code, f *failures, err error, left time.Duration) {
	about := []any{"message", step(code)}
	if left <= 0 {
		if c.opts.RetryFor <= 0 || !isLoss(err) {
			about = append(about, "retry", f.counted, "of", c.opts.Retries)
		}
		c.log.Warn("trying again", append(about, "because", err)...)
		return
	}
	told := &f.told
	if errors.As(err, new(unreachable)) {
		told = &c.line.told
	}
	why := cause(err)
	if *told == why {
		c.log.Debug("trying again", append(about, "because", err)...)
		return
	}
	*told = why
	c.log.Warn("trying again", append(about, "at_most_seconds", max(left.Round(time.Second), time.Second).Seconds(), "because", err)...)
}

// cause is what an error says, without the addresses, which differ each time.
func cause(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return "lookup: " + dns.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Sprintf("%s: %v", op.Op, op.Err)
	}
	return err.Error()
}

// otherCodes finds out, if it is time for that, whether a first message has
// failed because the server numbers its requests otherwise. sent is how often it
// has failed.
func (c *Client) otherCodes(ctx context.Context, err error, sent int) bool {
	last := sent > c.opts.Retries
	if errors.Is(err, errOtherCodes) {
		c.drop()
		return true
	}
	if errors.As(err, new(unreachable)) || !errors.Is(err, ErrServer) && !errors.Is(err, ErrConnection) || !c.peer.mayFindCodes(last || isSilence(err) && sent > 1) {
		return false
	}
	c.drop() // the server may serve one connection at a time
	return c.findCodes(ctx, errors.Is(err, ErrServer), false)
}
