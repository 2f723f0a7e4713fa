//go:build linux

package soak

import (
	"slices"
	"strings"
	"sync"
	"syscall"
)

// traces is what a server holds that has served and has nothing to do.
type traces struct {
	descriptors int
	goroutines  map[string]int // how many, by the function that began them
}

// rest is what atRest has found.
var rest struct {
	sync.Mutex
	*traces
}

// idleCoroutine is what begins a coroutine that runs no request, and is kept for the next one: 128
// at most. One that runs a request waits for something, and is left.
const idleCoroutine = "an earlier request"

// finishing is how many goroutines there may be beyond those: the last LastSeen is being written,
// and the last file removed, when all clients have left. Coroutines are kept.
var finishing = map[string]int{
	idleCoroutine:                               127,
	"sealift/storage.(*batches).submit":         2,
	"sealift/eventloop.(*lane).submit":          1,
	"sealift/internal/logqueue.(*Writer).Write": 1,
}

// finish ends the scenario of a server that all clients have left: its
// goroutines and descriptors must be those of one that has served one client.
// It kills the server.
func (s *server) finish() {
	s.r.Helper()
	want := s.r.atRest()
	s.r.until("descriptors to be closed", func() bool { return s.descriptors() <= want.descriptors+s.r.awaited(s.dir) })
	for by, n := range s.goroutines() {
		if n > want.goroutines[by]+finishing[by] {
			s.r.Errorf("%d goroutines begun by %s are left, a server at rest has %d", n, by, want.goroutines[by])
		}
	}
}

// atRest looks, once, at a server that has served one client.
func (r *run) atRest() traces {
	r.Helper()
	rest.Lock()
	defer rest.Unlock()
	if rest.traces == nil {
		s := r.start(r.TempDir())
		c := s.join("the one client", 0)
		c.mustUpload("a", pattern(1, 1000), 100)
		c.close()
		s.await(func(l line) bool { return l.Msg == "connection closed" })
		rest.traces = &traces{descriptors: s.descriptors()}
		rest.goroutines = s.goroutines()
	}
	return *rest.traces
}

// goroutines ends the server with SIGQUIT and counts, in its last words, the
// goroutines that are not the runtime's or main's own.
func (s *server) goroutines() map[string]int {
	s.r.Helper()
	s.signal(syscall.SIGQUIT)
	s.wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := make(map[string]int)
	before, dump, _ := strings.Cut(s.other.String(), "SIGQUIT: quit")
	for stack := range strings.SplitSeq(dump, "\n\n") {
		_, by, ok := strings.Cut(stack, "\ncreated by ")
		by, _, _ = strings.Cut(by, " in goroutine")
		if strings.HasPrefix(by, "iter.Pull") && !strings.Contains(stack, "sealift/session.(*coroutine).wait(") {
			by = idleCoroutine
		}
		if ok && !hasAnyPrefix(by, "runtime.", "os/signal.", "main.") {
			n[by]++
		}
	}
	s.other.Reset()
	s.other.WriteString(before)
	return n
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}
