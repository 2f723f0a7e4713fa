package events

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sealift/storage"
)

// teller tells one target. What it remembers belongs to the goroutine of run, but for what is
// atomic.
type teller struct {
	of     *Teller
	target Target
	look   chan struct{} // there may be something to tell
	ended  chan ending
	busy   map[int64]bool // Seq of the events that are being told
	rests  time.Time      // nothing is told before that

	said   time.Time // when a failure was last logged
	unsaid int       // failures since

	underWay     atomic.Int64
	told, failed atomic.Uint64
	failure      atomic.Pointer[string] // of the last attempt, nil if it went well
}

// ending is an attempt that is over, and on record as far as that could be done.
type ending struct {
	seq  int64
	err  error         // of the attempt
	lost error         // it could not be recorded
	took time.Duration // the attempt
	e    *storage.Event
}

func newTeller(of *Teller, target Target) *teller {
	return &teller{
		of: of, target: target, look: make(chan struct{}, 1),
		ended: make(chan ending, of.o.Parallel), busy: make(map[int64]bool),
	}
}

func (t *teller) wake() {
	select {
	case t.look <- struct{}{}:
	default: // it will look anyway
	}
}

// failPause is how long the teller leaves the registry alone after an error.
const failPause = time.Second

// run tells events until ctx ends, and returns when no attempt is under way, which go with
// the context attempts.
func (t *teller) run(ctx, attempts context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			for len(t.busy) > 0 {
				t.settle(<-t.ended)
			}
			return
		case <-t.look:
		case <-timer.C:
		case end := <-t.ended:
			t.settle(end)
			for more := true; more; {
				select {
				case end := <-t.ended:
					t.settle(end)
				default:
					more = false
				}
			}
		}
		wait, err := t.begin(ctx, attempts)
		if err != nil && ctx.Err() == nil {
			t.of.o.Log.Error("looking for events failed", zap.String("target", t.target.Name()), zap.Error(err))
			wait = failPause
		}
		if wait >= 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
	}
}

// begin begins attempts for what is due, as many as there may be at once. It returns when to
// look again at the latest, negative: when something happens.
func (t *teller) begin(ctx, attempts context.Context) (wait time.Duration, err error) {
	free := t.of.o.Parallel - len(t.busy)
	if free <= 0 {
		return -1, nil
	}
	now := time.Now()
	next, err := t.of.o.Registry.NextEvents(ctx, t.target.Name(), free+len(t.busy)+1)
	if err != nil {
		return 0, err
	}
	if rest := t.rests.Sub(now); rest > 0 && !slices.ContainsFunc(next, wanted) {
		return rest, nil
	}
	t.rests = time.Time{}
	for i := range next {
		e := &next[i]
		switch {
		case t.busy[e.Seq]:
		case e.Due.After(now) && e.Due.Sub(now) <= longestWait:
			return e.Due.Sub(now), nil
		case free == 0:
			return -1, nil
		default:
			free--
			t.busy[e.Seq] = true
			t.underWay.Add(1)
			go t.attempt(attempts, e)
		}
	}
	return -1, nil
}

// longestWait is more than any event is put off for. One that is due later was put off before
// the clock was set back, and is told at once: others of its client wait behind it.
const longestWait = 2 * MaxRetry

// wanted reports whether somebody has asked for another attempt at e at once.
func wanted(e storage.Event) bool { return e.Attempts > 0 && e.Due.IsZero() }

// attempt tells e once, and records how that went.
func (t *teller) attempt(ctx context.Context, e *storage.Event) {
	limits := t.of.limits.Load()
	began := time.Now()
	bounded, stop := context.WithTimeout(ctx, limits.Timeout)
	err := t.target.Tell(bounded, e)
	stop()
	end := ending{seq: e.Seq, err: err, took: time.Since(began), e: e}
	own := storage.Outcome{By: storage.Server}
	switch {
	case err == nil:
		end.lost = t.record(&storage.EventTold{Outcome: own, Event: *e})
	case ctx.Err() != nil: // the server stops: it was no fault of the target's
	default:
		wait := backoff(limits.Retry, e.Attempts)
		var rest *RestError
		if errors.As(err, &rest) {
			wait = max(wait, rest.For)
		}
		end.lost = t.record(&storage.PostponeEvent{Outcome: own, Seq: e.Seq, Due: time.Now().Add(wait), Failure: clip(err.Error(), maxFailure)})
	}
	t.ended <- end
}

