package session_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sealift/codec"
	"sealift/session"
	"sealift/storage"
)

// toldOf is for how many refusals the lines of a log account.
func toldOf(logs *observer.ObservedLogs) (n int64) {
	for _, line := range logs.All() {
		fields := line.ContextMap()
		switch line.Message {
		case "request refused", "transfer refused", "registration failed", "reconnect rejected":
			n++
		}
		for _, key := range []string{"left_out", "times"} {
			if more, ok := fields[key].(int64); ok {
				n += more
			}
		}
	}
	return n
}

// TestLinesOfFailuresAreLimited: a disk that is full is no way to fill the log, whatever
// names the files have.
func TestLinesOfFailuresAreLimited(t *testing.T) {
	const limit = 20
	w := newWorld(t, session.Config{})
	logs := w.loggedFrom(zap.InfoLevel)
	p := w.known("alice")
	c := w.dialFrom("192.0.2.1:1")
	if got := c.ask(p.verdict(codec.CodeAbort, "nothing")); got != "1604" { // it resumes
		t.Fatal(got)
	}
	name := 0
	for message, fail := range map[string]func() string{
		"transfer failed": func() string {
			name++
			w.files.faults.failOn, w.files.faults.fail = "Create", func() error { return storage.ErrFull }
			return c.ask(p.packets(single, fmt.Sprint("file ", name), []byte("content"), 0)...)
		},
		"request failed": func() string {
			w.reg.faults.failOn = "Apply *storage.GetFile"
			return c.ask(p.ok("nothing"))
		},
	} {
		for range limit + 5 {
			if got := fail(); got != "1607" {
				t.Fatalf("%s: %s", message, got)
			}
		}
		if n := logs.FilterMessage(message).Len(); n != limit {
			t.Fatalf("%s: %d lines, want %d: %v", message, n, limit, logs.All()[max(0, logs.Len()-3):])
		}
		w.now = w.now.Add(10 * time.Second)
		fail()
		all := logs.FilterMessage(message).All()
		if last := all[len(all)-1]; last.ContextMap()["left_out"] != int64(5) || last.Level != zap.ErrorLevel {
			t.Errorf("%s, 10 s later: %v", message, last)
		}
	}
	w.files.faults.fail = nil
	c.close()
	w.hangUp()
}

// TestLinesAreLimited: of one address and reason the log gets 20 lines in 10 s. What is
// left out is told with the next line, or by itself.
func TestLinesAreLimited(t *testing.T) {
	const limit = 20
	w := newWorld(t, session.Config{})
	logs := w.loggedFrom(zap.InfoLevel)
	p := w.known("alice")
	offend := func(remote string, n int) {
		t.Helper()
		c := w.dialFrom(remote)
		if got := c.ask(p.reconnect()); got != "1605" {
			t.Fatal(got)
		}
		logs.TakeAll()
		for range n {
			if got := c.ask(p.ok("nothing")); got != "1607" {
				t.Fatal(got)
			}
		}
		c.close()
	}
	lines := func() []observer.LoggedEntry { return logs.FilterMessage("request refused").All() }

	offend("192.0.2.1:1", limit+5)
	if n := len(lines()); n != limit {
		t.Errorf("%d lines, want %d", n, limit)
	}
	offend("192.0.2.1:2", 1)
	if n := len(lines()); n != 0 {
		t.Errorf("from another port: %d lines", n)
	}
	offend("192.0.2.2:1", 1)
	if n := len(lines()); n != 1 {
		t.Errorf("from another address: %d lines", n)
	}
	c := w.dialFrom("192.0.2.1:3")
	logs.TakeAll()
	c.ask(p.register(), p.register(), p.ok(".."))
	if n := len(lines()); n != 1 {
		t.Errorf("for another reason: %d lines", n)
	}
	if n := logs.FilterMessage("registration failed").Len(); n != 2 {
		t.Errorf("of 1601: %d lines", n)
	}

	w.now = w.now.Add(10 * time.Second)
	offend("192.0.2.1:1", 2)
	got := lines()
	if len(got) != 2 || got[0].ContextMap()["left_out"] != int64(6) || got[1].ContextMap()["left_out"] != nil {
		t.Errorf("10 s later: %v", got)
	}

	offend("[2001:db8::1]:1", limit+1)
	offend("[2001:db8::2]:1", 1)
	logs.TakeAll()
	w.svc.Tick(w.now.Add(9 * time.Second))
	if logs.Len() > 0 {
		t.Errorf("too early: %v", logs.All())
	}
	w.svc.Tick(w.now.Add(10 * time.Second))
	told := logs.FilterMessage("refusals left out").All()
	want := map[string]any{"address": "2001:db8::", "kind": "verdict", "left_out": int64(2)}
	if len(told) != 1 || logs.Len() != 1 || fmt.Sprint(told[0].ContextMap()) != fmt.Sprint(want) || told[0].Level != zap.WarnLevel {
		t.Errorf("by the tick: %v", logs.All())
	}
	if n := w.svc.Quiet(); n != 0 {
		t.Errorf("%d kinds of lines are remembered", n)
	}

	offend("192.0.2.1:1", limit+7)
	logs.TakeAll()
	w.svc.End()
	if told := logs.FilterMessage("refusals left out").FilterField(zap.Int("left_out", 7)); told.Len() != 1 || logs.Len() != 1 {
		t.Errorf("at the end: %v", logs.All())
	}
	w.hangUp()
}

