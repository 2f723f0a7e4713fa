package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sealift/codec"
)

// firstSilence is how long a server may think about a small file before its
// silence is taken for an answer: one of which nothing is known, and one that
// may have lost a packet. A variable for tests.
var firstSilence = 20 * time.Second

// smallFile is the largest file that is small in this sense, in bytes.
const smallFile = 1 << 20

// hopeless is an error after which a file is not sent again as it was.
type hopeless struct{ err error }

func (h hopeless) Error() string { return h.err.Error() }

// failed counts err, of an attempt to send the file, and makes it hopeless where
// it is time to find out what is wrong.
func (t *transfer) failed(err error) error {
	if errors.As(err, new(*Error)) || !errors.Is(err, ErrServer) && !errors.Is(err, ErrConnection) {
		return err
	}
	t.failures++
	t.outages = 0
	switch {
	case isSilence(err):
		t.silences++
	case errors.Is(err, ErrConnection):
		t.lost++
		t.outages = t.c.line.outages + 1
	}
	if !t.hopeless() {
		return err
	}
	if errors.Is(err, ErrConnection) {
		t.c.drop()
	}
	return hopeless{err}
}

// forgive takes back the last failure, if a connection was lost and then the
// server could not be reached: it says nothing about the form.
func (t *transfer) forgive() {
	if t.outages > 0 && t.c.line.outages >= t.outages {
		t.failures, t.lost, t.outages = t.failures-1, t.lost-1, 0
	}
}

// maxRestarts is how many restarts of the server may explain that a file is
// lost again and again, before that is taken for the file's doing.
const maxRestarts = 3

// restarted waits for a server that may be down, and reports whether it was.
func (t *transfer) restarted(ctx context.Context) bool {
	c := t.c
	if c.opts.RetryFor <= 0 || t.restarts == maxRestarts {
		return false
	}
	before := c.line.outages
	if c.retry(ctx, 0, func(*conn) error { return nil }) != nil || c.line.outages == before {
		return false
	}
	t.restarts++
	return true
}

// hopeless reports whether the file has failed so often that the form is more
// likely to be wrong than the server to be in trouble.
func (t *transfer) hopeless() bool {
	switch {
	case t.agreed || t.mayAsk() || !t.c.peer.mayAdapt():
		return false
	case t.trust == remembered:
		return t.silences >= 2
	}
	return t.failures >= 2 || t.silences >= 1
}

// onlyLost reports whether the connection was lost each time: the server may have
// closed it for the form, or the line is bad.
func (t *transfer) onlyLost() bool { return t.lost > 0 && t.lost == t.failures }

// replyTimeout is how long the server may think about what a transfer has brought.
func (t *transfer) replyTimeout() time.Duration {
	d := t.c.opts.replyTimeout(t.layout.size)
	if t.size <= smallFile && (t.trust == guessed && t.c.peer.mayAdapt() || t.pause > 0 && t.layout.total > 1) {
		d = min(d, firstSilence)
	}
	return d
}

// pauseNow is the pause after each packet of the next attempt: it grows with
// each failure. A server that has stored files without one may fail once before
// it gets one.
func (t *transfer) pauseNow() time.Duration {
	n := t.failures
	if has, sure := t.c.peer.continues(); has == ContinueYes && sure {
		n = 0 // such a server has no need of it
	}
	if n == 1 && t.worked && t.form.pause == 0 {
		n = 0
	}
	return longer(t.form.pause, n)
}

// adapt looks for another form after err. again reports whether there is one;
// otherwise the file has failed for good, with the error that it returns.
func (t *transfer) adapt(ctx context.Context, err error) (again bool, _ error) {
	c := t.c
	var e *Error
	if !errors.As(err, &e) {
		return false, err
	}
	if h := (hopeless{}); errors.As(e.Err, &h) {
		e.Err = h.err
	}
	why := e.Err
	if ctx.Err() != nil || e.Code != codec.CodeSendFile || t.failures == 0 || t.agreed || !c.peer.mayAdapt() {
		return false, e
	}
	if t.outages > 0 && t.restarted(ctx) {
		return true, nil
	}
	done, err := c.peer.alone(ctx)
	if err != nil {
		return false, &Error{Code: e.Code, Attempts: e.Attempts, Err: context.Cause(ctx)}
	}
	defer done()
	if _, _, turn := c.peer.current(); turn != t.turn {
		return true, nil // another Client has found one
	}
	if !c.peer.probes {
		c.log.Warn("what is remembered of the server does not work: trying the usual way", "because", why)
		c.peer.change(form{dialect: Spec, packetSize: c.opts.PacketSize}, guessed)
		return true, nil
	}
	c.log.Warn("finding out which dialect the server takes", "at_most_seconds", maxProbeTime.Seconds(), "because", why)
	f, err := c.survey(ctx, t)
	if errors.Is(err, errGone) && t.restarted(ctx) {
		return true, nil
	}
	if f != t.form || t.onlyLost() {
		c.peer.endSurvey()
	}
	switch {
	case ctx.Err() != nil:
		return false, &Error{Code: e.Code, Attempts: e.Attempts, Err: context.Cause(ctx)}
	case err != nil:
		probes, spent := c.peer.budget.used()
		e.Err = fmt.Errorf("%w; %w, with %d probes in %v; sealift conform %s shows what it does",
			why, err, probes, spent.Round(100*time.Millisecond), c.address)
		return false, e
	case f == t.form && t.onlyLost():
		c.log.Warn("the server takes this dialect; the connection is bad", "dialect", f.dialect)
		return true, nil // with all its tries
	case f == t.form:
		return false, e // it is not the form
	}
	c.log.Warn("the server takes this dialect", "dialect", f.dialect, "packet_size_bytes", f.packetSize, "pause_seconds", f.pause.Seconds())
	c.peer.change(f, found)
	return true, nil
}
