package events_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/events"
	"sealift/storage"
	"sealift/storage/memory"
)

// listener is a target that a test speaks for.
type listener struct {
	name string
	// answer says how an attempt goes. It runs on the goroutine of the attempt.
	answer func(ctx context.Context, e *storage.Event) error

	mu   sync.Mutex
	busy int
	most int // attempts at once
	told []told
}

type told struct {
	client, path string
	at           time.Time
	err          error
}

func (l *listener) Name() string { return l.name }

func (l *listener) Tell(ctx context.Context, e *storage.Event) error {
	l.mu.Lock()
	l.busy++
	l.most = max(l.most, l.busy)
	answer := l.answer
	l.mu.Unlock()
	var err error
	if answer != nil {
		err = answer(ctx, e)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
	l.told = append(l.told, told{e.ClientName, e.Path, time.Now(), err})
	return err
}

// accepted returns what the target has accepted of a client, in its order.
func (l *listener) accepted(client string) (paths []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.told {
		if a.client == client && a.err == nil {
			paths = append(paths, a.path)
		}
	}
	return paths
}

// relent has the target accept everything from now on.
func (l *listener) relent() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = nil
}

func (l *listener) attempts() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.told)
}

// world is a registry in memory, in a bubble with a clock of its own.
type world struct {
	t      *testing.T
	reg    *memory.Registry
	limits events.Limits
}

func clientID(n int) codec.ClientID { return codec.ClientID{6: 0x40, 8: 0x80, 15: byte(n)} }

func name(n int) string { return fmt.Sprint("client ", n) }

// newWorld has some clients, of which nothing is told.
func newWorld(t *testing.T, clients int) *world {
	w := &world{t: t, reg: memory.New(), limits: events.Limits{Retry: time.Second, Timeout: 10 * time.Second}}
	for n := range clients {
		w.apply(&storage.AddClient{ID: clientID(n), Name: name(n)})
	}
	return w
}

func (w *world) apply(ops ...storage.Operation) {
	w.t.Helper()
	for _, op := range ops {
		op.Result().By = storage.Server
	}
	err := w.reg.Apply(context.Background(), ops)
	for _, op := range ops {
		err = errors.Join(err, op.Result().Err)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// happens records an event of a client about a path.
func (w *world) happens(client int, path string) {
	w.t.Helper()
	w.apply(&storage.RaiseEvent{Event: storage.Event{Kind: storage.EventVerified, Client: clientID(client), Path: path}})
}

// run runs a Teller until stop is called.
func (w *world) run(parallel int, targets ...events.Target) (t *events.Teller, stop func()) {
	w.t.Helper()
	if err := w.reg.SetTargets(context.Background(), events.Names(targets)); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t = events.New(events.Options{
		Registry: w.reg, Submit: storage.NewQueue(ctx, w.reg).Submit, Targets: targets, Parallel: parallel, Limits: w.limits, Log: zap.NewNop(),
	})
	var running sync.WaitGroup
	running.Go(func() { t.Run(ctx) })
	return t, func() { cancel(); running.Wait() }
}

func (w *world) waiting() int {
	w.t.Helper()
	n := 0
	if err := w.reg.ListEvents(context.Background(), func(storage.Event) error { n++; return nil }); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) wantWaiting(want int) {
	w.t.Helper()
	if got := w.waiting(); got != want {
		w.t.Errorf("%d events wait, want %d", got, want)
	}
}

func numbers(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

var errNo = errors.New("no")

// Whatever a target refuses, it gets all events, and those of a client in their order.
func TestInOrderUntilAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		tries := make(map[string]int)
		l := &listener{name: "x"}
		l.answer = func(_ context.Context, e *storage.Event) error {
			time.Sleep(time.Millisecond)
			l.mu.Lock()
			defer l.mu.Unlock()
			tries[e.ID]++
			if tries[e.ID] != e.Attempts+1 {
				t.Errorf("%s %s: attempt %d, and the event says %d", e.ClientName, e.Path, tries[e.ID], e.Attempts+1)
			}
			if tries[e.ID] <= int(e.Seq)%4 {
				return errNo
			}
			return nil
		}
		teller, stop := w.run(2, l)
		defer stop()
		for i := range 20 {
			for c := range 3 {
				w.happens(c, fmt.Sprint(i))
			}
		}
		time.Sleep(20 * time.Hour)
		synctest.Wait()
		for c := range 3 {
			if got := l.accepted(name(c)); !slices.Equal(got, numbers(20)) {
				t.Errorf("%s: accepted %q", name(c), got)
			}
		}
		w.wantWaiting(0)
		if l.most != 2 {
			t.Errorf("%d attempts at once, want 2", l.most)
		}
		s := teller.Stats()[0]
		if s.Told != 60 || s.Failed != 90 || s.UnderWay != 0 || s.Waiting != 0 || s.Failure != "" {
			t.Errorf("stats %+v", s)
		}
	})
}

