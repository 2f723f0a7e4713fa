package eventloop

import (
	"math/rand/v2"
	"testing"

	"sealift/session"
)

// What buffers take is never more than the budget, in whatever sizes they are
// asked for, and all of it goes back to the system once nobody uses it.
func TestCacheStaysWithinItsLimit(t *testing.T) {
	const limit = 4 << 20
	m := cache{limit: limit}
	rng := rand.New(rand.NewPCG(1, 2))
	var live [][]byte
	used := 0
	for range 20_000 {
		index := rng.IntN(classes)
		size := session.MinBuffer << index
		for used+size > limit || len(live) > 0 && rng.IntN(3) == 0 {
			i := rng.IntN(len(live))
			buf := live[i]
			live = append(live[:i], live[i+1:]...)
			used -= len(buf)
			index, _ := class(len(buf))
			m.put(index, buf)
		}
		buf := m.get(index)
		if len(buf) != size {
			t.Fatalf("a buffer of %d bytes, not %d", len(buf), size)
		}
		buf[0], buf[size-1] = 1, 1 // it is memory
		live = append(live, buf)
		if used += size; m.mapped > limit {
			t.Fatalf("%d bytes are taken for %d in use, the limit is %d", m.mapped, used, limit)
		}
		if rng.IntN(100) == 0 {
			m.trim()
		}
	}
	for _, buf := range live {
		index, _ := class(len(buf))
		m.put(index, buf)
	}
	m.trim() // the first one only begins to watch
	m.trim()
	if m.mapped != 0 {
		t.Errorf("%d bytes are still taken", m.mapped)
	}
}