// maxFailure is how many bytes are kept of the reason why an attempt failed.
const maxFailure = 200

// record has the registry do op. The server's own batches end with the server; what they do
// not take any more is recorded alone.
func (t *teller) record(op storage.Operation) error {
	done := make(chan error, 1)
	t.of.o.Submit(op, func(err error) { done <- err })
	err := <-done
	if errors.Is(err, context.Canceled) {
		ctx, stop := context.WithTimeout(context.Background(), grace)
		defer stop()
		if err = t.of.o.Registry.Apply(ctx, []storage.Operation{op}); err == nil {
			err = op.Result().Err
		}
	}
	if errors.Is(err, storage.ErrNoEvent) { // somebody has dropped it meanwhile
		return nil
	}
	return err
}

// settle takes note of an attempt that is over.
func (t *teller) settle(end ending) {
	delete(t.busy, end.seq)
	t.underWay.Add(-1)
	name, log := t.target.Name(), t.of.o.Log
	if end.lost != nil {
		// It is told again, and not at once.
		t.rests = time.Now().Add(failPause)
		log.Error("recording how an event was told failed", zap.String("target", name), zap.String("event", end.e.ID), zap.Error(end.lost))
	}
	if end.err == nil {
		t.told.Add(1)
		if t.failure.Swap(nil) != nil {
			log.Info("events are accepted again", zap.String("target", name))
			t.said, t.unsaid = time.Time{}, 0
		}
		log.Debug("an event was told", append(fields(name, end.e), zap.Float64("took_seconds", end.took.Seconds()))...)
		return
	}
	t.failed.Add(1)
	text := clip(end.err.Error(), maxFailure)
	t.failure.Store(&text)
	var rest *RestError
	if errors.As(end.err, &rest) {
		t.rests = time.Now().Add(rest.For)
	}
	t.logFailure(end)
}

// failuresEvery is how often the log has a line about a target that accepts nothing.
const failuresEvery = time.Minute

func (t *teller) logFailure(end ending) {
	now := time.Now()
	line := append(fields(t.target.Name(), end.e), zap.Int("attempt", end.e.Attempts+1), zap.Error(end.err))
	if now.Sub(t.said) < failuresEvery {
		t.unsaid++
		t.of.o.Log.Debug("an event was not accepted", line...)
		return
	}
	if t.unsaid > 0 {
		line = append(line, zap.Int("others", t.unsaid))
	}
	t.of.o.Log.Warn("an event was not accepted", line...)
	t.said, t.unsaid = now, 0
}

// fields are those of a line of the log about e.
func fields(target string, e *storage.Event) []zap.Field {
	all := []zap.Field{
		zap.String("target", target), zap.String("event", e.ID), zap.String("kind", string(e.Kind)),
		zap.String("client", e.Client.String()),
	}
	if e.Path != "" {
		all = append(all, zap.String("path", e.Path))
	}
	return all
}

// backoff is how long an event waits after an attempt that failed, when so many had failed
// before.
func backoff(first time.Duration, before int) time.Duration {
	wait := first
	for ; before > 0 && wait < MaxRetry; before-- {
		wait *= 2
	}
	wait = min(wait, MaxRetry)
	return wait/2 + time.Duration(rand.Int64N(int64(wait)+1))
}

// clip is text, without what is beyond n bytes.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && text[n]&0xc0 == 0x80 { // within a character
		n--
	}
	return text[:n] + "…"
}

func (t *teller) stats() Stats {
	s := Stats{
		Target: t.target.Name(), UnderWay: int(t.underWay.Load()),
		Told: t.told.Load(), Failed: t.failed.Load(),
	}
	if why := t.failure.Load(); why != nil {
		s.Failure = *why
	}
	return s
}