// TestOthersAreNotAnAddress: what was left out of addresses that share what they may log is
// not told with a line about one of them.
func TestOthersAreNotAnAddress(t *testing.T) {
	w := newWorld(t, session.Config{})
	logs := w.loggedFrom(zap.InfoLevel)
	p := w.known("alice")
	offend := func(n, times int) {
		c := w.dialFrom(fmt.Sprintf("10.%d.%d.%d:9", n>>16, n>>8&255, n&255))
		for range times {
			c.ask(p.publicKey(make([]byte, codec.PublicKeySize)))
		}
		c.close()
	}
	for n := range session.MaxQuiet {
		offend(n, 1)
	}
	offend(session.MaxQuiet, 25)
	w.now = w.now.Add(10 * time.Second)
	logs.TakeAll()
	offend(session.MaxQuiet+1, 1)
	if got := logs.FilterMessage("request refused").All(); len(got) != 1 || got[0].ContextMap()["left_out"] != nil {
		t.Errorf("of another address: %v", got)
	}
	w.svc.Tick(w.now.Add(10 * time.Second))
	if told := logs.FilterMessage("refusals left out").FilterField(zap.Int("left_out", 5)); told.Len() != 1 || told.All()[0].ContextMap()["address"] != "others" {
		t.Errorf("by the tick: %v", logs.FilterMessage("refusals left out").All())
	}
}

// TestNoRefusalIsLost: whoever is refused how often, from however many addresses, the
// log accounts for each of them, and memory is bounded.
func TestNoRefusalIsLost(t *testing.T) {
	w := newWorld(t, session.Config{})
	logs := w.loggedFrom(zap.InfoLevel)
	p := w.known("alice")
	r := rand.New(rand.NewPCG(1, 2))
	var sent int64
	total := int64(0)
	for n := range 3 * session.MaxQuiet {
		if n%3000 == 0 {
			w.now = w.now.Add(time.Duration(r.IntN(8)) * time.Second)
			total += toldOf(logs)
			logs.TakeAll()
		}
		if r.IntN(2000) == 0 {
			w.svc.Tick(w.now)
		}
		c := w.dialFrom(fmt.Sprintf("10.%d.%d.%d:9", n>>16, n>>8&255, n&255))
		for range 1 + 30*(r.IntN(50)/49) {
			sent++
			switch r.IntN(3) {
			case 0:
				c.ask(p.register())
			case 1:
				c.ask(p.publicKey(make([]byte, codec.PublicKeySize)))
			case 2:
				c.ask((&peer{name: "nobody"}).reconnect())
			}
		}
		c.close()
		w.conns = slices.Delete(w.conns, 0, len(w.conns))
		if n := w.svc.Quiet(); n > session.MaxQuiet+3*int(session.Reasons) {
			t.Fatalf("%d kinds of lines are remembered", n)
		}
	}
	w.svc.End()
	if total += toldOf(logs); total != sent {
		t.Errorf("%d refusals, and the log accounts for %d", sent, total)
	}
	if logs.FilterField(zap.String("address", "others")).Len() == 0 {
		t.Error("no addresses shared what they may log")
	}
}

// TestNoTransferIsLost is TestNoRefusalIsLost for transfers, of which only some that are
// refused get a 1607.
func TestNoTransferIsLost(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 3))
		w := newWorld(t, session.Config{})
		logs := w.logged()
		p := w.known("alice")
		sent := int64(0)
		for range 5 {
			c := w.dial()
			c.ask(p.reconnect())
			for range 40 {
				name := fmt.Sprint("f", r.IntN(20)) // more than are remembered
				for range 1 + r.IntN(10) {
					sent++
					c.send(edit(p.packets(single, name, []byte("content"), 0)[0], 4, 99, 0))
				}
				c.feed(len(c.in))
				if w.rush(); r.IntN(3) == 0 {
					c.s.Tick()
				}
				w.now = w.now.Add(time.Duration(r.IntN(1000)) * time.Millisecond)
				if r.IntN(10) == 0 {
					w.svc.Tick(w.now)
				}
			}
			w.run()
			c.close()
		}
		w.hangUp()
		w.svc.End()
		// A line with times is about one of these, or about one more.
		unsure := int64(0)
		for _, line := range logs.FilterMessage("transfer refused").All() {
			if line.ContextMap()["times"] != nil {
				unsure++
			}
		}
		if got := toldOf(logs); got < sent || got-unsure > sent {
			t.Errorf("seed %d: %d transfers were refused, and the log accounts for %d to %d", seed, sent, got-unsure, got)
		}
		if n := logs.FilterMessage("transfer refused").Len(); int64(n) == sent {
			t.Errorf("seed %d: nothing was left out", seed)
		}
	}
}