// A target that hangs, and an event that is never accepted, hold up nobody else.
func TestSlowTargetDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		hangs := &listener{name: "hangs", answer: func(ctx context.Context, e *storage.Event) error { <-ctx.Done(); return ctx.Err() }}
		picky := &listener{name: "picky", answer: func(_ context.Context, e *storage.Event) error {
			if e.ClientName == name(0) {
				return errNo
			}
			return nil
		}}
		_, stop := w.run(2, hangs, picky)
		defer stop()
		began := time.Now()
		for i := range 5 {
			for c := range 3 {
				w.happens(c, fmt.Sprint(i))
			}
		}
		synctest.Wait()
		for c := 1; c < 3; c++ {
			if got := picky.accepted(name(c)); !slices.Equal(got, numbers(5)) {
				t.Errorf("%s: accepted %q", name(c), got)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		time.Sleep(w.limits.Timeout) // the first attempts of the one that hangs end
		synctest.Wait()
		if n := hangs.attempts(); n != 2 || hangs.most != 2 {
			t.Errorf("%d attempts, %d at once, want 2", n, hangs.most)
		}
		w.wantWaiting(15 + 5)
	})
}

// The time between two attempts is doubled, up to an hour, and varies by a half.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		l := &listener{name: "x", answer: func(context.Context, *storage.Event) error { return errNo }}
		_, stop := w.run(1, l)
		defer stop()
		w.happens(0, "a")
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if len(l.told) < 20 {
			t.Fatalf("%d attempts in a day", len(l.told))
		}
		for i := range l.told[1:] {
			want := min(w.limits.Retry<<min(i, 20), events.MaxRetry)
			got := l.told[i+1].at.Sub(l.told[i].at)
			if got < want/2 || got > want*3/2+time.Millisecond {
				t.Errorf("attempt %d came after %v, want about %v", i+2, got, want)
			}
		}
	})
}

// An event that was put off before the clock was set back is told, and those behind it.
func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		l := &listener{name: "x"}
		if err := w.reg.SetTargets(context.Background(), []string{"x"}); err != nil {
			t.Fatal(err)
		}
		w.happens(0, "a")
		w.happens(0, "b")
		next, err := w.reg.NextEvents(context.Background(), "x", 1)
		if err != nil || len(next) != 1 {
			t.Fatalf("%v, %v", next, err)
		}
		w.apply(&storage.PostponeEvent{Seq: next[0].Seq, Due: time.Now().Add(1000 * 24 * time.Hour)})
		_, stop := w.run(1, l)
		defer stop()
		time.Sleep(time.Minute)
		if got, want := l.accepted(name(0)), []string{"a", "b"}; !slices.Equal(got, want) {
			t.Errorf("accepted within a minute: %q, want %q", got, want)
		}
	})
}

// Who asks for a rest has it, unless somebody asks for an attempt.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		l := &listener{name: "x", answer: func(context.Context, *storage.Event) error {
			return &events.RestError{For: 40 * time.Minute, Err: errNo}
		}}
		teller, stop := w.run(1, l)
		defer stop()
		w.happens(0, "a")
		w.happens(1, "a")
		time.Sleep(39 * time.Minute)
		if n := l.attempts(); n != 1 {
			t.Fatalf("%d attempts before the end of the rest, want 1", n)
		}
		w.apply(&storage.RetryEvents{})
		teller.Wake()
		synctest.Wait()
		if n := l.attempts(); n != 2 {
			t.Errorf("%d attempts after somebody has asked for one, want 2", n)
		}
		l.relent()
		time.Sleep(2 * time.Hour)
		w.wantWaiting(0)
	})
}

// What is too old goes, and of what is too much the oldest; what comes after them is told.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.limits.TTL, w.limits.Max = 5*time.Hour, 10
		l := &listener{name: "x", answer: func(context.Context, *storage.Event) error { return errNo }}
		teller, stop := w.run(2, l)
		defer stop()
		for i := range 15 {
			w.happens(0, fmt.Sprint(i))
		}
		time.Sleep(time.Minute)
		w.wantWaiting(10)
		time.Sleep(4 * time.Hour)
		w.happens(1, "new")
		time.Sleep(time.Hour)
		w.wantWaiting(1)
		s := teller.Stats()[0]
		if s.Dropped != (events.Dropped{Many: 6, Old: 9}) && s.Dropped != (events.Dropped{Many: 5, Old: 10}) || s.Waiting != 1 || s.Failure != "no" {
			t.Errorf("stats %+v", s)
		}
		l.relent()
		time.Sleep(2 * time.Hour)
		if got := l.accepted(name(1)); !slices.Equal(got, []string{"new"}) || l.accepted(name(0)) != nil {
			t.Errorf("accepted %q and %q", got, l.accepted(name(0)))
		}
	})
}

