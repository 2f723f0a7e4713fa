package session_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"sealift/codec"
	"sealift/session"
)

// TestNoCoroutineIsLeft closes all connections after each step of clients that
// send every request that waits, two of them for one path. When the work that was
// under way is done, no coroutine is left but the idle ones. The test runs beside
// no other: it counts those of the process.
func TestNoCoroutineIsLeft(t *testing.T) {
	most := 0
	for seed := range uint64(8) {
		for at, over := 0, false; !over; at++ {
			w := newWorld(t, session.Config{})
			w.shuffle(rand.New(rand.NewPCG(seed, 5)))
			w.files.folds = strings.ToLower // a 1028 asks the registry as well
			everyRequest(w)
			for range at {
				over = !w.step()
			}
			most = max(most, coroutines()-session.IdleCoroutines())
			w.hangUp()
			if n, idle := coroutines(), session.IdleCoroutines(); n != idle {
				t.Fatalf("%d coroutines and %d idle after connections were closed at step %d with seed %d", n, idle, at, seed)
			}
		}
	}
	if most < 2 {
		t.Errorf("at most %d coroutines at a time: the requests did not wait beside each other", most)
	}
}

// coroutines is how many the process has, by the stacks of its goroutines.
func coroutines() int {
	return bytes.Count(stacks[:runtime.Stack(stacks, true)], []byte("\ncreated by iter.Pull"))
}

var stacks = make([]byte, 4<<20)

// everyRequest has clients send each request that waits. Two connections want
// one path, and one goes on under its id alone with a key that is spoilt.
func everyRequest(w *world) {
	_, pub := pair[0]()
	alice, bob := w.known("alice"), w.known("bobby")
	a, b, c, d, e := w.dial(), w.dial(), w.dial(), w.dial(), w.dial()
	a.send(alice.packets(single, "f", random(1, 40), 0)...)
	a.send(alice.ok("f"), alice.ok("f"), alice.reconnect())
	b.send(alice.packets(single, "f", random(2, 60), 0)...)
	b.send(alice.verdict(codec.CodeAbort, "f"), alice.publicKey(pub))
	rejected := &peer{name: "carol"}
	rejected.id[3]++
	c.send((&peer{name: "david"}).register())
	d.send(rejected.reconnect(), rejected.publicKey(pub))
	bob.key[0]++ // it is not the one on record
	e.send(bob.packets(single, "g", random(3, 40), 0)...)
}

// TestPanicInARequest: a panic in a request that waits comes out where the host
// runs its done, and says where it happened. Nothing is left of the request, and
// another connection gets its answer.
func TestPanicInARequest(t *testing.T) {
	w := newWorld(t, session.Config{})
	p, c := w.known("alice"), w.dial()
	content := random(1, 100)
	if got := c.ask(p.packets(single, "f", content, 0)...); got != received("f", content) {
		t.Fatal(got)
	}
	core, _ := observer.New(zap.InfoLevel)
	w.svc.Log = zap.New(core, zap.Hooks(func(e zapcore.Entry) error {
		if e.Message == "verified" {
			panic("in the log")
		}
		return nil
	}))
	c.send(p.ok("f"))
	got := func() (got any) {
		defer func() { got = recover() }()
		w.run()
		return nil
	}()
	if text := fmt.Sprint(got); !strings.Contains(text, "in the log") || !strings.Contains(text, "verdict.go") {
		t.Errorf("the panic says %q, and not what it was and where", text)
	}
	if n := w.svc.Locked(); n != 0 {
		t.Errorf("%d paths stay locked", n)
	}
	c.close()
	if n, idle := coroutines(), session.IdleCoroutines(); n != idle {
		t.Errorf("%d coroutines, %d idle", n, idle)
	}
	w.svc.Log = zap.NewNop()
	if got := w.dial().ask(p.ok("f")); got != "1604" {
		t.Errorf("another connection gets %q", got)
	}
	w.verified(p, "f", content)
	w.hangUp()
}

// TestHostPanics: the host panics when a request asks it for work or an operation. The
// panic comes out where the host had called the session, nothing is left of the request, and
// another connection gets its answer.
func TestHostPanics(t *testing.T) {
	for nth := 1; ; nth++ {
		w := newWorld(t, session.Config{})
		p, c := w.known("alice"), w.dial()
		content := random(1, 100)
		if got := c.ask(p.packets(single, "f", content, 0)...); got != received("f", content) {
			t.Fatal(got)
		}
		c.send(p.ok("f"), p.ok("f"))
		c.failIn = nth
		got := func() (got any) {
			defer func() { got = recover() }()
			w.run()
			return nil
		}()
		if c.failIn > 0 {
			if nth < 4 {
				t.Errorf("only %d calls", nth-1)
			}
			return
		}
		if text := fmt.Sprint(got); !strings.Contains(text, errInjected.Error()) || !strings.Contains(text, "verdict.go") {
			t.Errorf("call %d: the panic says %q, and not what it was and where", nth, text)
		}
		if n := w.svc.Locked(); n != 0 {
			t.Errorf("call %d: %d paths stay locked", nth, n)
		}
		c.close()
		if n, idle := coroutines(), session.IdleCoroutines(); n != idle {
			t.Errorf("call %d: %d coroutines, %d idle", nth, n, idle)
		}
		if got := w.dial().ask(p.ok("f")); got != "1604" {
			t.Errorf("call %d: another connection gets %q", nth, got)
		}
		w.verified(p, "f", content)
		w.hangUp()
	}
}

// TestIdleCoroutines: of more requests than coroutines may be idle, as many as may are kept, and
// taken again.
func TestIdleCoroutines(t *testing.T) {
	const n = 4 * session.MaxIdleCoroutines
	w := newWorld(t, session.Config{})
	p := w.known("alice")
	for range n {
		w.dial().ask(p.ok("f")) // it is about to know its client
	}
	verdicts := func(to []*conn) {
		for i, c := range to {
			c.send(p.verdict(codec.CodeAbort, fmt.Sprint("f", i)))
		}
	}
	verdicts(w.conns)
	most, steps := 0, 0
	w.choose = func(n int) int { // verdicts first, then what they wait for
		if steps++; steps%32 == 0 {
			most = max(most, coroutines())
		}
		return n - 1
	}
	w.run()
	if most < n/2 {
		t.Errorf("at most %d coroutines for %d requests", most, n)
	}
	kept := func() {
		t.Helper()
		if n, idle := coroutines(), session.IdleCoroutines(); n != session.MaxIdleCoroutines || idle != n {
			t.Errorf("at rest there are %d coroutines, want %d; %d are idle", n, session.MaxIdleCoroutines, idle)
		}
	}
	kept()
	verdicts(w.conns[:session.MaxIdleCoroutines])
	w.choose = func(n int) int {
		if steps++; steps%16 == 0 && coroutines() > session.MaxIdleCoroutines {
			t.Error("a request makes a coroutine while one is idle")
		}
		return n - 1
	}
	w.run()
	kept()
	w.hangUp()
}
