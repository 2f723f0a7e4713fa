package eventloop

import (
	"bytes"
	"context"
	"testing"
	"time"

	"sealift/session"
)

// However much is charged at a time, and by how many, all of it together takes the time
// that the rate gives it.
func TestPacer(t *testing.T) {
	const rate = 1 << 20
	p := newPacer(rate)
	begun := time.Now()
	now, charged := begun, int64(0)
	for i := range 10_000 {
		n := int64(i*7919%300_000 + 1)
		charged += n
		pause := p.charge(n, now)
		if want := time.Duration(float64(charged-p.share) / rate * float64(time.Second)); charged > p.share {
			if got := now.Add(pause).Sub(begun); got < want-time.Millisecond || got > want+time.Millisecond {
				t.Fatalf("after %d bytes the pause ends at %v, want %v", charged, got, want)
			}
		}
		if i%3 == 0 {
			now = now.Add(pause) // one that waited goes on, and others come in between
		}
	}
	p.paused.Store(4)
	if four := p.turn(); four*4 > p.share && four > minPaced {
		t.Errorf("the turns of 4 are %d bytes each, of %d", four, p.share)
	}
}

// A connection that has sent more than the rate allows is paused, and goes on when the rate
// is taken away; what it has sent is complete. It is not idle meanwhile.
func TestRateIsTakenAway(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.tick = 20 * time.Millisecond })
	c := r.client("slow")
	r.Limit(Limits{Rate: 1})
	content := random(3 << 20)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Send(context.Background(), "f", bytes.NewReader(content), int64(len(content)))
		sent <- err
	}()
	ticks := int64(0)
	r.eventually("it is paused", func(Stats) bool {
		if ticks == 0 && r.pacer.Load().paused.Load() > 0 {
			ticks = r.ticks.Load()
			r.Limit(Limits{Rate: 1, IdleTimeout: 100 * time.Millisecond})
		}
		return ticks > 0 && r.ticks.Load() > ticks+10 // longer than IdleTimeout
	})
	select {
	case err := <-sent:
		t.Fatalf("3 MiB came at a byte a second: %v", err)
	default:
	}
	r.Limit(Limits{})
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	r.stored(c.Identity().ID, "f", content)
	if n := len(r.logs.FilterMessage("connection closed").All()); n != 0 {
		t.Errorf("%d connections were closed", n)
	}
}

// Many connections under a rate come to their ends, whatever it is and however often it
// changes.
func TestRateChanges(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.tick, o.Rate = 100*time.Millisecond, 1<<20 })
	content := random(1 << 20)
	errs := make(chan error, 8)
	for i := range cap(errs) {
		name := string(rune('a' + i))
		c := r.client(name)
		go func() {
			_, err := c.Send(context.Background(), name, bytes.NewReader(content), int64(len(content)))
			if err == nil {
				r.stored(c.Identity().ID, name, content)
			}
			errs <- err
		}()
	}
	for rate := int64(1 << 20); len(errs) < cap(errs); rate = rate*7919%(1<<26) + 1<<16 {
		r.Limit(Limits{Rate: rate})
		if rate%5 == 0 {
			r.Limit(Limits{})
		}
		before := r.ticks.Load()
		r.eventually("some ticks", func(Stats) bool { return r.ticks.Load() > before+2 })
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