// An attempt that is under way when the server stops may come to its end, for a moment. What
// was not told is told by the next server.
func TestStopAndGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		l := &listener{name: "x"}
		l.answer = func(ctx context.Context, e *storage.Event) error {
			if e.ClientName == name(0) {
				time.Sleep(time.Second)
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		_, stop := w.run(2, l)
		for i := range 3 {
			w.happens(0, fmt.Sprint(i))
			w.happens(1, fmt.Sprint(i))
		}
		synctest.Wait()
		stop()
		if got := l.accepted(name(0)); !slices.Equal(got, numbers(1)) {
			t.Errorf("accepted at the stop: %q", got)
		}
		w.wantWaiting(5)
		l.relent()
		_, stop = w.run(2, l)
		synctest.Wait()
		stop()
		for c := range 2 {
			if got := l.accepted(name(c)); !slices.Equal(got, numbers(3)) {
				t.Errorf("%s: accepted %q", name(c), got)
			}
		}
		if err := w.reg.ListEvents(context.Background(), func(e storage.Event) error {
			return fmt.Errorf("%+v is left", e)
		}); err != nil {
			t.Error(err)
		}
	})
}

// A Teller whose work another process takes over ends what is under way at once, counts nothing
// any more, and may be run again when it is its turn.
func TestTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		l := &listener{name: "x", answer: func(ctx context.Context, _ *storage.Event) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		if err := w.reg.SetTargets(t.Context(), []string{l.name}); err != nil {
			t.Fatal(err)
		}
		teller := events.New(events.Options{
			Registry: w.reg, Submit: storage.NewQueue(t.Context(), w.reg).Submit, Targets: []events.Target{l}, Parallel: 2, Limits: w.limits, Log: zap.NewNop(),
		})
		for i := range 3 {
			w.happens(0, fmt.Sprint(i))
		}
		run := func(cause error) {
			ctx, stop := context.WithCancelCause(t.Context())
			var running sync.WaitGroup
			running.Go(func() { teller.Run(ctx) })
			synctest.Wait()
			if got := teller.Stats()[0].Waiting; got != w.waiting() && l.answer != nil {
				t.Errorf("%d are counted, of %d", got, w.waiting())
			}
			before := time.Now()
			stop(cause)
			running.Wait()
			if took := time.Since(before); took != 0 {
				t.Errorf("the end took %v", took)
			}
		}
		run(errors.New("another process tells"))
		if got := teller.Stats()[0]; got.Waiting != 0 || got.UnderWay != 0 || got.Told != 0 {
			t.Errorf("after that there are %+v", got)
		}
		w.wantWaiting(3)
		l.relent()
		run(nil)
		if got := l.accepted(name(0)); !slices.Equal(got, numbers(3)) {
			t.Errorf("accepted %q", got)
		}
		w.wantWaiting(0)
	})
}

// deaf is a registry that says nothing of what is recorded.
type deaf struct{ *memory.Registry }

func (deaf) Recorded() <-chan struct{} { return nil }

// What is on record is told within seconds also if the registry did not say that it came: of two
// servers the one may record an event while the other one looks, and be seen after a later event.
func TestUnheardOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newWorld(t, 1), &listener{name: "x"}
		if err := w.reg.SetTargets(t.Context(), []string{l.name}); err != nil {
			t.Fatal(err)
		}
		teller := events.New(events.Options{
			Registry: deaf{w.reg}, Submit: storage.NewQueue(t.Context(), w.reg).Submit, Targets: []events.Target{l}, Parallel: 2, Limits: w.limits, Log: zap.NewNop(),
		})
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { teller.Run(ctx) })
		synctest.Wait() // it has looked, and nothing is there
		for i := range 3 {
			w.happens(0, fmt.Sprint(i))
		}
		time.Sleep(5 * time.Second)
		if got := l.accepted(name(0)); !slices.Equal(got, numbers(3)) {
			t.Errorf("accepted %q", got)
		}
		stop()
		running.Wait()
	})
}

// What cannot be recorded as told is told again.
func TestRegistryFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		l := &listener{name: "x"}
		if err := w.reg.SetTargets(context.Background(), []string{"x"}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		queue := storage.NewQueue(ctx, w.reg)
		var fails atomic.Bool
		fails.Store(true)
		teller := events.New(events.Options{
			Registry: w.reg, Targets: []events.Target{l}, Parallel: 1, Limits: w.limits, Log: zap.NewNop(),
			Submit: func(op storage.Operation, done func(error)) {
				if fails.Load() {
					done(errors.New("disk full"))
					return
				}
				queue.Submit(op, done)
			},
		})
		var running sync.WaitGroup
		running.Go(func() { teller.Run(ctx) })
		w.happens(0, "a")
		w.happens(0, "b")
		time.Sleep(2500 * time.Millisecond)
		if got := l.accepted(name(0)); !slices.Equal(got, []string{"a", "a", "a"}) {
			t.Errorf("told %q: an event that cannot be recorded as told is told again, once a second, and none behind it", got)
		}
		fails.Store(false)
		time.Sleep(time.Minute)
		w.wantWaiting(0)
		cancel()
		running.Wait()
	})
}
