package session_test

import (
	"testing"

	"sealift/session"
)

// mostSchedules bounds what every tries, so that a test that grows says so.
const mostSchedules = 400_000

// every runs a scenario under every schedule there is: set prepares the world
// and has clients send; then all that can happen happens, in each order; then
// check looks at the result. It returns how many schedules there were.
func every(t *testing.T, set, check func(w *world)) int {
	t.Helper()
	var path, width []int // the choices of this run, and among how many
	for n := 1; ; n++ {
		w := newWorld(t, session.Config{})
		w.plain = true
		set(w)
		at := 0
		w.choose = func(k int) int {
			if k == 1 {
				return 0
			}
			if at == len(path) {
				path, width = append(path, 0), append(width, k)
			}
			at++
			return path[at-1]
		}
		w.run()
		check(w)
		w.choose = first
		w.hangUp()
		if t.Failed() {
			t.Fatalf("with schedule %v", path)
		}
		i := len(path) - 1
		for i >= 0 && path[i]+1 == width[i] {
			i--
		}
		if i < 0 {
			return n
		}
		if n == mostSchedules {
			t.Fatalf("more than %d schedules", n)
		}
		path, width = append(path[:i:i], path[i]+1), width[:i+1]
	}
}
