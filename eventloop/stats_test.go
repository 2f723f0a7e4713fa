package eventloop

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"sealift/session"
)

// eventually waits until what Stats says is so.
func (r *running) eventually(what string, so func(Stats) bool) Stats {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; <-tick.C {
		st := r.Stats()
		if so(st) {
			return st
		}
		if time.Now().After(end) {
			r.t.Fatalf("in vain: %s: %+v", what, st)
		}
	}
}

// Limits may change while somebody takes the numbers.
func TestStatsWhileLimitsChange(t *testing.T) {
	s := start(t, func(o *Options, _ *session.Config) { o.MaxConnections = 1 })
	var changing sync.WaitGroup
	changing.Go(func() {
		for range 1000 {
			s.Limit(Limits{MaxConnections: 2})
		}
	})
	for range 1000 {
		if n := s.Stats().Limit; n != 1 && n != 2 {
			t.Fatalf("the limit is %d", n)
		}
	}
	changing.Wait()
	if n := s.Stats().Limit; n != 2 {
		t.Errorf("the limit is %d", n)
	}
}

// The numbers say what is there, while it is, and nothing is left of it in the end.
func TestStats(t *testing.T) {
	g := &gate{}
	hold := gated(g)
	r := start(t, func(o *Options, cfg *session.Config) {
		hold(o, cfg)
		o.MaxConnections = 2
		o.Workers = 1
	})
	before := r.Stats()
	if m := before.Memory; m.Budget != DefaultMemoryBudget || m.Used != 0 || m.Early != 0 || m.Rests != 0 || m.EarlyBudget == 0 {
		t.Errorf("memory of a server that does nothing: %+v", m)
	}
	c := r.client("uploader")
	silent := r.tcp()
	sent := make(chan error, 1)
	content := random(256 << 10)
	go func() {
		_, err := c.Send(context.Background(), "f", bytes.NewReader(content), int64(len(content)))
		sent <- err
	}()
	<-g.reached
	// The silent one is sniffed where there might be TLS.
	st := r.eventually("two connections", func(st Stats) bool { return st.Sniffing+st.Open == 2 })
	if st.Served != 2 || st.Limit != 2 || st.Admitted != 2 || st.Refused != 0 || st.Shaking+st.Ending+st.Lingering != 0 {
		t.Errorf("two connections: %+v", st)
	}
	if busy := st.Storage.Busy + st.Bulk.Busy; busy != 1 {
		t.Errorf("one upload is under way: %+v", st)
	}
	if !waits && (st.Lent != 1 || st.Loans != 1 || st.Memory.Used != session.MaxBuffer) || waits && (st.Lent != 0 || st.Memory.Used == 0) {
		t.Errorf("content is lent, but where the loop waits: %+v", st)
	}
	if overTLS && (st.Protected != 1 || st.Handshakes.Succeeded != 1 || st.Memory.Sealed == 0) || !overTLS && st.Protected != 0 {
		t.Errorf("over TLS: %+v", st)
	}
	readAll(t, r.tcp())
	if st = r.Stats(); st.Refused != 1 || st.Admitted != 2 {
		t.Errorf("a connection too many: %+v", st)
	}
	close(g.open)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	_, _ = silent, c.Close()
	_ = silent.Close()
	st = r.eventually("nothing is left", func(st Stats) bool {
		return st.Served == 0 && st.Lent == 0 && st.Storage.Busy+st.Bulk.Busy+st.Compute.Busy == 0
	})
	if st.Sniffing+st.Shaking+st.Open+st.Ending+st.Lingering+st.Protected != 0 || st.Memory != before.Memory {
		t.Errorf("at the end: %+v, want of connections and memory as in %+v", st, before)
	}
}

// Work that waits is counted for as long as it does.
func TestStatsOfALane(t *testing.T) {
	l := newLane(1)
	begun, run := make(chan struct{}), make(chan struct{})
	for range 3 {
		l.submit(turn{id: [16]byte{1}}, func() { begun <- struct{}{}; <-run })
	}
	for left := 2; left >= 0; left-- {
		<-begun
		if st := l.stats(); st != (LaneStats{Waiting: left, Busy: 1, Size: 1}) {
			t.Errorf("%+v with %d that wait", st, left)
		}
		run <- struct{}{}
	}
}
