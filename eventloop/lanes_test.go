package eventloop

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"weak"

	"sealift/codec"
)

// BenchmarkLane has 128 clients wait for a lane of 8, one job each.
func BenchmarkLane(b *testing.B) {
	l := newLane(8)
	var wg sync.WaitGroup
	turns := make([]turn, 128)
	for i := range turns {
		turns[i] = turn{id: codec.ClientID{byte(i)}}
	}
	n := b.N / len(turns)
	b.ReportAllocs()
	for i := range turns {
		wg.Add(1)
		left := n
		var job func()
		job = func() {
			if left--; left < 0 {
				wg.Done()
				return
			}
			l.submit(turns[i], job)
		}
		l.submit(turns[i], job)
	}
	wg.Wait()
}

// BenchmarkIdleLane has one client ask a lane for one piece of work at a time.
func BenchmarkIdleLane(b *testing.B) {
	l := newLane(8)
	ran := make(chan struct{})
	who := turn{id: codec.ClientID{1}}
	work := func() { ran <- struct{}{} }
	b.ReportAllocs()
	for b.Loop() {
		l.submit(who, work)
		<-ran
	}
}

// script runs work on a lane with one worker, by a clock that only the work moves.
type script struct {
	lane *lane
	time time.Duration
	ran  []string
	all  sync.WaitGroup
}

func newScript() *script {
	s := &script{lane: newLane(1)}
	s.lane.now = func() time.Duration { return s.time }
	return s
}

// ask submits work of who that takes so long, and does what is in then.
func (s *script) ask(who turn, name string, takes time.Duration, then ...func()) {
	s.all.Add(1)
	s.lane.submit(who, func() {
		defer s.all.Done()
		s.ran = append(s.ran, name)
		s.time += takes
		for _, f := range then {
			f()
		}
	})
}

// play begins with what first asks for, all of it before any of it runs, and
// returns the names in the order in which they ran.
func (s *script) play(first func()) []string {
	begin := make(chan struct{})
	s.all.Add(1)
	s.lane.submit(turn{}, func() {
		defer s.all.Done()
		<-begin
	})
	first()
	close(begin)
	s.all.Wait()
	return s.ran
}

// occupy adds a worker to the lane, and a client that keeps it busy until end is
// called.
func (s *script) occupy() (end func()) {
	s.lane.size++
	busy, ended := make(chan struct{}), make(chan struct{})
	s.lane.submit(turn{id: codec.ClientID{2}}, func() {
		close(busy)
		<-ended
	})
	<-busy
	return func() { close(ended) }
}

// numbered is the turn of client n.
func numbered(n int) turn {
	return turn{id: codec.ClientID{1, byte(n >> 16), byte(n >> 8), byte(n)}}
}

const ms = time.Millisecond

