package session_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sealift/codec"
	"sealift/session"
	"sealift/storage"
)

// thread is a host with a goroutine of its own, and one more for each piece of
// work. The test for data races runs on it.
type thread struct {
	w       *world
	mu      sync.Mutex
	arrived sync.Cond
	tasks   []func()
	pending int // pieces of work whose done has not run
	replies []string
	lent    int
}

func (h *thread) post(f func()) {
	h.mu.Lock()
	h.tasks = append(h.tasks, f)
	h.arrived.Signal()
	h.mu.Unlock()
}

func (h *thread) begin() {
	h.mu.Lock()
	h.pending++
	h.mu.Unlock()
}

func (h *thread) Send(reply []byte) { h.replies = append(h.replies, describe(h.w.t, reply)) }

func (h *thread) Do(_ session.Lane, work func(context.Context), done func()) {
	h.begin()
	if done == nil {
		done = func() {}
	}
	if work == nil {
		h.post(done)
		return
	}
	go func() {
		work(context.Background())
		h.post(done)
	}()
}

func (h *thread) Apply(op storage.Operation, done func(error)) {
	h.begin()
	go func() {
		err := h.w.reg.Apply(context.Background(), []storage.Operation{op})
		if err == nil {
			err = op.Result().Err
		}
		h.post(func() {
			if done != nil {
				done(err)
			}
		})
	}()
}

func (h *thread) Buffer(size int) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lent++
	return make([]byte, size)
}

func (h *thread) Release([]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lent--
}

func (h *thread) Hold(int) bool   { return true }
func (h *thread) Unhold(int)      {}
func (h *thread) Hangup(r string) { h.w.t.Error(r) }
func (h *thread) Now() time.Time  { return h.w.now }

// serve feeds s all of p, and returns when nothing is under way any more.
func (h *thread) serve(s *session.Session, p []byte) {
	for {
		p = p[s.Feed(p[:min(len(p), 10_000)]):]
		h.mu.Lock()
		for len(h.tasks) == 0 && (s.Working() || h.pending > 0 && len(p) == 0) {
			h.arrived.Wait()
		}
		if len(h.tasks) == 0 && len(p) == 0 {
			h.mu.Unlock()
			return
		}
		tasks := h.tasks
		h.tasks = nil
		h.pending -= len(tasks)
		h.mu.Unlock()
		for _, f := range tasks {
			f()
		}
	}
}

// TestParallel: connections of one client on goroutines of their own bring files
// to the same paths, while maintenance takes its turns at them.
func TestParallel(t *testing.T) {
	w := newWorld(t, session.Config{})
	p := w.known("alice")
	hosts := make([]*thread, 6)
	var wg, maintenance sync.WaitGroup
	stop := make(chan struct{})
	maintenance.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				w.svc.Exclusive(p.id, fmt.Sprint("f", n%3), func() {})
			}
		}
	})
	for i := range hosts {
		h := &thread{w: w}
		h.arrived.L = &h.mu
		hosts[i] = h
		wg.Go(func() {
			s := session.New(w.svc, h, "test")
			var wire []byte
			for n := range 30 {
				name := fmt.Sprint("f", n%3)
				packets := p.packets(spec, name, random(uint64(i), 20_000+i), 3000)
				if n%2 == 0 {
					slices.Reverse(packets)
				}
				wire = append(wire, slices.Concat(packets...)...)
				wire = append(wire, p.ok(name)...)
				if n%7 == 0 {
					wire = append(wire, p.verdict(codec.CodeAbort, name)...)
				}
			}
			h.serve(s, wire)
			s.Closed()
			h.serve(s, nil)
		})
	}
	wg.Wait()
	close(stop)
	maintenance.Wait()
	for i, h := range hosts {
		if h.lent != 0 {
			t.Errorf("connection %d: %d buffers not released", i, h.lent)
		}
		got := 0
		for _, r := range h.replies {
			if strings.HasPrefix(r, "1603") {
				got++
			}
		}
		if got != 30 {
			t.Errorf("connection %d: %d files received", i, got)
		}
		if n := len(h.replies); n != 30+30+5 {
			t.Errorf("connection %d: %d replies", i, n)
		}
	}
	w.clean()
	for n := range 3 {
		f := w.row(p.id, fmt.Sprint("f", n), true)
		if f == nil || received("", w.files.stored[place(p.id, f.Path)]) != fmt.Sprintf("1603  %d %08x", f.Size, f.Cksum) {
			t.Errorf("f%d is not whole: %+v", n, f)
		}
	}
}
