package eventloop

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"sealift/codec"
)

// BenchmarkLane has 128 clients wait for a lane of 8, one job each.
func BenchmarkLane(b *testing.B) {
	l := &lane{size: 8}
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

// order runs jobs on a lane with one worker, which begins when all are in, and
// returns the names in the order in which they ran.
func order(jobs func(submit func(who turn, name string))) (ran []string) {
	l := &lane{size: 1}
	start, all := make(chan struct{}), sync.WaitGroup{}
	l.submit(turn{}, func() { <-start })
	jobs(func(who turn, name string) {
		all.Add(1)
		l.submit(who, func() {
			ran = append(ran, name)
			all.Done()
		})
	})
	close(start)
	all.Wait()
	return ran
}

// Clients have their turns, however much one of them asks for, and however many
// connections it has; what one asks for is done in order.
func TestTurns(t *testing.T) {
	a, b, unknown := turn{id: codec.ClientID{1}}, turn{id: codec.ClientID{2}}, turn{c: new(conn)}
	got := order(func(submit func(turn, string)) {
		for i := range 5 {
			submit(a, fmt.Sprint("a", i))
		}
		submit(b, "b0")
		submit(unknown, "u0")
		submit(b, "b1")
		submit(turn{c: new(conn)}, "v0")
	})
	want := []string{"a0", "b0", "u0", "v0", "a1", "b1", "a2", "a3", "a4"}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A client that always has work waiting takes no more and more memory for it.
func TestALineThatIsNeverEmpty(t *testing.T) {
	l := &lane{size: 1}
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