// Clients have their turns, however much one of them asks for, and however many
// connections it has; what one asks for is done in order.
func TestTurns(t *testing.T) {
	a, b, unknown := numbered(1), numbered(2), turn{c: weak.Make(new(conn))}
	s := newScript()
	got := s.play(func() {
		for i := range 5 {
			s.ask(a, fmt.Sprint("a", i), ms)
		}
		s.ask(b, "b0", ms)
		s.ask(unknown, "u0", ms)
		s.ask(b, "b1", ms)
		s.ask(turn{c: weak.Make(new(conn))}, "v0", ms)
	})
	want := []string{"a0", "b0", "u0", "v0", "a1", "b1", "a2", "a3", "a4"}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Who asks for little is served before those who ask for much have their second
// turns.
func TestLittleWorkFirst(t *testing.T) {
	s := newScript()
	got := s.play(func() {
		for round := range 2 {
			for i := range 3 {
				s.ask(numbered(i), fmt.Sprint("much", round), 30*ms)
			}
		}
		for range 4 {
			s.ask(numbered(9), "little", ms)
		}
	})
	want := []string{"much0", "much0", "much0", "little", "little", "little", "little", "much1", "much1", "much1"}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A client pays for what it had although it waits for nothing meanwhile, and
// although it found a free worker when it had it: one that asks for one thing
// after the other has no more than one that asks for all at once.
func TestDebtsLast(t *testing.T) {
	s := newScript()
	greedy, other, third := numbered(1), numbered(2), numbered(3)
	s.ask(greedy, "greedy", 30*ms, func() {
		s.ask(other, "other", 20*ms, func() {
			s.ask(greedy, "greedy again", 30*ms)
			s.ask(third, "third", 30*ms)
		})
	})
	s.all.Wait()
	want := []string{"greedy", "other", "third", "greedy again"}
	if !slices.Equal(s.ran, want) {
		t.Errorf("%v, want %v", s.ran, want)
	}
}

// When a lane has had nothing to do, all debts are forgiven.
func TestDebtsAreForgiven(t *testing.T) {
	s := newScript()
	a, b := numbered(1), numbered(2)
	s.ask(b, "", 400*ms)
	s.all.Wait()
	idle(s.lane)
	s.ask(a, "", 400*ms, func() {
		for i := range 9 {
			s.ask(numbered(10+i), "", ms)
		}
	})
	s.all.Wait()
	idle(s.lane)
	s.ran = nil
	got := s.play(func() {
		s.ask(a, "a", 400*ms)
		s.ask(b, "b", 400*ms)
	})
	if want := []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// idle waits until the lane's worker has ended.
func idle(l *lane) {
	for {
		l.mu.Lock()
		running := l.running
		l.mu.Unlock()
		if running == 0 {
			return
		}
		runtime.Gosched()
	}
}

// A client that owes as much as one can gets its turn, whoever keeps coming: the
// same clients, or ever new ones, who are many.
func TestNobodyStarves(t *testing.T) {
	const others = 10
	for _, c := range []struct {
		name  string
		takes time.Duration // what it had, each time
		who   func(n int) turn
	}{
		{"same", maxDebt, func(n int) turn { return numbered(n % others) }},
		{"new", maxDebt, numbered},
		{"unknown", maxDebt, func(int) turn { return turn{c: weak.Make(new(conn))} }},
		{"stalled", time.Hour, numbered},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScript()
			greedy := numbered(1 << 20)
			n, served := 0, false
			var light func()
			light = func() {
				if n++; !served && n < 1_000_000 {
					s.ask(c.who(n), "", ms, light)
				}
			}
			end := s.occupy()
			for range 9 {
				s.ask(greedy, "greedy", c.takes)
			}
			s.ask(greedy, "greedy", c.takes, func() {
				for range others {
					light()
				}
				s.ask(greedy, "again", ms, func() { served = true })
			})
			s.all.Wait()
			end()
			// until each has had as much and what the turn costs, and a few rounds
			if most := 2*int(maxDebt/ms)*(others+3) + 4*others; n > most {
				t.Errorf("its turn came after %d pieces of 1 ms, want at most %d", n, most)
			}
		})
	}
}

// Whoever asks for much at a time has his share of a lane beside those who ask
// for little, and are charged less for it.
func TestSharesBesideLittleWork(t *testing.T) {
	const clients, total = 5, 20 * time.Second
	s := newScript()
	had := make([]time.Duration, clients)
	var again func(i int)
	again = func(i int) {
		takes := ms
		if i == 0 {
			takes = 20 * ms
		}
		s.ask(numbered(i), "", takes, func() {
			if had[i] += takes; s.time < total {
				again(i)
			}
		})
	}
	s.play(func() {
		for i := range clients {
			again(i)
		}
	})
	if had[0] < total/clients*95/100 {
		t.Errorf("of %v, the one of %d clients that asks for much had %v: %v", total, clients, had[0], had)
	}
}

// Beside clients that ask for much, one that asks for little gets it as often as it
// wants, and not only as long as it has had less than they.
func TestLittleWorkAllTheTime(t *testing.T) {
	const others = 20
	s := newScript()
	much, little := 0, 0
	var dear func(i int)
	dear = func(i int) {
		if much++; much < 50*others {
			s.ask(numbered(i), "", 30*ms, func() { dear(i) })
		}
	}
	var cheap func()
	cheap = func() {
		if little++; much < 50*others {
			s.ask(numbered(others), "", 6*ms, cheap)
		}
	}
	s.play(func() {
		for i := range others {
			dear(i)
		}
		cheap()
	})
	if little < much/2 { // by the time, it would be a quarter
		t.Errorf("%d turns beside %d of the others", little, much)
	}
}

// What a client has under way counts before it is done: it does not get all workers
// because they come free at one time.
func TestWorkUnderWayCounts(t *testing.T) {
	s := newScript()
	a, b := numbered(1), numbered(2)
	s.ask(a, "", 30*ms)
	s.ask(b, "", 40*ms)
	s.all.Wait()
	idle(s.lane)

	s.lane.size = 0
	first, second := s.occupy(), s.occupy()
	began, end := make(chan string), make(chan struct{})
	for _, c := range []struct {
		who  turn
		name string
	}{{a, "a0"}, {a, "a1"}, {b, "b0"}} {
		s.all.Add(1)
		s.lane.submit(c.who, func() {
			defer s.all.Done()
			began <- c.name
			<-end
		})
	}
	first()
	got := []string{<-began}
	second()
	got = append(got, <-began)
	close(end)
	<-began
	s.all.Wait()
	if want := []string{"a0", "b0"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Ever new names, each of which asks for much once, do not come before a client
// that is known to ask for little.
func TestNewNamesGainNothing(t *testing.T) {
	const others = 100
	s := newScript()
	honest := numbered(1 << 20)
	n, most, since := 0, 0, 0
	var dear, little func()
	dear = func() {
		if n++; n < 50*others {
			s.ask(numbered(n), "", 30*ms, dear)
		}
	}
	little = func() {
		if n > 10*others { // it is known by now
			most = max(most, n-since)
		}
		if since = n; n < 50*others-1 {
			s.ask(honest, "", ms, little)
		}
	}
	s.play(func() {
		for range others {
			dear()
		}
		little()
	})
	if most > others/4 { // in rotation it would be others
		t.Errorf("its turn came after %d others", most)
	}
}

// New clients that ask once each are served in the order in which they ask, though
// what such work takes changes all the time.
func TestNewClientsKeepTheirOrder(t *testing.T) {
	s := newScript()
	const atOnce, all = 100, 2000
	asked := 0
	var names []string
	var arrive func()
	arrive = func() {
		if asked++; asked > all {
			return
		}
		takes := ms
		if asked/10%2 == 0 {
			takes = 20 * ms
		}
		names = append(names, fmt.Sprint(asked))
		s.ask(numbered(asked), fmt.Sprint(asked), takes, arrive)
	}
	s.play(func() {
		for range atOnce {
			arrive()
		}
	})
	if !slices.Equal(s.ran, names) {
		t.Errorf("served in the order %v", s.ran)
	}
}

// However many clients come, a lane remembers few of them.
func TestAccountsAreFew(t *testing.T) {
	const others = 10
	s := newScript()
	n, most := 0, 0
	var next func()
	next = func() {
		s.lane.mu.Lock()
		most = max(most, len(s.lane.lines))
		s.lane.mu.Unlock()
		if n++; n < 100_000 {
			s.ask(numbered(n), "", ms+time.Duration(n%7)*ms, next)
		}
	}
	s.play(func() {
		for range others {
			next()
		}
	})
	if most > manyLines {
		t.Errorf("%d accounts, want at most %d", most, manyLines)
	}
}

// A client that always has work waiting takes no more and more memory for it.
func TestALineThatIsNeverEmpty(t *testing.T) {
	l := newLane(1)
	who := turn{id: codec.ClientID{1}}
	start, ended := make(chan struct{}), make(chan struct{})
	l.submit(turn{}, func() { <-start })
	const rounds = 10_000
	most, ran := 0, 0
	var job func()
	job = func() {
		if ran++; ran == rounds {
			close(ended)
		}
		if ran >= rounds {
			return
		}
		l.submit(who, job)
		l.mu.Lock()
		most = max(most, cap(l.lines[who].work))
		l.mu.Unlock()
	}
	for range 3 {
		l.submit(who, job)
	}
	close(start)
	<-ended
	if most > 64 {
		t.Errorf("3 pieces of work wait in room for %d", most)
	}
}

// An account keeps little memory when its client waits for nothing any more.
func TestALineThatWasLong(t *testing.T) {
	s := newScript()
	who := numbered(1)
	s.play(func() {
		for range 10_000 {
			s.ask(who, "", ms)
		}
	})
	idle(s.lane)
	if n := cap(s.lane.lines[who].work); n > 64 {
		t.Errorf("no work waits in room for %d", n)
	}
}

// A lane that is made smaller has less work run, once what runs is done, and one
// that is made larger begins what waits.
func TestResize(t *testing.T) {
	l := newLane(3)
	began, end := make(chan int, 10), make(chan struct{})
	for i := range 6 {
		l.submit(numbered(i), func() {
			began <- i
			<-end
		})
	}
	running := func(want int) {
		t.Helper()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.running != want {
			t.Fatalf("%d pieces of work run, want %d", l.running, want)
		}
	}
	for range 3 {
		<-began
	}
	l.resize(func() int { return 1 })
	running(3)
	for range 3 { // two workers have nothing more to do; the third goes on
		end <- struct{}{}
	}
	<-began
	running(1)
	l.resize(func() int { return 2 })
	<-began
	running(2)
	for range 3 {
		end <- struct{}{}
	}
	<-began
	l.submit(numbered(9), func() {})
}
